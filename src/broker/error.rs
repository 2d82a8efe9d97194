//! What can go wrong with a broker.

use std::path::PathBuf;

use crate::store::chord::not_open;
use crate::task::{EnqueueError, TaskId};

/// A broker's error; the text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// Closed.
    #[error("the broker is closed")]
    Closed,
    /// The id is taken.
    #[error("a task of id `{0}` waits, runs or has its result kept")]
    DuplicateId(TaskId),
    /// The delivery was settled before, or its consumer was replaced.
    #[error(
        "the delivery is not this consumer's any more: it was settled before, or the consumer was replaced"
    )]
    Stale,
    /// No room.
    #[error("{0}")]
    Full(String),
    /// Another process has the store.
    #[error(
        "the store {} is in use by process {owner}: one process owns a store; stop that one, or give this one a directory of its own", .path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process id in the lock file.
        owner: String,
    },
    /// A file of the store is damaged.
    #[error(
        "the store {} cannot be read: {error}. A file there is damaged or of another version: put back a copy of the directory, or move it away to start empty (what waited there is then not run)", .path.display()
    )]
    Damaged {
        /// The directory, or the file in it.
        path: PathBuf,
        /// What the engine said.
        error: String,
    },
    /// A member is added to a chord that is over, or was never opened.
    #[error("{}", not_open(.0))]
    NoChord(String),
    /// Reading or writing failed.
    #[error("{0}")]
    Io(String),
}

impl From<BrokerError> for EnqueueError {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::DuplicateId(id) => Self::DuplicateId { id },
            BrokerError::Full(reason) => Self::StorageFull { reason },
            BrokerError::Closed => Self::ShuttingDown,
            other => Self::Broker(other.to_string()),
        }
    }
}
