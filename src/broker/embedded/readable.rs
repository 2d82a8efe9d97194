//! Reads the rows of a table that can be read, past those that cannot.
//!
//! When a block of a table file is damaged, the database ends a scan there, and everything behind it would never
//! be seen. So this module looks for the key from which reading works again: in steps that double, and then by
//! halving between the last step that failed and the first that did not. If the keys in between differ in a number
//! only, as those of waiting tasks of one line and priority do, it asks for each of them. That finds the rows that
//! undamaged files have between the damaged ones, and tells the keys of the others. What a gap over several lines hides,
//! but for the row right before the damage, is found by who knows its keys from elsewhere (see [`Gap::hides`]).
//!
//! It changes nothing: a row that cannot be read stays where it is, for a program that can read it.

use std::collections::{HashSet, VecDeque};
use std::ops::Bound;

use super::ready_key::rest_of_line;
use super::rows::SEQ;
use super::tables::{MergedRows, RawRow, Slice, TableName, Tables};

/// The most keys in a gap that are asked for one by one.
const CANDIDATES: u64 = 1 << 16;
/// The bytes of a key in which steps are taken.
const WIDTH: std::ops::RangeInclusive<usize> = 16..=64;

/// The readable rows from a start to an end, in order.
pub(super) struct Readable {
    tables: Tables,
    table: TableName,
    rows: Option<MergedRows>,
    /// The key of the next row, or one before it.
    from: Vec<u8>,
    end: Bound<Vec<u8>>,
    /// Rows that were found between unreadable ones.
    found: VecDeque<RawRow>,
    /// The ranges that could not be read.
    pub(super) gaps: Vec<Gap>,
}

/// A range of rows that cannot be read.
#[derive(Debug)]
pub(super) struct Gap {
    /// The key at which the range begins.
    pub(super) from: Vec<u8>,
    /// The key before which the range ends; `None`: nothing behind it can be read.
    pub(super) to: Option<Vec<u8>>,
    /// The keys of the rows in it, as far as they are known.
    pub(super) keys: Vec<Vec<u8>>,
    /// The keys in it whose rows were found all the same.
    found: HashSet<Vec<u8>>,
    /// The error of the database.
    pub(super) error: String,
}

impl Gap {
    /// Whether a key lies in the range and was not found there. Its row may be in an undamaged file.
    pub(super) fn hides(&self, key: &[u8]) -> bool {
        self.from.as_slice() <= key
            && self.to.as_deref().is_none_or(|to| key < to)
            && !self.found.contains(key)
    }
}

impl Readable {
    pub(super) fn new(tables: Tables, table: TableName, start: &[u8], end: Bound<&[u8]>) -> Self {
        let end = end.map(<[u8]>::to_vec);
        let gaps = Vec::new();
        let mut this =
            Self { tables, table, rows: None, from: start.to_vec(), end, found: VecDeque::new(), gaps };
        match this.rows_from(start) {
            Ok(rows) => this.rows = Some(rows),
            Err(error) => this.go_on(error),
        }
        this
    }

    fn rows_from(&self, start: &[u8]) -> Result<MergedRows, String> {
        let rows = self.tables.range(self.table, start, self.end.as_ref().map(Vec::as_slice));
        rows.map_err(|error| error.to_string())
    }

    /// Tries to read from this key on. Answers with the first row, if there is one.
    fn look(&self, start: &[u8]) -> Result<Option<RawRow>, String> {
        if self.is_past(start) {
            return Ok(None);
        }
        self.rows_from(start)?.next().transpose().map_err(|error| error.to_string())
    }

    fn is_past(&self, key: &[u8]) -> bool {
        match &self.end {
            Bound::Included(end) => key > end.as_slice(),
            Bound::Excluded(end) => key >= end.as_slice(),
            Bound::Unbounded => false,
        }
    }

