//! Finds since when the oldest ready row of a queue that is not delivered has been ready.
//!
//! Rows of one priority lie in the order of their arrival, so the first row of each priority is the oldest of it.
//! Rows before the scan's position are known by their keys or by their range (see [`revisit`](super::revisit)), so the
//! search steps over no deleted rows. The queue's [`QueueCursor`] says which rows are delivered.

use std::ops::Bound;

use super::engine::Engine;
use super::queue_cursor::QueueCursor;
use super::rows::{ReadyKey, decode, ready_bounds};
use super::tables::{Slice, TableName, Tables};
use crate::broker::BrokerError;
use crate::core::Timestamp;
use crate::task::Message;

impl Engine {
    /// Since when the oldest ready and undelivered row of a queue has been ready.
    pub(super) fn oldest_ready(&self, queue: &str) -> Result<Option<Timestamp>, BrokerError> {
        let Some(cursor) = self.by_name.get(queue).map(|index| &self.cursors[*index]) else {
            return Ok(None);
        };
        if cursor.counts().ready == 0 {
            return Ok(None);
        }
        let tables = self.open_tables()?;
        let mut from = ready_bounds(cursor.number).0.to_vec();
        let mut oldest = None;
        while let Some((key, row)) = first_from(&tables, cursor, &from)? {
            // A row that does not decode is skipped here; the scan sets it aside when its turn comes.
            if let Ok(message) = decode::<Message>(&row) {
                oldest = Some(oldest.map_or(message.due(), |oldest: Timestamp| oldest.min(message.due())));
            }
            // The next priority begins after the highest key of this one. Priority 0 has the highest byte, so
            // nothing follows it.
            match key.get(3).and_then(|byte| byte.checked_add(1)) {
                Some(next) => from = [&key[..3], &[next]].concat(),
                None => break,
            }
        }
        Ok(oldest)
    }
}

/// The first row from `from` on that is not delivered.
fn first_from(
    tables: &Tables,
    cursor: &QueueCursor,
    from: &[u8],
) -> Result<Option<(Slice, Slice)>, BrokerError> {
    let end = ready_bounds(cursor.number).1;
    for key in cursor.revisit.known_from(from).filter(|key| !cursor.holds(&key[..])) {
        // `None` means that the task was revoked and its row is gone.
        if let Some(row) = tables.get(TableName::Messages, &key)? {
            return Ok(Some((Slice::from(&key[..]), row)));
        }
    }
    if let Some((first, last)) = cursor.revisit.beyond() {
        let found = first_waiting(tables, cursor, first.max(from), Bound::Included(last))?;
        if found.is_some() {
            return Ok(found);
        }
    }
    first_waiting(tables, cursor, cursor.scan_from().max(from), Bound::Excluded(&end))
}

fn first_waiting(
    tables: &Tables,
    cursor: &QueueCursor,
    from: &[u8],
    end: Bound<&[u8]>,
) -> Result<Option<(Slice, Slice)>, BrokerError> {
    if let Bound::Included(last) | Bound::Excluded(last) = end
        && from > last
    {
        return Ok(None);
    }
    for row in tables.range(TableName::Messages, from, end)? {
        let (key, row) = row?;
        if ReadyKey::try_from(&*key).is_ok() && !cursor.holds(&key) {
            return Ok(Some((key, row)));
        }
    }
    Ok(None)
}
