//! Lanes on disk. Each lane that is not idle has a small record, and each run that waits in a lane has a row.
//!
//! A run that was let in has a ready row like any other task. A run that waits has no ready row, so scans do not come
//! across it, and it takes no memory. The engine works out what publishes and settlements do to their lanes when it
//! writes their commit, from the rows as they are then. So the end of a run and the start of the next are one commit. A
//! commit that fails leaves nothing behind but the steps of its settlements, which the next commit takes anew.
//!
//! The keys in the table `lanes` begin with a byte that says what they hold:
//! - `0`, scope's length, scope, key: the record of a lane.
//! - `1`, length of all that follows for `0`, then that, ticket: a run that waits.
//! - `2`, time, ticket: the time at which a waiting run gives up.
//! - `3`: a [unique window](super::unique_windows), which is worked out together with the lanes.
//! - `4` and `5`: an entry of the [index of arguments](super::argument_index).
//!
//! A commit writes each key at most once.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::argument_index;
use super::command::ReplySender;
use super::commit::{ArrivedRow, RowKey};
use super::engine::Engine;
use super::known_lanes::{Changes, KnownLanes};
use super::rows::{LANES, TaskRow, decode, encode, task_key};
use super::tables::{Slice, TableName, Tables, Writes};
use super::unique_windows::UniqueWindowRows;
use crate::broker::lane::{self, LaneFacts, LaneLever, SHOWN, Waiting};
use crate::broker::{BrokerError, RecordFn, Remains, Removal, limits};
use crate::core::Timestamp;
use crate::core::lane::{Admission, Lane, Newcomer};
use crate::task::clock::now;
use crate::task::{LaneName, Message, Refusal, TaskId, UniqueKey};

pub(super) const RECORD: u8 = 0;
/// The first byte of the keys of runs that wait.
pub(super) const WAITING: u8 = 1;
const DEADLINE: u8 = 2;
/// The most waiting runs that give up in one commit.
const STEP: usize = 1024;

/// An effect of a publish or a settlement on a lane or a unique window.
pub(super) enum LaneStep {
    /// A message has come that has to pass its lane, or that may be a duplicate.
    Arrive(Newcoming),
    /// A run has ended.
    Release { lane: LaneName, id: TaskId, block: Option<String> },
    /// The unique window of a task ends, if this task holds it.
    ReleaseWindow { key: UniqueKey, id: TaskId },
}

/// A message that has to pass its lane, or that is enqueued unless it is a duplicate.
pub(super) struct Newcoming {
    pub(super) queue: usize,
    pub(super) message: Arc<Message>,
    pub(super) row: Vec<u8>,
    /// Whether the message was just enqueued, so that its task's policy for a busy lane applies. Otherwise the message
    /// was promised a place in the lane's line.
    pub(super) is_new: bool,
    /// Whether the message belongs to a settlement, so that it is kept if the commit fails.
    pub(super) is_kept: bool,
    pub(super) reply: Option<ReplySender<Option<TaskId>>>,
}

/// The lanes that one commit changes, and the rows that the commit writes for them.
#[derive(Default)]
pub(super) struct LaneBatch {
    open: HashMap<LaneName, OpenLane>,
    pub(super) unique_windows: UniqueWindowRows,
    pub(super) writes: Writes,
    /// The rows that became ready in this commit.
    pub(super) arrivals: Vec<ArrivedRow>,
    /// The task that each newly enqueued message joins, in turn; `None` for a message that is not left out.
    pub(super) joined: Vec<Option<TaskId>>,
    /// The state of the lanes when the commit is safe.
    pub(super) changed: Changes,
    deadline: Option<Timestamp>,
}

/// A lane that was read, with the changes that the commit has made to its line so far.
pub(super) struct OpenLane {
    lane: Lane<TaskId>,
    is_on_disk: bool,
    /// The runs that began to wait in this commit, by ticket.
    came: BTreeMap<u64, NewWaiter>,
    /// The tickets of the runs on disk that left the line in this commit.
    left: BTreeSet<u64>,
}

/// A place in a line: its ticket, and its row if the row is on disk.
type LineSpot = (u64, Option<Vec<u8>>);

