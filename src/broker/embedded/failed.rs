//! The failed tasks on disk: a row for each in the table `dead`, beside the dead letters.
//!
//! The key of a failed task is [`FAILED`], its queue and a sequence, so that those of a queue lie in the order in which they
//! failed, and behind all dead letters, whose keys are sequences. A row is written in the commit that ends its task. The same
//! commit deletes rows of the queue that have expired, and the oldest ones if there are too many. Whoever looks for failed
//! tasks ([`failed_tasks`](super::failed_tasks)) reads the tables elsewhere, and holds up no start.

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::argument_index;
use super::engine::{Engine, EngineShared};
use super::failed_tasks::failed_in;
use super::lanes::LaneBatch;
use super::rows::{TaskRow, decode, encode};
use super::tables::{Slice, TableName, Tables, Writes};
use crate::broker::{BrokerError, DeadLetter, FailedTask};
use crate::core::Timestamp;
use crate::task::clock::now;
use crate::task::{Message, TaskId};

/// The first byte of the keys of failed tasks. That of a sequence is 0 for as long as anybody lives.
pub(super) const FAILED: u8 = 0xfe;
/// The bytes of such a key.
pub(super) const FAILED_KEY: usize = 1 + 2 + 8;
/// The most rows that one commit deletes because a task fails.
const AT_ONCE: u64 = 64;
/// The most rows that one commit of a sweep deletes. Nothing starts while the engine sweeps, and each commit waits for the disk.
const SWEPT_AT_ONCE: u64 = 4096;

/// The key of a failed task.
pub(super) fn failed_key(queue: u16, seq: u64) -> [u8; FAILED_KEY] {
    let mut key = [0; FAILED_KEY];
    key[0] = FAILED;
    key[1..3].copy_from_slice(&queue.to_be_bytes());
    key[3..].copy_from_slice(&seq.to_be_bytes());
    key
}

/// The queue and the sequence in the key of a failed task; `None`: it is the key of something else.
pub(super) fn parts_of(key: &[u8]) -> Option<(u16, u64)> {
    let key = <[u8; FAILED_KEY]>::try_from(key).ok().filter(|key| key[0] == FAILED)?;
    let (queue, seq) = key[1..].split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*queue), u64::from_be_bytes(seq.try_into().ok()?)))
}

/// How many failed tasks a queue keeps, and how many bytes their rows take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct FailedTotals {
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

impl FailedTotals {
    pub(super) fn add(&mut self, bytes: u64) {
        *self = Self { rows: self.rows.saturating_add(1), bytes: self.bytes.saturating_add(bytes) };
    }

    fn take(&mut self, bytes: u64) {
        *self = Self { rows: self.rows.saturating_sub(1), bytes: self.bytes.saturating_sub(bytes) };
    }
}

/// What a settlement does to the failed tasks of its queue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FailedChange {
    /// The bytes of the row that it adds, if it adds one.
    added: Option<u64>,
    /// The rows that it deletes.
    deleted: FailedTotals,
}

impl FailedChange {
    /// Counts the change once more, in counts that lack it.
    pub(super) fn count(&self, totals: &mut FailedTotals) {
        if let Some(bytes) = self.added {
            totals.add(bytes);
        }
        totals.rows = totals.rows.saturating_sub(self.deleted.rows);
        totals.bytes = totals.bytes.saturating_sub(self.deleted.bytes);
    }
}

/// A failed task or a dead letter that is taken.
pub(super) struct FailedPick {
    pub(super) key: Vec<u8>,
    pub(super) id: TaskId,
    /// The message that waits from now on; `None`: the task is deleted.
    pub(super) message: Option<Box<Message>>,
}

impl EngineShared {
    fn count_dropped_failed(&self) {
        self.dropped_failed.fetch_add(1, Ordering::Relaxed);
    }

    /// How many failed tasks were dropped because their queues kept too many.
    pub(super) fn dropped_failed(&self) -> u64 {
        self.dropped_failed.load(Ordering::Relaxed)
    }
}

impl Engine {
    /// Stages the row of a task that has failed for good, and the deletion of those rows of its queue that must go.
    pub(super) fn keep_failed(
        &mut self,
        writes: &mut Writes,
        queue: usize,
        task: &FailedTask,
    ) -> FailedChange {
        let mut change = FailedChange::default();
        match encode(task) {
            Ok(row) => {
                let seq = self.next_seq();
                let (cursor, bytes) = (&mut self.cursors[queue], row.len() as u64);
                let key = failed_key(cursor.number, seq);
                writes.put(TableName::Dead, &key, &row);
                argument_index::add_failed(writes, &task.message, &key);
                cursor.failed.add(bytes);
                change.added = Some(bytes);
            }
            Err(error) => {
                tracing::error!(id = %task.message.id, %error, "a failed task cannot be kept");
            }
        }
        // While the tables are closed, nothing can be looked at; the next one that fails makes up for it.
        if let Some(tables) = self.tables.clone() {
            change.deleted = self.drop_failed(writes, &tables, queue, AT_ONCE, now());
        }
        change
    }

