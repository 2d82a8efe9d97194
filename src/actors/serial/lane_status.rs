//! The status of a lane as operators see it: the broker's facts, with the runs that this process knows.

use serde::{Serialize, Serializer};

use crate::broker::Waiting;
use crate::core::Timestamp;
use crate::core::lane::Block;
use crate::task::TaskId;

/// A lane as it is now.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LaneStatus {
    /// The scope of the key: a task's name, or the scope that the tasks which share the key state.
    pub scope: String,
    /// The serial key of the lane.
    pub key: String,
    /// How many runs may go on at a time.
    pub concurrency: u32,
    /// Whether somebody has set that number by hand.
    pub is_adjusted: bool,
    /// The tasks that the lane has let in.
    pub holders: Vec<LaneHolder>,
    /// How many tasks wait for the lane.
    pub waiting: u64,
    /// The first of the waiting tasks, a hundred at most. It is empty in a list of lanes.
    pub next: Vec<Waiting>,
    /// Why a failure has blocked the lane, so that nobody is let in; `None`: it is not blocked.
    #[serde(serialize_with = "block")]
    pub blocked: Option<Block<TaskId>>,
}

/// A block in the form of the other statuses; its own is that of a store.
fn block<S: Serializer>(block: &Option<Block<TaskId>>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Shown<'a> {
        by: &'a TaskId,
        #[serde(serialize_with = "crate::core::json_time::iso")]
        since: Timestamp,
        reason: &'a str,
    }
    let shown =
        block.as_ref().map(|block| Shown { by: &block.by, since: block.since, reason: &block.reason });
    shown.serialize(serializer)
}

/// A task that the lane has let in: it runs, waits for a worker, or waits for its next attempt.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LaneHolder {
    /// The id of the task that holds the lane.
    pub id: TaskId,
    /// When the lane let it in.
    #[serde(serialize_with = "crate::core::json_time::iso")]
    pub since: Timestamp,
    /// Its run; `None`: it does not run in this process now.
    pub run: Option<LaneRun>,
}

/// A run in a lane, as the process that has it knows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LaneRun {
    /// The name of the task that runs.
    pub task: String,
    /// The worker that runs it, as `queue#slot`.
    pub worker: String,
    /// The time at which the run started.
    #[serde(serialize_with = "crate::core::json_time::iso")]
    pub started_at: Timestamp,
    /// Which attempt it is, counted from 1.
    pub attempt: u32,
    /// The run's fencing token, see [`Context::fencing_token`](crate::Context::fencing_token).
    pub fencing_token: Option<u64>,
}
