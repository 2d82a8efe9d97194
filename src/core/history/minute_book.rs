//! The minutes of one queue that nobody has taken yet. The queue's actor writes them beside its decisions; a reader takes them
//! about once a minute.
//!
//! Invariants:
//! - The book takes a bounded amount of memory, also if nobody ever takes from it: minutes beyond [`MOST_MINUTES`] are added
//!   to the next one, and tenants beyond [`MOST_TENANTS`] in a minute are counted together. No count is lost.

use std::collections::{HashMap, VecDeque};

use super::{HistoryCounts, HistoryEvent, LONGEST_NAME, WaitSpread, minute_of};
use crate::core::Timestamp;
use crate::core::accounts::{Accounts, OTHER, TaskPlace};
use crate::core::text::shortened;

/// How many minutes wait to be taken.
const MOST_MINUTES: usize = 15;
/// How many tenants are told apart in one minute.
const MOST_TENANTS: usize = 200;

/// The counts of what happened to the tasks of one queue, by the minute.
#[derive(Clone, Debug, Default)]
pub struct MinuteBook {
    /// The minutes, the oldest first.
    minutes: VecDeque<Minute>,
}

#[derive(Clone, Debug, Default)]
struct Minute {
    number: u64,
    /// By the places of the tasks in the accounts of the queue.
    tasks: Vec<HistoryCounts>,
    tenants: HashMap<Box<str>, HistoryCounts>,
    waits: WaitSpread,
}

/// The counts of one minute, by task and by tenant. Tasks of no tenant are among the tasks only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MinuteRows {
    /// The number of the minute.
    pub minute: u64,
    /// The counts of each task, by its name.
    pub tasks: Vec<(Box<str>, HistoryCounts)>,
    /// By tenant, in the order of the names.
    pub tenants: Vec<(Box<str>, HistoryCounts)>,
    /// The waits of all tasks for their first starts.
    pub waits: WaitSpread,
}

impl MinuteBook {
    /// Counts something that happens now to a task of this tenant, if it has one.
    pub fn count(&mut self, now: Timestamp, task: TaskPlace, tenant: Option<&str>, event: HistoryEvent<'_>) {
        self.minute(minute_of(now)).count(task, tenant, event);
    }

    /// Takes all minutes out, the oldest first. `accounts` are those in which the tasks have their places.
    pub fn take(&mut self, accounts: &Accounts) -> Vec<MinuteRows> {
        let minutes = std::mem::take(&mut self.minutes).into_iter();
        minutes.map(|minute| minute.into_rows(accounts)).collect()
    }

    /// The minute of this number. If the clock has stepped back, it is the one that comes before that, or the oldest one.
    fn minute(&mut self, number: u64) -> &mut Minute {
        if self.minutes.back().is_none_or(|last| last.number < number) {
            if self.minutes.len() >= MOST_MINUTES
                && let Some(oldest) = self.minutes.pop_front()
                && let Some(next) = self.minutes.front_mut()
            {
                next.add(oldest);
            }
            self.minutes.push_back(Minute { number, ..Minute::default() });
        }
        let at = self.minutes.iter().rposition(|minute| minute.number <= number).unwrap_or_default();
        &mut self.minutes[at]
    }
}

impl Minute {
    fn count(&mut self, TaskPlace(place): TaskPlace, tenant: Option<&str>, event: HistoryEvent<'_>) {
        self.task(place).count(event);
        if let HistoryEvent::Started { waited: Some(waited) } = event {
            self.waits.record(waited);
        }
        let Some(tenant) = tenant else { return };
        self.tenant(&shortened(tenant, LONGEST_NAME)).count(event);
    }

    fn task(&mut self, place: usize) -> &mut HistoryCounts {
        if self.tasks.len() <= place {
            self.tasks.resize(place + 1, HistoryCounts::default());
        }
        &mut self.tasks[place]
    }

    fn tenant(&mut self, name: &str) -> &mut HistoryCounts {
        let is_known = self.tenants.contains_key(name);
        let name = if is_known || self.tenants.len() < MOST_TENANTS { name } else { OTHER };
        self.tenants.entry(name.into()).or_default()
    }

    fn add(&mut self, other: Self) {
        for (place, counts) in other.tasks.iter().enumerate() {
            self.task(place).add(counts);
        }
        for (name, counts) in &other.tenants {
            self.tenant(name).add(counts);
        }
        self.waits.add(&other.waits);
    }

