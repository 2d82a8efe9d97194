//! What happens to tasks outside of the queues that this program serves: calls that it sends, and tasks that are over although
//! no queue here had them. The queues count all else themselves ([`Accounts`](crate::core::accounts::Accounts)).
//!
//! Calls are sent from any thread. So each pair of task and queue has an atomic counter of its own, which its sender looks up
//! without a lock that others wait for. Beyond a bound all pairs share one counter.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use foldhash::fast::RandomState;
use parking_lot::Mutex;

use crate::core::accounts::{ErrorCounts, OTHER, TaskAccounts};

/// How many pairs of task and queue are told apart.
const MOST_PAIRS: usize = 1_000;

/// The counts of one task by queue.
type ByQueue = HashMap<Box<str>, Arc<SenderCount>, RandomState>;

/// The counts by task, and of each task by queue.
#[derive(Default)]
pub(crate) struct SenderCounts {
    tasks: DashMap<Box<str>, ByQueue>,
    pairs: AtomicUsize,
}

/// The counts of one task in one queue.
#[derive(Default)]
pub(crate) struct SenderCount {
    sent: AtomicU64,
    revoked: AtomicU64,
    failed: Mutex<ErrorCounts>,
}

impl SenderCounts {
    /// The counts of this task in this queue.
    pub(crate) fn of(&self, task: &str, queue: &str) -> Arc<SenderCount> {
        if let Some(known) = self.tasks.get(task).and_then(|queues| queues.get(queue).cloned()) {
            return known;
        }
        let is_full = self.pairs.load(Ordering::Relaxed) >= MOST_PAIRS;
        let (task, queue) = if is_full { (OTHER, OTHER) } else { (task, queue) };
        let mut queues = self.tasks.entry(task.into()).or_default();
        if let Some(known) = queues.get(queue) {
            return Arc::clone(known); // somebody else was faster
        }
        self.pairs.fetch_add(1, Ordering::Relaxed);
        let count = Arc::<SenderCount>::default();
        queues.insert(queue.into(), Arc::clone(&count));
        count
    }

    /// All counts as they are now: the task, the queue, and what was counted.
    #[cfg_attr(not(feature = "metrics"), allow(dead_code))]
    pub(crate) fn read(&self) -> Vec<(String, String, TaskAccounts)> {
        let mut all = Vec::new();
        for task in &self.tasks {
            for (queue, count) in task.value() {
                all.push((task.key().to_string(), queue.to_string(), count.read()));
            }
        }
        all
    }
}

impl SenderCount {
    /// Counts a call that was sent.
    pub(crate) fn sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a task that was revoked while it waited.
    pub(crate) fn revoked(&self) {
        self.revoked.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a task that failed without a run, with an error of this name.
    pub(crate) fn failed(&self, error: &str) {
        self.failed.lock().count(error, 1);
    }

    fn read(&self) -> TaskAccounts {
        TaskAccounts {
            sent: self.sent.load(Ordering::Relaxed),
            revoked: self.revoked.load(Ordering::Relaxed),
            failed: self.failed.lock().clone(),
            ..TaskAccounts::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pair_of_task_and_queue_has_its_own_counts() {
        let counts = SenderCounts::default();
        for queue in ["q", "q", "r"] {
            counts.of("app.t", queue).sent();
        }
        counts.of("app.t", "q").revoked();
        counts.of("app.t", "q").failed("WorkerLostError");
        let mut read = counts.read();
        read.sort_by(|one, other| one.1.cmp(&other.1));
        let [(task, q, of_q), (_, r, of_r)] = &read[..] else { panic!("{read:?}") };
        assert_eq!((task.as_str(), q.as_str(), r.as_str()), ("app.t", "q", "r"));
        assert_eq!((of_q.sent, of_q.revoked, of_q.failed.total()), (2, 1, 1));
        assert_eq!((of_r.sent, of_r.revoked, of_r.failed.total()), (1, 0, 0));
    }

    #[test]
    fn beyond_the_bound_all_are_counted_together() {
        let counts = SenderCounts::default();
        for n in 0..MOST_PAIRS + 50 {
            counts.of(&format!("t{n}"), &format!("q{n}")).sent();
        }
        let read = counts.read();
        assert_eq!(read.len(), MOST_PAIRS + 1);
        let other = read.iter().find(|(task, _, _)| task == OTHER).expect("the rest");
        assert_eq!((other.1.as_str(), other.2.sent), (OTHER, 50));
    }

    #[test]
    fn many_senders_lose_no_call() {
        let counts = SenderCounts::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..500).for_each(|n| counts.of(&format!("t{}", n % 7), "q").sent()));
            }
        });
        assert_eq!(counts.read().iter().map(|(_, _, count)| count.sent).sum::<u64>(), 2_000);
    }
}
