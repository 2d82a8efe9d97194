//! Lanes that are not idle, in memory, so that a run whose key nobody else uses reads nothing from the disk.
//!
//! - This memory matches the disk: it changes when a commit is safe, and is emptied when the store is opened
//!   again.
//! - The number of lanes on disk is stored with them. While memory has that many lanes, a lane that it does not
//!   have is idle. That is so from the start for an empty store, and becomes so again when the lanes that memory
//!   lacked have gone.

use std::collections::HashMap;
use std::ops::Bound;

use super::lanes::RECORD;
use super::rows::LANES;
use super::tables::{TableName, Tables};
use crate::broker::BrokerError;
use crate::core::lane::Lane;
use crate::task::{LaneName, TaskId};

/// The most lanes that memory keeps: they take some MiB.
const MOST: usize = 16_384;

/// The lanes that memory knows, and how many there are on disk.
#[derive(Default)]
pub(super) struct KnownLanes {
    lanes: HashMap<LaneName, Lane<TaskId>>,
    /// The number of lanes that have a record on disk.
    on_disk: u64,
}

/// What one commit does to the records of lanes.
#[derive(Default)]
pub(super) struct Changes {
    /// The changed lanes as they are after the commit; `None`: the lane is idle.
    lanes: Vec<(LaneName, Option<Lane<TaskId>>)>,
    came: u64,
    went: u64,
}

impl Changes {
    /// Adds a lane as it is after the commit. `had_record`: it had a record before.
    pub(super) fn push(&mut self, name: LaneName, lane: Option<Lane<TaskId>>, had_record: bool) {
        self.came += u64::from(lane.is_some() && !had_record);
        self.went += u64::from(lane.is_none() && had_record);
        self.lanes.push((name, lane));
    }
}

impl KnownLanes {
    /// Starts for a store that was just opened.
    pub(super) fn open(tables: &Tables) -> Result<Self, BrokerError> {
        let on_disk = match tables
            .get(TableName::Meta, LANES)?
            .and_then(|row| <[u8; 8]>::try_from(&*row).ok())
        {
            Some(row) => u64::from_be_bytes(row),
            None => tables.range(TableName::Lanes, &[RECORD], Bound::Excluded(&[RECORD + 1]))?.count() as u64,
        };
        Ok(Self { lanes: HashMap::new(), on_disk })
    }

    /// Looks a lane up. `Some(None)`: the lane is idle. `None`: memory does not know it, and the disk must be
    /// asked.
    pub(super) fn get(&self, name: &LaneName) -> Option<Option<&Lane<TaskId>>> {
        match self.lanes.get(name) {
            None if (self.lanes.len() as u64) < self.on_disk => None,
            known => Some(known),
        }
    }

    /// The number of records on disk after these changes, if they change it.
    pub(super) fn count_after(&self, changes: &Changes) -> Option<u64> {
        (changes.came != changes.went).then(|| (self.on_disk + changes.came).saturating_sub(changes.went))
    }

    /// Takes over the changes of a commit that is safe.
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

    /// Commits that these lanes come, or go.
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
        changes.push(name(4), None, false); // this lane came and went in one commit
        assert_eq!(known.count_after(&changes), None);
    }
}
