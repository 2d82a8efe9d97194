//! The accounts of one queue: what has happened to its tasks, by the name of the task, and how long they waited and ran.
//! The queue's actor writes them beside its decisions, as plain integers; whoever shows metrics reads a copy.
//!
//! Invariants:
//! - The counts only grow.
//! - The accounts take a bounded amount of memory, whatever comes. A queue tells [`MOST_TASKS`] tasks apart, and a task
//!   [`MOST_ERRORS`] errors; all others are counted together as [`OTHER`]. So no label of a metric has more values.
//! - No account holds an id, an argument or the text of an error.

use std::sync::LazyLock;
use std::time::Duration;

use indexmap::IndexMap;

use super::duration_histogram::{DurationHistogram, Edges};
use super::text::shortened;

/// The most tasks that a queue tells apart.
pub const MOST_TASKS: usize = 500;
/// The most errors that a task tells apart.
pub const MOST_ERRORS: usize = 50;
/// The name of all that is beyond these bounds, and of tasks that the program does not have.
pub const OTHER: &str = "other";

/// How many bytes of an error's name are kept.
const ERROR_NAME: usize = 100;
/// How many targets get an edge of their own.
const MOST_TARGETS: usize = 16;

/// The edges of celery-exporter for run times, in milliseconds.
static RUN_TIME: LazyLock<Edges> = LazyLock::new(|| {
    Edges::of_millis(&[5, 10, 25, 50, 75, 100, 250, 500, 750, 1_000, 2_500, 5_000, 7_500, 10_000])
});
/// The edges of celery-exporter for waits, in milliseconds.
static WAIT: LazyLock<Edges> = LazyLock::new(|| {
    Edges::of_millis(&[
        50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_800_000,
    ])
});
/// The edges of a queue's own histograms, in milliseconds: from what nobody notices to a day.
static SPAN: LazyLock<Edges> = LazyLock::new(|| {
    Edges::of_millis(&[
        100, 1_000, 5_000, 10_000, 30_000, 60_000, 300_000, 600_000, 1_800_000, 3_600_000, 14_400_000,
        43_200_000, 86_400_000,
    ])
});

/// The edges for time-to-start in a program whose queues have these targets: there is an edge at each target, so that the
/// histogram says exactly how often it was kept.
pub fn time_to_start_edges(targets: impl IntoIterator<Item = Duration>) -> Edges {
    SPAN.with(targets, MOST_TARGETS)
}

