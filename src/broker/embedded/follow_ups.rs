//! What follows from the end of a task, in the commit of its settlement: all of it is on disk with the settlement,
//! or none.

use std::collections::VecDeque;
use std::sync::Arc;

use super::command::Join;
use super::engine::Engine;
use super::lanes::{LaneBatch, LaneStep, Newcoming};
use super::rows::{TaskRow, encode, task_key};
use super::tables::{TableName, Writes};
use crate::broker::delivery::call_then;
use crate::broker::{BrokerError, ChordEnd, FollowUps, limits};
use crate::store::{ChordJoin, ChordPart};
use crate::task::clock::now;
use crate::task::{Message, TaskId, TaskResult};

impl Engine {
    /// Stages what follows from the end of `ended`, and from the chords that are complete with it.
    pub(super) fn follow(&mut self, writes: &mut Writes, ended: &TaskId, follow_ups: FollowUps) {
        let mut follow_ups = VecDeque::from([follow_ups]);
        while let Some(FollowUps { messages, records, sizes, chords }) = follow_ups.pop_front() {
            // Chords are opened before their members are sent: a part of a chord that is not open counts for
            // nothing.
            for chord in &sizes {
                if let Err(error) = self.open_chord(&chord.group, chord.size) {
                    tracing::error!(%ended, %error, "a chord cannot be opened");
                }
            }
            for record in records {
                self.follow_by_record(writes, record);
            }
            for message in messages {
                let message = Arc::new(message);
                if let Err(error) = self.follow_by_message(writes, ended, &message) {
                    tracing::error!(%ended, id = %message.id, task = %message.task, %error, "what follows from a task cannot be enqueued");
                    self.fails(writes, message, &error);
                }
            }
            // What a complete chord sends is worked off by the next turn of this loop, and is in the same commit.
            for ChordEnd { part, then } in chords {
                match self.count_part(part) {
                    Ok(None) => {}
                    Ok(Some(parts)) => follow_ups.extend(call_then(then, parts)),
                    Err(error) => tracing::error!(%ended, %error, "a part of a chord is not counted"),
                }
            }
        }
    }

    pub(super) fn open_chord(&mut self, group: &str, size: u64) -> Result<(), BrokerError> {
        limits::group(group)?;
        let tables = self.open_tables()?;
        self.commit.chords.open(&tables, group, size)
    }

    pub(super) fn extend_chord(&mut self, group: &str) -> Result<(), BrokerError> {
        let tables = self.open_tables()?;
        self.commit.chords.extend(&tables, group)
    }

    fn follow_by_record(&mut self, writes: &mut Writes, record: TaskResult) {
        if let Err(error) = limits::record(&record.id, &record.task) {
            tracing::error!(task = %record.task, %error, "that a task will never run is not recorded");
            return;
        }
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
        message: &Arc<Message>,
    ) -> Result<(), BrokerError> {
        // A message that replaces the task has the task's id.
        if message.id != *ended && self.is_taken(&message.id) {
            return Ok(()); // the message was sent before, by a run that ended with its process
        }
        limits::check(message)?;
        let row = encode(&**message)?;
        let queue = self.queue(&message.queue)?;
        self.commit.ids.insert(message.id.clone());
        let (due, message) = (message.eta, Arc::clone(message));
        if message.has_to_pass_lane(due) {
            let newcoming = Newcoming { queue, message, row, is_new: false, is_kept: true, reply: None };
            self.commit.steps.push(LaneStep::Arrive(newcoming));
            return Ok(());
        }
        let arrival = self.place(writes, queue, message, &row, due);
        self.commit.arrivals.push(arrival);
        Ok(())
    }

    /// Counts a part of a chord. If that completes the chord, closes it and answers with all of its parts.
    fn count_part(&mut self, part: ChordPart) -> Result<Option<Vec<ChordPart>>, BrokerError> {
        let tables = self.open_tables()?;
        let group = part.group.clone();
        let complete = self.commit.chords.join(&tables, part, self.options.max_chord_size)?;
        if complete.is_some() {
            self.commit.chords.close(&tables, &group)?;
        }
        Ok(complete)
    }

    /// Commits these rows together with what follows from them, and announces what was committed.
    pub(super) fn commit_follow_ups(
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
                self.cursors[arrival.queue].left(&arrival.place);
            }
        }
        committed
    }

    /// Whether a task of this id waits, runs or has its result kept, or will once this commit is written.
    pub(super) fn is_taken(&self, id: &TaskId) -> bool {
        if self.commit.ids.contains(id) {
            return true;
        }
        let row = self.open_tables().and_then(|tables| tables.get(TableName::Tasks, &task_key(id)));
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

    /// Takes a step of a chord in a commit of its own, for a task that was settled before it ran.
    pub(super) fn chord_step(&mut self, join: Join) {
        match join {
            Join::Open { group, size, reply } => {
                let opened = self.open_chord(&group, size);
                let _ = reply.send(opened.and_then(|()| self.commit_now(&[], &Writes::default())));
            }
            Join::Part { part, reply } => {
                let joined = self.open_tables().and_then(|tables| {
                    let group = part.group.clone();
                    let parts = self.commit.chords.join(&tables, part, self.options.max_chord_size)?;
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
