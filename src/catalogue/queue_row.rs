//! One row of the catalogue: a queue as people describe it and as the runtime runs it.
//!
//! The default pool follows from `io_bound`, and the default number of workers from the pool, until a column is
//! stated. The order in which the setters are called does not matter.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

use super::queue_setup::{QueueSetup, QueueType};
use crate::core::token_bucket::RateLimit;

/// How long a queue keeps its failed tasks that states nothing: seven days, so that what fails before a weekend or a holiday
/// is there after it.
pub const KEEP_FAILED: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How soon the tasks of a queue should start, as an order of magnitude. The number beside it is
/// [`QueueRow::target`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetClass {
    /// People wait for the task: it should start within a minute.
    Seconds,
    /// The task should start after at most one minute to one hour.
    Minutes,
    /// The task may wait for one hour or more.
    Hours,
}

impl TargetClass {
    /// All classes, the soonest first.
    pub const ALL: [Self; 3] = [Self::Seconds, Self::Minutes, Self::Hours];

    /// The word for the class in a catalogue.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Minutes => "minutes",
            Self::Hours => "hours",
        }
    }

    /// The target of a queue that states the class and no number, where a number is needed: 30 seconds, 15 minutes or 6 hours.
    pub const fn default_target(self) -> Duration {
        match self {
            Self::Seconds => Duration::from_secs(30),
            Self::Minutes => Duration::from_secs(15 * 60),
            Self::Hours => Duration::from_secs(6 * 60 * 60),
        }
    }

    /// Whether a target of this size belongs to the class.
    ///
    /// One minute and one hour, where two classes meet, belong to both.
    pub fn covers(self, target: Duration) -> bool {
        let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
        match self {
            Self::Seconds => target <= minute,
            Self::Minutes => (minute..=hour).contains(&target),
            Self::Hours => target >= hour,
        }
    }
}

impl fmt::Display for TargetClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where the tasks of a queue run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pool {
    /// The event loop, for hundreds of cheap workers whose tasks mostly wait. Celery's counterpart is gevent.
    Io,
    /// Blocking threads, for few workers whose tasks compute, so that they hold up no heartbeat.
    Cpu,
    /// Child processes of the program, for tasks that must be ended at their limits whatever they do, or that may take
    /// their process down: a child that dies costs one attempt of one task. It works on Unix. Celery's counterpart is
    /// prefork.
    Process,
}

impl Pool {
    /// All pools that there are.
    pub const ALL: [Self; 3] = [Self::Io, Self::Cpu, Self::Process];

