//! Requests that are answered one at a time, each seeing all that came before it.

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;

use super::chords;
use super::command::Command;
use super::engine::Engine;
use super::expiry;
use super::groups;
use super::lanes::LaneBatch;
use super::rows::{TaskRow, decode, encode, is_ready, queue_of, task_key};
use super::tables::{Table, Tables, Writes};
use super::window::{Consuming, Window};
use crate::broker::dead_letter::revived;
use crate::broker::{BrokerError, Counts, DeadLetter, Place, RecordFn, Remains, Removal};
use crate::core::Timestamp;
use crate::task::clock::now;
use crate::task::{Message, TaskId, TaskResult};

impl Engine {
    pub(super) fn handle(&mut self, command: Command) {
        match command {
            Command::Consume { queue, epoch, prefetch, sink } => {
                self.consume(&queue, Consuming { epoch, prefetch, sink });
            }
            Command::SetPrefetch { queue, epoch, prefetch } => {
                if let Some(consumer) = self.consumer(&queue, epoch).and_then(|w| w.consumer.as_mut()) {
                    consumer.prefetch = prefetch;
                }
            }
            Command::Cancel { queue, epoch } => {
                if let Some(window) = self.consumer(&queue, epoch) {
                    window.consumer = None; // what it has stays with it until it is settled or dropped
                }
            }
            Command::Lane { lane, reply } => drop(reply.send(self.lane_facts(&lane))),
            Command::Lanes { limit, reply } => drop(reply.send(self.all_lanes(limit))),
            Command::SteerLane { lane, lever, reply } => drop(reply.send(self.steer_lane(&lane, lever))),
            Command::Holder { key, reply } => drop(reply.send(self.holder_of(&key))),
            Command::Declare { queue, reply } => drop(reply.send(self.declare(&queue))),
            Command::Queues { reply } => drop(reply.send(Ok(self.by_name.keys().cloned().collect()))),
            Command::Counts { queue, reply } => {
                let window = self.by_name.get(&queue).map(|index| &self.windows[*index]);
                let _ = reply.send(Ok(window.map_or_else(Counts::default, Window::counts)));
            }
            Command::Find { id, reply } => drop(reply.send(self.find(&id))),
            Command::Remove { id, record, reply } => drop(reply.send(self.remove(&id, record))),
            Command::DeadLetters { limit, reply } => drop(reply.send(self.dead_letters(limit))),
            Command::Revive { ids, reply } => drop(reply.send(self.revive_all(ids))),
            Command::Put { result, reply } => drop(reply.send(self.put(*result))),
            Command::Forget { id, reply } => drop(reply.send(self.forget(&id))),
            Command::Sweep { now, reply } => drop(reply.send(self.sweep(now))),
            Command::Note(noting) => self.note(*noting),
            Command::SetNote { key, value } => self.set_note(&key, value.as_deref()),
            Command::Chord(join) => self.chord_step(join),
            Command::Group(step) => self.group_step(step),
            // These are gathered by the loop.
            Command::Publish { .. }
            | Command::PublishAll { .. }
            | Command::Settle(_)
            | Command::LetGo { .. }
            | Command::Close { .. } => {}
        }
    }

    /// The window of a queue, if that consumer is still its consumer.
    fn consumer(&mut self, queue: &str, epoch: u64) -> Option<&mut Window> {
        let index = *self.by_name.get(queue)?;
        Some(&mut self.windows[index]).filter(|w| w.consumer.as_ref().is_some_and(|c| c.epoch == epoch))
    }

    fn declare(&mut self, queue: &str) -> Result<(), BrokerError> {
        if self.by_name.contains_key(queue) {
            return Ok(());
        }
        let index = self.queue(queue)?;
        self.commit_now(&[index], &Writes::default())
    }

    fn row(&self, id: &TaskId) -> Result<Option<TaskRow>, BrokerError> {
        let row = self.open_tables()?.get(Table::Tasks, &task_key(id))?;
        row.as_deref().map(TaskRow::decode).transpose()
    }

    /// The queue that holds this row as a delivery.
    fn holder(&self, key: &[u8]) -> Option<&Window> {
        self.windows.get(usize::from(queue_of(key)?)).filter(|w| w.holds(key))
    }

    pub(super) fn message(&self, key: &[u8]) -> Result<Option<Message>, BrokerError> {
        let row = self.open_tables()?.get(Table::Messages, key)?;
        row.as_deref().map(decode).transpose()
    }

