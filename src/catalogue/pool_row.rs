//! The pools whose queues share slots: `[pool.io]`, `[pool.cpu]`, `[pool.process]`. Without such a table each queue has its
//! workers to itself.

use std::collections::BTreeMap;

use super::check::{MistakeSubject, SubjectPositions};
use super::error::{Problem, quote};
use super::queue_row::{Pool, QueueRow};
use super::section::{Section, SourceText};

const KEYS: [&str; 3] = ["slots", "reserve", "room"];

/// The slots that the queues of one pool share.
///
/// ```
/// use celeriac::catalogue::{Catalogue, Pool, PoolRow, QueueRow};
/// let catalogue = Catalogue::new()
///     .with_pool(Pool::Io, PoolRow::new(40).with_reserve(2))
///     .with_queue(QueueRow::new("celery").with_io_bound(true).with_workers(30).with_min_workers(2));
/// assert_eq!(catalogue.validate(), Ok(()));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolRow {
    /// How many tasks of all its queues run at a time. The `workers` of a queue are the most that it has of them.
    pub slots: usize,
    /// How many slots tasks leave free that take longer than a tighter promise than their own. `None`: as many as urgent tasks
    /// have needed in the last week.
    pub reserve: Option<usize>,
    /// How many slots one tenant leaves to others while any are about. `None`: a fifth, rounded up, of a pool of three slots or
    /// more.
    pub room: Option<usize>,
}

impl PoolRow {
    /// A pool of so many slots.
    pub fn new(slots: usize) -> Self {
        Self { slots, reserve: None, room: None }
    }

    /// Sets how many slots are kept free for promises that are tighter than a long task's own.
    #[must_use]
    pub fn with_reserve(mut self, reserve: usize) -> Self {
        self.reserve = Some(reserve);
        self
    }

    /// Sets how many slots one tenant leaves to others while any are about.
    #[must_use]
    pub fn with_room(mut self, room: usize) -> Self {
        self.room = Some(room);
        self
    }
}

/// The keys that a table of a pool states. In an environment the others are those of the base.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct PoolColumns {
    slots: Option<u32>,
    reserve: Option<u32>,
    room: Option<u32>,
}

impl PoolColumns {
    /// The pool with these keys laid over it. `None`: nothing says how many slots it has.
    pub(super) fn apply(self, base: Option<PoolRow>) -> Option<PoolRow> {
        let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let slots = self.slots.map(count).or_else(|| base.map(|base| base.slots))?;
        Some(PoolRow {
            slots,
            reserve: self.reserve.map(count).or_else(|| base?.reserve),
            room: self.room.map(count).or_else(|| base?.room),
        })
    }
}

/// Reads the table `pool` of the file or of an environment.
pub(super) fn read(
    section: &Section<'_>,
    environment: Option<&str>,
    places: &mut SubjectPositions,
    source: &mut SourceText<'_>,
) -> BTreeMap<Pool, PoolColumns> {
    let mut pools = BTreeMap::new();
    let within = environment.map_or_else(String::new, |name| format!("environment {}, ", quote(name)));
    let Some(all) = section.table("pool", format!("in {within}pool"), source) else { return pools };
    all.refuse_unknown_keys(&Pool::ALL.map(Pool::as_str), source);
    for pool in Pool::ALL {
        let place = format!("in {within}pool {}", quote(pool.as_str()));
        let Some(table) = all.table(pool.as_str(), place, source) else { continue };
        table.refuse_unknown_keys(&KEYS, source);
        let columns = PoolColumns {
            slots: table.number("slots", 1, source),
            // Zero is allowed: then nothing is kept free.
            reserve: table.number("reserve", 0, source),
            room: table.number("room", 0, source),
        };
        if environment.is_none() && table.get("slots").is_none() {
            source.report(table.at, missing_slots(pool, ""));
        }
        places.insert(MistakeSubject::Pool(environment.map(str::to_owned), pool), source.position(table.at));
        pools.insert(pool, columns);
    }
    pools
}

/// The mistake that nothing says how many slots a pool has.
pub(super) fn missing_slots(pool: Pool, within: &str) -> Problem {
    let place = format!("{within}pool {}", quote(pool.as_str()));
    Problem::MissingKey { place, key: "slots", example: "40" }
}

/// What a rule about pools is broken by: a row, by its place among all, or a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Culprit {
    Queue(usize),
    Pool(Pool),
}

/// What is wrong between these rows and the pools that they share. `within` names the environment in errors.
pub(super) fn faults(
    rows: &[QueueRow],
    pools: &BTreeMap<Pool, PoolRow>,
    within: &str,
) -> Vec<(Culprit, Problem)> {
    let mut faults = Vec::new();
    for (index, row) in rows.iter().enumerate().filter(|(_, row)| row.min_workers > row.most_workers()) {
        let most = row.most_workers();
        let advice = format!("it is guaranteed more than its workers, which are {most}: write at most that");
        let problem = Problem::BadValue {
            key: "min_workers".to_owned(),
            place: format!("in {within}queue {}", quote(&row.name)),
            value: row.min_workers.to_string(),
            advice,
        };
        faults.push((Culprit::Queue(index), problem));
    }
    for (pool, row) in pools {
        let mut bad = |key: &str, value: usize, advice: String| {
            let place = format!("in {within}pool {}", quote(pool.as_str()));
            let problem = Problem::BadValue { key: key.to_owned(), place, value: value.to_string(), advice };
            faults.push((Culprit::Pool(*pool), problem));
        };
        if row.slots == 0 {
            bad("slots", 0, "set at least 1".to_owned());
            continue;
        }
        for (key, kept) in [("reserve", row.reserve), ("room", row.room)] {
            if let Some(kept) = kept.filter(|kept| *kept >= row.slots) {
                bad(key, kept, format!("it leaves no slot of {}: write less than that", row.slots));
            }
        }
        let shared = rows.iter().filter(|row| row.served && row.shared && row.pool == *pool);
        let guaranteed = shared.fold(0, |sum: usize, row| sum.saturating_add(row.min_workers));
        if guaranteed > row.slots {
            let advice = format!(
                "its queues are guaranteed {guaranteed} workers together: write at least {guaranteed}, or lower their min_workers"
            );
            bad("slots", row.slots, advice);
        }
    }
    faults
}
