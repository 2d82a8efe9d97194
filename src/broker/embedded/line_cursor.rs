//! The position of the scan in one line of a queue's ready rows.
//!
//! There are two invariants, but for rows that cannot be read: every ready row of the line before `from` is held or lies in
//! `revisit`, and while `drained` is true every ready row of the line is held.
//!
//! Where the rows up to the end of a line cannot be read, no scan comes to a row that arrives behind them. Such rows are
//! known by their keys only, so they are remembered as those before the position are.

use super::ready_key::{LineNumber, ReadyKey, line_bounds};
use super::revisit::RevisitSet;

/// The position of the scan in one line.
pub(super) struct LineCursor {
    /// The rows that the scan has passed and that are not held. They are delivered first.
    pub(super) revisit: RevisitSet,
    /// The key from which the next scan reads.
    from: Vec<u8>,
    drained: bool,
    /// The rows that were known by their keys when it was decided to read the line again. They are forgotten when the scan
    /// comes to the end of the line, because it has found them then.
    known: RevisitSet,
}

impl LineCursor {
    /// The position in a line that was not read yet.
    pub(super) fn unread(queue: u16, line: LineNumber) -> Self {
        let (revisit, known) = (RevisitSet::default(), RevisitSet::default());
        Self { revisit, from: line_bounds(queue, line).0, drained: false, known }
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
        if end {
            self.known = RevisitSet::default();
        }
    }

    /// Notes that a scan has read what it can, and that rows from there on to `end`, the end of the line, cannot be read.
    /// Nothing is before the position but what is known by its key.
    pub(super) fn broke_off(&mut self, end: &[u8]) {
        self.from.clear();
        self.from.extend_from_slice(end);
        self.revisit.add(std::mem::take(&mut self.known));
        self.drained = self.revisit.is_empty();
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
        let mut known = std::mem::take(&mut self.known);
        known.add(std::mem::take(&mut self.revisit));
        *self = Self { known, ..Self::unread(queue, line) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: LineNumber = Some(7);

    fn key(seq: u64) -> ReadyKey {
        ReadyKey::new(1, LINE, 0, seq)
    }

    fn next(cursor: &mut LineCursor) -> Vec<ReadyKey> {
        std::iter::from_fn(|| cursor.revisit.next()).collect()
    }

    #[test]
    fn what_arrives_behind_rows_that_cannot_be_read_is_known_by_its_key() {
        let (_, end) = line_bounds(1, LINE);
        let mut cursor = LineCursor::unread(1, LINE);
        cursor.broke_off(&end);
        assert!(cursor.is_drained());
        cursor.waits(&key(5));
        cursor.waits(&key(6));
        assert!(!cursor.is_drained());
        assert_eq!(next(&mut cursor), [key(5), key(6)]);
        // It is not forgotten when the line is read again, and breaks off again.
        cursor.waits(&key(7));
        for _ in 0..2 {
            cursor.look_again(1, LINE);
            assert!(cursor.revisit.is_empty() && !cursor.is_drained());
        }
        cursor.broke_off(&end);
        assert!(!cursor.is_drained());
        assert_eq!(next(&mut cursor), [key(7)]);
        cursor.scanned(None, true);
        assert!(cursor.is_drained());
    }

    #[test]
    fn a_scan_that_comes_to_the_end_has_found_what_was_known() {
        let mut cursor = LineCursor::unread(1, LINE);
        cursor.scanned(Some(&key(9)[..]), true);
        cursor.waits(&key(5));
        cursor.look_again(1, LINE);
        cursor.scanned(Some(&key(5)[..]), true);
        cursor.look_again(1, LINE);
        cursor.broke_off(&line_bounds(1, LINE).1);
        assert!(cursor.is_drained(), "nothing is delivered once more");
    }
}
