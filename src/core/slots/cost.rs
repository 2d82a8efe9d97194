//! How long the runs of a task take, as the pool has measured it: what a run is charged at its start, before anybody knows
//! how long it will take.
//!
//! Invariants:
//! - A bounded number of tasks is told apart; all others share one record.
//! - A task is thought to be long until [`TRUSTED`] of its runs have been measured, unless its queue says how long a typical
//!   one takes. So one unknown task cannot take the slots that are kept for urgent ones.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::tenant::bounded;

/// What a run is charged at its start if nothing is known of its task: more than most tasks take, because a task that is
/// thought too cheap takes slots from others, and one that is thought too dear is put right at its end.
pub(super) const UNKNOWN: Duration = Duration::from_secs(60);
/// What a run is thought to take at least that has gone on for longer than it was charged.
pub(super) const LEAST_EXPECTED: Duration = Duration::from_millis(1);
/// The number of runs after which it is known how long a task takes.
const TRUSTED: u32 = 5;
/// The weight of a new run in the average is one divided by this number, or by the number of runs so far.
const MEMORY: u64 = 5;
/// The most tasks that are told apart. Names of tasks come from outside.
const MOST_TASKS: usize = 1_000;
/// The most tasks that are told apart of one tenant.
const MOST_OF_TENANT: usize = 16;

/// How long runs took: an average that follows what comes, and how far single runs lie from it. In microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Measured {
    runs: u32,
    mean: u64,
    deviation: u64,
}

impl Measured {
    fn note(&mut self, took: u64) {
        self.runs = self.runs.saturating_add(1);
        if self.runs == 1 {
            (self.mean, self.deviation) = (took, took / 2);
            return;
        }
        self.deviation = moved(self.deviation, took.abs_diff(self.mean), self.runs);
        self.mean = moved(self.mean, took, self.runs);
    }

    fn mean(&self) -> Option<Duration> {
        (self.runs > 0).then(|| Duration::from_micros(self.mean))
    }

    /// What nine of ten runs do not exceed, more or less. `None`: too few runs were measured.
    fn most(&self) -> Option<Duration> {
        let most = self.mean.saturating_add(self.deviation.saturating_mul(2));
        (self.runs >= TRUSTED).then(|| Duration::from_micros(most))
    }
}

/// `from`, moved towards `to` by the weight of the last of so many runs.
fn moved(from: u64, to: u64, runs: u32) -> u64 {
    let way = to.abs_diff(from);
    // To divide by a number that is known here costs a fraction of what other divisions cost.
    let part = if u64::from(runs) < MEMORY { way / u64::from(runs) } else { way / MEMORY };
    if to >= from { from + part } else { from - part }
}

/// A duration in whole microseconds.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// What was measured of one tenant's runs, by task.
pub(super) type OwnCosts = Vec<(usize, Measured)>;

/// What was measured of all tasks of a pool, by their numbers. Number 0 is all tasks beyond the bound.
#[derive(Clone, Debug)]
pub(super) struct TaskCosts {
    numbers: HashMap<Arc<str>, usize>,
    /// The names by their numbers.
    names: Vec<Arc<str>>,
    /// The number that was looked up last; 0: none. Tasks that come together are mostly of one name, and to compare names
    /// costs less than to hash one.
    latest: usize,
    measured: Vec<Measured>,
}

impl Default for TaskCosts {
    fn default() -> Self {
        let (names, measured) = (vec![Arc::default()], vec![Measured::default()]);
        Self { numbers: HashMap::new(), names, latest: 0, measured }
    }
}

impl TaskCosts {
    /// The number of a task.
    pub(super) fn number(&mut self, task: &str) -> usize {
        let task = bounded(task);
        if self.latest > 0 && *self.names[self.latest] == *task {
            return self.latest;
        }
        if let Some(number) = self.numbers.get(task) {
            self.latest = *number;
            return *number;
        }
        if self.numbers.len() >= MOST_TASKS {
            return 0;
        }
        let (name, number) = (Arc::<str>::from(task), self.measured.len());
        self.measured.push(Measured::default());
        self.names.push(Arc::clone(&name));
        self.numbers.insert(name, number);
        self.latest = number;
        number
    }

    /// What was measured, for a forward run: no names are looked up in it.
    pub(super) fn without_names(&self) -> Self {
        Self { measured: self.measured.clone(), ..Self::default() }
    }

