//! The runs that a process has had lately, as the load of a simulation: when each task came, how long it waited, and how long its
//! run took.
//!
//! Invariants:
//! - A recorder takes a bounded amount of memory: at most [`MOST_RECORDED`] runs, of which the last ones stay.
//! - They are in parts of at most [`MOST_OF_PART`] runs and [`MOST_NAME_BYTES`] bytes of names, each of which can be read by itself.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{SimulatedLoad, SimulationError, TaskArrival};
use crate::core::Timestamp;
use crate::core::text::shortened;

/// The most runs of one process that are recorded.
pub const MOST_RECORDED: usize = MOST_PARTS * MOST_OF_PART;

/// The most parts of a recorder.
const MOST_PARTS: usize = 25;
/// The most runs of a part.
const MOST_OF_PART: usize = 8_000;
/// The most bytes of the names of a part.
const MOST_NAME_BYTES: usize = 64 << 10;
/// How many bytes of a name are kept.
const LONGEST_NAME: usize = 256;
/// The most names of a part: their numbers fit 16 bits.
const MOST_NAMES: usize = 16_000;

/// Runs that ended one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedRuns {
    /// When the first of its tasks came. The other times are counted from here.
    base: Timestamp,
    names: Vec<Box<str>>,
    runs: Vec<RecordedRun>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RecordedRun {
    /// When the task came, in microseconds from the base. It may have come before the first one of the part.
    at: i64,
    /// In microseconds.
    waited: u64,
    /// In microseconds.
    took: u64,
    queue: u16,
    task: u16,
    tenant: u16,
    priority: u8,
    is_again: bool,
}

impl RecordedRuns {
    /// Returns the number of runs.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Says whether no run was recorded.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The runs. One whose names are not there, as in a damaged note, is left out.
    pub fn iter(&self) -> impl Iterator<Item = TaskArrival<'_>> {
        let base = i64::try_from(self.base.as_micros()).unwrap_or(i64::MAX);
        let names = &self.names;
        let name = move |number: u16| names.get(usize::from(number)).map(|name| &**name);
        self.runs.iter().filter_map(move |run| {
            Some(TaskArrival {
                at: Timestamp::from_micros(u64::try_from(base.saturating_add(run.at)).unwrap_or_default()),
                queue: name(run.queue)?,
                task: name(run.task)?,
                tenant: name(run.tenant)?,
                priority: run.priority,
                takes: Duration::from_micros(run.took),
                waited: Some(Duration::from_micros(run.waited)),
                is_again: run.is_again,
            })
        })
    }

    /// Adds the runs to a load whose tasks came at this time or later.
    ///
    /// # Errors
    /// The load has as many tasks as a load may have.
    pub fn add_to(&self, load: &mut SimulatedLoad, from: Timestamp) -> Result<(), SimulationError> {
        self.iter().filter(|arrival| arrival.at >= from).try_for_each(|arrival| load.add(arrival))
    }
}

/// Records runs until somebody takes them.
#[derive(Clone, Debug, Default)]
pub struct RunRecorder {
    /// The recorded parts, the oldest first.
    parts: VecDeque<RecordedRuns>,
    /// The numbers of the names of the last part.
    numbers: HashMap<Box<str>, u16>,
    /// The numbers of the queue, the task and the tenant of the last run: most runs are followed by one of the same.
    last: [u16; 3],
    name_bytes: usize,
}

impl RunRecorder {
    /// Records a run that is over. What was not measured counts as no wait.
    pub fn record(&mut self, run: TaskArrival<'_>) {
        let is_full = self.parts.back().is_none_or(|part| {
            let has_all_names = part.names.len() + 3 > MOST_NAMES || self.name_bytes >= MOST_NAME_BYTES;
            part.runs.len() >= MOST_OF_PART || has_all_names
        });
        if is_full {
            if self.parts.len() >= MOST_PARTS {
                self.parts.pop_front();
            }
            self.parts.push_back(RecordedRuns { base: run.at, ..RecordedRuns::default() });
            self.numbers.clear();
            self.name_bytes = 0;
        }
        let [queue, task, tenant] = self.last;
        let numbers =
            [self.number(run.queue, queue), self.number(run.task, task), self.number(run.tenant, tenant)];
        self.last = numbers;
        let [queue, task, tenant] = numbers;
        let Some(part) = self.parts.back_mut() else { return };
        let signed = |at: Timestamp| i64::try_from(at.as_micros()).unwrap_or(i64::MAX);
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        part.runs.push(RecordedRun {
            at: signed(run.at) - signed(part.base),
            waited: micros(run.waited.unwrap_or_default()),
            took: micros(run.takes),
            queue,
            task,
            tenant,
            priority: run.priority,
            is_again: run.is_again,
        });
    }