struct NewWaiter {
    message: Arc<Message>,
    row: Vec<u8>,
    until: Option<Timestamp>,
}

/// Makes the fencing token for a start of this row. The token grows with each row that is written, and with each start
/// of one row.
pub(super) fn token(seq: u64, message: &Message) -> u64 {
    let starts =
        message.crashes.saturating_add(message.serial.as_ref().map_or(0, |serial| serial.handed_back));
    (seq << 16) | u64::from(starts.min(u32::from(u16::MAX)))
}

/// The length of a name in a key.
fn name_len(name: &LaneName) -> usize {
    2 + name.scope().len() + name.key().len()
}

fn push_name(key: &mut Vec<u8>, name: &LaneName) {
    key.extend_from_slice(&(name.scope().len() as u16).to_be_bytes());
    key.extend_from_slice(name.scope().as_bytes());
    key.extend_from_slice(name.key().as_bytes());
}

fn record_key(name: &LaneName) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + name_len(name));
    key.push(RECORD);
    push_name(&mut key, name);
    key
}

fn name_of(record_key: &[u8]) -> Option<LaneName> {
    let (scope, name) = record_key.get(1..)?.split_first_chunk::<2>()?;
    let (scope, key) = name.split_at_checked(usize::from(u16::from_be_bytes(*scope)))?;
    Some(LaneName::new(String::from_utf8_lossy(scope), String::from_utf8_lossy(key)))
}

fn waiting_key(name: &LaneName, ticket: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(3 + name_len(name) + 8);
    key.push(WAITING);
    key.extend_from_slice(&(name_len(name) as u16).to_be_bytes());
    push_name(&mut key, name);
    key.extend_from_slice(&ticket.to_be_bytes());
    key
}

/// Whether this is the key of a run that waits in a lane's line.
pub(super) fn is_waiting(key: &[u8]) -> bool {
    key.first() == Some(&WAITING)
}

/// The key of the record of the lane that a message has to pass, if it has a lane.
pub(super) fn record_of(message: &Message) -> Option<Vec<u8>> {
    message.lane().map(record_key)
}

fn deadline_key(until: Timestamp, ticket: u64) -> Vec<u8> {
    [&[DEADLINE][..], &until.as_micros().to_be_bytes(), &ticket.to_be_bytes()].concat()
}

