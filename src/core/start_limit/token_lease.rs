//! The starts that a process has taken ahead from the rate that all processes share.
//!
//! Each start has a time of its own, at the rate's interval, and no process is given the same times as another. So all
//! processes together keep to the rate. A start whose time has passed may still be made within one interval, or within a
//! second if that is more; what is not used by then is lost. So in any span of time there are no more starts than the rate
//! allows in it, and for each process as many more as it has taken ahead: those of half a second and a quarter of that, one at
//! least and 125 at most.

use std::collections::VecDeque;
use std::time::Duration;

use super::limiter::{LimitClock, LimitQuestion, Refused};
use super::{LimitedBy, PendingQuestion};
use crate::core::token_bucket::RateLimit;

/// How far ahead starts are taken.
const AHEAD: Duration = Duration::from_millis(500);
/// The most starts that are taken at a time.
const MOST: u32 = 100;

#[derive(Clone, Debug, Default)]
pub(super) struct TokenLease {
    /// The time of the next start, and how many starts follow from there at the rate's interval.
    leases: VecDeque<(Duration, u32)>,
    question: PendingQuestion,
}

/// How many starts a process takes at a time: those of half a second, one at least and a hundred at most.
pub(super) fn batch(rate: &RateLimit) -> u32 {
    let starts = AHEAD.as_nanos() / rate.interval().as_nanos().max(1);
    u32::try_from(starts).unwrap_or(MOST).clamp(1, MOST)
}

fn question(rate: &RateLimit) -> LimitQuestion {
    LimitQuestion::Rate { interval: rate.interval(), starts: batch(rate), ahead: AHEAD }
}

impl TokenLease {
    /// Whether a run may start.
    pub(super) fn check(&mut self, rate: &RateLimit, now: LimitClock) -> Result<(), Refused> {
        let now = now.steady;
        self.forget_late(rate.interval(), now);
        if let Some((next, _)) = self.leases.front() {
            let wait = next.saturating_sub(now);
            return if wait.is_zero() {
                Ok(())
            } else {
                Err(Refused::by(LimitedBy::Rate(rate.text().to_owned()), Some(wait)))
            };
        }
        let question = self.question.ask(now).then(|| question(rate));
        let by = match self.question.is_under_way(now) {
            true => LimitedBy::Unanswered,
            false => LimitedBy::Rate(rate.text().to_owned()),
        };
        Err(Refused { question, ..Refused::by(by, Some(self.question.wait(now))) })
    }

    /// Takes a start. A question follows if it is time to ask for the next ones.
    pub(super) fn start(&mut self, rate: &RateLimit, now: LimitClock) -> Option<LimitQuestion> {
        if let Some((next, left)) = self.leases.front_mut() {
            *next = next.saturating_add(rate.interval());
            *left = left.saturating_sub(1);
        }
        self.forget_late(rate.interval(), now.steady);
        let left = self.leases.iter().fold(0_u32, |sum, (_, left)| sum.saturating_add(*left));
        // Who takes them one by one would take one too many for each pause of the tasks.
        let low = batch(rate) / 4;
        (low > 0 && left == low && self.question.ask(now.steady)).then(|| question(rate))
    }

    /// The store has granted so many starts, the first after this time; with none, it is asked again after this time. `None`:
    /// it has not answered.
    pub(super) fn grant(&mut self, granted: Option<(u32, Duration)>, now: Duration) {
        match granted {
            Some((0, after)) => self.question.answered(now, after),
            Some((starts, after)) => {
                self.leases.push_back((now.saturating_add(after), starts));
                self.question.answered(now, Duration::ZERO);
            }
            None => self.question.answered(now, super::LOOK_AGAIN),
        }
    }

    /// Whether nothing is lost when it is forgotten.
    pub(super) fn is_idle(&self, rate: &RateLimit, now: Duration) -> bool {
        let mut later = self.clone();
        later.forget_late(rate.interval(), now);
        later.leases.is_empty() && !self.question.is_under_way(now) && self.question.not_before <= now
    }

    fn forget_late(&mut self, interval: Duration, now: Duration) {
        let kept = interval.max(Duration::from_secs(1));
        while let Some((next, left)) = self.leases.front_mut() {
            if *left > 0 && next.saturating_add(kept) >= now {
                return;
            }
            if *left == 0 {
                self.leases.pop_front();
            } else {
                *next = next.saturating_add(interval);
                *left -= 1;
            }
        }
    }
}
