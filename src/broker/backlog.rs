//! An ability of brokers: they know for how long the messages that wait in them have been ready, and can make those due that
//! were put back until later.

use async_trait::async_trait;

use super::BrokerError;
use crate::core::Timestamp;

/// Knows since when waiting tasks could have started, and the agenda of those that wait for their time. RabbitMQ says how many
/// messages of a queue are ready, and not since when, and lets nobody change when a message is due. So a broker on it lacks
/// this ability: the caller goes by when it first saw ready messages, and puts messages back for shorter times.
#[async_trait]
pub trait Backlog: Send + Sync {
    /// Since when the oldest task of a queue has been ready that is neither delivered nor in a lane's line;
    /// `None`: there is no such task. A task is ready from its [due time](crate::task::Message::due) on. The call
    /// takes a step for each priority that is there, however many tasks wait.
    ///
    /// # Errors
    /// The broker is closed or cannot be read.
    async fn oldest_ready(&self, queue: &str) -> Result<Option<Timestamp>, BrokerError>;

    /// Makes tasks of a queue due now that were put back until a later time because something held them: those that have a
    /// [hastened](crate::task::Message::hastened) message, which takes the place of theirs. It looks at the next `limit` tasks
    /// of the queue that wait for their time, those that are due first first, from `from` on. Other tasks stay as they are.
    ///
    /// # Errors
    /// The broker is closed or cannot be reached. Some tasks may be due by then.
    async fn hasten(&self, queue: &str, from: AgendaPlace, limit: usize) -> Result<Hastened, BrokerError>;
}

/// A place among the tasks of a queue that wait for their time: when the task is due, and its number among those that are due
/// at that time.
pub type AgendaPlace = (Timestamp, u64);

/// The result of one step of [`Backlog::hasten`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hastened {
    /// The number of tasks that are due now.
    pub made_due: usize,
    /// Where to go on. `None`: there are no tasks behind those that were looked at.
    pub next: Option<AgendaPlace>,
}
