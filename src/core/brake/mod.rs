//! Brakes: rules by which an operator pauses, slows, diverts or ends the tasks that match, while programs run.
//!
//! A [`Brake`] has a [`BrakeRule`], which says which tasks are meant, and a [`BrakeAction`], which says what happens to
//! them before they start. What runs already is left alone. A [`BrakeSet`] decides about one task by all brakes together,
//! and a [`BrakeNote`] is the text in which the brakes of a fleet are kept.
//!
//! Invariants:
//! - A rule without a condition matches nothing: that all tasks are meant has to be said.
//! - A brake that cannot be read is not in force and not lost: who changes other brakes leaves it as it is.
//! - The number of brakes and the length of their texts are bounded, so the note is too.

mod error;
mod note;
mod rule;
mod set;
mod starts;

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::token_bucket::RateLimit;

pub use error::BrakeError;
pub use note::BrakeNote;
pub use rule::{ArgumentCondition, BrakeRule, RuleMatcher, Subject};
pub use set::{BrakeSet, Braking};
pub use starts::{StartCount, StartHistory};

/// The most brakes that are kept at a time, beside those of the catalogue.
pub const MOST_BRAKES: usize = 200;
/// The most bytes of the id of a brake.
const LONGEST_ID: usize = 64;
/// The most bytes of a name: of a queue, a task, a tenant, an argument or an owner.
const LONGEST_NAME: usize = 255;
/// The most bytes of a pattern or of a reason.
const LONGEST_TEXT: usize = 500;
/// The most patterns for an argument.
const MOST_PATTERNS: usize = 20;

/// The ids of brakes that stand in a catalogue begin with this.
pub const STANDING: &str = "catalogue-";

/// What a brake does to the tasks that match, before they start.
///
/// Of several brakes that match one task the strictest acts: an [`Expire`](Self::Expire) before a
/// [`Divert`](Self::Divert), that before a [`Pause`](Self::Pause), and that before a [`Slow`](Self::Slow). Whoever ends
/// tasks has said the last word about them. A task that is diverted comes under the brakes of its new queue, so a pause that
/// is not about the old queue alone holds it there all the same. Of several brakes that slow, all have to let it through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
#[non_exhaustive]
pub enum BrakeAction {
    /// The tasks do not start. They stay where they are, in their order, and no attempt is counted.
    Pause,
    /// The tasks start at this rate at most, evenly spread, in each process as a rate limit does.
    Slow {
        /// The rate, such as `10/s`, `10/m` or `10/h`.
        rate: String,
    },
    /// The tasks go to the end of another queue, once, with their ids and attempts.
    Divert {
        /// The name of the other queue.
        divert_to: String,
    },
    /// The tasks are over: REVOKED, as when they expire.
    Expire,
}

impl BrakeAction {
    /// Slows to this rate: `10/s`, `10/m`, `10/h`.
    pub fn slow(rate: impl Into<String>) -> Self {
        Self::Slow { rate: rate.into() }
    }

    /// Makes the action that diverts tasks to this queue.
    pub fn divert(queue: impl Into<String>) -> Self {
        Self::Divert { divert_to: queue.into() }
    }

    /// The word for it: `pause`, `slow`, `divert` or `expire`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Slow { .. } => "slow",
            Self::Divert { .. } => "divert",
            Self::Expire => "expire",
        }
    }

    /// The rate at which tasks start, in a second; `None`: it does not slow.
    ///
    /// # Errors
    /// The rate is none, or it is no limit.
    pub(crate) fn per_second(&self) -> Result<Option<f64>, BrakeError> {
        let Self::Slow { rate } = self else { return Ok(None) };
        match RateLimit::parse(rate) {
            Ok(Some(limit)) => Ok(Some(limit.per_second())),
            Ok(None) => {
                Err(BrakeError::field("rate", rate, "write a rate above zero; `pause` stops the tasks"))
            }
            Err(_) => Err(BrakeError::field("rate", rate, "write a rate such as 10/s, 10/m or 10/h")),
        }
    }
}

