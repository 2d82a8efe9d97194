//! Limits of starts: how often, how many at a time, at which hours and how often on a day something may start, for each key.
//!
//! [`StartLimit`] says what a limit allows. [`StartLimiter`] counts, key by key, and says of each start whether it is
//! within the limit, or when it may be. What several processes count together lies in a store. Nobody waits for the store
//! before a start: the limiter asks it ahead, for a few starts at a time, and says "not yet" until it has the answer.

mod breaker;
mod day_counts;
mod figures;
mod limiter;
mod token_lease;

use std::fmt;
use std::time::Duration;

pub use breaker::{Breaker, MOST_RUNS, RunEnd};
pub use figures::{BreakerPhase, KeyFigures, LimitFigures};
pub use limiter::{
    LimitClock, LimitKeeping, LimitKey, LimitQuestion, LimitedStart, MOST_KEYS, Refused, StartLimiter,
};

use super::calendar::{AllowedHours, Zone};
use super::token_bucket::RateLimit;

/// How far a rate reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RateScope {
    /// Each process counts its own starts, as in Celery.
    Process,
    /// All processes that share a store count together. A program without such a store counts its own.
    #[default]
    Cluster,
}

/// What a limit allows, for each key.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct StartLimit {
    /// How many runs start in a second, minute or hour, evenly spread.
    pub rate: Option<RateLimit>,
    /// Who counts the rate together.
    pub scope: RateScope,
    /// How many runs are under way at a time, in each process.
    pub max_running: Option<u32>,
    /// How many runs start on a day, by the clocks of the zone.
    pub daily: Option<u32>,
    /// At which hours runs start, by the clocks of the zone.
    pub hours: Option<AllowedHours>,
    /// Whose clocks say what a day is and which hour it is.
    pub zone: Zone,
    /// When a key pauses because of its errors.
    pub breaker: Option<Breaker>,
}

impl StartLimit {
    /// Says whether the limit limits nothing.
    pub fn is_empty(&self) -> bool {
        let Self { rate, max_running, daily, hours, breaker, .. } = self;
        rate.is_none() && max_running.is_none() && daily.is_none() && hours.is_none() && breaker.is_none()
    }

    /// What is wrong with it, if anything is: the name of the setting, its value, and what to do.
    pub fn fault(&self) -> Option<(&'static str, String, String)> {
        for (name, most) in [("max_running", self.max_running), ("daily", self.daily)] {
            if most == Some(0) {
                let advice = "write at least 1: with 0 nothing would ever start".to_owned();
                return Some((name, "0".to_owned(), advice));
            }
        }
        self.breaker.and_then(|breaker| breaker.fault())
    }
}

/// What it allows, on one line.
impl fmt::Display for StartLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(rate) = &self.rate {
            let of = if self.scope == RateScope::Process { " in each process" } else { "" };
            parts.push(format!("{rate}{of}"));
        }
        parts.extend(self.max_running.map(|most| format!("{most} at a time in each process")));
        parts.extend(self.daily.map(|most| format!("{most} a day")));
        parts.extend(self.hours.as_ref().map(ToString::to_string));
        if self.daily.is_some() || self.hours.is_some() {
            parts.push(format!("by the clocks of {}", self.zone));
        }
        if let Some(Breaker { errors, of, pause, longest }) = self.breaker {
            parts.push(format!("a pause of {pause:?} up to {longest:?} after {errors} errors of {of} runs"));
        }
        f.write_str(&parts.join(", "))
    }
}

/// What of a limit does not allow a start.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum LimitedBy {
    /// The rate, as it was stated.
    Rate(String),
    /// As many runs as are allowed are under way already.
    Running(u32),
    /// As many runs as are allowed have started on this day already.
    Daily(u32),
    /// It is none of the allowed hours.
    Hours(String),
    /// There were as many errors among so many runs that the key pauses, or one run finds out whether it still has to.
    Breaker {
        /// How many errors open the breaker.
        errors: u32,
        /// How many runs it looks back at.
        of: u32,
    },
    /// The store that keeps this part of the limit for all processes was asked, and has not answered yet.
    Unanswered,
}

impl fmt::Display for LimitedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate(rate) => write!(f, "its rate of {rate} is used up"),
            Self::Running(most) => write!(f, "{most} run already in this process"),
            Self::Daily(most) => write!(f, "{most} have started today"),
            Self::Hours(hours) => write!(f, "it allows {hours} only"),
            Self::Breaker { errors, of } => write!(f, "it pauses after {errors} errors of {of} runs"),
            Self::Unanswered => f.write_str("the store has not said yet what is left of it"),
        }
    }
}

/// How long an answer is waited for before the store is asked once more.
const GIVEN_UP: Duration = Duration::from_secs(30);
/// The pause before it is looked again whether an answer is there, and before the next question after one that failed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Whether a question to a store is under way, and when the next one may be asked.
#[derive(Clone, Copy, Debug, Default)]
struct PendingQuestion {
    asked_at: Option<Duration>,
    not_before: Duration,
}

impl PendingQuestion {
    /// Whether to ask now. If so, the question counts as asked.
    fn ask(&mut self, now: Duration) -> bool {
        let may = now >= self.not_before && !self.is_under_way(now);
        if may {
            self.asked_at = Some(now);
        }
        may
    }

    fn is_under_way(&self, now: Duration) -> bool {
        self.asked_at.is_some_and(|asked_at| now.saturating_sub(asked_at) < GIVEN_UP)
    }

    /// The answer is there. The next question may be asked after this time.
    fn answered(&mut self, now: Duration, pause: Duration) {
        self.asked_at = None;
        self.not_before = now.saturating_add(pause);
    }

    /// How long until it is worth looking again.
    fn wait(&self, now: Duration) -> Duration {
        if self.is_under_way(now) { LOOK_AGAIN } else { self.not_before.saturating_sub(now) }
    }
}

#[cfg(test)]
mod tests;
