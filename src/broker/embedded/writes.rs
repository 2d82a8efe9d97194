//! One commit as a list of writes: rows that are put into tables, and rows that are deleted.

use super::tables::{Slice, TableName};
use crate::broker::limits::LONGEST_ROW_KEY;

/// A row to be written, or to be deleted if it has no value.
pub(super) struct Write {
    pub(super) table: TableName,
    pub(super) key: Slice,
    pub(super) value: Option<Slice>,
    /// Whether no row had this key before, in no commit. Such a row can be forgotten altogether when it is deleted.
    pub(super) is_new: bool,
}

/// Rows to be written and deleted together.
#[derive(Default)]
pub(super) struct Writes(Vec<Write>);

impl Writes {
    /// Writes a row. A row whose key is too long for the database is left out, because with it the database would
    /// neither write the other rows nor go on. Requests for such a row are refused before they come to this (see
    /// [`limits`](crate::broker::limits)).
    pub(super) fn put(&mut self, table: TableName, key: &[u8], value: &[u8]) {
        self.add(table, key, value, false);
    }

    /// As [`put`](Self::put), for a key that no row ever had: it has a sequence that was given out for it.
    pub(super) fn put_new(&mut self, table: TableName, key: &[u8], value: &[u8]) {
        self.add(table, key, value, true);
    }

    fn add(&mut self, table: TableName, key: &[u8], value: &[u8], is_new: bool) {
        if fits(key) {
            self.0.push(Write { table, key: key.into(), value: Some(value.into()), is_new });
        } else {
            let (table, bytes) = (table.name(), key.len());
            tracing::error!(
                table,
                bytes,
                most = LONGEST_ROW_KEY,
                "a row is not kept, because its key is too long"
            );
        }
    }

    /// Deletes a row. The database has no row whose key is too long for it.
    pub(super) fn delete(&mut self, table: TableName, key: &[u8]) {
        if fits(key) {
            self.0.push(Write { table, key: key.into(), value: None, is_new: false });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Write> {
        self.0.iter()
    }

    pub(super) fn append(&mut self, other: &mut Self) {
        self.0.append(&mut other.0);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Whether the database takes a key. It does not refuse a longer one: it writes what it cannot read again, and
/// panics.
pub(super) fn fits(key: &[u8]) -> bool {
    key.len() <= LONGEST_ROW_KEY
}
