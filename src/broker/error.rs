//! The errors of brokers.

use std::path::PathBuf;

use crate::core::IoFailure;
use crate::store::StoreError;
use crate::store::chord::not_open;
use crate::task::{EnqueueError, TaskId};

/// The error of a broker; its text says what to do.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The broker is closed.
    #[error("the broker is closed")]
    Closed,
    /// The id is taken: a task of it waits, runs or has its result kept.
    #[error("a task of id `{0}` waits, runs or has its result kept")]
    DuplicateId(TaskId),
    /// The delivery was settled before, or its consumer was replaced.
    #[error(
        "the delivery is not this consumer's any more: it was settled before, or the consumer was replaced"
    )]
    Stale,
    /// There is no room for the message.
    #[error("{0}")]
    Full(String),
    /// Another process has the store.
    #[error(
        "the store {} is in use by process {owner}: one process owns a store; stop that one, or give this one a directory of its own", .path.display()
    )]
    InUse {
        /// The directory of the store.
        path: PathBuf,
        /// The process id in the lock file.
        owner: String,
    },
    /// The directory in which a store was to be made belongs to something else.
    #[error(
        "{} is not a store of Celeriac's, and it is not empty: it holds {found}. Nothing there was touched. Give the store a directory of its own, a new or an empty one", .path.display()
    )]
    NotAStore {
        /// The directory that is no store.
        path: PathBuf,
        /// Some of the names that the directory holds.
        found: String,
    },
    /// There is no store where one was expected.
    #[error("{0}")]
    NoStore(String),
    /// An id, a name or a key is too long, and always will be.
    #[error("{0}")]
    Invalid(String),
    /// A file of the store is damaged.
    #[error(
        "the store {} cannot be read: {error}. A file there is damaged, lost or of another version: put back a copy of the directory, or move it away to start empty (what waited there is then not run). `celeriac store verify` says what is damaged, and `celeriac store salvage` copies to a new store all that can be read", .path.display()
    )]
    Damaged {
        /// The directory, or the file in it.
        path: PathBuf,
        /// The error of the database.
        error: String,
    },
    /// A member was to be added to a chord that is over, or that was never opened.
    #[error("{}", not_open(.0))]
    NoChord(String),
    /// What is to count the members of a chord cannot.
    #[error("its chord could not be {done}: {source}")]
    Chord {
        /// What could not be done with the chord: "opened", "told".
        done: &'static str,
        /// Why not.
        source: StoreError,
    },
    /// It is not known whether a call is a duplicate.
    #[error("the unique window of `{task}` cannot be asked for: {error}")]
    Window {
        /// The task.
        task: String,
        /// Why not.
        error: String,
    },
    /// The store that keeps the results of its tasks did not do its part.
    #[error(transparent)]
    Store(StoreError),
    /// The broker refuses it for good: it will never take this message as it is, or never lets this user do that. The text
    /// says what it has against it.
    #[error("{0}")]
    Refused(String),
    /// The broker panicked: there is a fault in it. Whether a message was taken is then not known.
    #[error("{0}")]
    Panicked(String),
    /// Reading or writing failed. Whether a message was taken is then not known.
    #[error(transparent)]
    Io(IoFailure),
}

crate::core::debug_as_display!(BrokerError);

impl BrokerError {
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

    /// Whether the same call would fail in the same way however often it is made. Any other error passes by
    /// itself, or when somebody has repaired the broker, so a caller who must not lose a message tries again.
    /// After a permanent error the caller gives the message up and keeps the reason where it can be seen.
    /// [`Closed`](Self::Closed) is not permanent: it says nothing about the message, and the next process may try.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Invalid(_) => true,
            Self::DuplicateId(_) | Self::Stale | Self::NoChord(_) => true,
            Self::Chord { source, .. } | Self::Store(source) => source.is_permanent(),
            _ => false,
        }
    }
}

impl From<StoreError> for BrokerError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Closed => Self::Closed,
            StoreError::NoChord(group) => Self::NoChord(group),
            error => Self::Store(error),
        }
    }
}

impl From<BrokerError> for StoreError {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::Closed => Self::Closed,
            BrokerError::Refused(reason) | BrokerError::Invalid(reason) => Self::Refused(reason),
            BrokerError::NoChord(group) => Self::NoChord(group),
            BrokerError::Store(error) => error,
            BrokerError::Panicked(text) => Self::Panicked(text),
            BrokerError::Io(failure) => Self::Io(failure),
            error if error.is_permanent() => Self::Refused(error.to_string()),
            error => Self::io_because(error.to_string(), error),
        }
    }
}

impl From<BrokerError> for EnqueueError {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::DuplicateId(id) => Self::DuplicateId { id },
            BrokerError::Full(reason) => Self::StorageFull { reason },
            BrokerError::Closed => Self::ShuttingDown,
            BrokerError::Refused(reason) | BrokerError::Invalid(reason) => Self::Refused { reason },
            BrokerError::Window { task, error } => Self::Window { task, error },
            error @ BrokerError::Chord { .. } if error.is_permanent() => Self::Canvas(error.to_string()),
            error @ BrokerError::Chord { .. } => Self::Chord(error.to_string()),
            error if error.is_permanent() => Self::Refused { reason: error.to_string() },
            error => Self::Broker(error.to_string()),
        }
    }
}

/// The beginning of a text that another program has written, for errors and logs: a name of 80 KB says no more
/// than its first 200 characters.
#[cfg(feature = "amqp")]
pub(super) fn shown(text: &str) -> String {
    const MOST: usize = 200;
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_help_is_told_from_what_passes() {
        let text = String::new;
        let chord = |source| BrokerError::Chord { done: "opened", source };
        for permanent in [
            BrokerError::Refused(text()),
            BrokerError::Invalid(text()),
            BrokerError::DuplicateId("a".into()),
            BrokerError::Stale,
            BrokerError::NoChord(text()),
            BrokerError::Store(StoreError::Unsupported(text())),
            chord(StoreError::Refused(text())),
        ] {
            assert!(permanent.is_permanent(), "{permanent:?}");
            assert!(EnqueueError::from(permanent.clone()).is_permanent(), "{permanent:?}");
        }
        for passing in [
            BrokerError::io(text()),
            BrokerError::Full(text()),
            BrokerError::Closed,
            BrokerError::Panicked(text()),
            BrokerError::Store(StoreError::io(text())),
            chord(StoreError::io(text())),
        ] {
            assert!(!passing.is_permanent(), "{passing:?}");
            assert!(!EnqueueError::from(passing.clone()).is_permanent(), "{passing:?}");
        }
    }

    /// What is too long is refused by whoever passes it on, so that nobody tries it again.
    #[test]
    fn what_is_refused_or_too_long_is_refused_in_the_words_of_the_seam() {
        for error in [BrokerError::Refused("too large".into()), BrokerError::Invalid("too large".into())] {
            let refused = EnqueueError::from(error.clone());
            assert_eq!(refused, EnqueueError::Refused { reason: "too large".into() });
            assert_eq!(StoreError::from(error), StoreError::Refused("too large".into()));
        }
        let source = || StoreError::io("Redis is away");
        let chord = EnqueueError::from(BrokerError::Chord { done: "opened", source: source() });
        let told = "the canvas cannot be sent now: its chord could not be opened: Redis is away";
        assert_eq!(chord.to_string(), told);
    }
}
