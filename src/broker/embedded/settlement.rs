//! How deliveries end: what each settlement writes.

use std::sync::Arc;

use super::command::Settlement;
use super::commit::{End, Settled};
use super::engine::Engine;
use super::lanes::{self, Newcoming, Step};
use super::rows::{ReadyKey, TaskRow, encode, task_key};
use super::tables::{Table, Writes};
use crate::broker::dead_letter::{crash_reason, crash_result};
use crate::broker::{BrokerError, DeadLetter, Settle, lane};
use crate::core::Timestamp;
use crate::task::clock::now;
use crate::task::{Message, TaskResult};

impl Engine {
    pub(super) fn settle(&mut self, settlement: Settlement) {
        let Some(Settlement { queue, tag, settle, row, done }) = self.defer(settlement) else { return };
        let index = usize::from(queue);
        let Some(held) = self.windows.get_mut(index).and_then(|w| w.release(tag)) else {
            if let Some(done) = done {
                let _ = done.send(Err(BrokerError::Stale));
            }
            return;
        };
        self.last_chance_over(tag);
        let mut writes = std::mem::take(&mut self.commit.settlements);
        let id = &task_key(&held.message.id);
        let mut record = None;
        let block = lane::block_of(&held.message, &settle);
        let end = match settle {
            Settle::Ack { result, sequel } => {
                self.remove_row(&mut writes, index, &held.key);
                self.leaves_lane(&held.message, block);
                self.lets_go(&held.message);
                let is_kept = !held.message.ignore_result || held.message.serial.is_none();
                let (result, row) = (lane::kept(&held.message, result), row.filter(|_| is_kept));
                let replaced = sequel.iter().any(|s| s.messages.iter().any(|m| m.id == held.message.id));
                if !replaced {
                    self.leave_record(&mut writes, id, result.as_ref(), row);
                }
                self.follow(&mut writes, &held.message.id, sequel);
                record = result;
                End::Gone
            }
            Settle::Requeue { message, due } => {
                if lane::lane_of(&held.message) != lane::lane_of(&message) {
                    self.leaves_lane(&held.message, None);
                }
                self.replace(&mut writes, index, &held.key, *message, due)
            }
            Settle::Return { crashed: false } => self.count_return(&mut writes, &held.key, &held.message),
            Settle::Return { crashed: true } => {
                let message = Message::clone(&held.message);
                let end = self.count_crash(&mut writes, index, &held.key, message, &mut record);
                if let End::Dead = end {
                    self.leaves_lane(&held.message, lane::blocks(&held.message, record.as_ref()));
                    self.lets_go(&held.message);
                }
                end
            }
            Settle::DeadLetter { reason, result, sequel } => {
                self.remove_row(&mut writes, index, &held.key);
                self.leaves_lane(&held.message, block);
                self.lets_go(&held.message);
                self.bury(&mut writes, index, Message::clone(&held.message), reason, result.as_ref());
                self.follow(&mut writes, &held.message.id, sequel);
                record = result;
                End::Dead
            }
        };
        self.commit.settlements = writes;
        self.commit.queues.insert(index);
        self.commit.settled.push(Settled { queue: index, held, record: record.map(Box::new), done, end });
    }

    /// Its run is over, and its lane hears of it with the commit.
    pub(super) fn leaves_lane(&mut self, message: &Message, block: Option<String>) {
        if let Some(lane) = lane::lane_of(message) {
            self.commit.steps.push(Step::Release { lane: lane.clone(), id: message.id.clone(), block });
        }
    }

    /// It is over, and its dedupe window ends with the commit.
    pub(super) fn lets_go(&mut self, message: &Message) {
        if let Some(unique) = &message.unique {
            self.commit.steps.push(Step::LetGo { key: unique.key.clone(), id: message.id.clone() });
        }
    }

