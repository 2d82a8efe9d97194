//! The status of a queue as operators and metrics see it, and the counters behind it. `queue/control.rs` fills a
//! [`QueueStatus`] in when somebody asks. The counters start at zero with the program, and outlive the queue's actor.

use std::time::Duration;

use serde::Serialize;

use super::queue::BrokerBacklog;
use crate::catalogue::QueueRow;
use crate::core::accounts::Accounts;
use crate::core::forecast::ForecastRecord;
use crate::core::report::QueueFigures;
use crate::core::{TimeToStart, TimeToStartSnapshot, Timestamp, blockage};
use crate::runtime::run::Report;
use crate::task::{Next, State};

/// A queue as it is now: its promise (the target for time-to-start), how the promise is kept, and what goes on.
///
/// In JSON, here and in the other statuses, a duration is a number of milliseconds in a field whose name ends in `_ms`, and
/// a time is ISO 8601 text.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct QueueStatus {
    /// The queue's physical name, as the broker knows it.
    pub name: String,
    /// What the bodies run on: `io`, `cpu` or `process`.
    pub pool: &'static str,
    /// The number of worker slots.
    pub workers: usize,
    /// The number of runs that go on now.
    pub running: usize,
    /// Tasks that could start now, whether they wait in the broker or in this process.
    pub ready: u64,
    /// Tasks in this process that a limit keeps from starting. They take no slot and hold up no other task.
    pub held: u64,
    /// Tasks that this process has put back into the broker for a while because a limit keeps them from starting. They wait
    /// there among the scheduled ones.
    pub put_back: u64,
    /// Tasks that wait for their ETA.
    pub scheduled: u64,
    /// Serial tasks that wait for their lane.
    pub in_line: u64,
    /// Dead letters of this queue. RabbitMQ has one queue for the dead letters of all queues; there this counts
    /// only those that this process has put there since it started and that may still be there.
    pub dead: u64,
    /// Dead letters in the place where those of this queue lie: on RabbitMQ with those of all other queues, else
    /// its own.
    pub dead_in_all: u64,
    /// The broker could not be reached or did not answer in time, so what waits in it is not counted here.
    pub away: bool,
    /// Time-to-start since the program started, with the target.
    pub time_to_start: TimeToStartSnapshot,
    /// Blockage: the age of the oldest ready task, here or in the broker, while nothing started in this process.
    /// RabbitMQ does not say since when a message is ready, so there the value may be up to five seconds too low.
    #[serde(rename = "blockage_ms", serialize_with = "crate::core::json_time::millis")]
    pub blockage: Duration,
    /// For how long the oldest ready task, here or in the broker, has waited, as far as that [counts](crate::core::counted_wait)
    /// for the promise. On RabbitMQ a task that was not delivered yet
    /// has the age at which this process first saw that some wait.
    #[serde(rename = "oldest_wait_ms", serialize_with = "crate::core::json_time::millis")]
    pub oldest_wait: Duration,
    /// For how long a limit has kept the oldest of the held tasks from starting. That is no fault of the queue, so neither the
    /// blockage nor `oldest_wait` counts it.
    #[serde(rename = "oldest_held_ms", serialize_with = "crate::core::json_time::millis")]
    pub oldest_held: Duration,
    /// The number of tasks that succeeded.
    pub done: u64,
    /// Tasks that failed for good.
    pub failed: u64,
    /// Attempts that failed and are tried again.
    pub retried: u64,
    /// Tasks that became dead letters.
    pub rejected: u64,
    /// Tasks that were revoked or had expired.
    pub revoked: u64,
    /// Tasks that were postponed, continued or handed back; none of these counts as an attempt.
    pub requeued: u64,
    /// The number of runs whose bodies panicked.
    pub panics: u64,
    /// Bodies that reached their hard time limit.
    pub timed_out: u64,
    /// Runs whose child process ended before them: by a signal, by an exit, or because it had no memory left. Each cost an
    /// attempt of its task.
    pub lost: u64,
    /// Bodies on threads that could not be stopped and still run.
    pub stuck: usize,
    /// Returns of such bodies that came after their run was given up, and were refused.
    pub refused: usize,
    /// Serial tasks that the broker let in while as many of their key ran here as may. None of them started; each
    /// went back to its queue, and the log names it. The number should be 0: anything else is a fault of the broker
    /// or of the storage under it.
    pub overlaps: u64,
    /// Workers that were replaced, after a panic of a task, or the death of the worker itself or of its child process.
    pub replaced: u64,
    /// Workers that were replaced because their child processes were used up: `max_tasks_per_child`,
    /// `max_memory_per_child`.
    pub recycled: u64,
    /// How often forecasts of when a task starts came true lately.
    pub forecasts: ForecastRecord,
    /// Whether an operator has paused the queue.
    pub paused: bool,
    /// Why the queue has stopped itself: its workers died too often. `None`: it has not.
    pub halted: Option<String>,
}

