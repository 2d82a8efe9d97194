//! Unique windows that are kept in a store, while their messages are in a transport that has no transaction with
//! it. [`publish`] begins windows, and the settlement ends them.
//!
//! A window begins before its message is published, under a lease that is renewed until the transport has answered;
//! only then it gets its whole length. The publish goes on even if the caller has given up, because the transport
//! may take the message all the same. It has three possible ends:
//! - The transport has the message: whoever makes the same call joins its task.
//! - The transport has not: the window is free at once.
//! - The process has died: the window is free when its lease is over.
//!
//! Before one of these has happened, whoever makes the same call waits.
//!
//! A window ends before the record of its task is kept. A process that dies in between leaves a task that runs
//! again while its window is free; that loses no task.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::SplitInner;
use crate::broker::{BrokerError, UniqueWindows};
use crate::core::Backoff;
use crate::store::{StoreError, UniqueWindowStore, WindowHold};
use crate::task::{Durability, Message, Receipt, TaskId, Unique, UniqueKey};

/// How long a window whose message is being published outlives its process, or the connection to the store.
const LEASE: Duration = Duration::from_secs(10);
/// How long a call waits for what becomes of another call of its window. It is longer than the lease, so it
/// outlasts a call whose process has died.
const PATIENCE: Duration = Duration::from_secs(15);
/// The first pause between two looks at that, and the longest; they double.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

#[async_trait]
impl UniqueWindows for SplitInner {
    async fn holder(&self, key: &UniqueKey) -> Result<Option<TaskId>, BrokerError> {
        match self.store.unique_windows() {
            Some(windows) => Ok(windows.holder(key).await?),
            None => Ok(None),
        }
    }

    async fn release(&self, message: &Message) -> Result<(), BrokerError> {
        if let (Some(windows), Some(unique)) = (self.store.unique_windows(), &message.unique) {
            windows.release(&unique.key, &message.id).await?;
        }
        Ok(())
    }
}

/// Publishes a message, under its unique window if it has one that is kept in the store.
pub(super) async fn publish(
    shared: &Arc<SplitInner>,
    message: Message,
    unique: bool,
) -> Result<Receipt, BrokerError> {
    if shared.transport.unique_windows().is_none()
        && let (Some(window), Some(windows)) = (message.unique.clone(), shared.store.unique_windows())
    {
        let (told, answer) = oneshot::channel();
        let shared = Arc::clone(shared);
        windows.carry_out(Box::pin(async move {
            let _ = told.send(shared.publish_under(&window, message, unique).await); // the caller may have given up
        }));
        return answer.await.unwrap_or(Err(BrokerError::Closed));
    }
    shared.transport.publish(message, unique).await
}

impl SplitInner {
    async fn publish_under(
        &self,
        window: &Unique,
        message: Message,
        unique: bool,
    ) -> Result<Receipt, BrokerError> {
        let Some(windows) = self.store.unique_windows() else {
            return self.transport.publish(message, unique).await;
        };
        let (key, id) = (&window.key, message.id.clone());
        let lease = LEASE.min(window.window);
        let is_new = match ask(windows, window, &message, lease).await? {
            WindowAnswer::Joins(holder) => {
                return Ok(Receipt::new(id, message.queue, Durability::Disk).joining(holder));
            }
            WindowAnswer::Holds { is_new } => is_new,
        };
        let published = tokio::select! {
            biased;
            published = self.transport.publish(message, unique) => published,
            () = renew(windows, window, &id, lease) => Err(BrokerError::Closed), // `renew` never ends
        };
        match &published {
            // An earlier call with this id has the window and keeps it, whatever became of this one.
            Err(_) if !is_new => {}
            // The message's lane has left it out, so there is no task for the window.
            Ok(receipt) if receipt.joined => said(&id, windows.release(key, &id).await),
            // The transport has a task of this id that is not over, so the window gets its whole length.
            Ok(_) | Err(BrokerError::DuplicateId(_)) => {
                if let Err(error) = windows.confirm(key, &id, window.window).await {
                    tracing::warn!(%id, %error, "a task is published, but its unique window is not confirmed and may end early");
                }
            }
            Err(_) => said(&id, windows.release(key, &id).await),
        }
        published
    }

    /// Ends the windows of revoked tasks of which only the ids are known here.
    pub(super) async fn end_windows_of(&self, ids: &[TaskId]) {
        if self.transport.unique_windows().is_none()
            && let Some(windows) = self.store.unique_windows()
        {
            for id in ids {
                said(id, windows.release_of(id).await);
            }
        }
    }
}

/// The store's answer to a call that asks for a window.
enum WindowAnswer {
    Joins(TaskId),
    /// The window is this call's. `is_new`: it has begun now, and not by an earlier call with this id.
    Holds {
        is_new: bool,
    },
}

/// Asks for a window until it is clear who has it, for [`PATIENCE`] at most.
async fn ask(
    windows: &dyn UniqueWindowStore,
    window: &Unique,
    message: &Message,
    lease: Duration,
) -> Result<WindowAnswer, BrokerError> {
    let (begun, mut backoff) = (Instant::now(), Backoff::new(FIRST_PAUSE, LONGEST_PAUSE));
    let unknown = |error: String| BrokerError::Window { task: message.task.clone(), error };
    loop {
        match windows
            .acquire(&window.key, &message.id, lease)
            .await
            .map_err(|error| unknown(error.to_string()))?
        {
            WindowHold::Begun => return Ok(WindowAnswer::Holds { is_new: true }),
            WindowHold::Confirmed => return Ok(WindowAnswer::Holds { is_new: false }),
            WindowHold::Taken(holder) => return Ok(WindowAnswer::Joins(holder)),
            WindowHold::Publishing(holder) if begun.elapsed() >= PATIENCE => {
                return Err(unknown(format!(
                    "task `{holder}` of the same key has been on its way to the broker for more than {PATIENCE:?}; try again when the broker is there"
                )));
            }
            WindowHold::Publishing(_) => tokio::time::sleep(backoff.pause()).await,
        }
    }
}

/// Renews the lease of a window for as long as this is polled; it never completes. It does not begin the window
/// anew, because the task may have been published, and be over, before this process hears of it.
async fn renew(windows: &dyn UniqueWindowStore, window: &Unique, id: &TaskId, lease: Duration) {
    loop {
        tokio::time::sleep((lease / 3).max(Duration::from_millis(1))).await;
        if let Err(error) = windows.renew(&window.key, id, lease).await {
            tracing::warn!(%id, %error, "the unique window of a task that is being published is not renewed");
        }
    }
}

/// Logs that a window could not be ended.
fn said(id: &TaskId, ended: Result<bool, StoreError>) {
    if let Err(error) = ended {
        tracing::warn!(%id, %error, "a unique window could not be ended; it ends by its own time");
    }
}
