//! Holds: why a task that is ready does not start although a worker of its queue is free.
//!
//! The scheduler, the metrics and every screen read the same [`Hold`], so that the reason that a person sees is the one
//! that kept the task from starting.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::start_limit::LimitedBy;

/// What keeps a ready task from starting, and when it is worth looking again.
#[derive(Clone, Debug, PartialEq)]
pub struct Hold {
    /// Why the task does not start.
    pub reason: HoldReason,
    /// How long until the hold may be over by itself. `None`: it ends when somebody takes it away, and that somebody
    /// tells the queues.
    pub wait: Option<Duration>,
}

/// Why a ready task does not start although a worker is free.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum HoldReason {
    /// The rate limit of its task is used up. As in Celery, it counts the starts of one process.
    RateLimit {
        /// The limit as it was stated, for example `10/m`.
        limit: String,
    },
    /// A limit on the starts of tasks, for the key that the task has in it.
    Limit {
        /// The name of the limit.
        name: String,
        /// The key; empty if the limit has none.
        key: String,
        /// What of the limit does not allow the start.
        by: LimitedBy,
    },
}

impl HoldReason {
    /// Names the group of the tasks that are held together with this one: those of this name that the same gate holds back.
    /// If the first of them may not start, none of them may.
    pub fn group(&self, task: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        task.hash(&mut hasher);
        match self {
            // Whatever part of the limit is used up, its key has to wait.
            Self::Limit { name, key, .. } => ("limit", name, key).hash(&mut hasher),
            other => ("other", other.to_string()).hash(&mut hasher),
        }
        hasher.finish()
    }
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RateLimit { limit } => {
                write!(f, "the rate limit of its task, {limit}, is used up in this process")
            }
            Self::Limit { name, key, by } if key.is_empty() => write!(f, "the limit `{name}`: {by}"),
            Self::Limit { name, key, by } => write!(f, "the limit `{name}` for `{key}`: {by}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_reads_as_the_rest_of_a_sentence() {
        let reason = HoldReason::RateLimit { limit: "10/m".to_owned() };
        assert_eq!(reason.to_string(), "the rate limit of its task, 10/m, is used up in this process");
        let limit = |key: &str, by| HoldReason::Limit { name: "sms".to_owned(), key: key.to_owned(), by };
        assert_eq!(
            limit("", LimitedBy::Running(3)).to_string(),
            "the limit `sms`: 3 run already in this process"
        );
        assert_eq!(
            limit("a", LimitedBy::Daily(9)).to_string(),
            "the limit `sms` for `a`: 9 have started today"
        );
    }

    #[test]
    fn those_that_one_gate_holds_back_are_one_group() {
        let limit = |key: &str, by| HoldReason::Limit { name: "sms".to_owned(), key: key.to_owned(), by };
        let (running, daily) = (LimitedBy::Running(3), LimitedBy::Daily(9));
        let group = limit("a", running.clone()).group("send");
        assert_eq!(group, limit("a", daily).group("send"), "whatever part of it is used up");
        assert_ne!(group, limit("b", running.clone()).group("send"));
        assert_ne!(group, limit("a", running).group("call"));
        let rate = HoldReason::RateLimit { limit: "10/m".to_owned() };
        assert_eq!(rate.group("send"), rate.clone().group("send"));
        assert_ne!(rate.group("send"), rate.group("call"));
    }
}
