//! Lanes for a broker that keeps none. A run that waits for its lane lies in Redis, and a run that was let in goes
//! through the broker.
//!
//! Redis decides each step in one script ([`store::redis`](crate::store::redis), `lanes.lua`): which run enters, which
//! run waits, and which run is next. The order, the policies, the concurrency and the facts are therefore the same for
//! all processes, and no process keeps them in its memory. The life of a serial message:
//!
//! - It *comes* ([`RedisLanesInner::come`]). Redis keeps it as a waiting run, or lets it in and gives it a pass. The
//!   message is published with this pass.
//! - It is *sent* ([`sending`]). If it was let in and its publish is not confirmed, any process sends it again after a
//!   lease.
//! - It *starts* ([`intake`]). A delivery has to show the pass that counts. From then on the process holds the run for
//!   as long as it renews its lease ([`renewal`]), under a token that is higher than all before it. No other process
//!   starts the run while that process may be alive.
//! - It *ends* ([`settlement`]). First the messages that follow are published. Then the lane is released and the next
//!   runs are let in. Then the delivery is acknowledged. Redis refuses an end under a token that does not count any
//!   more.
//!
//! The states of a run in Redis:
//! ```text
//!            its lane has room
//! comes --+-----------------------------------------+
//!         |                                         v
//!         +----> waiting ----------------------> let in <--+  sent again after a lease,
//!                   |      another run has left   |  ^  |  |  until its publish is confirmed
//!                   |                             |  |  +--+
//!                   | has waited too long,        |  |
//!                   | or is replaced       starts |  | handed back, requeued,
//!                   v                             v  | or its process is gone
//!                refused                          held   under a token, while its process renews the lease
//!         sent once, to be told so                |
//!                                                 | released, or dead-lettered
//!                                                 v
//!                                                over    its keys are deleted, and the next run is let in
//! ```
//!
//! If a process is gone, the other processes on its machine see this at once. Processes on other machines wait until
//! its lease ends. After that the runs that it held are sent anew.

mod abilities;
mod intake;
mod lanes;
mod leases;
mod listener;
mod process;
mod renewal;
mod sending;
mod settlement;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, future, stream};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::lane::{self, LaneFacts, Waiting};
use super::{
    Backlog, Broker, BrokerError, BrokerFacts, BrokerListener, BrokerNotes, BulkChanges, Condition, Consumer,
    DeadLetter, DeadLetterQueue, Events, FailedTasks, Inspect, PublishFuture, QueueCounts, Results, Sink,
    TenantBacklog, UniqueWindows,
};
use crate::store::{RedisStore, StoreError};
use crate::task::{Durability, Message, Pass, RUN_ONCE_HEADER, Receipt, Refusal, TaskId};
use lanes::{ArrivalReply, RedisLaneFacts, RedisLaneTable};
use leases::HeldLeases;

/// How long a close waits for runs to end.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);
/// How long Redis may take to count the runs that wait in lanes.
const COUNT_PATIENCE: Duration = Duration::from_secs(2);
/// The most messages of one call that are being published at a time.
const IN_FLIGHT: usize = 1024;

/// A broker with lanes in Redis. It stands in front of another broker that has no lanes.
pub struct RedisLanesBroker {
    shared: Arc<RedisLanesInner>,
}

struct RedisLanesInner {
    inner: Arc<dyn Broker>,
    lanes: RedisLaneTable,
    leases: HeldLeases,
    /// The number of runs of one task that may end with their process. At this number the task becomes a dead letter.
    delivery_limit: u32,
    listener: OnceLock<Arc<dyn BrokerListener>>,
    /// Whether Redis failed to answer the last count in time.
    silent: AtomicBool,
    /// The event loop of the store's thread. All work of the lanes happens there.
    runtime: Handle,
    closing: CancellationToken,
    /// Wakes the sweep when something is due earlier than the sweep expected.
    earlier: Notify,
    /// Wakes the renewal when the first start is held.
    holding: Notify,
    /// Wakes a close when a start has ended.
    ended: Notify,
    /// Passes on which messages were published, so that Redis does not have them sent again.
    confirmed: mpsc::UnboundedSender<(TaskId, Option<Pass>)>,
}

