//! The options of a task: Celery's task options, with Celeriac's defaults.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::RetryPolicy;
use crate::core::start_limit::{Breaker, RateScope};
use crate::core::token_bucket::RateLimit;

/// The place where a waiting task is kept, and so how safe it is. The receipt of an enqueue states it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Durability {
    /// The task is on disk and synced before the receipt, so it survives `kill -9` and a power cut. This is the
    /// default.
    #[default]
    Disk,
    /// The task is in the memory of this process. It is gone with the process, and enqueuing is much faster.
    Memory,
}

/// The kind of thread on which a task's body runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// The body is an `async fn`. It runs on the event loop of its queue's arbiter, where it must not block; if the
    /// queue's pool is `cpu`, it runs on a blocking thread, and if it is `process`, in a child process.
    Io,
    /// The body is a plain `fn`. It runs on a blocking thread, or in a child process, where it may compute for hours
    /// without starving anybody's timer.
    Cpu,
}

/// The options of a task, as its attribute states them. A call may override most of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TaskOptions {
    /// The name of the queue. `None` stands for the catalogue's default queue.
    pub queue: Option<String>,
    /// The priority, from 0 to 255. The highest goes first, as in RabbitMQ; the default is 0.
    pub priority: u8,
    /// The policy that says when and how often a failed attempt is tried again.
    pub retry: RetryPolicy,
    /// Whether an error is retried at all: Celery's `autoretry_for`. The default is true.
    pub autoretry: bool,
    /// Whether the message is settled after the body has ended. With `true`, the default, a crash leads to another run.
    /// With `false` the message is settled before the body starts, so a crash leads to no run: the task runs at most
    /// once.
    pub acks_late: bool,
    /// Whether a task that has failed for good, or passed its hard limit, leaves its queue for good. The default is
    /// true, as for Celery. With `false` its message goes to the dead letters, from where it can be put back; the record says
    /// FAILURE all the same. It holds for tasks that are settled after their run.
    pub acks_on_failure_or_timeout: bool,
    /// The time after which the runtime tells the body to end (`Context::check`).
    pub soft_time_limit: Option<Duration>,
    /// The time after which the runtime fails the task and takes back its worker slot.
    pub time_limit: Option<Duration>,
    /// The time from the enqueue after which a task that has not started is revoked.
    pub expires: Option<Duration>,
    /// Whether the result is thrown away. Failures still go to the log and the counters.
    pub ignore_result: bool,
    /// Whether failures, retries and revocations are kept even if the result is thrown away. The default is false, as
    /// for Celery. It has no effect on serial tasks.
    pub store_errors_even_if_ignored: bool,
    /// Whether the result store is told when a body starts (STARTED), so that other programs can see it. It costs a
    /// write for each run. The default is false, as for Celery's `task_track_started`; this program itself always
    /// knows.
    pub track_started: bool,
    /// How long a result is kept. The default is one day, as for Celery's `result_expires`.
    pub result_expires: Duration,
    /// Whether a waiting task is kept on disk (the default) or in memory.
    pub durability: Durability,
    /// Whether a call waits until RabbitMQ has confirmed its message. The default is true, and nothing that was accepted is
    /// lost. With `false` a call is accepted when its message is written to the connection. The task is then lost if the
    /// connection, RabbitMQ or this process ends a moment later, if RabbitMQ refuses the message, or if its queue was deleted;
    /// nobody is told. The receipt says [`Durability::Memory`]. Such calls keep their order among themselves, and not beside
    /// those with a confirm. It has no effect on steps of a canvas, on serial tasks, and on calls with a unique window or a
    /// permit that is handed over. Brokers in this process do not look at it.
    pub confirm: bool,
    /// How many runs of the task start in each process at most, evenly spread: Celery's `rate_limit`. What may not start
    /// yet waits in its queue, takes no worker slot, and holds up no other task. `None`, the default, is no limit.
    /// Remote control changes it while the program runs. It belongs to the task and is no part of a call, so it is not
    /// serialized.
    #[serde(skip)]
    pub rate_limit: Option<RateLimit>,
    /// Who counts the rate together. `None`: each process by itself, or the whole cluster if the rate has a key.
    #[serde(skip)]
    pub rate_scope: Option<RateScope>,
    /// How many runs of the task, or of one key of it, are under way in each process at most. `None`, the default, is no limit.
    /// What may not start yet waits in its queue, takes no worker slot, and holds up no other task.
    #[serde(skip)]
    pub max_running: Option<u32>,
    /// When the task, or one key of it, pauses because of its errors. `None`, the default, is never.
    #[serde(skip)]
    pub breaker: Option<Breaker>,
    /// Whether events are sent of what happens to the task: Celery's `send_events`. The default is true. Events that
    /// a body [sends itself](crate::Context::send_event) are sent in any case.
    pub send_events: bool,
    /// Whether the log lines of a failed attempt are kept with it, in programs that keep them
    /// (`celeriac::log_lines`, feature `log-lines`). The default is true.
    pub keep_log: bool,
    /// What the task states itself, so that the program's defaults do not hold for it.
    #[doc(hidden)]
    pub stated: StatedOptions,
}

/// Whether a task states these options itself. The attribute macro fills it in.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatedOptions {
    pub acks_late: bool,
    pub autoretry: bool,
    pub max_retries: bool,
    pub retry_delay: bool,
    pub retry_backoff: bool,
    pub retry_backoff_max: bool,
    pub retry_jitter: bool,
    pub result_expires: bool,
    pub rate_limit: bool,
}

impl Default for TaskOptions {
    fn default() -> Self {
        Self {
            queue: None,
            priority: 0,
            retry: RetryPolicy::default(),
            autoretry: true,
            acks_late: true,
            acks_on_failure_or_timeout: true,
            soft_time_limit: None,
            time_limit: None,
            expires: None,
            ignore_result: false,
            store_errors_even_if_ignored: false,
            track_started: false,
            result_expires: Duration::from_secs(24 * 60 * 60),
            durability: Durability::Disk,
            confirm: true,
            rate_limit: None,
            rate_scope: None,
            max_running: None,
            breaker: None,
            send_events: true,
            keep_log: true,
            stated: StatedOptions::default(),
        }
    }
}
