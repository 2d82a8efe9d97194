//! Where a row stands that waits: how many are before it in its queue, and in the line of its tenant.

use std::ops::Bound;

use super::EmbeddedBroker;
use super::ready_key::{ReadyKey, line_bounds};
use super::rows::{TaskRow, decode, queue_of, task_key};
use super::tables::{TableName, Tables};
use super::tenant_lines::{StoredLine, line_key, parts_of};
use crate::broker::BrokerError;
use crate::task::TaskId;

impl EmbeddedBroker {
    /// The number of rows of its queue that are before this task's row, up to `limit`. Lines of tenants take turns, so of
    /// each other line as many rows count as this row has turns to wait for.
    pub(super) fn rows_before(&self, id: &TaskId, limit: usize) -> Result<Option<usize>, BrokerError> {
        let tables = self.inner.shared.tables.read();
        let tables = tables.as_ref().map_err(Clone::clone)?;
        let Some((queue, key)) = ready_row(tables, id)? else { return Ok(None) };
        let own = count(tables, &line_bounds(queue, key.line()).0, &key, limit)?;
        let (mut before, turns) = (own, own.saturating_add(1));
        if key.line().is_some() {
            let (first, end) = line_bounds(queue, None);
            before += count(tables, &first, &end, turns.min(limit.saturating_sub(before)))?;
        }
        for row in
            tables.range(TableName::Meta, &line_key(queue, 0), Bound::Included(&line_key(queue, u32::MAX)))?
        {
            if before >= limit {
                break; // there may be a hundred thousand lines, and nobody asks for more
            }
            let (line, row) = row?;
            let is_other = parts_of(&line).is_some_and(|(_, number)| key.line() != Some(number));
            if is_other {
                let ready = decode::<StoredLine>(&row).map_or(0, |line| line.ready);
                before += turns.min(usize::try_from(ready).unwrap_or(usize::MAX));
            }
        }
        Ok(Some(before.min(limit)))
    }

    /// The number of rows of its tenant's line that are before this task's row, up to `limit`.
    pub(super) fn rows_before_in_line(
        &self,
        id: &TaskId,
        limit: usize,
    ) -> Result<Option<usize>, BrokerError> {
        let tables = self.inner.shared.tables.read();
        let tables = tables.as_ref().map_err(Clone::clone)?;
        let Some((queue, key)) = ready_row(tables, id)? else { return Ok(None) };
        count(tables, &line_bounds(queue, key.line()).0, &key, limit).map(Some)
    }
}

/// The number of its queue and the key of a task's row, if it is a ready one.
fn ready_row(tables: &Tables, id: &TaskId) -> Result<Option<(u16, ReadyKey)>, BrokerError> {
    let row = tables.get(TableName::Tasks, &task_key(id))?;
    let Some(TaskRow::At(key)) = row.as_deref().map(TaskRow::decode).transpose()? else { return Ok(None) };
    Ok(queue_of(&key).zip(ReadyKey::of(&key)))
}

/// The number of rows from `first` on and before `end`, up to `most`.
fn count(tables: &Tables, first: &[u8], end: &[u8], most: usize) -> Result<usize, BrokerError> {
    let mut count = 0;
    for row in tables.range(TableName::Messages, first, Bound::Excluded(end))?.take(most) {
        row?;
        count += 1;
    }
    Ok(count)
}