impl RedisLanesBroker {
    /// Keeps the lanes of `inner` in the database of `store`. All processes that use these lanes must use the same
    /// database.
    ///
    /// `delivery_limit` is the number of runs of a serial task that may end with their process. At this number the task
    /// becomes a dead letter.
    pub async fn open(inner: Arc<dyn Broker>, store: RedisStore, delivery_limit: u32) -> Self {
        let runtime = store.runtime().clone();
        let lanes = RedisLaneTable::new(store);
        for doubt in lanes.doubts().await {
            tracing::warn!(
                redis = lanes.store().address(),
                "lanes of serial tasks are kept in Redis, and {doubt}"
            );
        }
        let (confirmed, sent) = mpsc::unbounded_channel(); // bounded by what is sent
        let shared = Arc::new(RedisLanesInner {
            inner,
            leases: HeldLeases::new(lanes.lease()),
            lanes,
            delivery_limit,
            listener: OnceLock::new(),
            silent: AtomicBool::new(false),
            runtime,
            closing: CancellationToken::new(),
            earlier: Notify::new(),
            holding: Notify::new(),
            ended: Notify::new(),
            confirmed,
        });
        let until = |closing: CancellationToken, work: future::BoxFuture<'static, ()>| async move {
            let _ = closing.run_until_cancelled(work).await;
        };
        for work in [
            Box::pin(Arc::clone(&shared).renew()) as future::BoxFuture<'static, ()>,
            Box::pin(Arc::clone(&shared).sweep()),
            Box::pin(Arc::clone(&shared).confirm(sent)),
        ] {
            shared.runtime.spawn(until(shared.closing.clone(), work));
        }
        Self { shared }
    }
}

impl Drop for RedisLanesBroker {
    /// Gives up all starts that this process holds. Other processes get their tasks when the lease is over.
    fn drop(&mut self) {
        self.shared.closing.cancel();
    }
}

fn broken(error: StoreError) -> BrokerError {
    match error {
        StoreError::Closed => BrokerError::Closed,
        StoreError::Refused(reason) | StoreError::Unsupported(reason) => BrokerError::Refused(reason),
        error => BrokerError::io_because(error.to_string(), error),
    }
}

impl RedisLanesInner {
    /// Publishes a message, or brings it to its lane if it is serial. A serial message whose ETA is ahead comes to its
    /// lane later, as a delivery without a pass.
    async fn take_in(
        self: &Arc<Self>,
        message: Message,
        is_new: bool,
        unique: bool,
    ) -> Result<Receipt, BrokerError> {
        if !message.has_to_pass_lane(message.eta) {
            return self.inner.publish(message, unique).await;
        }
        self.come(message, is_new, unique).await
    }

    /// Brings a message to its lane. If it `is_new`, the task's policy for a busy lane applies.
    async fn come(
        self: &Arc<Self>,
        mut message: Message,
        is_new: bool,
        unique: bool,
    ) -> Result<Receipt, BrokerError> {
        let Some(serial) = message.serial.as_deref_mut() else {
            return self.inner.publish(message, unique).await;
        };
        serial.pass = None;
        keep_one_mark(&mut message);
        let (id, queue) = (message.id.clone(), message.queue.clone());
        let Some(serial) = message.serial.as_deref() else { return Err(BrokerError::Stale) };
        let (arrived, due) = self.lanes.arrive(&message, serial, is_new, unique).await.map_err(broken)?;
        self.send_soon(due);
        let receipt = Receipt::new(id.clone(), queue, Durability::Disk);
        match arrived {
            ArrivalReply::In(pass) => {
                if let Err(error) = self.publish_with(message, pass).await {
                    self.undo(id, pass).await;
                    return Err(error);
                }
                let _ = self.confirmed.send((id, Some(pass)));
                Ok(receipt)
            }
            ArrivalReply::Refused => {
                let refused = lane::refused(message, Refusal::CouldNotAcquireLock);
                self.inner.publish(refused, false).await
            }
            ArrivalReply::Joined(other) => Ok(receipt.joining(other)),
            ArrivalReply::Taken => Err(BrokerError::DuplicateId(id)),
            ArrivalReply::Waits => {
                if serial.patience().is_some() {
                    self.earlier.notify_one();
                }
                Ok(receipt)
            }
        }
    }

    async fn publish_with(&self, mut message: Message, pass: Pass) -> Result<Receipt, BrokerError> {
        if let Some(serial) = &mut message.serial {
            serial.pass = Some(pass);
        }
        self.inner.publish(message, false).await
    }

    /// Takes a message whose publish failed out of its lane. The message then does not start even if RabbitMQ has it,
    /// because the caller is told that it was not taken.
    async fn undo(self: &Arc<Self>, id: TaskId, pass: Pass) {
        match self.lanes.undo(&id, pass).await {
            Ok(due) => self.send_soon(due),
            Err(error) => {
                tracing::warn!(%id, %error, "a task that could not be published stays in its lane, and is sent later");
            }
        }
    }
}

/// Gives a message that is to run once its [mark](RUN_ONCE_HEADER) before Redis keeps it. Redis has the message sent again if
/// the process that runs it is gone, and that is the same copy: with another mark it would be dropped in favour of the one
/// that is gone, and nobody would run the task.
fn keep_one_mark(message: &mut Message) {
    if let Some(mark) = message.headers.0.get_mut(RUN_ONCE_HEADER)
        && mark.as_bool() == Some(true)
    {
        *mark = TaskId::new().to_string().into();
    }
}

fn facts_of(facts: RedisLaneFacts) -> LaneFacts {
    LaneFacts {
        concurrency: facts.adjusted.unwrap_or(facts.stated),
        is_adjusted: facts.adjusted.is_some(),
        holders: facts.holders,
        waiting: facts.waiting,
        next: facts.first.iter().map(Waiting::of).collect(),
        blocked: facts.blocked,
        name: facts.name,
    }
}

