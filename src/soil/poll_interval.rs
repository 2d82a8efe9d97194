//! How soon a page asks for the status of a task again: `next_poll_ms` of a [`Status`](super::Status).
//!
//! A page with an event stream does not ask; the server tells it (`web/soil/events.rs`).

use super::{QueuePosition, SoilState};

/// The interval of a task that runs, in milliseconds.
const RUNNING: u64 = 1_000;
/// The interval of a task that waits, in milliseconds.
const WAITING: u64 = 2_000;
/// The interval of a task that waits far behind others, in milliseconds.
const FAR: u64 = 5_000;
/// The number of tasks ahead above which a task waits far behind.
const FAR_BEHIND: u64 = 100;

/// The interval for a task in this state at this place in line, in milliseconds.
pub(super) fn poll_interval(state: SoilState, place: Option<QueuePosition>) -> u64 {
    match state {
        SoilState::Started => RUNNING,
        _ if place.is_some_and(|place| place.ahead > FAR_BEHIND) => FAR,
        _ => WAITING,
    }
}