impl fmt::Display for BrakeAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pause => f.write_str("pause"),
            Self::Slow { rate } => write!(f, "slow to {rate}"),
            Self::Divert { divert_to } => write!(f, "divert to {divert_to}"),
            Self::Expire => f.write_str("expire"),
        }
    }
}

/// A brake: which tasks, what happens to them, who has set it, why, and until when.
///
/// ```
/// use celeriac::core::brake::{Brake, BrakeAction, BrakeRule};
/// let brake = Brake::new(BrakeRule::new().task("reports.*").tenant("acme"), BrakeAction::slow("6/m"))
///     .id("acme-reports")
///     .owner("amina")
///     .reason("their report takes the database down");
/// assert_eq!(brake.check(), Ok(()));
/// assert_eq!(brake.to_string(), "brake `acme-reports`: slow to 6/m for task reports.*, tenant acme");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Brake {
    /// The id, by which the brake is taken away. Empty: whoever keeps the brake gives it one.
    pub id: String,
    /// The rule that says which tasks are meant.
    pub rule: BrakeRule,
    /// The action that is taken on tasks that match.
    #[serde(flatten)]
    pub action: BrakeAction,
    /// The name of whoever has set the brake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The reason that was given for the brake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when it is in force.
    #[serde(default)]
    pub since: Timestamp,
    /// When it ends by itself; `None`: when somebody takes it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Brake {
    /// A brake without an id, an owner, a reason and an end.
    pub fn new(rule: BrakeRule, action: BrakeAction) -> Self {
        Self {
            id: String::new(),
            rule,
            action,
            owner: None,
            reason: None,
            since: Timestamp::ZERO,
            until: None,
        }
    }

    /// Gives the brake this id: letters, digits, `-`, `_` and `.`. A brake of the same id is replaced.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// Notes who sets the brake.
    #[must_use]
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.owner = Some(owner.into());
        self
    }

    /// Notes why the brake is set.
    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Has the brake end by itself.
    #[must_use]
    pub fn until(mut self, until: impl Into<Timestamp>) -> Self {
        self.until = Some(until.into());
        self
    }

    /// Whether the brake stands in a catalogue, so that only a change of the catalogue takes it away.
    pub fn is_standing(&self) -> bool {
        self.id.starts_with(STANDING)
    }

    /// Whether the brake has ended by itself.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// Checks everything but the names of queues, which only a program knows.
    ///
    /// # Errors
    /// The first mistake, with the value at fault and what to do.
    pub fn check(&self) -> Result<(), BrakeError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.id.is_empty() || self.id.len() > LONGEST_ID || !self.id.chars().all(is_plain) {
            let advice = format!("write 1 to {LONGEST_ID} letters, digits, `-`, `_` or `.`");
            return Err(BrakeError::field("id", &self.id, &advice));
        }
        self.rule.compile()?;
        self.action.per_second()?;
        if let BrakeAction::Divert { divert_to } = &self.action {
            within("divert_to", divert_to, 1, LONGEST_NAME)?;
            if self.rule.queue.as_ref() == Some(divert_to) {
                let advice = "the tasks are in that queue already: name another one";
                return Err(BrakeError::field("divert_to", divert_to, advice));
            }
        }
        if let Some(owner) = &self.owner {
            within("owner", owner, 0, LONGEST_NAME)?;
        }
        match &self.reason {
            Some(reason) => within("reason", reason, 0, LONGEST_TEXT),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Brake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "brake `{}`: {} for {}", self.id, self.action, self.rule)
    }
}

/// Checks the length of a text in bytes.
fn within(field: &'static str, text: &str, least: usize, most: usize) -> Result<(), BrakeError> {
    if (least..=most).contains(&text.len()) {
        return Ok(());
    }
    Err(BrakeError::field(field, text, &format!("it has {} bytes; write {least} to {most}", text.len())))
}

#[cfg(test)]
mod tests;
