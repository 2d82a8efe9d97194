//! What a queue tells about itself.

use std::time::Duration;

use serde::Serialize;

use super::run::Ended;
use crate::core::TimeToStartSnapshot;
use crate::task::{Next, State};

/// A queue as it is now: its promise, how the promise is kept, and what goes on.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct QueueStatus {
    /// Its physical name.
    pub name: String,
    /// `io` or `cpu`.
    pub pool: &'static str,
    /// Worker slots.
    pub workers: usize,
    /// Runs going on.
    pub running: usize,
    /// Tasks that could start now, wherever they wait.
    pub ready: u64,
    /// Tasks that wait for their ETA.
    pub scheduled: u64,
    /// Serial tasks that wait for their lane.
    pub in_line: u64,
    /// Dead letters.
    pub dead: u64,
    /// Time-to-start since the program started, with the target.
    pub time_to_start: TimeToStartSnapshot,
    /// How long the oldest ready task has waited while nothing started.
    pub blockage: Duration,
    /// Succeeded.
    pub done: u64,
    /// Failed for good.
    pub failed: u64,
    /// Attempts that failed and were tried again.
    pub retried: u64,
    /// Went to the dead letters.
    pub rejected: u64,
    /// Revoked or expired.
    pub revoked: u64,
    /// Postponed, continued or handed back, without burning an attempt.
    pub requeued: u64,
    /// Bodies that panicked.
    pub panics: u64,
    /// Bodies that ran into their hard time limit.
    pub timed_out: u64,
    /// Blocking bodies that could not be stopped and still run.
    pub stuck: usize,
    /// Returns of such bodies that came too late and were refused.
    pub refused: usize,
    /// Workers replaced, after panics and deaths.
    pub replaced: u64,
    /// Stopped by hand.
    pub paused: bool,
    /// Why the queue has stopped itself: its workers died too often.
    pub halted: Option<String>,
}

/// What a queue's actor has counted since it started.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) retried: u64,
    pub(super) rejected: u64,
    pub(super) revoked: u64,
    pub(super) requeued: u64,
    pub(super) panics: u64,
    pub(super) timed_out: u64,
    pub(super) replaced: u64,
}

impl Counters {
    /// A task has left its place in the queue.
    pub(super) fn count(&mut self, ended: Ended) {
        let counter = match ended {
            Ended::Over(State::Success | State::Ignored) => &mut self.done,
            Ended::Over(State::Revoked) => &mut self.revoked,
            Ended::Over(State::Rejected) => &mut self.rejected,
            Ended::Over(_) => &mut self.failed,
            Ended::Again(Next::Retry) => &mut self.retried,
            Ended::Again(_) | Ended::HandedBack => &mut self.requeued,
        };
        *counter += 1;
    }
}
