//! Results for a broker that keeps none (RabbitMQ): messages wait in such a *transport*, and records, chords and
//! unique windows are kept in a store. The builder puts a [`SplitBroker`] around a transport; consumers and
//! publishers see one broker.
//!
//! - A message with a unique window is published under it ([`unique_windows`]).
//! - A delivery passes through with another settler ([`settlement`]): its end leaves the record in the store, and
//!   its follow-ups are sent and counted.
//! - A task that is taken out leaves its record, and a dead letter or a failed task that goes back takes its record
//!   along ([`abilities`]).
//! - All other abilities of the transport are passed on as they are.
//!
//! Invariant: an end, which is one commit in the embedded broker, is a series of steps here. A process may die
//! between any two of them and nothing is lost: the task is delivered again, and what was done before is recognised
//! by its id.

mod abilities;
mod settlement;
mod unique_windows;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{JoinHandle, current};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::completer::{self, Completer, PlanFollowUps};
use super::{
    Backlog, Broker, BrokerError, BrokerFacts, BrokerListener, BrokerNotes, BulkChanges, Condition, Consumer,
    DeadLetter, DeadLetterQueue, Delivery, Events, FailedTasks, FollowUps, Inspect, Lanes, PublishFuture,
    QueueCounts, Results, Sink, TenantBacklog, UniqueWindows,
};
use crate::store::Store;
use crate::task::{Message, Receipt, TaskId, TaskResult};

/// How long a close waits for ends that are being kept. The tasks of those that are not kept by then run again.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// A broker made of a transport, which carries the messages, and a store, which keeps the results.
pub struct SplitBroker {
    shared: Arc<SplitInner>,
    closing: CancellationToken,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the settlers and abilities of one broker share.
struct SplitInner {
    transport: Arc<dyn Broker>,
    store: Arc<dyn Store>,
    /// Whether the store is told of each task that is sent.
    marks_sent: bool,
    /// The runtime, to which this broker belongs; the close lets it go, because the two hold each other.
    listener: Mutex<Option<Arc<dyn BrokerListener>>>,
    /// The event loop that ends are kept on. It has a thread of its own, so a body that blocks an event loop of the
    /// program holds up no end.
    runtime: Handle,
    /// The number of ends that are being kept.
    ending: AtomicUsize,
    /// Notified whenever one of them is kept.
    ended: Notify,
}

impl SplitBroker {
    /// Keeps the results of `transport` in `store`. All processes that consume from one transport must use the same
    /// store.
    ///
    /// # Errors
    /// The thread for the ends could not be started.
    pub fn open(transport: Arc<dyn Broker>, store: Arc<dyn Store>) -> Result<Self, BrokerError> {
        let closing = CancellationToken::new();
        let (runtime, thread) = start(closing.clone())?;
        let shared = Arc::new(SplitInner {
            transport,
            store,
            marks_sent: false,
            listener: Mutex::default(),
            runtime,
            ending: AtomicUsize::new(0),
            ended: Notify::new(),
        });
        Ok(Self { shared, closing, thread: Mutex::new(Some(thread)) })
    }

    /// Has the store told of each task that follows from another one or runs again, before it is sent. Whoever sends a task
    /// through this broker tells the store himself.
    #[must_use]
    pub(crate) fn marking_sent(mut self, marks_sent: bool) -> Self {
        // Nobody else has it yet.
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.marks_sent = marks_sent;
        }
        self
    }

    /// Ends the thread. The deliveries whose ends it has in hand go back to the transport.
    fn take_thread(&self) -> Option<JoinHandle<()>> {
        self.closing.cancel();
        self.thread.lock().take()
    }
}

fn start(closing: CancellationToken) -> Result<(Handle, JoinHandle<()>), BrokerError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| BrokerError::io_because(format!("no event loop for what is settled: {e}"), e))?;
    let handle = runtime.handle().clone();
    let thread = std::thread::Builder::new()
        .name("celeriac-split".to_owned())
        .spawn(move || runtime.block_on(closing.cancelled()))
        .map_err(|e| BrokerError::io_because(format!("no thread for what is settled: {e}"), e))?;
    Ok((handle, thread))
}

impl Drop for SplitBroker {
    fn drop(&mut self) {
        if let Some(thread) = self.take_thread().filter(|thread| thread.thread().id() != current().id()) {
            let _ = thread.join();
        }
    }
}

impl SplitInner {
    /// The follow-ups of the end of a task. The runtime makes them; after the close there are none.
    fn plan_follow_ups(&self, message: &Message, record: &mut TaskResult) -> Option<Box<FollowUps>> {
        let listener = self.listener().clone()?;
        listener.plan_follow_ups(message, record)
    }

