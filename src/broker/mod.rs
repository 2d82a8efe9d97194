//! The seam where messages wait: one trait, several brokers, one conformance suite for all.
//!
//! A broker keeps messages until they are settled, hands them to at most one consumer at a time, never hands out
//! more than the consumer's prefetch, and tells by its receipt what it has promised. Everything else (which task
//! starts next, retries, limits) is decided above.
//!
//! The life of a message: `publish` → waiting (or scheduled until its ETA) → delivered → [`Delivery::started`] →
//! settled by one [`Settle`]. A [`Delivery`] that is dropped without being settled goes back by itself: as it was
//! if it had not started, with a crash counted if it had. So a panic anywhere above loses nothing.

#[cfg(feature = "amqp")]
pub mod amqp;
mod attendant;
mod dead_letter;
mod delivery;
pub mod embedded;
mod error;
mod lane;
#[cfg(feature = "redis")]
mod laned;
pub mod memory;
mod outbox;
mod queue_setup;
#[cfg(any(feature = "amqp", feature = "redis", feature = "s3"))]
pub(crate) mod tls;

#[cfg(feature = "testing")]
pub mod conformance;

use std::sync::Arc;

use async_trait::async_trait;

#[cfg(feature = "amqp")]
pub use amqp::AmqpBroker;
pub use attendant::Attendant;
pub use dead_letter::DeadLetter;
pub use delivery::{ChordEnd, Delivery, Sequel, Settle, Settler};
pub use embedded::EmbeddedBroker;
pub use error::BrokerError;
pub use lane::{LaneFacts, LaneLever, Waiting};
#[cfg(feature = "redis")]
pub use laned::LanedBroker;
pub use memory::MemoryBroker;
pub use outbox::OutboxBroker;
pub use queue_setup::{QueueSetup, QueueType};

use crate::store::{NoteChange, Notes};
use crate::task::{LaneName, Message, Receipt, TaskId, TaskResult, UniqueKey};

/// Where a consumer's deliveries go. It is called from the broker's own threads and must not block. One that panics
/// is not called again: its deliveries go back, and wait for the next consumer.
pub type Sink = Arc<dyn Fn(Vec<Delivery>) + Send + Sync>;

/// Hands deliveries to a sink; says whether it took them without a panic.
fn call_sink(sink: &Sink, deliveries: Vec<Delivery>) -> bool {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sink(deliveries))) {
        Ok(()) => true,
        Err(panic) => {
            let panic = crate::task::panic_message(panic);
            tracing::error!(%panic, "a consumer panicked; its queue has no consumer now");
            false
        }
    }
}

/// How many messages a queue has, and in which condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Waiting, due, not delivered.
    pub ready: u64,
    /// Waiting for their ETA.
    pub scheduled: u64,
    /// Delivered and not settled.
    pub unsettled: u64,
    /// In the dead letters. On RabbitMQ, which has one queue for them, those of all queues.
    pub dead: u64,
    /// Serial ones that wait for their lane. They are not ready: no worker could start them.
    pub in_line: u64,
}

/// Where a task is, if a broker has it.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// In its queue, due or not.
    Waiting(Box<Message>),
    /// Delivered to the consumer of this queue.
    Delivered {
        /// The queue.
        queue: String,
    },
}

/// What a revocation came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It waited, and is gone; the result that was passed is its record now.
    Removed,
    /// The consumer of this queue has it and must be asked.
    Delivered {
        /// The queue.
        queue: String,
    },
    /// No such task.
    Unknown,
}

/// What became of a message that was published with a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Noted {
    /// The message was taken, and the note changed.
    Taken(Receipt),
    /// The note changed. A message of this id was taken before, so it was not taken again.
    Changed,
    /// The note says something else by now: nothing was taken.
    Outdated,
}

