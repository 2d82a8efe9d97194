//! What a task says of itself: Celery's task options, with our defaults.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::RetryPolicy;

/// How safe a waiting task is. The receipt of an enqueue says which one it got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Durability {
    /// On disk and synced before the receipt: survives `kill -9` and a power cut. The default.
    #[default]
    Disk,
    /// In this process's memory: gone with the process, and so much faster.
    Memory,
}

/// Where a task's body runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// An `async fn`: on the event loop of its queue's arbiter, where it must not block; on a blocking thread if the
    /// queue's pool is `cpu`.
    Io,
    /// A plain `fn`: on a blocking thread, where it may compute for hours without starving anybody's timer.
    Cpu,
}

/// The options of a task, as its attribute gives them; a call may override most of them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TaskOptions {
    /// The queue; `None` is the catalogue's default queue.
    pub queue: Option<String>,
    /// 0 to 255, higher goes first, as in RabbitMQ. Default 0.
    pub priority: u8,
    /// When and how often a failed attempt is tried again.
    pub retry: RetryPolicy,
    /// Whether an error is retried at all; Celery's `autoretry_for`. Default true.
    pub autoretry: bool,
    /// `true` (default): settled when the body has ended, so a crash means another run. `false`: settled before
    /// the body starts, so a crash means no run; at most once.
    pub acks_late: bool,
    /// After this long the body is told to end (`Context::check`).
    pub soft_time_limit: Option<Duration>,
    /// After this long the task is failed and its worker slot given back.
    pub time_limit: Option<Duration>,
    /// Not started this long after the enqueue: revoked instead of run.
    pub expires: Option<Duration>,
    /// Do not keep the result. Failures still go to the log and the counters.
    pub ignore_result: bool,
    /// Tell the result store when a body starts (STARTED), so that other programs can see it. Costs a write for each run.
    /// Default false, as Celery's `task_track_started`; this program itself always knows.
    pub track_started: bool,
    /// How long a result is kept. Default one day, as Celery's `result_expires`.
    pub result_expires: Duration,
    /// Disk (default) or memory.
    pub durability: Durability,
}

impl Default for TaskOptions {
    fn default() -> Self {
        Self {
            queue: None,
            priority: 0,
            retry: RetryPolicy::default(),
            autoretry: true,
            acks_late: true,
            soft_time_limit: None,
            time_limit: None,
            expires: None,
            ignore_result: false,
            track_started: false,
            result_expires: Duration::from_secs(24 * 60 * 60),
            durability: Durability::Disk,
        }
    }
}
