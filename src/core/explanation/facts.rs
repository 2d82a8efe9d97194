//! What is known of one task at one moment: whoever asks the store, the broker, the queue and the lane fills it in.
//!
//! What is not filled in is not known, and nothing is concluded from it.

use serde::Serialize;

use crate::core::Timestamp;
use crate::core::forecast::StartForecast;
use crate::core::hold::Hold;

/// What is known of one task.
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
    /// When this was looked up.
    pub as_of: Timestamp,
    /// Who was asked.
    pub scope: ExplanationScope,
    /// How the task ended, if it is over.
    pub over: Option<EndFacts>,
    /// Its run, if it runs.
    pub run: Option<RunFacts>,
    /// The other program that has it, and has not started it.
    pub elsewhere: Option<ElsewhereFacts>,
    /// What it waits for, if it waits.
    pub wait: Option<WaitFacts>,
    /// Whether it is on its way from the broker to its queue, or back.
    pub is_moving: bool,
    /// The last state that the store was told of a task that nobody here has.
    pub told: Option<String>,
    /// When it will start, as its queue forecasts it.
    pub forecast: Option<StartForecast>,
}

/// Who was asked about a task, and what nobody could say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExplanationScope {
    /// The name by which the fleet knows the program that answers, if it is in one.
    pub node: Option<String>,
    /// Who has answered, such as `store`, ``queue `email` ``.
    pub asked: Vec<String>,
    /// Who was asked and has not answered in time.
    pub silent: Vec<String>,
    /// What cannot be known here, in whole sentences.
    pub cannot_know: Vec<String>,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndFacts {
    /// The state, by Celery's name.
    pub state: String,
    /// When it ended.
    pub at: Timestamp,
}

/// A run that goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFacts {
    /// When it started, if that is known.
    pub since: Option<Timestamp>,
    /// Who runs it: a worker here as `queue#slot`, or the name of another node.
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

/// What a task waits for.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct WaitFacts {
    /// The time before which it must not start, if that is ahead.
    pub due: Option<Timestamp>,
    /// How many runs of it have failed or crashed.
    pub tries: u32,
    /// Whether an operator has paused its queue.
    pub pause: Option<PauseFacts>,
    /// The gates that hold it now.
    pub holds: Vec<Hold>,
    /// Whether the task has a lane, if that is known.
    pub is_serial: Option<bool>,
    /// The lane that has not let it in.
    pub lane: Option<LaneWait>,
    /// How many tasks start before it, by the rule that decides what its queue starts next.
    pub ahead: Option<BoundedCount>,
    /// How many of those are of its own tenant.
    pub ahead_of_tenant: Option<u64>,
    /// Whether the store has still to say that it is not revoked.
    pub is_unchecked: bool,
    /// How its queue stands.
    pub service: Service,
}

/// A pause of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PauseFacts {
    /// Who paused it, if that is known.
    pub by: Option<String>,
    /// When it ends by itself. `None`: when somebody ends it.
    pub until: Option<Timestamp>,
    /// Whether it holds after a restart, too.
    pub is_kept: bool,
}

/// A lane that has not let a task in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneWait {
    /// The scope of its key: a task's name, unless the tasks that share it state another.
    pub scope: String,
    /// The serial key.
    pub key: String,
    /// How many it lets in at a time.
    pub concurrency: u32,
    /// Who is in, and since when.
    pub holders: Vec<(String, Timestamp)>,
    /// How many wait for it before this task.
    pub ahead: BoundedCount,
    /// The failure that has blocked it, if it is blocked: of which task, when, and with which error.
    pub blocked: Option<(String, Timestamp, String)>,
}

/// A number that was counted up to a bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BoundedCount {
    /// What was counted.
    pub count: u64,
    /// Whether there may be more than that.
    pub or_more: bool,
}

/// How the queue of a task stands.
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
    /// How many tasks it runs.
    pub running: usize,
    /// How many of its workers could take a task now.
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
