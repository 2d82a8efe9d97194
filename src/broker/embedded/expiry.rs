//! Which results go when: one row for each commit and minute, with the ids.
//!
//! So keeping a result costs no row of its own in the index, and the sweep reads only what is due.

use std::collections::BTreeMap;

use super::commit::{Table, Writes};
use super::tables::{Tables, TaskRow, decode, encode};
use crate::broker::BrokerError;
use crate::core::Timestamp;
use crate::task::TaskId;

const MINUTE: u64 = 60_000;
/// How many index rows one sweep step takes.
const ROWS: usize = 256;

/// Rows for the results that a commit keeps. A result goes in the first sweep after the minute of its expiry is over.
pub(super) fn stage(expiring: &[(Timestamp, TaskId)], seq: u64, writes: &mut Writes) {
    let mut by_minute: BTreeMap<u64, Vec<&TaskId>> = BTreeMap::new();
    for (at, id) in expiring {
        by_minute.entry(at.as_millis() / MINUTE + 1).or_default().push(id);
    }
    for (minute, ids) in by_minute {
        if let Ok(row) = encode(&ids) {
            writes.put(Table::Expiries, &key(minute, seq), &row);
        }
    }
}

fn key(minute: u64, seq: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&minute.to_be_bytes());
    key[8..].copy_from_slice(&seq.to_be_bytes());
    key
}

/// Rows to delete because their time is over by `now`; how many results those are, and whether there is more.
pub(super) fn due(tables: &Tables, now: Timestamp, writes: &mut Writes) -> Result<(usize, bool), BrokerError> {
    let unreadable = |e: fjall::Error| BrokerError::Io(format!("the index of expiries cannot be read: {e}"));
    let end = (now.as_millis() / MINUTE + 1).to_be_bytes();
    let mut results = 0;
    let mut rows = 0;
    for row in tables.expiries.range::<&[u8], _>(..&end[..]) {
        if rows == ROWS {
            return Ok((results, true));
        }
        rows += 1;
        let (key, value) = row.into_inner().map_err(unreadable)?;
        writes.delete(Table::Expiries, &key);
        for id in decode::<Vec<TaskId>>(&value)? {
            // The id may have been used again since: only an expired record goes.
            let row = tables.tasks.get(id.as_str()).map_err(unreadable)?;
            let over = row.as_deref().map(TaskRow::decode).transpose()?;
            if matches!(over, Some(TaskRow::Over(result)) if result.expires_at <= now) {
                writes.delete(Table::Tasks, id.as_str().as_bytes());
                results += 1;
            }
        }
    }
    Ok((results, false))
}