    /// The word for the pool in a catalogue.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::Cpu => "cpu",
            Self::Process => "process",
        }
    }

    /// The number of workers of a queue that states none: 50 in the io pool, 2 in the others.
    pub const fn default_workers(self) -> usize {
        match self {
            Self::Io => 50,
            Self::Cpu | Self::Process => 2,
        }
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The description and the settings of one queue.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct QueueRow {
    /// The physical name of the queue, as the broker knows it.
    pub name: String,
    /// Whether its tasks mostly wait for I/O. `None`: nobody has said.
    pub io_bound: Option<bool>,
    /// How soon a task should start, as an order of magnitude.
    pub target_class: Option<TargetClass>,
    /// The promise: a task starts at most this long after it became due. `None`: the queue promises nothing.
    pub target: Option<Duration>,
    /// Why the target has this value.
    pub target_comment: Option<String>,
    /// What the queue is for, and what triggers its tasks.
    pub description: Option<String>,
    /// How long a typical task runs, in words. A span such as `90s` is also what a run is thought to take before any was
    /// measured.
    pub typical_duration: Option<String>,
    /// Best practices and notes for the people who use the queue.
    pub notes: Option<String>,
    /// Where its tasks run: [`Pool::Io`] when `io_bound` is true, else [`Pool::Cpu`], unless stated.
    pub pool: Pool,
    /// How many tasks run at a time; [`Pool::default_workers`] unless stated. Where the pool has slots that its queues share,
    /// this is the most that the queue has of them.
    pub workers: usize,
    /// How many tasks run at a time at most: the queue then has `workers` workers at least, and more while tasks wait for
    /// them. Celery's `--autoscale`. `None`: it always has `workers`.
    pub max_workers: Option<usize>,
    /// How many of the slots of its pool come to this queue before others have any: 0 unless stated. It has an effect where the
    /// pool has slots that its queues share.
    pub min_workers: usize,
    /// Whether the queue shares the slots of its pool, if the pool has any: true unless stated.
    pub shared: bool,
    /// The most deliveries that the queue holds at a time, running ones included; see [`QueueRow::max_deliveries`].
    pub prefetch: Option<usize>,
    /// How many crashes of workers the queue allows within [`restart_window`](Self::restart_window): 10 unless
    /// stated. After one more, the queue stops restarting workers, reports and backs off.
    pub max_restarts: u32,
    /// The window in which the queue counts crashes: 60 seconds unless stated.
    pub restart_window: Duration,
    /// The number of tasks after which a child process is replaced by a new one: Celery's `worker_max_tasks_per_child`.
    /// `None`: it is not replaced for that. It has an effect in [`Pool::Process`].
    pub max_tasks_per_child: Option<u32>,
    /// The resident memory in bytes above which a child process is replaced by a new one when its task is over: Celery's
    /// `worker_max_memory_per_child`. It has an effect in [`Pool::Process`], on Linux.
    pub max_memory_per_child: Option<u64>,
    /// The bytes of memory that a child process may have at all. The kernel refuses it more, which ends a Rust program:
    /// it costs one attempt of the task. It has an effect in [`Pool::Process`], on Linux.
    pub memory_limit_per_child: Option<u64>,
    /// How long a task that has failed for good is kept, with its arguments and its attempts: [`KEEP_FAILED`] unless
    /// stated. Zero: none is kept. The number of tasks that a queue keeps is bounded as well, and the oldest go first.
    pub keep_failed: Duration,
    /// Whether this program runs the tasks of the queue. If not, this program only sends them, and others run them:
    /// the Python workers of a mixed fleet, or other programs of the same application.
    pub served: bool,
    /// How Celeriac declares the queue on RabbitMQ if it does not exist. It wins over `AmqpOptions`, and has no
    /// effect on other brokers.
    pub setup: QueueSetup,
    /// How many calls of one tenant the queue takes in a unit of time, from each program that sends them. A call above that goes
    /// to [`demote_to`](Self::demote_to). `None`: all stay.
    pub demote_above: Option<RateLimit>,
    /// The queue, or an alias of it, of the calls of a tenant above [`demote_above`](Self::demote_above).
    pub demote_to: Option<String>,
    /// Whether the pool was stated, so that it does not follow `io_bound`.
    pool_stated: bool,
    /// Whether the number of workers was stated, so that it does not follow the pool.
    workers_stated: bool,
}

impl QueueRow {
    /// A queue with the defaults: two workers on threads, and no promise.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            io_bound: None,
            target_class: None,
            target: None,
            target_comment: None,
            description: None,
            typical_duration: None,
            notes: None,
            pool: Pool::Cpu,
            workers: Pool::Cpu.default_workers(),
            max_workers: None,
            min_workers: 0,
            shared: true,
            prefetch: None,
            max_restarts: 10,
            restart_window: Duration::from_secs(60),
            max_tasks_per_child: None,
            max_memory_per_child: None,
            memory_limit_per_child: None,
            keep_failed: KEEP_FAILED,
            served: true,
            setup: QueueSetup::default(),
            demote_above: None,
            demote_to: None,
            pool_stated: false,
            workers_stated: false,
        }
    }

    /// The most workers that the queue may have.
    pub fn most_workers(&self) -> usize {
        self.max_workers.map_or(self.workers, |most| most.max(self.workers))
    }

    /// The most deliveries that this queue holds at a time, running ones included.
    ///
    /// Unless stated it is twice the workers in the io pool, so that the next task is there when one ends, and
    /// exactly the workers in the others, so that no task waits behind a long one while another machine could start
    /// it. If no other machine could, [`max_deliveries_alone`](Self::max_deliveries_alone) counts.
    pub fn max_deliveries(&self) -> usize {
        self.prefetch.unwrap_or(match self.pool {
            Pool::Io => self.workers.saturating_mul(2),
            Pool::Cpu | Pool::Process => self.workers,
        })
    }

    /// The same as [`max_deliveries`](Self::max_deliveries) for a broker whose tasks no other machine can start (the
    /// memory broker, the embedded store). Unless stated it is at least 1024 and at least four times the workers,
    /// because a delivery counts until its end is on the disk. With fewer deliveries the workers would wait for the
    /// disk between one short task and the next.
    pub fn max_deliveries_alone(&self) -> usize {
        /// The fewest deliveries that such a queue holds unless it states a number.
        const LEAST: usize = 1024;
        let unstated = self.prefetch.is_none();
        let least = if unstated { self.workers.saturating_mul(4).max(LEAST) } else { 0 };
        self.max_deliveries().max(least)
    }

    /// Sets whether the tasks mostly wait for I/O. The pool follows unless it is stated.
    #[must_use]
    pub fn with_io_bound(mut self, io_bound: bool) -> Self {
        self.io_bound = Some(io_bound);
        self.follow()
    }

    /// Sets the class of the target.
    #[must_use]
    pub fn with_target_class(mut self, class: TargetClass) -> Self {
        self.target_class = Some(class);
        self
    }

    /// Sets the promise: a task starts at most this long after it became due.
    #[must_use]
    pub fn with_target(mut self, target: Duration) -> Self {
        self.target = Some(target);
        self
    }

    /// Sets the reason why the target has its value.
    #[must_use]
    pub fn with_target_comment(mut self, comment: impl Into<String>) -> Self {
        self.target_comment = Some(comment.into());
        self
    }

    /// Sets the text that says what the queue is for.
    #[must_use]
    pub fn with_description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Sets how long a typical task runs, in words.
    #[must_use]
    pub fn with_typical_duration(mut self, typical: impl Into<String>) -> Self {
        self.typical_duration = Some(typical.into());
        self
    }

    /// Sets the best practices and notes.
    #[must_use]
    pub fn with_notes(mut self, notes: impl Into<String>) -> Self {
        self.notes = Some(notes.into());
        self
    }

    /// Sets the pool. The number of workers follows unless it is stated.
    #[must_use]
    pub fn with_pool(mut self, pool: Pool) -> Self {
        self.pool = pool;
        self.pool_stated = true;
        self.follow()
    }

    /// Sets how many tasks run at a time.
    #[must_use]
    pub fn with_workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self.workers_stated = true;
        self
    }

    /// Sets how many tasks run at a time at most, while tasks wait for workers.
    #[must_use]
    pub fn with_max_workers(mut self, max_workers: usize) -> Self {
        self.max_workers = Some(max_workers);
        self
    }

    /// Sets how many of the slots of its pool come to this queue before others have any.
    #[must_use]
    pub fn with_min_workers(mut self, min_workers: usize) -> Self {
        self.min_workers = min_workers;
        self
    }

    /// Sets whether the queue shares the slots of its pool.
    #[must_use]
    pub fn with_shared(mut self, shared: bool) -> Self {
        self.shared = shared;
        self
    }

    /// The longest time-to-start that the slots of a pool are given away by: the target, else what the class stands for, else
    /// six hours.
    pub fn scheduling_target(&self) -> Duration {
        self.target.unwrap_or_else(|| self.target_class.unwrap_or(TargetClass::Hours).default_target())
    }

    /// Sets the most deliveries that the queue holds at a time, running ones included.
    #[must_use]
    pub fn with_prefetch(mut self, prefetch: usize) -> Self {
        self.prefetch = Some(prefetch);
        self
    }

    /// Sets how many crashes the queue allows within the restart window.
    #[must_use]
    pub fn with_max_restarts(mut self, max_restarts: u32) -> Self {
        self.max_restarts = max_restarts;
        self
    }

    /// Sets the window in which the queue counts crashes.
    #[must_use]
    pub fn with_restart_window(mut self, window: Duration) -> Self {
        self.restart_window = window;
        self
    }

    /// Sets the number of tasks after which a child process is replaced.
    #[must_use]
    pub fn with_max_tasks_per_child(mut self, tasks: u32) -> Self {
        self.max_tasks_per_child = Some(tasks);
        self
    }

    /// Sets the resident memory in bytes above which a child process is replaced when its task is over.
    #[must_use]
    pub fn with_max_memory_per_child(mut self, bytes: u64) -> Self {
        self.max_memory_per_child = Some(bytes);
        self
    }

    /// Sets the bytes of memory that a child process may have at all.
    #[must_use]
    pub fn with_memory_limit_per_child(mut self, bytes: u64) -> Self {
        self.memory_limit_per_child = Some(bytes);
        self
    }

    /// The columns about child processes that the row states.
    pub(super) fn child_columns(&self) -> impl Iterator<Item = &'static str> {
        let stated = [
            self.max_tasks_per_child.map(|_| "max_tasks_per_child"),
            self.max_memory_per_child.map(|_| "max_memory_per_child"),
            self.memory_limit_per_child.map(|_| "memory_limit_per_child"),
        ];
        stated.into_iter().flatten()
    }

    /// Sets how long a task that has failed for good is kept. With zero none is.
    #[must_use]
    pub fn with_keep_failed(mut self, keep: Duration) -> Self {
        self.keep_failed = keep;
        self
    }

    /// Sets whether this program runs the tasks of the queue.
    #[must_use]
    pub fn with_served(mut self, served: bool) -> Self {
        self.served = served;
        self
    }

    /// Sets the type of the queue on RabbitMQ.
    #[must_use]
    pub fn with_queue_type(mut self, queue_type: QueueType) -> Self {
        self.setup.queue_type = Some(queue_type);
        self
    }

    /// Sets the highest priority that RabbitMQ tells apart in the queue: Celery's `x-max-priority`, 1 to 255.
    #[must_use]
    pub fn with_max_priority(mut self, max_priority: u8) -> Self {
        self.setup.max_priority = Some(max_priority);
        self
    }

    /// Sets more of RabbitMQ's arguments for the queue, as kombu's `queue_arguments` does.
    #[must_use]
    pub fn with_queue_arguments(mut self, arguments: Map<String, Value>) -> Self {
        self.setup.arguments = arguments;
        self
    }

    /// Sets whether each task that is sent here is run by every process that serves the queue: kombu's `Broadcast`.
    #[must_use]
    pub fn with_broadcast(mut self, broadcast: bool) -> Self {
        self.setup.broadcast = broadcast;
        self
    }

    /// Sets how many partitions the queue has on RabbitMQ, 2 to 64.
    #[must_use]
    pub fn with_partitions(mut self, partitions: u8) -> Self {
        self.setup.partitions = Some(partitions);
        self
    }

    /// Sets how many calls of one tenant the queue takes in a unit of time.
    #[must_use]
    pub fn with_demote_above(mut self, rate: RateLimit) -> Self {
        self.demote_above = Some(rate);
        self
    }

    /// Sets the queue of the calls of a tenant above that.
    #[must_use]
    pub fn with_demote_to(mut self, queue: impl Into<String>) -> Self {
        self.demote_to = Some(queue.into());
        self
    }

    /// Derives the columns that were not stated from those that were.
    fn follow(mut self) -> Self {
        if !self.pool_stated {
            self.pool = if self.io_bound == Some(true) { Pool::Io } else { Pool::Cpu };
        }
        if !self.workers_stated {
            self.workers = self.pool.default_workers();
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_follow_what_is_stated_in_any_order() {
        let row = QueueRow::new("q").with_workers(7).with_io_bound(true);
        assert_eq!((row.pool, row.workers, row.max_deliveries()), (Pool::Io, 7, 14));
        let row = QueueRow::new("q").with_pool(Pool::Cpu).with_io_bound(true);
        assert_eq!((row.pool, row.workers, row.max_deliveries()), (Pool::Cpu, 2, 2));
        let row = QueueRow::new("q").with_io_bound(true).with_prefetch(60);
        assert_eq!((row.pool, row.workers, row.max_deliveries()), (Pool::Io, 50, 60));
    }
}
