//! The members of saved groups: a row for each group in the `meta` table, and a second row that says when it
//! expires.
//!
//! The second row sorts by that time, so a sweep reads only what is due. Both rows are written in one commit.

use std::ops::Bound;

use serde::{Deserialize, Serialize};

use super::EmbeddedBroker;
use super::command::{EngineCommand, ReplySender};
use super::engine::Engine;
use super::rows::{decode, encode};
use super::tables::{TableName, Tables, Writes};
use crate::broker::{BrokerError, limits};
use crate::core::Timestamp;
use crate::store::GroupResult;
use crate::task::clock::now;

const GROUP: &[u8] = b"group/";
const END: &[u8] = b"group-end/";
/// How many groups one step of a sweep deletes.
const STEP: usize = 4096;

/// A change to a saved group that the engine is asked for.
pub(super) enum GroupStep {
    Save { id: String, row: GroupRow, reply: ReplySender<()> },
    Forget { id: String, reply: ReplySender<bool> },
}

/// The row of a saved group.
#[derive(Serialize, Deserialize)]
pub(super) struct GroupRow {
    until: Timestamp,
    /// Celery's result tuple as JSON text.
    tuple: String,
}

impl EmbeddedBroker {
    /// Keeps who the members of a group are, until the time `until`.
    pub(crate) async fn save_group(&self, group: &GroupResult, until: Timestamp) -> Result<(), BrokerError> {
        limits::group(&group.id)?;
        let (id, row) = (group.id.clone(), GroupRow { until, tuple: group.to_tuple().to_string() });
        self.ask(|reply| EngineCommand::Group(GroupStep::Save { id, row, reply })).await
    }

    /// Reads a group that was saved and has not expired, straight from the tables.
    pub(crate) fn read_group(&self, id: &str, now: Timestamp) -> Result<Option<GroupResult>, BrokerError> {
        let tables = self.inner.shared.tables.read();
        let row = read(tables.as_ref().map_err(Clone::clone)?, id)?.filter(|row| row.until > now);
        let Some(row) = row else { return Ok(None) };
        let group = serde_json::from_str(&row.tuple).ok().and_then(|tuple| GroupResult::from_tuple(&tuple));
        group.map(Some).ok_or_else(|| BrokerError::io(format!("the members of group {id} do not decode")))
    }

    /// Forgets who the members of a group are. Says whether they were known and not expired.
    pub(crate) async fn forget_group(&self, id: &str) -> Result<bool, BrokerError> {
        let id = id.to_owned();
        self.ask(|reply| EngineCommand::Group(GroupStep::Forget { id, reply })).await
    }
}

impl Engine {
    pub(super) fn group_step(&mut self, step: GroupStep) {
        match step {
            GroupStep::Save { id, row, reply } => drop(reply.send(self.save_group(&id, &row))),
            GroupStep::Forget { id, reply } => drop(reply.send(self.forget_group(&id))),
        }
    }

    fn save_group(&mut self, id: &str, row: &GroupRow) -> Result<(), BrokerError> {
        let mut writes = Writes::default();
        let old = read(&self.open_tables()?, id)?;
        if let Some(old) = old.filter(|old| old.until != row.until) {
            writes.delete(TableName::Meta, &end_key(old.until, id)); // a commit writes no row twice
        }
        writes.put(TableName::Meta, &group_key(id), &encode(row)?);
        writes.put(TableName::Meta, &end_key(row.until, id), &[]);
        self.commit_now(&[], &writes)
    }

    fn forget_group(&mut self, id: &str) -> Result<bool, BrokerError> {
        let Some(row) = read(&self.open_tables()?, id)? else { return Ok(false) };
        let mut writes = Writes::default();
        writes.delete(TableName::Meta, &group_key(id));
        writes.delete(TableName::Meta, &end_key(row.until, id));
        self.commit_now(&[], &writes)?;
        Ok(row.until > now())
    }
}

/// Adds deletions of the groups that have expired by `now`. Says whether there are more to delete.
pub(super) fn due(tables: &Tables, now: Timestamp, writes: &mut Writes) -> Result<bool, BrokerError> {
    let end = end_key(Timestamp::from_micros(now.as_micros().saturating_add(1)), "");
    for (rows, (key, _)) in tables.readable(TableName::Meta, END, Bound::Excluded(&end)).enumerate() {
        if rows == STEP {
            return Ok(true);
        }
        writes.delete(TableName::Meta, &key);
        writes.delete(TableName::Meta, &[GROUP, &key[END.len() + size_of::<u64>()..]].concat());
    }
    Ok(false)
}

fn read(tables: &Tables, id: &str) -> Result<Option<GroupRow>, BrokerError> {
    tables.get(TableName::Meta, &group_key(id))?.as_deref().map(decode).transpose()
}

fn group_key(id: &str) -> Vec<u8> {
    [GROUP, id.as_bytes()].concat()
}

fn end_key(until: Timestamp, id: &str) -> Vec<u8> {
    [END, &until.as_micros().to_be_bytes()[..], id.as_bytes()].concat()
}
