//! Holds: why a task that is ready does not start although a worker of its queue is free.
//!
//! The scheduler, the metrics and every screen read the same [`Hold`], so that the reason that a person sees is the one
//! that kept the task from starting.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::Timestamp;
use super::brake::STANDING;
use super::slots::SlotHold;
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
    /// Names the group of the tasks that are held together with this one: those that the same gate holds back. If the first of
    /// them may not start, none of them may.
    pub fn group(&self, task: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        match self {
            Self::RateLimit { .. } => ("rate", task).hash(&mut hasher),
            // Whatever part of the limit is used up, its key has to wait.
            Self::Limit { name, key, .. } => ("limit", name, key, task).hash(&mut hasher),
            Self::Brake { id, .. } => ("brake", id).hash(&mut hasher),
            // No gate says so, but the pool, which keeps its tasks in lines of its own.
            Self::Slots { .. } => ("slots", task).hash(&mut hasher),
        }
        hasher.finish()
    }

    /// The name of what holds the task, for programs: JSON and labels.
    pub fn code(&self) -> &'static str {
        match self {
            Self::RateLimit { .. } => "rate_limit",
            Self::Limit { .. } => "limit",
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
            Self::Limit { by: LimitedBy::Unanswered, .. } => {
                "If that lasts, look at the store that keeps the limit for all processes.".to_owned()
            }
            Self::Limit { by: LimitedBy::Breaker { .. }, .. } => {
                "Mend what makes the runs of this key fail; one of them is tried after each pause.".to_owned()
            }
            Self::Limit { name, .. } => {
                format!("Change the limit `{name}`, where its task or the catalogue states it.")
            }
            Self::Brake { id, .. } if id.starts_with(STANDING) => {
                format!("Take the brake `{id}` out of the catalogue.")
            }
            Self::Brake { id, .. } => format!("Take the brake away: `celeriac brake remove {id}`."),
            Self::Slots { why } => why.remedy().to_owned(),
        }
    }
}

/// Names the line of a tenant among the tasks that one gate holds back together: the lines take turns when the gate opens. Tasks
/// without a tenant are one line.
pub fn held_line(tenant: Option<&str>) -> u64 {
    let mut hasher = DefaultHasher::new();
    tenant.hash(&mut hasher);
    hasher.finish()
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RateLimit { limit } => {
                write!(f, "the rate limit of its task, {limit}, is used up in this process")
            }
            Self::Limit { name, key, by } if key.is_empty() => write!(f, "the limit `{name}`: {by}"),
            Self::Limit { name, key, by } => write!(f, "the limit `{name}` for `{key}`: {by}"),
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
        let limit = |key: &str, by| HoldReason::Limit { name: "sms".to_owned(), key: key.to_owned(), by };
        assert_eq!(
            limit("", LimitedBy::Running(3)).to_string(),
            "the limit `sms`: 3 run already in this process"
        );
        let daily = limit("a", LimitedBy::Daily(9));
        assert_eq!(daily.to_string(), "the limit `sms` for `a`: 9 have started today");
        assert_eq!(
            (daily.code(), daily.remedy().as_str()),
            ("limit", "Change the limit `sms`, where its task or the catalogue states it.")
        );
    }

    #[test]
    fn each_tenant_has_a_line_of_its_own() {
        let (none, malawi) = (held_line(None), held_line(Some("malawi")));
        assert_eq!((none, malawi), (held_line(None), held_line(Some("malawi"))));
        assert!(none != malawi && malawi != held_line(Some("kenya")) && none != held_line(Some("")));
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
        let brake = |id: &str| HoldReason::Brake {
            id: id.into(),
            action: "pause".into(),
            reason: None,
            owner: None,
            until: None,
        };
        assert_eq!(
            brake("a").group("send"),
            brake("a").group("call"),
            "a brake counts all its tasks together"
        );
        assert_ne!(brake("a").group("send"), brake("b").group("send"));
    }
}
