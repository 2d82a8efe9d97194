//! The state of the queue in which a task waits.

use std::time::Duration;

use serde::Serialize;

use crate::actors::QueueStatus;

/// A queue that starts nothing for this long while tasks are ready counts as not alive, as in HQ.
const BLOCKED: Duration = Duration::from_secs(5 * 60);

/// The state of the queue that a task waits or runs in. It is the task's own queue, whereas HQ's `is_alive` looks at
/// another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct QueueSummary {
    /// The physical name of the queue.
    pub name: String,
    /// The number of tasks that the queue runs at a time.
    pub workers: usize,
    /// The number of tasks that run now.
    pub running: usize,
    /// The number of tasks that could start now.
    pub ready: u64,
    /// Whether somebody has paused the queue by hand.
    pub paused: bool,
    /// Whether the queue has stopped itself, because its workers died too often.
    pub halted: bool,
    /// How long the oldest ready task has waited while nothing started, in whole seconds.
    pub blocked_seconds: u64,
}

impl QueueSummary {
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

    /// Whether the queue starts tasks: it is neither paused nor halted, and has not been blocked for five minutes. A
    /// page must never show this in place of real progress.
    pub fn is_alive(&self) -> bool {
        !self.paused && !self.halted && self.blocked_seconds < BLOCKED.as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(blocked_seconds: u64) -> QueueSummary {
        QueueSummary {
            name: "exports".to_owned(),
            workers: 1,
            running: 0,
            ready: 1,
            paused: false,
            halted: false,
            blocked_seconds,
        }
    }

    #[test]
    fn a_queue_is_alive_until_it_was_blocked_for_five_minutes() {
        for (blocked, is_alive) in [(0, true), (299, true), (300, false), (u64::MAX, false)] {
            assert_eq!(summary(blocked).is_alive(), is_alive, "{blocked} s");
        }
    }

    #[test]
    fn a_queue_that_was_stopped_is_not_alive() {
        assert!(!QueueSummary { paused: true, ..summary(0) }.is_alive());
        assert!(!QueueSummary { halted: true, ..summary(0) }.is_alive());
    }
}
