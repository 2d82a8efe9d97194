//! One row of the catalogue: a queue as people describe it and as the runtime runs it.
//!
//! Defaults that depend on other columns (the pool on `io_bound`, the workers on the pool) follow those columns
//! until they are stated, in whatever order the setters are called.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::broker::{QueueSetup, QueueType};

/// The order of magnitude in which tasks of a queue should start. The number beside it is [`QueueRow::target`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetClass {
    /// People wait for it: up to a minute.
    Seconds,
    /// From one minute to one hour.
    Minutes,
    /// One hour and more.
    Hours,
}

impl TargetClass {
    /// Every class, from the soonest.
    pub const ALL: [Self; 3] = [Self::Seconds, Self::Minutes, Self::Hours];

    /// The word for it in a catalogue.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Minutes => "minutes",
            Self::Hours => "hours",
        }
    }

    /// Whether a target of this size is what the class says.
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

/// What the workers of a queue run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pool {
    /// The event loop: hundreds of cheap workers whose tasks mostly wait. Celery's gevent.
    Io,
    /// Blocking threads: few workers whose tasks compute, so that nobody else's heartbeat starves. Celery's prefork.
    Cpu,
}

impl Pool {
    /// Every pool.
    pub const ALL: [Self; 2] = [Self::Io, Self::Cpu];

    /// The word for it in a catalogue.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::Cpu => "cpu",
        }
    }

    /// The workers of a queue that does not say: 50 that wait, or 2 that compute.
    pub const fn default_workers(self) -> usize {
        match self {
            Self::Io => 50,
            Self::Cpu => 2,
        }
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One queue.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct QueueRow {
    /// The physical name of the queue, as the broker knows it.
    pub name: String,
    /// Whether its tasks mostly wait for somebody else. `None`: nobody has said.
    pub io_bound: Option<bool>,
    /// How soon a task should start, in words.
    pub target_class: Option<TargetClass>,
    /// The promise: a task starts at most this long after it became due. `None`: no promise.
    pub target: Option<Duration>,
    /// Why the target is what it is.
    pub target_comment: Option<String>,
    /// What the queue is for and what triggers its tasks.
    pub description: Option<String>,
    /// How long a typical task runs, in words.
    pub typical_duration: Option<String>,
    /// Best practices and notes.
    pub notes: Option<String>,
    /// What its workers run on: [`Pool::Io`] when `io_bound` is true, else [`Pool::Cpu`], unless stated.
    pub pool: Pool,
    /// How many tasks run at a time; [`Pool::default_workers`] unless stated.
    pub workers: usize,
    /// The most deliveries that are held at a time, running ones included; see [`QueueRow::max_deliveries`].
    pub prefetch: Option<usize>,
    /// How many crashes of workers within [`restart_window`](Self::restart_window) are borne: 10 unless stated.
    /// One more, and the queue stops restarting, reports and backs off.
    pub max_restarts: u32,
    /// The window in which crashes are counted: 60 seconds unless stated.
    pub restart_window: Duration,
    /// Whether this program runs its tasks. If not, it only sends them there, and others take them: the Python workers of a
    /// mixed fleet, or other programs of one's own.
    pub served: bool,
    /// How the queue is made on RabbitMQ, should it not be there. Wins over `AmqpOptions`; has no effect on other brokers.
    pub setup: QueueSetup,
    /// The pool was stated and does not follow `io_bound`.
    pool_stated: bool,
    /// The number of workers was stated and does not follow the pool.
    workers_stated: bool,
}

impl QueueRow {
    /// A queue that says nothing but its name: two workers on threads, no promise.
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
            prefetch: None,
            max_restarts: 10,
            restart_window: Duration::from_secs(60),
            served: true,
            setup: QueueSetup::default(),
            pool_stated: false,
            workers_stated: false,
        }
    }

    /// The most deliveries that this queue holds at a time, running ones included.
    ///
    /// Unless stated: twice its workers in the io pool, so that the next task is there when one ends; exactly its
    /// workers in the cpu pool, so that no long task blocks one that another machine could start. Where no other
    /// machine could (the memory broker, the embedded store) a queue that states nothing holds more, at least 1024 and
    /// four times its workers, so that short tasks do not wait for the disk between one and the next.
    pub fn max_deliveries(&self) -> usize {
        self.prefetch.unwrap_or(match self.pool {
            Pool::Io => self.workers.saturating_mul(2),
            Pool::Cpu => self.workers,
        })
    }

    /// States whether the tasks mostly wait; the pool follows unless it is stated.
    #[must_use]
    pub fn with_io_bound(mut self, io_bound: bool) -> Self {
        self.io_bound = Some(io_bound);
        self.follow()
    }

    /// States the class of the target.
    #[must_use]
    pub fn with_target_class(mut self, class: TargetClass) -> Self {
        self.target_class = Some(class);
        self
    }

    /// Promises that tasks start at most this long after they became due.
    #[must_use]
    pub fn with_target(mut self, target: Duration) -> Self {
        self.target = Some(target);
        self
    }

    /// Says why the target is what it is.
    #[must_use]
    pub fn with_target_comment(mut self, comment: impl Into<String>) -> Self {
        self.target_comment = Some(comment.into());
        self
    }

    /// Says what the queue is for.
    #[must_use]
    pub fn with_description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Says how long a typical task runs.
    #[must_use]
    pub fn with_typical_duration(mut self, typical: impl Into<String>) -> Self {
        self.typical_duration = Some(typical.into());
        self
    }

    /// Adds best practices and notes.
    #[must_use]
    pub fn with_notes(mut self, notes: impl Into<String>) -> Self {
        self.notes = Some(notes.into());
        self
    }

    /// States the pool; the workers follow unless they are stated.
    #[must_use]
    pub fn with_pool(mut self, pool: Pool) -> Self {
        self.pool = pool;
        self.pool_stated = true;
        self.follow()
    }

    /// States how many tasks run at a time.
    #[must_use]
    pub fn with_workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self.workers_stated = true;
        self
    }

    /// States the most deliveries that are held at a time, running ones included.
    #[must_use]
    pub fn with_prefetch(mut self, prefetch: usize) -> Self {
        self.prefetch = Some(prefetch);
        self
    }

    /// States how many crashes within the restart window are borne.
    #[must_use]
    pub fn with_max_restarts(mut self, max_restarts: u32) -> Self {
        self.max_restarts = max_restarts;
        self
    }

    /// States the window in which crashes are counted.
    #[must_use]
    pub fn with_restart_window(mut self, window: Duration) -> Self {
        self.restart_window = window;
        self
    }

    /// States whether this program runs its tasks.
    #[must_use]
    pub fn with_served(mut self, served: bool) -> Self {
        self.served = served;
        self
    }

    /// States the type that the queue has on RabbitMQ.
    #[must_use]
    pub fn with_queue_type(mut self, queue_type: QueueType) -> Self {
        self.setup.queue_type = Some(queue_type);
        self
    }

    /// States the highest priority that RabbitMQ is to heed in the queue: Celery's `x-max-priority`, 1 to 255.
    #[must_use]
    pub fn with_max_priority(mut self, max_priority: u8) -> Self {
        self.setup.max_priority = Some(max_priority);
        self
    }

    /// States more of RabbitMQ's arguments for the queue, as in kombu's `queue_arguments`.
    #[must_use]
    pub fn with_queue_arguments(mut self, arguments: Map<String, Value>) -> Self {
        self.setup.arguments = arguments;
        self
    }

    /// Lets the columns that were not stated follow those that were.
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
