//! The thread that owns the embedded store.
//!
//! It gathers whatever was asked since the last commit, writes it in one batch with one `fdatasync`, and only then
//! answers, delivers and wakes. Under load the commits grow by themselves; alone, a publish costs one sync. There is
//! no timer but the next ETA, and nothing polls.
//!
//! When the disk refuses a commit (full, or an I/O error), publishes are refused with the reason; settlements are
//! kept and written when the store could be opened again (see `recovery`).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::EmbeddedOptions;
use super::claims::Claims;
use super::command::{Command, Reply, Settlement};
use super::commit::{Arrival, Commit, End, Place, Published};
use super::known_lanes::KnownLanes;
use super::lanes::{self, LaneBatch, Newcoming, Step};
use super::last_chance::LastChance;
use super::lock::DirLock;
use super::reclaim::Reclaim;
use super::recovery::{Failure, REOPEN_AFTER};
use super::rows::{QueueRow, ReadyKey, SEQ, TaskRow, encode, ready_key, scheduled_key, seq_of, task_key};
use super::tables::{Table, Tables, Writes};
use super::window::{Consuming, Window};
use crate::broker::{BrokerError, Delivery, Settle, Settler, call_sink, lane};
use crate::core::Timestamp;
use crate::store::Waiters;
use crate::task::clock::now;
use crate::task::{Message, TaskId};

/// At most so many requests go into one commit.
const BATCH: usize = 4096;
/// How many queues a store holds: their numbers are 16 bits. The catalogue has some dozens.
const QUEUES: usize = 1 << 16;

/// What other threads may look at.
pub(super) struct Shared {
    /// The open tables, or why they are not open.
    pub(super) tables: RwLock<Result<Tables, BrokerError>>,
    pub(super) claims: Claims,
    pub(super) waiters: Waiters,
}

impl Shared {
    pub(super) fn set_tables(&self, tables: Result<Tables, BrokerError>) {
        let old =
            std::mem::replace(&mut *self.tables.write().unwrap_or_else(PoisonError::into_inner), tables);
        if let Ok(old) = old {
            old.close();
        }
    }
}

pub(super) struct Engine {
    pub(super) dir: PathBuf,
    pub(super) options: EmbeddedOptions,
    pub(super) shared: Arc<Shared>,
    pub(super) tables: Option<Tables>,
    pub(super) windows: Vec<Window>,
    pub(super) by_name: HashMap<String, usize>,
    /// Of rows and of commits: never used twice, also by different processes.
    pub(super) seq: u64,
    next_tag: u64,
    pub(super) commit: Commit,
    pub(super) known_lanes: KnownLanes,
    pub(super) last_chance: LastChance,
    /// Settlements that wait for the tables to be open again.
    pub(super) deferred: Vec<Settlement>,
    /// When somebody may have waited long enough for a lane: the time of the earliest, or an earlier one.
    pub(super) next_deadline: Option<Timestamp>,
    /// The commit before, empty: its room is used again.
    spare: Commit,
    pub(super) reclaim: Reclaim,
    sender: Sender<Command>,
    pub(super) failure: Option<Failure>,
    /// How long to wait after the next failure before the store is opened again.
    pub(super) pause: Duration,
    /// Goes last: who gets the lock finds the files closed.
    _lock: DirLock,
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.set_tables(Err(BrokerError::Closed));
        self.shared.waiters.close();
        self.reclaim.end();
        if let Some(tables) = self.tables.take() {
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
        shared: Arc<Shared>,
        tables: Tables,
        sender: Sender<Command>,
    ) -> Result<Self, BrokerError> {
        let mut engine = Self {
            dir,
            options,
            shared,
            tables: None,
            windows: Vec::new(),
            by_name: HashMap::new(),
            seq: 0,
            next_tag: 0,
            commit: Commit::default(),
            known_lanes: KnownLanes::default(),
            last_chance: LastChance::default(),
            deferred: Vec::new(),
            next_deadline: None,
            spare: Commit::default(),
            reclaim: Reclaim::default(),
            sender,
            failure: None,
            pause: REOPEN_AFTER,
            _lock: lock,
        };
        engine.adopt(tables)?;
        Ok(engine)
    }

