//! How many workers a queue has that may have more and fewer: Celery's `--autoscale`.
//!
//! A queue grows at once to what it has to do. It shrinks when it has had less to do for [a while](KEEP), and then to the most
//! that it had to do in that time, so a backlog that comes in waves does not have workers hired and let go with each of them.
//! The caller tells the load and the time.

use std::time::Duration;

use super::Timestamp;

/// How long a queue must have had less to do before it shrinks: Celery's `AUTOSCALE_KEEPALIVE`.
pub const KEEP: Duration = Duration::from_secs(30);

/// The fewest and the most workers of a queue. There is always one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerRange {
    min: usize,
    max: usize,
}

impl WorkerRange {
    /// From `min` workers, but one at least, to `max`, but `min` at least.
    pub fn new(min: usize, max: usize) -> Self {
        let min = min.max(1);
        Self { min, max: max.max(min) }
    }

    /// Returns the fewest workers that the queue may have.
    pub fn min(self) -> usize {
        self.min
    }

    /// Returns the most workers that the queue may have.
    pub fn max(self) -> usize {
        self.max
    }

    /// The number of workers within the range that is next to this one.
    pub fn clamp(self, workers: usize) -> usize {
        workers.clamp(self.min, self.max)
    }
}

/// What a queue has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// How many workers it has.
    pub workers: usize,
    /// How many of them have a task.
    pub busy: usize,
    /// How many tasks wait for a worker, and for nothing else.
    pub waiting: u64,
}

/// Decides the size of one queue.
#[derive(Debug, Default)]
pub struct Autoscaler {
    quiet: Option<Quiet>,
}

/// The time in which the queue has had less to do than it has workers for.
#[derive(Debug)]
struct Quiet {
    since: Timestamp,
    /// The most workers that it had a use for.
    most: usize,
}

impl Autoscaler {
    /// How many workers a queue with this load is to have now.
    pub fn size(&mut self, range: WorkerRange, load: Load, now: Timestamp) -> usize {
        let waiting = usize::try_from(load.waiting).unwrap_or(usize::MAX);
        let wanted = range.clamp(load.busy.saturating_add(waiting));
        let present = range.clamp(load.workers);
        if wanted >= present {
            self.quiet = None;
            return wanted;
        }
        let quiet = self.quiet.get_or_insert(Quiet { since: now, most: wanted });
        quiet.most = quiet.most.max(wanted);
        let most = quiet.most;
        if now.since(quiet.since) < KEEP {
            return present;
        }
        self.quiet = None;
        most
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn at(seconds: u64) -> Timestamp {
        NOW + Duration::from_secs(seconds)
    }

    fn load(workers: usize, busy: usize, waiting: u64) -> Load {
        Load { workers, busy, waiting }
    }

    #[test]
    fn a_range_has_a_worker_at_least_and_is_never_turned_round() {
        let range = |min, max| (WorkerRange::new(min, max).min(), WorkerRange::new(min, max).max());
        assert_eq!((range(0, 0), range(5, 2), range(2, 5)), ((1, 1), (5, 5), (2, 5)));
    }

    #[test]
    fn it_grows_at_once_and_no_further_than_there_is_work() {
        let (mut queue, range) = (Autoscaler::default(), WorkerRange::new(2, 10));
        assert_eq!(queue.size(range, load(2, 2, 0), at(0)), 2);
        assert_eq!(queue.size(range, load(2, 2, 3), at(1)), 5);
        assert_eq!(queue.size(range, load(5, 5, 1_000), at(2)), 10);
        assert_eq!(queue.size(range, load(1, 0, 0), at(3)), 2, "somebody has made it too small");
        assert_eq!(queue.size(WorkerRange::new(1, 3), load(10, 10, 50), at(4)), 3, "the range was changed");
    }

    #[test]
    fn it_shrinks_after_a_while_to_the_most_that_it_had_a_use_for() {
        let (mut queue, range) = (Autoscaler::default(), WorkerRange::new(1, 10));
        assert_eq!(queue.size(range, load(10, 2, 0), at(0)), 10);
        assert_eq!(queue.size(range, load(10, 4, 0), at(10)), 10);
        assert_eq!(queue.size(range, load(10, 0, 0), at(29)), 10);
        assert_eq!(queue.size(range, load(10, 0, 0), at(30)), 4);
        // A wave makes it wait anew.
        assert_eq!(queue.size(range, load(4, 1, 0), at(31)), 4);
        assert_eq!(queue.size(range, load(4, 4, 0), at(50)), 4);
        assert_eq!(queue.size(range, load(4, 0, 0), at(62)), 4);
        assert_eq!(queue.size(range, load(4, 0, 0), at(92)), 1);
    }

    proptest! {
        /// Whatever the load, the size is within the range, no queue that has all of its workers at work shrinks below them,
        /// and one that has nothing to do has its fewest in the end.
        #[test]
        fn the_size_is_within_the_range_and_follows_the_work(
            (min, max) in (0..20_usize, 0..40_usize),
            loads in prop::collection::vec((0..30_usize, 0..100_u64, 0..20_u64), 0..50),
        ) {
            let (mut queue, range) = (Autoscaler::default(), WorkerRange::new(min, max));
            let (mut now, mut workers) = (NOW, range.min());
            for (busy, waiting, pause) in loads {
                now = now + Duration::from_secs(pause);
                let busy = busy.min(workers);
                let next = queue.size(range, load(workers, busy, waiting), now);
                prop_assert!((range.min()..=range.max()).contains(&next));
                prop_assert!(next >= range.clamp(busy));
                workers = next;
            }
            for _ in 0..5 {
                workers = queue.size(range, load(workers, 0, 0), now);
                now = now + KEEP;
            }
            prop_assert_eq!(workers, range.min());
        }
    }
}
