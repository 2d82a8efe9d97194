//! How deliveries end: the rows that each settlement writes.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use tokio::sync::oneshot;

use super::argument_index;
use super::command::{EngineCommand, ReplySender};
use super::commit::{RowEnd, Settled};
use super::engine::{Engine, EngineShared};
use super::lanes::{LaneStep, Newcoming};
use super::queue_cursor::DeliveredRow;
use super::ready_key::ReadyKey;
use super::rows::{TaskRow, encode, task_key};
use super::tables::{TableName, Writes};
use crate::broker::dead_letter::{crash_reason, crash_result, unwritable_result};
use crate::broker::{BrokerError, DeadLetter, Settle, Settler, lane, limits};
use crate::core::Timestamp;
use crate::task::clock::now;
use crate::task::{Message, TaskResult};

/// The queue under which a dead letter is counted whose own queue has a name that no queue can have.
const UNWRITABLE: &str = "celeriac.unwritable";

/// Settles the delivery of one row.
pub(super) struct RowSettler {
    pub(super) sender: Sender<EngineCommand>,
    pub(super) shared: Arc<EngineShared>,
    pub(super) queue: u16,
    pub(super) key: ReadyKey,
}

impl Settler for RowSettler {
    fn note_started(&self, _tag: u64) {
        self.shared.start_log.starting(&self.key);
    }

    fn write_starts(&self) {
        self.shared.start_log.write_out();
    }

    fn check_fence(&self, _tag: u64) -> Option<oneshot::Receiver<bool>> {
        None
    }

    fn settle(&self, tag: u64, settle: Settle, done: Option<ReplySender<()>>) {
        let row = match &settle {
            Settle::Ack { result: Some(result), .. } => TaskRow::over(result).ok(),
            _ => None,
        };
        let (queue, settle) = (self.queue, Box::new(settle));
        // If the store is closed, `done` is dropped, which tells its receiver so.
        let _ = self.sender.send(EngineCommand::Settle { queue, tag, settle, row, done });
    }
}

impl Engine {
    /// Stages a settlement for the next commit.
    pub(super) fn settle(
        &mut self,
        queue: u16,
        tag: u64,
        settle: Box<Settle>,
        row: Option<Vec<u8>>,
        done: Option<ReplySender<()>>,
    ) {
        // What follows reads rows as well, so while the tables are closed the delivery stays unsettled.
        if settle.has_follow_ups() && self.tables.is_none() {
            self.deferred.push(EngineCommand::Settle { queue, tag, settle, row, done });
            return;
        }
        let index = usize::from(queue);
        let Some(held) = self.cursors.get_mut(index).and_then(|w| w.release(tag)) else {
            if let Some(done) = done {
                let _ = done.send(Err(BrokerError::Stale));
            }
            return;
        };
        // The row that waits for its last chance may go out once this end is on disk.
        if held.message.crashes > 0 {
            self.last_chance_over(tag);
        }
        let mut writes = std::mem::take(&mut self.commit.settlements);
        let id = &task_key(&held.message.id);
        let mut record = None;
        let block = held.message.lane().and_then(|_| lane::block_of(&held.message, &settle));
        let end = match *settle {
            Settle::Ack { result, follow_ups } => {
                self.remove_row(&mut writes, index, &held.key);
                self.leaves_lane(&held.message, block);
                self.lets_go(&held.message);
                // The record of a serial task may have come for its lane alone.
                let (result, row) = match held.message.serial {
                    Some(_) => {
                        (lane::kept(&held.message, result), row.filter(|_| !held.message.ignore_result))
                    }
                    None => (result, row),
                };
                // A message of the same id takes the task's place, so the id's row must not become a record.
                let mut messages = follow_ups.iter().flat_map(|follow_ups| &follow_ups.messages);
                let successor = messages.find(|message| message.id == held.message.id);
                if !held.message.headers.0.is_empty() {
                    argument_index::delete_waiting(&mut writes, &held.message, successor);
                }
                if successor.is_none() {
                    self.leave_record(&mut writes, id, result.as_ref(), row);
                }
                if let Some(follow_ups) = follow_ups {
                    self.follow(&mut writes, &held.message.id, *follow_ups);
                }
                record = result;
                RowEnd::Gone
            }
            Settle::Fail { failed, result, follow_ups } => {
                self.remove_row(&mut writes, index, &held.key);
                self.leaves_lane(&held.message, block);
                self.lets_go(&held.message);
                let result = lane::kept(&held.message, result);
                self.leave_record(&mut writes, id, result.as_ref(), None);
                argument_index::delete_waiting(&mut writes, &held.message, None);
                let change = self.keep_failed(&mut writes, index, &failed);
                if let Some(follow_ups) = follow_ups {
                    self.follow(&mut writes, &held.message.id, *follow_ups);
                }
                record = result;
                RowEnd::Failed(change)
            }
            Settle::Requeue { message, due } => {
                // A requeued run that stays in its lane keeps holding it.
                if held.message.lane() != message.lane() {
                    self.leaves_lane(&held.message, None);
                }
                self.replace(&mut writes, index, &held, *message, due)
            }
            Settle::Return { crashed: false } => self.count_return(&mut writes, &held.key, &held.message),
            Settle::Return { crashed: true } => {
                let message = Message::clone(&held.message);
                let end = self.count_crash(&mut writes, index, &held.key, message, &mut record);
                if let RowEnd::Dead = end {
                    self.leaves_lane(&held.message, lane::blocks(&held.message, record.as_ref()));
                    self.lets_go(&held.message);
                }
                end
            }
            Settle::DeadLetter { reason, result, follow_ups } => {
                self.remove_row(&mut writes, index, &held.key);
                self.leaves_lane(&held.message, block);
                self.lets_go(&held.message);
                self.bury(&mut writes, index, Message::clone(&held.message), reason, result.as_ref());
                if let Some(follow_ups) = follow_ups {
                    self.follow(&mut writes, &held.message.id, *follow_ups);
                }
                record = result;
                RowEnd::Dead
            }
        };
        self.commit.settlements = writes;
        self.commit.queues.insert(index);
        self.commit.settled.push(Settled { queue: index, held, record: record.map(Box::new), done, end });
    }

