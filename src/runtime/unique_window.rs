//! Unique windows as the runtime uses them: it answers who holds a window, and ends one that ends with the start of
//! its task before the body starts.

use std::time::Duration;

use super::Runtime;
use crate::broker::BrokerError;
use crate::core::Backoff;
use crate::store::StoreError;
use crate::task::{Message, TaskId, UniqueKey, UniqueUntil};

/// The longest pause between two tries to end a window before a body starts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Runtime {
    /// The task that holds the window of this key; `None`: the window is free.
    pub(crate) async fn window_holder(&self, key: &UniqueKey) -> Result<Option<TaskId>, StoreError> {
        match self.broker.unique_windows() {
            Some(windows) => Ok(windows.holder(key).await?),
            None => Err(StoreError::Unsupported(format!(
                "neither the broker `{}` nor the result store keeps unique windows: keep results in Redis, or take the embedded broker",
                self.broker.name()
            ))),
        }
    }

    /// Ends the window of a task whose window ends with its start. The body must not start before that, so this
    /// tries until it succeeds or the broker is closed.
    pub(crate) async fn window_at_start(&self, message: &Message) {
        let Some(windows) = self.broker.unique_windows() else { return };
        if message.unique.as_deref().is_none_or(|unique| unique.until != UniqueUntil::Start) {
            return;
        }
        let mut backoff = Backoff::new(Duration::from_millis(50), LONGEST_PAUSE);
        while let Err(error) = windows.release(message).await {
            if error == BrokerError::Closed {
                return;
            }
            tracing::warn!(id = %message.id, %error, "a task does not start yet, because its unique window cannot be ended");
            tokio::time::sleep(backoff.pause()).await;
        }
    }
}