/// The status of a queue with its accounts: what has happened to each of its tasks, and how long they waited and ran. The
/// accounts begin with the program, as its counters do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QueueAccounts {
    /// The queue as it is now.
    pub status: QueueStatus,
    /// Whether the queue takes tasks from the broker.
    pub is_consuming: bool,
    /// What has happened to its tasks.
    pub accounts: Accounts,
}

#[cfg(feature = "testing")]
impl QueueAccounts {
    /// The accounts of a queue in a test, which has no workers: they are empty.
    pub(crate) fn without_actors(status: QueueStatus) -> Self {
        Self { status, is_consuming: true, accounts: Accounts::default() }
    }
}

impl QueueStatus {
    /// What a report takes of it.
    pub(crate) fn figures(&self) -> QueueFigures {
        QueueFigures {
            target: self.time_to_start.target,
            workers: self.workers,
            running: self.running,
            ready: self.ready,
            held: self.held,
            put_back: self.put_back,
            scheduled: self.scheduled,
            in_line: self.in_line,
            failed: self.failed,
            dead: self.dead,
            starts: self.time_to_start.count,
            p50: self.time_to_start.p50,
            p95: self.time_to_start.p95,
            oldest_wait: self.oldest_wait,
            oldest_held: self.oldest_held,
            blockage: self.blockage,
            stuck: self.stuck,
            paused: self.paused,
            halted: self.halted.clone(),
            away: self.away,
            ..QueueFigures::named(&self.name)
        }
    }
}

impl QueueStatus {
    /// The status of a queue without workers, in a test or in a program that only looks: it says what waits, and all counters
    /// are zero.
    pub(crate) fn without_actors(row: &QueueRow, waiting: BrokerBacklog, now: Timestamp) -> Self {
        let counts = waiting.counts;
        Self {
            name: row.name.clone(),
            pool: row.pool.as_str(),
            workers: 0,
            running: usize::try_from(counts.unsettled).unwrap_or(usize::MAX),
            ready: counts.ready,
            held: 0,
            put_back: 0,
            scheduled: counts.scheduled,
            in_line: counts.in_line,
            dead: counts.dead,
            dead_in_all: counts.dead,
            away: false,
            time_to_start: TimeToStart::new(row.target).snapshot(),
            blockage: blockage(waiting.oldest, None, now),
            oldest_wait: waiting.oldest.map_or(Duration::ZERO, |since| now.since(since)),
            oldest_held: Duration::ZERO,
            done: 0,
            failed: 0,
            retried: 0,
            rejected: 0,
            revoked: 0,
            requeued: 0,
            panics: 0,
            timed_out: 0,
            lost: 0,
            stuck: 0,
            refused: 0,
            overlaps: 0,
            replaced: 0,
            recycled: 0,
            forecasts: ForecastRecord::default(),
            paused: false,
            halted: None,
        }
    }
}

/// What the queue has counted since the program started.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) retried: u64,
    pub(super) rejected: u64,
    pub(super) revoked: u64,
    pub(super) requeued: u64,
    pub(super) panics: u64,
    pub(super) timed_out: u64,
    pub(super) lost: u64,
    pub(super) overlaps: u64,
    pub(super) replaced: u64,
    pub(super) recycled: u64,
}

impl Counters {
    /// Counts a run, or a task that was settled without a run, by how it left the queue.
    pub(super) fn count(&mut self, report: &Report) {
        let counter = match (report.over, report.again) {
            (Some(State::Success | State::Ignored), _) => &mut self.done,
            (Some(State::Revoked), _) => &mut self.revoked,
            (Some(State::Rejected), _) => &mut self.rejected,
            (Some(_), _) => &mut self.failed,
            (None, Some(Next::Retry)) => &mut self.retried,
            (None, _) => &mut self.requeued,
        };
        *counter += 1;
    }
}
