//! The seam for state beside messages: what became of tasks.

pub mod embedded;
pub mod memory;
mod waiters;

#[cfg(feature = "testing")]
pub mod conformance;

use async_trait::async_trait;

pub use embedded::EmbeddedStore;
pub use memory::MemoryStore;
pub(crate) use waiters::Waiters;

use crate::core::Timestamp;
use crate::task::{TaskId, TaskResult};

/// A store's error; the text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Closed.
    #[error("the store is closed")]
    Closed,
    /// Reading or writing failed.
    #[error("{0}")]
    Io(String),
}

/// Keeps the records of tasks that are over. Finished is final: the first record of an id stays until it expires
/// or is forgotten.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Keeps a record. `false`: there was one already, which stays.
    ///
    /// # Errors
    /// It is not kept.
    async fn put(&self, result: TaskResult) -> Result<bool, StoreError>;

    /// The record of an id, unless it has expired by `now`.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn get(&self, id: &TaskId, now: Timestamp) -> Result<Option<TaskResult>, StoreError>;

    /// Completes with the record of an id as soon as there is one, without polling. Whether an id can have one at
    /// all is for the caller to find out.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn wait(&self, id: &TaskId) -> Result<TaskResult, StoreError>;

    /// Deletes the record of an id; says whether there was one.
    ///
    /// # Errors
    /// It is not deleted.
    async fn forget(&self, id: &TaskId) -> Result<bool, StoreError>;

    /// Deletes what has expired by `now`; says how many records went.
    ///
    /// # Errors
    /// Not all could be deleted.
    async fn sweep(&self, now: Timestamp) -> Result<usize, StoreError>;
}
