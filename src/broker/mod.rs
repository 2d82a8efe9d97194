//! The seam where messages wait: one trait, several brokers, one conformance suite for all.
//!
//! A broker keeps messages until they are settled, hands each to at most one consumer at a time, and never hands
//! out more than the consumer's prefetch. Its receipt says what it has promised. Everything else (which task
//! starts next, retries, limits) is decided above it.
//!
//! The life of a message: `publish` → waiting (or scheduled until its ETA) → delivered → [`Delivery::started`] →
//! settled by one [`Settle`]. A [`Delivery`] that is dropped without being settled goes back by itself: as it was
//! if it had not started, with a crash counted if it had. So a panic anywhere above loses no task.

#[cfg(feature = "amqp")]
pub mod amqp;
mod backlog;
mod bulk;
pub(crate) mod completer;
#[cfg(feature = "testing")]
pub mod conformance;
pub(crate) mod copies;
mod dead_letter;
mod delivery;
pub mod embedded;
mod error;
mod failed;
mod guarded;
mod inspect;
mod lane;
pub(crate) mod limits;
mod listener;
pub mod memory;
mod notes;
mod outbox;
mod publish_future;
#[cfg(feature = "redis")]
mod redis_lanes;
mod results;
mod split;
mod task_page;
mod tenant_backlog;
mod unique_windows;

use std::sync::Arc;

use async_trait::async_trait;

pub use crate::catalogue::{QueueSetup, QueueType};
#[cfg(feature = "amqp")]
pub use amqp::AmqpBroker;
pub use backlog::{AgendaPlace, Backlog, Hastened};
pub use bulk::{BulkChange, BulkChanges, BulkOutcome, BulkPick, KeptTask, RemainsFn, UndoOutcome};
pub use dead_letter::{DeadLetter, DeadLetterQueue, crash_reason, crash_result, requeued};
pub(crate) use dead_letter::{refusal_reason, refused_result};
use delivery::call_sink;
pub use delivery::{ChordEnd, Delivery, DeliveryInfo, FollowUps, Settle, Settler, Sink};
pub use embedded::EmbeddedBroker;
pub use error::BrokerError;
pub(crate) use failed::FindParams;
pub use failed::{FailedTask, FailedTasks, MOST_FAILED, MOST_FAILED_BYTES, Retried, TaskEdit, TaskFilter};
pub(crate) use guarded::GuardedBroker;
pub use inspect::{Inspect, MessageLocation, RecordFn, Remains, Removal, Standing, UnfinishedTask};
pub use lane::{LaneFacts, LaneLever, Lanes, Waiting};
pub use listener::{
    Activity, BrokerConnection, BrokerListener, ControlRequest, Events, QueueBinding, ScheduledTask,
};
pub use memory::MemoryBroker;
pub use notes::{BrokerNotes, CasOutcome};
pub use outbox::OutboxBroker;
#[cfg(feature = "cli")]
pub(crate) use outbox::{is_line as is_outbox_line, opened};
pub use publish_future::PublishFuture;
#[cfg(feature = "redis")]
pub use redis_lanes::RedisLanesBroker;

pub use results::Results;
pub use split::SplitBroker;
pub use task_page::TaskPage;
pub use tenant_backlog::{QueueTenants, TenantBacklog, TenantCounts};
pub use unique_windows::UniqueWindows;

use crate::task::{Message, Receipt, TaskId};

/// The numbers of messages that a queue has, by their condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// The messages that could start and are not delivered.
    pub ready: u64,
    /// The messages that wait for their ETA.
    pub scheduled: u64,
    /// The messages that are delivered and not settled.
    pub unsettled: u64,
    /// The dead letters. RabbitMQ has one queue for them, so there they are those of all queues: see
    /// [`dead_from_here`](DeadLetterQueue::dead_from_here).
    pub dead: u64,
    /// The serial messages that wait for their lane. They are not ready, because no worker could start them.
    pub in_line: u64,
}

/// The facts of a broker that never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerFacts {
    /// Whether other processes may consume the same queues. If not, a delivery that waits in this process keeps no
    /// other process from starting it, so queues hold more of them.
    pub is_shared: bool,
    /// Whether the broker knows every task that waits in it. If not, a task that it does not know may wait all the
    /// same. Such a task can be neither found nor taken out, and is revoked by [`Events::broadcast_revoke`] and by the
    /// store.
    pub knows_all: bool,
    /// The number of runs of one message that may end with their worker; at that number the broker makes a dead
    /// letter of it. A message of a canvas is delivered once more instead, so that the runtime makes it a dead
    /// letter and fails what was to follow. `None`: the broker makes dead letters of all such messages itself.
    pub delivery_limit: Option<u32>,
}

/// The condition of a broker at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Whether the broker cannot take anything now, so that a publish would only wait: its connection is gone or
    /// blocked.
    pub is_unavailable: bool,
    /// Whether a question would only wait now, because the broker cannot be reached or does not answer. Counts are
    /// then those that this process knows.
    pub is_silent: bool,
}

