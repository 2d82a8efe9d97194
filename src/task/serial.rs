//! Serial tasks: which lane a run stands in, and what it wants there.
//!
//! A lane is a scope (the task's name, unless it states another) and a key that is made of the arguments. Of one lane no
//! more run at a time than its concurrency, and they start in the order in which they were accepted. The messages wait
//! where all messages wait, in the broker; [`core::lane`](crate::core::lane) decides.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Arguments, ArgumentsError, Task, TaskId};
use crate::core::Timestamp;
pub use crate::core::lane::{AfterFailure, Newcomer};

/// A longer key is cut and made unlike others by a checksum, so that data of any length can be a key.
const LONGEST_KEY: usize = 480;

/// The name of a lane. Copies share one text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneName(Arc<Name>);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename = "LaneName")]
struct Name {
    scope: String,
    key: String,
}

impl LaneName {
    /// The lane of this key among those of this scope: a task's name, or what the tasks that share it state.
    pub fn new(scope: impl Into<String>, key: impl Into<String>) -> Self {
        Self(Arc::new(Name { scope: cut(scope.into()), key: cut(key.into()) }))
    }

    /// Whose keys these are.
    pub fn scope(&self) -> &str {
        &self.0.scope
    }

    /// The key.
    pub fn key(&self) -> &str {
        &self.0.key
    }
}

impl Serialize for LaneName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for LaneName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Name::deserialize(deserializer).map(|name| Self(Arc::new(name)))
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

/// As HQ spells its lock keys.
impl fmt::Display for LaneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.scope(), self.key())
    }
}

/// The serial part of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Serial {
    /// Where it stands.
    pub lane: LaneName,
    /// How many of the lane may run at a time.
    pub concurrency: u32,
    /// What becomes of it when the lane is taken.
    pub newcomer: Newcomer,
    /// What becomes of the lane when it fails for good.
    pub after_failure: AfterFailure,
    /// The lane did not take it: it is not to run.
    pub refusal: Option<Refusal>,
    /// How often it was handed back from where it lies; tells its starts apart.
    pub handed_back: u32,
    /// When it was let in, if it had to wait for that.
    pub let_in_at: Option<Timestamp>,
    /// By which a lane that is kept apart from the messages knows what it has let in.
    #[serde(skip)]
    pub(crate) pass: Option<Pass>,
}

/// What a lane that is kept apart from the messages gives to a message that it lets in. Whoever starts it has to show it: a
/// copy of an older one is not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pass {
    /// Of this letting in.
    pub(crate) token: u64,
    /// Since when its keeper has forgotten nothing: one that does not know a pass of another era may just have lost it.
    pub(crate) era: u64,
}

/// Why a lane does not take a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refusal {
    /// It was not to wait longer.
    CouldNotAcquireLock,
    /// A newer one came, which takes the place of the one that waits.
    Replaced {
        /// The newer one.
        by: TaskId,
    },
}

impl Serial {
    /// In this lane: one at a time, a newcomer waits, after a failure the next one goes on.
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

    /// So many at a time.
    #[must_use]
    pub fn with_concurrency(mut self, concurrency: u32) -> Self {
        self.concurrency = concurrency;
        self
    }

    /// What becomes of it when the lane is taken.
    #[must_use]
    pub fn with_newcomer(mut self, newcomer: Newcomer) -> Self {
        self.newcomer = newcomer;
        self
    }

    /// What becomes of the lane when it fails for good.
    #[must_use]
    pub fn with_after_failure(mut self, after_failure: AfterFailure) -> Self {
        self.after_failure = after_failure;
        self
    }

    /// How long it waited for its lane at most, if it says so.
    pub fn patience(&self) -> Option<Duration> {
        match self.newcomer {
            Newcomer::FailAfter(patience) => Some(patience),
            _ => None,
        }
    }
}

/// The serial part of a call by its encoded arguments, for messages that come without one.
#[doc(hidden)]
pub fn serial_of<T: Task>(arguments: &Arguments) -> Result<Serial, ArgumentsError> {
    let args = arguments.decode::<T::Args>(T::PARAMS)?;
    Ok(T::serial(&args).unwrap_or_else(|| Serial::new(LaneName::new(T::NAME, ""))))
}

/// What can be part of a key: all that can be shown. It exists for what the compiler says otherwise.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be part of a key, because it cannot be shown as text",
    label = "this parameter does not implement `Display`",
    note = "name a field that does (`{{form.domain}}`), or write `key = path::to::function`, which makes the key of all parameters"
)]
pub trait KeyPart {
    /// Itself.
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
}
