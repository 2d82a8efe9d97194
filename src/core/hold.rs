//! Holds: why a task that is ready does not start although a worker of its queue is free.
//!
//! The scheduler, the metrics and every screen read the same [`Hold`], so that the reason that a person sees is the one
//! that kept the task from starting.

use std::fmt;
use std::time::Duration;

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
}

impl HoldReason {
    /// The name of what holds the task, for programs: JSON and labels.
    pub fn code(&self) -> &'static str {
        match self {
            Self::RateLimit { .. } => "rate_limit",
        }
    }

    /// What an operator can do about it, as a sentence.
    pub fn remedy(&self) -> String {
        match self {
            Self::RateLimit { .. } => {
                "Raise the rate limit of the task, or take it away: `celeriac control rate_limit TASK 0`."
                    .to_owned()
            }
        }
    }
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RateLimit { limit } => {
                write!(f, "the rate limit of its task, {limit}, is used up in this process")
            }
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
        assert_eq!(reason.code(), "rate_limit");
        assert!(reason.remedy().ends_with('.'), "a remedy is a sentence: {}", reason.remedy());
    }
}
