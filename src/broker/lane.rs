//! Lanes as brokers show them, and the rules that all brokers with lanes share.

use async_trait::async_trait;

use crate::core::Timestamp;
use crate::core::lane::{AfterFailure, Block, Holder, Lane};
use crate::task::{LaneName, Message, Refusal, State, TaskId, TaskResult};

use super::{BrokerError, Settle};

/// The most waiting runs of a lane that are shown, from the front.
pub(super) const SHOWN: usize = 100;

/// An ability of brokers: they keep serial tasks in their lanes.
#[async_trait]
pub trait Lanes: Send + Sync {
    /// The facts of a lane; `None`: no run is in it or waits for it, and nothing was set for it.
    ///
    /// # Errors
    /// The broker is closed or cannot be reached.
    async fn lane(&self, lane: &LaneName) -> Result<Option<LaneFacts>, BrokerError>;

    /// The lanes that are not idle, by name, up to `limit`.
    ///
    /// # Errors
    /// The broker is closed or cannot be reached.
    async fn busy_lanes(&self, limit: usize) -> Result<Vec<LaneFacts>, BrokerError>;

    /// Moves a lever of a lane, and starts the runs that may start because of that. `false`: there was nothing to
    /// be moved.
    ///
    /// # Errors
    /// The broker is closed or cannot be reached.
    async fn steer_lane(&self, lane: &LaneName, lever: LaneLever) -> Result<bool, BrokerError>;
}

/// A lane that is not idle, as its broker knows it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LaneFacts {
    /// The name of the lane.
    pub name: LaneName,
    /// How many runs of the lane may be in at a time.
    pub concurrency: u32,
    /// Whether that number was set by hand.
    pub is_adjusted: bool,
    /// The runs that are let in, in that order: they run, wait for a worker, or wait for their next attempt.
    pub holders: Vec<Holder<TaskId>>,
    /// The number of runs that wait.
    pub waiting: u64,
    /// The first runs that wait, at most a hundred; empty in a list of lanes.
    pub next: Vec<Waiting>,
    /// Why no run is let in, if the lane is blocked.
    pub blocked: Option<Block<TaskId>>,
}

/// A run that waits for its lane.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Waiting {
    /// The id of its task.
    pub id: TaskId,
    /// The name of its task.
    pub task: String,
    /// The name of its queue.
    pub queue: String,
    /// The time at which the broker accepted the task.
    #[serde(serialize_with = "crate::core::json_time::iso")]
    pub enqueued_at: Timestamp,
}

/// A change to a lane that can be made by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LaneLever {
    /// Lets a blocked lane go on.
    Unblock,
    /// Sets how many runs are let in at a time, whatever the runs state; with 0 none is. `None`: the number that
    /// they state applies again.
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
    /// Applies the lever to a lane. Says whether it changed anything.
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

/// Marks a message as refused by its lane, so that it goes on to be told so.
pub(super) fn refused(mut message: Message, refusal: Refusal) -> Message {
    if let Some(serial) = &mut message.serial {
        serial.refusal = Some(refusal);
    }
    message
}

/// Marks a message that had to wait as let in now.
pub(super) fn let_in(mut message: Message, now: Timestamp) -> Message {
    if let Some(serial) = &mut message.serial {
        serial.let_in_at = Some(now);
    }
    message
}

/// The reason for which the lane is blocked by this end of a run; `None`: it is not.
pub(super) fn block_of(message: &Message, settle: &Settle) -> Option<String> {
    match settle {
        Settle::Ack { result: Some(result), .. } => blocks(message, Some(result)),
        Settle::Fail { result: Some(result), .. } => blocks(message, Some(result)),
        Settle::DeadLetter { result, .. } => blocks(message, result.as_ref()),
        _ => None,
    }
}

/// As [`block_of`], for a run that ends with this record; without a record it became a dead letter.
pub(super) fn blocks(message: &Message, result: Option<&TaskResult>) -> Option<String> {
    let serial = message.serial.as_deref()?;
    let failed = result.is_none_or(|r| matches!(r.state, State::Failure | State::Rejected));
    let blocks = failed && serial.refusal.is_none() && serial.after_failure == AfterFailure::Block;
    blocks.then(|| result.map_or_else(|| "it is a dead letter".to_owned(), |r| r.errors.join(": ")))
}

/// The record to keep. The end of a run that may block its lane has a record even if the task's record is not
/// kept.
pub(super) fn kept(message: &Message, result: Option<TaskResult>) -> Option<TaskResult> {
    result.filter(|result| !(message.ignore_result && message.serial.is_some()) || result.download.is_some())
}
