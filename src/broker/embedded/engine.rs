//! The thread that owns the embedded store.
//!
//! It gathers all requests since the last commit, writes them to the log with one `fdatasync`, and only then answers, delivers and
//! wakes. Under load the commits grow; a publish alone costs one sync. The only timer is the next ETA, and nothing polls. When the
//! disk refuses a commit, publishes are refused with the reason, and settlements are kept until it opens again (see `recovery`).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::RwLock;

use super::EmbeddedOptions;
use super::acknowledged::Acknowledged;
use super::argument_index;
use super::command::{EngineCommand, ReplySender};
use super::commit::{ArrivedRow, Commit, Published, RowEnd, RowKey};
use super::cursors::Cursors;
use super::known_lanes::KnownLanes;
use super::lanes::{LaneBatch, LaneStep, Newcoming};
use super::last_chance::LastChance;
use super::lock::DirLock;
use super::queue_cursor::QueueCursor;
use super::reclaim::Reclaim;
use super::recovery::{WriteFailure, reopening};
use super::rows::{SEQ, StoredQueue, TaskRow, encode, scheduled_key, task_key};
use super::start_log::StartLog;
use super::tables::{TableName, Tables, Writes, io_error};
use crate::broker::{BrokerError, limits};
use crate::core::Backoff;
use crate::core::Timestamp;
use crate::store::Waiters;
use crate::task::clock::now;
use crate::task::{Message, TaskId};

/// The most requests that go into one commit.
const BATCH: usize = 4096;
/// The most queues that a store holds: their numbers have 16 bits. A catalogue has some dozens.
const QUEUES: usize = 1 << 16;
/// The longest time for which the thread sleeps until something is due by the wall clock.
const MOST_SLEEP: Duration = Duration::from_secs(3600);

/// The part of the store that other threads may read.
pub(super) struct EngineShared {
    /// The open tables, or the reason why they are not open.
    pub(super) tables: RwLock<Result<Tables, BrokerError>>,
    pub(super) start_log: StartLog,
    pub(super) waiters: Waiters,
    /// How many failed tasks were dropped because their queues kept too many.
    pub(super) dropped_failed: AtomicU64,
}

impl EngineShared {
    pub(super) fn set_tables(&self, tables: Result<Tables, BrokerError>) {
        let old = std::mem::replace(&mut *self.tables.write(), tables);
        if let Ok(old) = old {
            old.close();
        }
    }
}

pub(super) struct Engine {
    pub(super) dir: PathBuf,
    pub(super) options: EmbeddedOptions,
    pub(super) shared: Arc<EngineShared>,
    pub(super) tables: Option<Tables>,
    /// The queues, and which of them have to be looked at.
    pub(super) cursors: Cursors,
    pub(super) by_name: HashMap<String, usize>,
    /// The last sequence that was given to a row or a commit. No two get the same one, in no process.
    pub(super) seq: u64,
    pub(super) next_tag: u64,
    pub(super) commit: Commit,
    pub(super) known_lanes: KnownLanes,
    pub(super) last_chance: LastChance,
    /// The lines, by queue and number, whose last rows the commit under construction takes.
    pub(super) emptied: Vec<(usize, u32)>,
    /// Settlements that wait until the tables are open again.
    pub(super) deferred: Vec<EngineCommand>,
    /// The time of the earliest run that will have waited long enough for its lane, or an earlier time.
    pub(super) next_deadline: Option<Timestamp>,
    /// The previous commit, emptied: its memory is used again.
    spare: Commit,
    pub(super) reclaim: Reclaim,
    pub(super) mending: Option<JoinHandle<Result<bool, BrokerError>>>,
    pub(super) sender: Sender<EngineCommand>,
    pub(super) acknowledged: Option<Acknowledged>,
    pub(super) failure: Option<WriteFailure>,
    /// The pauses before the store is opened again after a failure.
    pub(super) reopening: Backoff,
    /// Declared last, so that it is dropped last: the process that gets the lock finds the files closed.
    _lock: DirLock,
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.set_tables(Err(BrokerError::Closed));
        self.shared.waiters.close();
        self.reclaim.end();
        if let Some(mending) = self.mending.take() {
            let _ = mending.join();
        }
        if let Some(tables) = self.tables.take() {
            tables.stop(); // somebody may read them still
            tables.close();
        }
        if let Err(error) = self.take_off_failed() {
            tracing::error!(%error, "tasks that were refused when the disk failed may run nevertheless");
        }
    }
}

