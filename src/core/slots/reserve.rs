//! The reserve: slots that runs leave free which take longer than a tighter promise allows to wait.
//!
//! A slot is not taken back, so a burst of long tasks would hold all of them while an urgent task waits longer than its queue
//! promises. A run *blocks* a promise that is tighter than the promise of its own queue, and shorter than the run is likely to
//! take. Of the runs that block a promise, no more start than leave its reserve free. Only promises tighter than the task's own
//! count: else a queue with short promises and long tasks would keep itself out.
//!
//! The promises of a pool are in order, so the ones that a run blocks are always the first few.

use std::collections::VecDeque;
use std::time::Duration;

use super::cost::micros;
use crate::core::Timestamp;

/// The hours over which it is remembered how many slots urgent tasks have needed.
const HOURS: usize = 7 * 24;
const HOUR: u64 = 3_600_000_000;
/// The part of an hour that must be over before its use says something.
const TELLING: u64 = HOUR / 12;

/// The promises of the queues of a pool, the tightest first.
#[derive(Clone, Debug)]
pub(super) struct Promises {
    promises: Vec<PoolPromise>,
    /// The number of slots that are kept free for each, as it was stated.
    stated: Option<usize>,
}

#[derive(Clone, Debug)]
struct PoolPromise {
    target: Duration,
    /// The runs that go on and block it.
    blockers: usize,
    /// What its own short tasks use.
    demand: Demand,
}

impl Promises {
    pub(super) fn new(stated: Option<usize>) -> Self {
        Self { promises: Vec::new(), stated }
    }

    /// Makes sure that there is a promise with this target. Returns whether it is a new one, so that the places of the others
    /// may have changed.
    pub(super) fn add(&mut self, target: Duration) -> bool {
        let place = self.place(target);
        if self.promises.get(place).is_some_and(|promise| promise.target == target) {
            return false;
        }
        self.promises.insert(place, PoolPromise { target, blockers: 0, demand: Demand::default() });
        true
    }

    /// The place of a target among the promises.
    pub(super) fn place(&self, target: Duration) -> usize {
        self.promises.partition_point(|promise| promise.target < target)
    }

    pub(super) fn len(&self) -> usize {
        self.promises.len()
    }

    /// The target of the promise at this place.
    pub(super) fn target(&self, place: usize) -> Option<Duration> {
        self.promises.get(place).map(|promise| promise.target)
    }

    /// How many promises a run blocks that takes at most so long, of a queue whose own promise is at this place.
    pub(super) fn blocked(&self, own: usize, most: Duration) -> usize {
        let tighter = self.promises.get(..own).unwrap_or_default();
        tighter.partition_point(|promise| promise.target < most)
    }

    /// How many promises a run may block that starts now.
    pub(super) fn open_to(&self, slots: usize, now: Timestamp) -> usize {
        let most_kept = self.stated.unwrap_or(slots / 4).min(slots.saturating_sub(1));
        let mut demand = 0.0;
        // A run blocks the first few promises, so those behind one that few runs block are blocked by no more.
        let blocked = self.promises.iter().take_while(|promise| promise.blockers + most_kept >= slots);
        for (place, promise) in blocked.enumerate() {
            demand += promise.demand.slots(now);
            let kept = self.stated.unwrap_or_else(|| reserve(demand, slots)).min(slots.saturating_sub(1));
            if kept > 0 && promise.blockers + kept >= slots {
                return place;
            }
        }
        self.promises.len()
    }

    /// A run starts that blocks so many.
    pub(super) fn started(&mut self, blocks: usize) {
        self.promises.iter_mut().take(blocks).for_each(|promise| promise.blockers += 1);
    }

    /// A run is over that blocked so many.
    pub(super) fn ended(&mut self, blocks: usize) {
        let blocked = self.promises.iter_mut().take(blocks);
        blocked.for_each(|promise| promise.blockers = promise.blockers.saturating_sub(1));
    }

    /// No run blocks anything, as far as is known.
    pub(super) fn forget_runs(&mut self) {
        self.promises.iter_mut().for_each(|promise| promise.blockers = 0);
    }

    /// Keeps nothing free for anybody.
    #[cfg(test)]
    pub(super) fn keep_nothing(&mut self) {
        self.stated = Some(0);
    }

    /// A run of a queue whose promise is at this place took so long.
    pub(super) fn note(&mut self, own: usize, took: Duration, now: Timestamp) {
        if let Some(promise) = self.promises.get_mut(own).filter(|promise| took <= promise.target) {
            promise.demand.note(took, now);
        }
    }
}