    fn into_rows(self, accounts: &Accounts) -> MinuteRows {
        let tasks = accounts.tasks().zip(self.tasks).filter(|(_, counts)| !counts.is_empty());
        let mut tenants: Vec<_> = self.tenants.into_iter().collect();
        tenants.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        MinuteRows {
            minute: self.number,
            tasks: tasks.map(|((name, _), counts)| (name.into(), counts)).collect(),
            tenants,
            waits: self.waits,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(minute: u64) -> Timestamp {
        Timestamp::ZERO + MINUTE * u32::try_from(minute).unwrap() + Duration::from_secs(7)
    }

    fn sum<'a>(rows: impl IntoIterator<Item = &'a (Box<str>, HistoryCounts)>) -> HistoryCounts {
        rows.into_iter().fold(HistoryCounts::default(), |mut sum, (_, counts)| {
            sum.add(counts);
            sum
        })
    }

    #[test]
    fn an_event_counts_in_its_minute_for_its_task_and_its_tenant() {
        let (mut book, mut accounts) = (MinuteBook::default(), Accounts::default());
        let (mail, export) = (accounts.place("mail"), accounts.place("export"));
        book.count(at(5), export, Some("acme"), HistoryEvent::Received);
        book.count(at(5), export, None, HistoryEvent::Received);
        book.count(at(6), mail, Some("acme"), HistoryEvent::Started { waited: Some(MINUTE) });
        // A clock that steps back.
        book.count(at(5), mail, None, HistoryEvent::Received);
        book.count(at(2), mail, None, HistoryEvent::Received);
        let rows = book.take(&accounts);
        let told: Vec<_> = rows
            .iter()
            .map(|row| {
                let names = |rows: &[(Box<str>, HistoryCounts)]| {
                    rows.iter().map(|(name, counts)| (name.to_string(), counts.received)).collect::<Vec<_>>()
                };
                (row.minute, names(&row.tasks), names(&row.tenants))
            })
            .collect();
        let row = |name: &str, received: u64| (name.to_owned(), received);
        assert_eq!(told[0], (5, vec![row("mail", 2), row("export", 2)], vec![row("acme", 1)]));
        assert_eq!(told[1], (6, vec![row("mail", 0)], vec![row("acme", 0)]));
        assert_eq!(rows[1].tenants[0].1.waits.sum(), MINUTE);
        assert!(rows[0].waits.is_empty());
        assert!(rows[1].waits.percentile(0.5).is_some_and(|wait| (MINUTE..MINUTE * 6 / 5).contains(&wait)));
        assert!(book.take(&accounts).is_empty(), "each is taken once");
    }

    #[test]
    fn a_long_name_is_cut_and_stays_one_tenant() {
        let (mut book, mut accounts) = (MinuteBook::default(), Accounts::default());
        let mail = accounts.place("mail");
        for _ in 0..3 {
            book.count(at(1), mail, Some(&"t".repeat(10_000)), HistoryEvent::Received);
        }
        let rows = book.take(&accounts);
        assert_eq!((rows[0].tenants.len(), rows[0].tenants[0].1.received), (1, 3));
        assert!(rows[0].tenants[0].0.len() <= LONGEST_NAME);
    }

    proptest! {
        /// Whatever comes, the book is bounded, and its sums are exact.
        #[test]
        fn bounds_hold_and_no_count_is_lost(
            events in prop::collection::vec((0u64..40, 0usize..600, prop::option::of(0usize..500)), 0..2_000),
        ) {
            let (mut book, mut accounts) = (MinuteBook::default(), Accounts::default());
            let mut of_tenants = 0;
            for (minute, task, tenant) in &events {
                let place = accounts.place(&format!("task{task}"));
                let tenant = tenant.map(|tenant| format!("tenant{tenant}"));
                of_tenants += u64::from(tenant.is_some());
                book.count(at(*minute), place, tenant.as_deref(), HistoryEvent::Received);
            }
            let rows = book.take(&accounts);
            prop_assert!(rows.len() <= MOST_MINUTES);
            prop_assert!(rows.windows(2).all(|pair| pair[0].minute < pair[1].minute));
            prop_assert!(rows.iter().all(|row| row.tenants.len() <= MOST_TENANTS + 1));
            let tasks = sum(rows.iter().flat_map(|row| &row.tasks));
            prop_assert_eq!(tasks.received, events.len() as u64);
            prop_assert_eq!(sum(rows.iter().flat_map(|row| &row.tenants)).received, of_tenants);
        }
    }
}