    /// Notes a run of a task of this tenant.
    pub(super) fn note(&mut self, task: usize, own: &mut OwnCosts, took: Duration) {
        let took = micros(took);
        if let Some(measured) = self.measured.get_mut(task) {
            measured.note(took);
        }
        if let Some((_, measured)) = own.iter_mut().find(|(known, _)| *known == task) {
            measured.note(took);
        } else if own.len() < MOST_OF_TENANT {
            let mut measured = Measured::default();
            measured.note(took);
            own.push((task, measured));
        }
    }

    /// What a run is charged at its start: the average of this tenant's runs of the task, else that of all runs of it, else
    /// what the queue states, else [`UNKNOWN`].
    pub(super) fn expected(
        &self,
        task: usize,
        own: &[(usize, Measured)],
        typical: Option<Duration>,
    ) -> Duration {
        let mean = |measured: Option<&Measured>| measured.and_then(Measured::mean);
        mean(of(own, task)).or_else(|| mean(self.measured.get(task))).or(typical).unwrap_or(UNKNOWN)
    }

    /// What nine of ten runs of the task do not exceed, from the same sources. [`Duration::MAX`]: nobody knows.
    pub(super) fn most(&self, task: usize, own: &[(usize, Measured)], typical: Option<Duration>) -> Duration {
        let most = |measured: Option<&Measured>| measured.and_then(Measured::most);
        most(of(own, task)).or_else(|| most(self.measured.get(task))).or(typical).unwrap_or(Duration::MAX)
    }
}

fn of(own: &[(usize, Measured)], task: usize) -> Option<&Measured> {
    own.iter().find(|(known, _)| *known == task).map(|(_, measured)| measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_nearest_to_the_run_is_believed_first() {
        let mut costs = TaskCosts::default();
        let mut own = OwnCosts::new();
        let task = costs.number("mail");
        assert_eq!(costs.number("mail"), task);
        assert_eq!(
            (costs.expected(task, &own, None), costs.most(task, &own, None)),
            (UNKNOWN, Duration::MAX)
        );
        assert_eq!(costs.expected(task, &own, Some(SECOND)), SECOND, "what the queue states");
        assert_eq!(costs.most(task, &own, Some(SECOND)), SECOND);
        costs.note(task, &mut own, 3 * SECOND);
        let others = OwnCosts::new();
        assert_eq!(costs.expected(task, &others, Some(SECOND)), 3 * SECOND, "what all runs took");
        for _ in 0..20 {
            costs.note(task, &mut OwnCosts::new(), SECOND);
        }
        assert!(costs.expected(task, &others, None) < 2 * SECOND);
        assert_eq!(costs.expected(task, &own, None), 3 * SECOND, "what this tenant's own took");
    }

    #[test]
    fn each_name_has_one_number_in_whatever_order_they_come() {
        let mut costs = TaskCosts::default();
        let names = ["mail", "", "mail", "mail", "export", "", "mail"];
        assert_eq!(names.map(|name| costs.number(name)), [1, 2, 1, 1, 3, 2, 1]);
    }

    #[test]
    fn a_task_is_long_until_some_of_its_runs_were_measured() {
        let mut costs = TaskCosts::default();
        let mut own = OwnCosts::new();
        let task = costs.number("mail");
        for _ in 0..TRUSTED - 1 {
            costs.note(task, &mut own, SECOND);
        }
        assert_eq!(costs.most(task, &own, None), Duration::MAX);
        costs.note(task, &mut own, SECOND);
        assert!((SECOND..2 * SECOND).contains(&costs.most(task, &own, None)));
    }

    #[test]
    fn the_records_are_bounded() {
        let mut costs = TaskCosts::default();
        let mut own = OwnCosts::new();
        for name in 0..2 * MOST_TASKS {
            let task = costs.number(&name.to_string());
            costs.note(task, &mut own, SECOND);
        }
        assert_eq!((costs.measured.len(), own.len()), (MOST_TASKS + 1, MOST_OF_TENANT));
        assert_eq!(costs.number("one more"), 0);
        assert_eq!(costs.without_names().expected(7, &OwnCosts::new(), None), SECOND);
        assert_eq!(costs.expected(0, &own, None), SECOND);
    }
}
