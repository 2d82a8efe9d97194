//! Serial tasks: the lane of a run, and the rules that the run states for that lane.
//!
//! A lane has a scope (the task's name, unless the task states another) and a key that is made of the arguments. A lane
//! never runs more tasks at a time than its concurrency, and they start in the order in which they were accepted. Their
//! messages wait in the broker, where all messages wait; [`core::lane`](crate::core::lane) decides.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Arguments, ArgumentsError, Task, TaskId};
use crate::core::Timestamp;
pub use crate::core::lane::{AfterFailure, Newcomer};

/// The longest key in bytes. A longer one is cut and gets a checksum that keeps it apart from others, so that data of
/// any length can be a key.
const LONGEST_KEY: usize = 480;

/// The name of a lane. Clones share one text, and its hash is worked out once.
#[derive(Clone)]
pub struct LaneName(Arc<SharedName>);

struct SharedName {
    name: Name,
    /// The hash of the name, with keys that are of this process.
    hash: u64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename = "LaneName")]
struct Name {
    scope: String,
    key: String,
}

/// The keys of the hashes. They are random, so that nobody can choose serial keys whose lanes have one hash.
static HASH_KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl From<Name> for LaneName {
    fn from(name: Name) -> Self {
        let hash = HASH_KEYS.hash_one(&name);
        Self(Arc::new(SharedName { name, hash }))
    }
}

impl LaneName {
    /// Names the lane of this key within this scope. The scope is a task's name, or the name that several tasks share
    /// on purpose.
    pub fn new(scope: impl Into<String>, key: impl Into<String>) -> Self {
        Self::from(Name { scope: cut(scope.into()), key: cut(key.into()) })
    }

    /// The scope within which the key is unique.
    pub fn scope(&self) -> &str {
        &self.0.name.scope
    }

    /// The key within the scope.
    pub fn key(&self) -> &str {
        &self.0.name.key
    }
}

impl fmt::Debug for LaneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LaneName").field(&self.0.name).finish()
    }
}

impl PartialEq for LaneName {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.0.hash == other.0.hash && self.0.name == other.0.name)
    }
}

impl Eq for LaneName {}

impl Hash for LaneName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl Ord for LaneName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.name.cmp(&other.0.name)
    }
}

impl PartialOrd for LaneName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Serialize for LaneName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.name.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for LaneName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Name::deserialize(deserializer).map(Self::from)
    }
}

pub(super) fn cut(mut text: String) -> String {
    if text.len() > LONGEST_KEY {
        let sum = xxhash_rust::xxh3::xxh3_128(text.as_bytes());
        text.truncate(text.floor_char_boundary(LONGEST_KEY - 33));
        text = format!("{text}#{sum:032x}");
    }
    text
}

/// Writes the name as HQ spells its lock keys: scope, hyphen, key.
impl fmt::Display for LaneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.scope(), self.key())
    }
}

/// The serial part of a message: its lane, and the rules for that lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SerialHeader {
    /// The lane that the task stands in.
    pub lane: LaneName,
    /// The number of tasks of the lane that may run at a time.
    pub concurrency: u32,
    /// The rule for this task when it finds the lane taken.
    pub newcomer: Newcomer,
    /// The rule for the lane when this task fails for good.
    pub after_failure: AfterFailure,
    /// The reason why the lane did not take the task, if it did not. Such a task must not run.
    pub refusal: Option<Refusal>,
    /// The number of times that a start of the task was handed back. It keeps the fencing tokens of the starts apart.
    pub handed_back: u32,
    /// The time at which the lane let the task in, if it had to wait for that.
    pub let_in_at: Option<Timestamp>,
    /// The proof that the lane has let this message in, if the lane is kept apart from the messages.
    #[serde(skip)]
    pub(crate) pass: Option<Pass>,
}

