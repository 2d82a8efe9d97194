//! Answers the requests that are handled one at a time; each sees all requests that came before it.

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;

use super::argument_index;
use super::chords;
use super::command::EngineCommand;
use super::engine::Engine;
use super::expiry;
use super::failed::FAILED;
use super::groups;
use super::lanes::LaneBatch;
use super::queue_cursor::{AttachedConsumer, QueueCursor};
use super::rows::{TaskRow, decode, encode, queue_of, task_key};
use super::tables::{TableName, Tables, Writes};
use crate::broker::dead_letter::requeued;
use crate::broker::{
    BrokerError, DeadLetter, MessageLocation, QueueCounts, QueueTenants, RecordFn, Remains, Removal, limits,
};
use crate::core::Timestamp;
use crate::task::clock::now;
use crate::task::{Message, TaskId, TaskResult};

impl Engine {
    pub(super) fn handle(&mut self, command: EngineCommand) {
        match command {
            EngineCommand::Consume { queue, epoch, prefetch, sink } => {
                self.consume(&queue, AttachedConsumer { epoch, prefetch, sink });
            }
            EngineCommand::SetPrefetch { queue, epoch, prefetch } => {
                if let Some(consumer) = self.consumer(&queue, epoch).and_then(|w| w.consumer.as_mut()) {
                    consumer.prefetch = prefetch;
                }
            }
            EngineCommand::Cancel { queue, epoch } => {
                if let Some(cursor) = self.consumer(&queue, epoch) {
                    cursor.consumer = None; // what it has stays with it until it is settled or dropped
                }
            }
            EngineCommand::Lane { lane, reply } => drop(reply.send(self.lane_facts(&lane))),
            EngineCommand::Lanes { limit, reply } => drop(reply.send(self.all_lanes(limit))),
            EngineCommand::SteerLane { lane, lever, reply } => {
                drop(reply.send(self.steer_lane(&lane, lever)))
            }
            EngineCommand::Holder { key, reply } => drop(reply.send(self.holder_of(&key))),
            EngineCommand::Declare { queue, reply } => drop(reply.send(self.declare(&queue))),
            EngineCommand::Queues { reply } => drop(reply.send(Ok(self.by_name.keys().cloned().collect()))),
            EngineCommand::Counts { queue, reply } => {
                let cursor = self.by_name.get(&queue).map(|index| &self.cursors[*index]);
                let _ = reply.send(Ok(cursor.map_or_else(QueueCounts::default, QueueCursor::counts)));
            }
            EngineCommand::OldestReady { queue, reply } => drop(reply.send(self.oldest_ready(&queue))),
            EngineCommand::Hasten { queue, from, limit, reply } => {
                drop(reply.send(self.hasten(&queue, from, limit)))
            }
            EngineCommand::Tenants { queue, limit, reply } => {
                let cursor = self.by_name.get(&queue).map(|index| &self.cursors[*index]);
                let tenants = cursor.map_or_else(QueueTenants::default, QueueCursor::tenant_counts);
                let _ = reply.send(Ok(tenants.cut(limit)));
            }
            EngineCommand::Find { id, reply } => drop(reply.send(self.find(&id))),
            EngineCommand::Remove { id, record, reply } => drop(reply.send(self.remove(&id, record))),
            EngineCommand::Erase { ids, reply } => drop(reply.send(self.erase(&ids))),
            EngineCommand::ChangeAll { act, change, picks, reply } => {
                drop(reply.send(self.change_all(act.as_deref(), &change, picks)))
            }
            EngineCommand::Undo { act, picks, is_last, reply } => {
                drop(reply.send(self.undo(&act, picks, is_last)))
            }
            EngineCommand::ForgetKept { act, reply } => drop(reply.send(self.forget_kept(&act))),
            EngineCommand::KeepFailed { task, reply } => drop(reply.send(self.keep_undelivered(&task))),
            EngineCommand::TakeFailed { picks, reply } => drop(reply.send(self.take_failed(picks))),
            EngineCommand::HeldKeys { reply } => {
                let held = self.cursors.iter().flat_map(QueueCursor::held_keys).copied();
                let _ = reply.send(Ok(held.collect()));
            }
            EngineCommand::DeadLetters { limit, reply } => drop(reply.send(self.dead_letters(limit))),
            EngineCommand::RequeueDeadLetters { ids, reply } => {
                drop(reply.send(self.requeue_dead_letters(ids)))
            }
            EngineCommand::Put { result, reply } => drop(reply.send(self.put(*result))),
            EngineCommand::Forget { id, reply } => drop(reply.send(self.forget(&id))),
            EngineCommand::Sweep { now, reply } => drop(reply.send(self.sweep(now))),
            EngineCommand::Note(noting) => self.note(*noting),
            EngineCommand::SetNote { key, value } => self.set_note(&key, value.as_deref()),
            EngineCommand::Chord(join) => self.chord_step(join),
            EngineCommand::Group(step) => self.group_step(step),
            // The loop in `run` gathers these and does not pass them on.
            EngineCommand::Publish { .. }
            | EngineCommand::PublishAll { .. }
            | EngineCommand::Settle { .. }
            | EngineCommand::ReleaseWindow { .. }
            | EngineCommand::Close { .. } => {}
        }
    }

