//! The rows of a table between two keys, merged from the memtables of the log and the database.
//!
//! Of several rows of one key the one of the newest memtable counts, and none if that memtable says that it is deleted. Rows can be
//! taken from both ends, and each comes once. A memtable is read in chunks that grow, so that a look at the first row is cheap
//! and the lock of the memtable is held for short.

use std::collections::VecDeque;
use std::ops::Bound;

use super::disk_tables::DiskRows;
use super::hot_log::{MemtableRow, SharedMemtable};
use super::tables::{Slice, TableName};
use crate::broker::BrokerError;

/// The rows that are read from a memtable at first, and at most, at a time.
const FIRST_CHUNK: usize = 8;
const LARGEST_CHUNK: usize = 512;

/// Rows in order; the first error is the last item.
pub(super) struct MergedRows(Option<Merged>);

struct Merged {
    /// The memtables, newest first.
    memtables: Vec<MemtableRows>,
    disk: PeekedRows,
}

impl MergedRows {
    /// No rows.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// The rows of these memtables, newest first, between these bounds, over `disk`: those of the database, if they are wanted.
    pub(super) fn merged(
        memtables: Vec<SharedMemtable>,
        disk: Option<DiskRows>,
        table: TableName,
        (start, end): (Bound<&[u8]>, Bound<&[u8]>),
    ) -> Self {
        let (start, end) = (start.map(Slice::from), end.map(Slice::from));
        let memtables = memtables
            .into_iter()
            .map(|memtable| MemtableRows::new(memtable, table, start.clone(), end.clone()));
        let disk = PeekedRows { rows: disk, front: None, back: None };
        Self(Some(Merged { memtables: memtables.collect(), disk }))
    }

    fn next_of(
        &mut self,
        take: impl Fn(&mut Merged) -> Result<Option<MemtableRow>, BrokerError>,
    ) -> Option<Result<(Slice, Slice), BrokerError>> {
        loop {
            match take(self.0.as_mut()?) {
                Ok(Some((key, Some(value)))) => return Some(Ok((key, value))),
                Ok(Some((_, None))) => {} // it is deleted
                Ok(None) => {
                    self.0 = None;
                    return None;
                }
                Err(error) => {
                    self.0 = None;
                    return Some(Err(error));
                }
            }
        }
    }
}

impl Iterator for MergedRows {
    type Item = Result<(Slice, Slice), BrokerError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_of(Merged::first)
    }
}

impl DoubleEndedIterator for MergedRows {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.next_of(Merged::last)
    }
}

impl Merged {
    /// Takes the row of the lowest key, without a value if it is deleted.
    fn first(&mut self) -> Result<Option<MemtableRow>, BrokerError> {
        let mut lowest = self.disk.peek_front()?.cloned();
        for memtable in &mut self.memtables {
            if let Some(key) = memtable.peek_front()
                && lowest.as_ref().is_none_or(|lowest| key < lowest)
            {
                lowest = Some(key.clone());
            }
        }
        let Some(lowest) = lowest else { return Ok(None) };
        let mut found = None;
        for memtable in &mut self.memtables {
            if memtable.peek_front() == Some(&lowest) {
                let row = memtable.pop_front();
                found = found.or(row); // the newest memtable comes first
            }
        }
        if self.disk.peek_front()? == Some(&lowest) {
            let row = self.disk.front.take().map(|(key, value)| (key, Some(value)));
            found = found.or(row);
        }
        Ok(found)
    }

    /// Takes the row of the highest key, without a value if it is deleted.
    fn last(&mut self) -> Result<Option<MemtableRow>, BrokerError> {
        let mut highest = self.disk.peek_back()?.cloned();
        for memtable in &mut self.memtables {
            if let Some(key) = memtable.peek_back()
                && highest.as_ref().is_none_or(|highest| key > highest)
            {
                highest = Some(key.clone());
            }
        }
        let Some(highest) = highest else { return Ok(None) };
        let mut found = None;
        for memtable in &mut self.memtables {
            if memtable.peek_back() == Some(&highest) {
                let row = memtable.pop_back();
                found = found.or(row);
            }
        }
        if self.disk.peek_back()? == Some(&highest) {
            let row = self.disk.back.take().map(|(key, value)| (key, Some(value)));
            found = found.or(row);
        }
        Ok(found)
    }
}

/// The rows of a memtable that are left: those in `front`, then those between `start` and `end`, then those in `back`.
struct MemtableRows {
    memtable: SharedMemtable,
    table: TableName,
    start: Bound<Slice>,
    end: Bound<Slice>,
    front: VecDeque<MemtableRow>,
    back: VecDeque<MemtableRow>,
    /// Whether nothing is left between `start` and `end`.
    has_ended: bool,
    chunk: usize,
}

impl MemtableRows {
    fn new(memtable: SharedMemtable, table: TableName, start: Bound<Slice>, end: Bound<Slice>) -> Self {
        let (front, back) = (VecDeque::new(), VecDeque::new());
        Self { memtable, table, start, end, front, back, has_ended: false, chunk: FIRST_CHUNK }
    }

    fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (self.start.as_ref().map(|key| &key[..]), self.end.as_ref().map(|key| &key[..]))
    }

    /// Reads the next rows from one end.
    fn read(&mut self, is_front: bool) -> VecDeque<MemtableRow> {
        if self.has_ended {
            return VecDeque::new();
        }
        let memtable = self.memtable.read();
        let rows = match is_front {
            true => memtable.first(self.table, self.bounds(), self.chunk),
            false => memtable.last(self.table, self.bounds(), self.chunk),
        };
        drop(memtable);
        self.has_ended = rows.len() < self.chunk;
        self.chunk = (2 * self.chunk).min(LARGEST_CHUNK);
        rows
    }

    fn peek_front(&mut self) -> Option<&Slice> {
        if self.front.is_empty() {
            self.front = self.read(true);
            match self.front.back() {
                Some((key, _)) => self.start = Bound::Excluded(key.clone()),
                None => std::mem::swap(&mut self.front, &mut self.back), // nothing is left between the two
            }
        }
        self.front.front().map(|(key, _)| key)
    }

    fn pop_front(&mut self) -> Option<MemtableRow> {
        self.front.pop_front()
    }

    fn peek_back(&mut self) -> Option<&Slice> {
        if self.back.is_empty() {
            self.back = self.read(false);
            match self.back.front() {
                Some((key, _)) => self.end = Bound::Excluded(key.clone()),
                None => std::mem::swap(&mut self.front, &mut self.back),
            }
        }
        self.back.back().map(|(key, _)| key)
    }

    fn pop_back(&mut self) -> Option<MemtableRow> {
        self.back.pop_back()
    }
}

/// The rows of the database, of which the next one at each end can be looked at.
struct PeekedRows {
    rows: Option<DiskRows>,
    front: Option<(Slice, Slice)>,
    back: Option<(Slice, Slice)>,
}

impl PeekedRows {
    fn peek_front(&mut self) -> Result<Option<&Slice>, BrokerError> {
        if self.front.is_none() {
            let next = self.rows.as_mut().and_then(DiskRows::next).transpose()?;
            self.front = next.or_else(|| self.back.take());
        }
        Ok(self.front.as_ref().map(|(key, _)| key))
    }

    fn peek_back(&mut self) -> Result<Option<&Slice>, BrokerError> {
        if self.back.is_none() {
            let next = self.rows.as_mut().and_then(DiskRows::next_back).transpose()?;
            self.back = next.or_else(|| self.front.take());
        }
        Ok(self.back.as_ref().map(|(key, _)| key))
    }
}
