//! An outbox in front of a broker: while the broker is away, messages go to disk here, and are forwarded when it
//! is back.
//!
//! - An `Ok` means that the broker has the message, or that the message is synced to disk in the outbox. The
//!   receipt says which ([`AcceptedBy`]).
//! - Each queue has a [line](queue) of its own, in the order of acceptance. While anything waits in the line, every
//!   message for that queue goes through it. If the broker goes away during forwarding, the messages that were on
//!   their way then ([`IN_FLIGHT`] at most) may arrive in another order.
//! - A message is forwarded once, and deleted when the broker has confirmed it. If this process dies between the
//!   two, or the broker took a message and could not say so, the message is sent again under the same id. No queue
//!   without a shared transaction can do better, so tasks are written to run twice.
//! - A message that the broker refuses for good is a dead letter of the outbox, beside those of the broker.
//!
//! Only the enqueue is decoupled: to be settled, tasks that run here still need the broker.

mod abilities;
mod queue;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use futures_util::FutureExt;
use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::embedded::EmbeddedOptions;
use super::{
    Backlog, Broker, BrokerError, BrokerFacts, BrokerNotes, BulkChanges, Condition, Consumer, DeadLetter,
    DeadLetterQueue, EmbeddedBroker, Events, FailedTasks, Inspect, Lanes, PublishFuture, QueueCounts,
    Results, Sink, TenantBacklog, UniqueWindows,
};
use crate::store::Store;
use crate::task::{AcceptedBy, Durability, Message, Receipt, TaskId};
#[cfg(doc)]
use queue::IN_FLIGHT;
use queue::{OLD, OutboxQueue, Way, name_of, wrap};

#[cfg(feature = "cli")]
pub(crate) use queue::is_line;
pub(crate) use queue::opened;