/// The proof that a lane gives to a message that it lets in, if the lane is kept apart from the messages. Whoever
/// starts the message has to show its pass, so that an old copy of the message is not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pass {
    /// The number of this admission.
    pub(crate) token: u64,
    /// The number of the period since which the lane's keeper has forgotten nothing. If the keeper does not know a pass
    /// of another era, it may just have lost it.
    pub(crate) era: u64,
}

/// The reason why a lane does not take a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refusal {
    /// The task has waited for its lane as long as it was willing to.
    CouldNotAcquireLock,
    /// A newer task came and took the place of this one, which waited.
    Replaced {
        /// The id of the newer task.
        by: TaskId,
    },
}

impl SerialHeader {
    /// The serial part for a call in this lane, with the defaults: one at a time, a newcomer waits, and after a failure
    /// the next one goes on.
    pub fn new(lane: LaneName) -> Self {
        Self {
            lane,
            concurrency: 1,
            newcomer: Newcomer::default(),
            after_failure: AfterFailure::default(),
            refusal: None,
            handed_back: 0,
            let_in_at: None,
            pass: None,
        }
    }

    /// Sets how many tasks of the lane may run at a time.
    #[must_use]
    pub fn with_concurrency(mut self, concurrency: u32) -> Self {
        self.concurrency = concurrency;
        self
    }

    /// Sets the rule for this task when it finds the lane taken.
    #[must_use]
    pub fn with_newcomer(mut self, newcomer: Newcomer) -> Self {
        self.newcomer = newcomer;
        self
    }

    /// Sets the rule for the lane when this task fails for good.
    #[must_use]
    pub fn with_after_failure(mut self, after_failure: AfterFailure) -> Self {
        self.after_failure = after_failure;
        self
    }

    /// The longest time that the task waits for its lane. It is `None` if the task states no limit.
    pub fn patience(&self) -> Option<Duration> {
        match self.newcomer {
            Newcomer::FailAfter(patience) => Some(patience),
            _ => None,
        }
    }
}

/// Makes the serial part of a call from its encoded arguments, for a message that comes without one.
#[doc(hidden)]
pub fn serial_of<T: Task>(arguments: &Arguments) -> Result<SerialHeader, ArgumentsError> {
    let args = arguments.decode_call::<T>()?;
    Ok(T::serial(&args).unwrap_or_else(|| SerialHeader::new(LaneName::new(T::NAME, ""))))
}

/// A value that can be part of a key: everything that implements `Display`. The trait exists for the compiler's message
/// when a type does not.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be part of a key, because it cannot be shown as text",
    label = "this parameter does not implement `Display`",
    note = "name a field that does (`{{form.domain}}`), or write `key = path::to::function`, which makes the key of all parameters"
)]
pub trait KeyPart {
    /// The value as something that can be shown.
    fn key_part(&self) -> &dyn fmt::Display;
}

#[diagnostic::do_not_recommend]
impl<T: fmt::Display> KeyPart for T {
    fn key_part(&self) -> &dyn fmt::Display {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_keys_are_cut_and_stay_apart() {
        let lane = |last: char| LaneName::new("app::sync", format!("{}{last}", "ü".repeat(400)));
        let (a, b) = (lane('a'), lane('b'));
        assert!(a != b && a.key().len() <= LONGEST_KEY && a.key().starts_with("üü"));
        assert_eq!(a, lane('a'));
        assert_eq!(LaneName::new("greet", "joe-dimagi").to_string(), "greet-joe-dimagi");
    }

    #[test]
    fn a_name_that_was_read_is_the_one_that_was_written() {
        let hash = |name: &LaneName| RandomState::hash_one(&HASH_KEYS, name);
        let written = LaneName::new("app::sync", "ab");
        let text = serde_json::to_string(&written).unwrap();
        assert_eq!(text, r#"{"scope":"app::sync","key":"ab"}"#);
        let read: LaneName = serde_json::from_str(&text).unwrap();
        assert_eq!((&read, hash(&read)), (&written, hash(&written)));
        // The same text, parted elsewhere.
        let other = LaneName::new("app::synca", "b");
        assert!(other != written && hash(&other) != hash(&written) && other > written);
    }
}
