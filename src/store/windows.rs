//! Dedupe windows for brokers that keep none: of several processes that enqueue the same, one is the first.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::task::{TaskId, UniqueKey};

/// Keeps dedupe windows, by a clock of its own.
///
/// The window is asked for before the message is published. A process that dies between the two leaves a window that nobody
/// fills; it passes by itself.
#[async_trait]
pub trait Windows: Send + Sync {
    /// Begins the window of this key for a task, unless it is another one's, who is the answer then. The task's own begins
    /// anew.
    ///
    /// # Errors
    /// Whether it is held is not known.
    async fn hold(
        &self,
        key: &UniqueKey,
        id: &TaskId,
        window: Duration,
    ) -> Result<Option<TaskId>, StoreError>;

    /// Ends the window of this key if it is this task's; says whether it was.
    ///
    /// # Errors
    /// It may not have ended.
    async fn let_go(&self, key: &UniqueKey, id: &TaskId) -> Result<bool, StoreError>;

    /// Ends the window that a task holds, whatever its key: the task was revoked where nobody sees its message.
    ///
    /// # Errors
    /// It may not have ended.
    async fn let_go_of(&self, id: &TaskId) -> Result<bool, StoreError>;

    /// Whose the window is.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn holder(&self, key: &UniqueKey) -> Result<Option<TaskId>, StoreError>;
}
