//! What follows from the end of a task, in the commit of its settlement: all of it is on disk with it, or none.

use std::collections::VecDeque;
use std::sync::Arc;

use super::command::{Join, Settlement};
use super::engine::Engine;
use super::lanes::{self, LaneBatch, Newcoming, Step};
use super::rows::{TaskRow, encode, task_key};
use super::tables::{Table, Writes};
use crate::broker::delivery::call_then;
use crate::broker::{BrokerError, ChordEnd, Sequel, Settle};
use crate::store::{ChordJoin, ChordPart};
use crate::task::clock::now;
use crate::task::{Message, TaskId, TaskResult};

impl Engine {
    /// A settlement that something follows from reads rows as well. While there are none to be read it is put aside, and
    /// its delivery stays where it is.
    pub(super) fn defer(&mut self, settlement: Settlement) -> Option<Settlement> {
        let follows = matches!(
            &settlement.settle,
            Settle::Ack { sequel: Some(_), .. } | Settle::DeadLetter { sequel: Some(_), .. }
        );
        if follows && self.tables.is_none() {
            self.deferred.push(settlement);
            return None;
        }
        Some(settlement)
    }

    /// Writes what follows from the end of `ended`, and from the chords that are complete with it.
    pub(super) fn follow(&mut self, writes: &mut Writes, ended: &TaskId, sequel: Option<Box<Sequel>>) {
        let mut sequels = VecDeque::from_iter(sequel.map(|sequel| *sequel));
        while let Some(Sequel { messages, records, sizes, chords }) = sequels.pop_front() {
            for chord in &sizes {
                if let Err(error) = self.open_chord(&chord.group, chord.size) {
                    tracing::error!(%ended, %error, "a chord cannot be opened");
                }
            }
            for record in records {
                self.follow_by_record(writes, record);
            }
            for message in messages {
                if let Err(error) = self.follow_by_message(writes, ended, message) {
                    tracing::error!(%ended, %error, "what follows from a task is lost");
                }
            }
            for ChordEnd { part, then } in chords {
                match self.count_part(part) {
                    Ok(None) => {}
                    Ok(Some(parts)) => sequels.extend(call_then(then, parts)),
                    Err(error) => tracing::error!(%ended, %error, "a part of a chord is not counted"),
                }
            }
        }
    }

    pub(super) fn open_chord(&mut self, group: &str, size: u64) -> Result<(), BrokerError> {
        let tables = self.open_tables()?;
        self.commit.chords.open(&tables, group, size)
    }

    fn follow_by_record(&mut self, writes: &mut Writes, record: TaskResult) {
        if self.is_taken(&record.id) {
            return;
        }
        self.commit.ids.insert(record.id.clone());
        self.leave_record(writes, &task_key(&record.id), Some(&record), None);
        self.commit.records.push(record);
    }

    fn follow_by_message(
        &mut self,
        writes: &mut Writes,
        ended: &TaskId,
        message: Message,
    ) -> Result<(), BrokerError> {
        // What replaces a task has its id.
        if message.id != *ended && self.is_taken(&message.id) {
            return Ok(()); // sent before, by a run that ended with its process
        }
        super::check(&message)?;
        let row = encode(&message)?;
        let queue = self.queue(&message.queue)?;
        self.commit.ids.insert(message.id.clone());
        let due = message.eta;
        if lanes::has_to_pass(&message, due) {
            let message = Arc::new(message);
            let newcoming = Newcoming { queue, message, row, is_new: false, is_kept: true, reply: None };
            self.commit.steps.push(Step::Arrive(newcoming));
            return Ok(());
        }
        let arrival = self.place(writes, queue, Arc::new(message), &row, due);
        self.commit.arrivals.push(arrival);
        Ok(())
    }

    /// All parts of the chord, if this one makes it complete; it is closed then.
    fn count_part(&mut self, part: ChordPart) -> Result<Option<Vec<ChordPart>>, BrokerError> {
        let tables = self.open_tables()?;
        let group = part.group.clone();
        let complete = self.commit.chords.join(&tables, part)?;
        if complete.is_some() {
            self.commit.chords.close(&tables, &group)?;
        }
        Ok(complete)
    }

    /// Commits these rows, what follows from them included, and says so.
    pub(super) fn commit_sequel(
        &mut self,
        mut lanes: LaneBatch,
        queues: &[usize],
        mut writes: Writes,
    ) -> Result<(), BrokerError> {
        let steps = self.open_tables().and_then(|tables| self.take_steps(&mut lanes, &tables));
        let committed = steps.and_then(|()| {
            writes.append(&mut lanes.writes);
            self.commit_now(queues, &writes)
        });
        self.commit.steps.clear();
        let mut arrivals = std::mem::take(&mut self.commit.arrivals);
        arrivals.append(&mut lanes.arrivals);
        let records = std::mem::take(&mut self.commit.records);
        self.commit.ids.clear();
        if committed.is_ok() {
            self.known_lanes.take(lanes.changed);
            self.arrived(arrivals);
            records.iter().for_each(|record| self.shared.waiters.wake(record));
        } else {
            for arrival in arrivals {
                let count = self.windows[arrival.queue].count(&arrival.place);
                *count = count.saturating_sub(1);
            }
        }
        committed
    }

    /// Whether a task of this id waits, runs or has its result kept, also by this commit.
    pub(super) fn is_taken(&self, id: &TaskId) -> bool {
        if self.commit.ids.contains(id) {
            return true;
        }
        let row = self.open_tables().and_then(|tables| tables.get(Table::Tasks, &task_key(id)));
        match row.as_ref().map(|row| row.as_deref().map(TaskRow::decode)) {
            Ok(None) => false,
            Ok(Some(Ok(TaskRow::Over(result)))) => result.expires_at > now(),
            Ok(Some(Ok(TaskRow::At(_) | TaskRow::InLine(_)) | Err(_))) => true,
            Err(error) => {
                tracing::error!(%id, %error, "whether this task was sent before is not known");
                false
            }
        }
    }

    /// For tasks that were settled before they ran: a step with a commit of its own.
    pub(super) fn chord_step(&mut self, join: Join) {
        match join {
            Join::Open { group, size, reply } => {
                let opened = self.open_chord(&group, size);
                let _ = reply.send(opened.and_then(|()| self.commit_now(&[], &Writes::default())));
            }
            Join::Part { part, reply } => {
                let joined = self.open_tables().and_then(|tables| {
                    let group = part.group.clone();
                    let parts = self.commit.chords.join(&tables, part)?;
                    self.commit_now(&[], &Writes::default())?;
                    Ok(parts.map_or(ChordJoin::Waiting, |parts| ChordJoin::Complete { token: group, parts }))
                });
                let _ = reply.send(joined);
            }
            Join::Close { group, reply } => {
                let closed = self.open_tables().and_then(|tables| {
                    self.commit.chords.close(&tables, &group)?;
                    self.commit_now(&[], &Writes::default())
                });
                let _ = reply.send(closed);
            }
        }
    }
}