    /// Works until it is closed; what to answer then.
    pub(super) fn run(
        &mut self,
        requests: &Receiver<Command>,
    ) -> Option<(Reply<()>, Result<(), BrokerError>)> {
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
                match command {
                    Command::Publish { message, row, unique, reply } => {
                        self.publish(message, row, unique, reply);
                    }
                    Command::PublishAll { messages, sizes, unique, reply } => {
                        self.publish_all(messages, sizes, unique, reply);
                    }
                    Command::Settle(settlement) => self.settle(*settlement),
                    Command::LetGo { key, id } => self.commit.steps.push(Step::LetGo { key, id }),
                    Command::Close { reply } => return Some((reply, self.last_flush())),
                    other => {
                        self.flush(); // it sees everything that came before it
                        self.handle(other);
                    }
                }
            }
            self.flush();
            self.try_reopen();
            self.give_up_waiting();
            self.promote_due();
            self.deliver();
        }
    }

    /// When there is something to do without being asked.
    fn wake_at(&self) -> Option<Instant> {
        if let Some(failure) = &self.failure {
            return Some(failure.retry_at);
        }
        let now = now();
        let deadline = self.next_deadline.map(|next| next.since(now).min(Duration::from_secs(3600)));
        let deadline = deadline.map(|left| Instant::now() + left);
        self.windows.iter().filter_map(|w| w.wake_at(now)).chain(deadline).min()
    }

    /// Why nothing can be read or written.
    pub(super) fn error(&self) -> BrokerError {
        self.failure.as_ref().map_or(BrokerError::Closed, |f| f.error.clone())
    }

    pub(super) fn open_tables(&self) -> Result<Tables, BrokerError> {
        self.tables.clone().ok_or_else(|| self.error())
    }

    /// The queue of this name; made when it is new.
    pub(super) fn queue(&mut self, name: &str) -> Result<usize, BrokerError> {
        if let Some(index) = self.by_name.get(name) {
            return Ok(*index);
        }
        let index = self.windows.len();
        let number = u16::try_from(index).map_err(|_| {
            BrokerError::Io(format!("queue `{name}` is one too many: a store holds {QUEUES} queues"))
        })?;
        self.windows.push(Window::new(name.to_owned(), number));
        self.by_name.insert(name.to_owned(), index);
        self.commit.queues.insert(index);
        Ok(index)
    }

    pub(super) fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    /// The rows for a message that is to wait in a queue.
    pub(super) fn place(
        &mut self,
        writes: &mut Writes,
        queue: usize,
        message: Arc<Message>,
        row: &[u8],
        due: Option<Timestamp>,
    ) -> Arrival {
        let seq = self.next_seq();
        let window = &mut self.windows[queue];
        // A serial one that is due has gone another way, through its lane; this one was not when it was looked at.
        let place = match due.filter(|due| *due > now() || lane::lane_of(&message).is_some()) {
            Some(due) => Place::Scheduled(due, scheduled_key(window.number, due, seq)),
            None => Place::Ready(ready_key(window.number, message.priority, seq)),
        };
        *window.count(&place) += 1;
        writes.put(Table::Messages, place.key(), row);
        writes.put(Table::Tasks, &task_key(&message.id), &TaskRow::at(place.key()));
        self.commit.queues.insert(queue);
        Arrival { queue, place, message }
    }

    fn publish(&mut self, message: Arc<Message>, row: Vec<u8>, unique: bool, reply: Reply<Option<TaskId>>) {
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
        if lanes::has_to_pass(&message, due) || message.unique.is_some() {
            let is_new = !message.is_in_canvas();
            let newcoming = Newcoming { queue, message, row, is_new, is_kept: false, reply: Some(reply) };
            self.commit.steps.push(Step::Arrive(newcoming));
            return;
        }
        let mut writes = std::mem::take(&mut self.commit.publishes);
        let arrival = self.place(&mut writes, queue, message, &row, due);
        self.commit.publishes = writes;
        self.commit.published.push(Published { reply: Some(reply), arrival });
    }

    /// All of these, or none.
    fn publish_all(
        &mut self,
        messages: Vec<(Arc<Message>, Vec<u8>)>,
        sizes: Vec<(String, u64)>,
        unique: bool,
        reply: Reply<Option<TaskId>>,
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
        if let Err(error) = sizes.iter().try_for_each(|(group, size)| self.open_chord(group, *size)) {
            let _ = reply.send(Err(error));
            return;
        }
        let is_empty = messages.is_empty();
        let mut writes = std::mem::take(&mut self.commit.publishes);
        let mut arrivals = Vec::with_capacity(messages.len());
        for ((message, row), queue) in messages.into_iter().zip(queues) {
            self.commit.ids.insert(message.id.clone());
            let due = message.eta;
            if lanes::has_to_pass(&message, due) {
                let newcoming = Newcoming { queue, message, row, is_new: false, is_kept: false, reply: None };
                self.commit.steps.push(Step::Arrive(newcoming));
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
                Some(Step::Arrive(last)) if !is_empty => last.reply = Some(reply),
                _ => drop(reply.send(Ok(None))), // an empty group
            },
        }
    }

    /// Refuses a publish that cannot be taken.
    pub(super) fn refuse(&mut self, id: &TaskId, unique: bool, size: usize) -> Result<(), BrokerError> {
        let tables = self.tables.as_ref().ok_or_else(|| self.error())?;
        let dir = &self.dir;
        let free = *self.commit.free.get_or_insert_with(|| {
            fs4::available_space(dir).map_or(u64::MAX, |free| free.saturating_sub(tables.to_be_flushed()))
        });
        let left = free.saturating_sub(size as u64);
        if left < self.options.min_free_space {
            let waiting = self.windows.iter().map(|w| w.ready + w.scheduled).sum();
            self.reclaim.begin(tables, self.seq, waiting);
            return Err(BrokerError::Full(format!(
                "{} MiB are free on the disk of {}, and the last {} MiB are kept for tasks that are under way",
                free >> 20,
                self.dir.display(),
                self.options.min_free_space >> 20
            )));
        }
        if unique {
            let is_taken = self.commit.ids.contains(id)
                || match tables.get(Table::Tasks, &task_key(id))?.as_deref().map(TaskRow::decode) {
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

    /// Commits what was gathered, then says so.
    pub(super) fn flush(&mut self) {
        self.commit.free = None;
        if self.commit.is_empty() {
            return;
        }
        let mut lanes = LaneBatch::default();
        if self.commit.writes() {
            let Some(tables) = self.tables.clone() else { return };
            let written = self.take_steps(&mut lanes, &tables).and_then(|()| {
                let mut meta = Writes::default();
                self.stage_meta(&mut meta);
                tables.write(&[&self.commit.publishes, &self.commit.settlements, &lanes.writes, &meta])
            });
            if let Err(error) = written {
                tables.close();
                self.fail(error);
                return;
            }
            self.pause = REOPEN_AFTER;
        }
        let mut next = std::mem::take(&mut self.spare);
        std::mem::swap(&mut next.queues, &mut self.commit.queues);
        let mut commit = std::mem::replace(&mut self.commit, next);
        self.announce(&mut commit, lanes);
        commit.clear();
        self.spare = commit;
    }

    /// The commit is safe: answer, deliver, wake.
    fn announce(&mut self, commit: &mut Commit, mut lanes: LaneBatch) {
        self.known_lanes.take(lanes.changed);
        let gone = commit.settled.iter().filter(|s| !matches!(s.end, End::Back)).map(|s| s.held.key);
        self.shared.claims.forget(gone);
        let mut arrivals = Vec::with_capacity(commit.published.len());
        for settled in commit.settled.drain(..) {
            if let Some(record) = &settled.record {
                self.shared.waiters.wake(record);
            }
            match settled.end {
                End::Gone | End::Dead => {}
                End::Back => {
                    self.shared.claims.take_back(settled.held.key);
                    self.windows[settled.queue].waits(&settled.held.key);
                }
                End::Replaced(arrival) => arrivals.push(arrival),
            }
            if let Some(done) = settled.done {
                let _ = done.send(Ok(()));
            }
        }
        arrivals.append(&mut commit.arrivals);
        arrivals.append(&mut lanes.arrivals);
        commit.records.drain(..).for_each(|record| self.shared.waiters.wake(&record));
        let mut replies = Vec::with_capacity(commit.published.len());
        for published in commit.published.drain(..) {
            arrivals.push(published.arrival);
            replies.extend(published.reply.map(|reply| (reply, None)));
        }
        let newcomings = commit.steps.drain(..).filter_map(|step| match step {
            Step::Arrive(newcoming) => Some(newcoming.reply),
            Step::Release { .. } | Step::LetGo { .. } => None,
        });
        let answers = newcomings.zip(lanes.joined);
        replies.extend(answers.filter_map(|(reply, joined)| reply.map(|reply| (reply, joined))));
        self.arrived(arrivals);
        for (reply, joined) in replies {
            let _ = reply.send(Ok(joined));
        }
    }

    /// These rows are on disk: out with those that there is room for, the rest is found by a later scan.
    pub(super) fn arrived(&mut self, arrivals: Vec<Arrival>) {
        let mut ready = Vec::with_capacity(arrivals.len());
        for Arrival { queue, place, message } in arrivals {
            match place {
                Place::Scheduled(due, _) => self.windows[queue].scheduled_for(due),
                Place::Ready(key) => ready.push((key, queue, message)),
            }
        }
        ready.sort_by_key(|(key, ..)| *key); // by queue, and in the order in which they run
        let mut ready = ready.into_iter().peekable();
        while let Some((_, queue, _)) = ready.peek() {
            let queue = *queue;
            let mut out = Vec::new();
            while let Some((key, _, message)) = ready.next_if(|(_, q, _)| *q == queue) {
                if self.windows[queue].is_next() {
                    out.extend(self.hand_out_in_turn(queue, key, message));
                } else {
                    self.windows[queue].waits(&key);
                }
            }
            self.send(queue, out);
        }
    }

    /// Makes a delivery of a row.
    pub(super) fn hand_out(&mut self, queue: usize, key: ReadyKey, message: Arc<Message>) -> Delivery {
        self.next_tag += 1;
        let tag = self.next_tag;
        let window = &mut self.windows[queue];
        window.hold(tag, key, Arc::clone(&message));
        let sender = self.sender.clone();
        let settler = RowSettler { sender, shared: Arc::clone(&self.shared), queue: window.number, key };
        let fence = message.serial.is_some().then(|| lanes::token(seq_of(&key), &message));
        let delivery = Delivery::new(tag, message, Arc::new(settler));
        match fence {
            Some(token) => delivery.fenced(token),
            None => delivery,
        }
    }

    pub(super) fn send(&mut self, queue: usize, deliveries: Vec<Delivery>) {
        let Some(consumer) = &self.windows[queue].consumer else { return };
        if !deliveries.is_empty() && !call_sink(&consumer.sink, deliveries) {
            self.windows[queue].consumer = None;
        }
    }

    pub(super) fn consume(&mut self, queue: &str, consumer: Consuming) {
        match self.queue(queue) {
            Ok(index) => {
                self.windows[index].consumer = Some(consumer);
                self.windows[index].look_again();
            }
            Err(error) => tracing::error!(queue, %error, "nothing will be delivered"),
        }
    }

    /// The rows that go with every commit: counts, the last sequence, what expires when.
    pub(super) fn stage_meta(&mut self, writes: &mut Writes) {
        for index in std::mem::take(&mut self.commit.queues) {
            let window = &self.windows[index];
            let row = QueueRow {
                number: window.number,
                ready: window.ready,
                scheduled: window.scheduled,
                dead: window.dead,
                in_line: window.in_line,
            };
            if let Ok(row) = encode(&row) {
                writes.put(Table::Meta, format!("queue/{}", window.name).as_bytes(), &row);
            }
        }
        if let Err(error) = self.commit.chords.stage(writes) {
            tracing::error!(%error, "a chord cannot be written");
        }
        self.seq += 1;
        super::expiry::stage(&self.commit.expiring, self.seq, writes);
        writes.put(Table::Meta, SEQ, &self.seq.to_be_bytes());
    }

    /// Writes and syncs these rows now, with the counts of these queues.
    pub(super) fn commit_now(&mut self, queues: &[usize], writes: &Writes) -> Result<(), BrokerError> {
        let tables = self.open_tables()?;
        let mut meta = Writes::default();
        self.commit.queues.extend(queues);
        self.stage_meta(&mut meta);
        self.commit.expiring.clear();
        self.commit.chords.clear();
        tables.write(&[writes, &meta]).inspect_err(|error| {
            tables.close();
            self.fail(error.clone());
        })
    }
}

/// Settles one row.
struct RowSettler {
    sender: Sender<Command>,
    shared: Arc<Shared>,
    queue: u16,
    key: ReadyKey,
}

impl Settler for RowSettler {
    fn started(&self, tags: &[u64]) {
        match tags {
            [] => self.shared.claims.write_out(),
            _ => self.shared.claims.start(&[self.key]),
        }
    }

    fn starting(&self, _tag: u64) {
        self.shared.claims.starting(&self.key);
    }

    fn settle(&self, tag: u64, settle: Settle, done: Option<Reply<()>>) {
        let row = match &settle {
            Settle::Ack { result: Some(result), .. } => TaskRow::over(result).ok(),
            _ => None,
        };
        let settlement = Settlement { queue: self.queue, tag, settle, row, done };
        // When the store is closed, `done` is dropped, which says so.
        let _ = self.sender.send(Command::Settle(Box::new(settlement)));
    }
}