/// A place where messages wait.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Its name in logs and errors.
    fn name(&self) -> &'static str;

    /// Whether [`Settle::Ack`] and [`Settle::DeadLetter`] write the result that they carry in the same commit. If
    /// not, the runtime stores the result first.
    fn settles_results(&self) -> bool;

    /// Whether other processes may consume the same queues. If not, a delivery that waits in this one keeps nobody from
    /// starting it, and queues hold more of them.
    fn is_shared(&self) -> bool {
        true
    }

    /// So many runs that ended with their worker make a dead letter. What is part of a workflow it delivers once more then, so
    /// that the runtime puts it there, with what follows; the rest it puts there itself. `None`: it does so with all.
    fn delivery_limit(&self) -> Option<u32> {
        None
    }

    /// Whether it cannot take anything now, so that a publish would only wait: the connection is gone or blocked.
    fn is_away(&self) -> bool {
        false
    }

    /// Whether it keeps serial tasks in their lanes. If not, it must not be given any.
    fn keeps_lanes(&self) -> bool {
        false
    }

    /// Whether it keeps dedupe windows: a [`publish`](Self::publish) of a message whose window is held is left out, and its
    /// receipt says whom it joins; the end of a task ends its window, in one step with it. If not, the runtime asks the store.
    fn keeps_windows(&self) -> bool {
        false
    }

    /// Whether it knows every task that waits in it. If not, a task that it does not know may wait all the same: it can be
    /// neither found nor taken out, and is revoked by [`tell_revoked`](Self::tell_revoked) and by the store.
    fn knows_all(&self) -> bool {
        true
    }

    /// Whom to tell what is not a delivery. Called once, before anything is consumed; brokers that nobody else uses have
    /// nothing to tell.
    fn attend(&self, _attendant: Arc<dyn Attendant>) {}

    /// Tells every process that consumes here that these tasks are revoked.
    ///
    /// # Errors
    /// The broker is closed or not to be reached.
    async fn tell_revoked(&self, _ids: &[TaskId], _terminate: bool) -> Result<(), BrokerError> {
        Ok(())
    }

    /// Makes sure that the queue exists.
    ///
    /// # Errors
    /// The broker is not to be reached, or refuses the name.
    async fn declare(&self, queue: &str) -> Result<(), BrokerError>;

    /// The queues that the broker holds, whoever made them.
    ///
    /// # Errors
    /// The broker is closed or not to be reached.
    async fn queues(&self) -> Result<Vec<String>, BrokerError>;

    /// Takes a message; `Ok` is the promise that the receipt names. `unique` refuses an id that is taken.
    ///
    /// # Errors
    /// Nothing was taken (for [`BrokerError::Io`] that is not known), and why.
    async fn publish(&self, message: Message, unique: bool) -> Result<Receipt, BrokerError>;

    /// The notes that it keeps beside its messages, if any: [`publish_noted`](Self::publish_noted) takes a message and changes
    /// one of them in one step.
    fn notes(&self) -> Option<&dyn Notes> {
        None
    }

    /// Takes a message whose id is its own, and changes a note, both or neither.
    ///
    /// # Errors
    /// Neither happened (for [`BrokerError::Io`] that is not known), or the broker keeps no [notes](Self::notes).
    async fn publish_noted(&self, _message: Message, _change: NoteChange) -> Result<Noted, BrokerError> {
        Err(BrokerError::Io(format!("the broker `{}` keeps no notes", self.name())))
    }

    /// Takes several messages, and the sizes of the chords whose members are among them; brokers that settle results do so in
    /// one step, all or nothing. The others count no chords: `sizes` is empty.
    ///
    /// # Errors
    /// The first that was not taken, and why. Those before it were, unless it is all or nothing.
    async fn publish_all(
        &self,
        messages: Vec<Message>,
        _sizes: Vec<(String, u64)>,
        unique: bool,
    ) -> Result<(), BrokerError> {
        for message in messages {
            self.publish(message, unique).await?;
        }
        Ok(())
    }

    /// Delivers the queue's messages to `sink`: best priority first, then in order of arrival, each not before its
    /// ETA, never more than `prefetch` unsettled at a time. A queue has one consumer in a process; a new one
    /// replaces the old. What the old one has stays with it until it is settled or dropped, and counts.
    ///
    /// # Errors
    /// The broker is closed or not to be reached.
    fn consume(&self, queue: &str, prefetch: usize, sink: Sink) -> Result<Box<dyn Consumer>, BrokerError>;

    /// Counts of one queue.
    ///
    /// # Errors
    /// The broker is closed or not to be reached.
    async fn counts(&self, queue: &str) -> Result<Counts, BrokerError>;

    /// Where a task is.
    ///
    /// # Errors
    /// The broker is closed or not to be reached.
    async fn find(&self, id: &TaskId) -> Result<Option<Place>, BrokerError>;

    /// How many tasks of its queue that could start are before this waiting one, and what is delivered and not settled, all up
    /// to `limit`. `None`: that is not known, or the task waits for its time or its lane.
    ///
    /// # Errors
    /// The broker is closed or not to be reached.
    async fn ahead(&self, _id: &TaskId, _limit: usize) -> Result<Option<usize>, BrokerError> {
        Ok(None)
    }

    /// Takes a waiting task out for good; `record` makes the result to leave behind from its message.
    ///
    /// # Errors
    /// The broker is closed or not to be reached.
    async fn remove(&self, id: &TaskId, record: RecordFn) -> Result<Removal, BrokerError>;

    /// The dead letters of all queues, oldest first, up to `limit`.
    ///
    /// # Errors
    /// The broker is closed or not to be reached.
    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError>;

    /// Puts the dead letter of this id back into its queue, its attempts counted anew. `false`: there is none.
    ///
    /// # Errors
    /// The broker is closed or not to be reached.
    async fn revive(&self, id: &TaskId) -> Result<bool, BrokerError>;

    /// As [`revive`](Self::revive), for many; answers with those that there were.
    ///
    /// # Errors
    /// The broker is closed or not to be reached. Some may be back by then.
    async fn revive_all(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
        let mut revived = Vec::new();
        for id in ids {
            if self.revive(id).await? {
                revived.push(id.clone());
            }
        }
        Ok(revived)
    }

    /// The facts of a lane; `None`: nobody is in it, nobody waits for it, and nothing was set for it.
    ///
    /// # Errors
    /// The broker is closed or not to be reached.
    async fn lane(&self, _lane: &LaneName) -> Result<Option<LaneFacts>, BrokerError> {
        Ok(None)
    }

    /// The lanes that are not idle, by name, up to `limit`.
    ///
    /// # Errors
    /// The broker is closed or not to be reached.
    async fn lanes(&self, _limit: usize) -> Result<Vec<LaneFacts>, BrokerError> {
        Ok(Vec::new())
    }

    /// Moves a lever of a lane; what may start by that does. `false`: there was nothing to be moved.
    ///
    /// # Errors
    /// The broker is closed or not to be reached.
    async fn steer_lane(&self, _lane: &LaneName, _lever: LaneLever) -> Result<bool, BrokerError> {
        Ok(false)
    }

    /// Which task holds the dedupe window of this key.
    ///
    /// # Errors
    /// The broker is closed or not to be reached.
    async fn holder(&self, _key: &UniqueKey) -> Result<Option<TaskId>, BrokerError> {
        Ok(None)
    }

    /// Ends the window of this message before its task is over, if the window is its own: a publish that begins after this
    /// was called is a task of its own. Should the process die soon after, the message may still have its window.
    fn let_go(&self, _message: &Message) {}

    /// Waits until everything settled so far is as safe as it gets, then lets go of files and connections.
    ///
    /// # Errors
    /// What was settled last is not safe.
    async fn close(&self) -> Result<(), BrokerError>;
}

/// Makes the record that a removed task leaves.
pub type RecordFn = Box<dyn FnOnce(&Message) -> Remains + Send>;

/// What a removed task leaves behind.
#[derive(Debug, Default)]
pub struct Remains {
    /// Its record.
    pub record: Option<TaskResult>,
    /// What follows from its end; brokers that settle results write it along.
    pub sequel: Option<Box<Sequel>>,
}

impl From<Option<TaskResult>> for Remains {
    fn from(record: Option<TaskResult>) -> Self {
        Self { record, sequel: None }
    }
}

/// The consuming end of one queue; dropping it ends the deliveries.
pub trait Consumer: Send + Sync {
    /// Changes how many deliveries may be unsettled at a time. Fewer takes effect as they are settled.
    fn set_prefetch(&self, prefetch: usize);
}