    /// The window of a queue, if the consumer of this epoch is still the queue's consumer.
    fn consumer(&mut self, queue: &str, epoch: u64) -> Option<&mut QueueCursor> {
        let index = *self.by_name.get(queue)?;
        Some(&mut self.cursors[index]).filter(|w| w.consumer.as_ref().is_some_and(|c| c.epoch == epoch))
    }

    fn declare(&mut self, queue: &str) -> Result<(), BrokerError> {
        if self.by_name.contains_key(queue) {
            return Ok(());
        }
        let index = self.queue(queue)?;
        self.commit_now(&[index], &Writes::default())
    }

    pub(super) fn row(&self, id: &TaskId) -> Result<Option<TaskRow>, BrokerError> {
        let row = self.open_tables()?.get(TableName::Tasks, &task_key(id))?;
        row.as_deref().map(TaskRow::decode).transpose()
    }

    /// The queue that has delivered the row of this key, if one has.
    pub(super) fn holder(&self, key: &[u8]) -> Option<&QueueCursor> {
        self.cursors.get(usize::from(queue_of(key)?)).filter(|w| w.holds(key))
    }

    pub(super) fn message(&self, key: &[u8]) -> Result<Option<Message>, BrokerError> {
        let row = self.open_tables()?.get(TableName::Messages, key)?;
        row.as_deref().map(decode).transpose()
    }

    fn find(&self, id: &TaskId) -> Result<Option<MessageLocation>, BrokerError> {
        let key = match self.row(id)? {
            Some(TaskRow::At(key)) => key,
            Some(TaskRow::InLine(key)) => {
                let row = self.open_tables()?.get(TableName::Lanes, &key)?;
                let message = row.as_deref().map(decode).transpose()?;
                return Ok(message.map(|message| MessageLocation::Waiting(Box::new(message))));
            }
            _ => return Ok(None),
        };
        if let Some(cursor) = self.holder(&key) {
            return Ok(Some(MessageLocation::Delivered { queue: cursor.name.clone() }));
        }
        Ok(self.message(&key)?.map(|message| MessageLocation::Waiting(Box::new(message))))
    }

    pub(super) fn remove(&mut self, id: &TaskId, record: RecordFn) -> Result<Removal, BrokerError> {
        let key = match self.row(id)? {
            Some(TaskRow::At(key)) => key,
            Some(TaskRow::InLine(key)) => return self.remove_from_line(id, &key, record),
            _ => return Ok(Removal::Unknown),
        };
        if let Some(cursor) = self.holder(&key) {
            return Ok(Removal::Delivered { queue: cursor.name.clone() });
        }
        let Some(message) = self.message(&key)? else { return Ok(Removal::Unknown) };
        let queue = self.queue(&message.queue)?;
        let Remains { record, follow_ups } = record(&message);
        let mut writes = Writes::default();
        writes.delete(TableName::Messages, &key);
        self.leave_record(&mut writes, &task_key(id), record.as_ref(), None);
        argument_index::delete_waiting(&mut writes, &message, None);
        self.cursors[queue].left_at(&key);
        self.leaves_lane(&message, None);
        self.lets_go(&message);
        if let Some(follow_ups) = follow_ups {
            self.follow(&mut writes, id, *follow_ups);
        }
        self.commit_follow_ups(LaneBatch::default(), &[queue], writes)?;
        if let Some(record) = &record {
            self.shared.waiters.wake(record);
        }
        Ok(Removal::Removed)
    }