    /// Takes all parts out, the oldest one first.
    pub fn take(&mut self) -> VecDeque<RecordedRuns> {
        self.numbers.clear();
        std::mem::take(&mut self.parts)
    }

    /// The number of a name in the last part, which has room for it. `guess` is the number that it may have.
    fn number(&mut self, name: &str, guess: u16) -> u16 {
        let guessed = self.parts.back().and_then(|part| part.names.get(usize::from(guess)));
        if guessed.is_some_and(|guessed| **guessed == *name) {
            return guess;
        }
        let name = shortened(name, LONGEST_NAME);
        if let Some(number) = self.numbers.get(&*name) {
            return *number;
        }
        let Some(part) = self.parts.back_mut() else { return 0 };
        let number = u16::try_from(part.names.len()).unwrap_or(u16::MAX);
        self.name_bytes += name.len();
        part.names.push(Box::from(&*name));
        self.numbers.insert(name.into(), number);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(n: u64, tenant: &str) -> TaskArrival<'_> {
        TaskArrival {
            at: Timestamp::from_micros(1_795_348_800_000_000 + n),
            queue: "q",
            task: "t",
            tenant,
            priority: 3,
            takes: Duration::from_micros(7 * n),
            waited: Some(Duration::from_micros(n)),
            is_again: n % 2 == 1,
        }
    }

    #[test]
    fn what_was_recorded_is_read_back() {
        let mut recorder = RunRecorder::default();
        let runs = [run(9, "acme"), run(4, ""), run(0, "zoo")];
        runs.iter().for_each(|run| recorder.record(*run));
        let parts = recorder.take();
        assert_eq!((parts.len(), parts[0].len()), (1, 3));
        assert!(recorder.take().is_empty(), "each is taken once");
        let bytes = postcard::to_stdvec(&parts[0]).expect("bytes");
        let read: RecordedRuns = postcard::from_bytes(&bytes).expect("runs");
        assert!(read.iter().eq(runs), "the task before the first one is there, too");
        let mut load = SimulatedLoad::default();
        read.add_to(&mut load, runs[1].at).expect("a load");
        assert!(load.iter().eq([runs[0], runs[1]]));
        recorder.record(runs[2]);
        assert!(recorder.take()[0].iter().eq([runs[2]]), "the next part has names of its own");
    }

    #[test]
    fn however_many_runs_there_are_the_last_ones_stay() {
        let mut recorder = RunRecorder::default();
        let all = MOST_RECORDED as u64 + 3 * MOST_OF_PART as u64;
        (0..all).for_each(|n| recorder.record(run(n, "acme")));
        let parts = recorder.take();
        assert_eq!(parts.iter().map(RecordedRuns::len).sum::<usize>(), MOST_RECORDED);
        assert_eq!(parts[MOST_PARTS - 1].iter().last(), Some(run(all - 1, "acme")));
        assert_eq!(parts[0].iter().next(), Some(run(all - MOST_RECORDED as u64, "acme")));
    }

    #[test]
    fn however_many_names_there_are_parts_are_bounded() {
        let mut recorder = RunRecorder::default();
        (0..40_000_u64)
            .for_each(|n| recorder.record(run(n, &format!("{n}{}", "x".repeat(n as usize % 400)))));
        let parts = recorder.take();
        assert_eq!(parts.len(), MOST_PARTS);
        for part in &parts {
            let bytes: usize = part.names.iter().map(|name| name.len()).sum();
            assert!(bytes <= MOST_NAME_BYTES + 3 * LONGEST_NAME && part.names.len() <= MOST_NAMES);
        }
        let mut short = RunRecorder::default();
        (0..40_000_u64).for_each(|n| short.record(run(n, &n.to_string())));
        let tenants = |parts: VecDeque<RecordedRuns>| {
            parts.iter().flat_map(RecordedRuns::iter).map(|run| run.tenant.to_owned()).collect::<Vec<_>>()
        };
        assert!(tenants(short.take()).into_iter().eq((0..40_000_u64).map(|n| n.to_string())));
    }
}