/// The number at the end of a key.
fn ticket_of(key: &[u8]) -> u64 {
    key.last_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

impl LaneBatch {
    pub(super) fn open(
        &mut self,
        known: &KnownLanes,
        tables: &Tables,
        name: &LaneName,
        seq: u64,
    ) -> Result<&mut OpenLane, BrokerError> {
        let free = match self.open.entry(name.clone()) {
            Entry::Occupied(open) => return Ok(open.into_mut()),
            Entry::Vacant(free) => free,
        };
        let lane = match known.get(name) {
            Some(lane) => lane.cloned(),
            None => tables.get(TableName::Lanes, &record_key(name))?.as_deref().map(decode).transpose()?,
        };
        Ok(free.insert(OpenLane {
            is_on_disk: lane.is_some(),
            lane: lane.unwrap_or_else(|| Lane::new(seq)),
            came: BTreeMap::new(),
            left: BTreeSet::new(),
        }))
    }

    /// Adds the records of the changed lanes, and the rows of the runs that came to wait.
    fn finish(&mut self) -> Result<(), BrokerError> {
        self.unique_windows.finish(&mut self.writes)?;
        for (name, open) in self.open.drain() {
            let is_idle = open.lane.is_idle();
            if !is_idle {
                self.writes.put(TableName::Lanes, &record_key(&name), &encode(&open.lane)?);
            } else if open.is_on_disk {
                self.writes.delete(TableName::Lanes, &record_key(&name));
            }
            for ticket in &open.left {
                self.writes.delete(TableName::Lanes, &waiting_key(&name, *ticket));
            }
            for (ticket, NewWaiter { message, row, until }) in open.came {
                let key = waiting_key(&name, ticket);
                self.writes.put(TableName::Lanes, &key, &row);
                self.writes.put(TableName::Tasks, &task_key(&message.id), &TaskRow::in_line(&key));
                argument_index::add_waiting(&mut self.writes, &message);
                if let Some(until) = until {
                    self.writes.put(TableName::Lanes, &deadline_key(until, ticket), &key);
                    self.deadline = Some(self.deadline.map_or(until, |deadline| deadline.min(until)));
                }
            }
            self.changed.push(name, (!is_idle).then_some(open.lane), open.is_on_disk);
        }
        Ok(())
    }
}

impl OpenLane {
    /// Finds the first or the `last` run that waits. Returns its ticket, and its row if the row is on disk.
    fn find(&self, tables: &Tables, name: &LaneName, last: bool) -> Result<Option<LineSpot>, BrokerError> {
        let newest = if last { self.came.last_key_value() } else { None };
        if let Some((ticket, _)) = newest {
            return Ok(Some((*ticket, None)));
        }
        let first = waiting_key(name, self.lane.served().saturating_add(1));
        let end = waiting_key(name, u64::MAX);
        let waits = |(key, value): (Slice, Slice)| {
            let ticket = ticket_of(&key);
            (!self.left.contains(&ticket)).then(|| (ticket, Some(value.to_vec())))
        };
        let found = if last {
            let rows = tables.range(TableName::Lanes, &first, Bound::Included(&end))?;
            let from_behind: Result<Vec<_>, _> = rows.rev().take(1 + self.left.len()).collect();
            match from_behind {
                Ok(rows) => rows.into_iter().find_map(waits),
                Err(_) => {
                    tables.readable(TableName::Lanes, &first, Bound::Included(&end)).filter_map(waits).last()
                }
            }
        } else {
            // The scan passes over a row that cannot be read. The row stays where it is.
            tables.readable(TableName::Lanes, &first, Bound::Included(&end)).find_map(waits)
        };
        if found.is_some() {
            return Ok(found);
        }
        Ok(self.came.first_key_value().map(|(ticket, _)| (*ticket, None)))
    }

    /// Takes a run out of the line. Returns `None` if its row does not decode.
    fn take(&mut self, ticket: u64, row: Option<Vec<u8>>) -> Option<Arc<Message>> {
        match row {
            None => self.came.remove(&ticket).map(|came| came.message),
            Some(row) => {
                self.left.insert(ticket);
                match decode::<Message>(&row) {
                    Ok(message) => Some(Arc::new(message)),
                    Err(error) => {
                        tracing::error!(ticket, %error, "a row in a lane's line does not decode; it is left out");
                        None
                    }
                }
            }
        }
    }
}

impl Engine {
    /// Completes the batch right before the engine writes the commit.
    pub(super) fn finish_lanes(&mut self, batch: &mut LaneBatch) -> Result<(), BrokerError> {
        batch.finish()?;
        if let Some(count) = self.known_lanes.count_after(&batch.changed) {
            batch.writes.put(TableName::Meta, LANES, &count.to_be_bytes());
        }
        if let Some(deadline) = batch.deadline {
            self.next_deadline = Some(self.next_deadline.map_or(deadline, |next| next.min(deadline)));
        }
        Ok(())
    }

    /// Takes a message that was just enqueued. Returns the task that the message joins, if it is left out.
    pub(super) fn arrive(
        &mut self,
        batch: &mut LaneBatch,
        tables: &Tables,
        queue: usize,
        message: &Arc<Message>,
        row: &[u8],
    ) -> Result<Option<TaskId>, BrokerError> {
        if let Some(unique) = &message.unique
            && let Some(holder) = batch.unique_windows.holder(tables, &unique.key)?
        {
            return Ok(Some(holder));
        }
        let joined = match message.eta.filter(|due| *due > now()) {
            Some(due) => {
                let arrival = self.place(&mut batch.writes, queue, Arc::clone(message), row, Some(due));
                batch.arrivals.push(arrival);
                None
            }
            None => self.pass_lane(batch, tables, queue, message, row, true)?,
        };
        if let (None, Some(unique)) = (&joined, &message.unique) {
            batch.unique_windows.hold(tables, unique, &message.id)?;
        }
        Ok(joined)
    }

    /// Brings a message to its lane. Returns the task that the message joins, if it is left out.
    pub(super) fn pass_lane(
        &mut self,
        batch: &mut LaneBatch,
        tables: &Tables,
        queue: usize,
        message: &Arc<Message>,
        row: &[u8],
        is_new: bool,
    ) -> Result<Option<TaskId>, BrokerError> {
        let (Some(serial), Some(name)) = (&message.serial, message.lane()) else {
            self.line_up(batch, queue, Arc::clone(message), row);
            return Ok(None);
        };
        let newcomer = match serial.newcomer {
            Newcomer::Skip | Newcomer::Replace if !is_new => Newcomer::Wait,
            stated => stated,
        };
        let open = batch.open(&self.known_lanes, tables, name, self.seq)?;
        let entry = open.lane.arrive(&message.id, serial.concurrency, newcomer, now());
        match entry {
            Admission::Enter => self.line_up(batch, queue, Arc::clone(message), row),
            Admission::Refuse => self.refuse_entry(batch, queue, message, Refusal::CouldNotAcquireLock)?,
            Admission::Skip => {
                let waiting = match open.find(tables, name, true)? {
                    // If the row of a waiting run does not decode, this message is a duplicate of that run all the
                    // same.
                    Some((_, Some(row))) => decode::<Message>(&row).ok().map(|message| message.id),
                    Some((ticket, None)) => open.came.get(&ticket).map(|came| came.message.id.clone()),
                    None => None,
                };
                return Ok(waiting);
            }
            Admission::Wait { .. } | Admission::Replace => {
                let replaced = match entry {
                    Admission::Replace => open.find(tables, name, true)?,
                    _ => None,
                };
                let replaced = replaced.and_then(|(ticket, row)| open.take(ticket, row));
                self.seq += 1;
                let until = match entry {
                    Admission::Wait { until } => until,
                    _ => None,
                };
                let came = NewWaiter { message: Arc::clone(message), row: row.to_vec(), until };
                open.came.insert(self.seq, came);
                self.cursors[queue].in_line += 1;
                self.commit.queues.insert(queue);
                if let Some(old) = replaced {
                    let queue = self.out_of_line(&old)?;
                    self.refuse_entry(batch, queue, &old, Refusal::Replaced { by: message.id.clone() })?;
                }
            }
        }
        Ok(None)
    }

    /// Takes the end of a run to its lane. If the run held the lane, lets the next run in.
    pub(super) fn release_lane(
        &mut self,
        batch: &mut LaneBatch,
        tables: &Tables,
        name: &LaneName,
        id: &TaskId,
        block: Option<String>,
    ) -> Result<(), BrokerError> {
        let lane = &mut batch.open(&self.known_lanes, tables, name, self.seq)?.lane;
        if lane.release(id, block, now()) && lane.has_room() {
            self.let_in(batch, tables, name)?;
        }
        Ok(())
    }

    /// Lets waiting runs in while the lane has room, in the order of their tickets.
    fn let_in(&mut self, batch: &mut LaneBatch, tables: &Tables, name: &LaneName) -> Result<(), BrokerError> {
        loop {
            let open = batch.open(&self.known_lanes, tables, name, self.seq)?;
            if !open.lane.has_room() {
                return Ok(());
            }
            let Some((ticket, row)) = open.find(tables, name, false)? else {
                open.lane.nobody_waits();
                return Ok(());
            };
            match open.take(ticket, row) {
                Some(message) => {
                    let now = now();
                    open.lane.let_in(&message.id, ticket, now);
                    let queue = self.out_of_line(&message)?;
                    let message = lane::let_in(Arc::unwrap_or_clone(message), now);
                    let row = encode(&message)?;
                    self.line_up(batch, queue, Arc::new(message), &row);
                }
                None => open.lane.leave(),
            }
        }
    }

    /// Takes a run off the count of its lane's line. Returns the index of its queue.
    pub(super) fn out_of_line(&mut self, message: &Message) -> Result<usize, BrokerError> {
        let queue = self.queue(&message.queue)?;
        let cursor = &mut self.cursors[queue];
        cursor.in_line = cursor.in_line.saturating_sub(1);
        self.commit.queues.insert(queue);
        Ok(queue)
    }

    /// Adds a row to the ready ones of its queue.
    fn line_up(&mut self, batch: &mut LaneBatch, queue: usize, message: Arc<Message>, row: &[u8]) {
        let seq = self.next_seq();
        let cursor = &mut self.cursors[queue];
        let key = cursor.ready_key(&message, seq);
        let place = RowKey::Ready(key);
        cursor.came(&place, &message);
        self.commit.queues.insert(queue);
        batch.writes.put(TableName::Messages, &key, row);
        batch.writes.put(TableName::Tasks, &task_key(&message.id), &TaskRow::at(&key));
        argument_index::add_waiting(&mut batch.writes, &message);
        batch.arrivals.push(ArrivedRow { queue, place, message });
    }

    /// Sends a message on with its refusal. The consumer of its queue tells the task that its lane did not take it.
    fn refuse_entry(
        &mut self,
        batch: &mut LaneBatch,
        queue: usize,
        message: &Message,
        refusal: Refusal,
    ) -> Result<(), BrokerError> {
        let message = lane::refused(message.clone(), refusal);
        let row = encode(&message)?;
        self.line_up(batch, queue, Arc::new(message), &row);
        Ok(())
    }

    /// Writes the rows of a batch in a commit of their own, together with `writes`.
    pub(super) fn commit_lanes(
        &mut self,
        mut batch: LaneBatch,
        mut writes: Writes,
    ) -> Result<(), BrokerError> {
        self.finish_lanes(&mut batch)?;
        writes.append(&mut batch.writes);
        if !writes.is_empty() {
            self.commit_now(&[], &writes)?;
        }
        self.known_lanes.take(batch.changed);
        for ArrivedRow { queue, place, .. } in batch.arrivals {
            match place {
                RowKey::Ready(key) => self.cursors[queue].waits(&key),
                RowKey::Scheduled(due, _) => self.cursors[queue].scheduled_for(due),
            }
        }
        Ok(())
    }

    /// Takes a run that is over out of its lane's line, and ends its unique window.
    pub(super) fn leave_line(
        &mut self,
        batch: &mut LaneBatch,
        tables: &Tables,
        key: &[u8],
        message: &Message,
    ) -> Result<(), BrokerError> {
        if let Some(name) = message.lane() {
            let open = batch.open(&self.known_lanes, tables, name, self.seq)?;
            open.left.insert(ticket_of(key));
            open.lane.leave();
        }
        self.out_of_line(message)?;
        self.lets_go(message);
        Ok(())
    }

    /// Takes a run out of its lane's line, and does not let it in.
    pub(super) fn remove_from_line(
        &mut self,
        id: &TaskId,
        key: &[u8],
        record: RecordFn,
    ) -> Result<Removal, BrokerError> {
        let tables = self.open_tables()?;
        let Some(row) = tables.get(TableName::Lanes, key)? else { return Ok(Removal::Unknown) };
        let message: Message = decode(&row)?;
        let Remains { record, follow_ups } = record(&message);
        let (mut batch, mut writes) = (LaneBatch::default(), Writes::default());
        self.leave_line(&mut batch, &tables, key, &message)?;
        self.leave_record(&mut writes, &task_key(id), record.as_ref(), None);
        argument_index::delete_waiting(&mut writes, &message, None);
        if let Some(follow_ups) = follow_ups {
            self.follow(&mut writes, id, *follow_ups);
        }
        self.commit_follow_ups(batch, &[], writes)?;
        if let Some(record) = &record {
            self.shared.waiters.wake(record);
        }
        Ok(Removal::Removed)
    }

    /// Releases the runs that have waited for their lanes as long as they may.
    pub(super) fn give_up_waiting(&mut self) {
        while self.tables.is_some() && self.next_deadline.is_some_and(|next| next <= now()) {
            if let Err(error) = self.give_up_some() {
                tracing::error!(%error, "who has waited long enough for a lane cannot be read; trying again in a second");
                self.next_deadline = Some(now() + std::time::Duration::from_secs(1));
                return;
            }
        }
    }

    fn give_up_some(&mut self) -> Result<(), BrokerError> {
        let tables = self.open_tables()?;
        let now = now();
        let (mut batch, mut writes) = (LaneBatch::default(), Writes::default());
        let mut next = None;
        // The read does not begin at the first possible key, because the deleted rows of all past deadlines lie there.
        let start = deadline_key(self.next_deadline.unwrap_or(Timestamp::ZERO), 0);
        let rows = tables.readable(TableName::Lanes, &start, Bound::Excluded(&[DEADLINE + 1]));
        for (count, (key, waiting)) in rows.enumerate() {
            let until = key.get(1..9).and_then(|at| at.try_into().ok()).map(u64::from_be_bytes);
            let until = Timestamp::from_micros(until.unwrap_or(0));
            if until > now || count == STEP {
                next = Some(until);
                break;
            }
            writes.delete(TableName::Lanes, &key);
            let message = match tables
                .get(TableName::Lanes, &waiting)
                .map(|row| row.as_deref().map(decode::<Message>))
            {
                Ok(None) => continue, // the run was let in, or left the line
                Ok(Some(Ok(message))) => message,
                Ok(Some(Err(error))) | Err(error) => {
                    tracing::error!(ticket = ticket_of(&waiting), %error, "who has waited long enough for a lane cannot be read, and is left where it is");
                    continue;
                }
            };
            if let Some(name) = message.lane() {
                let open = match batch.open(&self.known_lanes, &tables, name, self.seq) {
                    Ok(open) => open,
                    Err(error) => {
                        tracing::error!(id = %message.id, %error, "the lane of a task that has waited long enough cannot be read; the task waits on");
                        continue;
                    }
                };
                open.left.insert(ticket_of(&waiting));
                open.lane.leave();
            }
            let queue = self.out_of_line(&message)?;
            self.refuse_entry(&mut batch, queue, &message, Refusal::CouldNotAcquireLock)?;
        }
        // If the commit fails, the deadlines stay on disk. When the store is opened again, it looks for them from the
        // beginning.
        self.next_deadline = None;
        self.commit_lanes(batch, writes)?;
        self.next_deadline = next;
        Ok(())
    }

    pub(super) fn lane_facts(&self, name: &LaneName) -> Result<Option<LaneFacts>, BrokerError> {
        let tables = self.open_tables()?;
        let Some(record) = tables.get(TableName::Lanes, &record_key(name))? else { return Ok(None) };
        let lane: Lane<TaskId> = decode(&record)?;
        let first = waiting_key(name, lane.served().saturating_add(1));
        let end = waiting_key(name, u64::MAX);
        let mut next = Vec::new();
        for (_, row) in tables.readable(TableName::Lanes, &first, Bound::Included(&end)).take(SHOWN) {
            next.extend(decode(&row).ok().map(|message| Waiting::of(&message)));
        }
        Ok(Some(LaneFacts::of(name.clone(), &lane, next)))
    }

    pub(super) fn all_lanes(&self, limit: usize) -> Result<Vec<LaneFacts>, BrokerError> {
        let tables = self.open_tables()?;
        let rows = tables.readable(TableName::Lanes, &[RECORD], Bound::Excluded(&[RECORD + 1]));
        let mut all = Vec::new();
        for (key, record) in rows.take(limit) {
            if let (Some(name), Ok(lane)) = (name_of(&key), decode(&record)) {
                all.push(LaneFacts::of(name, &lane, Vec::new()));
            }
        }
        Ok(all)
    }

    pub(super) fn steer_lane(&mut self, name: &LaneName, lever: LaneLever) -> Result<bool, BrokerError> {
        limits::lane(name)?;
        let tables = self.open_tables()?;
        let mut batch = LaneBatch::default();
        let moved = lever.pull(&mut batch.open(&self.known_lanes, &tables, name, self.seq)?.lane);
        if moved {
            self.let_in(&mut batch, &tables, name)?;
            self.commit_lanes(batch, Writes::default())?;
        }
        Ok(moved)
    }
}
