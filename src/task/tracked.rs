//! The state of a task that is not over.

use serde_json::Value;

use super::{Lineage, TaskId};

/// The state of a task that is not over, as Celery's `update_state(state, meta)` sets it.
#[derive(Clone, Debug, PartialEq)]
pub struct TrackedState {
    /// Whose.
    pub id: TaskId,
    /// `STARTED`, `RETRY`, or a name of the application's such as `PROGRESS`.
    pub state: String,
    /// What goes with it: for `STARTED` the worker, for `RETRY` the error, else what the application gave.
    pub meta: Value,
    /// The traceback of a `RETRY`.
    pub traceback: Option<String>,
    /// Where the task stands among others.
    pub lineage: Option<Box<Lineage>>,
}