impl Engine {
    pub(super) fn new(
        dir: PathBuf,
        lock: DirLock,
        options: EmbeddedOptions,
        shared: Arc<EngineShared>,
        tables: Tables,
        sender: Sender<EngineCommand>,
    ) -> Result<Self, BrokerError> {
        let mut engine = Self {
            dir,
            options,
            shared,
            tables: None,
            cursors: Cursors::default(),
            by_name: HashMap::new(),
            seq: 0,
            next_tag: 0,
            commit: Commit::default(),
            known_lanes: KnownLanes::default(),
            last_chance: LastChance::default(),
            emptied: Vec::new(),
            deferred: Vec::new(),
            next_deadline: None,
            spare: Commit::default(),
            reclaim: Reclaim::default(),
            mending: None,
            sender,
            acknowledged: None,
            failure: None,
            reopening: reopening(),
            _lock: lock,
        };
        engine.adopt(tables)?;
        let acknowledged = Acknowledged::open(&engine.dir, engine.seq);
        engine.acknowledged = Some(acknowledged.map_err(|e| io_error(&engine.dir, e))?);
        Ok(engine)
    }

    /// Writes and syncs a commit, and notes that it is about to be acknowledged.
    pub(super) fn write(&mut self, tables: &Tables, parts: &[&Writes]) -> Result<(), BrokerError> {
        let emptied = std::mem::take(&mut self.emptied);
        tables.write(parts)?;
        if let Some(acknowledged) = &mut self.acknowledged {
            acknowledged.note(self.seq);
        }
        for (queue, number) in emptied {
            self.cursors[queue].forget_if_empty(Some(number));
        }
        Ok(())
    }