    /// Notes that a run has ended: its lane learns of it when the commit is written.
    pub(super) fn leaves_lane(&mut self, message: &Message, block: Option<String>) {
        if let Some(lane) = message.lane() {
            self.commit.steps.push(LaneStep::Release { lane: lane.clone(), id: message.id.clone(), block });
        }
    }

    /// Notes that a task is over: its unique window ends when the commit is written.
    pub(super) fn lets_go(&mut self, message: &Message) {
        if let Some(unique) = &message.unique {
            self.commit
                .steps
                .push(LaneStep::ReleaseWindow { key: unique.key.clone(), id: message.id.clone() });
        }
    }

    /// Leaves the row where it was. For a serial task it counts that the row was handed back, so that the next
    /// start gets a higher fencing token than this one, even if this run should still go on somewhere.
    fn count_return(&mut self, writes: &mut Writes, key: &ReadyKey, message: &Message) -> RowEnd {
        let mut message = message.clone();
        if let Some(serial) = &mut message.serial {
            serial.handed_back = serial.handed_back.saturating_add(1);
            match encode(&message) {
                Ok(row) => writes.put(TableName::Messages, key, &row),
                Err(error) => tracing::error!(id = %message.id, %error, "a message cannot be written back"),
            }
        }
        RowEnd::Back
    }

    fn remove_row(&mut self, writes: &mut Writes, queue: usize, key: &ReadyKey) {
        writes.delete(TableName::Messages, key);
        self.cursors[queue].left_ready(key);
    }

    /// Writes the record of a task that is over; without a record it deletes the task's row. `row` is the encoded
    /// record, if the caller has it already.
    pub(super) fn leave_record(
        &mut self,
        writes: &mut Writes,
        id: &[u8],
        record: Option<&TaskResult>,
        row: Option<Vec<u8>>,
    ) {
        let row = record.and_then(|record| Some((record, row.or_else(|| TaskRow::over(record).ok())?)));
        if let Some((record, row)) = row {
            writes.put(TableName::Tasks, id, &row);
            self.commit.expiring.push((record.expires_at, record.id.clone()));
        } else {
            writes.delete(TableName::Tasks, id);
        }
    }

