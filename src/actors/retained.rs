//! The part of a queue's state that outlives its actor: the number of workers and the pause that an operator set, what the
//! queue has counted, and the bodies on threads that nobody could stop. The root holds one `RetainedState` for each queue
//! and gives it to each actor that it builds for that queue, so a restart after a panic undoes neither what the operator
//! did nor what was counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::queue_stats::QueueStats;
use crate::catalogue::QueueRow;
use crate::core::autoscale::WorkerRange;
use crate::runtime::body::Stuck;

/// A queue as it begins: its row, and whether an operator has paused it for good.
pub(crate) struct InitialQueue {
    pub(crate) row: QueueRow,
    pub(crate) is_paused: bool,
}

impl From<QueueRow> for InitialQueue {
    fn from(row: QueueRow) -> Self {
        Self { row, is_paused: false }
    }
}

/// What survives the death of a queue's actor. The root owns it; the living actor of the queue reads and writes it.
pub(super) struct RetainedState {
    workers: AtomicUsize,
    /// The fewest and the most workers as they were stated; `None`: their number is fixed.
    range: Mutex<Option<(usize, usize)>>,
    paused: AtomicBool,
    /// Whether the queue takes nothing from the broker.
    cancelled: AtomicBool,
    pub(super) stuck: Arc<Stuck>,
    /// The statistics of the last actor of the queue. The living one has taken it.
    stats: Mutex<Option<Box<QueueStats>>>,
}

impl RetainedState {
    /// The state of a queue with this row that no operator has touched since the start.
    pub(super) fn new(row: &QueueRow, is_paused: bool) -> Self {
        let range = row.max_workers.map(|most| (row.workers, most));
        Self {
            workers: AtomicUsize::new(row.workers),
            range: Mutex::new(range),
            paused: AtomicBool::new(is_paused),
            cancelled: AtomicBool::new(false),
            stuck: Arc::default(),
            stats: Mutex::default(),
        }
    }

    /// Takes what the last actor of the queue has counted. `None`: there was none before this one.
    pub(super) fn take_stats(&self) -> Option<Box<QueueStats>> {
        self.stats.lock().take()
    }

    /// Keeps what an actor has counted, for its successor.
    pub(super) fn keep_stats(&self, stats: QueueStats) {
        *self.stats.lock() = Some(Box::new(stats));
    }

    /// The number of worker slots, as an operator has set it, else as the row states it.
    pub(super) fn workers(&self) -> usize {
        self.workers.load(Ordering::Relaxed)
    }

    pub(super) fn set_workers(&self, workers: usize) {
        self.workers.store(workers, Ordering::Relaxed);
    }

    /// The fewest and the most workers, if their number follows the load.
    pub(super) fn range(&self) -> Option<WorkerRange> {
        self.range.lock().map(|(fewest, most)| WorkerRange::new(fewest, most))
    }

    /// `None`: the number of workers is fixed from now on.
    pub(super) fn set_range(&self, range: Option<WorkerRange>) {
        *self.range.lock() = range.map(|range| (range.min(), range.max()));
    }

    /// Has the queue have so many workers at least, if their number follows the load. The stated most stays as it is: it holds
    /// again as soon as the fewest are below it.
    pub(super) fn set_fewest(&self, workers: usize) {
        if let Some((fewest, _)) = &mut *self.range.lock() {
            *fewest = workers;
        }
    }

    /// Whether an operator has paused the queue.
    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub(super) fn set_cancelled(&self, cancelled: bool) {
        self.cancelled.store(cancelled, Ordering::Relaxed);
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stated_most_workers_hold_again_when_fewer_are_wanted() {
        let state = RetainedState::new(&QueueRow::new("q").with_workers(2).with_max_workers(10), false);
        let range = || state.range().map(|range| (range.min(), range.max()));
        assert_eq!(range(), Some((2, 10)));
        state.set_fewest(50);
        assert_eq!(range(), Some((50, 50)));
        state.set_fewest(3);
        assert_eq!(range(), Some((3, 10)));
        state.set_range(None);
        state.set_fewest(4);
        assert_eq!(range(), None, "a fixed number stays fixed");
    }
}
