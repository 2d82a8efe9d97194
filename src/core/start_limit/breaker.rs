//! The breaker of one key: after too many errors nothing of the key starts for a while, and then one run finds out whether
//! the trouble is over.
//!
//! Invariants:
//! - While the breaker is open nothing starts, and after the pause one run starts, and no other before that one has ended.
//! - Only what this run comes to closes the breaker or opens it anew, for twice as long. Runs that began before the breaker
//!   opened change nothing.

use std::time::Duration;

use super::figures::BreakerPhase;
use crate::core::backoff::doubled;

/// The most runs that a breaker looks back at.
pub const MOST_RUNS: u32 = 64;

/// When a key pauses because of its errors, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Breaker {
    /// How many errors among the last runs open the breaker.
    pub errors: u32,
    /// How many runs are looked back at; at most [`MOST_RUNS`].
    pub of: u32,
    /// The first pause. After each further failure the pause is twice as long.
    pub pause: Duration,
    /// The longest pause that repeated failures lead to.
    pub longest: Duration,
}

impl Default for Breaker {
    /// Five errors of ten runs pause a key for a minute, and for an hour at most.
    fn default() -> Self {
        Self { errors: 5, of: 10, pause: Duration::from_secs(60), longest: Duration::from_secs(3600) }
    }
}

impl Breaker {
    /// A breaker that opens after so many errors of so many runs, with these pauses.
    pub fn new(errors: u32, of: u32, pause: Duration, longest: Duration) -> Self {
        Self { errors, of, pause, longest }
    }

    /// What is wrong with it, if anything is: the name of the setting, its value, and what to do.
    pub fn fault(&self) -> Option<(&'static str, String, String)> {
        let Self { errors, of, pause, longest } = *self;
        if errors == 0 {
            return Some(("errors", "0".to_owned(), "write at least 1".to_owned()));
        }
        if of < errors {
            return Some((
                "of",
                of.to_string(),
                format!("write at least {errors}, as many as `errors` says"),
            ));
        }
        if of > MOST_RUNS {
            return Some(("of", of.to_string(), format!("write at most {MOST_RUNS}")));
        }
        if pause.is_zero() {
            return Some(("pause", "0s".to_owned(), "write a duration above zero".to_owned()));
        }
        (longest < pause)
            .then(|| ("longest", format!("{longest:?}"), "write at least as much as `pause`".to_owned()))
    }
}

/// What a run came to, as a limit sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunEnd {
    /// The task did not start.
    #[default]
    NotRun,
    /// The run succeeded, or failed with an error that was expected.
    Success,
    /// The attempt failed.
    Failure,
    /// The run says nothing about its key: it was revoked, handed back, postponed or lost.
    Other,
}

/// Whether the runs of one key may start.
#[derive(Clone, Debug, Default)]
pub(super) struct BreakerState {
    /// The last runs, the newest in the lowest bit: whether they failed.
    recent: u64,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Closed,
    /// Nothing starts before `until`.
    Open { until: Duration, pause: Duration },
    /// One run may start, or has started, to find out.
    HalfOpen { pause: Duration, is_probed: bool },
}

impl BreakerState {
    /// Whether a run may start.
    ///
    /// # Errors
    /// It may not: until after this time, or until the run that finds out has ended (`None`).
    pub(super) fn check(&self, now: Duration) -> Result<(), Option<Duration>> {
        match self.phase {
            Phase::Open { until, .. } if now < until => Err(Some(until - now)),
            Phase::HalfOpen { is_probed: true, .. } => Err(None),
            Phase::Closed | Phase::Open { .. } | Phase::HalfOpen { .. } => Ok(()),
        }
    }

    /// A run starts. Says whether it is the one that finds out.
    pub(super) fn begin(&mut self) -> bool {
        match self.phase {
            Phase::Closed => false,
            Phase::Open { pause, .. } | Phase::HalfOpen { pause, .. } => {
                self.phase = Phase::HalfOpen { pause, is_probed: true };
                true
            }
        }
    }

    /// A run has ended. Says whether those that were told to wait for that are to ask again: another one may start, or it is
    /// known now how long the next pause is.
    pub(super) fn end(&mut self, breaker: &Breaker, is_probe: bool, end: RunEnd, now: Duration) -> bool {
        match (self.phase, is_probe, end) {
            (Phase::HalfOpen { .. }, true, RunEnd::Success) => {
                *self = Self::default();
                true
            }
            (Phase::HalfOpen { pause, .. }, true, RunEnd::Failure) => {
                let pause = doubled(pause, 1, breaker.longest);
                self.phase = Phase::Open { until: now.saturating_add(pause), pause };
                true
            }
            (Phase::HalfOpen { pause, .. }, true, RunEnd::NotRun | RunEnd::Other) => {
                self.phase = Phase::HalfOpen { pause, is_probed: false };
                true
            }
            (Phase::Closed, false, RunEnd::Success | RunEnd::Failure) => {
                self.recent = (self.recent << 1) | u64::from(end == RunEnd::Failure);
                if self.errors(breaker) >= breaker.errors.max(1) {
                    self.phase =
                        Phase::Open { until: now.saturating_add(breaker.pause), pause: breaker.pause };
                }
                false
            }
            _ => false,
        }
    }

