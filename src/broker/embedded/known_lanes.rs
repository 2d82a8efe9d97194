//! Lanes that are not idle, in memory: a run of a key that nobody else uses asks the disk nothing.
//!
//! - What is here is what is on disk: it changes when a commit is safe, and is read anew with the store.
//! - As long as all of them are here, a lane that is not is idle. When there are too many, some are forgotten and asked for.

use std::collections::HashMap;
use std::ops::Bound;

use super::lanes::{RECORD, name_of};
use super::rows::decode;
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
    /// Some are on disk only.
    is_partial: bool,
}

/// A lane after a commit; `None`: it is idle.
pub(super) type Changed = (LaneName, Option<Lane<TaskId>>);

impl KnownLanes {
    /// Reads them, unless there are too many.
    pub(super) fn read(tables: &Tables) -> Result<Self, BrokerError> {
        let mut known = Self::default();
        for row in tables.range(Table::Lanes, &[RECORD], Bound::Excluded(&[RECORD + 1]))? {
            let (key, record) = row?;
            if known.lanes.len() == MOST {
                known.is_partial = true;
                break;
            }
            match (name_of(&key), decode(&record)) {
                (Some(name), Ok(lane)) => drop(known.lanes.insert(name, lane)),
                // Whoever comes to it will be told.
                _ => known.is_partial = true,
            }
        }
        Ok(known)
    }

    /// A lane; `Some(None)`: it is idle; `None`: look on disk.
    pub(super) fn get(&self, name: &LaneName) -> Option<Option<&Lane<TaskId>>> {
        match self.lanes.get(name) {
            None if self.is_partial => None,
            known => Some(known),
        }
    }

    /// A commit is safe.
    pub(super) fn take(&mut self, changes: Vec<Changed>) {
        for (name, lane) in changes {
            match lane {
                None => drop(self.lanes.remove(&name)),
                Some(lane) => {
                    if self.lanes.len() >= MOST && !self.lanes.contains_key(&name) {
                        self.lanes.clear();
                        self.is_partial = true;
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

    fn changed(number: usize) -> Changed {
        (LaneName::new("scope", number.to_string()), Some(Lane::new(0)))
    }

    #[test]
    fn what_is_not_known_is_idle_until_there_are_too_many() {
        let mut known = KnownLanes::default();
        let stranger = LaneName::new("scope", "stranger");
        assert_eq!(known.get(&stranger), Some(None));
        known.take((0..MOST).map(changed).collect());
        assert_eq!(known.get(&stranger), Some(None));
        known.take(vec![changed(0), (changed(1).0, None), changed(MOST)]);
        assert_eq!(known.get(&stranger), Some(None), "one has gone, one has come");
        assert_eq!(known.get(&changed(1).0), Some(None));
        known.take(vec![changed(MOST + 1)]);
        assert_eq!(known.get(&stranger), None);
        assert_eq!(known.get(&changed(0).0), None, "forgotten, not idle");
        assert_eq!(known.get(&changed(MOST + 1).0), Some(Some(&Lane::new(0))));
    }
}
