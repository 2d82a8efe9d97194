//! The id of a task.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::core::Timestamp;

/// The largest number of bytes that an id may have: the id of a task, a group, a chord, a root or a parent. Ids travel
/// in AMQP's short strings, which hold no more, and they are parts of keys in every store.
pub const LONGEST_ID: usize = 255;

/// The error of an id that is not usable.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} has {len} bytes{}; an id has 1 to {LONGEST_ID}", begin(.begins))]
pub(crate) struct BadId {
    /// The owner of the id, as the subject of a sentence, for example `the task id`.
    what: String,
    /// The length of the id in bytes.
    pub(crate) len: usize,
    /// The first letters of the id, for the error's text.
    begins: String,
}

crate::core::debug_as_display!(BadId);

fn begin(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" (it begins with `{}`)", text.escape_debug()) }
}

/// Checks whether a text may be an id. Every id goes through this check, both where it comes in and where it is used.
///
/// # Errors
/// The text is empty, or has more than [`LONGEST_ID`] bytes.
pub(crate) fn check_id(what: &str, id: &str) -> Result<(), BadId> {
    if (1..=LONGEST_ID).contains(&id.len()) {
        return Ok(());
    }
    let begins = id.chars().take(40).collect();
    Err(BadId { what: what.to_owned(), len: id.len(), begins })
}

/// The id of one task. By default it is a UUID of version 7 as text, as Celery's ids are UUIDs as text.
///
/// The id stays the same through retries, postponements and continuations. Any text of 1 to 255 bytes is an id, so that
/// ids from other systems can be kept.
///
/// ```
/// use celeriac::task::TaskId;
/// let id = TaskId::new();
/// assert_eq!(id.as_str().len(), 36);
/// assert_eq!(TaskId::from("import-42").to_string(), "import-42");
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(Arc<str>);

impl TaskId {
    /// Makes a new id that nobody else has. Later ids sort after earlier ones, to the millisecond.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self::new_at(crate::task::clock::now())
    }

    /// As [`new`](Self::new), for a caller who has read the clock already.
    pub(crate) fn new_at(now: Timestamp) -> Self {
        // `Uuid::now_v7` asks the system for randomness each time, which is a good part of the cost of an enqueue. The
        // thread's own generator was seeded by the system.
        let id = uuid::Builder::from_unix_timestamp_millis(now.as_millis(), &rand::random()).into_uuid();
        let mut buffer = [0; uuid::fmt::Hyphenated::LENGTH];
        Self(Arc::from(&*id.hyphenated().encode_lower(&mut buffer)))
    }

    /// The time at which this id was made, by the clock of the machine that made it. `None`: it is no UUID of version 7,
    /// and does not say so.
    ///
    /// ```
    /// use celeriac::task::TaskId;
    /// assert!(TaskId::new().made_at().is_some() && TaskId::from("import-42").made_at().is_none());
    /// ```
    pub fn made_at(&self) -> Option<Timestamp> {
        let id = uuid::Uuid::try_parse(&self.0).ok().filter(|id| id.get_version_num() == 7)?;
        let [a, b, c, d, e, f, ..] = id.into_bytes();
        Some(Timestamp::from_millis(u64::from_be_bytes([0, 0, a, b, c, d, e, f])))
    }

    /// Whether a task can have this id: see [`LONGEST_ID`].
    pub(crate) fn is_usable(&self) -> bool {
        check_id("the task id", &self.0).is_ok()
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for TaskId {
    fn from(id: &str) -> Self {
        Self(Arc::from(id))
    }
}

impl From<String> for TaskId {
    fn from(id: String) -> Self {
        Self(Arc::from(id))
    }
}

impl Borrow<str> for TaskId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for TaskId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TaskId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_version_7_says_when_it_was_made() {
        let made_at = |id: &str| TaskId::from(id).made_at();
        let time = Timestamp::from_millis(0x0199_a0b1_c2d3);
        assert_eq!(made_at("0199a0b1-c2d3-7000-8000-000000000000"), Some(time));
        let (one, other) = (TaskId::new_at(time), TaskId::new_at(time));
        assert!(one != other && one.made_at() == Some(time) && other.made_at() == Some(time));
        for id in ["0199a0b1-c2d3-4000-8000-000000000000", "import-42", ""] {
            assert_eq!(made_at(id), None, "{id}");
        }
    }

    #[test]
    fn an_id_has_1_to_255_bytes() {
        for usable in ["a", "\0", &"x".repeat(255)] {
            assert_eq!(check_id("the task id", usable), Ok(()));
        }
        let refused = check_id("the group id", &"ä".repeat(128)).unwrap_err();
        let text = refused.to_string();
        assert!(text.starts_with("the group id has 256 bytes (it begins with `ää"), "{text}");
        assert_eq!(
            check_id("the task id", "").unwrap_err().to_string(),
            "the task id has 0 bytes; an id has 1 to 255"
        );
        assert!(!TaskId::from("x".repeat(70_000)).is_usable());
    }
}
