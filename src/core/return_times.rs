//! When tasks come back that were put back into their queue, because a limit keeps them from starting and the queue has no
//! room for more of them.
//!
//! Each of them gets a time of its own, so that they come back evenly and in their order: at most [`MOST_A_SECOND`] in a
//! second. Where many wait, the later ones come back later than they asked for, and looking at them costs no more than that.
//! Some may come back early, because what kept them is over: then the next ones have their places.

use std::collections::VecDeque;

use super::Timestamp;

/// The most tasks of a queue that come back in a second.
pub const MOST_A_SECOND: u32 = 1_000;
/// The farthest second that is told apart. All that would come back later come back in it.
const HORIZON: usize = 3_600;

/// The seconds ahead, with the number of tasks that come back in each.
#[derive(Debug, Default)]
pub struct ReturnTimes {
    /// The second of the first number, since 1970.
    first: u64,
    counts: VecDeque<u32>,
    /// The seconds from the first of these to the second are full, so that nobody has to look there.
    full: (u64, u64),
}

impl ReturnTimes {
    /// The time at which another task comes back: not before `earliest`, and in a later second than `now`.
    pub fn take(&mut self, earliest: Timestamp, now: Timestamp) -> Timestamp {
        self.forget_past(now);
        let wanted = second(earliest).clamp(self.first + 1, self.first + HORIZON as u64);
        let skipped = if (self.full.0..self.full.1).contains(&wanted) { self.full.1 } else { wanted };
        let last = self.first + HORIZON as u64;
        let mut at = skipped.min(last);
        while at < last && self.count(at) >= MOST_A_SECOND {
            at += 1;
        }
        let count = self.add(at);
        if count == MOST_A_SECOND {
            self.note_full(at);
        }
        let within = (count - 1) % MOST_A_SECOND;
        let micros = at.saturating_mul(1_000_000) + u64::from(within) * u64::from(1_000_000 / MOST_A_SECOND);
        Timestamp::from_micros(micros)
    }

    /// Whether none of them can be outstanding, whatever the time is.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Returns the number of those that are not back yet.
    pub fn outstanding(&self, now: Timestamp) -> u64 {
        let past = usize::try_from(second(now).saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.counts.iter().skip(past).fold(0, |sum, count| sum + u64::from(*count))
    }

    /// The second in which the last of them comes back. `None`: all are back.
    pub fn last(&self, now: Timestamp) -> Option<Timestamp> {
        let last = self.counts.iter().rposition(|count| *count > 0)? as u64 + self.first;
        (last >= second(now))
            .then(|| Timestamp::from_micros(last.saturating_add(1).saturating_mul(1_000_000)))
    }

    /// The first ones of those that are not back yet, so many, have come back before their times.
    pub fn came_early(&mut self, mut came: u64, now: Timestamp) {
        self.forget_past(now);
        self.full = (0, 0); // there is room in its seconds now
        for count in &mut self.counts {
            let here = u64::from(*count).min(came);
            *count -= u32::try_from(here).unwrap_or(u32::MAX);
            came -= here;
        }
    }

    /// All of them are back.
    pub fn all_came(&mut self) {
        *self = Self::default();
    }

    fn forget_past(&mut self, now: Timestamp) {
        let second = second(now);
        // A clock that was put back begins anew: the seconds that were told apart are far ahead then.
        if second < self.first || second - self.first > self.counts.len() as u64 {
            self.counts.clear();
            (self.first, self.full) = (second, (0, 0));
        }
        while self.first < second {
            self.counts.pop_front();
            self.first += 1;
        }
    }

    fn count(&self, at: u64) -> u32 {
        let index = usize::try_from(at - self.first).unwrap_or(usize::MAX);
        self.counts.get(index).copied().unwrap_or_default()
    }

    /// Counts one more in this second, and returns how many there are in it.
    fn add(&mut self, at: u64) -> u32 {
        let index = usize::try_from(at - self.first).unwrap_or_default();
        if self.counts.len() <= index {
            self.counts.resize(index + 1, 0);
        }
        self.counts[index] = self.counts[index].saturating_add(1);
        self.counts[index]
    }

    fn note_full(&mut self, at: u64) {
        if self.full.1 <= self.first {
            self.full = (at, at + 1);
        } else if at == self.full.1 {
            self.full.1 += 1;
        }
    }
}

fn second(time: Timestamp) -> u64 {
    time.as_micros() / 1_000_000
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn they_come_back_evenly_and_in_their_order() {
        let mut times = ReturnTimes::default();
        let now = Timestamp::from_millis(1_796_040_000_500);
        let taken: Vec<Timestamp> = (0..2_500).map(|_| times.take(now, now)).collect();
        assert!(taken.is_sorted() && taken[0] == Timestamp::from_millis(1_796_040_001_000));
        assert_eq!(taken[999], Timestamp::from_millis(1_796_040_001_999));
        assert_eq!(taken[1_000], Timestamp::from_millis(1_796_040_002_000));
        assert_eq!(taken[2_499], Timestamp::from_millis(1_796_040_003_499));
        assert_eq!(times.outstanding(now), 2_500);
        let later = Timestamp::from_millis(1_796_040_003_000);
        assert_eq!(times.outstanding(later), 500);
        assert_eq!(times.take(later, later), Timestamp::from_millis(1_796_040_004_000));
        let far = Timestamp::from_micros(u64::MAX);
        assert!(times.take(far, later) <= Timestamp::from_millis(1_796_043_604_000));
    }

    #[test]
    fn some_come_back_before_their_times() {
        let mut times = ReturnTimes::default();
        let now = Timestamp::from_millis(1_796_040_000_500);
        assert_eq!(times.last(now), None);
        for _ in 0..2_500 {
            times.take(now, now);
        }
        assert_eq!(times.last(now), Some(Timestamp::from_millis(1_796_040_004_000)));
        times.came_early(1_024, now);
        assert_eq!(times.outstanding(now), 1_476);
        assert_eq!(times.take(now, now), Timestamp::from_millis(1_796_040_001_000), "there is room again");
        times.came_early(u64::MAX, now);
        assert_eq!((times.outstanding(now), times.last(now)), (0, None));
        times.take(now, now);
        times.all_came();
        assert_eq!((times.outstanding(now), times.last(now)), (0, None));
    }

    proptest! {
        /// No second gets more than its share before the horizon, none comes back early, and each call is quick.
        #[test]
        fn no_second_has_too_many(steps in prop::collection::vec((0u64..3_000, 0u64..90_000, 1usize..400), 1..60)) {
            let mut times = ReturnTimes::default();
            let mut now = Timestamp::from_millis(1_796_040_000_000);
            let mut seconds: HashMap<u64, u32> = HashMap::new();
            for (passed, ahead, many) in steps {
                now = now + std::time::Duration::from_millis(passed);
                let earliest = now + std::time::Duration::from_millis(ahead);
                for _ in 0..many {
                    let at = times.take(earliest, now);
                    prop_assert!(at > now && second(at) >= second(earliest));
                    *seconds.entry(second(at)).or_default() += 1;
                }
            }
            prop_assert!(seconds.values().all(|count| *count <= MOST_A_SECOND));
            let ahead: u64 = seconds.iter().filter(|(at, _)| **at >= second(now)).map(|(_, n)| u64::from(*n)).sum();
            prop_assert_eq!(times.outstanding(now), ahead);
        }
    }
}
