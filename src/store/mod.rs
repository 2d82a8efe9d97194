//! The seam for state beside messages: what became of tasks.

mod chord;
pub mod embedded;
mod group;
pub mod memory;
mod notes;
mod once;
pub(crate) mod payloads;
mod permits;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "amqp")]
pub mod rpc;

mod waiters;
mod windows;

#[cfg(feature = "testing")]
pub mod conformance;

use std::sync::Arc;

use async_trait::async_trait;

pub use crate::task::TrackedState;
pub use chord::{ChordJoin, ChordPart, ChordSize};
pub use embedded::EmbeddedStore;
pub use group::{GroupMember, GroupResult};
pub use memory::MemoryStore;
pub use notes::{Leadership, NoteChange, Notes, Term};
pub use once::Claim;
pub(crate) use payloads::{Address, Decision, Payloads};
pub(crate) use permits::{LocalPermits, Parking};
#[cfg(feature = "redis")]
pub use redis::{RedisOptions, RedisStore};
#[cfg(feature = "amqp")]
pub use rpc::{RpcOptions, RpcStore};
pub(crate) use waiters::Waiters;
pub use windows::Windows;

use crate::core::Timestamp;
use crate::task::{PermitKeeper, TaskId, TaskResult};

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
    /// This store cannot do it.
    #[error("{0}")]
    Unsupported(String),
    /// It was refused, and would be again: a record that is too large, or something else under its name.
    #[error("{0}")]
    Refused(String),
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

    /// Keeps the state of a task that is not over: STARTED, RETRY, or one of the application's such as PROGRESS. A record
    /// replaces it, and is never replaced by it.
    ///
    /// # Errors
    /// It is not kept.
    async fn track(&self, state: TrackedState) -> Result<(), StoreError>;

    /// The last state that was tracked of a task that is not over.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn tracked(&self, id: &TaskId) -> Result<Option<TrackedState>, StoreError>;

    /// The task is over, and what was tracked of it is of no use any more. For stores that keep it in memory.
    ///
    /// # Errors
    /// It is still there.
    async fn untrack(&self, _id: &TaskId) -> Result<(), StoreError> {
        Ok(())
    }

    /// Remembers until `until` that a task is revoked, for whoever is about to start it, in whatever process, also after a
    /// restart.
    ///
    /// # Errors
    /// It is not kept.
    async fn revoke(&self, id: &TaskId, until: Timestamp) -> Result<(), StoreError>;

    /// Which of these tasks are revoked.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn revoked(&self, ids: &[TaskId], now: Timestamp) -> Result<Vec<TaskId>, StoreError>;

    /// Lets one copy of each task that may have been published more than once through, the first that asks, however often
    /// that one asks; says of each claim whether it may start. Stores that nobody else uses let all of them through: their
    /// brokers know which ids are taken.
    ///
    /// # Errors
    /// It is not known who may start.
    async fn claim(&self, claims: &[Claim]) -> Result<Vec<bool>, StoreError> {
        Ok(vec![true; claims.len()])
    }

    /// The notes of this store, if it keeps any.
    fn notes(&self) -> Option<&dyn Notes> {
        None
    }

    /// The dedupe windows of this store, if it keeps any: only those that several processes share do, for brokers that keep
    /// none themselves.
    fn windows(&self) -> Option<&dyn Windows> {
        None
    }

    /// Who keeps named locks and limits, for all processes that use this store; `None`: nobody.
    fn permits(&self) -> Option<Arc<dyn PermitKeeper>> {
        None
    }

    /// Says how many members a chord's header has, before the first of them is sent.
    ///
    /// # Errors
    /// It is not kept, or the store cannot count chords.
    async fn open_chord(&self, _group: &str, _size: u64) -> Result<(), StoreError> {
        Err(no_chords())
    }

    /// Counts the end of a member, each member once, however often it says so.
    ///
    /// # Errors
    /// It is not counted, or the store cannot count chords.
    async fn join_chord(&self, _part: ChordPart) -> Result<ChordJoin, StoreError> {
        Err(no_chords())
    }

    /// Keeps who the members of a group are, for as long as the store keeps results. Celery's `GroupResult.save`.
    ///
    /// # Errors
    /// It is not kept, or the store cannot keep groups.
    async fn save_group(&self, _group: &GroupResult) -> Result<(), StoreError> {
        Err(no_groups())
    }

    /// A group that was saved. Celery's `GroupResult.restore`.
    ///
    /// # Errors
    /// The store cannot be read, or cannot keep groups.
    async fn group(&self, _id: &str) -> Result<Option<GroupResult>, StoreError> {
        Err(no_groups())
    }

    /// Forgets who the members of a group are; says whether it was there. Their records stay.
    ///
    /// # Errors
    /// It is not forgotten, or the store cannot keep groups.
    async fn forget_group(&self, _id: &str) -> Result<bool, StoreError> {
        Err(no_groups())
    }

    /// Where whoever runs a task is to send its results, if this store gets them that way. Celery's `reply_to`.
    fn reply_to(&self) -> Option<String> {
        None
    }

    /// Whether other programs read this store, and so are told of STARTED and RETRY too.
    fn is_shared(&self) -> bool {
        false
    }

    /// The body was sent: forgets the parts, and answers whoever still joins with `Waiting`.
    ///
    /// # Errors
    /// It is not kept.
    async fn close_chord(&self, _group: &str, _token: &str) -> Result<(), StoreError> {
        Err(no_chords())
    }
}

fn no_groups() -> StoreError {
    StoreError::Unsupported("this store does not keep groups: use Redis".to_owned())
}

/// As Celery's rpc backend says it.
fn no_chords() -> StoreError {
    StoreError::Unsupported(
        "this store cannot count the members of a chord: use the embedded store or Redis, as Celery's rpc backend cannot either"
            .to_owned(),
    )
}