    /// Stages the deletion of the oldest failed tasks of a queue: of those that have expired, and of those that are too many,
    /// at most `at_once`.
    fn drop_failed(
        &mut self,
        writes: &mut Writes,
        tables: &Tables,
        queue: usize,
        at_once: u64,
        now: Timestamp,
    ) -> FailedTotals {
        let (most, most_bytes) = (self.options.max_failed, self.options.max_failed_bytes);
        let mut deleted = FailedTotals::default();
        while deleted.rows < at_once {
            let cursor = &mut self.cursors[queue];
            let Some((key, value)) = oldest(tables, cursor.number, cursor.failed_from) else { break };
            let Some((_, seq)) = parts_of(&key) else { break };
            let is_too_much = cursor.failed.rows > most || cursor.failed.bytes > most_bytes;
            let task = decode::<FailedTask>(&value).ok();
            let has_expired = task.as_ref().is_some_and(|task| task.has_expired(now));
            if !is_too_much && !has_expired {
                break;
            }
            writes.delete(TableName::Dead, &key);
            if let Some(task) = &task {
                argument_index::delete_failed(writes, &task.message, &key);
            }
            let bytes = value.len() as u64;
            cursor.failed.take(bytes);
            cursor.failed_from = seq + 1;
            deleted.add(bytes);
            if !has_expired {
                self.shared.count_dropped_failed();
                tracing::warn!(
                    queue = self.cursors[queue].name,
                    most,
                    most_bytes,
                    "a failed task is dropped, because its queue keeps too many"
                );
            }
        }
        deleted
    }

    /// Deletes the failed tasks that have expired by `now`.
    pub(super) fn sweep_failed(&mut self, now: Timestamp) -> Result<(), BrokerError> {
        for queue in 0..self.cursors.len() {
            while self.cursors[queue].failed.rows > 0 {
                let (tables, mut writes) = (self.open_tables()?, Writes::default());
                let from = self.cursors[queue].failed_from;
                self.drop_failed(&mut writes, &tables, queue, SWEPT_AT_ONCE, now);
                if writes.is_empty() {
                    break;
                }
                if let Err(error) = self.commit_now(&[queue], &writes) {
                    self.cursors[queue].failed_from = from; // they are there still
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Keeps a failed task that has no delivery.
    pub(super) fn keep_undelivered(&mut self, task: &FailedTask) -> Result<(), BrokerError> {
        self.open_tables()?;
        let queue = self.queue(&task.message.queue)?;
        let mut writes = Writes::default();
        let from = self.cursors[queue].failed_from;
        self.keep_failed(&mut writes, queue, task);
        let committed = self.commit_now(&[queue], &writes);
        if committed.is_err() {
            self.cursors[queue].failed_from = from; // what was to go is there still
        }
        committed
    }

    /// Takes failed tasks and dead letters off, in one commit. Answers with the ids of those that were still there.
    pub(super) fn take_failed(&mut self, picks: Vec<FailedPick>) -> Result<Vec<TaskId>, BrokerError> {
        let tables = self.open_tables()?;
        let (mut writes, mut lanes) = (Writes::default(), LaneBatch::default());
        let (mut taken, mut known) = (Vec::new(), HashSet::new());
        for FailedPick { key, id, message } in picks {
            let Some(row) = tables.get(TableName::Dead, &key)? else { continue };
            if let Some(message) = message
                && let Err(error) = self.put_back(&mut lanes, &tables, *message)
            {
                tracing::warn!(%id, %error, "a failed task is not put back");
                continue;
            }
            writes.delete(TableName::Dead, &key);
            if let Some(task) = failed_in(&key, &row) {
                argument_index::delete_failed(&mut writes, &task.message, &key);
            }
            self.count_taken(&key, &row);
            if known.insert(id.clone()) {
                taken.push(id);
            }
        }
        self.commit_lanes(lanes, writes)?;
        Ok(taken)
    }

    /// Stages the message of a failed task that goes back.
    fn put_back(
        &mut self,
        lanes: &mut LaneBatch,
        tables: &Tables,
        message: Message,
    ) -> Result<(), BrokerError> {
        if let Some(TaskRow::At(_) | TaskRow::InLine(_)) = self.row(&message.id)? {
            return Err(BrokerError::DuplicateId(message.id));
        }
        let row = encode(&message)?;
        let queue = self.queue(&message.queue)?;
        self.pass_lane(lanes, tables, queue, &Arc::new(message), &row, false)?;
        self.commit.queues.insert(queue);
        Ok(())
    }

    /// Takes a row off the counts of its queue.
    fn count_taken(&mut self, key: &[u8], row: &[u8]) {
        let queue = match parts_of(key) {
            Some((number, _)) => Some(usize::from(number)),
            None => {
                let letter = decode::<DeadLetter>(row).ok();
                letter.and_then(|letter| self.by_name.get(&letter.message.queue).copied())
            }
        };
        let Some(queue) = queue.filter(|queue| *queue < self.cursors.len()) else { return };
        let cursor = &mut self.cursors[queue];
        match parts_of(key) {
            Some(_) => cursor.failed.take(row.len() as u64),
            None => cursor.dead = cursor.dead.saturating_sub(1),
        }
        self.commit.queues.insert(queue);
    }
}

/// The oldest row of a queue, from this sequence on.
fn oldest(tables: &Tables, queue: u16, from: u64) -> Option<(Slice, Slice)> {
    let end = failed_key(queue, u64::MAX);
    tables.readable(TableName::Dead, &failed_key(queue, from), Bound::Included(&end)).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_queue_lie_together_behind_all_dead_letters() {
        let letter = u64::from(u32::MAX).to_be_bytes();
        let (first, last) = (failed_key(1, 0), failed_key(1, u64::MAX));
        assert!(letter.as_slice() < first.as_slice() && b"damaged/".as_slice() < first.as_slice());
        assert!(first < failed_key(1, 256) && failed_key(1, 256) < last && last < failed_key(2, 0));
        assert_eq!((parts_of(&failed_key(7, 9)), parts_of(&letter)), (Some((7, 9)), None));
        assert_eq!(parts_of(b"damaged/xyz"), None, "it has as many bytes");
    }
}
