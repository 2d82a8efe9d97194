//! The states and the results of tasks.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{DownloadRecord, Json, Lineage, Message, TaskId};
use crate::core::Timestamp;

/// The state of a task, by Celery's names. One state is Celeriac's own: an id that nobody knows is
/// [`Unknown`](Self::Unknown), where Celery answers PENDING.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum State {
    /// No task of this id waits, runs or left a result.
    Unknown,
    /// The task waits in its queue or for its ETA.
    Pending,
    /// A queue has fetched the task and has not started it yet.
    Received,
    /// A worker runs it.
    Started,
    /// An attempt failed, and the task waits for the next one.
    Retry,
    /// The task returned a value.
    Success,
    /// The task failed for good.
    Failure,
    /// The task was revoked, or expired, before it ended.
    Revoked,
    /// The task could not be run at all (its name is unknown, its arguments do not decode, or its body rejected it).
    /// Its message is among the dead letters.
    Rejected,
    /// The task itself asked for its outcome to be ignored.
    Ignored,
}

impl State {
    /// Whether a task in this state is over. Celery's `READY_STATES`.
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Success | Self::Failure | Self::Revoked | Self::Rejected | Self::Ignored)
    }

    /// The state's name as Celery spells it.
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

/// The record of a task that is over. Finished is final: a record is written once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// The id of the task that is over.
    pub id: TaskId,
    /// The name of the task that is over.
    pub task: String,
    /// The queue that the task ran in.
    pub queue: String,
    /// The state in which the task ended, which is a finished one.
    pub state: State,
    /// The value that the task returned, as JSON. It is `None` unless the task succeeded.
    pub result: Option<String>,
    /// The reasons why the task failed, the outermost first.
    pub errors: Vec<String>,
    /// The Rust type of the error, or a name of Celeriac's such as `Panic`, `TimeLimitExceeded` or `WorkerLost`.
    pub error_type: Option<String>,
    /// The Python module in which Python looks for the error's type, such as `builtins`. It is `None` for a type that
    /// Python does not have.
    pub error_module: Option<String>,
    /// The arguments of the error's Python class, a list such as `["bad", 42]`, if they are others than the texts in
    /// `errors`.
    pub error_arguments: Option<Json>,
    /// The traceback of the error, as Python prints it.
    pub traceback: Option<String>,
    /// The number of runs that were started.
    pub attempts: u32,
    /// The time at which the task was accepted.
    pub enqueued_at: Timestamp,
    /// The time at which the last run started. It is `None` if the task never ran.
    pub started_at: Option<Timestamp>,
    /// The time at which the task ended.
    pub finished_at: Timestamp,
    /// The worker of the last run, as `queue#slot`.
    pub worker: Option<String>,
    /// The time at which the record expires.
    pub expires_at: Timestamp,
    /// The tasks and groups that are related to this task. It is `None` for a task that was sent on its own and has
    /// sent nothing.
    pub lineage: Option<Box<Lineage>>,
    /// The file that the task made for its user, if it succeeded and exposed one.
    pub download: Option<Box<DownloadRecord>>,
}

impl TaskResult {
    /// The record of a task that ended in `state` at `finished_at`, of which no more is known: it never ran, and it has
    /// no queue, no value and no errors. Who knows more fills that in:
    ///
    /// ```
    /// use celeriac::task::TaskResult;
    /// use celeriac::{State, TaskId};
    /// # let now = celeriac::core::Timestamp::from_millis(5_000);
    /// # let day = std::time::Duration::from_secs(24 * 3600);
    /// let result = TaskResult {
    ///     result: Some("42".to_owned()),
    ///     attempts: 1,
    ///     ..TaskResult::new(TaskId::new(), "app::answer", State::Success, now, now + day)
    /// };
    /// # assert_eq!(result.enqueued_at, now);
    /// ```
    pub fn new(
        id: TaskId,
        task: impl Into<String>,
        state: State,
        finished_at: Timestamp,
        expires_at: Timestamp,
    ) -> Self {
        Self {
            id,
            task: task.into(),
            queue: String::new(),
            state,
            result: None,
            errors: Vec::new(),
            error_type: None,
            error_module: None,
            error_arguments: None,
            traceback: None,
            attempts: 0,
            enqueued_at: finished_at,
            started_at: None,
            finished_at,
            worker: None,
            expires_at,
            lineage: None,
            download: None,
        }
    }

    /// The record of the task of this message, which ended in `state` at `finished_at`. The message says what the task
    /// is, when it was accepted and first started, how often it ran, and how long the record is kept. The record has no
    /// value, no errors and no relations.
    pub fn of(message: &Message, state: State, finished_at: Timestamp) -> Self {
        Self {
            queue: message.queue.clone(),
            attempts: message.tries(),
            enqueued_at: message.enqueued_at,
            started_at: message.first_started_at,
            ..Self::new(
                message.id.clone(),
                message.task.clone(),
                state,
                finished_at,
                finished_at + message.result_expires,
            )
        }
    }

    /// The mark that a task is revoked of which nothing else is known. It stands in a store until the task's own record
    /// takes its place.
    pub(crate) fn marked_revoked(id: TaskId, now: Timestamp, lifetime: Duration) -> Self {
        Self {
            errors: vec!["revoked".to_owned()],
            // In Celery's own words, because the task may be one of Celery's.
            error_type: Some("TaskRevokedError".to_owned()),
            error_module: Some("celery.exceptions".to_owned()),
            enqueued_at: Timestamp::ZERO,
            ..Self::new(id, "", State::Revoked, now, now + lifetime)
        }
    }

    /// Whether this is such a [mark](Self::marked_revoked), and not the record of a task.
    #[cfg(feature = "redis")]
    pub(crate) fn is_mark(&self) -> bool {
        self.state == State::Revoked
            && self.attempts == 0
            && self.task.is_empty()
            && self.enqueued_at == Timestamp::ZERO
    }
}