    fn listener(&self) -> MutexGuard<'_, Option<Arc<dyn BrokerListener>>> {
        self.listener.lock()
    }

    fn completer<'a>(&'a self, plan_follow_ups: &'a PlanFollowUps<'a>) -> Completer<'a> {
        Completer {
            store: &*self.store,
            broker: &*self.transport,
            marks_sent: self.marks_sent,
            windows: self.windows(),
            plan_follow_ups,
        }
    }

    /// The unique windows: the transport's if it keeps any, else the store's; `None`: neither keeps any.
    fn windows(&self) -> Option<&dyn UniqueWindows> {
        match self.transport.unique_windows() {
            Some(windows) => Some(windows),
            None => self.store.unique_windows().map(|_| self as _),
        }
    }

    /// Completes when no end is being kept.
    async fn quiet(&self) {
        loop {
            let ended = self.ended.notified();
            if self.ending.load(Ordering::Acquire) == 0 {
                return;
            }
            ended.await;
        }
    }
}

#[async_trait]
impl Broker for SplitBroker {
    fn name(&self) -> &'static str {
        self.shared.transport.name()
    }

    fn facts(&self) -> BrokerFacts {
        self.shared.transport.facts()
    }

    fn condition(&self) -> Condition {
        self.shared.transport.condition()
    }

    async fn declare(&self, queue: &str) -> Result<(), BrokerError> {
        self.shared.transport.declare(queue).await
    }

    async fn queues(&self) -> Result<Vec<String>, BrokerError> {
        self.shared.transport.queues().await
    }

    async fn publish(&self, message: Message, unique: bool) -> Result<Receipt, BrokerError> {
        unique_windows::publish(&self.shared, message, unique).await
    }

    fn begin_publish(&self, message: Arc<Message>, unique: bool) -> PublishFuture<'_> {
        if message.unique.is_none() {
            return self.shared.transport.begin_publish(message, unique);
        }
        self.publish(Arc::unwrap_or_clone(message), unique).into()
    }

    async fn publish_all(&self, messages: Vec<Message>, unique: bool) -> Result<(), BrokerError> {
        self.shared.transport.publish_all(messages, unique).await
    }

    fn consume(&self, queue: &str, prefetch: usize, sink: Sink) -> Result<Box<dyn Consumer>, BrokerError> {
        let shared = Arc::downgrade(&self.shared); // a weak one: the transport, which it holds, holds the sink
        let front: Sink = Arc::new(move |deliveries: Vec<Delivery>| {
            let through = |delivery| settlement::through(&shared, delivery);
            sink(deliveries.into_iter().map(through).collect());
        });
        self.shared.transport.consume(queue, prefetch, front)
    }

    async fn counts(&self, queue: &str) -> Result<QueueCounts, BrokerError> {
        self.shared.transport.counts(queue).await
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        self.shared.transport.dead_letters(limit).await
    }

    async fn requeue_dead_letters(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
        let shared = &self.shared;
        completer::requeue_dead_letter(&*shared.transport, &*shared.store, shared.marks_sent, ids).await
    }

    /// Closes the transport, after the ends that are being kept.
    async fn close(&self) -> Result<(), BrokerError> {
        let shared = Arc::clone(&self.shared);
        let quiet = async move { tokio::time::timeout(CLOSE_PATIENCE, shared.quiet()).await.is_ok() };
        let all_kept = self.closing.is_cancelled() || self.shared.runtime.spawn(quiet).await.unwrap_or(false);
        if let Some(thread) = self.take_thread() {
            // The thread ends first: what it has in hand goes back while the transport can still take it.
            blocking::unblock(move || drop(thread.join())).await;
        }
        self.shared.listener().take();
        self.shared.transport.close().await?;
        if all_kept {
            return Ok(());
        }
        Err(BrokerError::io(
            "how some runs ended could not be kept in time; those tasks run again".to_owned(),
        ))
    }

    fn results(&self) -> Option<&dyn Results> {
        Some(&*self.shared)
    }

    fn lanes(&self) -> Option<&dyn Lanes> {
        self.shared.transport.lanes()
    }

    fn unique_windows(&self) -> Option<&dyn UniqueWindows> {
        self.shared.windows()
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        self.shared.transport.inspect().map(|_| &*self.shared as _)
    }

    fn notes(&self) -> Option<&dyn BrokerNotes> {
        self.shared.transport.notes()
    }

    fn backlog(&self) -> Option<&dyn Backlog> {
        self.shared.transport.backlog()
    }

    fn events(&self) -> Option<&dyn Events> {
        Some(&*self.shared)
    }

    fn dead_letter_queue(&self) -> Option<&dyn DeadLetterQueue> {
        self.shared.transport.dead_letter_queue()
    }

    fn failed_tasks(&self) -> Option<&dyn FailedTasks> {
        self.shared.transport.failed_tasks().map(|_| &*self.shared as _)
    }

    fn tenant_backlog(&self) -> Option<&dyn TenantBacklog> {
        self.shared.transport.tenant_backlog()
    }

    fn bulk_changes(&self) -> Option<&dyn BulkChanges> {
        None // the records are in another store than the messages, so there is no one step for both
    }
}