/// A broker with an outbox in front of it.
pub struct OutboxBroker {
    way: Arc<Way>,
    outbox: EmbeddedBroker,
    /// The lines by their names in the outbox.
    lines: Mutex<HashMap<String, Arc<OutboxQueue>>>,
    /// Held while a line is opened, so that it is opened once.
    opening: tokio::sync::Mutex<()>,
    /// The line that an earlier version left, which had one line for all queues.
    old: Option<Arc<OutboxQueue>>,
    runtime: Handle,
    closing: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl OutboxBroker {
    /// Puts an outbox in `dir` in front of `inner`, and begins to forward what was left there. `store` gets the
    /// records of tasks that are revoked before they are forwarded, or that `inner` refuses for good.
    ///
    /// # Errors
    /// The directory is in use by another process, damaged, or not writable.
    pub async fn open(
        inner: Arc<dyn Broker>,
        store: Arc<dyn Store>,
        dir: impl AsRef<Path>,
        options: EmbeddedOptions,
    ) -> Result<Self, BrokerError> {
        let dir = dir.as_ref().to_owned();
        let outbox = blocking::unblock(move || EmbeddedBroker::open(dir, options)).await?;
        let closing = CancellationToken::new();
        let (runtime, thread) = start(closing.clone())?;
        let way = Arc::new(Way { inner, store, listener: watch::Sender::new(None) });
        let left = outbox.queues().await?;
        let old = match left.iter().find(|name| *name == OLD) {
            Some(name) => Some(OutboxQueue::open(name, &outbox, Arc::clone(&way), None, &runtime).await?),
            None => None,
        };
        let broker = Self {
            way,
            outbox,
            lines: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            old,
            runtime,
            closing,
            thread: Some(thread),
        };
        for name in left.iter().filter(|name| *name != OLD) {
            broker.line(name).await?;
        }
        Ok(broker)
    }

    /// The number of messages that wait in the outbox.
    pub fn pending(&self) -> u64 {
        self.all().iter().map(|line| line.pending()).sum()
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<String, Arc<OutboxQueue>>> {
        self.lines.lock()
    }

    fn all(&self) -> Vec<Arc<OutboxQueue>> {
        self.lines().values().chain(&self.old).cloned().collect()
    }

    /// The line of this name in the outbox, if it is open.
    fn known(&self, name: &str) -> Option<Arc<OutboxQueue>> {
        if name == OLD { self.old.clone() } else { self.lines().get(name).cloned() }
    }

    /// The line of this name in the outbox, which is opened if it is not.
    async fn line(&self, name: &str) -> Result<Arc<OutboxQueue>, BrokerError> {
        if let Some(line) = self.known(name) {
            return Ok(line);
        }
        let _one_at_a_time = self.opening.lock().await;
        if let Some(line) = self.known(name) {
            return Ok(line);
        }
        let (way, first) = (Arc::clone(&self.way), self.old.clone());
        let line = OutboxQueue::open(name, &self.outbox, way, first, &self.runtime).await?;
        self.lines().insert(name.to_owned(), Arc::clone(&line));
        Ok(line)
    }

    /// Whether a message waits that goes before a new one for this queue.
    fn goes_behind(&self, queue: &str) -> bool {
        let waits = |line: &Arc<OutboxQueue>| line.pending() > 0;
        self.lines().get(&name_of(queue)).is_some_and(waits) || self.old.as_ref().is_some_and(waits)
    }

    async fn publish_or_keep(&self, message: Arc<Message>, unique: bool) -> Result<Receipt, BrokerError> {
        if self.goes_behind(&message.queue) || self.way.inner.condition().is_unavailable {
            return self.keep(Arc::unwrap_or_clone(message), unique).await;
        }
        match self.way.inner.begin_publish(Arc::clone(&message), unique).await {
            // The broker did not take the message, or it is not known whether it did: it is sent again under the
            // same id.
            Err(error @ (BrokerError::Io(_) | BrokerError::Panicked(_) | BrokerError::Full(_))) => {
                tracing::warn!(id = %message.id, %error, "the broker does not take it; it goes to the outbox");
                self.keep(Arc::unwrap_or_clone(message), false).await
            }
            other => other,
        }
    }

    async fn keep(&self, message: Message, unique: bool) -> Result<Receipt, BrokerError> {
        let (id, queue) = (message.id.clone(), message.queue.clone());
        let line = self.line(&name_of(&queue)).await?;
        // The message is counted first, so that nothing that is accepted after it can overtake it.
        line.expect(1);
        let kept = match wrap(message) {
            Ok(message) => self.outbox.publish(message, unique).await,
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            line.forget(1);
            return Err(error);
        }
        Ok(Receipt::new(id, queue, Durability::Disk).kept_by(AcceptedBy::Outbox))
    }

    /// Puts those dead letters back that are the outbox's own. Answers with their ids.
    async fn requeue_own(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
        if self.all().iter().all(|line| line.dead() == 0) {
            return Ok(Vec::new());
        }
        let wanted: HashSet<&TaskId> = ids.iter().collect();
        let letters = self.outbox.dead_letters(usize::MAX).await?;
        let mut own = Vec::new();
        for message in letters.into_iter().map(|letter| letter.message).filter(|m| wanted.contains(&m.id)) {
            own.push((self.line(&message.queue).await?, message.id));
        }
        own.iter().for_each(|(line, _)| line.expect(1));
        let ids: Vec<TaskId> = own.iter().map(|(_, id)| id.clone()).collect();
        let requeued = self.outbox.requeue_dead_letters(&ids).await;
        let back: HashSet<&TaskId> = requeued.iter().flatten().collect();
        for (line, id) in &own {
            if back.contains(id) { line.requeued(1) } else { line.forget(1) }
        }
        requeued
    }
}

/// Starts the thread of an outbox's lines, so that they depend on no event loop of the program's.
fn start(closing: CancellationToken) -> Result<(Handle, JoinHandle<()>), BrokerError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| BrokerError::io_because(format!("no event loop for the outbox: {e}"), e))?;
    let handle = runtime.handle().clone();
    let thread = std::thread::Builder::new()
        .name("celeriac-outbox".to_owned())
        .spawn(move || runtime.block_on(closing.cancelled()))
        .map_err(|e| BrokerError::io_because(format!("no thread for the outbox: {e}"), e))?;
    Ok((handle, thread))
}