    /// How it stands, for an operator.
    pub(super) fn phase(&self, breaker: &Breaker, now: Duration) -> BreakerPhase {
        match self.phase {
            Phase::Closed => BreakerPhase::Closed { errors: self.errors(breaker) },
            Phase::Open { until, .. } if now < until => BreakerPhase::Open { wait: until - now },
            Phase::Open { .. } | Phase::HalfOpen { .. } => BreakerPhase::HalfOpen,
        }
    }

    /// How many of the runs that it looks back at have failed.
    fn errors(&self, breaker: &Breaker) -> u32 {
        let looked_at = u64::MAX >> (64 - breaker.of.clamp(1, MOST_RUNS));
        (self.recent & looked_at).count_ones()
    }

    /// Whether it equals a new one.
    pub(super) fn is_idle(&self) -> bool {
        self.recent == 0 && self.phase == Phase::Closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn run(state: &mut BreakerState, end: RunEnd, now: Duration) {
        let is_probe = state.begin();
        state.end(&breaker(), is_probe, end, now);
    }

    fn breaker() -> Breaker {
        Breaker::new(2, 4, 10 * SECOND, 30 * SECOND)
    }

    #[test]
    fn errors_open_it_and_one_run_finds_out() {
        let mut state = BreakerState::default();
        for end in [RunEnd::Failure, RunEnd::Success, RunEnd::Success, RunEnd::Success, RunEnd::Failure] {
            assert_eq!(state.check(Duration::ZERO), Ok(()));
            run(&mut state, end, Duration::ZERO);
        }
        // The first error is five runs ago, so there is one of four.
        assert_eq!(state.check(Duration::ZERO), Ok(()));
        run(&mut state, RunEnd::Failure, SECOND);
        assert_eq!(state.check(SECOND), Err(Some(10 * SECOND)));
        assert_eq!(state.check(11 * SECOND), Ok(()));
        assert!(state.begin(), "this one finds out");
        assert_eq!(state.check(11 * SECOND), Err(None), "and no other one starts");
        assert!(!state.end(&breaker(), false, RunEnd::Success, 12 * SECOND), "one that began before");
        assert_eq!(state.check(12 * SECOND), Err(None));
        assert!(
            state.end(&breaker(), true, RunEnd::Failure, 12 * SECOND),
            "who waits for it learns of the pause"
        );
        assert_eq!(state.check(12 * SECOND), Err(Some(20 * SECOND)), "twice as long");
        assert!(state.begin());
        state.end(&breaker(), true, RunEnd::Failure, 40 * SECOND);
        assert_eq!(state.check(40 * SECOND), Err(Some(30 * SECOND)), "and no longer than that");
        // A run that says nothing lets another one find out.
        assert!(state.begin());
        assert!(state.end(&breaker(), true, RunEnd::Other, 70 * SECOND));
        assert_eq!(state.check(70 * SECOND), Ok(()));
        assert!(state.begin());
        assert!(state.end(&breaker(), true, RunEnd::Success, 70 * SECOND));
        assert!(state.is_idle());
        run(&mut state, RunEnd::Failure, 80 * SECOND);
        run(&mut state, RunEnd::Failure, 80 * SECOND);
        assert_eq!(state.check(80 * SECOND), Err(Some(10 * SECOND)), "it begins with the first pause again");
    }

    #[test]
    fn a_breaker_that_makes_no_sense_is_told() {
        let of = |breaker: Breaker| breaker.fault().map(|(name, ..)| name);
        assert_eq!(of(Breaker::default()), None);
        assert_eq!(of(Breaker { errors: 0, ..Breaker::default() }), Some("errors"));
        assert_eq!(of(Breaker { of: 4, ..Breaker::default() }), Some("of"));
        assert_eq!(of(Breaker { of: 65, ..Breaker::default() }), Some("of"));
        assert_eq!(of(Breaker { pause: Duration::ZERO, ..Breaker::default() }), Some("pause"));
        assert_eq!(of(Breaker { longest: SECOND, ..Breaker::default() }), Some("longest"));
    }
}
