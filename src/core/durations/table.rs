//! The entries of one kind of key. Of too many, those that ran last stay.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::entry::RunTimeEntry;
use super::sketch::DurationSketch;
use crate::core::Timestamp;

/// Entries by the hashes of their keys.
///
/// When there are an eighth more than may be, the oldest go, so that making room costs little for each run. The newest
/// `most` are always there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RunTimeTable {
    most: usize,
    entries: HashMap<u64, RunTimeEntry>,
    /// The latest time that was recorded: a clock that steps back must not make new entries look old.
    latest: Timestamp,
}

/// An entry as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StoredEntry {
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
    pub(super) fn new(most: usize) -> Self {
        Self { most, entries: HashMap::new(), latest: Timestamp::ZERO }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn get(&self, hash: u64) -> Option<&RunTimeEntry> {
        self.entries.get(&hash)
    }

    /// Records a run of this length that ended at `at`.
    pub(super) fn record(&mut self, hash: u64, took: u64, at: Timestamp) {
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
    pub(super) fn merge(&mut self, other: &Self) {
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
    pub(super) fn keep_newest(&mut self, most: usize) {
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
    pub(super) fn stored(&self) -> Vec<StoredEntry> {
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
    pub(super) fn of_stored(most: usize, stored: Vec<StoredEntry>) -> Self {
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
