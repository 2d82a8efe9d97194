//! One group commit: what is to be written together, and what is to be said once it is safe.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use fjall::{Database, Keyspace, OwnedWriteBatch, PersistMode, Slice};

use super::command::Reply;
use super::tables::{ReadyKey, Tables};
use super::window::Held;
use crate::broker::BrokerError;
use crate::core::Timestamp;
use crate::task::{Message, TaskId, TaskResult};

#[derive(Clone, Copy)]
pub(super) enum Table {
    Messages,
    Tasks,
    Dead,
    Expiries,
    Meta,
}

impl Table {
    fn of(self, tables: &Tables) -> &Keyspace {
        match self {
            Self::Messages => &tables.messages,
            Self::Tasks => &tables.tasks,
            Self::Dead => &tables.dead,
            Self::Expiries => &tables.expiries,
            Self::Meta => &tables.meta,
        }
    }
}

/// One row written, or (no value) deleted.
pub(super) struct Write {
    table: Table,
    key: Slice,
    value: Option<Slice>,
}

/// Rows to write.
#[derive(Default)]
pub(super) struct Writes(Vec<Write>);

impl Writes {
    pub(super) fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.0.push(Write { table, key: key.into(), value: Some(value.into()) });
    }

    pub(super) fn delete(&mut self, table: Table, key: &[u8]) {
        self.0.push(Write { table, key: key.into(), value: None });
    }

    pub(super) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Writes all of `parts` at once and syncs them.
pub(super) fn write(tables: &Tables, parts: &[&Writes]) -> fjall::Result<()> {
    let size = parts.iter().map(|p| p.0.len()).sum();
    let db: Database = tables.db.clone();
    let mut batch = OwnedWriteBatch::with_capacity(db, size).durability(Some(PersistMode::SyncData));
    for write in parts.iter().flat_map(|part| &part.0) {
        let keyspace = write.table.of(tables);
        match &write.value {
            Some(value) => batch.insert(keyspace, write.key.clone(), value.clone()),
            None => batch.remove(keyspace, write.key.clone()),
        }
    }
    batch.commit()
}

/// A commit under construction. Publishes and settlements are kept apart: when the disk will not take it, the former
/// are refused, and the latter are kept until it does.
#[derive(Default)]
pub(super) struct Commit {
    pub(super) publishes: Writes,
    pub(super) published: Vec<Published>,
    pub(super) settlements: Writes,
    pub(super) settled: Vec<Settled>,
    /// Accepted in this commit, for the check of unique ids.
    pub(super) ids: HashSet<TaskId>,
    /// Queues (by index) whose counts changed.
    pub(super) queues: HashSet<usize>,
    /// Ids whose results expire, with the time.
    pub(super) expiring: Vec<(Timestamp, TaskId)>,
}

impl Commit {
    pub(super) fn is_empty(&self) -> bool {
        self.published.is_empty() && self.settled.is_empty()
    }
}

/// A publish that waits for its commit.
pub(super) struct Published {
    pub(super) reply: Reply<()>,
    pub(super) arrival: Arrival,
}

/// A row that came in.
pub(super) struct Arrival {
    pub(super) queue: usize,
    pub(super) place: Place,
    pub(super) message: Arc<Message>,
}

/// Where a row lies.
#[derive(Clone, Copy)]
pub(super) enum Place {
    Ready(ReadyKey),
    Scheduled(Timestamp),
}

/// A settlement that waits for its commit.
pub(super) struct Settled {
    pub(super) queue: usize,
    pub(super) held: Held,
    pub(super) record: Option<TaskResult>,
    pub(super) done: Option<Reply<()>>,
    pub(super) end: End,
}

/// What a settlement came to.
pub(super) enum End {
    /// The row is gone.
    Gone,
    /// The row went to the dead letters.
    Dead,
    /// The row is where it was and may be delivered again.
    Back,
    /// Another row took its place.
    Replaced(Arrival),
}

/// Says why a commit failed; a full disk is told apart.
pub(super) fn commit_error(dir: &Path, error: &fjall::Error) -> BrokerError {
    use std::io::ErrorKind;
    let full = |e: &std::io::Error| matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
    let is_full = match error {
        fjall::Error::Io(e) => full(e),
        fjall::Error::Storage(fjall::LsmError::Io(e)) => full(e),
        _ => false,
    };
    if is_full {
        BrokerError::Full(format!("the disk of {} is full", dir.display()))
    } else {
        BrokerError::Io(format!("the store {} could not be written: {error}", dir.display()))
    }
}
