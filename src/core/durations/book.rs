//! The run times of one process, or of several that were added up: a table for each kind of key. A key is a hash, so that a book
//! has entries of one size, and so that no argument stands in it. Of too many entries of a kind, those that ran last stay.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::RunTimeFigures;
use super::entry::RunTimeEntry;
use super::sketch::DurationSketch;
use crate::core::Timestamp;

/// How many tasks are told apart: those that ran last.
pub const MOST_TASKS: usize = 1_000;
/// How many pairs of a task and a tenant are told apart.
pub const MOST_TENANTS: usize = 10_000;
/// How many values of arguments are told apart.
pub const MOST_VALUES: usize = 10_000;

/// What run times are kept of: a task, the runs of a task for one tenant, or those with one value of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunTimeKey {
    kind: KeyKind,
    hash: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum KeyKind {
    Task,
    Tenant,
    Value,
}

impl RunTimeKey {
    /// All runs of a task.
    pub fn of_task(task: &str) -> Self {
        Self { kind: KeyKind::Task, hash: hash([task]) }
    }

    /// The runs of a task for one tenant.
    pub fn of_tenant(task: &str, tenant: &str) -> Self {
        Self { kind: KeyKind::Tenant, hash: hash([task, tenant]) }
    }

    /// The runs of a task with this value of an argument. Values of different tenants are told apart, because the seventh
    /// report of one is not that of another.
    pub fn of_value(task: &str, tenant: Option<&str>, argument: &str, value: &str) -> Self {
        Self { kind: KeyKind::Value, hash: hash([task, tenant.unwrap_or_default(), argument, value]) }
    }
}

/// The keys by which a call of a task may be known. The first one that is known counts.
///
/// With an argument and its value, only runs with that value count: what another export took says nothing about this one.
/// Else the runs for the tenant count, and those of the task where the tenant has none.
pub fn keys_of_call(
    task: &str,
    tenant: Option<&str>,
    value: Option<(&str, &str)>,
) -> impl Iterator<Item = RunTimeKey> + use<> {
    let keys = match value {
        Some((argument, value)) => [Some(RunTimeKey::of_value(task, tenant, argument, value)), None],
        None => [tenant.map(|tenant| RunTimeKey::of_tenant(task, tenant)), Some(RunTimeKey::of_task(task))],
    };
    keys.into_iter().flatten()
}

/// The same on every machine and in every version, because keys are kept.
fn hash<const PARTS: usize>(parts: [&str; PARTS]) -> u64 {
    let mut hash = Xxh3::new();
    for part in parts {
        // Its length keeps a part apart from the next one.
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.digest()
}

/// A table of measured run times, by their keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredBook", into = "StoredBook")]
pub struct RunTimeBook {
    tasks: RunTimeTable,
    tenants: RunTimeTable,
    values: RunTimeTable,
}

/// A book as it is kept.
#[derive(Serialize, Deserialize)]
struct StoredBook {
    tasks: Vec<StoredEntry>,
    tenants: Vec<StoredEntry>,
    values: Vec<StoredEntry>,
}

impl Default for RunTimeBook {
    fn default() -> Self {
        Self {
            tasks: RunTimeTable::new(MOST_TASKS),
            tenants: RunTimeTable::new(MOST_TENANTS),
            values: RunTimeTable::new(MOST_VALUES),
        }
    }
}

impl RunTimeBook {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.tenants.is_empty() && self.values.is_empty()
    }

    /// Records a run of this length, which ended at `at`, under each of these keys.
    pub fn record(&mut self, keys: &[RunTimeKey], took: Duration, at: Timestamp) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        for key in keys {
            let table = match key.kind {
                KeyKind::Task => &mut self.tasks,
                KeyKind::Tenant => &mut self.tenants,
                KeyKind::Value => &mut self.values,
            };
            table.record(key.hash, micros, at);
        }
    }

    /// Adds what was recorded elsewhere.
    pub fn merge(&mut self, other: &Self) {
        self.tasks.merge(&other.tasks);
        self.tenants.merge(&other.tenants);
        self.values.merge(&other.values);
    }

    /// Leaves of each kind only the keys that ran last, so many of them.
    pub fn keep_newest(&mut self, most: usize) {
        self.tasks.keep_newest(most);
        self.tenants.keep_newest(most);
        self.values.keep_newest(most);
    }

    fn entry(&self, key: RunTimeKey) -> Option<&RunTimeEntry> {
        let table = match key.kind {
            KeyKind::Task => &self.tasks,
            KeyKind::Tenant => &self.tenants,
            KeyKind::Value => &self.values,
        };
        table.get(key.hash)
    }
}