    fn replace(
        &mut self,
        writes: &mut Writes,
        queue: usize,
        held: &DeliveredRow,
        mut message: Message,
        due: Option<Timestamp>,
    ) -> RowEnd {
        let next = self.next_queue(queue, &mut message);
        if let Err(error) = limits::check_again(&message) {
            self.remove_row(writes, queue, &held.key);
            argument_index::delete_waiting(writes, &held.message, Some(&message));
            self.fails(writes, Arc::new(message), &error);
            return RowEnd::Gone;
        }
        match encode(&message) {
            Ok(row) => {
                self.remove_row(writes, queue, &held.key);
                argument_index::delete_waiting(writes, &held.message, Some(&message));
                if message.has_to_pass_lane(due) {
                    let message = Arc::new(message);
                    let newcoming =
                        Newcoming { queue: next, message, row, is_new: false, is_kept: true, reply: None };
                    self.commit.steps.push(LaneStep::Arrive(newcoming));
                    return RowEnd::Gone;
                }
                RowEnd::Replaced(self.place(writes, next, Arc::new(message), &row, due))
            }
            Err(error) => {
                // The message was decoded from such a row, so this is a bug of Celeriac's; the row stays as it is.
                tracing::error!(id = %message.id, %error, "a message cannot be written back");
                RowEnd::Back
            }
        }
    }

    /// The queue in which the message waits that takes the place of one of queue `own`. It stays there if the store cannot
    /// have the other queue.
    fn next_queue(&mut self, own: usize, message: &mut Message) -> usize {
        if message.queue == self.cursors[own].name {
            return own;
        }
        self.queue(&message.queue).unwrap_or_else(|error| {
            tracing::error!(id = %message.id, queue = message.queue, %error, "a task cannot go to this queue, and stays in its own");
            message.queue.clone_from(&self.cursors[own].name);
            own
        })
    }

    /// Makes a dead letter of a message that was promised to run and cannot be written, and records that its task
    /// has failed. The message is not tried again.
    pub(super) fn fails(&mut self, writes: &mut Writes, message: Arc<Message>, error: &BrokerError) {
        let record = unwritable_result(&message, error);
        if let Err(error) = limits::record(&message.id, &message.task) {
            tracing::error!(task = %message.task, %error, "a task cannot be enqueued, nor can anybody be told");
            return;
        }
        let Ok(queue) = self.queue(&message.queue).or_else(|_| self.queue(UNWRITABLE)) else { return };
        self.commit.queues.insert(queue);
        self.commit.ids.insert(message.id.clone());
        let message = Arc::unwrap_or_clone(message);
        self.bury(writes, queue, message, record.errors.concat(), Some(&record));
        self.commit.records.push(record);
    }

    /// Counts a run of this row that ended with its worker or process. The row stays where it was, or becomes a
    /// dead letter if that happened once too often.
    pub(super) fn count_crash(
        &mut self,
        writes: &mut Writes,
        queue: usize,
        key: &ReadyKey,
        mut message: Message,
        record: &mut Option<TaskResult>,
    ) -> RowEnd {
        message.crashes = message.crashes.saturating_add(1);
        if message.crashes >= self.options.delivery_limit && !message.is_in_canvas() {
            self.remove_row(writes, queue, key);
            *record = Some(crash_result(&message));
            let reason = crash_reason(message.crashes);
            self.bury(writes, queue, message, reason, record.as_ref());
            return RowEnd::Dead;
        }
        match encode(&message) {
            Ok(row) => writes.put(TableName::Messages, key, &row),
            Err(error) => tracing::error!(id = %message.id, %error, "a crash cannot be counted"),
        }
        RowEnd::Back
    }

    /// Makes a dead letter of a message.
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
        argument_index::delete_waiting(writes, &message, None);
        let letter = DeadLetter { message, reason, died_at: now() };
        let seq = self.next_seq();
        match encode(&letter) {
            Ok(row) => {
                writes.put(TableName::Dead, &seq.to_be_bytes(), &row);
                argument_index::add_failed(writes, &letter.message, &seq.to_be_bytes());
                self.cursors[queue].dead += 1;
            }
            Err(error) => tracing::error!(%id, %error, "a dead letter cannot be kept"),
        }
        self.leave_record(writes, &task_key(&id), result, None);
    }
}
