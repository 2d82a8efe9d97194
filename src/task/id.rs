//! A task's id.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The id of one task: by default a UUID of version 7 as text, as Celery's ids are UUIDs as text.
///
/// It stays the same through retries, postponements and continuations. Any text of 1 to 255 bytes will do,
/// so that ids given by other systems can be kept.
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
    /// A new id that nobody else has; later ids sort after earlier ones (to the millisecond).
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        // `Uuid::now_v7` asks the system for randomness each time, a good part of what an enqueue costs. The thread's
        // own generator is seeded from there.
        let millis = crate::task::clock::now().as_millis();
        let id = uuid::Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid();
        let mut buffer = [0; uuid::fmt::Hyphenated::LENGTH];
        Self(Arc::from(&*id.hyphenated().encode_lower(&mut buffer)))
    }

    /// The id as text.
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
