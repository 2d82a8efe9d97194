//! Dedupe windows on disk: a row for each that is held, in the commit of the publish that begins it and of the end that ends
//! it.
//!
//! They are worked out with the lanes (see there), from the rows as they are when the commit is written: so of two publishes
//! in one commit the second finds the first, and a commit that fails leaves none behind. Keys in the table `lanes`: `3`,
//! scope's length, scope, key. Each row goes with its task's end, so there are no more of them than of tasks that are not over.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::engine::Engine;
use super::rows::{decode, encode};
use super::tables::{Table, Tables, Writes};
use crate::broker::BrokerError;
use crate::core::Timestamp;
use crate::task::clock::now;
use crate::task::{TaskId, Unique, UniqueKey};

const WINDOW: u8 = 3;

/// Whose a window is, and until when.
#[derive(Clone, Serialize, Deserialize)]
struct Held {
    by: TaskId,
    until: Timestamp,
}

/// The windows that one commit changes.
#[derive(Default)]
pub(super) struct DedupeWindows {
    read: HashMap<UniqueKey, Read>,
}

/// A window as it was read, and as it is to be.
struct Read {
    held: Option<Held>,
    is_on_disk: bool,
    is_changed: bool,
}

fn row_key(key: &UniqueKey) -> Vec<u8> {
    let scope = key.scope().as_bytes();
    [&[WINDOW], &(scope.len() as u16).to_be_bytes()[..], scope, key.key().as_bytes()].concat()
}

fn read(tables: &Tables, key: &UniqueKey) -> Result<Option<Held>, BrokerError> {
    tables.get(Table::Lanes, &row_key(key))?.as_deref().map(decode).transpose()
}

impl DedupeWindows {
    fn open(&mut self, tables: &Tables, key: &UniqueKey) -> Result<&mut Read, BrokerError> {
        if !self.read.contains_key(key) {
            let held = read(tables, key)?;
            let read = Read { is_on_disk: held.is_some(), held, is_changed: false };
            self.read.insert(key.clone(), read);
        }
        self.read.get_mut(key).ok_or(BrokerError::Closed)
    }

    /// Whose the window is now.
    pub(super) fn holder(&mut self, tables: &Tables, key: &UniqueKey) -> Result<Option<TaskId>, BrokerError> {
        let held = &self.open(tables, key)?.held;
        Ok(held.as_ref().filter(|held| held.until > now()).map(|held| held.by.clone()))
    }

    /// The window is this task's from now on.
    pub(super) fn hold(&mut self, tables: &Tables, unique: &Unique, id: &TaskId) -> Result<(), BrokerError> {
        let read = self.open(tables, &unique.key)?;
        read.held = Some(Held { by: id.clone(), until: unique.passes_at() });
        read.is_changed = true;
        Ok(())
    }

    /// The window is nobody's, if it was this task's.
    pub(super) fn let_go(
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

    /// The rows of what has changed.
    pub(super) fn finish(&mut self, writes: &mut Writes) -> Result<(), BrokerError> {
        for (key, read) in self.read.drain().filter(|(_, read)| read.is_changed) {
            match read.held {
                Some(held) => writes.put(Table::Lanes, &row_key(&key), &encode(&held)?),
                None if read.is_on_disk => writes.delete(Table::Lanes, &row_key(&key)),
                None => {}
            }
        }
        Ok(())
    }
}

impl Engine {
    /// Whose a window is.
    pub(super) fn holder_of(&self, key: &UniqueKey) -> Result<Option<TaskId>, BrokerError> {
        let held = read(&self.open_tables()?, key)?;
        Ok(held.filter(|held| held.until > now()).map(|held| held.by))
    }
}
