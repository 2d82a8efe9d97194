//! Lanes on disk: a small record for each that is not idle, and the rows of those who wait.
//!
//! Whoever is let in has a ready row like any other task; whoever waits has none, so it is in nobody's way and in nobody's
//! memory. What publishes and settlements do to their lanes is worked out when their commit is written, from the rows as
//! they are then: so a run's end and the start of the next one are one commit, and a commit that fails leaves nothing behind
//! but the steps of the settlements, which are taken anew with the next one.
//!
//! Keys in the table `lanes`: `0`, scope's length, scope, key: the record. `1`, length of both, then the same, ticket: one that
//! waits. `2`, time, ticket: who is not to wait any longer then. `3`: see [`dedupe`](super::dedupe), which are worked out
//! with them. A key is written at most once in a commit.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::command::Reply;
use super::commit::{Arrival, Place};
use super::dedupe::DedupeWindows;
use super::engine::Engine;
use super::known_lanes::{Changes, KnownLanes};
use super::rows::{LANES, TaskRow, decode, encode, ready_key, task_key};
use super::tables::{Table, Tables, Writes};
use crate::broker::lane::{self, LaneFacts, LaneLever, SHOWN, Waiting};
use crate::broker::{BrokerError, RecordFn, Remains, Removal};
use crate::core::Timestamp;
use crate::core::lane::{Entry, Lane, Newcomer};
use crate::task::clock::now;
use crate::task::{LaneName, Message, Refusal, TaskId, UniqueKey};

pub(super) const RECORD: u8 = 0;
const WAITING: u8 = 1;
const DEADLINE: u8 = 2;
/// How many of those who have waited long enough leave in one commit.
const STEP: usize = 1024;

/// What a publish or a settlement does to a lane.
pub(super) enum Step {
    /// A message comes that has to pass its lane, or may be a duplicate.
    Arrive(Newcoming),
    /// A run is over.
    Release { lane: LaneName, id: TaskId, block: Option<String> },
    /// A dedupe window ends, if it is this task's.
    LetGo { key: UniqueKey, id: TaskId },
}

/// A message that has to pass its lane, or is enqueued unless it is a duplicate.
pub(super) struct Newcoming {
    pub(super) queue: usize,
    pub(super) message: Arc<Message>,
    pub(super) row: Vec<u8>,
    /// The policy for newcomers applies; else it was promised to wait.
    pub(super) is_new: bool,
    /// It belongs to a settlement, which is kept if the commit fails.
    pub(super) is_kept: bool,
    pub(super) reply: Option<Reply<Option<TaskId>>>,
}

/// The lanes that one commit changes, and what is to be written for it.
#[derive(Default)]
pub(super) struct LaneBatch {
    open: HashMap<LaneName, Open>,
    pub(super) dedupe: DedupeWindows,
    pub(super) writes: Writes,
    /// Rows that became ready.
    pub(super) arrivals: Vec<Arrival>,
    /// For each newcoming in turn, whom it joins if it is left out.
    pub(super) joined: Vec<Option<TaskId>>,
    /// The lanes, as they are when the commit is safe.
    pub(super) changed: Changes,
    deadline: Option<Timestamp>,
}

/// A lane that was read, with what the commit has done to its line so far.
struct Open {
    lane: Lane<TaskId>,
    is_on_disk: bool,
    /// Who came to wait, by ticket.
    came: BTreeMap<u64, Came>,
    /// Who left of those on disk.
    left: BTreeSet<u64>,
}

/// A place in a line: its ticket, and its row if it is on disk.
type Spot = (u64, Option<Vec<u8>>);

struct Came {
    message: Arc<Message>,
    row: Vec<u8>,
    until: Option<Timestamp>,
}

/// Whether a message has to pass a lane before it is ready. One that is not due yet has not come to its lane.
pub(super) fn has_to_pass(message: &Message, due: Option<Timestamp>) -> bool {
    lane::lane_of(message).is_some() && due.is_none_or(|due| due <= now())
}

/// Of a start of this row: grows with each row that is written, and within one with each start.
pub(super) fn token(seq: u64, message: &Message) -> u64 {
    let starts =
        message.crashes.saturating_add(message.serial.as_ref().map_or(0, |serial| serial.handed_back));
    (seq << 16) | u64::from(starts.min(u32::from(u16::MAX)))
}

fn name_bytes(name: &LaneName) -> Vec<u8> {
    let scope = name.scope().as_bytes();
    [&(scope.len() as u16).to_be_bytes(), scope, name.key().as_bytes()].concat()
}

