//! A load: tasks that come, each with the time at which it comes and with how long its run takes.
//!
//! Invariant: it has at most [`MOST_ARRIVALS`] tasks, and each name is kept once.

use std::time::Duration;

use indexmap::IndexSet;

use super::SimulationError;
use crate::core::Timestamp;

/// The most tasks of a load.
pub const MOST_ARRIVALS: usize = 5_000_000;
/// The longest run of a simulation: 30 days. One that is said to take longer counts as one of this length.
pub const LONGEST_RUN: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The latest arrival of a simulation, in the year 9999. So all that follows from one has a time, too.
const LATEST: Timestamp = Timestamp::from_micros(253_402_300_000_000_000);

/// A task that comes to its queue, and its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskArrival<'a> {
    /// From when the task waits: when it was enqueued, or its ETA.
    pub at: Timestamp,
    /// The name of its queue.
    pub queue: &'a str,
    /// The name of the task.
    pub task: &'a str,
    /// The tenant on whose behalf the task runs; empty: there is none.
    pub tenant: &'a str,
    /// Its priority. The higher one goes first in its line.
    pub priority: u8,
    /// How long its run takes, at most [`LONGEST_RUN`].
    pub takes: Duration,
    /// How long it waited, if that was measured.
    pub waited: Option<Duration>,
    /// Whether the task has run before, so that it had its time-to-start with an earlier run: this one is a retry, or goes on
    /// where the task was interrupted.
    pub is_again: bool,
}

/// The tasks that come to the queues in a simulation, in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SimulatedLoad {
    names: IndexSet<Box<str>>,
    pub(super) arrivals: Vec<StoredArrival>,
}

/// A task of a load, with numbers for names and microseconds for durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredArrival {
    pub(super) at: Timestamp,
    pub(super) takes: u64,
    waited: Option<u64>,
    pub(super) queue: u32,
    task: u32,
    pub(super) tenant: u32,
    priority: u8,
    pub(super) is_again: bool,
}

impl StoredArrival {
    /// When its run began that was measured.
    pub(super) fn began(&self) -> Option<Timestamp> {
        self.waited.map(|waited| self.at + Duration::from_micros(waited))
    }
}

impl SimulatedLoad {
    /// Adds one task with the time at which it comes.
    ///
    /// # Errors
    /// The load has as many tasks as a load may have.
    pub fn add(&mut self, arrival: TaskArrival<'_>) -> Result<(), SimulationError> {
        if self.arrivals.len() >= MOST_ARRIVALS {
            return Err(SimulationError::TooManyArrivals);
        }
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let stored = StoredArrival {
            at: arrival.at.min(LATEST),
            takes: micros(arrival.takes.min(LONGEST_RUN)),
            waited: arrival.waited.map(micros),
            queue: self.number(arrival.queue),
            task: self.number(arrival.task),
            tenant: self.number(arrival.tenant),
            priority: arrival.priority,
            is_again: arrival.is_again,
        };
        self.arrivals.push(stored);
        Ok(())
    }

    /// The number of its tasks.
    pub fn len(&self) -> usize {
        self.arrivals.len()
    }

    /// Whether it has no tasks.
    pub fn is_empty(&self) -> bool {
        self.arrivals.is_empty()
    }

    /// Its tasks, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = TaskArrival<'_>> {
        self.arrivals.iter().map(move |stored| self.arrival(stored))
    }

    /// When the first task comes, and when the last one does. `None`: it has no tasks.
    pub fn span(&self) -> Option<(Timestamp, Timestamp)> {
        let times = || self.arrivals.iter().map(|stored| stored.at);
        Some((times().min()?, times().max()?))
    }

    pub(super) fn arrival(&self, stored: &StoredArrival) -> TaskArrival<'_> {
        TaskArrival {
            at: stored.at,
            queue: self.name(stored.queue),
            task: self.name(stored.task),
            tenant: self.name(stored.tenant),
            priority: stored.priority,
            takes: Duration::from_micros(stored.takes),
            waited: stored.waited.map(Duration::from_micros),
            is_again: stored.is_again,
        }
    }

    /// The name of this number.
    pub(super) fn name(&self, number: u32) -> &str {
        let name = usize::try_from(number).ok().and_then(|number| self.names.get_index(number));
        name.map_or("", |name| &**name)
    }

    /// How many names there are.
    pub(super) fn names(&self) -> usize {
        self.names.len()
    }

    fn number(&mut self, name: &str) -> u32 {
        let known = self.names.get_index_of(name);
        let number = known.unwrap_or_else(|| self.names.insert_full(name.into()).0);
        // A task has three names, so there are fewer than three for each of the tasks.
        u32::try_from(number).unwrap_or(u32::MAX)
    }
}