/// What these books say of a key together. `None`: none of them knows it.
pub fn figures<'b>(
    books: impl IntoIterator<Item = &'b RunTimeBook>,
    key: RunTimeKey,
) -> Option<RunTimeFigures> {
    let mut entries = books.into_iter().filter_map(|book| book.entry(key));
    let first = entries.next()?;
    let Some(second) = entries.next() else { return Some(first.figures()) };
    let mut sum = first.clone();
    sum.merge(second);
    entries.for_each(|entry| sum.merge(entry));
    Some(sum.figures())
}

impl From<RunTimeBook> for StoredBook {
    fn from(book: RunTimeBook) -> Self {
        let RunTimeBook { tasks, tenants, values } = book;
        Self { tasks: tasks.stored(), tenants: tenants.stored(), values: values.stored() }
    }
}

impl From<StoredBook> for RunTimeBook {
    fn from(StoredBook { tasks, tenants, values }: StoredBook) -> Self {
        Self {
            tasks: RunTimeTable::of_stored(MOST_TASKS, tasks),
            tenants: RunTimeTable::of_stored(MOST_TENANTS, tenants),
            values: RunTimeTable::of_stored(MOST_VALUES, values),
        }
    }
}

/// Entries by the hashes of their keys.
///
/// When there are an eighth more than may be, the oldest go, so that making room costs little for each run. The newest
/// `most` are always there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RunTimeTable {
    most: usize,
    entries: HashMap<u64, RunTimeEntry>,
    /// The latest time that was recorded: a clock that steps back must not make new entries look old.
    latest: Timestamp,
}

/// An entry as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredEntry {
    hash: [u8; 8],
    /// How many microseconds its last run ended after that of the entry before it; of the first one, after 1970.
    later: u64,
    last: u64,
    more: Option<StoredRuns>,
}

/// What an entry has of several runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredRuns {
    count: u64,
    sum: u64,
    buckets: Vec<(u8, u16)>,
}

