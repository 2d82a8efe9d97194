//! Unique windows: the rule that says which calls are the same call, and for how long.
//!
//! While a call waits or runs within its window, another call of the same key joins it in place of making a task. A
//! window is no lock: nothing waits for it, and a second run is possible as soon as it has passed. Tasks that must not
//! overlap are [serial](super::SerialHeader).

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::serial::cut;
use super::{Arguments, ArgumentsError, Task};
use crate::core::Timestamp;
use crate::core::canonical::canonical;
use crate::task::clock::steady;

/// The key that calls have in common if they are the same: a scope, which is the task's name, and a text within it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UniqueKey {
    scope: String,
    key: String,
}

impl UniqueKey {
    /// The key with this text within this scope, which is the task's name.
    pub fn new(scope: impl Into<String>, key: impl Into<String>) -> Self {
        Self { scope: cut(scope.into()), key: cut(key.into()) }
    }

    /// The key of a call that states none. It is made of all arguments. The order of the members of an object does not
    /// count, because maps have no order.
    pub fn of_arguments(scope: impl Into<String>, arguments: &Arguments) -> Self {
        // JSON text contains no NUL, so the two texts cannot run into each other.
        let text = format!("{}\0{}", canonical(&arguments.args), canonical(&arguments.kwargs));
        Self::new(scope, format!("arguments:{:032x}", xxhash_rust::xxh3::xxh3_128(text.as_bytes())))
    }

    /// Does the same as [`of_arguments`](Self::of_arguments). Arguments that have no form in JSON make no call, so
    /// their key does not matter.
    #[doc(hidden)]
    pub fn of_args(scope: &str, args: &impl Serialize) -> Self {
        Self::of_arguments(scope, &Arguments::encode(args).unwrap_or_default())
    }

    /// The scope within which the key is unique: the task's name.
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// The text of the key within its scope.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for UniqueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.scope, self.key)
    }
}

/// The event that ends a window before its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum UniqueUntil {
    /// The window ends with the first start of a body: what that body has read by then, it has read without the news of
    /// the next call.
    Start,
    /// The window ends when the task is over, whatever became of it. It lasts through retries, postponing and
    /// continuations.
    #[default]
    Done,
}

/// The unique window of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Unique {
    /// The key: calls with the same key are the same call.
    pub key: UniqueKey,
    /// The length of the window from the enqueue.
    pub window: Duration,
    /// The event that ends the window before its time.
    pub until: UniqueUntil,
}

impl Unique {
    /// A window of this length from the enqueue, which ends earlier when the task is over.
    pub fn new(key: UniqueKey, window: Duration) -> Self {
        Self { key, window, until: UniqueUntil::Done }
    }

    /// Sets the event that ends the window before its time.
    #[must_use]
    pub fn until(mut self, until: UniqueUntil) -> Self {
        self.until = until;
        self
    }

    /// The end of a window that begins now, by the [steady](steady) clock: moving the wall clock forward ends no
    /// window.
    pub(crate) fn passes_at(&self) -> Timestamp {
        steady() + self.window
    }
}

/// Makes the window of a call from its encoded arguments, for calls by name.
#[doc(hidden)]
pub fn unique_of<T: Task>(arguments: &Arguments) -> Result<Unique, ArgumentsError> {
    let args = arguments.decode_call::<T>()?;
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
        // An earlier version made this key of arguments without objects in them.
        assert_eq!(key(&(1, "a")).key(), OF_1_A);
    }

    #[test]
    fn a_window_ends_by_the_steady_clock() {
        let hour = Duration::from_secs(3_600);
        let unique = Unique::new(UniqueKey::new("greet", "joe"), hour);
        let mut clock = crate::task::clock::Jump::default();
        clock.wall(2 * hour);
        let before = steady();
        let end = unique.passes_at();
        assert!(end >= before + hour && end <= steady() + hour, "{end} is not an hour after {before}");
    }

    const OF_1_A: &str = "arguments:2fda67f79efcac7166299d883cc261bf";

    /// Each Rust map has an iteration order of its own.
    #[test]
    fn equal_maps_make_equal_keys() {
        use std::collections::HashMap;

        let map = || -> HashMap<String, HashMap<u64, f64>> {
            let inner = |n: u64| (0..20).map(|m| (m, (n * m) as f64 / 7.0)).collect();
            (0..20).map(|n| (format!("form-{n}"), inner(n))).collect()
        };
        let keys: std::collections::BTreeSet<_> =
            (0..12).map(|_| UniqueKey::of_args("app::export", &(map(), "all"))).collect();
        assert_eq!(keys.len(), 1);
        let mut other = map();
        other.get_mut("form-3").unwrap().insert(4, 0.1 + 0.2);
        assert!(!keys.contains(&UniqueKey::of_args("app::export", &(other, "all"))));
    }
}
