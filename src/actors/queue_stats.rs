//! The statistics of a queue: what it counts of its tasks for its status, for metrics, for the history and for forecasts. The queue
//! reports each task three times, when it comes, when it starts and when it is over, and the statistics count it everywhere.
//!
//! Invariant: a queue's statistics outlive its actor. The actor takes them over from the one before it, and leaves them when it
//! dies.

use std::time::Duration;

use super::status::Counters;
use crate::core::accounts::{Accounts, TaskPlace};
use crate::core::duration_histogram::Edges;
use crate::core::forecast::Forecaster;
use crate::core::history::{HistoryEvent, MinuteBook};
use crate::core::{TimeToStart, Timestamp};
use crate::runtime::run::Report;
use crate::task::Message;

/// The numbers that a queue has counted since the start of the program.
pub(super) struct QueueStats {
    pub(super) counters: Counters,
    pub(super) accounts: Accounts,
    /// The counts that the history has not taken yet. Their tasks have their places in these accounts.
    pub(super) minutes: MinuteBook,
    pub(super) time_to_start: TimeToStart,
    /// The run times and arrivals that forecasts are made of. Their tasks have their places in these accounts.
    pub(super) forecasts: Forecaster,
}

/// The facts of a start that are counted.
pub(super) struct CountedStart<'a> {
    pub(super) tag: u64,
    /// The name of the task, which is one of this program.
    pub(super) task: &'static str,
    pub(super) tenant: Option<&'a str>,
    /// The time for which the task waited.
    pub(super) wait: Duration,
    /// Whether it never started before, so that its waiting is its time-to-start.
    pub(super) is_first: bool,
    /// For how long limits kept it from starting, if they did.
    pub(super) held: Option<Duration>,
}

impl QueueStats {
    /// Makes the statistics of a queue that has counted nothing. `target` is its target for time-to-start, and `edges` are those of
    /// its histogram.
    pub(super) fn new(target: Option<Duration>, edges: Edges) -> Self {
        Self {
            counters: Counters::default(),
            accounts: Accounts::new(edges),
            minutes: MinuteBook::default(),
            time_to_start: TimeToStart::new(target),
            forecasts: Forecaster::new(rand::random()),
        }
    }

    /// Takes everything out, for whoever goes on with it.
    pub(super) fn take(&mut self) -> Self {
        Self {
            counters: std::mem::take(&mut self.counters),
            accounts: std::mem::take(&mut self.accounts),
            minutes: std::mem::take(&mut self.minutes),
            time_to_start: self.time_to_start.clone(),
            forecasts: self.forecasts.clone(),
        }
    }

    /// Counts a task that has come.
    pub(super) fn received(&mut self, task: TaskPlace, message: &Message, now: Timestamp) {
        self.accounts.received(task);
        self.minutes.count(now, task, message.tenant(), HistoryEvent::Received);
    }

    /// Counts a start. Answers with the place of the task in the accounts.
    pub(super) fn started(&mut self, start: &CountedStart<'_>, now: Timestamp) -> TaskPlace {
        let CountedStart { tag, task, tenant, wait, is_first, held } = *start;
        let place = self.accounts.place(task);
        self.accounts.started(place, wait, is_first);
        if let Some(held) = held {
            self.accounts.was_held(held);
        }
        if is_first {
            self.time_to_start.record(wait);
        }
        let waited = is_first.then_some(wait);
        self.minutes.count(now, place, tenant, HistoryEvent::Started { waited });
        self.forecasts.started(tag, now);
        place
    }

    /// Counts the end of a run, or of a task that came to none.
    pub(super) fn ended(&mut self, task: TaskPlace, tenant: Option<&str>, report: &Report, now: Timestamp) {
        let (ended, ran) = (report.ended(), report.ran());
        let run_time = ran.map(|(_, run_time)| run_time);
        if let Some((state, run_time)) = ran {
            self.accounts.ran(state.as_str(), run_time);
        }
        if let Some(ended) = ended {
            self.accounts.ended(task, ended, run_time);
        }
        if ended.is_some() || run_time.is_some() {
            self.minutes.count(now, task, tenant, HistoryEvent::Ended { ended, ran: run_time });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::accounts::time_to_start_edges;
    use crate::task::{Context, Judge};

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_795_348_800_000 + 1_000 * seconds)
    }

    #[test]
    fn one_entry_is_in_all_statistics_and_a_successor_goes_on_with_them() {
        let mut stats = QueueStats::new(Some(SECOND), time_to_start_edges([SECOND]));
        let message = Context::detached().message().clone();
        let place = stats.accounts.place("mail");
        stats.received(place, &message, at(0));
        let start = CountedStart {
            tag: 7,
            task: "mail",
            tenant: Some("acme"),
            wait: 2 * SECOND,
            is_first: true,
            held: Some(3 * SECOND),
        };
        assert_eq!(stats.started(&start, at(1)), place);
        assert_eq!(stats.started(&CountedStart { is_first: false, held: None, ..start }, at(1)), place);
        let judge = Judge { started_at: Some(at(1)), ..Judge::unstarted(&message, at(5)) };
        let report = Report::of(&judge.judge(Ok("1".to_owned())));
        stats.ended(place, Some("acme"), &report, at(5));
        let mut left = stats.take();
        assert!(stats.accounts.tasks().next().is_none(), "the dead actor has none of them any more");
        let (name, task) = left.accounts.tasks().next().expect("an account");
        assert_eq!((name, task.received, task.started, task.succeeded), ("mail", 1, 2, 1));
        assert_eq!((task.run_times.sum(), left.accounts.limit_waits().sum()), (4 * SECOND, 3 * SECOND));
        assert_eq!((left.time_to_start.snapshot().count, left.accounts.time_to_start().count()), (1, 1));
        let rows = left.minutes.take(&left.accounts);
        let counts = &rows[0].tenants[0].1;
        assert_eq!((rows.len(), counts.received, counts.waits.count()), (1, 0, 1));
    }

    #[test]
    fn a_task_that_came_to_no_run_has_no_run_time() {
        let mut stats = QueueStats::new(None, time_to_start_edges([]));
        let message = Context::detached().message().clone();
        let place = stats.accounts.place("mail");
        let report = Report::of(&Judge::unstarted(&message, at(5)).revoked_waiting());
        stats.ended(place, None, &report, at(5));
        assert_eq!(stats.accounts.tasks().next().map(|(_, task)| task.revoked), Some(1));
        assert_eq!(stats.accounts.run_times().count(), 0);
        stats.ended(place, None, &Report::HANDED_BACK, at(500));
        assert_eq!(stats.minutes.take(&stats.accounts).len(), 1, "what was handed back is no end");
    }
}