/// The accounts of one queue since its program started.
#[derive(Clone, Debug)]
pub struct Accounts {
    tasks: IndexMap<Box<str>, TaskAccounts>,
    /// The place that was counted at last: most tasks are followed by one of their name.
    last: usize,
    time_to_start: DurationHistogram,
    /// How long limits kept tasks from starting, which is no part of time-to-start.
    limit_waits: DurationHistogram,
    /// By the state that a run left its task in.
    run_times: Vec<(&'static str, DurationHistogram)>,
}

/// The place of a task in the accounts in which it was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskPlace(pub(super) usize);

impl TaskPlace {
    /// The place as a number, at most [`MOST_TASKS`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// The end of a task, or of one attempt, in the words of Celery's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended<'a> {
    /// The task succeeded.
    Succeeded,
    /// The task failed for good, with an error of this name.
    Failed(&'a str),
    /// The task became a dead letter with an error of this name. In Celery that is a failure and a rejection.
    Rejected(&'a str),
    /// The attempt failed, and another one follows.
    Retried,
    /// The task was revoked, or had expired.
    Revoked,
    /// The body put the task back into its queue. In Celery that is a rejection.
    PutBack,
}

impl Accounts {
    /// Empty accounts, with these [edges](time_to_start_edges) for time-to-start.
    pub fn new(time_to_start: Edges) -> Self {
        Self {
            tasks: IndexMap::new(),
            last: 0,
            time_to_start: DurationHistogram::new(time_to_start),
            limit_waits: DurationHistogram::new(SPAN.clone()),
            run_times: Vec::new(),
        }
    }

    /// The place of a task that is in the accounts already.
    pub fn find(&self, task: &str) -> Option<TaskPlace> {
        let is_last = self.tasks.get_index(self.last).is_some_and(|(name, _)| **name == *task);
        let place = if is_last { Some(self.last) } else { self.tasks.get_index_of(task) };
        place.map(TaskPlace)
    }

    /// The place of a task, which is made if there is none; beyond the bound it is that of [`OTHER`].
    pub fn place(&mut self, task: &str) -> TaskPlace {
        if let Some(place) = self.find(task) {
            return place;
        }
        let name = if self.tasks.len() < MOST_TASKS { task } else { OTHER };
        let entry = self.tasks.entry(name.into());
        let place = TaskPlace(entry.index());
        entry.or_default();
        place
    }

    /// Counts a task that has come to the queue.
    pub fn received(&mut self, task: TaskPlace) {
        self.with(task, |task| task.received += 1);
    }

    /// Counts a start, after this wait. `is_first`: the task never started before, so that the wait is its time-to-start.
    pub fn started(&mut self, task: TaskPlace, wait: Duration, is_first: bool) {
        self.with(task, |task| {
            task.started += 1;
            task.waits.record(wait);
        });
        if is_first {
            self.time_to_start.record(wait);
        }
    }

    /// Counts a start that a limit had held back for so long.
    pub fn was_held(&mut self, wait: Duration) {
        self.limit_waits.record(wait);
    }

    /// Counts an end. `run_time` is how long the run took, if there was one.
    pub fn ended(&mut self, task: TaskPlace, ended: Ended<'_>, run_time: Option<Duration>) {
        self.with(task, |task| task.count(ended, run_time));
    }

    /// Counts a run of this length that left its task in this state.
    pub fn ran(&mut self, state: &'static str, run_time: Duration) {
        match self.run_times.iter_mut().find(|(known, _)| *known == state) {
            Some((_, run_times)) => run_times.record(run_time),
            None => {
                let mut run_times = DurationHistogram::new(SPAN.clone());
                run_times.record(run_time);
                self.run_times.push((state, run_times));
            }
        }
    }

    /// The accounts of all tasks that have come, in the order in which they came first.
    pub fn tasks(&self) -> impl Iterator<Item = (&str, &TaskAccounts)> {
        self.tasks.iter().map(|(name, task)| (&**name, task))
    }

    /// Returns the times for which tasks waited for their first start.
    pub fn time_to_start(&self) -> &DurationHistogram {
        &self.time_to_start
    }

    /// Returns the times for which limits kept tasks from starting that have started since.
    pub fn limit_waits(&self) -> &DurationHistogram {
        &self.limit_waits
    }

    /// Returns the times that runs took, by the state that they left their task in.
    pub fn run_times(&self) -> impl Iterator<Item = (&'static str, &DurationHistogram)> {
        self.run_times.iter().map(|(state, run_times)| (*state, run_times))
    }

    fn with(&mut self, TaskPlace(place): TaskPlace, change: impl FnOnce(&mut TaskAccounts)) {
        self.last = place;
        if let Some((_, task)) = self.tasks.get_index_mut(place) {
            change(task);
        }
    }
}

impl Default for Accounts {
    fn default() -> Self {
        Self::new(SPAN.clone())
    }
}

/// The accounts of one task in one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskAccounts {
    /// Calls that this program sent.
    pub sent: u64,
    /// Tasks that came to the queue; one that comes again is counted again.
    pub received: u64,
    /// The number of runs that started.
    pub started: u64,
    /// The number of tasks that succeeded.
    pub succeeded: u64,
    /// Tasks that failed for good, by the names of their errors.
    pub failed: ErrorCounts,
    /// Attempts that failed and are tried again.
    pub retried: u64,
    /// Tasks that were revoked or had expired.
    pub revoked: u64,
    /// Tasks that were rejected: to the dead letters, or back into their queue.
    pub rejected: u64,
    /// The times that the successful runs took.
    pub run_times: DurationHistogram,
    /// The times for which starts were waited for: from the enqueue, or from the ETA if there is one.
    pub waits: DurationHistogram,
}

impl TaskAccounts {
    fn count(&mut self, ended: Ended<'_>, run_time: Option<Duration>) {
        match ended {
            Ended::Succeeded => {
                self.succeeded += 1;
                if let Some(run_time) = run_time {
                    self.run_times.record(run_time);
                }
            }
            Ended::Failed(error) => self.failed.count(error, 1),
            Ended::Rejected(error) => {
                self.failed.count(error, 1);
                self.rejected += 1;
            }
            Ended::Retried => self.retried += 1,
            Ended::Revoked => self.revoked += 1,
            Ended::PutBack => self.rejected += 1,
        }
    }