impl Drop for OutboxBroker {
    /// Ends the thread, which releases the directory.
    fn drop(&mut self) {
        self.closing.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl Broker for OutboxBroker {
    fn name(&self) -> &'static str {
        self.way.inner.name()
    }

    fn facts(&self) -> BrokerFacts {
        self.way.inner.facts()
    }

    fn condition(&self) -> Condition {
        Condition { is_unavailable: false, ..self.way.inner.condition() } // the outbox accepts
    }

    async fn declare(&self, queue: &str) -> Result<(), BrokerError> {
        if self.way.inner.condition().is_unavailable {
            return Ok(()); // the program that consumes the queue, or forwards to it, declares it
        }
        self.way.inner.declare(queue).await
    }

    async fn queues(&self) -> Result<Vec<String>, BrokerError> {
        self.way.inner.queues().await
    }

    async fn publish(&self, message: Message, unique: bool) -> Result<Receipt, BrokerError> {
        self.publish_or_keep(Arc::new(message), unique).await
    }

    fn begin_publish(&self, message: Arc<Message>, unique: bool) -> PublishFuture<'_> {
        self.publish_or_keep(message, unique).boxed().into()
    }

    async fn publish_all(&self, messages: Vec<Message>, unique: bool) -> Result<(), BrokerError> {
        if self.way.inner.results().is_some() {
            // A broker with results is never away, and takes all or none.
            return self.way.inner.publish_all(messages, unique).await;
        }
        for message in messages {
            self.publish(message, unique).await?;
        }
        Ok(())
    }

    fn consume(&self, queue: &str, prefetch: usize, sink: Sink) -> Result<Box<dyn Consumer>, BrokerError> {
        self.way.inner.consume(queue, prefetch, sink)
    }

    async fn counts(&self, queue: &str) -> Result<QueueCounts, BrokerError> {
        let counts = self.way.inner.counts(queue).await?;
        let own = match self.way.inner.dead_letter_queue() {
            // All letters are counted together, as the broker counts its own.
            Some(_) => self.all().iter().map(|line| line.dead()).sum(),
            None => self.known(&name_of(queue)).map_or(0, |line| line.dead()),
        };
        Ok(QueueCounts { dead: counts.dead + own, ..counts })
    }

    /// Lists the dead letters of the outbox and those of the broker.
    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        let own = self.outbox.dead_letters(limit).await?;
        let mut letters: Vec<DeadLetter> = own.into_iter().map(opened).collect();
        if !letters.is_empty() && self.way.inner.condition().is_unavailable {
            return Ok(letters); // the outbox's own letters can be seen all the same
        }
        letters.extend(self.way.inner.dead_letters(limit).await?);
        letters.sort_by_key(|letter| letter.died_at);
        letters.truncate(limit);
        Ok(letters)
    }

    async fn requeue_dead_letters(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
        let mut requeued = self.requeue_own(ids).await?;
        let rest: Vec<TaskId> = ids.iter().filter(|id| !requeued.contains(id)).cloned().collect();
        if !rest.is_empty() {
            requeued.extend(self.way.inner.requeue_dead_letters(&rest).await?);
        }
        Ok(requeued)
    }

    async fn close(&self) -> Result<(), BrokerError> {
        self.closing.cancel();
        let inner = self.way.inner.close().await;
        self.outbox.close().await?;
        inner
    }

    fn results(&self) -> Option<&dyn Results> {
        self.way.inner.results()
    }

    fn lanes(&self) -> Option<&dyn Lanes> {
        self.way.inner.lanes()
    }

    fn unique_windows(&self) -> Option<&dyn UniqueWindows> {
        self.way.inner.unique_windows()
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        Some(self)
    }

    fn notes(&self) -> Option<&dyn BrokerNotes> {
        self.way.inner.notes()
    }

    fn backlog(&self) -> Option<&dyn Backlog> {
        self.way.inner.backlog()
    }

    fn events(&self) -> Option<&dyn Events> {
        Some(self)
    }

    fn dead_letter_queue(&self) -> Option<&dyn DeadLetterQueue> {
        self.way.inner.dead_letter_queue().map(|_| self as _)
    }

    /// The broker's own. The outbox's dead letters are not among them, because they never came to the broker.
    fn failed_tasks(&self) -> Option<&dyn FailedTasks> {
        self.way.inner.failed_tasks()
    }

    /// The broker's own. What is in the outbox is not in its queue yet.
    fn tenant_backlog(&self) -> Option<&dyn TenantBacklog> {
        self.way.inner.tenant_backlog()
    }

    fn bulk_changes(&self) -> Option<&dyn BulkChanges> {
        None // what lies in the outbox is on its way, and nobody moves it meanwhile
    }
}