    /// Goes on behind rows that cannot be read.
    fn go_on(&mut self, error: String) {
        let from = std::mem::take(&mut self.from);
        let width = from.len().clamp(*WIDTH.start(), *WIDTH.end());
        let mut low = from.clone();
        low.resize(width, 0);
        // If the key is longer than a step, the steps begin before it.
        let leads_out = |this: &Self, key: &[u8]| key > from.as_slice() && this.look(key).is_ok();
        // Finds the first step from which reading works.
        let mut high = None;
        for bit in 0..width * 8 {
            let Some(next) = plus(&low, bit) else { break };
            if leads_out(self, &next) {
                high = Some(next);
                break;
            }
            low = next;
        }
        // Halves down to the first key from which reading works; there may be none.
        let first = high.map(|mut high| {
            while let Some(middle) = between(&low, &high) {
                match leads_out(self, &middle) {
                    true => high = middle,
                    false => low = middle,
                }
            }
            high
        });
        let row = first.as_deref().and_then(|first| self.look(first).ok().flatten());
        let to = row.as_ref().map(|(key, _)| key.to_vec());
        let keys = to.as_deref().and_then(|to| self.ask_between(&from, to));
        let keys = keys.or_else(|| self.ask_in_line(&from, to.as_deref())).unwrap_or_else(|| {
            self.ask_last(&from, to.as_deref());
            Vec::new()
        });
        self.add_from_log(&from, to.as_deref());
        let found = self.found.iter().map(|(key, _)| key.to_vec()).collect();
        if self.tables.tell(self.table, &from) {
            let table = self.table.name();
            let hex = |key: &[u8]| key.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            let (begin, end) = (hex(&from), to.as_deref().map_or_else(|| "its end".to_owned(), hex));
            let shown: Vec<_> = keys.iter().take(16).map(|key| hex(key)).collect();
            tracing::error!(
                table, from = begin, to = end, rows = keys.len(), keys = ?shown, %error,
                "rows of the store cannot be read; it goes on behind them. `celeriac store verify` says which they are, `celeriac store salvage` copies all others"
            );
        }
        self.rows = to.as_deref().and_then(|to| self.rows_from(to).ok());
        self.from = to.clone().unwrap_or_default();
        self.gaps.push(Gap { from, to, keys, found, error });
    }

    /// Asks for each key that may lie between these two. Keeps the rows that are there, and answers with the keys that cannot
    /// be read. `None`: they do not differ in a number only, or are too many.
    fn ask_between(&mut self, from: &[u8], to: &[u8]) -> Option<Vec<Vec<u8>>> {
        let (prefix, last) = to.split_last_chunk::<8>()?;
        let rest = from.strip_prefix(prefix)?;
        let mut first = [0; 8];
        let known = rest.len().min(8);
        first[..known].copy_from_slice(&rest[..known]);
        let (mut first, last) = (u64::from_be_bytes(first), u64::from_be_bytes(*last));
        first = first.saturating_add(u64::from(rest.len() > 8)); // starts behind the key `from`, which is longer
        if last.saturating_sub(first) > CANDIDATES {
            return None;
        }
        let mut unreadable = Vec::new();
        for number in first..last {
            let key = [prefix, &number.to_be_bytes()].concat();
            match self.tables.get(self.table, &key) {
                Ok(None) => {}
                Ok(Some(value)) => self.found.push_back((Slice::from(&key[..]), value)),
                Err(_) => unreadable.push(key),
            }
        }
        Some(unreadable)
    }

    /// Asks for each key that a ready row may have from this key on, in what is left of its line: a gap that leads into another
    /// line, or into another priority, hides the rows of undamaged files there. Keeps the rows that are there, and answers with
    /// the keys that cannot be read. `None`: the gap does not begin with ready rows, or there are too many keys of one priority.
    fn ask_in_line(&mut self, from: &[u8], to: Option<&[u8]>) -> Option<Vec<Vec<u8>>> {
        if self.table != TableName::Messages {
            return None;
        }
        let last = self.tables.get(TableName::Meta, SEQ).ok()??;
        let last = u64::from_be_bytes(<[u8; 8]>::try_from(&*last).ok()?);
        let mut left = CANDIDATES;
        let mut keys = Vec::new();
        // From the lowest priority on, which nearly all rows have, to those for which there are too many keys to ask for.
        for (prefix, first) in rest_of_line(from, to)?.into_iter().rev() {
            let count = last.saturating_add(1).saturating_sub(first);
            let Some(fewer) = left.checked_sub(count) else { break };
            left = fewer;
            keys.push((prefix, first..=last));
        }
        if keys.is_empty() {
            return None;
        }
        keys.reverse();
        let mut unreadable = Vec::new();
        for (prefix, numbers) in keys {
            for number in numbers {
                let key = [&prefix[..], &number.to_be_bytes()].concat();
                if key.as_slice() < from || to.is_some_and(|to| key.as_slice() >= to) || self.is_past(&key) {
                    continue;
                }
                match self.tables.get(self.table, &key) {
                    Ok(None) => {}
                    Ok(Some(value)) => self.found.push_back((Slice::from(&key[..]), value)),
                    Err(_) => unreadable.push(key),
                }
            }
        }
        Some(unreadable)
    }

