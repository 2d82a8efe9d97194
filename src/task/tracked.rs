//! The state of a task that is not over.

use serde::{Deserialize, Serialize};

use super::{Json, Lineage, TaskId};

/// The state of a task that is not over, as Celery's `update_state(state, meta)` sets it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrackedState {
    /// The id of the task that reports its state.
    pub id: TaskId,
    /// The name of the state: `STARTED`, `RETRY`, or a name of the application's such as `PROGRESS`.
    pub state: String,
    /// The data that belongs to the state: the worker of `STARTED`, the error of `RETRY`, or what the application gave.
    pub meta: Json,
    /// The traceback of a `RETRY`.
    pub traceback: Option<String>,
    /// The tasks and groups that are related to this task.
    pub lineage: Option<Box<Lineage>>,
}