    fn find(&self, id: &TaskId) -> Result<Option<Place>, BrokerError> {
        let key = match self.row(id)? {
            Some(TaskRow::At(key)) => key,
            Some(TaskRow::InLine(key)) => {
                let row = self.open_tables()?.get(Table::Lanes, &key)?;
                let message = row.as_deref().map(decode).transpose()?;
                return Ok(message.map(|message| Place::Waiting(Box::new(message))));
            }
            _ => return Ok(None),
        };
        if let Some(window) = self.holder(&key) {
            return Ok(Some(Place::Delivered { queue: window.name.clone() }));
        }
        Ok(self.message(&key)?.map(|message| Place::Waiting(Box::new(message))))
    }

    fn remove(&mut self, id: &TaskId, record: RecordFn) -> Result<Removal, BrokerError> {
        let key = match self.row(id)? {
            Some(TaskRow::At(key)) => key,
            Some(TaskRow::InLine(key)) => return self.remove_from_line(id, &key, record),
            _ => return Ok(Removal::Unknown),
        };
        if let Some(window) = self.holder(&key) {
            return Ok(Removal::Delivered { queue: window.name.clone() });
        }
        let Some(message) = self.message(&key)? else { return Ok(Removal::Unknown) };
        let queue = self.queue(&message.queue)?;
        let Remains { record, sequel } = record(&message);
        let mut writes = Writes::default();
        writes.delete(Table::Messages, &key);
        self.leave_record(&mut writes, &task_key(id), record.as_ref(), None);
        let window = &mut self.windows[queue];
        let count = if is_ready(&key) { &mut window.ready } else { &mut window.scheduled };
        *count = count.saturating_sub(1);
        self.leaves_lane(&message, None);
        self.lets_go(&message);
        self.follow(&mut writes, id, sequel);
        self.commit_sequel(LaneBatch::default(), &[queue], writes)?;
        if let Some(record) = &record {
            self.shared.waiters.wake(record);
        }
        Ok(Removal::Removed)
    }

    /// The rows of dead letters, oldest first. Rows that were set aside and letters that do not decode are left out.
    fn letters(
        tables: &Tables,
    ) -> Result<impl Iterator<Item = Result<([u8; 8], DeadLetter), BrokerError>>, BrokerError> {
        let rows = tables.range(Table::Dead, &[], Bound::Unbounded)?;
        Ok(rows.filter_map(|row| match row {
            Err(error) => Some(Err(error)),
            Ok((key, value)) => match (<[u8; 8]>::try_from(&*key), decode(&value)) {
                (Ok(key), Ok(letter)) => Some(Ok((key, letter))),
                (Ok(key), Err(error)) => {
                    tracing::error!(?key, %error, "a dead letter does not decode");
                    None
                }
                (Err(_), _) => None,
            },
        }))
    }

    fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        Self::letters(&self.open_tables()?)?.take(limit).map(|row| Ok(row?.1)).collect()
    }

    /// In one pass over all letters.
    fn revive_all(&mut self, ids: HashSet<TaskId>) -> Result<Vec<TaskId>, BrokerError> {
        let mut wanted = ids;
        let mut found = Vec::with_capacity(wanted.len());
        let tables = self.open_tables()?;
        for row in Self::letters(&tables)? {
            if wanted.is_empty() {
                break;
            }
            let (key, letter) = row?;
            if wanted.remove(&letter.message.id) {
                found.push((key, letter));
            }
        }
        drop(tables);
        let ids = found.iter().map(|(_, letter)| letter.message.id.clone()).collect();
        found.into_iter().try_for_each(|(key, letter)| self.revive(key, letter))?;
        Ok(ids)
    }

    fn revive(&mut self, key: [u8; 8], letter: DeadLetter) -> Result<(), BrokerError> {
        let tables = self.open_tables()?;
        let message = revived(letter.message, now());
        let row = encode(&message)?;
        let queue = self.queue(&message.queue)?;
        let mut writes = Writes::default();
        writes.delete(Table::Dead, &key);
        self.windows[queue].dead = self.windows[queue].dead.saturating_sub(1);
        let mut lanes = LaneBatch::default();
        // Without a lane it is ready at once.
        self.pass_lane(&mut lanes, &tables, queue, &Arc::new(message), &row, false)?;
        self.commit.queues.insert(queue);
        self.commit_lanes(lanes, writes)?;
        Ok(())
    }

    fn put(&mut self, result: TaskResult) -> Result<bool, BrokerError> {
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
        writes.delete(Table::Tasks, &task_key(id));
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
                return Ok(swept);
            }
        }
    }
}
