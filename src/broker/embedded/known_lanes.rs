//! Lanes that are not idle, in memory: a run of a key that nobody else uses asks the disk nothing.
//!
//! - What is here is what is on disk: it changes when a commit is safe, and is forgotten when the store is opened again.
//! - How many there are on disk is written down with them. As long as all of them are here, a lane that is not is idle; so it
//!   is from the start of an empty store, and again when those have gone that were not here.

use std::collections::HashMap;
use std::ops::Bound;

use super::lanes::RECORD;
use super::rows::LANES;
use super::tables::{Table, Tables};
use crate::broker::BrokerError;
use crate::core::lane::Lane;
use crate::task::{LaneName, TaskId};

/// So many at most: some MiB.
const MOST: usize = 16_384;

/// What is known of lanes without looking.
#[derive(Default)]
pub(super) struct KnownLanes {
    lanes: HashMap<LaneName, Lane<TaskId>>,
    /// How many have a record on disk.
    on_disk: u64,
}

/// What a commit does to records of lanes.
#[derive(Default)]
pub(super) struct Changes {
    /// Lanes as they are afterwards; `None`: idle.
    lanes: Vec<(LaneName, Option<Lane<TaskId>>)>,
    came: u64,
    went: u64,
}

impl Changes {
    /// A lane afterwards, and whether it had a record before.
    pub(super) fn push(&mut self, name: LaneName, lane: Option<Lane<TaskId>>, had_record: bool) {
        self.came += u64::from(lane.is_some() && !had_record);
        self.went += u64::from(lane.is_none() && had_record);
        self.lanes.push((name, lane));
    }
}

impl KnownLanes {
    /// Of a store that was opened.
    pub(super) fn open(tables: &Tables) -> Result<Self, BrokerError> {
        let on_disk = match tables.get(Table::Meta, LANES)?.and_then(|row| <[u8; 8]>::try_from(&*row).ok()) {
            Some(row) => u64::from_be_bytes(row),
            None => tables.range(Table::Lanes, &[RECORD], Bound::Excluded(&[RECORD + 1]))?.count() as u64,
        };
        Ok(Self { lanes: HashMap::new(), on_disk })
    }

    /// A lane; `Some(None)`: it is idle; `None`: look on disk.
    pub(super) fn get(&self, name: &LaneName) -> Option<Option<&Lane<TaskId>>> {
        match self.lanes.get(name) {
            None if (self.lanes.len() as u64) < self.on_disk => None,
            known => Some(known),
        }
    }

    /// How many have a record after this, if that is another number than before.
    pub(super) fn count_after(&self, changes: &Changes) -> Option<u64> {
        (changes.came != changes.went).then(|| (self.on_disk + changes.came).saturating_sub(changes.went))
    }

    /// A commit is safe.
    pub(super) fn take(&mut self, changes: Changes) {
        self.on_disk = self.count_after(&changes).unwrap_or(self.on_disk);
        for (name, lane) in changes.lanes {
            match lane {
                None => drop(self.lanes.remove(&name)),
                Some(lane) => {
                    if self.lanes.len() >= MOST && !self.lanes.contains_key(&name) {
                        self.lanes.clear();
                    }
                    self.lanes.insert(name, lane);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> LaneName {
        LaneName::new("scope", number.to_string())
    }

    /// Lanes come, or go.
    fn change(known: &mut KnownLanes, numbers: impl IntoIterator<Item = usize>, come: bool) {
        let mut changes = Changes::default();
        for number in numbers {
            changes.push(name(number), come.then(|| Lane::new(0)), !come);
        }
        known.take(changes);
    }

    #[test]
    fn what_is_not_known_is_idle_while_all_are_known() {
        let mut known = KnownLanes::default();
        let stranger = name(usize::MAX);
        assert_eq!(known.get(&stranger), Some(None));
        change(&mut known, 0..MOST, true);
        assert_eq!(known.get(&stranger), Some(None));
        change(&mut known, [1], false);
        assert_eq!(known.get(&name(1)), Some(None));
        change(&mut known, [MOST, MOST + 1], true);
        assert_eq!(known.get(&stranger), None, "there are too many");
        assert_eq!(known.get(&name(0)), None, "forgotten, not idle");
        assert_eq!(known.get(&name(MOST + 1)), Some(Some(&Lane::new(0))));
        change(&mut known, (0..=MOST).filter(|number| *number != 1), false);
        assert_eq!(known.get(&stranger), Some(None), "all are known again");
    }

    #[test]
    fn the_number_is_written_when_it_changes() {
        let mut known = KnownLanes::default();
        change(&mut known, [1, 2], true);
        let mut changes = Changes::default();
        changes.push(name(1), None, true);
        assert_eq!(known.count_after(&changes), Some(1));
        changes.push(name(3), Some(Lane::new(0)), false);
        changes.push(name(4), None, false); // came and went in one commit
        assert_eq!(known.count_after(&changes), None);
    }
}
