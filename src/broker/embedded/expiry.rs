//! Which results go when: one row for each commit and minute, with the ids.
//!
//! So keeping a result costs no row of its own in the index, and the sweep reads only what is due.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::rows::{TaskRow, decode, encode, task_key};
use super::tables::{Table, Tables, Writes};
use crate::broker::BrokerError;
use crate::core::Timestamp;
use crate::task::TaskId;

const MINUTE: u64 = 60_000;
/// How many index rows, or about how many results, one sweep step takes.
const ROWS: usize = 256;
const RESULTS: usize = 8192;

/// Rows for the results that a commit keeps; `seq` is the commit's alone. A result goes in the first sweep after the
/// minute of its expiry is over.
pub(super) fn stage(expiring: &[(Timestamp, TaskId)], seq: u64, writes: &mut Writes) {
    let mut by_minute: BTreeMap<u64, Vec<&TaskId>> = BTreeMap::new();
    for (at, id) in expiring {
        by_minute.entry(at.as_millis() / MINUTE + 1).or_default().push(id);
    }
    for (minute, ids) in by_minute {
        if let Ok(row) = encode(&ids) {
            writes.put(Table::Expiries, &[minute.to_be_bytes(), seq.to_be_bytes()].concat(), &row);
        }
    }
}

/// Rows to delete because their time is over by `now`; how many results those are, and whether there is more.
pub(super) fn due(
    tables: &Tables,
    now: Timestamp,
    writes: &mut Writes,
) -> Result<(usize, bool), BrokerError> {
    let end = (now.as_millis() / MINUTE + 1).to_be_bytes();
    let mut results = 0;
    for (rows, row) in tables.range(Table::Expiries, &[], Bound::Excluded(&end))?.enumerate() {
        if rows == ROWS || results >= RESULTS {
            return Ok((results, true));
        }
        let (key, value) = row?;
        writes.delete(Table::Expiries, &key);
        for id in decode::<Vec<TaskId>>(&value)? {
            // The id may have been used again since: only an expired record goes.
            let row = tables.get(Table::Tasks, &task_key(&id))?;
            let over = row.as_deref().map(TaskRow::decode).transpose()?;
            if matches!(over, Some(TaskRow::Over(result)) if result.expires_at <= now) {
                writes.delete(Table::Tasks, &task_key(&id));
                results += 1;
            }
        }
    }
    Ok((results, false))
}
