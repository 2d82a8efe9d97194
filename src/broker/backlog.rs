//! An ability of brokers: they know for how long the messages that wait in them have been ready.

use async_trait::async_trait;

use super::BrokerError;
use crate::core::Timestamp;

/// Knows since when waiting tasks could have started. RabbitMQ says how many messages of a queue are ready, and
/// not since when. So a broker on it lacks this ability, and the caller goes by when it first saw ready messages.
#[async_trait]
pub trait Backlog: Send + Sync {
    /// Since when the oldest task of a queue has been ready that is neither delivered nor in a lane's line;
    /// `None`: there is no such task. A task is ready from its [due time](crate::task::Message::due) on. The call
    /// takes a step for each priority that is there, however many tasks wait.
    ///
    /// # Errors
    /// The broker is closed or cannot be read.
    async fn oldest_ready(&self, queue: &str) -> Result<Option<Timestamp>, BrokerError>;
}