    /// Works until a request asks to close. Answers with the sender of that request and what to say to it.
    pub(super) fn run(
        &mut self,
        requests: &Receiver<EngineCommand>,
    ) -> Option<(ReplySender<()>, Result<(), BrokerError>)> {
        let mut inbox = Vec::with_capacity(BATCH);
        loop {
            let next = match self.wake_at() {
                None => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => requests.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match next {
                Ok(command) => inbox.push(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
            inbox.extend(requests.try_iter().take(BATCH - 1));
            for command in inbox.drain(..) {
                if let EngineCommand::Close { reply } = command {
                    return Some((reply, self.last_flush()));
                }
                self.gather(command);
            }
            // First what was asked: whoever waits for an answer waits for this commit.
            self.flush();
            // Then a store that failed may be opened again, so that the steps below find tables to read.
            self.try_reopen();
            // Runs that gave up become ready before the consumers are filled.
            self.give_up_waiting();
            self.look_at_queues();
        }
    }

    /// Takes a request in: into the next commit, or, if it is of another kind, at once.
    pub(super) fn gather(&mut self, command: EngineCommand) {
        match command {
            EngineCommand::Publish { message, row, unique, reply } => {
                self.publish(message, row, unique, reply);
            }
            EngineCommand::PublishAll { messages, sizes, extended_chord, unique, reply } => {
                self.publish_all(messages, (sizes, extended_chord), unique, reply);
            }
            EngineCommand::Settle { queue, tag, settle, row, done } => {
                self.settle(queue, tag, settle, row, done);
            }
            EngineCommand::ReleaseWindow { key, id } => {
                self.commit.steps.push(LaneStep::ReleaseWindow { key, id })
            }
            other => {
                self.flush(); // every other request sees all requests that came before it
                self.handle(other);
            }
        }
    }

    /// The time at which there is work that nobody asked for.
    fn wake_at(&self) -> Option<Instant> {
        if let Some(failure) = &self.failure {
            return Some(failure.retry_at);
        }
        if self.cursors.any_touched() {
            return Some(Instant::now());
        }
        let due = self.next_deadline.into_iter().chain(self.cursors.next_due()).min();
        // Somebody may set the wall clock meanwhile.
        let due = due.map(|due| Instant::now() + due.since(now()).min(MOST_SLEEP));
        due.into_iter().chain(self.cursors.next_again()).min()
    }

    /// Why nothing can be read or written.
    pub(super) fn error(&self) -> BrokerError {
        self.failure.as_ref().map_or(BrokerError::Closed, |f| f.error.clone())
    }

    pub(super) fn open_tables(&self) -> Result<Tables, BrokerError> {
        self.tables.clone().ok_or_else(|| self.error())
    }

    /// The index of the queue of this name; the queue is made if it is new.
    pub(super) fn queue(&mut self, name: &str) -> Result<usize, BrokerError> {
        if let Some(index) = self.by_name.get(name) {
            return Ok(*index);
        }
        limits::queue(name)?;
        self.known_queue(name)
    }

    /// As [`queue`](Self::queue), for a name that is in the tables already, however long it is.
    pub(super) fn known_queue(&mut self, name: &str) -> Result<usize, BrokerError> {
        if let Some(index) = self.by_name.get(name) {
            return Ok(*index);
        }
        let index = self.cursors.len();
        let number = u16::try_from(index).map_err(|_| {
            BrokerError::io(format!("queue `{name}` is one too many: a store holds {QUEUES} queues"))
        })?;
        self.cursors.push(QueueCursor::new(name.to_owned(), number));
        self.by_name.insert(name.to_owned(), index);
        self.commit.queues.insert(index);
        Ok(index)
    }

    pub(super) fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    /// Stages the rows of a message that is to wait in a queue.
    pub(super) fn place(
        &mut self,
        writes: &mut Writes,
        queue: usize,
        message: Arc<Message>,
        row: &[u8],
        due: Option<Timestamp>,
    ) -> ArrivedRow {
        let seq = self.next_seq();
        let cursor = &mut self.cursors[queue];
        // A serial message that is due went through its lane instead of coming here. So one that comes here was
        // not due when that was decided, and stays scheduled even if its time has come since.
        let place = match due.filter(|due| *due > now() || message.lane().is_some()) {
            Some(due) => RowKey::Scheduled(due, scheduled_key(cursor.number, due, seq)),
            None => RowKey::Ready(cursor.ready_key(&message, seq)),
        };
        writes.put_new(TableName::Messages, place.key(), row); // no other key has its sequence
        self.comes_to(writes, queue, place, message)
    }

    /// Stages the rows of a message that is to wait at this place again, which is free.
    pub(super) fn place_back(
        &mut self,
        writes: &mut Writes,
        queue: usize,
        place: RowKey,
        message: Arc<Message>,
        row: &[u8],
    ) -> ArrivedRow {
        writes.put(TableName::Messages, place.key(), row);
        self.comes_to(writes, queue, place, message)
    }

    /// Stages what goes with the row of a message at its place.
    fn comes_to(
        &mut self,
        writes: &mut Writes,
        queue: usize,
        place: RowKey,
        message: Arc<Message>,
    ) -> ArrivedRow {
        self.cursors[queue].came(&place, &message);
        writes.put(TableName::Tasks, &task_key(&message.id), &TaskRow::at(place.key()));
        // A header says by which arguments a task is searched for.
        if !message.headers.0.is_empty() {
            argument_index::add_waiting(writes, &message);
        }
        self.commit.queues.insert(queue);
        ArrivedRow { queue, place, message }
    }

    fn publish(
        &mut self,
        message: Arc<Message>,
        row: Vec<u8>,
        unique: bool,
        reply: ReplySender<Option<TaskId>>,
    ) {
        let queue =
            match self.refuse(&message.id, unique, row.len()).and_then(|()| self.queue(&message.queue)) {
                Ok(queue) => queue,
                Err(refusal) => {
                    let _ = reply.send(Err(refusal));
                    return;
                }
            };
        self.commit.ids.insert(message.id.clone());
        let due = message.eta;
        if message.has_to_pass_lane(due) || message.unique.is_some() {
            let is_new = !message.is_in_canvas();
            let newcoming = Newcoming { queue, message, row, is_new, is_kept: false, reply: Some(reply) };
            self.commit.steps.push(LaneStep::Arrive(newcoming));
            return;
        }
        let mut writes = std::mem::take(&mut self.commit.publishes);
        let arrival = self.place(&mut writes, queue, message, &row, due);
        self.commit.publishes = writes;
        self.commit.published.push(Published { reply: Some(reply), arrival });
    }

    /// Takes all of these messages or none. `sizes`: the chords that are opened, with their sizes. `extended_chord`: the
    /// chord that gets one more member.
    fn publish_all(
        &mut self,
        messages: Vec<(Arc<Message>, Vec<u8>)>,
        (sizes, extended_chord): (Vec<(String, u64)>, Option<String>),
        unique: bool,
        reply: ReplySender<Option<TaskId>>,
    ) {
        let mut queues = Vec::with_capacity(messages.len());
        for (message, row) in &messages {
            let queue = self.refuse(&message.id, unique, row.len()).and_then(|()| self.queue(&message.queue));
            match queue {
                Ok(queue) => queues.push(queue),
                Err(refusal) => {
                    let _ = reply.send(Err(refusal));
                    return;
                }
            }
        }
        let extended = extended_chord.as_deref().map_or(Ok(()), |group| self.extend_chord(group));
        let mut sizes = sizes.iter();
        let opened =
            extended.and_then(|()| sizes.try_for_each(|(group, size)| self.open_chord(group, *size)));
        if let Err(error) = opened {
            let _ = reply.send(Err(error));
            return;
        }
        let is_empty = messages.is_empty();
        let mut writes = std::mem::take(&mut self.commit.publishes);
        let mut arrivals = Vec::with_capacity(messages.len());
        for ((message, row), queue) in messages.into_iter().zip(queues) {
            self.commit.ids.insert(message.id.clone());
            let due = message.eta;
            if message.has_to_pass_lane(due) {
                let newcoming = Newcoming { queue, message, row, is_new: false, is_kept: false, reply: None };
                self.commit.steps.push(LaneStep::Arrive(newcoming));
            } else {
                arrivals.push(self.place(&mut writes, queue, message, &row, due));
            }
        }
        self.commit.publishes = writes;
        let last = arrivals.pop();
        let published = |arrival| Published { reply: None, arrival };
        self.commit.published.extend(arrivals.into_iter().map(published));
        match last {
            Some(arrival) => self.commit.published.push(Published { reply: Some(reply), arrival }),
            None => match self.commit.steps.last_mut() {
                Some(LaneStep::Arrive(last)) if !is_empty => last.reply = Some(reply),
                _ => drop(reply.send(Ok(None))), // there is no message to take: an empty group
            },
        }
    }

    /// Refuses a publish that cannot be taken, because the disk has too little room or its id is taken.
    pub(super) fn refuse(&mut self, id: &TaskId, unique: bool, size: usize) -> Result<(), BrokerError> {
        let tables = self.tables.as_ref().ok_or_else(|| self.error())?;
        let dir = &self.dir;
        let free = *self.commit.free.get_or_insert_with(|| {
            fs4::available_space(dir).map_or(u64::MAX, |free| free.saturating_sub(tables.to_be_flushed()))
        });
        let left = free.saturating_sub(size as u64);
        if left < self.options.min_free_space {
            let cursors = &self.cursors;
            self.reclaim.begin(tables, self.seq, || cursors.iter().map(|w| w.ready + w.scheduled).sum());
            return Err(BrokerError::Full(format!(
                "{} MiB are free on the disk of {}, and the last {} MiB are kept for tasks that are under way",
                free >> 20,
                self.dir.display(),
                self.options.min_free_space >> 20
            )));
        }
        if unique {
            let is_taken = self.commit.ids.contains(id)
                || match tables.get(TableName::Tasks, &task_key(id))?.as_deref().map(TaskRow::decode) {
                    None => false,
                    Some(Ok(TaskRow::Over(result))) => result.expires_at > now(),
                    Some(Ok(TaskRow::At(_) | TaskRow::InLine(_)) | Err(_)) => true,
                };
            if is_taken {
                return Err(BrokerError::DuplicateId(id.clone()));
            }
        }
        self.commit.free = Some(left);
        Ok(())
    }

    /// Commits what was gathered, and then says so.
    pub(super) fn flush(&mut self) {
        // The next commit measures the free room on the disk anew.
        self.commit.free = None;
        if self.commit.is_empty() {
            return;
        }
        let mut lanes = None;
        if self.commit.writes() {
            let Some(tables) = self.tables.clone() else { return };
            // Lanes are worked out now, from the rows as they are: a publish may go where a settlement of this
            // commit leaves.
            let steps = if self.commit.steps.is_empty() {
                Ok(())
            } else {
                self.take_steps(lanes.insert(LaneBatch::default()), &tables)
            };
            if steps.is_err() {
                self.seq += 1; // the failure must not be taken for that of the last commit, which is safe
            }
            let written = steps.and_then(|()| {
                let mut meta = Writes::default();
                self.stage_meta(&mut meta);
                let commit = std::mem::take(&mut self.commit);
                let none = Writes::default();
                let of_lanes = lanes.as_ref().map_or(&none, |lanes| &lanes.writes);
                let parts = [&commit.publishes, &commit.settlements, of_lanes, &meta];
                let written = self.write(&tables, &parts);
                self.commit = commit;
                written
            });
            if let Err(error) = written {
                tables.close();
                self.fail(error);
                return;
            }
            self.reopening.reset();
        }
        // The commit is safe. What `announce` sets off goes into the next commit; the counts that no write took
        // along go too.
        let mut next = std::mem::take(&mut self.spare);
        std::mem::swap(&mut next.queues, &mut self.commit.queues);
        let mut commit = std::mem::replace(&mut self.commit, next);
        self.announce(&mut commit, lanes);
        commit.clear();
        self.spare = commit;
    }

    /// Acts on a commit that is safe: it delivers the new rows, and answers and wakes those who wait. `lanes` is `None` if the
    /// commit has no steps.
    fn announce(&mut self, commit: &mut Commit, lanes: Option<LaneBatch>) {
        let (mut let_in, mut joined) = (Vec::new(), Vec::new());
        if let Some(lanes) = lanes {
            // What memory knows of lanes must match the disk before anything is delivered.
            self.known_lanes.take(lanes.changed);
            (let_in, joined) = (lanes.arrivals, lanes.joined);
        }
        // The starts of rows that are gone need not be kept any longer.
        if !commit.settled.is_empty() {
            let gone = commit.settled.iter().filter(|s| !matches!(s.end, RowEnd::Back)).map(|s| s.held.key);
            self.shared.start_log.forget(gone);
        }
        let mut arrivals = Vec::with_capacity(commit.published.len());
        for settled in commit.settled.drain(..) {
            if let Some(record) = &settled.record {
                self.shared.waiters.wake(record);
            }
            match settled.end {
                RowEnd::Gone | RowEnd::Dead | RowEnd::Failed(_) => {}
                RowEnd::Back => {
                    self.shared.start_log.take_back(settled.held.key);
                    self.cursors[settled.queue].waits(&settled.held.key);
                }
                RowEnd::Replaced(arrival) => arrivals.push(arrival),
            }
            if let Some(done) = settled.done {
                let _ = done.send(Ok(()));
            }
        }
        arrivals.append(&mut commit.arrivals);
        arrivals.append(&mut let_in);
        commit.records.drain(..).for_each(|record| self.shared.waiters.wake(&record));
        let mut replies = Vec::with_capacity(commit.published.len());
        for published in commit.published.drain(..) {
            arrivals.push(published.arrival);
            replies.extend(published.reply.map(|reply| (reply, None)));
        }
        // Steps that failed were answered when they failed, and are not among the steps any more.
        let newcomings = commit.steps.drain(..).filter_map(|step| match step {
            LaneStep::Arrive(newcoming) => Some(newcoming.reply),
            LaneStep::Release { .. } | LaneStep::ReleaseWindow { .. } => None,
        });
        let answers = newcomings.zip(joined);
        replies.extend(answers.filter_map(|(reply, joined)| reply.map(|reply| (reply, joined))));
        if !arrivals.is_empty() {
            self.arrived(arrivals);
        }
        for (reply, joined) in replies {
            let _ = reply.send(Ok(joined));
        }
    }

    /// Stages the rows that go with every commit: the counts, the last sequence, and which results expire when.
    pub(super) fn stage_meta(&mut self, writes: &mut Writes) {
        for index in std::mem::take(&mut self.commit.queues) {
            let cursor = &mut self.cursors[index];
            if cursor.failed != cursor.failed_on_disk
                && let Ok(row) = encode(&cursor.failed)
            {
                writes.put(TableName::Meta, format!("failed/{}", cursor.name).as_bytes(), &row);
                cursor.failed_on_disk = cursor.failed;
            }
            if !cursor.tenants.touched.is_empty() {
                let emptied = cursor.tenants.stage(cursor.number, writes);
                self.emptied.extend(emptied.into_iter().map(|number| (index, number)));
            }
            let row = StoredQueue {
                number: cursor.number,
                ready: cursor.ready,
                scheduled: cursor.scheduled,
                dead: cursor.dead,
                in_line: cursor.in_line,
            };
            if let Ok(row) = row.encode(cursor.tenants.rows > 0) {
                writes.put(TableName::Meta, format!("queue/{}", cursor.name).as_bytes(), &row);
            }
        }
        if !self.commit.chords.is_empty()
            && let Err(error) = self.commit.chords.stage(writes)
        {
            tracing::error!(%error, "a chord cannot be written");
        }
        self.seq += 1;
        if !self.commit.expiring.is_empty() {
            super::expiry::stage(&self.commit.expiring, self.seq, writes);
        }
        writes.put(TableName::Meta, SEQ, &self.seq.to_be_bytes());
    }

    /// Writes and syncs these rows now, together with the counts of these queues.
    pub(super) fn commit_now(&mut self, queues: &[usize], writes: &Writes) -> Result<(), BrokerError> {
        let tables = self.open_tables()?;
        let mut meta = Writes::default();
        self.commit.queues.extend(queues);
        self.stage_meta(&mut meta);
        self.commit.expiring.clear();
        self.commit.chords.clear();
        self.write(&tables, &[writes, &meta]).inspect_err(|error| {
            tables.close();
            self.fail(error.clone());
        })
    }
}
