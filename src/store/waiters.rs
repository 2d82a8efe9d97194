//! Who waits for which record.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use tokio::sync::oneshot;

use crate::task::{TaskId, TaskResult};

/// Waiters by task id. A record that arrives wakes all of its id; one that nobody waits for costs one load.
#[derive(Default)]
pub(crate) struct Waiters {
    by_id: DashMap<TaskId, Vec<oneshot::Sender<Arc<TaskResult>>>>,
    count: AtomicUsize,
}

impl Waiters {
    /// Waits for the record of `id`. Subscribe first, then look whether it is there already.
    pub(crate) fn subscribe(&self, id: &TaskId) -> oneshot::Receiver<Arc<TaskResult>> {
        let (sender, receiver) = oneshot::channel();
        self.count.fetch_add(1, Ordering::SeqCst);
        let mut waiting = self.by_id.entry(id.clone()).or_default();
        let before = waiting.len();
        waiting.retain(|w| !w.is_closed()); // those whose caller gave up
        self.count.fetch_sub(before - waiting.len(), Ordering::SeqCst);
        waiting.push(sender);
        receiver
    }

    /// Whether anybody waits for anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    /// Wakes those who wait for this record.
    pub(crate) fn wake(&self, result: &TaskResult) {
        if self.is_empty() {
            return;
        }
        if let Some((_, waiting)) = self.by_id.remove(&result.id) {
            self.count.fetch_sub(waiting.len(), Ordering::SeqCst);
            let result = Arc::new(result.clone());
            for waiter in waiting {
                let _ = waiter.send(Arc::clone(&result));
            }
        }
    }

    /// Forgets waiters that gave up.
    pub(crate) fn sweep(&self) {
        self.by_id.retain(|_, waiting| {
            let before = waiting.len();
            waiting.retain(|w| !w.is_closed());
            self.count.fetch_sub(before - waiting.len(), Ordering::SeqCst);
            !waiting.is_empty()
        });
    }
}
