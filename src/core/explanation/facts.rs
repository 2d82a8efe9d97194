//! What is known of one task at one moment: whoever asks the store, the broker, the queue and the lane fills it in.
//!
//! What is not filled in is not known, and nothing is concluded from it.

use serde::Serialize;

use crate::core::Timestamp;
use crate::core::forecast::StartForecast;
use crate::core::hold::Hold;

/// The facts that are known of one task.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TaskFacts {
    /// The id of the task.
    pub id: String,
    /// The name of the task.
    pub task: Option<String>,
    /// The physical name of its queue.
    pub queue: Option<String>,
    /// Its tenant, if its call states one.
    pub tenant: Option<String>,
    /// The queue that it was for, if it went to this one because its tenant had sent more than that one takes from one.
    pub demoted_from: Option<String>,
    /// The time at which the facts were looked up.
    pub as_of: Timestamp,
    /// The programs that were asked.
    pub scope: ExplanationScope,
    /// The end of the task, if it is over.
    pub over: Option<EndFacts>,
    /// Its run, if it runs.
    pub run: Option<RunFacts>,
    /// The other program that has it, and has not started it.
    pub elsewhere: Option<ElsewhereFacts>,
    /// The facts about its waiting, if the task waits.
    pub wait: Option<WaitFacts>,
    /// Whether it is on its way from the broker to its queue, or back.
    pub is_moving: bool,
    /// The last state that the store was told of a task that nobody here has.
    pub told: Option<String>,
    /// The forecast of its queue of when the task will start.
    pub forecast: Option<StartForecast>,
}

/// The scope of an explanation: who was asked about a task, and what nobody could say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExplanationScope {
    /// The name by which the fleet knows the program that answers, if it is in one.
    pub node: Option<String>,
    /// The places that have answered, such as `store`, ``queue `email` ``.
    pub asked: Vec<String>,
    /// The places that were asked and have not answered in time.
    pub silent: Vec<String>,
    /// The facts that cannot be known here, in whole sentences.
    pub cannot_know: Vec<String>,
}

/// The facts about the end of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndFacts {
    /// The state, by Celery's name.
    pub state: String,
    /// The time at which the task ended.
    pub at: Timestamp,
}

/// A run that goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFacts {
    /// The time at which the run started, if that is known.
    pub since: Option<Timestamp>,
    /// The runner of the task: a worker here as `queue#slot`, or the name of another node.
    pub worker: Option<String>,
    /// Which attempt it is, counted from 1.
    pub attempt: Option<u32>,
}

/// A worker of another kind that has a task, and does not say why the task does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElsewhereFacts {
    /// The name of its node.
    pub node: String,
    /// In which way it has the task, in Celery's words: `reserved` or `scheduled`.
    pub how: String,
}

/// The facts about a task that waits.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct WaitFacts {
    /// The time before which it must not start, if that is ahead.
    pub due: Option<Timestamp>,
    /// The number of its runs that have failed or crashed.
    pub tries: u32,
    /// Whether an operator has paused its queue.
    pub pause: Option<PauseFacts>,
    /// The gates that hold it now.
    pub holds: Vec<Hold>,
    /// Whether the task has a lane, if that is known.
    pub is_serial: Option<bool>,
    /// The lane that has not let it in.
    pub lane: Option<LaneWait>,
    /// The number of tasks that start before it, by the rule that decides what its queue starts next.
    pub ahead: Option<BoundedCount>,
    /// The number of those that are of its own tenant.
    pub ahead_of_tenant: Option<u64>,
    /// Whether the store has still to say that it is not revoked.
    pub is_unchecked: bool,
    /// The state of the queue of the task.
    pub service: Service,
}

/// A pause of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PauseFacts {
    /// The operator who paused the queue, if that is known.
    pub by: Option<String>,
    /// The time at which the pause ends by itself. `None`: it lasts until somebody ends it.
    pub until: Option<Timestamp>,
    /// Whether it holds after a restart, too.
    pub is_kept: bool,
}

/// A lane that has not let a task in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneWait {
    /// The scope of its key: a task's name, unless the tasks that share it state another.
    pub scope: String,
    /// The serial key of the lane.
    pub key: String,
    /// The number of runs that the lane lets in at a time.
    pub concurrency: u32,
    /// The tasks that are in the lane, each with the time since when.
    pub holders: Vec<(String, Timestamp)>,
    /// The number of tasks that wait for the lane before this one.
    pub ahead: BoundedCount,
    /// The failure that has blocked it, if it is blocked: of which task, when, and with which error.
    pub blocked: Option<(String, Timestamp, String)>,
}

/// A number that was counted up to a bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BoundedCount {
    /// The number of tasks that were counted.
    pub count: u64,
    /// Whether there may be more than that.
    pub or_more: bool,
}

/// The state of the queue of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Service {
    /// Nobody was asked.
    #[default]
    Unasked,
    /// It is served here.
    Here(QueueState),
    /// It is served here, and has not answered in time.
    Silent,
    /// It is not served here.
    NotHere(NotServed),
    /// The program is about to end, and its queues are gone.
    Ended,
}

/// A queue that is served here, as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueState {
    /// The number of its worker slots.
    pub workers: usize,
    /// The number of tasks that the queue runs.
    pub running: usize,
    /// The number of its workers that could take a task now.
    pub idle: usize,
    /// Why it has stopped itself, if it has.
    pub halted: Option<String>,
    /// Whether a shutdown has begun.
    pub is_draining: bool,
    /// Whether it was told to take nothing from the broker.
    pub is_cancelled: bool,
    /// The slots of the pool that it shares with other queues, if all of them are taken.
    pub busy_pool: Option<usize>,
}

/// Why a queue is not served here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NotServed {
    /// Its row of the catalogue says that other programs serve it.
    ByCatalogue,
    /// This program has no such queue.
    NoSuchQueue,
    /// It was told to take nothing from the broker.
    Cancelled,
    /// The program of this store does not run.
    ProgramStopped,
}

impl TaskFacts {
    /// A task of which nothing is known but its id.
    pub fn new(id: impl Into<String>, as_of: Timestamp) -> Self {
        Self {
            id: id.into(),
            task: None,
            queue: None,
            tenant: None,
            demoted_from: None,
            as_of,
            scope: ExplanationScope::default(),
            over: None,
            run: None,
            elsewhere: None,
            wait: None,
            is_moving: false,
            told: None,
            forecast: None,
        }
    }
}

impl BoundedCount {
    /// A number that is exact.
    pub const fn exactly(count: u64) -> Self {
        Self { count, or_more: false }
    }
}