fn record_key(name: &LaneName) -> Vec<u8> {
    [&[RECORD][..], &name_bytes(name)].concat()
}

fn name_of(record_key: &[u8]) -> Option<LaneName> {
    let (scope, name) = record_key.get(1..)?.split_first_chunk::<2>()?;
    let (scope, key) = name.split_at_checked(usize::from(u16::from_be_bytes(*scope)))?;
    Some(LaneName::new(String::from_utf8_lossy(scope), String::from_utf8_lossy(key)))
}

fn waiting_key(name: &LaneName, ticket: u64) -> Vec<u8> {
    let name = name_bytes(name);
    [&[WAITING][..], &(name.len() as u16).to_be_bytes(), &name, &ticket.to_be_bytes()].concat()
}

fn deadline_key(until: Timestamp, ticket: u64) -> Vec<u8> {
    [&[DEADLINE][..], &until.as_micros().to_be_bytes(), &ticket.to_be_bytes()].concat()
}

/// The number at the end of a key.
fn ticket_of(key: &[u8]) -> u64 {
    key.last_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

impl LaneBatch {
    fn open(
        &mut self,
        known: &KnownLanes,
        tables: &Tables,
        name: &LaneName,
        seq: u64,
    ) -> Result<&mut Open, BrokerError> {
        if !self.open.contains_key(name) {
            let lane = match known.get(name) {
                Some(lane) => lane.cloned(),
                None => tables.get(Table::Lanes, &record_key(name))?.as_deref().map(decode).transpose()?,
            };
            let open = Open {
                is_on_disk: lane.is_some(),
                lane: lane.unwrap_or_else(|| Lane::new(seq)),
                came: BTreeMap::new(),
                left: BTreeSet::new(),
            };
            self.open.insert(name.clone(), open);
        }
        self.open.get_mut(name).ok_or(BrokerError::Closed)
    }

    /// The records of the lanes and the rows of those who came to wait.
    fn finish(&mut self) -> Result<(), BrokerError> {
        self.dedupe.finish(&mut self.writes)?;
        for (name, open) in self.open.drain() {
            let is_idle = open.lane.is_idle();
            if !is_idle {
                self.writes.put(Table::Lanes, &record_key(&name), &encode(&open.lane)?);
            } else if open.is_on_disk {
                self.writes.delete(Table::Lanes, &record_key(&name));
            }
            for ticket in &open.left {
                self.writes.delete(Table::Lanes, &waiting_key(&name, *ticket));
            }
            for (ticket, Came { message, row, until }) in open.came {
                let key = waiting_key(&name, ticket);
                self.writes.put(Table::Lanes, &key, &row);
                self.writes.put(Table::Tasks, &task_key(&message.id), &TaskRow::in_line(&key));
                if let Some(until) = until {
                    self.writes.put(Table::Lanes, &deadline_key(until, ticket), &key);
                    self.deadline = Some(self.deadline.map_or(until, |deadline| deadline.min(until)));
                }
            }
            self.changed.push(name, (!is_idle).then_some(open.lane), open.is_on_disk);
        }
        Ok(())
    }
}

impl Open {
    /// The first that waits, or the last: its ticket, and its row if it is on disk.
    fn find(&self, tables: &Tables, name: &LaneName, last: bool) -> Result<Option<Spot>, BrokerError> {
        let newest = if last { self.came.last_key_value() } else { None };
        if let Some((ticket, _)) = newest {
            return Ok(Some((*ticket, None)));
        }
        let first = waiting_key(name, self.lane.served().saturating_add(1));
        let end = waiting_key(name, u64::MAX);
        let mut rows = tables.range(Table::Lanes, &first, Bound::Included(&end))?;
        while let Some(row) = if last { rows.next_back() } else { rows.next() } {
            let (key, value) = row?;
            let ticket = ticket_of(&key);
            if !self.left.contains(&ticket) {
                return Ok(Some((ticket, Some(value.to_vec()))));
            }
        }
        Ok(self.came.first_key_value().map(|(ticket, _)| (*ticket, None)))
    }

    /// Takes one out of the line; `None`: its row does not decode.
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
    /// Works out what the steps of this commit come to.
    pub(super) fn take_steps(&mut self, batch: &mut LaneBatch, tables: &Tables) -> Result<(), BrokerError> {
        // Should it fail, it is told from the commit before, which is not to be taken off, by its sequence.
        self.seq += 1;
        let steps = std::mem::take(&mut self.commit.steps);
        let taken = steps.iter().try_for_each(|step| match step {
            Step::Release { lane, id, block } => self.release_lane(batch, tables, lane, id, block.clone()),
            Step::LetGo { key, id } => batch.dedupe.let_go(tables, key, id),
            Step::Arrive(Newcoming { queue, message, row, is_new, .. }) => {
                let joined = match is_new {
                    true => self.arrive(batch, tables, *queue, message, row)?,
                    false => self.pass_lane(batch, tables, *queue, message, row, false)?,
                };
                batch.joined.push(joined);
                Ok(())
            }
        });
        self.commit.steps = steps;
        taken.and_then(|()| self.finish_lanes(batch))
    }

    /// The commit of the batch is to be written next.
    pub(super) fn finish_lanes(&mut self, batch: &mut LaneBatch) -> Result<(), BrokerError> {
        batch.finish()?;
        if let Some(count) = self.known_lanes.count_after(&batch.changed) {
            batch.writes.put(Table::Meta, LANES, &count.to_be_bytes());
        }
        if let Some(deadline) = batch.deadline {
            self.next_deadline = Some(self.next_deadline.map_or(deadline, |next| next.min(deadline)));
        }
        Ok(())
    }

    /// A new message comes. Says whom it joins, if it is left out.
    pub(super) fn arrive(
        &mut self,
        batch: &mut LaneBatch,
        tables: &Tables,
        queue: usize,
        message: &Arc<Message>,
        row: &[u8],
    ) -> Result<Option<TaskId>, BrokerError> {
        if let Some(unique) = &message.unique
            && let Some(holder) = batch.dedupe.holder(tables, &unique.key)?
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
            batch.dedupe.hold(tables, unique, &message.id)?;
        }
        Ok(joined)
    }

    /// A message comes to its lane. Says whom it joins, if it is left out.
    pub(super) fn pass_lane(
        &mut self,
        batch: &mut LaneBatch,
        tables: &Tables,
        queue: usize,
        message: &Arc<Message>,
        row: &[u8],
        is_new: bool,
    ) -> Result<Option<TaskId>, BrokerError> {
        let (Some(serial), Some(name)) = (&message.serial, lane::lane_of(message)) else {
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
            Entry::Enter => self.line_up(batch, queue, Arc::clone(message), row),
            Entry::Refuse => self.refuse_entry(batch, queue, message, Refusal::CouldNotAcquireLock)?,
            Entry::Skip => {
                let waiting = match open.find(tables, name, true)? {
                    Some((_, Some(row))) => Some(decode::<Message>(&row)?.id),
                    Some((ticket, None)) => open.came.get(&ticket).map(|came| came.message.id.clone()),
                    None => None,
                };
                return Ok(waiting);
            }
            Entry::Wait { .. } | Entry::Replace => {
                let replaced = match entry {
                    Entry::Replace => open.find(tables, name, true)?,
                    _ => None,
                };
                let replaced = replaced.and_then(|(ticket, row)| open.take(ticket, row));
                self.seq += 1;
                let until = match entry {
                    Entry::Wait { until } => until,
                    _ => None,
                };
                let came = Came { message: Arc::clone(message), row: row.to_vec(), until };
                open.came.insert(self.seq, came);
                self.windows[queue].in_line += 1;
                self.commit.queues.insert(queue);
                if let Some(old) = replaced {
                    let queue = self.out_of_line(&old)?;
                    self.refuse_entry(batch, queue, &old, Refusal::Replaced { by: message.id.clone() })?;
                }
            }
        }
        Ok(None)
    }

    /// A run is over: if it held its lane, the next goes in.
    pub(super) fn release_lane(
        &mut self,
        batch: &mut LaneBatch,
        tables: &Tables,
        name: &LaneName,
        id: &TaskId,
        block: Option<String>,
    ) -> Result<(), BrokerError> {
        if batch.open(&self.known_lanes, tables, name, self.seq)?.lane.release(id, block, now()) {
            self.let_in(batch, tables, name)?;
        }
        Ok(())
    }

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

    fn out_of_line(&mut self, message: &Message) -> Result<usize, BrokerError> {
        let queue = self.queue(&message.queue)?;
        let window = &mut self.windows[queue];
        window.in_line = window.in_line.saturating_sub(1);
        self.commit.queues.insert(queue);
        Ok(queue)
    }

    /// A row among the ready ones of its queue.
    fn line_up(&mut self, batch: &mut LaneBatch, queue: usize, message: Arc<Message>, row: &[u8]) {
        let seq = self.next_seq();
        let window = &mut self.windows[queue];
        let key = ready_key(window.number, message.priority, seq);
        window.ready += 1;
        self.commit.queues.insert(queue);
        batch.writes.put(Table::Messages, &key, row);
        batch.writes.put(Table::Tasks, &task_key(&message.id), &TaskRow::at(&key));
        batch.arrivals.push(Arrival { queue, place: Place::Ready(key), message });
    }

    /// It is told so by whoever consumes its queue.
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

    /// Writes what a batch comes to, in a commit of its own, together with `writes`.
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
        for Arrival { queue, place, .. } in batch.arrivals {
            match place {
                Place::Ready(key) => self.windows[queue].waits(&key),
                Place::Scheduled(due, _) => self.windows[queue].scheduled_for(due),
            }
        }
        Ok(())
    }

    /// Takes one out that waits in its lane's line.
    pub(super) fn remove_from_line(
        &mut self,
        id: &TaskId,
        key: &[u8],
        record: RecordFn,
    ) -> Result<Removal, BrokerError> {
        let tables = self.open_tables()?;
        let Some(row) = tables.get(Table::Lanes, key)? else { return Ok(Removal::Unknown) };
        let message: Message = decode(&row)?;
        let Remains { record, sequel } = record(&message);
        let (mut batch, mut writes) = (LaneBatch::default(), Writes::default());
        if let Some(name) = lane::lane_of(&message) {
            let open = batch.open(&self.known_lanes, &tables, name, self.seq)?;
            open.left.insert(ticket_of(key));
            open.lane.leave();
        }
        self.out_of_line(&message)?;
        self.lets_go(&message);
        self.leave_record(&mut writes, &task_key(id), record.as_ref(), None);
        self.follow(&mut writes, id, sequel);
        self.commit_sequel(batch, &[], writes)?;
        if let Some(record) = &record {
            self.shared.waiters.wake(record);
        }
        Ok(Removal::Removed)
    }

    /// Lets those go who have waited long enough.
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
        // Not from the very start: there lie the deleted rows of all that were due before.
        let start = deadline_key(self.next_deadline.unwrap_or(Timestamp::ZERO), 0);
        for (count, row) in tables.range(Table::Lanes, &start, Bound::Excluded(&[DEADLINE + 1]))?.enumerate()
        {
            let (key, waiting) = row?;
            let until = key.get(1..9).and_then(|at| at.try_into().ok()).map(u64::from_be_bytes);
            let until = Timestamp::from_micros(until.unwrap_or(0));
            if until > now || count == STEP {
                next = Some(until);
                break;
            }
            writes.delete(Table::Lanes, &key);
            let Some(row) = tables.get(Table::Lanes, &waiting)? else { continue }; // it was let in, or left
            let message: Message = decode(&row)?;
            if let Some(name) = lane::lane_of(&message) {
                let open = batch.open(&self.known_lanes, &tables, name, self.seq)?;
                open.left.insert(ticket_of(&waiting));
                open.lane.leave();
            }
            let queue = self.out_of_line(&message)?;
            self.refuse_entry(&mut batch, queue, &message, Refusal::CouldNotAcquireLock)?;
        }
        self.next_deadline = None;
        self.commit_lanes(batch, writes)?;
        self.next_deadline = next;
        Ok(())
    }

    pub(super) fn lane_facts(&self, name: &LaneName) -> Result<Option<LaneFacts>, BrokerError> {
        let tables = self.open_tables()?;
        let Some(record) = tables.get(Table::Lanes, &record_key(name))? else { return Ok(None) };
        let lane: Lane<TaskId> = decode(&record)?;
        let first = waiting_key(name, lane.served().saturating_add(1));
        let end = waiting_key(name, u64::MAX);
        let mut next = Vec::new();
        for row in tables.range(Table::Lanes, &first, Bound::Included(&end))?.take(SHOWN) {
            next.push(Waiting::of(&decode(&row?.1)?));
        }
        Ok(Some(LaneFacts::of(name.clone(), &lane, next)))
    }

    pub(super) fn all_lanes(&self, limit: usize) -> Result<Vec<LaneFacts>, BrokerError> {
        let tables = self.open_tables()?;
        let rows = tables.range(Table::Lanes, &[RECORD], Bound::Excluded(&[RECORD + 1]))?;
        let mut all = Vec::new();
        for row in rows.take(limit) {
            let (key, record) = row?;
            if let Some(name) = name_of(&key) {
                all.push(LaneFacts::of(name, &decode(&record)?, Vec::new()));
            }
        }
        Ok(all)
    }

    pub(super) fn steer_lane(&mut self, name: &LaneName, lever: LaneLever) -> Result<bool, BrokerError> {
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
