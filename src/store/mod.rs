//! The seam for state beside messages: the records of tasks, and what else outlives a run.

pub(crate) mod chord;
mod duplicates;
pub mod embedded;
mod group;
mod guarded;
pub(crate) mod history;
mod hourly_notes;
pub mod memory;
mod notes;
mod packed;
pub(crate) mod payloads;
mod permits;
pub(crate) mod recorded_runs;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "amqp")]
pub mod rpc;
pub(crate) mod run_times;
pub(crate) mod sent_marks;
mod shared_rates;

mod unique_windows;
mod waiters;

#[cfg(feature = "testing")]
pub mod conformance;

use std::sync::Arc;

use async_trait::async_trait;

pub use crate::task::TrackedState;
pub use chord::{ChordJoin, ChordPart, ChordSize, ChordStore};
pub use duplicates::{DuplicateClaim, DuplicateStore};
pub use embedded::EmbeddedStore;
pub use group::{GroupMember, GroupResult, GroupStore};
pub(crate) use guarded::GuardedStore;
pub use memory::MemoryStore;
pub(crate) use notes::set_note;
pub use notes::{CompareAndSet, Leadership, Notes, Term};
pub(crate) use payloads::{Address, Decision, Payloads};
pub(crate) use permits::{LocalPermits, ParkedPermit, Parking};
#[cfg(feature = "redis")]
pub use redis::{RedisOptions, RedisStore};
#[cfg(feature = "amqp")]
pub use rpc::{RpcOptions, RpcStore};
pub use shared_rates::{SharedRates, StartsGranted, StartsWanted};
pub use unique_windows::{UniqueWindowStore, WindowHold};
pub(crate) use waiters::Waiters;

use crate::core::{IoFailure, Timestamp};
use crate::task::{PermitKeeper, TaskId, TaskResult};

/// The error of a store; its text says what to do.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
    /// Reading or writing failed.
    #[error(transparent)]
    Io(IoFailure),
    /// This store cannot do it.
    #[error("{0}")]
    Unsupported(String),
    /// The store refuses, and would do so again: the record is too large, or its name holds something else.
    #[error("{0}")]
    Refused(String),
    /// A member is added to a chord that is over, or was never opened.
    #[error("{}", chord::not_open(.0))]
    NoChord(String),
    /// The store panicked: there is a fault in it.
    #[error("{0}")]
    Panicked(String),
}

crate::core::debug_as_display!(StoreError);

impl StoreError {
    /// Reading or writing failed; the text says at what, why, and what to do.
    pub fn io(text: impl Into<String>) -> Self {
        Self::Io(IoFailure::new(text))
    }

    /// Reading or writing failed because of `source`, whose text is in `text` as far as it helps.
    pub fn io_because(
        text: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::Io(IoFailure::caused_by(text, source))
    }

    /// Whether the same call would fail in the same way however often it is made.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Unsupported(_) | Self::NoChord(_))
    }
}

impl From<StoreError> for IoFailure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Io(failure) => failure,
            error => Self::caused_by(error.to_string(), error),
        }
    }
}

