//! Lanes as brokers show them, and what every broker that keeps them has to know.

use crate::core::Timestamp;
use crate::core::lane::{AfterFailure, Block, Holder, Lane};
use crate::task::{LaneName, Message, Refusal, State, TaskId, TaskResult};

use super::Settle;

/// So many of those who wait are shown, from the front.
pub(super) const SHOWN: usize = 100;

/// A lane that is not idle, as its broker knows it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LaneFacts {
    /// Which.
    pub name: LaneName,
    /// How many may run at a time.
    pub concurrency: u32,
    /// Whether that was set by hand.
    pub is_adjusted: bool,
    /// Those who are let in, in that order: they run, wait for a worker, or wait for their next attempt.
    pub holders: Vec<Holder<TaskId>>,
    /// How many wait.
    pub waiting: u64,
    /// The first of those who wait, at most a hundred; none in a list of lanes.
    pub next: Vec<Waiting>,
    /// Why nobody is let in, if so.
    pub blocked: Option<Block<TaskId>>,
}

/// One that waits for its lane.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Waiting {
    /// Its id.
    pub id: TaskId,
    /// Its task.
    pub task: String,
    /// Its queue.
    pub queue: String,
    /// When it was accepted.
    pub enqueued_at: Timestamp,
}

/// What can be changed about a lane by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LaneLever {
    /// Lets a blocked lane go on.
    Unblock,
    /// So many at a time from now on, whatever its runs state; with 0 nobody goes in. `None`: as they state.
    Concurrency(Option<u32>),
}

impl LaneFacts {
    pub(super) fn of(name: LaneName, lane: &Lane<TaskId>, next: Vec<Waiting>) -> Self {
        Self {
            name,
            concurrency: lane.limit(),
            is_adjusted: lane.is_adjusted(),
            holders: lane.holders().to_vec(),
            waiting: lane.waiting(),
            next,
            blocked: lane.blocked().cloned(),
        }
    }
}

impl Waiting {
    pub(super) fn of(message: &Message) -> Self {
        Self {
            id: message.id.clone(),
            task: message.task.clone(),
            queue: message.queue.clone(),
            enqueued_at: message.enqueued_at,
        }
    }
}

impl LaneLever {
    /// Whether it moved anything.
    pub(super) fn pull(self, lane: &mut Lane<TaskId>) -> bool {
        match self {
            Self::Unblock => lane.unblock(),
            Self::Concurrency(limit) => {
                lane.adjust(limit);
                true
            }
        }
    }
}

/// The lane that a message has to pass; a refused one passes none.
pub(super) fn lane_of(message: &Message) -> Option<&LaneName> {
    message.serial.as_deref().filter(|serial| serial.refusal.is_none()).map(|serial| &serial.lane)
}

/// The message on its way to be told that its lane does not take it.
pub(super) fn refused(mut message: Message, refusal: Refusal) -> Message {
    if let Some(serial) = &mut message.serial {
        serial.refusal = Some(refusal);
    }
    message
}

/// The message, which had to wait and is let in now.
pub(super) fn let_in(mut message: Message, now: Timestamp) -> Message {
    if let Some(serial) = &mut message.serial {
        serial.let_in_at = Some(now);
    }
    message
}

/// Why this end of a run blocks its lane, if it does.
pub(super) fn block_of(message: &Message, settle: &Settle) -> Option<String> {
    match settle {
        Settle::Ack { result: Some(result), .. } => blocks(message, Some(result)),
        Settle::DeadLetter { result, .. } => blocks(message, result.as_ref()),
        _ => None,
    }
}

/// As [`block_of`], of a run that ends with this record; without one it went to the dead letters.
pub(super) fn blocks(message: &Message, result: Option<&TaskResult>) -> Option<String> {
    let serial = message.serial.as_deref()?;
    let failed = result.is_none_or(|r| matches!(r.state, State::Failure | State::Rejected));
    let blocks = failed && serial.refusal.is_none() && serial.after_failure == AfterFailure::Block;
    blocks.then(|| result.map_or_else(|| "it is a dead letter".to_owned(), |r| r.errors.join(": ")))
}

/// The record that is to be kept. The end of a run that may block its lane comes with one even if none is.
pub(super) fn kept(message: &Message, result: Option<TaskResult>) -> Option<TaskResult> {
    result.filter(|result| !(message.ignore_result && message.serial.is_some()) || result.download.is_some())
}
