//! What outlives a queue's actor: what the operator set, and the bodies that nobody could stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::body::Stuck;

/// Held by the root for each queue, and by each actor of that queue in turn.
pub(super) struct Lasting {
    workers: AtomicUsize,
    paused: AtomicBool,
    pub(super) stuck: Arc<Stuck>,
}

impl Lasting {
    pub(super) fn new(workers: usize) -> Self {
        Self { workers: AtomicUsize::new(workers), paused: AtomicBool::new(false), stuck: Arc::default() }
    }

    pub(super) fn workers(&self) -> usize {
        self.workers.load(Ordering::Relaxed)
    }

    pub(super) fn set_workers(&self, workers: usize) {
        self.workers.store(workers, Ordering::Relaxed);
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }
}
