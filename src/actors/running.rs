//! What the operator sees of a task that runs just now. A worker makes a [`RunningTask`] of its run when somebody asks; the queue
//! adds the bodies that are stuck.

use std::time::Duration;

use serde::Serialize;

use crate::catalogue::Pool;
use crate::core::Timestamp;
use crate::runtime::own_process::own_pid;
use crate::task::{Context, Interrupt, TaskId};

/// A task that runs just now, as its worker knows it. Celery's `inspect active` answers with one entry for each.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct RunningTask {
    /// The id of the task that runs.
    pub id: TaskId,
    /// The name of the task that runs.
    pub task: String,
    /// The queue that the task came through.
    pub queue: String,
    /// The worker that runs the task, as `queue#slot`.
    pub worker: String,
    /// The time at which this run started.
    #[serde(serialize_with = "crate::core::json_time::iso")]
    pub started_at: Timestamp,
    /// Which attempt this is, counted from 1.
    pub attempt: u32,
    /// The time from the start after which the body is told to end; `None`: the task has no soft limit.
    #[serde(rename = "soft_time_limit_ms", serialize_with = "crate::core::json_time::optional_millis")]
    pub soft_time_limit: Option<Duration>,
    /// The time from the start after which the run is given up; `None`: the task has no hard limit.
    #[serde(rename = "time_limit_ms", serialize_with = "crate::core::json_time::optional_millis")]
    pub time_limit: Option<Duration>,
    /// The pool in which the body runs, which says how it can be interrupted. `io` is the event loop: a body that is to end is
    /// dropped at the point where it waits. `cpu` is a thread: the body is told to end
    /// ([`Context::interrupt`](crate::Context::interrupt)), and its return is waited for. `process` is a child process: the body
    /// is told to end, and its process is killed if it has to.
    pub pool: &'static str,
    /// The id of the process that runs the body: this one, or a child of its process pool.
    pub pid: u32,
    /// Why the body was told to end; `None`: it was not.
    pub interrupt: Option<Interrupt>,
    /// The run was given up, but its body on a thread could not be stopped: the body goes on, and what it returns is
    /// refused. Its worker may run another task by now.
    pub is_stuck: bool,
}

impl RunningTask {
    /// A stuck body whose run started at `started_at`.
    pub(super) fn stuck(context: &Context, started_at: Timestamp) -> Self {
        Self { is_stuck: true, ..Self::new(context, started_at, Pool::Cpu) }
    }

    /// A run in this process, with the time limits of its call.
    pub(super) fn new(context: &Context, started_at: Timestamp, pool: Pool) -> Self {
        let message = context.message();
        Self {
            id: message.id.clone(),
            task: message.task.clone(),
            queue: message.queue.clone(),
            worker: context.worker().to_owned(),
            started_at: context.began_at(started_at),
            attempt: context.attempt(),
            soft_time_limit: message.soft_time_limit,
            time_limit: message.time_limit,
            pool: pool.as_str(),
            pid: own_pid(),
            interrupt: context.interrupt(),
            is_stuck: false,
        }
    }
}
