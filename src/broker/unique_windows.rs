//! An ability of brokers: they keep unique windows.

use async_trait::async_trait;

use super::BrokerError;
use crate::task::{Message, TaskId, UniqueKey};

/// Keeps unique windows. A [publish](super::Broker::publish) of a message whose window is held is left out, and
/// its receipt names the task that it joins. The end of a task ends its window, in one step with it.
#[async_trait]
pub trait UniqueWindows: Send + Sync {
    /// The task that holds the window of this key.
    ///
    /// # Errors
    /// The broker is closed or cannot be reached.
    async fn holder(&self, key: &UniqueKey) -> Result<Option<TaskId>, BrokerError>;

    /// Ends the window of this message before its task is over, if the task holds it: a publish that begins after
    /// this is a task of its own. If the process dies soon after, the message may still have its window.
    ///
    /// # Errors
    /// The window may not have ended. A closed broker takes nothing any more, so it does not fail.
    async fn release(&self, message: &Message) -> Result<(), BrokerError>;
}
