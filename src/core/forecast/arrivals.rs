//! How often tasks come that go ahead of those that wait already: those of a higher priority.
//!
//! It counts by priority, in windows of a minute, and remembers the last whole window. So it takes a bounded amount of
//! memory, whatever comes.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::Timestamp;

const WINDOW: Duration = Duration::from_secs(60);
/// In a shorter time than this nothing can be said about a rate.
const SHORTEST: Duration = Duration::from_secs(1);

/// The arrivals of one queue.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrivals {
    began: Option<Timestamp>,
    current: BTreeMap<u8, u32>,
    /// Those of the window before, if there was one.
    before: Option<BTreeMap<u8, u32>>,
}

impl Arrivals {
    /// Counts a task of this priority that has come.
    pub(super) fn record(&mut self, priority: u8, now: Timestamp) {
        let began = *self.began.get_or_insert(now);
        let passed = now.since(began);
        if passed >= WINDOW {
            // Whoever comes after a longer silence comes after a window without anything.
            let last = std::mem::take(&mut self.current);
            self.before = Some(if passed < 2 * WINDOW { last } else { BTreeMap::new() });
            self.began = Some(now);
        }
        let count = self.current.entry(priority).or_default();
        *count = count.saturating_add(1);
    }

    /// How many tasks of a higher priority than this come in a second.
    pub(super) fn rate_above(&self, priority: u8, now: Timestamp) -> f64 {
        let Some(began) = self.began else { return 0.0 };
        let above = |counts: &BTreeMap<u8, u32>| -> f64 {
            let Some(least) = priority.checked_add(1) else { return 0.0 };
            counts.range(least..).map(|(_, count)| f64::from(*count)).sum()
        };
        let passed = now.since(began);
        match &self.before {
            _ if passed >= 2 * WINDOW => 0.0,
            Some(before) => {
                // The part of the window before that lies within the last minute.
                let left = WINDOW.saturating_sub(passed).as_secs_f64() / WINDOW.as_secs_f64();
                (above(&self.current) + above(before) * left) / WINDOW.max(passed).as_secs_f64()
            }
            None => above(&self.current) / passed.max(SHORTEST).as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1_000)
    }

    #[test]
    fn only_those_of_a_higher_priority_overtake() {
        let mut arrivals = Arrivals::default();
        assert!(arrivals.rate_above(0, at(0)).abs() < f64::EPSILON);
        for second in 0..600 {
            arrivals.record(0, at(second));
            arrivals.record(0, at(second));
            if second % 2 == 0 {
                arrivals.record(9, at(second));
            }
        }
        let rate = |priority, second| arrivals.rate_above(priority, at(second));
        assert!((rate(0, 600) - 0.5).abs() < 0.05, "{}", rate(0, 600));
        assert!(rate(9, 600).abs() < f64::EPSILON && rate(u8::MAX, 600).abs() < f64::EPSILON);
        assert!(rate(0, 10_000).abs() < f64::EPSILON, "none has come for a long time");
    }

    #[test]
    fn the_first_minute_is_judged_by_what_there_is() {
        let mut arrivals = Arrivals::default();
        for second in 0..10 {
            arrivals.record(5, at(second));
        }
        assert!((arrivals.rate_above(0, at(10)) - 1.0).abs() < 0.01);
        assert!((arrivals.rate_above(0, at(0)) - 10.0).abs() < 0.01, "no time has passed");
    }
}
