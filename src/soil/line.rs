//! Where a task waits, and how its queue is.

use std::time::Duration;

use serde::Serialize;

use crate::actors::QueueStatus;

/// A queue that starts nothing for so long while tasks are ready is not alive, as in HQ.
const BLOCKED: Duration = Duration::from_secs(5 * 60);

/// A place in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Place {
    /// So many tasks of the queue start before this one.
    pub ahead: u64,
    /// There are more; they are not counted further.
    pub or_more: bool,
}

impl Place {
    pub(crate) fn new(ahead: u64, or_more: bool) -> Self {
        Self { ahead, or_more }
    }
}

/// The queue that a task waits or runs in. It is the task's own: HQ's `is_alive` speaks of another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct QueueFacts {
    /// Its physical name.
    pub name: String,
    /// Tasks that it runs at a time.
    pub workers: usize,
    /// Tasks that it runs now.
    pub running: usize,
    /// Tasks that could start now.
    pub ready: u64,
    /// Stopped by hand.
    pub paused: bool,
    /// It has stopped itself, because its workers died too often.
    pub halted: bool,
    /// How long the oldest ready task has waited while nothing started, in whole seconds.
    pub blocked_seconds: u64,
}

impl QueueFacts {
    pub(crate) fn of(status: &QueueStatus) -> Self {
        Self {
            name: status.name.clone(),
            workers: status.workers,
            running: status.running,
            ready: status.ready,
            paused: status.paused,
            halted: status.halted.is_some(),
            blocked_seconds: status.blockage.as_secs(),
        }
    }

    /// Whether it starts tasks: it is neither stopped nor has it been stuck for five minutes. What a page says about that
    /// must never take the place of real progress.
    pub fn is_alive(&self) -> bool {
        !self.paused && !self.halted && self.blocked_seconds < BLOCKED.as_secs()
    }
}