    /// The row is where it was. Of a serial task the next start is to be told from this one, even if this one should still
    /// go on somewhere.
    fn count_return(&mut self, writes: &mut Writes, key: &ReadyKey, message: &Message) -> End {
        let mut message = message.clone();
        if let Some(serial) = &mut message.serial {
            serial.handed_back = serial.handed_back.saturating_add(1);
            match encode(&message) {
                Ok(row) => writes.put(Table::Messages, key, &row),
                Err(error) => tracing::error!(id = %message.id, %error, "a message cannot be written back"),
            }
        }
        End::Back
    }

    fn remove_row(&mut self, writes: &mut Writes, queue: usize, key: &ReadyKey) {
        writes.delete(Table::Messages, key);
        let window = &mut self.windows[queue];
        window.ready = window.ready.saturating_sub(1);
    }

    /// The record of a task that is over, or none; `row` is the record's row if somebody encoded it already.
    pub(super) fn leave_record(
        &mut self,
        writes: &mut Writes,
        id: &[u8],
        record: Option<&TaskResult>,
        row: Option<Vec<u8>>,
    ) {
        let row = record.and_then(|record| Some((record, row.or_else(|| TaskRow::over(record).ok())?)));
        if let Some((record, row)) = row {
            writes.put(Table::Tasks, id, &row);
            self.commit.expiring.push((record.expires_at, record.id.clone()));
        } else {
            writes.delete(Table::Tasks, id);
        }
    }

    fn replace(
        &mut self,
        writes: &mut Writes,
        queue: usize,
        key: &ReadyKey,
        message: Message,
        due: Option<Timestamp>,
    ) -> End {
        match encode(&message) {
            Ok(row) => {
                self.remove_row(writes, queue, key);
                if lanes::has_to_pass(&message, due) {
                    let message = Arc::new(message);
                    let newcoming =
                        Newcoming { queue, message, row, is_new: false, is_kept: true, reply: None };
                    self.commit.steps.push(Step::Arrive(newcoming));
                    return End::Gone;
                }
                End::Replaced(self.place(writes, queue, Arc::new(message), &row, due))
            }
            Err(error) => {
                // It was decoded from such a row, so this is a bug of ours; the row stays as it is.
                tracing::error!(id = %message.id, %error, "a message cannot be written back");
                End::Back
            }
        }
    }

    /// A run of this row ended with its worker or process: the row is where it was, or, once too often, in the dead
    /// letters.
    pub(super) fn count_crash(
        &mut self,
        writes: &mut Writes,
        queue: usize,
        key: &ReadyKey,
        mut message: Message,
        record: &mut Option<TaskResult>,
    ) -> End {
        message.crashes += 1;
        if message.crashes >= self.options.delivery_limit && !message.is_in_canvas() {
            self.remove_row(writes, queue, key);
            *record = Some(crash_result(&message));
            let reason = crash_reason(message.crashes);
            self.bury(writes, queue, message, reason, record.as_ref());
            return End::Dead;
        }
        match encode(&message) {
            Ok(row) => writes.put(Table::Messages, key, &row),
            Err(error) => tracing::error!(id = %message.id, %error, "a crash cannot be counted"),
        }
        End::Back
    }

    /// A message goes to the dead letters.
    fn bury(
        &mut self,
        writes: &mut Writes,
        queue: usize,
        message: Message,
        reason: String,
        result: Option<&TaskResult>,
    ) {
        tracing::warn!(id = %message.id, task = %message.task, queue = %message.queue, %reason, "dead letter");
        let id = message.id.clone();
        let letter = DeadLetter { message, reason, died_at: now() };
        let seq = self.next_seq();
        match encode(&letter) {
            Ok(row) => {
                writes.put(Table::Dead, &seq.to_be_bytes(), &row);
                self.windows[queue].dead += 1;
            }
            Err(error) => tracing::error!(%id, %error, "a dead letter cannot be kept"),
        }
        self.leave_record(writes, &task_key(&id), result, None);
    }
}
