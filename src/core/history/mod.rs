//! The history of queues: what happened in each minute, by queue, task and tenant, for seven days.
//!
//! The actor of a queue counts what happens in a [`MinuteBook`], in the minute in which it happens. Once a minute these counts
//! are added to the [`Hour`] that they belong to, and an hour is what a store keeps. Who asks gets [`Rows`] of any range and
//! step, summed over the processes of a fleet.
//!
//! Invariants:
//! - A sum over all names of a queue is exact, however many names there are: what is not told apart is counted as
//!   [`OTHER`](super::accounts::OTHER).
//! - Tasks and tenants are counted side by side and not by pairs, so the history grows with their sum and not with their product.
//! - An hour takes a bounded amount of memory, and a smaller one where it is kept.

mod hour;
mod kept_promise;
mod mark;
mod minute_book;
mod rows;
mod wait_spread;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::accounts::Ended;

pub(crate) use hour::HourWithoutWaits;
pub use hour::{Hour, Resolution};
pub use kept_promise::KeptPromise;
pub use mark::Mark;
pub use minute_book::{MinuteBook, MinuteRows};
pub use rows::{HistoryBy, HistoryFilter, HistoryRow, Rows};
pub use wait_spread::WaitSpread;

/// The time for which the history is kept.
pub const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The number of hours that are kept.
pub const KEPT_HOURS: u64 = KEPT.as_secs() / 3600;

/// How many bytes of the name of a task, a tenant or a queue are kept.
const LONGEST_NAME: usize = 100;

/// The number of the minute that a time is in, counted from 1970.
pub const fn minute_of(at: Timestamp) -> u64 {
    at.as_micros() / 60_000_000
}

/// The number of the hour that a time is in, counted from 1970.
pub const fn hour_of(at: Timestamp) -> u64 {
    minute_of(at) / 60
}

/// The time at which a minute begins.
pub const fn minute_begins(minute: u64) -> Timestamp {
    Timestamp::from_micros(minute.saturating_mul(60_000_000))
}

/// Something that happens to a task, for its history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryEvent<'a> {
    /// The task has come to its queue.
    Received,
    /// A run of the task begins. `waited`: how long the task waited for its first start, if this is the first one.
    Started {
        /// The time-to-start.
        waited: Option<Duration>,
    },
    /// A run is over, or the task is without one.
    Ended {
        /// What became of the task, as the accounts count it.
        ended: Option<Ended<'a>>,
        /// How long the run took, if there was one that counts.
        ran: Option<Duration>,
    },
}

/// Durations that were recorded: how many, their sum, and the longest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DurationTotals {
    count: u64,
    sum_micros: u64,
    max_micros: u64,
}

impl DurationTotals {
    /// Adds a duration to the totals.
    pub fn record(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.count = self.count.saturating_add(1);
        self.sum_micros = self.sum_micros.saturating_add(micros);
        self.max_micros = self.max_micros.max(micros);
    }

    /// Adds durations that were recorded elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.sum_micros = self.sum_micros.saturating_add(other.sum_micros);
        self.max_micros = self.max_micros.max(other.max_micros);
    }

    /// Returns the number of durations that were recorded.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// All of them together, to the microsecond.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_micros)
    }

    /// Returns the longest of the durations.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.max_micros)
    }

    /// The average; zero if there are none.
    pub fn mean(&self) -> Duration {
        Duration::from_micros(self.sum_micros.checked_div(self.count).unwrap_or_default())
    }
}

/// The counts of what happened to some tasks in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HistoryCounts {
    /// Tasks that came to their queue; one that comes again is counted again.
    pub received: u64,
    /// The number of runs that started.
    pub started: u64,
    /// The number of tasks that succeeded.
    pub succeeded: u64,
    /// Tasks that failed for good, dead letters among them.
    pub failed: u64,
    /// Attempts that failed and were tried again.
    pub retried: u64,
    /// Tasks that were revoked or had expired.
    pub revoked: u64,
    /// The times for which tasks waited for their first start: time-to-start.
    pub waits: DurationTotals,
    /// The times that the runs took, however they ended.
    pub runs: DurationTotals,
}

impl HistoryCounts {
    /// Counts an event of a task.
    pub fn count(&mut self, event: HistoryEvent<'_>) {
        match event {
            HistoryEvent::Received => self.received += 1,
            HistoryEvent::Started { waited } => {
                self.started += 1;
                if let Some(waited) = waited {
                    self.waits.record(waited);
                }
            }
            HistoryEvent::Ended { ended, ran } => {
                match ended {
                    Some(Ended::Succeeded) => self.succeeded += 1,
                    Some(Ended::Failed(_) | Ended::Rejected(_)) => self.failed += 1,
                    Some(Ended::Retried) => self.retried += 1,
                    Some(Ended::Revoked) => self.revoked += 1,
                    Some(Ended::PutBack) | None => {}
                }
                if let Some(ran) = ran {
                    self.runs.record(ran);
                }
            }
        }
    }

    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.received = self.received.saturating_add(other.received);
        self.started = self.started.saturating_add(other.started);
        self.succeeded = self.succeeded.saturating_add(other.succeeded);
        self.failed = self.failed.saturating_add(other.failed);
        self.retried = self.retried.saturating_add(other.retried);
        self.revoked = self.revoked.saturating_add(other.revoked);
        self.waits.add(&other.waits);
        self.runs.add(&other.runs);
    }

    /// Says whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_event_counts_once() {
        let mut counts = HistoryCounts::default();
        for event in [
            HistoryEvent::Received,
            HistoryEvent::Started { waited: Some(3 * SECOND) },
            HistoryEvent::Started { waited: None },
            HistoryEvent::Ended { ended: Some(Ended::Retried), ran: Some(SECOND) },
            HistoryEvent::Ended { ended: Some(Ended::Succeeded), ran: Some(2 * SECOND) },
            HistoryEvent::Ended { ended: Some(Ended::Failed("E")), ran: None },
            HistoryEvent::Ended { ended: Some(Ended::Rejected("E")), ran: None },
            HistoryEvent::Ended { ended: Some(Ended::Revoked), ran: None },
            HistoryEvent::Ended { ended: Some(Ended::PutBack), ran: None },
            HistoryEvent::Ended { ended: None, ran: Some(SECOND) },
        ] {
            counts.count(event);
        }
        let HistoryCounts { received, started, succeeded, failed, retried, revoked, waits, runs } = counts;
        assert_eq!((received, started, succeeded, failed, retried, revoked), (1, 2, 1, 2, 1, 1));
        assert_eq!((waits.count(), waits.sum(), waits.max()), (1, 3 * SECOND, 3 * SECOND));
        assert_eq!((runs.count(), runs.sum(), runs.max()), (3, 4 * SECOND, 2 * SECOND));
        assert_eq!(
            (runs.mean(), DurationTotals::default().mean()),
            (Duration::from_micros(1_333_333), Duration::ZERO)
        );
    }

    #[test]
    fn absurd_durations_saturate() {
        let mut totals = DurationTotals::default();
        totals.record(Duration::MAX);
        totals.record(Duration::MAX);
        assert_eq!((totals.count(), totals.max()), (2, Duration::from_micros(u64::MAX)));
    }
}
