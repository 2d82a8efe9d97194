//! What somebody asks of the history: rows of a range of time, by a step, and by queue, task or tenant.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::hour::NamesOf;
use super::{HistoryCounts, Hour, WaitSpread, hour_of, minute_begins, minute_of};
use crate::core::Timestamp;
use crate::core::json_time::{iso, millis, optional_millis};

/// The kind of things that the rows of a history tell apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HistoryBy {
    /// Nothing: there is one row for each step.
    #[default]
    All,
    /// The queues.
    Queue,
    /// The tasks.
    Task,
    /// The tenants. What happened to tasks of no tenant is in none of these rows.
    Tenant,
}

/// Which part of a history is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryFilter {
    /// The beginning of the range; the minute that it is in belongs to the range.
    pub from: Timestamp,
    /// The end of the range, which does not belong to it.
    pub until: Timestamp,
    /// The length of a step in whole minutes, one at least. Steps begin at multiples of their length after 1970, in UTC.
    pub step: Duration,
    /// The kind of things that the rows tell apart.
    pub by: HistoryBy,
    /// The only queue that counts.
    pub queue: Option<String>,
    /// The only task, tenant or queue that has rows: a name of the kind that the rows tell apart.
    pub name: Option<String>,
}

/// The counts of a queue, a task or a tenant in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRow {
    /// The beginning of the step.
    pub at: Timestamp,
    /// The name of the queue, the task or the tenant; [`OTHER`](crate::core::accounts::OTHER) for all that are not told
    /// apart; empty if the rows tell nothing apart.
    pub name: String,
    /// The counts of what happened.
    pub counts: HistoryCounts,
    /// The spread of the waits for first starts, if the rows are those of queues, or of all. What was written before this was
    /// kept has none.
    pub waits: WaitSpread,
}

/// Rows that are being summed up.
#[derive(Clone, Debug)]
pub struct Rows {
    filter: HistoryFilter,
    /// By the first minute of the step, and by name.
    rows: BTreeMap<(u64, String), (HistoryCounts, WaitSpread)>,
}

impl HistoryFilter {
    /// Everything between two times, by the hour, in one row for each.
    pub fn between(from: Timestamp, until: Timestamp) -> Self {
        let step = Duration::from_secs(3600);
        Self { from, until, step, by: HistoryBy::All, queue: None, name: None }
    }

    /// The numbers of the hours that the range touches.
    pub fn hours(&self) -> impl Iterator<Item = u64> + use<> {
        let last = self.until.as_micros().checked_sub(1).map(|last| hour_of(Timestamp::from_micros(last)));
        let first = hour_of(self.from);
        first..last.map_or(first, |last| last + 1)
    }

    /// Whether something that happened then is in the range.
    pub fn has(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.until
    }

    fn has_minute(&self, minute: u64) -> bool {
        minute_of(self.from) <= minute && minute_begins(minute) < self.until
    }

    /// The first minute of the step that a minute is in.
    fn step_of(&self, minute: u64) -> u64 {
        let length = (self.step.as_secs() / 60).max(1);
        minute - minute % length
    }
}

impl Rows {
    /// Makes a collection that has no rows yet.
    pub fn new(filter: HistoryFilter) -> Self {
        Self { filter, rows: BTreeMap::new() }
    }

    /// Adds what an hour of some process has of the range. `number` is that of the hour.
    pub fn add(&mut self, number: u64, hour: &Hour) {
        let Self { filter, rows } = self;
        let of = if filter.by == HistoryBy::Tenant { NamesOf::Tenants } else { NamesOf::Tasks };
        let minute_of_hour = |minute: u8| number.saturating_mul(60).saturating_add(minute.into());
        for (queue, name, minute, counts) in hour.counts(of) {
            let minute = minute_of_hour(minute);
            let name = match filter.by {
                HistoryBy::All => "",
                HistoryBy::Queue => queue,
                HistoryBy::Task | HistoryBy::Tenant => name,
            };
            let is_asked_for = filter.has_minute(minute)
                && filter.queue.as_deref().is_none_or(|only| only == queue)
                && filter.name.as_deref().is_none_or(|only| only == name);
            if is_asked_for {
                rows.entry((filter.step_of(minute), name.to_owned())).or_default().0.add(counts);
            }
        }
        if !matches!(filter.by, HistoryBy::All | HistoryBy::Queue) {
            return;
        }
        for (queue, minute, waits) in hour.waits() {
            let (minute, name) =
                (minute_of_hour(minute), if filter.by == HistoryBy::Queue { queue } else { "" });
            let is_asked_for = filter.has_minute(minute)
                && filter.queue.as_deref().is_none_or(|only| only == queue)
                && filter.name.as_deref().is_none_or(|only| only == name);
            // Who waited has started, so there is a row.
            if is_asked_for && let Some((_, all)) = rows.get_mut(&(filter.step_of(minute), name.to_owned())) {
                all.add(waits);
            }
        }
    }