    /// Adds what was counted elsewhere of the same task.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.received += other.received;
        self.started += other.started;
        self.succeeded += other.succeeded;
        other.failed.iter().for_each(|(error, count)| self.failed.count(error, count));
        self.retried += other.retried;
        self.revoked += other.revoked;
        self.rejected += other.rejected;
        self.run_times.add(&other.run_times);
        self.waits.add(&other.waits);
    }
}

impl Default for TaskAccounts {
    fn default() -> Self {
        Self {
            sent: 0,
            received: 0,
            started: 0,
            succeeded: 0,
            failed: ErrorCounts::default(),
            retried: 0,
            revoked: 0,
            rejected: 0,
            run_times: DurationHistogram::new(RUN_TIME.clone()),
            waits: DurationHistogram::new(WAIT.clone()),
        }
    }
}

/// Failures by the names of their errors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorCounts(IndexMap<Box<str>, u64>);

impl ErrorCounts {
    /// Counts so many failures with this error.
    pub fn count(&mut self, error: &str, count: u64) {
        let error = shortened(error, ERROR_NAME);
        if let Some(known) = self.0.get_mut(&*error) {
            *known += count;
            return;
        }
        let name = if self.0.len() < MOST_ERRORS { &*error } else { OTHER };
        *self.0.entry(name.into()).or_default() += count;
    }

    /// The names of the errors with their counts, in the order in which they came first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(error, count)| (&**error, *count))
    }

