//! Restart intensity: how often something may fail before a supervisor stops restarting it.
//!
//! The limit is OTP's: a supervisor gives up when there are more than n restarts within t seconds. The growing pause
//! before each restart, which OTP lacks, is elfo's: the pause is short again once the restarted actor has lived long
//! enough to count as healthy. Here that is one window.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Timestamp, backoff};

/// How many restarts a supervisor allows within a window, and how long it pauses before each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Intensity {
    /// The most restarts within the window; the supervisor gives up at the next failure. 0 never restarts. OTP calls
    /// it `intensity`.
    pub max_restarts: u32,
    /// The time for which a failure counts, both ends included. OTP calls it `period`.
    pub window: Duration,
    /// The pause before the first restart. It doubles with each further failure.
    pub backoff: Duration,
    /// The longest pause, at which the doubling stops.
    pub max_backoff: Duration,
}

impl Intensity {
    /// At most `max_restarts` within `window`. The pauses are so short that an actor which fails at once after each
    /// restart is given up within the window; the pauses alone never keep it under the limit.
    pub fn within(max_restarts: u32, window: Duration) -> Self {
        let max_backoff = window / max_restarts.saturating_add(1).saturating_mul(2);
        let backoff = Self::default().backoff.min(max_backoff);
        Self { max_restarts, window, backoff, max_backoff }
    }
}

impl Default for Intensity {
    /// Five restarts in ten seconds, paused for 100 ms at first and 30 s at most.
    fn default() -> Self {
        Self {
            max_restarts: 5,
            window: Duration::from_secs(10),
            backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(30),
        }
    }
}

/// What a supervisor does about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartVerdict {
    /// The supervisor starts the actor again.
    Restart {
        /// How long the supervisor waits, counted from the failure.
        after: Duration,
    },
    /// There were too many failures within the window: the supervisor stops and reports.
    GiveUp {
        /// How many failures there were within the window, this one included: one more than the limit.
        restarts: u32,
        /// The window in which the failures happened.
        window: Duration,
    },
}

/// The failures of one supervised actor. It remembers at most `max_restarts + 1` of them.
#[derive(Clone, Debug)]
pub struct Restarts {
    intensity: Intensity,
    /// The times of the latest failures, in the order in which they happened.
    recent: VecDeque<Timestamp>,
    /// How many failures there were in a row without a healthy window between them.
    streak: u32,
    /// The time for which the last restart was planned, or at which the supervisor gave up.
    restarted: Option<Timestamp>,
    total: u64,
}

impl Restarts {
    /// The record of an actor that has not failed yet.
    pub fn new(intensity: Intensity) -> Self {
        Self { intensity, recent: VecDeque::new(), streak: 0, restarted: None, total: 0 }
    }

    /// Records a failure at `now` and decides what the supervisor does. Giving up is not final: a caller that starts
    /// the actor again may go on asking, and gets restarts again when the failures have left the window.
    pub fn failed(&mut self, now: Timestamp) -> RestartVerdict {
        self.total = self.total.saturating_add(1);
        // Health counts from the restart, not from the failure. Otherwise a pause longer than the window would pass
        // for health, and the backoff would never grow beyond the window.
        if self.restarted.is_some_and(|at| now.since(at) > self.intensity.window) {
            self.streak = 0;
        }
        self.forget(now);
        self.recent.push_back(now);
        let borne = usize::try_from(self.intensity.max_restarts).unwrap_or(usize::MAX);
        if self.recent.len() > borne.saturating_add(1) {
            self.recent.pop_front();
        }

        let verdict = if self.recent.len() > borne {
            self.restarted = Some(now);
            RestartVerdict::GiveUp {
                restarts: self.intensity.max_restarts.saturating_add(1),
                window: self.intensity.window,
            }
        } else {
            let after = backoff::doubled(self.intensity.backoff, self.streak, self.intensity.max_backoff);
            self.restarted = Some(now + after);
            RestartVerdict::Restart { after }
        };
        self.streak = self.streak.saturating_add(1);
        verdict
    }

    /// How many failures the window that ends at `now` holds; at most `max_restarts + 1`.
    pub fn count_in_window(&mut self, now: Timestamp) -> u32 {
        self.forget(now);
        u32::try_from(self.recent.len()).unwrap_or(u32::MAX)
    }

