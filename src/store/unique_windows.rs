//! Unique windows for brokers that keep none: of several processes that enqueue the same call, one is the first.
//!
//! A caller asks for the window before it publishes the message. Until the broker has the message, the window is
//! held for a lease only, which its holder renews while it publishes. When the broker has the message, the window
//! is confirmed and lasts for its whole length. So a process that dies between the two, or that cannot publish,
//! leaves nothing behind. A caller that asks meanwhile is told that it is not known yet whether there is a task to
//! join.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::task::{TaskId, UniqueKey};

/// The answer to a task that asks for a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WindowHold {
    /// The task holds the window for the lease, and has to confirm it.
    Begun,
    /// The window was confirmed as this task's before, and stays as it is.
    Confirmed,
    /// Another task holds the window and is being published. That may come to nothing, so the caller asks again.
    Publishing(TaskId),
    /// Another task holds the window, and the broker has its message.
    Taken(TaskId),
}

/// Keeps unique windows, by a clock of its own.
#[async_trait]
pub trait UniqueWindowStore: Send + Sync {
    /// Begins the window of this key for a task that is about to be published, unless another task holds it. The
    /// window lasts for `lease`, unless it is asked for again, confirmed or ended before. A window that is
    /// confirmed already stays as it is.
    ///
    /// # Errors
    /// It is not known whether the window is held.
    async fn acquire(&self, key: &UniqueKey, id: &TaskId, lease: Duration) -> Result<WindowHold, StoreError>;

    /// Prolongs the lease of a window that is not confirmed yet. `false`: the task does not hold the window any
    /// more, and nothing is changed.
    ///
    /// # Errors
    /// The window may end with its lease.
    async fn renew(&self, key: &UniqueKey, id: &TaskId, lease: Duration) -> Result<bool, StoreError>;

    /// Confirms a window, because the broker has the message: the window lasts for `window` from now on. `false`:
    /// the task does not hold it any more, because the task is over already or the lease ended, and nothing is
    /// changed.
    /// # Errors
    /// The window may end with its lease.
    async fn confirm(&self, key: &UniqueKey, id: &TaskId, window: Duration) -> Result<bool, StoreError>;

    /// Ends the window of this key if this task holds it. Says whether it did.
    ///
    /// # Errors
    /// The window may not have ended.
    async fn release(&self, key: &UniqueKey, id: &TaskId) -> Result<bool, StoreError>;

    /// Ends the window that a task holds, whatever its key. It is for a task that was revoked where its message is
    /// not at hand.
    ///
    /// # Errors
    /// The window may not have ended.
    async fn release_of(&self, id: &TaskId) -> Result<bool, StoreError>;

    /// The task that holds the window, if its message is published.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn holder(&self, key: &UniqueKey) -> Result<Option<TaskId>, StoreError>;

    /// Carries `work` out to its end on a thread of the store's own, whether anybody waits for it or not: a
    /// publish under a window goes on after its caller has given up, so that the window ends as it should.
    fn carry_out(&self, work: Pin<Box<dyn Future<Output = ()> + Send>>);
}