/// The slots to keep free for tasks that need so many on average: enough for 19 of 20 moments, if they come by chance. No more
/// than a quarter of all.
fn reserve(demand: f64, slots: usize) -> usize {
    let needed = (demand + 1.65 * demand.sqrt()).ceil();
    (needed as usize).min(slots / 4)
}

/// How many slots something has used, hour by hour.
#[derive(Clone, Debug, Default)]
struct Demand {
    /// The hour that is counted, since 1970.
    hour: u64,
    /// The slot time that was used in it.
    used: u64,
    past: VecDeque<u64>,
    /// The most that was used in one of the past hours.
    most: u64,
}

impl Demand {
    fn note(&mut self, took: Duration, now: Timestamp) {
        self.turn(now.as_micros() / HOUR);
        self.used = self.used.saturating_add(micros(took));
    }

    /// Begins this hour, unless it or a later one has begun.
    fn turn(&mut self, hour: u64) {
        let passed = usize::try_from(hour.saturating_sub(self.hour)).unwrap_or(usize::MAX);
        if passed == 0 {
            return;
        }
        let used = std::mem::take(&mut self.used);
        self.past.push_back(used);
        self.past.extend(std::iter::repeat_n(0, (passed - 1).min(HOURS)));
        let too_many = self.past.len().saturating_sub(HOURS);
        self.past.drain(..too_many);
        self.most = self.past.iter().copied().max().unwrap_or_default();
        self.hour = hour;
    }

    /// How many slots were used at a time in the hour in which the most were, this one included.
    fn slots(&self, now: Timestamp) -> f64 {
        if self.used == 0 && self.most == 0 {
            return 0.0;
        }
        let passed = now.as_micros().saturating_sub(self.hour.saturating_mul(HOUR)).min(HOUR);
        let current = if passed < TELLING { 0.0 } else { self.used as f64 / passed as f64 };
        current.max(self.most as f64 / HOUR as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn promises(stated: Option<usize>) -> Promises {
        let mut promises = Promises::new(stated);
        for target in [60, 30, 3600] {
            assert!(promises.add(target * SECOND));
        }
        assert!(!promises.add(30 * SECOND));
        promises
    }

    #[test]
    fn only_tighter_promises_than_its_own_are_blocked_by_a_run() {
        let promises = promises(None);
        assert_eq!((promises.len(), promises.place(30 * SECOND), promises.place(3600 * SECOND)), (3, 0, 2));
        assert_eq!(promises.blocked(0, Duration::MAX), 0, "its own is the tightest");
        assert_eq!(promises.blocked(2, 10 * SECOND), 0, "it is short");
        assert_eq!(promises.blocked(2, 45 * SECOND), 1);
        assert_eq!(promises.blocked(2, Duration::MAX), 2);
    }

    #[test]
    fn blockers_leave_the_reserve_free() {
        let mut promises = promises(Some(2));
        assert_eq!(promises.open_to(8, Timestamp::ZERO), 3);
        for _ in 0..6 {
            promises.started(1);
        }
        assert_eq!(promises.open_to(8, Timestamp::ZERO), 0, "six of eight block the tightest");
        promises.ended(1);
        assert_eq!(promises.open_to(8, Timestamp::ZERO), 3);
        let promises = self::promises(Some(2));
        assert_eq!(promises.open_to(1, Timestamp::ZERO), 3, "the last slot is kept for nobody");
    }

    #[test]
    fn a_reserve_that_is_not_stated_follows_what_urgent_tasks_used() {
        let mut promises = promises(None);
        let hour = |n: u64| Timestamp::from_micros(n * HOUR);
        promises.started(3);
        assert_eq!(promises.open_to(1, hour(0)), 3, "nothing is kept yet");
        // One slot all the time, for an hour.
        for _ in 0..360 {
            promises.note(0, 10 * SECOND, hour(5));
        }
        promises.note(0, 40 * SECOND, hour(5));
        promises.note(0, SECOND, hour(6));
        for _ in 0..36 {
            promises.started(2);
        }
        assert_eq!(promises.open_to(40, hour(6)), 0, "three slots are kept: 1 + 1.65, rounded up");
        promises.ended(2);
        assert_eq!(promises.open_to(40, hour(6)), 3);
        promises.started(2);
        promises.note(0, SECOND, hour(6 + 1 + HOURS as u64));
        assert_eq!(promises.open_to(40, hour(6 + 1 + HOURS as u64)), 3, "after a week it is forgotten");
    }
}
