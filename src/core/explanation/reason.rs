//! The reasons why a task does not run, in the order in which they are looked at: the first that applies is *the* reason.

use std::time::Duration;

use serde::{Serialize, Serializer};

use super::facts::{BoundedCount, NotServed};
use crate::core::Timestamp;
use crate::core::hold::HoldReason;

/// Why a task does not run; or that it runs, is over, or is not known. In JSON the name of the reason is in `code`, beside
/// its facts.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
#[non_exhaustive]
pub enum TaskReason {
    /// It must not start before a time: its ETA, or the end of a postponement.
    NotDue {
        /// The time.
        #[serde(serialize_with = "crate::core::json_time::iso")]
        at: Timestamp,
    },
    /// An attempt has failed, and the next one is not due.
    RetryAt {
        /// Which attempt the next one is, counted from 1.
        attempt: u32,
        /// When it is due.
        #[serde(serialize_with = "crate::core::json_time::iso")]
        at: Timestamp,
    },
    /// An operator has paused its queue.
    Paused {
        /// Who has, if that is known.
        by: Option<String>,
        /// When the pause ends by itself. `None`: when somebody ends it.
        #[serde(serialize_with = "crate::core::json_time::optional_iso")]
        until: Option<Timestamp>,
        /// Whether it holds after a restart, too.
        is_kept: bool,
    },
    /// Something holds it although a worker may be free: a rate limit, a brake, a limit.
    Held {
        /// What.
        #[serde(serialize_with = "code_of_hold")]
        hold: HoldReason,
        /// How long until that may be over by itself. `None`: when somebody takes it away.
        #[serde(rename = "wait_ms", serialize_with = "crate::core::json_time::optional_millis")]
        wait: Option<Duration>,
    },
    /// A failure has blocked its lane.
    LaneBlocked {
        /// The scope of the serial key.
        scope: String,
        /// The serial key.
        key: String,
        /// The task that failed.
        by: String,
        /// Since when the lane is blocked.
        #[serde(serialize_with = "crate::core::json_time::iso")]
        since: Timestamp,
        /// The error.
        error: String,
    },
    /// Its lane has as many runs as it lets in.
    LaneBusy {
        /// The scope of the serial key.
        scope: String,
        /// The serial key.
        key: String,
        /// How many wait for the lane before it.
        ahead: BoundedCount,
        /// How many the lane lets in at a time.
        concurrency: u32,
        /// The task that is in for the longest time.
        holder: Option<String>,
        /// Since when that one is in.
        #[serde(serialize_with = "crate::core::json_time::optional_iso")]
        since: Option<Timestamp>,
    },
    /// Nobody here takes tasks from its queue.
    NotServed {
        /// Why not.
        why: NotServed,
    },
    /// Its queue does not say how it stands.
    NotAnswering,
    /// The program is shutting down.
    Draining,
    /// Its queue has stopped itself, because its workers died too often.
    Halted {
        /// What the queue says of it.
        why: String,
    },
    /// The store has not said yet whether it is revoked.
    StoreAsked,
    /// All workers of its queue have a task.
    QueueFull {
        /// How many there are.
        workers: usize,
    },
    /// The workers of its queue that have no task are not ready: they are being started.
    WorkersStarting {
        /// How many there are.
        workers: usize,
    },
    /// Others go before it.
    Behind {
        /// How many, by the rule that decides what its queue starts next: that of its pool, if it gets its slots from one.
        ahead: BoundedCount,
        /// How many of those are of its own tenant, if that is known.
        of_tenant: Option<u64>,
    },
    /// All slots of the pool that its queue shares with others are taken.
    SlotsBusy {
        /// How many there are.
        slots: usize,
    },
    /// Its tenant had sent more than a queue takes from one, so it went to this queue. It is never the first reason.
    Demoted {
        /// The queue that it was for.
        from: String,
    },
    /// Nothing keeps it from starting: it starts within moments.
    Starting,
    /// It is on its way between the broker and its queue.
    Moving,
    /// A worker of another kind has it, and does not say why it does not run.
    Elsewhere {
        /// The name of the worker's node.
        node: String,
        /// In which way it has the task, in Celery's words: `reserved` or `scheduled`.
        how: String,
    },
    /// It runs.
    Running {
        /// Since when, if that is known.
        #[serde(serialize_with = "crate::core::json_time::optional_iso")]
        since: Option<Timestamp>,
        /// Who runs it.
        worker: Option<String>,
        /// Which attempt it is, counted from 1.
        attempt: Option<u32>,
    },
    /// It is over.
    Over {
        /// Its state, by Celery's name.
        state: String,
        /// When it ended.
        #[serde(serialize_with = "crate::core::json_time::iso")]
        at: Timestamp,
    },
    /// Nobody who was asked has it.
    Unknown {
        /// The last state that the store was told of it.
        told: Option<String>,
    },
}

impl TaskReason {
    /// The name of the reason, as in JSON.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotDue { .. } => "not_due",
            Self::RetryAt { .. } => "retry_at",
            Self::Paused { .. } => "paused",
            Self::Held { .. } => "held",
            Self::LaneBlocked { .. } => "lane_blocked",
            Self::LaneBusy { .. } => "lane_busy",
            Self::NotServed { .. } => "not_served",
            Self::NotAnswering => "not_answering",
            Self::Draining => "draining",
            Self::Halted { .. } => "halted",
            Self::StoreAsked => "store_asked",
            Self::QueueFull { .. } => "queue_full",
            Self::WorkersStarting { .. } => "workers_starting",
            Self::Behind { .. } => "behind",
            Self::SlotsBusy { .. } => "slots_busy",
            Self::Demoted { .. } => "demoted",
            Self::Starting => "starting",
            Self::Moving => "moving",
            Self::Elsewhere { .. } => "elsewhere",
            Self::Running { .. } => "running",
            Self::Over { .. } => "over",
            Self::Unknown { .. } => "unknown",
        }
    }
}

fn code_of_hold<S: Serializer>(hold: &HoldReason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(hold.code())
}

/// A reason that was looked at and does not apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RuledOut {
    /// It is due.
    NotDue,
    /// Its queue is not paused.
    Paused,
    /// No rate limit, brake or limit holds it.
    Held,
    /// Its lane has let it in, or it has none.
    Lane {
        /// Whether it has a lane.
        is_serial: bool,
    },
    /// Its queue is served here, and answers.
    NotServed,
    /// The program is not shutting down.
    Draining,
    /// Its queue has not stopped itself.
    Halted,
    /// Workers of its queue are free.
    QueueFull {
        /// How many.
        idle: usize,
    },
    /// Nobody goes before it, or fewer than there are free workers.
    Behind,
}

impl RuledOut {
    /// The name of the reason that does not apply, as in JSON.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotDue => "not_due",
            Self::Paused => "paused",
            Self::Held => "held",
            Self::Lane { .. } => "lane_busy",
            Self::NotServed => "not_served",
            Self::Draining => "draining",
            Self::Halted => "halted",
            Self::QueueFull { .. } => "queue_full",
            Self::Behind => "behind",
        }
    }
}
