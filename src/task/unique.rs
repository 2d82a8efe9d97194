//! Dedupe windows: which calls are the same call, and for how long.
//!
//! While a call waits or runs, and its window lasts, another one of the same key is left out: it joins the first. A window
//! is no lock: nothing waits for it, and a second run is possible as soon as it has passed. What must not overlap is
//! [serial](super::Serial).

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::serial::cut;
use super::{Arguments, ArgumentsError, Task};
use crate::core::Timestamp;
use crate::task::clock::now;

/// What calls have in common that are the same: a scope (the task's name) and a key in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UniqueKey {
    scope: String,
    key: String,
}

impl UniqueKey {
    /// The key of this text among those of this scope, which is the task's name.
    pub fn new(scope: impl Into<String>, key: impl Into<String>) -> Self {
        Self { scope: cut(scope.into()), key: cut(key.into()) }
    }

    /// The key that a task's calls have which states none: made of all the arguments.
    pub fn of_arguments(scope: impl Into<String>, arguments: &Arguments) -> Self {
        let text = format!("{}\0{}", arguments.args, arguments.kwargs);
        Self::new(scope, format!("arguments:{:032x}", xxhash_rust::xxh3::xxh3_128(text.as_bytes())))
    }

    /// As [`of_arguments`](Self::of_arguments). Those that have no form in JSON are no call either, so their key is no matter.
    #[doc(hidden)]
    pub fn of_args(scope: &str, args: &impl Serialize) -> Self {
        Self::of_arguments(scope, &Arguments::encode(args).unwrap_or_default())
    }

    /// Whose keys these are.
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for UniqueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.scope, self.key)
    }
}

/// When a window ends, if it does not pass before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum UniqueUntil {
    /// With the first start of a body: what it has read by then, it has read without what comes now.
    Start,
    /// When the task is over, whatever became of it; through retries, postponing and continuations.
    #[default]
    Done,
}

/// The dedupe window of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Unique {
    /// Which calls are the same.
    pub key: UniqueKey,
    /// How long at most, from the enqueue.
    pub window: Duration,
    /// When it ends before that.
    pub until: UniqueUntil,
}

impl Unique {
    /// For so long from the enqueue, or until it is done.
    pub fn new(key: UniqueKey, window: Duration) -> Self {
        Self { key, window, until: UniqueUntil::Done }
    }

    /// Until then.
    #[must_use]
    pub fn until(mut self, until: UniqueUntil) -> Self {
        self.until = until;
        self
    }

    /// When it has passed, if it begins now.
    pub(crate) fn passes_at(&self) -> Timestamp {
        now() + self.window
    }
}

/// The window of a call by its encoded arguments, for calls by name.
#[doc(hidden)]
pub fn unique_of<T: Task>(arguments: &Arguments) -> Result<Unique, ArgumentsError> {
    let args = arguments.decode::<T::Args>(T::PARAMS)?;
    let none = || Unique::new(UniqueKey::of_arguments(T::NAME, arguments), Duration::ZERO);
    Ok(T::unique(&args).unwrap_or_else(none))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_arguments_tell_calls_apart() {
        let key = |args: &(u8, &str)| UniqueKey::of_args("app::sync", args);
        assert_eq!(key(&(1, "a")), key(&(1, "a")));
        assert_ne!(key(&(1, "a")), key(&(1, "b")));
        assert_ne!(key(&(1, "a")), UniqueKey::of_args("app::other", &(1, "a")));
        let (a, b) = (Arguments { args: "[1]".into(), kwargs: String::new() }, Arguments::default());
        assert_ne!(UniqueKey::of_arguments("t", &a), UniqueKey::of_arguments("t", &b));
        assert_eq!(UniqueKey::new("greet", "joe").to_string(), "greet-joe");
    }
}