    /// The dead letters with their keys, oldest first. Rows that were set aside, and letters that cannot be read,
    /// are left out.
    fn letters(tables: &Tables) -> impl Iterator<Item = ([u8; 8], DeadLetter)> {
        let rows = tables.readable(TableName::Dead, &[], Bound::Excluded(&[FAILED]));
        rows.filter_map(|(key, value)| match (<[u8; 8]>::try_from(&*key), decode(&value)) {
            (Ok(key), Ok(letter)) => Some((key, letter)),
            (Ok(key), Err(error)) => {
                tracing::error!(?key, %error, "a dead letter does not decode");
                None
            }
            (Err(_), _) => None,
        })
    }

    fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        Ok(Self::letters(&self.open_tables()?).take(limit).map(|(_, letter)| letter).collect())
    }

    /// Puts the dead letters of these ids back, in one pass over all letters.
    fn requeue_dead_letters(&mut self, ids: HashSet<TaskId>) -> Result<Vec<TaskId>, BrokerError> {
        let mut wanted = ids;
        let mut found = Vec::with_capacity(wanted.len());
        let tables = self.open_tables()?;
        for (key, letter) in Self::letters(&tables) {
            if wanted.is_empty() {
                break;
            }
            if wanted.remove(&letter.message.id) {
                found.push((key, letter));
            }
        }
        drop(tables);
        let ids = found.iter().map(|(_, letter)| letter.message.id.clone()).collect();
        found.into_iter().try_for_each(|(key, letter)| self.requeue_dead_letter(key, letter))?;
        Ok(ids)
    }

    fn requeue_dead_letter(&mut self, key: [u8; 8], letter: DeadLetter) -> Result<(), BrokerError> {
        let tables = self.open_tables()?;
        let mut writes = Writes::default();
        argument_index::delete_failed(&mut writes, &letter.message, &key);
        let message = requeued(letter.message, now());
        limits::check(&message)?;
        let row = encode(&message)?;
        let queue = self.queue(&message.queue)?;
        writes.delete(TableName::Dead, &key);
        self.cursors[queue].dead = self.cursors[queue].dead.saturating_sub(1);
        let mut lanes = LaneBatch::default();
        // A message that has no lane is ready at once.
        self.pass_lane(&mut lanes, &tables, queue, &Arc::new(message), &row, false)?;
        self.commit.queues.insert(queue);
        self.commit_lanes(lanes, writes)?;
        Ok(())
    }

    fn put(&mut self, result: TaskResult) -> Result<bool, BrokerError> {
        limits::record(&result.id, &result.task)?;
        match self.row(&result.id)? {
            Some(TaskRow::Over(old)) if old.expires_at > result.finished_at => return Ok(false),
            Some(TaskRow::At(_) | TaskRow::InLine(_)) => return Ok(false),
            _ => {}
        }
        let mut writes = Writes::default();
        self.leave_record(&mut writes, &task_key(&result.id), Some(&result), None);
        self.commit_now(&[], &writes)?;
        self.shared.waiters.wake(&result);
        Ok(true)
    }

    fn forget(&mut self, id: &TaskId) -> Result<bool, BrokerError> {
        let Some(TaskRow::Over(_)) = self.row(id)? else { return Ok(false) };
        let mut writes = Writes::default();
        writes.delete(TableName::Tasks, &task_key(id));
        self.commit_now(&[], &writes)?;
        Ok(true)
    }

    fn sweep(&mut self, now: Timestamp) -> Result<usize, BrokerError> {
        let mut swept = 0;
        loop {
            let tables = self.open_tables()?;
            let mut writes = Writes::default();
            let (results, more_results) = expiry::due(&tables, now, &mut writes)?;
            let more = groups::due(&tables, now, &mut writes)? || more_results;
            if !more {
                chords::forget_old(&tables, now, &mut writes)?;
            }
            if !writes.is_empty() {
                self.commit_now(&[], &writes)?;
            }
            swept += results;
            if !more {
                self.sweep_failed(now)?;
                return Ok(swept);
            }
        }
    }
}
