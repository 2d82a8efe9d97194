//! Holds: why a task that is ready does not start although a worker of its queue is free.
//!
//! The scheduler, the metrics and every screen read the same [`Hold`], so that the reason that a person sees is the one
//! that kept the task from starting.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Timestamp;
use super::brake::STANDING;
use super::slots::SlotHold;

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
    /// A [brake](crate::core::brake) is on it.
    Brake {
        /// The id of the brake, by which it is taken away.
        id: Arc<str>,
        /// What the brake does: `pause`, or `slow to 10/m`.
        action: Arc<str>,
        /// Why it was set, if somebody has said so.
        reason: Option<Arc<str>>,
        /// Who has set it, if somebody has said so.
        owner: Option<Arc<str>>,
        /// When it ends by itself.
        until: Option<Timestamp>,
    },
    /// Slots are free, or soon will be, and its pool keeps them for others.
    Slots {
        /// Why it does.
        why: SlotHold,
    },
}

impl HoldReason {
    /// The name of what holds the task, for programs: JSON and labels.
    pub fn code(&self) -> &'static str {
        match self {
            Self::RateLimit { .. } => "rate_limit",
            Self::Brake { .. } => "brake",
            Self::Slots { .. } => "slots",
        }
    }

    /// What an operator can do about it, as a sentence.
    pub fn remedy(&self) -> String {
        match self {
            Self::RateLimit { .. } => {
                "Raise the rate limit of the task, or take it away: `celeriac control rate_limit TASK 0`."
                    .to_owned()
            }
            Self::Brake { id, .. } if id.starts_with(STANDING) => {
                format!("Take the brake `{id}` out of the catalogue.")
            }
            Self::Brake { id, .. } => format!("Take the brake away: `celeriac brake remove {id}`."),
            Self::Slots { why } => why.remedy().to_owned(),
        }
    }
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RateLimit { limit } => {
                write!(f, "the rate limit of its task, {limit}, is used up in this process")
            }
            Self::Brake { id, action, reason, owner, until } => {
                write!(f, "brake `{id}` is on it ({action})")?;
                if let Some(owner) = owner {
                    write!(f, ", set by {owner}")?;
                }
                if let Some(until) = until {
                    write!(f, ", until {until}")?;
                }
                match reason {
                    Some(reason) => write!(f, ": {reason}"),
                    None => Ok(()),
                }
            }
            Self::Slots { why } => write!(f, "{why}"),
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
        let brake = |reason: Option<&str>, owner: Option<&str>, until| HoldReason::Brake {
            id: "b1".into(),
            action: "slow to 6/m".into(),
            reason: reason.map(Into::into),
            owner: owner.map(Into::into),
            until,
        };
        assert_eq!(brake(None, None, None).to_string(), "brake `b1` is on it (slow to 6/m)");
        let full = brake(Some("too many"), Some("amina"), Some(Timestamp::ZERO));
        assert_eq!(
            full.to_string(),
            "brake `b1` is on it (slow to 6/m), set by amina, until 1970-01-01T00:00:00.000Z: too many"
        );
        assert_eq!(
            (full.code(), full.remedy().as_str()),
            ("brake", "Take the brake away: `celeriac brake remove b1`.")
        );
        let standing = HoldReason::Brake {
            id: "catalogue-1".into(),
            action: "pause".into(),
            reason: None,
            owner: None,
            until: None,
        };
        assert_eq!(standing.remedy(), "Take the brake `catalogue-1` out of the catalogue.");
        let slots = HoldReason::Slots { why: SlotHold::Room { held: 32, of: 40 } };
        assert_eq!(
            (slots.code(), slots.to_string().as_str()),
            ("slots", "its tenant has 32 of 40 slots and leaves the others to tenants that are about")
        );
        assert!(slots.remedy().ends_with('.'));
    }
}