/// A place where messages wait: what every broker does.
///
/// What only some brokers can do is a trait of its own, and a broker that can do it hands itself out as one. None
/// of these functions has a default, so a broker in front of another one states for each ability whether it passes
/// it on.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// The broker's name in logs and errors.
    fn name(&self) -> &'static str;

    /// The facts that never change.
    fn facts(&self) -> BrokerFacts;

    /// The condition at this moment.
    fn condition(&self) -> Condition;

    /// Makes sure that the queue exists.
    ///
    /// # Errors
    /// The broker cannot be reached, or refuses the name.
    async fn declare(&self, queue: &str) -> Result<(), BrokerError>;

    /// The queues that the broker holds, whoever made them.
    ///
    /// # Errors
    /// The broker is closed or cannot be reached.
    async fn queues(&self) -> Result<Vec<String>, BrokerError>;

    /// Takes a message; `Ok` is the promise that the receipt names. With `unique_windows` an id that is taken is refused.
    ///
    /// # Errors
    /// Nothing was taken, with the reason; after [`BrokerError::Io`] and
    /// [`BrokerError::Panicked`] that is not known.
    async fn publish(&self, message: Message, unique: bool) -> Result<Receipt, BrokerError>;

    /// Begins a [`publish`](Self::publish) of a message that others may hold too, and answers with the rest of it. Every call
    /// that the program sends comes through here. The default is the future of `publish`; a broker that hands a message on
    /// without a wait saves that future, and a copy of the message, by its own version.
    fn begin_publish(&self, message: Arc<Message>, unique: bool) -> PublishFuture<'_> {
        self.publish(Arc::unwrap_or_clone(message), unique).into()
    }

    /// Takes several messages. A broker that keeps [results](Self::results) takes them in one step, all or none.
    ///
    /// # Errors
    /// The error of the first message that was not taken. Those before it were taken, unless the broker takes all
    /// or none.
    async fn publish_all(&self, messages: Vec<Message>, unique: bool) -> Result<(), BrokerError>;

    /// Delivers the queue's messages to `sink`: best priority first, then in order of arrival, each not before its
    /// ETA, and never more than `prefetch` unsettled ones at a time. In a broker whose [tenants take
    /// turns](TenantBacklog) that is the order for each tenant, and a tenant that has no delivery may get one beyond
    /// the prefetch. A queue has one consumer in a process, and a new one replaces the old one. What the old one has
    /// stays with it until it is settled or dropped, and counts.
    ///
    /// # Errors
    /// The broker is closed or cannot be reached.
    fn consume(&self, queue: &str, prefetch: usize, sink: Sink) -> Result<Box<dyn Consumer>, BrokerError>;

    /// The counts of one queue.
    ///
    /// # Errors
    /// The broker is closed or cannot be reached.
    async fn counts(&self, queue: &str) -> Result<QueueCounts, BrokerError>;

    /// The dead letters of all queues, oldest first, up to `limit`.
    ///
    /// # Errors
    /// The broker is closed or cannot be reached.
    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError>;

    /// Puts the dead letters of these ids back into their queues, with their attempts counted anew. Answers with
    /// the ids that it found.
    ///
    /// # Errors
    /// The broker is closed or cannot be reached. Some letters may be back by then.
    async fn requeue_dead_letters(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, BrokerError>;

    /// As [`requeue_dead_letters`](Self::requeue_dead_letters), for one id. `false`: there is no such dead letter.
    ///
    /// # Errors
    /// The broker is closed or cannot be reached.
    async fn requeue_dead_letter(&self, id: &TaskId) -> Result<bool, BrokerError> {
        Ok(!self.requeue_dead_letters(std::slice::from_ref(id)).await?.is_empty())
    }

    /// Waits until everything settled so far is as safe as the broker makes it, and then closes files and
    /// connections.
    ///
    /// # Errors
    /// What was settled last is not safe.
    async fn close(&self) -> Result<(), BrokerError>;

    /// The ability to keep the records of tasks and to count chords.
    fn results(&self) -> Option<&dyn Results>;

    /// The ability to keep serial tasks in their lanes. A broker without it must not be given any.
    fn lanes(&self) -> Option<&dyn Lanes>;

    /// The ability to keep unique windows.
    fn unique_windows(&self) -> Option<&dyn UniqueWindows>;

    /// The ability to find single tasks, and to take them out.
    fn inspect(&self) -> Option<&dyn Inspect>;

    /// The ability to keep notes beside the messages.
    fn notes(&self) -> Option<&dyn BrokerNotes>;

    /// The ability to know for how long the waiting messages have been ready, and to make those due that were put back.
    fn backlog(&self) -> Option<&dyn Backlog>;

    /// The ability to tell and to hear what is not a delivery.
    fn events(&self) -> Option<&dyn Events>;

    /// The ability to keep the dead letters of all queues in one queue, which takes messages that the broker
    /// refuses.
    fn dead_letter_queue(&self) -> Option<&dyn DeadLetterQueue>;

    /// The ability to keep tasks that have failed for good. No delivery of a broker without it ends with
    /// [`Settle::Fail`].
    fn failed_tasks(&self) -> Option<&dyn FailedTasks>;

    /// The ability to keep the ready tasks of each tenant in a line of its own, and to deliver from these lines in turn.
    fn tenant_backlog(&self) -> Option<&dyn TenantBacklog>;

    /// The ability to change many waiting tasks in one step, and to take such a change back.
    fn bulk_changes(&self) -> Option<&dyn BulkChanges>;
}

/// The consuming end of one queue; dropping it ends the deliveries.
pub trait Consumer: Send + Sync {
    /// Changes how many deliveries may be unsettled at a time. A smaller number takes effect as deliveries are
    /// settled.
    fn set_prefetch(&self, prefetch: usize);
}
