//! Finds since when the oldest ready row of a queue that is not delivered has been ready.
//!
//! In a line, rows of one priority lie in the order of their arrival, so the first row of each priority is the oldest of
//! it. Rows before the scan's position are known by their keys or by their range (see [`revisit`](super::revisit)), so the
//! search steps over no deleted rows. The queue's [`QueueCursor`] says which rows are delivered. What was found in the line
//! of a tenant is kept until the line changes, so a queue of many tenants is not searched each time.

use std::ops::Bound;

use super::engine::Engine;
use super::line_cursor::LineCursor;
use super::queue_cursor::QueueCursor;
use super::ready_key::{LineNumber, ReadyKey, behind_priority, line_bounds};
use super::rows::decode;
use super::tables::{Slice, TableName, Tables};
use crate::broker::BrokerError;
use crate::core::Timestamp;
use crate::task::Message;

/// The most lines of tenants that one question reads. Those that it leaves out are read for the next questions.
const LINES_AT_ONCE: usize = 4096;

impl Engine {
    /// Since when the oldest ready and undelivered row of a queue has been ready.
    pub(super) fn oldest_ready(&mut self, queue: &str) -> Result<Option<Timestamp>, BrokerError> {
        let Some(index) = self.by_name.get(queue).copied() else { return Ok(None) };
        if self.cursors[index].counts().ready == 0 {
            return Ok(None);
        }
        let tables = self.open_tables()?;
        let cursor = &mut self.cursors[index];
        let mut oldest = oldest_in(&tables, cursor, None)?;
        let unknown =
            cursor.tenants.iter().filter(|(_, line)| line.oldest.is_none()).map(|(number, _)| number);
        let unknown: Vec<u32> = unknown.take(LINES_AT_ONCE).collect();
        for number in unknown {
            let found = oldest_in(&tables, cursor, Some(number))?;
            if let Some(line) = cursor.tenants.get_mut(number) {
                line.oldest = Some(found);
            }
        }
        for (_, line) in cursor.tenants.iter() {
            oldest = oldest.into_iter().chain(line.oldest.flatten()).min();
        }
        Ok(oldest)
    }
}

/// The same of the rows in one line.
fn oldest_in(
    tables: &Tables,
    cursor: &QueueCursor,
    line: LineNumber,
) -> Result<Option<Timestamp>, BrokerError> {
    let Some(position) = cursor.line(line) else { return Ok(None) };
    let (mut from, end) = line_bounds(cursor.number, line);
    let mut oldest = None;
    while let Some((key, row)) = first_from(tables, cursor, position, &from, &end)? {
        // A row that does not decode is skipped here; the scan sets it aside when its turn comes.
        if let Ok(message) = decode::<Message>(&row) {
            oldest = Some(oldest.map_or(message.due(), |oldest: Timestamp| oldest.min(message.due())));
        }
        match behind_priority(&key) {
            Some(next) => from = next,
            None => break,
        }
    }
    Ok(oldest)
}

/// The first row of a line from `from` on that is not delivered. `end`: where the line ends.
fn first_from(
    tables: &Tables,
    cursor: &QueueCursor,
    position: &LineCursor,
    from: &[u8],
    end: &[u8],
) -> Result<Option<(Slice, Slice)>, BrokerError> {
    for key in position.revisit.known_from(from).filter(|key| !cursor.holds(key)) {
        // `None` means that the task was revoked and its row is gone.
        if let Some(row) = tables.get(TableName::Messages, &key)? {
            return Ok(Some((Slice::from(&key[..]), row)));
        }
    }
    if let Some((first, last)) = position.revisit.beyond() {
        let found = first_waiting(tables, cursor, first.max(from), Bound::Included(last))?;
        if found.is_some() {
            return Ok(found);
        }
    }
    first_waiting(tables, cursor, position.scan_from().max(from), Bound::Excluded(end))
}

fn first_waiting(
    tables: &Tables,
    cursor: &QueueCursor,
    from: &[u8],
    end: Bound<&[u8]>,
) -> Result<Option<(Slice, Slice)>, BrokerError> {
    let is_empty = match end {
        Bound::Included(last) => from > last,
        Bound::Excluded(last) => from >= last,
        Bound::Unbounded => false,
    };
    if is_empty {
        return Ok(None);
    }
    for row in tables.range(TableName::Messages, from, end)? {
        let (key, row) = row?;
        if ReadyKey::of(&key).is_some() && !cursor.holds(&key) {
            return Ok(Some((key, row)));
        }
    }
    Ok(None)
}