/// Keeps the records of tasks that are over. A finished task stays finished: the first record of an id stays until
/// it expires or is forgotten.
///
/// What only some stores can do is a trait of its own, and a store that can do it hands itself out as one. None of these
/// functions has a default, so a store in front of another one states for each ability whether it passes it on.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Keeps a record. `false`: there was one already, which stays.
    ///
    /// # Errors
    /// The record is not kept.
    async fn put(&self, result: TaskResult) -> Result<bool, StoreError>;

    /// The record of an id, unless it has expired by `now`.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn get(&self, id: &TaskId, now: Timestamp) -> Result<Option<TaskResult>, StoreError>;

    /// Completes with the record of an id as soon as there is one, without polling. The caller must know whether
    /// the id can have a record at all.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn wait(&self, id: &TaskId) -> Result<TaskResult, StoreError>;

    /// Deletes the record of an id. Says whether there was one.
    ///
    /// # Errors
    /// The record is not deleted.
    async fn forget(&self, id: &TaskId) -> Result<bool, StoreError>;

    /// Deletes what has expired by `now`. Answers with the number of records that it deleted.
    ///
    /// # Errors
    /// Not all of them could be deleted.
    async fn sweep(&self, now: Timestamp) -> Result<usize, StoreError>;

    /// Keeps the state of a task that is not over: STARTED, RETRY, or a state of the application's such as
    /// PROGRESS. A record replaces the state, and is never replaced by one.
    ///
    /// # Errors
    /// The state is not kept.
    async fn track(&self, state: TrackedState) -> Result<(), StoreError>;

    /// The last state that was kept of a task that is not over.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn tracked(&self, id: &TaskId) -> Result<Option<TrackedState>, StoreError>;

    /// Forgets the state of a task, which is over. It is for stores that keep states in memory.
    ///
    /// # Errors
    /// The state is still there.
    async fn untrack(&self, id: &TaskId) -> Result<(), StoreError>;

    /// Remembers until `until` that a task is revoked. Every process that is about to start the task sees that,
    /// also after a restart.
    ///
    /// # Errors
    /// The revocation is not kept.
    async fn revoke(&self, id: &TaskId, until: Timestamp) -> Result<(), StoreError>;

    /// Which of these tasks are revoked.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn revoked(&self, ids: &[TaskId], now: Timestamp) -> Result<Vec<TaskId>, StoreError>;

    /// Whether a task is revoked, if this process knows it without asking anybody; it never waits. `None`: it is not
    /// known here, and [`revoked`](Self::revoked) says it.
    fn is_known_revoked(&self, id: &TaskId, now: Timestamp) -> Option<bool>;

    /// The queue to which the process that runs a task sends its results, if this store gets them that way:
    /// Celery's `reply_to`.
    fn reply_to(&self) -> Option<String>;

    /// Whether other programs read this store, so that it is told of STARTED and RETRY too.
    fn is_shared(&self) -> bool;

    /// The ability to count the members of chords.
    fn chords(&self) -> Option<&dyn ChordStore>;

    /// The ability to keep the members of groups.
    fn groups(&self) -> Option<&dyn GroupStore>;

    /// The ability to let one copy of a task start that may have been published more than once. A store that no other
    /// process uses does not need it, because its broker knows which ids are taken.
    fn duplicates(&self) -> Option<&dyn DuplicateStore>;

    /// The ability to keep notes.
    fn notes(&self) -> Option<&dyn Notes>;

    /// The ability to keep unique windows, for brokers that keep none. Only stores that several processes share have it.
    fn unique_windows(&self) -> Option<&dyn UniqueWindowStore>;

    /// The keeper of named locks and limits for all processes that use this store.
    fn permits(&self) -> Option<Arc<dyn PermitKeeper>>;

    /// The ability to keep rates for all processes together. Only stores that several processes share have it.
    fn shared_rates(&self) -> Option<&dyn SharedRates>;
}

/// The store's ability to count chords.
///
/// # Errors
/// The store lacks it. The text says what Celery's rpc backend says.
pub(crate) fn chords(store: &dyn Store) -> Result<&dyn ChordStore, StoreError> {
    store.chords().ok_or_else(|| {
        let text = "this store cannot count the members of a chord: use the embedded store or Redis, as Celery's rpc backend cannot either";
        StoreError::Unsupported(text.to_owned())
    })
}

/// The store's ability to keep groups.
///
/// # Errors
/// The store lacks it.
pub(crate) fn groups(store: &dyn Store) -> Result<&dyn GroupStore, StoreError> {
    store.groups().ok_or_else(|| {
        let text = "this store does not keep groups: use the embedded store or Redis";
        StoreError::Unsupported(text.to_owned())
    })
}
