//! Unique windows on disk: a row for each window that is held. The commit of the publish that begins a window
//! writes its row, and the commit of the end that ends it deletes it.
//!
//! Windows are timed by the steady clock: while a process lives, a wall clock that is put forward ends no window
//! early. The next process begins with the wall clock that it finds.
//!
//! Windows are worked out together with the lanes (see [`lanes`](super::lanes)), from the rows as they are when
//! the commit is written. So of two publishes in one commit the second finds the window of the first, and a commit
//! that fails leaves no window behind. The keys are in the table `lanes`: `3`, the scope's length, the scope, the
//! key. Each row goes with its task's end, so there are no more of them than of tasks that are not over.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::engine::Engine;
use super::rows::{decode, encode};
use super::tables::{TableName, Tables, Writes};
use crate::broker::BrokerError;
use crate::core::Timestamp;
use crate::task::clock::steady;
use crate::task::{TaskId, Unique, UniqueKey};

const WINDOW: u8 = 3;

/// The task that holds a window, and until when.
#[derive(Clone, Serialize, Deserialize)]
struct UniqueWindowRow {
    by: TaskId,
    until: Timestamp,
}

impl UniqueWindowRow {
    fn lasts(&self) -> bool {
        self.until > steady()
    }
}

/// The windows that one commit changes.
#[derive(Default)]
pub(super) struct UniqueWindowRows {
    read: HashMap<UniqueKey, OpenWindow>,
}

/// A window as it was read and as it is to be written.
struct OpenWindow {
    held: Option<UniqueWindowRow>,
    is_on_disk: bool,
    is_changed: bool,
}

fn row_key(key: &UniqueKey) -> Vec<u8> {
    let scope = key.scope().as_bytes();
    [&[WINDOW], &(scope.len() as u16).to_be_bytes()[..], scope, key.key().as_bytes()].concat()
}

fn read(tables: &Tables, key: &UniqueKey) -> Result<Option<UniqueWindowRow>, BrokerError> {
    tables.get(TableName::Lanes, &row_key(key))?.as_deref().map(decode).transpose()
}

impl UniqueWindowRows {
    fn open(&mut self, tables: &Tables, key: &UniqueKey) -> Result<&mut OpenWindow, BrokerError> {
        if !self.read.contains_key(key) {
            let held = read(tables, key)?;
            let read = OpenWindow { is_on_disk: held.is_some(), held, is_changed: false };
            self.read.insert(key.clone(), read);
        }
        self.read.get_mut(key).ok_or(BrokerError::Closed)
    }

    /// The task that holds the window now.
    pub(super) fn holder(&mut self, tables: &Tables, key: &UniqueKey) -> Result<Option<TaskId>, BrokerError> {
        let held = &self.open(tables, key)?.held;
        Ok(held.as_ref().filter(|held| held.lasts()).map(|held| held.by.clone()))
    }

    /// Gives the window to this task.
    pub(super) fn hold(&mut self, tables: &Tables, unique: &Unique, id: &TaskId) -> Result<(), BrokerError> {
        let read = self.open(tables, &unique.key)?;
        read.held = Some(UniqueWindowRow { by: id.clone(), until: unique.passes_at() });
        read.is_changed = true;
        Ok(())
    }

    /// Ends the window if this task holds it.
    pub(super) fn release(
        &mut self,
        tables: &Tables,
        key: &UniqueKey,
        id: &TaskId,
    ) -> Result<(), BrokerError> {
        let read = self.open(tables, key)?;
        if read.held.take_if(|held| held.by == *id).is_some() {
            read.is_changed = true;
        }
        Ok(())
    }

    /// Adds the rows of the windows that have changed.
    pub(super) fn finish(&mut self, writes: &mut Writes) -> Result<(), BrokerError> {
        for (key, read) in self.read.drain().filter(|(_, read)| read.is_changed) {
            match read.held {
                Some(held) => writes.put(TableName::Lanes, &row_key(&key), &encode(&held)?),
                None if read.is_on_disk => writes.delete(TableName::Lanes, &row_key(&key)),
                None => {}
            }
        }
        Ok(())
    }
}

impl Engine {
    /// The task that holds a window, as the tables say.
    pub(super) fn holder_of(&self, key: &UniqueKey) -> Result<Option<TaskId>, BrokerError> {
        let held = read(&self.open_tables()?, key)?;
        Ok(held.filter(UniqueWindowRow::lasts).map(|held| held.by))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::task::clock::Jump;

    #[test]
    fn a_wall_clock_that_is_put_forward_ends_no_window() {
        let dir = tempfile::tempdir().unwrap();
        let tables = Tables::open(dir.path(), None).unwrap();
        let hour = Duration::from_secs(3_600);
        let unique = Unique::new(UniqueKey::new("export", "demo"), hour);
        let id = TaskId::from("a");
        let (mut rows, mut writes) = (UniqueWindowRows::default(), Writes::default());
        rows.hold(&tables, &unique, &id).unwrap();
        rows.finish(&mut writes).unwrap();
        tables.write(&[&writes]).unwrap();
        // A commit of its own reads the window from its row.
        let holder = || UniqueWindowRows::default().holder(&tables, &unique.key).unwrap();
        let mut clock = Jump::default();
        clock.wall(2 * hour);
        assert_eq!(holder(), Some(id));
        clock.pass(hour);
        assert_eq!(holder(), None, "an hour has passed");
    }
}
