//! The rows that one segment of the log has written, in memory.
//!
//! A memtable lies over older memtables and over the database. It holds, for each key that its segment wrote, the row or the
//! fact that the row is deleted. A deleted row hides what older memtables and the database have of it.
//!
//! A row whose key no row had before its memtable (see [`Write::is_new`]) is hidden nowhere when it is deleted in the same memtable:
//! it leaves nothing behind. That is why a task that is over soon costs the database nothing. A memtable that was read from
//! a segment takes no row for new, because the segment may have been written to the database in part.
//!
//! This module does no I/O.
//!
//! [`Write::is_new`]: crate::broker::embedded::tables::Write::is_new

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::collections::btree_map::Entry;
use std::ops::Bound;

use crate::broker::embedded::tables::{NAMES, Slice, TABLES, TableName, Write};

/// A key that a memtable has, with its row, or without one if the row is deleted.
pub(in super::super) type MemtableRow = (Slice, Option<Slice>);

struct MemtableValue {
    value: Option<Slice>,
    /// Whether neither an older memtable nor the database has a row of this key.
    is_new: bool,
}

/// The rows of one segment.
#[derive(Default)]
pub(in super::super) struct Memtable {
    tables: [BTreeMap<Slice, MemtableValue>; NAMES.len()],
    /// The bytes of the rows that are not deleted, with their keys.
    alive: usize,
    rows: usize,
}

impl Memtable {
    /// Adds what a commit wrote.
    pub(super) fn apply(&mut self, write: &Write) {
        match &write.value {
            Some(value) => self.put(write.table, write.key.clone(), value.clone(), write.is_new),
            None => self.delete(write.table, &write.key),
        }
    }

    /// Puts a row. `is_new`: no row had this key before.
    pub(super) fn put(&mut self, table: TableName, key: Slice, value: Slice, is_new: bool) {
        self.alive += key.len() + value.len();
        match self.tables[table as usize].entry(key) {
            Entry::Occupied(mut held) => {
                // A row that is put again is as new as it was.
                if let Some(before) = held.get_mut().value.replace(value) {
                    self.alive -= held.key().len() + before.len();
                }
            }
            Entry::Vacant(place) => {
                self.rows += 1;
                place.insert(MemtableValue { value: Some(value), is_new });
            }
        }
    }

    /// Notes that the row of this key is deleted. A row that is new in this memtable leaves nothing behind.
    pub(super) fn delete(&mut self, table: TableName, key: &Slice) {
        match self.tables[table as usize].entry(key.clone()) {
            Entry::Occupied(mut held) => {
                if let Some(before) = held.get_mut().value.take() {
                    self.alive -= key.len() + before.len();
                }
                if held.get().is_new {
                    held.remove();
                    self.rows -= 1;
                }
            }
            Entry::Vacant(place) => {
                self.rows += 1;
                place.insert(MemtableValue { value: None, is_new: false });
            }
        }
    }

    /// Takes over all rows of a memtable that is newer than this one, so that the two are one.
    pub(super) fn absorb(&mut self, newer: &mut Self) {
        for table in TABLES {
            for (key, MemtableValue { value, is_new }) in std::mem::take(&mut newer.tables[table as usize]) {
                match value {
                    Some(value) => self.put(table, key, value, is_new),
                    None => self.delete(table, &key),
                }
            }
        }
        *newer = Self::default();
    }

    /// What the memtable knows of a key: `None` if nothing, `Some(None)` if the row is deleted.
    pub(in super::super) fn get(&self, table: TableName, key: &[u8]) -> Option<Option<Slice>> {
        self.tables[table as usize].get(key).map(|held| held.value.clone())
    }

    /// Whether this memtable has the last word on what older memtables and the database have of a key, and keeps it.
    pub(super) fn hides(&self, table: TableName, key: &[u8]) -> bool {
        self.tables[table as usize].get(key).is_some_and(|held| !held.is_new)
    }

    /// The first `most` of the keys between these bounds, in order.
    pub(in super::super) fn first(
        &self,
        table: TableName,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        most: usize,
    ) -> VecDeque<MemtableRow> {
        if is_empty(bounds) {
            return VecDeque::new();
        }
        let rows = self.tables[table as usize].range::<[u8], _>(bounds).take(most);
        rows.map(|(key, held)| (key.clone(), held.value.clone())).collect()
    }

    /// The last `most` of the keys between these bounds, in order.
    pub(in super::super) fn last(
        &self,
        table: TableName,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        most: usize,
    ) -> VecDeque<MemtableRow> {
        let mut last = VecDeque::new();
        if !is_empty(bounds) {
            let rows = self.tables[table as usize].range::<[u8], _>(bounds).rev().take(most);
            rows.for_each(|(key, held)| last.push_front((key.clone(), held.value.clone())));
        }
        last
    }

    /// The bytes of the rows that are not deleted, with their keys. Newer memtables may hide some of them.
    pub(super) fn alive(&self) -> usize {
        self.alive
    }

    /// The number of keys.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }
}

/// Whether no key lies between these bounds. A map panics if it is asked for a range whose end lies before its start.
fn is_empty(bounds: (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    match bounds {
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => {
            start >= end
        }
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}