#[async_trait]
impl Broker for RedisLanesBroker {
    fn name(&self) -> &'static str {
        self.shared.inner.name()
    }

    fn facts(&self) -> BrokerFacts {
        self.shared.inner.facts()
    }

    fn condition(&self) -> Condition {
        let inner = self.shared.inner.condition();
        Condition { is_silent: inner.is_silent || self.shared.silent.load(Ordering::Acquire), ..inner }
    }

    async fn declare(&self, queue: &str) -> Result<(), BrokerError> {
        self.shared.inner.declare(queue).await
    }

    async fn queues(&self) -> Result<Vec<String>, BrokerError> {
        self.shared.inner.queues().await
    }

    async fn publish(&self, message: Message, unique: bool) -> Result<Receipt, BrokerError> {
        let is_new = !message.is_in_canvas();
        self.shared.take_in(message, is_new, unique).await
    }

    fn begin_publish(&self, message: Arc<Message>, unique: bool) -> PublishFuture<'_> {
        if message.has_to_pass_lane(message.eta) {
            return self.publish(Arc::unwrap_or_clone(message), unique).into();
        }
        self.shared.inner.begin_publish(message, unique)
    }

    async fn publish_all(&self, messages: Vec<Message>, unique: bool) -> Result<(), BrokerError> {
        if messages.iter().all(|message| message.lane().is_none()) {
            return self.shared.inner.publish_all(messages, unique).await;
        }
        let publish = |message: Message| self.shared.take_in(message, false, unique);
        let all = stream::iter(messages).map(publish);
        all.buffered(IN_FLIGHT).try_for_each(|_| future::ready(Ok(()))).await
    }

    fn consume(&self, queue: &str, prefetch: usize, sink: Sink) -> Result<Box<dyn Consumer>, BrokerError> {
        intake::consume(&self.shared, queue, prefetch, sink)
    }

    /// While Redis does not answer, the broker [is silent](Condition::is_silent), and waiting runs are not
    /// counted.
    async fn counts(&self, queue: &str) -> Result<QueueCounts, BrokerError> {
        let (shared, name) = (Arc::clone(&self.shared), queue.to_owned());
        let asked = self
            .shared
            .runtime
            .spawn(async move { tokio::time::timeout(COUNT_PATIENCE, shared.lanes.in_line(&name)).await });
        let (in_line, counts) = future::join(asked, self.shared.inner.counts(queue)).await;
        let in_line = match in_line {
            Err(_) | Ok(Ok(Err(StoreError::Closed))) => return Err(BrokerError::Closed),
            Ok(Ok(Ok(in_line))) => Some(in_line),
            Ok(Ok(Err(_)) | Err(_)) => None,
        };
        self.shared.silent.store(in_line.is_none(), Ordering::Release);
        Ok(QueueCounts { in_line: in_line.unwrap_or_default(), ..counts? })
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        self.shared.inner.dead_letters(limit).await
    }

    async fn requeue_dead_letters(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
        self.shared.inner.requeue_dead_letters(ids).await
    }

    async fn close(&self) -> Result<(), BrokerError> {
        let shared = Arc::clone(&self.shared);
        let quiet = shared.runtime.clone().spawn(async move {
            let _ = tokio::time::timeout(CLOSE_PATIENCE, shared.quiet()).await;
            let _ = shared.lanes.depart(&shared.leases.process()).await;
        });
        let _ = quiet.await;
        self.shared.closing.cancel();
        self.shared.inner.close().await
    }

    fn results(&self) -> Option<&dyn Results> {
        None // a run in a lane ends in Redis, and not in one step with a record
    }

    fn lanes(&self) -> Option<&dyn super::Lanes> {
        Some(self)
    }

    fn unique_windows(&self) -> Option<&dyn UniqueWindows> {
        self.shared.inner.unique_windows()
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        Some(self)
    }

    fn notes(&self) -> Option<&dyn BrokerNotes> {
        self.shared.inner.notes()
    }

    fn backlog(&self) -> Option<&dyn Backlog> {
        self.shared.inner.backlog()
    }

    fn events(&self) -> Option<&dyn Events> {
        Some(self)
    }

    fn dead_letter_queue(&self) -> Option<&dyn DeadLetterQueue> {
        self.shared.inner.dead_letter_queue()
    }

    /// The broker's own: a serial task that goes back comes to its lane when the broker delivers it.
    fn failed_tasks(&self) -> Option<&dyn FailedTasks> {
        self.shared.inner.failed_tasks()
    }

    fn tenant_backlog(&self) -> Option<&dyn TenantBacklog> {
        self.shared.inner.tenant_backlog()
    }

    fn bulk_changes(&self) -> Option<&dyn BulkChanges> {
        None // the lanes are in another place than the messages, so there is no one step for both
    }
}
