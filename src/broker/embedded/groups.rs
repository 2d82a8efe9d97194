//! Who the members of saved groups are: a row for each in the `meta` table, and another that says when it goes.
//!
//! The second sorts by that time, so that a sweep reads only what is due. Both are written in one commit.

use std::ops::Bound;
use std::sync::PoisonError;

use serde::{Deserialize, Serialize};

use super::EmbeddedBroker;
use super::command::{Command, Reply};
use super::engine::Engine;
use super::rows::{decode, encode};
use super::tables::{Table, Tables, Writes};
use crate::broker::BrokerError;
use crate::core::Timestamp;
use crate::store::GroupResult;
use crate::task::clock::now;

const GROUP: &[u8] = b"group/";
const END: &[u8] = b"group-end/";
/// The database's own limit is far above; this one keeps ids sane.
const LONGEST_ID: usize = 1024;
/// How many a sweep step takes.
const STEP: usize = 4096;

/// What the engine does to a group.
pub(super) enum GroupStep {
    Save { id: String, row: GroupRow, reply: Reply<()> },
    Forget { id: String, reply: Reply<bool> },
}

/// One that was saved.
#[derive(Serialize, Deserialize)]
pub(super) struct GroupRow {
    until: Timestamp,
    /// Celery's result tuple, as JSON.
    tuple: String,
}

impl EmbeddedBroker {
    /// Keeps who the members of a group are, until then.
    pub(crate) async fn save_group(&self, group: &GroupResult, until: Timestamp) -> Result<(), BrokerError> {
        if group.id.is_empty() || group.id.len() > LONGEST_ID {
            return Err(BrokerError::Io(format!(
                "the id of a group has {} bytes; give it 1 to {LONGEST_ID}",
                group.id.len()
            )));
        }
        let (id, row) = (group.id.clone(), GroupRow { until, tuple: group.to_tuple().to_string() });
        self.ask(|reply| Command::Group(GroupStep::Save { id, row, reply })).await
    }

    /// A group that was saved and has not expired, straight from the tables.
    pub(crate) fn read_group(&self, id: &str, now: Timestamp) -> Result<Option<GroupResult>, BrokerError> {
        let tables = self.inner.shared.tables.read().unwrap_or_else(PoisonError::into_inner);
        let row = read(tables.as_ref().map_err(Clone::clone)?, id)?.filter(|row| row.until > now);
        let Some(row) = row else { return Ok(None) };
        let group = serde_json::from_str(&row.tuple).ok().and_then(|tuple| GroupResult::from_tuple(&tuple));
        group.map(Some).ok_or_else(|| BrokerError::Io(format!("the members of group {id} do not decode")))
    }

    /// Forgets who the members of a group are; says whether it was there.
    pub(crate) async fn forget_group(&self, id: &str) -> Result<bool, BrokerError> {
        let id = id.to_owned();
        self.ask(|reply| Command::Group(GroupStep::Forget { id, reply })).await
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
            writes.delete(Table::Meta, &end_key(old.until, id)); // a commit writes no row twice
        }
        writes.put(Table::Meta, &group_key(id), &encode(row)?);
        writes.put(Table::Meta, &end_key(row.until, id), &[]);
        self.commit_now(&[], &writes)
    }

    fn forget_group(&mut self, id: &str) -> Result<bool, BrokerError> {
        let Some(row) = read(&self.open_tables()?, id)? else { return Ok(false) };
        let mut writes = Writes::default();
        writes.delete(Table::Meta, &group_key(id));
        writes.delete(Table::Meta, &end_key(row.until, id));
        self.commit_now(&[], &writes)?;
        Ok(row.until > now())
    }
}

/// Rows to delete of groups whose time is over by `now`; whether there are more.
pub(super) fn due(tables: &Tables, now: Timestamp, writes: &mut Writes) -> Result<bool, BrokerError> {
    let end = end_key(Timestamp::from_micros(now.as_micros().saturating_add(1)), "");
    for (rows, row) in tables.range(Table::Meta, END, Bound::Excluded(&end))?.enumerate() {
        if rows == STEP {
            return Ok(true);
        }
        let (key, _) = row?;
        writes.delete(Table::Meta, &key);
        writes.delete(Table::Meta, &[GROUP, &key[END.len() + size_of::<u64>()..]].concat());
    }
    Ok(false)
}

fn read(tables: &Tables, id: &str) -> Result<Option<GroupRow>, BrokerError> {
    tables.get(Table::Meta, &group_key(id))?.as_deref().map(decode).transpose()
}

fn group_key(id: &str) -> Vec<u8> {
    [GROUP, id.as_bytes()].concat()
}

fn end_key(until: Timestamp, id: &str) -> Vec<u8> {
    [END, &until.as_micros().to_be_bytes()[..], id.as_bytes()].concat()
}