    /// The rows, by time and then by name.
    pub fn finish(self) -> Vec<HistoryRow> {
        let rows = self.rows.into_iter();
        let row =
            |((minute, name), (counts, waits))| HistoryRow { at: minute_begins(minute), name, counts, waits };
        rows.map(row).collect()
    }
}

/// A row as it is written: durations are numbers of milliseconds.
#[derive(Serialize)]
struct WrittenRow<'a> {
    #[serde(serialize_with = "iso")]
    at: Timestamp,
    name: &'a str,
    received: u64,
    started: u64,
    succeeded: u64,
    failed: u64,
    retried: u64,
    revoked: u64,
    first_starts: u64,
    #[serde(serialize_with = "millis")]
    time_to_start_sum_ms: Duration,
    #[serde(serialize_with = "millis")]
    time_to_start_max_ms: Duration,
    #[serde(serialize_with = "optional_millis")]
    time_to_start_p50_ms: Option<Duration>,
    #[serde(serialize_with = "optional_millis")]
    time_to_start_p95_ms: Option<Duration>,
    runs: u64,
    #[serde(serialize_with = "millis")]
    run_time_sum_ms: Duration,
    #[serde(serialize_with = "millis")]
    run_time_max_ms: Duration,
}

impl Serialize for HistoryRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let HistoryCounts { received, started, succeeded, failed, retried, revoked, waits, runs } =
            self.counts;
        let row = WrittenRow {
            at: self.at,
            name: &self.name,
            received,
            started,
            succeeded,
            failed,
            retried,
            revoked,
            first_starts: waits.count(),
            time_to_start_sum_ms: waits.sum(),
            time_to_start_max_ms: waits.max(),
            time_to_start_p50_ms: self.waits.percentile(0.5),
            time_to_start_p95_ms: self.waits.percentile(0.95),
            runs: runs.count(),
            run_time_sum_ms: runs.sum(),
            run_time_max_ms: runs.max(),
        };
        row.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::history::MinuteRows;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(minute: u64) -> Timestamp {
        minute_begins(minute)
    }

    fn received(received: u64) -> HistoryCounts {
        HistoryCounts { received, ..HistoryCounts::default() }
    }

    fn hour(minute: u64, queue: &str, task: &str, tenant: &str, count: u64) -> (u64, Hour) {
        let mut hour = Hour::default();
        let of = |name: &str| vec![(Box::from(name), received(count))];
        hour.add(
            queue,
            &MinuteRows { minute, tasks: of(task), tenants: of(tenant), ..MinuteRows::default() },
        );
        (minute / 60, hour)
    }

    fn told(filter: HistoryFilter) -> Vec<(u64, String, u64)> {
        let mut rows = Rows::new(filter);
        for (number, hour) in [
            hour(600, "q", "mail", "acme", 1),
            hour(604, "q", "export", "acme", 2),
            hour(605, "p", "mail", "zoo", 4),
            hour(661, "q", "mail", "zoo", 8),
        ] {
            rows.add(number, &hour);
        }
        let rows = rows.finish().into_iter();
        rows.map(|row| (minute_of(row.at), row.name, row.counts.received)).collect()
    }

    #[test]
    fn rows_are_by_what_is_asked_for() {
        let all = HistoryFilter::between(at(600), at(720));
        let row = |minute: u64, name: &str, received: u64| (minute, name.to_owned(), received);
        assert_eq!(told(all.clone()), [row(600, "", 7), row(660, "", 8)]);
        let by = |by| HistoryFilter { by, step: 120 * MINUTE, ..all.clone() };
        assert_eq!(told(by(HistoryBy::Queue)), [row(600, "p", 4), row(600, "q", 11)]);
        assert_eq!(told(by(HistoryBy::Task)), [row(600, "export", 2), row(600, "mail", 13)]);
        assert_eq!(told(by(HistoryBy::Tenant)), [row(600, "acme", 3), row(600, "zoo", 12)]);
        let of_queue = HistoryFilter { queue: Some("q".into()), ..by(HistoryBy::Tenant) };
        assert_eq!(told(of_queue.clone()), [row(600, "acme", 3), row(600, "zoo", 8)]);
        let one = HistoryFilter { name: Some("zoo".into()), ..of_queue };
        assert_eq!(told(one), [row(600, "zoo", 8)]);
    }

    #[test]
    fn a_range_has_its_first_minute_and_not_its_end() {
        let filter = |from, until| HistoryFilter { step: MINUTE, ..HistoryFilter::between(from, until) };
        let row = |minute: u64, received: u64| (minute, String::new(), received);
        assert_eq!(told(filter(at(604) + MINUTE / 2, at(605))), [row(604, 2)]);
        assert_eq!(told(filter(at(604), at(605) + MINUTE / 2)), [row(604, 2), row(605, 4)]);
        assert!(told(filter(at(700), at(600))).is_empty());
        let hours = |from, until| HistoryFilter::between(from, until).hours().collect::<Vec<_>>();
        assert_eq!(hours(at(600), at(660)), [10]);
        assert_eq!(hours(at(659), at(661)), [10, 11]);
        assert_eq!(hours(at(660), at(600)), [0; 0]);
        assert_eq!(hours(Timestamp::ZERO, Timestamp::ZERO), [0; 0]);
    }

    #[test]
    fn a_row_in_json_has_milliseconds() {
        let mut counts = received(2);
        counts.waits.record(Duration::from_millis(1_500));
        let (at, mut waits) = (Timestamp::from_millis(1_795_348_800_000), WaitSpread::default());
        waits.record(Duration::from_millis(1_500));
        let row = HistoryRow { at, name: "q".into(), counts, waits };
        let json = serde_json::to_value(row).unwrap();
        assert_eq!((&json["at"], &json["name"]), (&"2026-11-22T12:00:00+00:00".into(), &"q".into()));
        assert_eq!((&json["received"], &json["first_starts"]), (&2.into(), &1.into()));
        let p95 = json["time_to_start_p95_ms"].as_f64().unwrap();
        assert!((1_500.0..1_800.0).contains(&p95), "{p95}");
        assert_eq!((&json["time_to_start_sum_ms"], &json["run_time_max_ms"]), (&1_500.0.into(), &0.0.into()));
    }

    proptest! {
        /// In whatever steps, the rows of a range add up to what happened in it.
        #[test]
        fn rows_add_up(
            happened in prop::collection::vec((0u64..300, 0usize..5, 0u64..50), 0..100),
            step in 0u64..200,
            from in 0u64..300,
            length in 0u64..300,
        ) {
            let until = from + length;
            let in_range = happened.iter().filter(|(minute, ..)| (from..until).contains(minute));
            let expected: u64 = in_range.map(|(.., count)| *count).sum();
            for by in [HistoryBy::All, HistoryBy::Queue, HistoryBy::Task, HistoryBy::Tenant] {
                let step = MINUTE * u32::try_from(step).unwrap();
                let mut rows =
                    Rows::new(HistoryFilter { by, step, ..HistoryFilter::between(at(from), at(until)) });
                for (minute, name, count) in &happened {
                    let name = format!("name{name}");
                    let (number, hour) = hour(*minute, &name, &name, &name, *count);
                    rows.add(number, &hour);
                }
                let sum: u64 = rows.finish().iter().map(|row| row.counts.received).sum();
                prop_assert_eq!(sum, expected);
            }
        }
    }
}
