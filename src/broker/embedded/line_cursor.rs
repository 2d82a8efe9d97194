//! The position of the scan in one line of a queue's ready rows.
//!
//! There are two invariants: every ready row of the line before `from` is held or lies in `revisit`, and while `drained`
//! is true every ready row of the line is held.

use super::ready_key::{LineNumber, ReadyKey, line_bounds};
use super::revisit::RevisitSet;

/// The position of the scan in one line.
pub(super) struct LineCursor {
    /// The rows that the scan has passed and that are not held. They are delivered first.
    pub(super) revisit: RevisitSet,
    /// The key from which the next scan reads.
    from: Vec<u8>,
    drained: bool,
}

impl LineCursor {
    /// The position in a line that was not read yet.
    pub(super) fn unread(queue: u16, line: LineNumber) -> Self {
        Self { revisit: RevisitSet::default(), from: line_bounds(queue, line).0, drained: false }
    }

    /// The position in a line of which it is known that it has no rows.
    pub(super) fn empty(queue: u16, line: LineNumber) -> Self {
        Self { drained: true, ..Self::unread(queue, line) }
    }

    /// Whether every ready row of the line is held, so that there is nothing to read.
    pub(super) fn is_drained(&self) -> bool {
        self.drained
    }

    pub(super) fn scan_from(&self) -> &[u8] {
        &self.from
    }

    /// Notes that a scan has read all rows up to `last`. `end` says that no row of the line follows it.
    pub(super) fn scanned(&mut self, last: Option<&[u8]>, end: bool) {
        if let Some(last) = last {
            self.from.clear();
            self.from.extend_from_slice(last);
            self.from.push(0); // the next possible key after `last`
        }
        self.drained = end;
    }

    /// Notes that there is a ready row at `key` that is not held.
    pub(super) fn waits(&mut self, key: &ReadyKey) {
        if key[..] < self.from[..] {
            self.revisit.insert(*key);
        } else if self.drained {
            self.from.clear(); // no row is left before this key
            self.from.extend_from_slice(key);
        }
        self.drained = false;
    }

    /// Makes the next scan read all rows again.
    pub(super) fn look_again(&mut self, queue: u16, line: LineNumber) {
        *self = Self::unread(queue, line);
    }
}