    /// How many failures there were in all.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Forgets the failures outside the window, on either side. After a clock has jumped ahead and back again, the
    /// failures of that time lie in the future, and must not count.
    fn forget(&mut self, now: Timestamp) {
        let window = self.intensity.window;
        self.recent.retain(|at| now.since(*at) <= window && at.since(now) <= window);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn restart(millis: u64) -> RestartVerdict {
        RestartVerdict::Restart { after: Duration::from_millis(millis) }
    }

    #[test]
    fn what_fails_at_once_each_time_is_given_up_within_the_window() {
        for (max_restarts, seconds) in [(0, 60), (1, 1), (10, 60), (100, 10), (u32::MAX, 60)] {
            let window = Duration::from_secs(seconds);
            let mut restarts = Restarts::new(Intensity::within(max_restarts, window));
            let mut now = Timestamp::from_millis(1_000);
            let mut failures = 0_u32;
            let gave_up = loop {
                failures += 1;
                match restarts.failed(now) {
                    RestartVerdict::Restart { after } => now = now + after,
                    RestartVerdict::GiveUp { .. } => break true,
                }
                if failures > 10_000 {
                    break false; // u32::MAX restarts are never used up
                }
            };
            assert_eq!(gave_up, max_restarts < 10_000);
            if gave_up {
                assert_eq!(failures, max_restarts + 1);
                assert!(now.since(Timestamp::from_millis(1_000)) <= window);
            }
        }
    }

    #[test]
    fn five_restarts_in_ten_seconds_are_borne_the_sixth_is_not() {
        let mut restarts = Restarts::new(Intensity::default());
        for (second, pause) in [(0, 100), (1, 200), (2, 400), (3, 800), (4, 1_600)] {
            assert_eq!(restarts.failed(at(second * 1_000)), restart(pause));
        }
        let window = Duration::from_secs(10);
        assert_eq!(restarts.failed(at(10_000)), RestartVerdict::GiveUp { restarts: 6, window });
        assert_eq!((restarts.count_in_window(at(10_000)), restarts.total()), (6, 6));
        // At 12 s the failures of 0 s and 1 s are out of the window, and the limit is five.
        assert!(matches!(restarts.failed(at(12_000)), RestartVerdict::Restart { .. }));
    }

    #[test]
    fn the_backoff_starts_over_after_a_healthy_window() {
        let mut restarts = Restarts::new(Intensity::default());
        assert_eq!(restarts.failed(at(0)), restart(100));
        assert_eq!(restarts.failed(at(10_100)), restart(200), "lived for exactly one window");
        assert_eq!(restarts.failed(at(20_301)), restart(100), "lived for longer");
    }

    #[test]
    fn a_pause_longer_than_the_window_is_not_health() {
        let mut restarts = Restarts::new(Intensity::default());
        let mut now = at(0);
        let mut pauses = Vec::new();
        // The actor fails 3 s after each restart, for ever: too slow for the limit, so the pause must grow to its
        // cap.
        for _ in 0..12 {
            let RestartVerdict::Restart { after } = restarts.failed(now) else { panic!("gave up at {now}") };
            pauses.push(after.as_millis());
            now = now + after + Duration::from_secs(3);
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000, 30_000]);
    }

    #[test]
    fn a_clock_that_jumped_ahead_and_back_counts_nothing_from_its_excursion() {
        let mut restarts = Restarts::new(Intensity { max_restarts: 1, ..Intensity::default() });
        restarts.failed(at(9_000_000));
        assert!(matches!(restarts.failed(at(1_000)), RestartVerdict::Restart { .. }));
        assert_eq!(restarts.count_in_window(at(1_000)), 1);
    }

    #[test]
    fn none_borne_is_given_up_at_once() {
        let mut restarts = Restarts::new(Intensity { max_restarts: 0, ..Intensity::default() });
        assert!(matches!(restarts.failed(at(0)), RestartVerdict::GiveUp { restarts: 1, .. }));
    }

    proptest! {
        /// The reference is the whole history of failures, walked from its start for each question.
        #[test]
        fn any_history_is_that_of_the_list_of_all_failures(
            max_restarts in 0u32..5,
            (window, backoff, max_backoff) in (0u64..40, 0u64..8, 0u64..60),
            gaps in prop::collection::vec((0u64..25, 0u64..50), 1..120),
        ) {
            let millis = Duration::from_millis;
            let mut restarts = Restarts::new(Intensity {
                max_restarts,
                window: millis(window),
                backoff: millis(backoff),
                max_backoff: millis(max_backoff),
            });
            let mut now = 1_000u64;
            let mut history: Vec<u64> = Vec::new();
            let (mut pause, mut restarted) = (backoff, None);
            for (gap, idle) in gaps {
                now += gap;
                if restarted.is_some_and(|restarted| now > restarted + window) {
                    pause = backoff;
                }
                history.push(now);
                let count = history.iter().filter(|then| **then + window >= now).count() as u32;
                let expected = if count > max_restarts {
                    restarted = Some(now);
                    RestartVerdict::GiveUp { restarts: max_restarts + 1, window: millis(window) }
                } else {
                    restarted = Some(now + pause.min(max_backoff));
                    restart(pause.min(max_backoff))
                };
                pause = (pause * 2).min(1_000_000);
                prop_assert_eq!(restarts.failed(at(now)), expected);
                prop_assert!(restarts.recent.len() <= max_restarts as usize + 1);
                prop_assert_eq!(restarts.total(), history.len() as u64);
                let later = now + idle / 2;
                let count = history.iter().filter(|then| **then + window >= later).count() as u32;
                prop_assert_eq!(restarts.count_in_window(at(later)), count.min(max_restarts + 1));
                now = later;
            }
        }
    }
}
