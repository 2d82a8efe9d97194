//! Where an unfinished task is, as its user is told it (Soil).

use serde::Serialize;

use crate::core::Timestamp;
use crate::core::forecast::StartForecast;

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
#[derive(Clone, Debug, Default)]
pub(crate) struct TaskLocation {
    pub(crate) task: String,
    pub(crate) queue: String,
    /// Whether a run of it has begun, now or before.
    pub(crate) has_begun: bool,
    pub(crate) is_running: bool,
    /// Its place in line, if it waits and the place is known.
    pub(crate) place: Option<QueuePosition>,
    /// The time before which it does not start, if that is ahead.
    pub(crate) due: Option<Timestamp>,
    /// Whether its lane has not let it in.
    pub(crate) is_in_line: bool,
    /// Whether a gate holds it.
    pub(crate) is_held: bool,
    /// When it will start, if only those before it delay it.
    pub(crate) starts: Option<StartForecast>,
}
