//! What became of a task: states and results.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{DownloadRecord, Lineage, TaskId};
use crate::core::Timestamp;

/// Celery's task states. Ours differ in one thing: an id that nobody knows is [`Unknown`](Self::Unknown), where
/// Celery says PENDING for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum State {
    /// No task of this id waits, runs or left a result.
    Unknown,
    /// Waiting in its queue, or for its ETA.
    Pending,
    /// Fetched by a queue, not started yet.
    Received,
    /// A worker runs it.
    Started,
    /// An attempt failed; the next one waits.
    Retry,
    /// It returned.
    Success,
    /// It failed for good.
    Failure,
    /// It was revoked, or expired, before it ended.
    Revoked,
    /// It could not be run at all (unknown task, arguments that do not decode, rejected by its body) and lies in
    /// the dead letters.
    Rejected,
    /// It said itself that its outcome is to be ignored.
    Ignored,
}

impl State {
    /// Whether a task in this state is over. Celery's `READY_STATES`.
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Success | Self::Failure | Self::Revoked | Self::Rejected | Self::Ignored)
    }

    /// Celery's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Pending => "PENDING",
            Self::Received => "RECEIVED",
            Self::Started => "STARTED",
            Self::Retry => "RETRY",
            Self::Success => "SUCCESS",
            Self::Failure => "FAILURE",
            Self::Revoked => "REVOKED",
            Self::Rejected => "REJECTED",
            Self::Ignored => "IGNORED",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The record of a task that is over. Finished is final: it is written once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// Whose.
    pub id: TaskId,
    /// The task's name.
    pub task: String,
    /// The queue it ran in.
    pub queue: String,
    /// A finished state.
    pub state: State,
    /// What it returned, as JSON; `None` unless it succeeded.
    pub result: Option<String>,
    /// Why it failed, outermost first.
    pub errors: Vec<String>,
    /// The Rust type of the error, or one of ours such as `Panic`, `TimeLimitExceeded`, `WorkerLost`.
    pub error_type: Option<String>,
    /// The module that Python is to look for the error's type in, such as `builtins`; `None`: nowhere.
    pub error_module: Option<String>,
    /// Where the error came from, as Python prints it.
    pub traceback: Option<String>,
    /// How many runs were started.
    pub attempts: u32,
    /// When it was accepted.
    pub enqueued_at: Timestamp,
    /// When its last run started; `None` if it never ran.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
    /// The worker of its last run, `queue#slot`.
    pub worker: Option<String>,
    /// When the record goes.
    pub expires_at: Timestamp,
    /// Where it stood among others; `None` for a task that was sent on its own and sent nothing.
    pub lineage: Option<Box<Lineage>>,
    /// The file that it made for its user, if it succeeded and exposed one.
    pub download: Option<Box<DownloadRecord>>,
}
