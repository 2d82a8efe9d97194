//! Run times: how long runs of tasks took, kept by task, by tenant and by the value of an argument, so that a route can send
//! what takes long to a queue of its own.
//!
//! A [`RunTimeBook`] records runs under [keys](RunTimeKey). What is known of a key are its [`RunTimeFigures`], and a
//! [`RunTimeCondition`] says whether they are as a route wants them. Books of several processes are merged, or asked together by
//! [`figures`].
//!
//! Invariants:
//! - A book takes a bounded amount of memory, whatever runs: of each kind of key, those that ran last are known. It holds no name
//!   and no argument, only hashes of them.
//! - Mean and p95 are those of the last thousand runs or so; older ones fade, so that a task that becomes slower is seen to be.
//! - The p95 is right to a tenth.
//! - What nobody knows satisfies no condition.

mod book;
mod entry;
mod sketch;

use std::time::Duration;

use serde::Serialize;

use super::Timestamp;
use super::json_time::{iso, millis};

pub use book::{MOST_TASKS, MOST_TENANTS, MOST_VALUES, RunTimeBook, RunTimeKey, figures, keys_of_call};

/// What is known of the run times of a task, of its runs for one tenant, or of those with one value of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RunTimeFigures {
    /// How many runs there were.
    pub count: u64,
    /// How long the last run took.
    #[serde(rename = "last_ms", serialize_with = "millis")]
    pub last: Duration,
    /// When the last run ended.
    #[serde(serialize_with = "iso")]
    pub last_at: Timestamp,
    /// The average of the last thousand runs or so.
    #[serde(rename = "mean_ms", serialize_with = "millis")]
    pub mean: Duration,
    /// The run time that nineteen of twenty of these runs do not exceed, right to a tenth.
    #[serde(rename = "p95_ms", serialize_with = "millis")]
    pub p95: Duration,
}

/// Which of the figures a condition looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RunTimeBy {
    /// How long the last run took.
    #[default]
    Last,
    /// The average.
    Mean,
    /// What nineteen of twenty runs do not exceed.
    P95,
}

/// A condition on run times. All that is stated has to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunTimeCondition {
    /// The runs took longer than this.
    pub longer_than: Option<Duration>,
    /// The runs took less than this.
    pub shorter_than: Option<Duration>,
    /// Which figure is looked at.
    pub by: RunTimeBy,
}

impl RunTimeFigures {
    /// The figure that is looked at.
    pub fn by(&self, by: RunTimeBy) -> Duration {
        match by {
            RunTimeBy::Last => self.last,
            RunTimeBy::Mean => self.mean,
            RunTimeBy::P95 => self.p95,
        }
    }
}

impl RunTimeBy {
    /// The word for it: `last`, `mean` or `p95`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Mean => "mean",
            Self::P95 => "p95",
        }
    }
}

impl RunTimeCondition {
    /// Whether the figures are as the condition says. A run time that is exactly a stated one is neither longer nor shorter.
    pub fn holds(&self, figures: &RunTimeFigures) -> bool {
        let took = figures.by(self.by);
        self.longer_than.is_none_or(|least| took > least) && self.shorter_than.is_none_or(|most| took < most)
    }
}

#[cfg(test)]
mod tests;