impl RunTimeTable {
    /// A table for so many entries.
    fn new(most: usize) -> Self {
        Self { most, entries: HashMap::new(), latest: Timestamp::ZERO }
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn get(&self, hash: u64) -> Option<&RunTimeEntry> {
        self.entries.get(&hash)
    }

    /// Records a run of this length that ended at `at`.
    fn record(&mut self, hash: u64, took: u64, at: Timestamp) {
        self.latest = self.latest.max(at);
        let at = self.latest;
        match self.entries.get_mut(&hash) {
            Some(entry) => entry.record(took, at),
            None => {
                self.entries.insert(hash, RunTimeEntry::new(took, at));
                self.make_room();
            }
        }
    }

    /// Adds the entries of another table.
    fn merge(&mut self, other: &Self) {
        for (hash, entry) in &other.entries {
            match self.entries.get_mut(hash) {
                Some(known) => known.merge(entry),
                None => drop(self.entries.insert(*hash, entry.clone())),
            }
        }
        self.latest = self.latest.max(other.latest);
        self.make_room();
    }

    /// Leaves only the entries that ran last, so many of them.
    fn keep_newest(&mut self, most: usize) {
        let Some(too_many) = self.entries.len().checked_sub(most).filter(|more| *more > 0) else { return };
        if most == 0 {
            self.entries.clear();
            return;
        }
        let mut ages: Vec<_> = self.entries.iter().map(|(hash, entry)| (entry.at(), *hash)).collect();
        let (_, oldest, _) = ages.select_nth_unstable(too_many);
        let oldest = *oldest;
        self.entries.retain(|hash, entry| (entry.at(), *hash) >= oldest);
    }

    fn make_room(&mut self) {
        if self.entries.len() > self.most + self.most / 8 {
            self.keep_newest(self.most);
        }
    }

    /// The entries as they are kept, the oldest first.
    fn stored(&self) -> Vec<StoredEntry> {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_unstable_by_key(|(hash, entry)| (entry.at(), **hash));
        let mut before = Timestamp::ZERO;
        let stored = entries.into_iter().map(|(hash, entry)| {
            let later = entry.at().as_micros() - before.as_micros();
            before = entry.at();
            let more = entry.more().map(|(count, sum, buckets)| {
                let buckets = buckets.to_vec();
                StoredRuns { count, sum, buckets }
            });
            StoredEntry { hash: hash.to_le_bytes(), later, last: entry.last(), more }
        });
        stored.collect()
    }

    /// A table for so many entries with these in it.
    fn of_stored(most: usize, stored: Vec<StoredEntry>) -> Self {
        let mut table = Self::new(most);
        let mut micros = 0_u64;
        for StoredEntry { hash, later, last, more } in stored {
            micros = micros.saturating_add(later);
            let at = Timestamp::from_micros(micros);
            let entry = match more {
                None => RunTimeEntry::new(last, at),
                Some(StoredRuns { count, sum, buckets }) => {
                    RunTimeEntry::kept(at, last, count, sum, DurationSketch::of(&buckets))
                }
            };
            table.entries.insert(u64::from_le_bytes(hash), entry);
            table.latest = at;
        }
        table.make_room();
        table
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_millis(second * 1_000)
    }

    #[test]
    fn a_clock_that_steps_back_makes_nothing_look_old() {
        let mut table = RunTimeTable::new(8);
        (0..8).for_each(|hash| table.record(hash, 1, at(1_000 + hash)));
        table.record(100, 1, at(5));
        table.record(101, 1, at(6));
        assert!(table.get(100).is_some() && table.get(101).is_some() && table.get(0).is_none());
    }

    proptest! {
        /// However many keys there are, the newest are known and the number is bounded.
        #[test]
        fn the_newest_are_there(runs in prop::collection::vec(0u64..60, 0..400)) {
            let mut table = RunTimeTable::new(16);
            for (second, hash) in (0..).zip(&runs) {
                table.record(*hash, second, at(second));
                prop_assert!(table.entries.len() <= 18);
            }
            let mut newest: Vec<u64> = Vec::new();
            for hash in runs.iter().rev() {
                if !newest.contains(hash) {
                    newest.push(*hash);
                }
            }
            for hash in newest.iter().take(16) {
                let last = runs.iter().rposition(|run| run == hash).unwrap() as u64;
                prop_assert_eq!(table.get(*hash).map(RunTimeEntry::last), Some(last));
            }
            table.keep_newest(5);
            let mut left: Vec<u64> = table.entries.keys().copied().collect();
            left.sort_unstable();
            newest.truncate(5);
            newest.sort_unstable();
            prop_assert_eq!(left, newest);
            table.keep_newest(0);
            prop_assert!(table.is_empty());
        }

        /// What is kept is read back as it was written.
        #[test]
        fn a_table_is_read_as_it_was_written(
            runs in prop::collection::vec((0u64..20, any::<u32>(), 0u64..1_000), 0..300),
        ) {
            let mut table = RunTimeTable::new(16);
            for (hash, took, second) in &runs {
                table.record(*hash, u64::from(*took), at(*second));
            }
            let bytes = postcard::to_stdvec(&table.stored()).unwrap();
            let read = RunTimeTable::of_stored(16, postcard::from_bytes(&bytes).unwrap());
            prop_assert_eq!(&read.entries, &table.entries);
        }
    }
}
