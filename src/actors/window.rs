//! Dedupe windows where the broker keeps none: they begin and end in the store, and not in one step with their task.
//!
//! A window begins before the publish and ends before the record is there: whoever reads a result, or sees a body begin, and
//! enqueues the same again, has a task of its own. A process that dies in between leaves a window that passes by itself, or a
//! task that runs again while its window is free; neither loses a task.

use std::time::Duration;

use super::runtime::Runtime;
use crate::broker::BrokerError;
use crate::store::{StoreError, Windows};
use crate::task::{Durability, EnqueueError, Message, Receipt, TaskId, UniqueKey, UniqueUntil};

/// The longest pause between two tries to end a window before a body starts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Runtime {
    /// Those of the store, if the broker keeps none.
    fn windows(&self) -> Option<&dyn Windows> {
        if self.broker.keeps_windows() { None } else { self.store.windows() }
    }

    /// Publishes, unless it is a duplicate.
    pub(crate) async fn publish(&self, message: Message, unique: bool) -> Result<Receipt, EnqueueError> {
        let (Some(window), Some(windows)) = (message.unique.clone(), self.windows()) else {
            return Ok(self.broker.publish(message, unique).await?);
        };
        let id = message.id.clone();
        let holder = windows.hold(&window.key, &id, window.window).await;
        match holder {
            Err(error) => Err(EnqueueError::Window { task: message.task, error: error.to_string() }),
            Ok(Some(holder)) => Ok(Receipt::new(id, message.queue, Durability::Disk).joining(holder)),
            Ok(None) => match self.broker.publish(message, unique).await {
                // Not published by this call; whoever has the id may hold the window.
                Err(error @ BrokerError::DuplicateId(_)) => Err(error.into()),
                Err(error) => {
                    self.end_window(windows.let_go(&window.key, &id).await, &id);
                    Err(error.into())
                }
                Ok(receipt) => {
                    if receipt.joined {
                        // Its lane has left it out.
                        self.end_window(windows.let_go(&window.key, &id).await, &id);
                    }
                    Ok(receipt)
                }
            },
        }
    }

    /// Who holds the window of this key.
    pub(crate) async fn window_holder(&self, key: &UniqueKey) -> Result<Option<TaskId>, StoreError> {
        if self.broker.keeps_windows() {
            return Ok(self.broker.holder(key).await?);
        }
        match self.windows() {
            Some(windows) => windows.holder(key).await,
            None => Err(StoreError::Unsupported(format!(
                "neither the broker `{}` nor the result store keeps dedupe windows: keep results in Redis, or take the embedded broker",
                self.broker.name()
            ))),
        }
    }

    /// A body is about to start. It does not before its window has ended, if it ends with the start.
    pub(crate) async fn window_at_start(&self, message: &Message) {
        let Some(unique) = message.unique.as_deref().filter(|unique| unique.until == UniqueUntil::Start)
        else {
            return;
        };
        let Some(windows) = self.windows() else { return self.broker.let_go(message) };
        let mut pause = Duration::from_millis(50);
        while let Err(error) = windows.let_go(&unique.key, &message.id).await {
            if error == StoreError::Closed {
                return;
            }
            tracing::warn!(id = %message.id, %error, "a task does not start yet, because its dedupe window cannot be ended");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// A task is over, or is acknowledged before it runs.
    pub(crate) async fn window_at_end(&self, message: &Message) {
        match (&message.unique, self.windows()) {
            (Some(unique), Some(windows)) => {
                self.end_window(windows.let_go(&unique.key, &message.id).await, &message.id);
            }
            // Its record is in another place, and will be there before the broker hears of the end.
            (Some(_), None) if !self.settles_results => self.broker.let_go(message),
            _ => {}
        }
    }

    /// A task was revoked of which nothing is known here but its id.
    pub(crate) async fn window_of_revoked(&self, id: &TaskId) {
        if let Some(windows) = self.windows() {
            self.end_window(windows.let_go_of(id).await, id);
        }
    }

    fn end_window(&self, ended: Result<bool, StoreError>, id: &TaskId) {
        if let Err(error) = ended {
            tracing::warn!(%id, %error, "a dedupe window is not ended, and passes by itself");
        }
    }
}
