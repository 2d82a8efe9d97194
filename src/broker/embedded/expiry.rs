//! Says which results expire when: one row for each commit and minute, with the ids.
//!
//! So a result that is kept needs no row of its own in this index, and a sweep reads only what is due.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::rows::{TaskRow, decode, encode, task_key};
use super::tables::{TableName, Tables, Writes};
use crate::broker::BrokerError;
use crate::core::Timestamp;
use crate::task::TaskId;

const MINUTE: u64 = 60_000;
/// How many index rows one step of a sweep takes.
/// About how many results one step of a sweep takes.
const ROWS: usize = 256;
const RESULTS: usize = 8192;

/// Adds the rows for the results that a commit keeps. No other commit uses this `seq`. A result is deleted in the
/// first sweep after the minute of its expiry is over.
pub(super) fn stage(expiring: &[(Timestamp, TaskId)], seq: u64, writes: &mut Writes) {
    let mut by_minute: BTreeMap<u64, Vec<&TaskId>> = BTreeMap::new();
    for (at, id) in expiring {
        by_minute.entry(at.as_millis() / MINUTE + 1).or_default().push(id);
    }
    for (minute, ids) in by_minute {
        if let Ok(row) = encode(&ids) {
            writes.put(TableName::Expiries, &[minute.to_be_bytes(), seq.to_be_bytes()].concat(), &row);
        }
    }
}

/// Adds deletions of the rows whose time is over by `now`. Answers with the number of results that this deletes,
/// and with whether there are more to delete.
pub(super) fn due(
    tables: &Tables,
    now: Timestamp,
    writes: &mut Writes,
) -> Result<(usize, bool), BrokerError> {
    let end = (now.as_millis() / MINUTE + 1).to_be_bytes();
    let mut results = 0;
    for (rows, (key, value)) in tables.readable(TableName::Expiries, &[], Bound::Excluded(&end)).enumerate() {
        if rows == ROWS || results >= RESULTS {
            return Ok((results, true));
        }
        writes.delete(TableName::Expiries, &key);
        let ids = decode::<Vec<TaskId>>(&value).unwrap_or_else(|error| {
            tracing::error!(%error, "which results expire cannot be read; they stay");
            Vec::new()
        });
        for id in ids {
            // The id may have been used again since, so only an expired record is deleted. A row that cannot be
            // read stays, and does not keep those behind it from being deleted.
            let row = tables.get(TableName::Tasks, &task_key(&id));
            let over = row.map(|row| row.as_deref().map(TaskRow::decode));
            if matches!(over, Ok(Some(Ok(TaskRow::Over(result)))) if result.expires_at <= now) {
                writes.delete(TableName::Tasks, &task_key(&id));
                results += 1;
            }
        }
    }
    Ok((results, false))
}