    /// Returns the number of all failures.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn errors(task: &TaskAccounts) -> Vec<(&str, u64)> {
        task.failed.iter().collect()
    }

    #[test]
    fn each_end_counts_as_celerys_event_does() {
        let mut accounts = Accounts::default();
        let task = accounts.place("app.t");
        for ended in [
            Ended::Succeeded,
            Ended::Failed("ValueError"),
            Ended::Failed("ValueError"),
            Ended::Rejected("Reject"),
            Ended::Retried,
            Ended::Revoked,
            Ended::PutBack,
        ] {
            accounts.ended(task, ended, Some(SECOND));
        }
        let (name, told) = accounts.tasks().next().unwrap();
        assert_eq!(name, "app.t");
        assert_eq!((told.succeeded, told.retried, told.revoked, told.rejected), (1, 1, 1, 2));
        assert_eq!((errors(told), told.failed.total()), (vec![("ValueError", 2), ("Reject", 1)], 3));
        assert_eq!(told.run_times.count(), 1, "only a success has a run time, as with celery-exporter");
    }

    #[test]
    fn the_first_start_of_a_task_is_its_time_to_start() {
        let target = Duration::from_secs(7);
        let mut accounts = Accounts::new(time_to_start_edges([target]));
        let task = accounts.place("app.t");
        accounts.started(task, target, true);
        accounts.started(task, 9 * SECOND, false);
        let waits = &accounts.tasks().next().unwrap().1.waits;
        assert_eq!((waits.count(), waits.sum()), (2, 16 * SECOND));
        assert_eq!(accounts.time_to_start().count(), 1);
        let at_target = accounts.time_to_start().buckets().find(|(edge, _)| *edge == Some(target));
        assert_eq!(at_target, Some((Some(target), 1)), "there is an edge at the target");
    }

    #[test]
    fn run_times_are_kept_by_state() {
        let mut accounts = Accounts::default();
        for state in ["SUCCESS", "RETRY", "SUCCESS"] {
            accounts.ran(state, SECOND);
        }
        let counts: Vec<_> = accounts.run_times().map(|(state, times)| (state, times.count())).collect();
        assert_eq!(counts, [("SUCCESS", 2), ("RETRY", 1)]);
    }

    #[test]
    fn the_name_of_an_error_is_cut() {
        let mut counts = ErrorCounts::default();
        counts.count(&"é".repeat(10_000), 1);
        assert!(counts.iter().all(|(name, _)| name.len() <= ERROR_NAME));
    }

    /// One thing that happens to a task of this number.
    #[derive(Clone, Debug)]
    enum Happening {
        Received(usize),
        Started(usize),
        Failed(usize, usize),
        Succeeded(usize),
    }

    fn happening() -> impl Strategy<Value = Happening> {
        let task = 0..2 * MOST_TASKS;
        prop_oneof![
            task.clone().prop_map(Happening::Received),
            task.clone().prop_map(Happening::Started),
            (task.clone(), 0..3 * MOST_ERRORS).prop_map(|(task, error)| Happening::Failed(task, error)),
            task.prop_map(Happening::Succeeded),
        ]
    }

    proptest! {
        /// However many names come, the accounts have a bounded number of them, and nothing is lost from the sums. Names within
        /// the bounds have exactly what happened to them.
        #[test]
        fn bounds_hold_and_sums_are_exact(happenings in prop::collection::vec(happening(), 0..3_000)) {
            let mut accounts = Accounts::default();
            let mut received: BTreeMap<String, u64> = BTreeMap::new();
            let (mut started, mut failed, mut succeeded) = (0, 0, 0);
            for happening in &happenings {
                let (Happening::Received(task)
                | Happening::Started(task)
                | Happening::Failed(task, _)
                | Happening::Succeeded(task)) = happening;
                let name = format!("task{task}");
                let place = accounts.place(&name);
                match happening {
                    Happening::Received(_) => {
                        accounts.received(place);
                        *received.entry(name).or_default() += 1;
                    }
                    Happening::Started(_) => {
                        accounts.started(place, SECOND, true);
                        started += 1;
                    }
                    Happening::Failed(_, error) => {
                        accounts.ended(place, Ended::Failed(&format!("Error{error}")), None);
                        failed += 1;
                    }
                    Happening::Succeeded(_) => {
                        accounts.ended(place, Ended::Succeeded, Some(SECOND));
                        succeeded += 1;
                    }
                }
            }
            let tasks: Vec<_> = accounts.tasks().collect();
            prop_assert!(tasks.len() <= MOST_TASKS + 1);
            prop_assert!(tasks.iter().all(|(_, task)| task.failed.iter().count() <= MOST_ERRORS + 1));
            let sum = |count: fn(&TaskAccounts) -> u64| tasks.iter().map(|(_, task)| count(task)).sum::<u64>();
            prop_assert_eq!(sum(|task| task.received), received.values().sum::<u64>());
            prop_assert_eq!(sum(|task| task.started), started);
            prop_assert_eq!(sum(|task| task.waits.count()), started);
            prop_assert_eq!(accounts.time_to_start().count(), started);
            prop_assert_eq!(sum(|task| task.failed.total()), failed);
            prop_assert_eq!(sum(|task| task.run_times.count()), succeeded);
            for (name, task) in tasks.iter().filter(|(name, _)| *name != OTHER) {
                prop_assert_eq!(task.received, received.get(*name).copied().unwrap_or_default());
            }
        }

        /// Accounts of one task that were kept in two places add up.
        #[test]
        fn accounts_add_up(first in prop::collection::vec(0usize..80, 0..200), second in prop::collection::vec(0usize..80, 0..200)) {
            let of = |errors: &[usize]| {
                let mut task = TaskAccounts { sent: 1, ..TaskAccounts::default() };
                errors.iter().for_each(|error| task.count(Ended::Failed(&format!("Error{error}")), None));
                task
            };
            let mut both = of(&first);
            both.add(&of(&second));
            prop_assert_eq!((both.sent, both.failed.total()), (2, (first.len() + second.len()) as u64));
            prop_assert!(both.failed.iter().count() <= MOST_ERRORS + 1);
        }
    }
}
