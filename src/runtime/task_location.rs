//! Where an unfinished task is, as its user is told it (Soil).

use serde::Serialize;

/// A place in the line of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct QueuePosition {
    /// How many tasks of the queue start before this one.
    pub ahead: u64,
    /// Whether there are more than that: the count stops at a limit.
    pub or_more: bool,
}

impl QueuePosition {
    pub(crate) fn new(ahead: u64, or_more: bool) -> Self {
        Self { ahead, or_more }
    }
}

/// Where a task is that is not over.
#[derive(Clone, Debug)]
pub(crate) struct TaskLocation {
    pub(crate) task: String,
    pub(crate) queue: String,
    /// Whether a run of it has begun, now or before.
    pub(crate) has_begun: bool,
    pub(crate) is_running: bool,
    /// Its place in line, if it waits and the place is known.
    pub(crate) place: Option<QueuePosition>,
}