    /// Keeps the last row that lies before those that cannot be read. The database reads on before it gives a row, so a scan
    /// fails before it has given this one. Its key is that from which on, or behind which, reading up to a key fails. `to`: the
    /// key before which the gap ends.
    fn ask_last(&mut self, from: &[u8], to: Option<&[u8]>) {
        let width = from.len().clamp(*WIDTH.start(), *WIDTH.end());
        let end: &[u8] = match (to, &self.end) {
            (Some(key), _) => key,
            (None, Bound::Included(key) | Bound::Excluded(key)) => key.as_slice(),
            (None, Bound::Unbounded) => &[u8::MAX; 64],
        };
        let (mut low, mut high) = (from.to_vec(), end.to_vec());
        low.resize(width, 0);
        high.resize(width, 0);
        // Halves down to the last key up to which reading works, and the first one up to which it fails. The row's key is one
        // of them, without the zeros behind it if it is shorter.
        while let Some(middle) = between(&low, &high) {
            match self.reads_up_to(from, &middle) {
                true => low = middle,
                false => high = middle,
            }
        }
        let shortest = high.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        let shorter = (shortest..=width).filter_map(|len| high.get(..len));
        for key in std::iter::once(low.as_slice()).chain(shorter).filter(|key| (from..end).contains(key)) {
            if let Ok(Some(value)) = self.tables.get(self.table, key) {
                self.found.push_back((Slice::from(key), value));
                return;
            }
        }
    }

    /// Keeps the rows of the gap that are in the log, which damage in the database hides from a scan.
    fn add_from_log(&mut self, from: &[u8], to: Option<&[u8]>) {
        let end = to.map_or_else(|| self.end.as_ref().map(Vec::as_slice), Bound::Excluded);
        let known: HashSet<Slice> = self.found.iter().map(|(key, _)| key.clone()).collect();
        let rows = self.tables.in_log(self.table, from, end).flatten();
        let new: Vec<RawRow> = rows.filter(|(key, _)| !known.contains(key)).collect();
        if !new.is_empty() {
            self.found.extend(new);
            self.found.make_contiguous().sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        }
    }

    /// Whether all rows from one key up to and including another one can be read.
    fn reads_up_to(&self, from: &[u8], last: &[u8]) -> bool {
        let rows = self.tables.range(self.table, from, Bound::Included(last));
        rows.is_ok_and(|mut rows| rows.all(|row| row.is_ok()))
    }
}

impl Iterator for Readable {
    type Item = RawRow;

    fn next(&mut self) -> Option<RawRow> {
        loop {
            if let Some(row) = self.found.pop_front() {
                return Some(row);
            }
            match self.rows.as_mut()?.next() {
                Some(Ok((key, value))) => {
                    self.from = [&key, &[0][..]].concat();
                    return Some((key, value));
                }
                Some(Err(error)) => self.go_on(error.to_string()),
                None => return None,
            }
        }
    }
}

/// A number of any length plus a power of two; `None`: the sum does not fit in as many bytes.
fn plus(number: &[u8], bit: usize) -> Option<Vec<u8>> {
    let mut sum = number.to_vec();
    let mut at = sum.len().checked_sub(1 + bit / 8)?;
    let mut carry = 1_u8 << (bit % 8);
    loop {
        let (byte, over) = sum[at].overflowing_add(carry);
        sum[at] = byte;
        if !over {
            return Some(sum);
        }
        carry = 1;
        at = at.checked_sub(1)?;
    }
}

/// The middle of two numbers of one length; `None`: there is none between them.
fn between(low: &[u8], high: &[u8]) -> Option<Vec<u8>> {
    let mut sum = vec![0; low.len()];
    let mut carry = 0_u16;
    for at in (0..low.len()).rev() {
        let byte = u16::from(low[at]) + u16::from(high[at]) + carry;
        sum[at] = (byte & 0xff) as u8;
        carry = byte >> 8;
    }
    for byte in &mut sum {
        let with = (carry << 8) | u16::from(*byte);
        *byte = (with / 2) as u8;
        carry = with % 2;
    }
    Some(sum).filter(|middle| middle.as_slice() > low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_middles_are_those_of_numbers() {
        let number = |bytes: &[u8]| bytes.iter().fold(0_u128, |n, byte| (n << 8) | u128::from(*byte));
        for (low, high) in [(0_u64, 1), (5, 6), (5, 7), (255, 256), (0, u64::MAX), (u64::MAX - 1, u64::MAX)] {
            let middle = between(&low.to_be_bytes(), &high.to_be_bytes()).map(|m| number(&m) as u64);
            let expected = (u128::from(low) + u128::from(high)) / 2;
            assert_eq!(middle, (expected > u128::from(low)).then_some(expected as u64));
        }
        for bit in 0..64 {
            let sum = plus(&1_000_000_u64.to_be_bytes(), bit).map(|sum| number(&sum) as u64);
            assert_eq!(sum, 1_000_000_u64.checked_add(1 << bit));
        }
        assert_eq!(plus(&[0xff, 0xff], 0), None);
        assert_eq!(plus(&[0, 0], 16), None);
    }
}
