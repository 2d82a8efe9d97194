//! The thread that owns the embedded store.
//!
//! It gathers whatever was asked since the last commit, writes it in one batch with one `fdatasync`, and only then
//! answers, delivers and wakes. Under load the commits grow by themselves; alone, a publish costs one sync. There is
//! no timer but the next ETA, and nothing polls.
//!
//! When the disk refuses a commit (full, or an I/O error), publishes are refused with the reason; settlements are
//! kept and written when the store could be opened again, which is tried with growing pauses.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use super::claims::Claims;
use super::command::{Command, Settlement};
use super::commit::{
    Arrival, Commit, End, Place, Published, Settled, Table, Writes, commit_error, write,
};
use super::tables::{QueueRow, ReadyKey, Tables, TaskRow, encode, ready_key, scheduled_key};
use super::window::{Consuming, Window};
use super::{EmbeddedOptions, crash_reason};
use crate::broker::{BrokerError, DeadLetter, Delivery, Settle, Settler};
use crate::core::Timestamp;
use crate::store::Waiters;
use crate::task::clock::now;
use crate::task::{Message, TaskId, TaskResult};

/// At most so many requests go into one commit.
const BATCH: usize = 4096;
/// The pause before the store is opened again after a failure, and its longest.
const REOPEN_AFTER: Duration = Duration::from_millis(100);
const REOPEN_AT_MOST: Duration = Duration::from_secs(2);

/// What other threads may look at.
pub(super) struct Shared {
    pub(super) tables: RwLock<Option<Tables>>,
    pub(super) claims: Claims,
    pub(super) waiters: Waiters,
}

pub(super) struct Engine {
    pub(super) dir: PathBuf,
    pub(super) options: EmbeddedOptions,
    pub(super) shared: Arc<Shared>,
    pub(super) tables: Option<Tables>,
    pub(super) windows: Vec<Window>,
    pub(super) by_name: HashMap<String, usize>,
    pub(super) seq: u64,
    next_tag: u64,
    pub(super) commit: Commit,
    sender: flume::WeakSender<Command>,
    failure: Option<Failure>,
    /// No scan before this time: the last one failed.
    scan_after: Option<Instant>,
}

/// The store could not be written.
struct Failure {
    error: BrokerError,
    retry_at: Instant,
    pause: Duration,
}

impl Engine {
    pub(super) fn new(
        dir: PathBuf,
        options: EmbeddedOptions,
        shared: Arc<Shared>,
        tables: Tables,
        sender: flume::WeakSender<Command>,
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
            sender,
            failure: None,
            scan_after: None,
        };
        engine.adopt(tables)?;
        Ok(engine)
    }

    /// Takes newly opened tables into use.
    fn adopt(&mut self, tables: Tables) -> Result<(), BrokerError> {
        self.load_meta(&tables)?;
        *self.shared.tables.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(tables.clone());
        self.tables = Some(tables);
        Ok(())
    }

    /// Works until it is closed or nobody can ask any more.
    pub(super) fn run(mut self, requests: &flume::Receiver<Command>) {
        let mut inbox = Vec::with_capacity(BATCH);
        loop {
            let next = match self.wake_at() {
                None => requests.recv().map_err(|_| flume::RecvTimeoutError::Disconnected),
                Some(at) => requests.recv_deadline(at),
            };
            match next {
                Ok(command) => inbox.push(command),
                Err(flume::RecvTimeoutError::Timeout) => {}
                Err(flume::RecvTimeoutError::Disconnected) => return,
            }
            inbox.extend(requests.try_iter().take(BATCH - 1));
            for command in inbox.drain(..) {
                match command {
                    Command::Publish { message, row, unique, reply } => self.publish(message, &row, unique, reply),
                    Command::Settle(settlement) => self.settle(settlement),
                    Command::Close { reply } => {
                        self.flush();
                        let _ = reply.send(self.failure.take().map_or(Ok(()), |f| Err(f.error)));
                        return;
                    }
                    other => {
                        self.flush(); // it sees everything that came before it
                        self.handle(other);
                    }
                }
            }
            self.flush();
            self.try_reopen();
            self.promote_due();
            self.deliver();
        }
    }

    /// When there is something to do without being asked.
    fn wake_at(&self) -> Option<Instant> {
        if let Some(failure) = &self.failure {
            return Some(failure.retry_at);
        }
        let due = self.windows.iter().filter(|w| w.consumer.is_some()).filter_map(|w| w.next_due).min();
        let due = due.map(|due| Instant::now() + due.since(now()).min(Duration::from_secs(3600)));
        match (due, self.scan_after) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    pub(super) fn error(&self) -> BrokerError {
        self.failure.as_ref().map_or(BrokerError::Closed, |f| f.error.clone())
    }

    /// The queue of this name; made when it is new.
    pub(super) fn queue(&mut self, name: &str) -> usize {
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        let index = self.windows.len();
        // Queue numbers are 16 bits; the catalogue has some dozens.
        self.windows.push(Window::new(name.to_owned(), index as u16));
        self.by_name.insert(name.to_owned(), index);
        self.commit.queues.insert(index);
        index
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
        let number = self.windows[queue].number;
        let place = match due.filter(|due| *due > now()) {
            Some(due) => {
                let key = scheduled_key(number, due, seq);
                writes.put(Table::Messages, &key, row);
                writes.put(Table::Tasks, message.id.as_str().as_bytes(), &TaskRow::at(&key));
                self.windows[queue].scheduled += 1;
                Place::Scheduled(due)
            }
            None => {
                let key = ready_key(number, message.priority, seq);
                writes.put(Table::Messages, &key, row);
                writes.put(Table::Tasks, message.id.as_str().as_bytes(), &TaskRow::at(&key));
                self.windows[queue].ready += 1;
                Place::Ready(key)
            }
        };
        self.commit.queues.insert(queue);
        Arrival { queue, place, message }
    }

    fn publish(
        &mut self,
        message: Arc<Message>,
        row: &[u8],
        unique: bool,
        reply: super::command::Reply<()>,
    ) {
        if let Some(refusal) = self.refusal(&message.id, unique) {
            let _ = reply.send(Err(refusal));
            return;
        }
        if unique {
            self.commit.ids.insert(message.id.clone());
        }
        let queue = self.queue(&message.queue);
        let due = message.eta;
        let mut writes = std::mem::take(&mut self.commit.publishes);
        let arrival = self.place(&mut writes, queue, message, row, due);
        self.commit.publishes = writes;
        self.commit.published.push(Published { reply, arrival });
    }

    /// Why a publish cannot be taken, if it cannot.
    fn refusal(&mut self, id: &TaskId, unique: bool) -> Option<BrokerError> {
        let Some(tables) = &self.tables else { return Some(self.error()) };
        if self.commit.published.is_empty() {
            // Once a commit is enough.
            let free = fs4::available_space(&self.dir).unwrap_or(u64::MAX);
            if free < self.options.min_free_space {
                return Some(BrokerError::Full(format!(
                    "{} MiB are free on the disk of {}, and the last {} MiB are kept for tasks that are under way",
                    free >> 20,
                    self.dir.display(),
                    self.options.min_free_space >> 20
                )));
            }
        }
        if !unique {
            return None;
        }
        match tables.tasks.contains_key(id.as_str()) {
            Ok(known) => (known || self.commit.ids.contains(id)).then(|| BrokerError::DuplicateId(id.clone())),
            Err(error) => Some(commit_error(&self.dir, &error)),
        }
    }

    fn settle(&mut self, settlement: Settlement) {
        let Settlement { queue, tag, settle, row, done } = settlement;
        let index = usize::from(queue);
        let Some(held) = self.windows.get_mut(index).and_then(|w| w.release(tag)) else {
            if let Some(done) = done {
                let _ = done.send(Err(BrokerError::Stale));
            }
            return;
        };
        let mut writes = std::mem::take(&mut self.commit.settlements);
        let id = held.message.id.as_str().as_bytes();
        let mut record = None;
        let end = match settle {
            Settle::Ack { result } => {
                self.remove_row(&mut writes, index, &held.key);
                self.leave_record(&mut writes, id, result.as_ref(), row);
                record = result;
                End::Gone
            }
            Settle::Requeue { message, due } => self.replace(&mut writes, index, &held.key, *message, due),
            Settle::Return { crashed: false } => {
                self.shared.claims.take_back(&[held.key]);
                End::Back
            }
            Settle::Return { crashed: true } => {
                let mut message = Message::clone(&held.message);
                message.crashes += 1;
                if message.crashes >= self.options.delivery_limit {
                    self.remove_row(&mut writes, index, &held.key);
                    let result = crash_result(&message);
                    record = self.bury(&mut writes, index, message, crash_reason(self.options.delivery_limit), Some(result));
                    End::Dead
                } else {
                    self.replace(&mut writes, index, &held.key, message, None)
                }
            }
            Settle::DeadLetter { reason, result } => {
                self.remove_row(&mut writes, index, &held.key);
                record = self.bury(&mut writes, index, Message::clone(&held.message), reason, result);
                End::Dead
            }
        };
        self.commit.settlements = writes;
        self.commit.queues.insert(index);
        self.commit.settled.push(Settled { queue: index, held, record, done, end });
    }

    fn remove_row(&mut self, writes: &mut Writes, queue: usize, key: &ReadyKey) {
        writes.delete(Table::Messages, key);
        let window = &mut self.windows[queue];
        window.ready = window.ready.saturating_sub(1);
    }

    pub(super) fn leave_record(&mut self, writes: &mut Writes, id: &[u8], record: Option<&TaskResult>, row: Option<Vec<u8>>) {
        let row = match (row, record) {
            (Some(row), _) => Some(row),
            (None, Some(record)) => TaskRow::over(record).ok(),
            (None, None) => None,
        };
        match (row, record) {
            (Some(row), Some(record)) => {
                writes.put(Table::Tasks, id, &row);
                self.commit.expiring.push((record.expires_at, record.id.clone()));
            }
            _ => writes.delete(Table::Tasks, id),
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
                End::Replaced(self.place(writes, queue, Arc::new(message), &row, due))
            }
            Err(error) => {
                // It was decoded from such a row, so this is a bug of ours; the row stays as it is.
                tracing::error!(id = %message.id, %error, "a message cannot be written back");
                End::Back
            }
        }
    }

    /// A message goes to the dead letters.
    pub(super) fn bury(
        &mut self,
        writes: &mut Writes,
        queue: usize,
        message: Message,
        reason: String,
        result: Option<TaskResult>,
    ) -> Option<TaskResult> {
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
        self.leave_record(writes, id.as_str().as_bytes(), result.as_ref(), None);
        result
    }

    /// Commits what was gathered, then says so.
    pub(super) fn flush(&mut self) {
        if self.commit.is_empty() {
            return;
        }
        let Some(tables) = self.tables.clone() else {
            self.refuse_publishes();
            return;
        };
        let mut extra = Writes::default();
        self.stage_meta(&mut extra);
        let written = write(&tables, &[&self.commit.publishes, &self.commit.settlements, &extra]);
        match written {
            Ok(()) => {
                let commit = std::mem::take(&mut self.commit);
                self.announce(commit);
            }
            Err(error) => {
                drop(tables);
                self.fail(&error);
                self.refuse_publishes();
            }
        }
    }

    fn refuse_publishes(&mut self) {
        let error = self.error();
        self.commit.publishes = Writes::default();
        self.commit.ids.clear();
        for published in self.commit.published.drain(..) {
            let _ = published.reply.send(Err(error.clone()));
        }
    }

    /// The commit is safe: answer, deliver, wake.
    fn announce(&mut self, commit: Commit) {
        let settled_keys = commit.settled.iter().filter(|s| !matches!(s.end, End::Back)).map(|s| s.held.key);
        self.shared.claims.forget(settled_keys);
        let mut out: HashMap<usize, Vec<Delivery>> = HashMap::new();
        for settled in commit.settled {
            if let Some(record) = &settled.record {
                self.shared.waiters.wake(record);
            }
            match settled.end {
                End::Gone | End::Dead => {}
                End::Back => self.windows[settled.queue].rewind(&settled.held.key),
                End::Replaced(arrival) => self.arrived(arrival, &mut out),
            }
            if let Some(done) = settled.done {
                let _ = done.send(Ok(()));
            }
        }
        let mut replies = Vec::with_capacity(commit.published.len());
        for published in commit.published {
            self.arrived(published.arrival, &mut out);
            replies.push(published.reply);
        }
        self.send(out);
        for reply in replies {
            let _ = reply.send(Ok(()));
        }
    }

    /// A row is on disk: out with it if there is room, else a later scan finds it.
    fn arrived(&mut self, arrival: Arrival, out: &mut HashMap<usize, Vec<Delivery>>) {
        let window = &mut self.windows[arrival.queue];
        match arrival.place {
            Place::Scheduled(due) => {
                window.next_due = Some(window.next_due.map_or(due, |d| d.min(due)));
            }
            Place::Ready(key) => {
                if window.arrived(&key) {
                    let delivery = self.hand_out(arrival.queue, key, arrival.message);
                    out.entry(arrival.queue).or_default().extend(delivery);
                }
            }
        }
    }

    /// Makes a delivery of a row.
    pub(super) fn hand_out(&mut self, queue: usize, key: ReadyKey, message: Arc<Message>) -> Option<Delivery> {
        let sender = self.sender.upgrade()?;
        self.next_tag += 1;
        let tag = self.next_tag;
        let window = &mut self.windows[queue];
        window.hold(tag, key, Arc::clone(&message));
        let settler = RowSettler { sender, claims: Arc::clone(&self.shared), queue: window.number, key };
        Some(Delivery::new(tag, message, Arc::new(settler)))
    }

    pub(super) fn send(&self, out: HashMap<usize, Vec<Delivery>>) {
        for (queue, deliveries) in out {
            if let Some(consumer) = &self.windows[queue].consumer {
                (consumer.sink)(deliveries);
            }
        }
    }

    pub(super) fn consume(&mut self, queue: &str, consumer: Consuming) {
        let index = self.queue(queue);
        let window = &mut self.windows[index];
        window.consumer = Some(consumer);
        window.rescan();
        if let Err(error) = self.find_next_due(index) {
            self.scan_failed(&error);
        }
    }

    pub(super) fn fail(&mut self, error: &fjall::Error) {
        let error = commit_error(&self.dir, error);
        tracing::error!(%error, "the store is closed until it can be written again");
        *self.shared.tables.write().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
        self.tables = None;
        self.failure = Some(Failure { error, retry_at: Instant::now() + REOPEN_AFTER, pause: REOPEN_AFTER });
    }

    /// Opens the store again after a failure, when it is time, and writes what was kept.
    fn try_reopen(&mut self) {
        let Some(failure) = &mut self.failure else { return };
        if Instant::now() < failure.retry_at {
            return;
        }
        failure.pause = (failure.pause * 2).min(REOPEN_AT_MOST);
        failure.retry_at = Instant::now() + failure.pause;
        let opened = Tables::open(&self.dir).and_then(|tables| self.adopt(tables));
        if let Err(error) = opened {
            tracing::warn!(%error, "the store cannot be opened yet");
            return;
        }
        // What was read back are the counts of the last good commit: the settlements kept since come on top.
        for settled in &self.commit.settled {
            let window = &mut self.windows[settled.queue];
            match &settled.end {
                End::Gone | End::Replaced(_) => window.ready = window.ready.saturating_sub(1),
                End::Dead => {
                    window.ready = window.ready.saturating_sub(1);
                    window.dead += 1;
                }
                End::Back => {}
            }
            if let End::Replaced(arrival) = &settled.end {
                match arrival.place {
                    Place::Ready(_) => window.ready += 1,
                    Place::Scheduled(_) => window.scheduled += 1,
                }
            }
            self.commit.queues.insert(settled.queue);
        }
        self.failure = None;
        tracing::info!("the store can be written again");
        self.flush();
        for index in 0..self.windows.len() {
            self.windows[index].rescan();
            if let Err(error) = self.find_next_due(index) {
                self.scan_failed(&error);
            }
        }
    }

    pub(super) fn scan_failed(&mut self, error: &BrokerError) {
        tracing::error!(%error, "waiting tasks cannot be read; trying again in a second");
        self.scan_after = Some(Instant::now() + Duration::from_secs(1));
    }

    pub(super) fn may_scan(&mut self) -> bool {
        if self.scan_after.is_some_and(|at| Instant::now() < at) {
            return false;
        }
        self.scan_after = None;
        self.tables.is_some()
    }

    /// The rows that go with every commit: counts, the last sequence, what expires when.
    pub(super) fn stage_meta(&mut self, writes: &mut Writes) {
        for index in self.commit.queues.drain() {
            let window = &self.windows[index];
            let row = QueueRow {
                number: window.number,
                ready: window.ready,
                scheduled: window.scheduled,
                dead: window.dead,
            };
            if let Ok(row) = encode(&row) {
                writes.put(Table::Meta, format!("queue/{}", window.name).as_bytes(), &row);
            }
        }
        if !self.commit.expiring.is_empty() {
            super::expiry::stage(&self.commit.expiring, self.seq, writes);
        }
        writes.put(Table::Meta, b"seq", &self.seq.to_be_bytes());
    }

    fn load_meta(&mut self, tables: &Tables) -> Result<(), BrokerError> {
        let unreadable = |e: fjall::Error| BrokerError::Damaged { path: self.dir.join("db"), error: e.to_string() };
        if let Some(seq) = tables.meta.get("seq").map_err(unreadable)? {
            let seq = <[u8; 8]>::try_from(&*seq).map(u64::from_be_bytes).unwrap_or(0);
            self.seq = self.seq.max(seq);
        }
        let mut rows = Vec::new();
        for row in tables.meta.prefix("queue/") {
            let (key, value) = row.into_inner().map_err(unreadable)?;
            let name = String::from_utf8_lossy(&key[6..]).into_owned();
            rows.push((name, super::tables::decode::<QueueRow>(&value)?));
        }
        for window in &mut self.windows {
            (window.ready, window.scheduled, window.dead) = (0, 0, 0); // written again with the next commit
        }
        rows.sort_by_key(|(_, row)| row.number);
        for (name, row) in rows {
            // A number that was given out but never written stays unused: a queue's number is its index.
            while !self.by_name.contains_key(&name) && self.windows.len() < usize::from(row.number) {
                self.windows.push(Window::new(String::new(), self.windows.len() as u16));
            }
            let index = self.queue(&name);
            let window = &mut self.windows[index];
            (window.ready, window.scheduled, window.dead) = (row.ready, row.scheduled, row.dead);
        }
        self.commit.queues.clear();
        Ok(())
    }
}

/// The record of a task whose runs all ended with their worker.
pub(super) fn crash_result(message: &Message) -> TaskResult {
    TaskResult {
        id: message.id.clone(),
        task: message.task.clone(),
        queue: message.queue.clone(),
        state: crate::task::State::Failure,
        result: None,
        errors: vec![crash_reason(message.crashes)],
        error_type: Some("WorkerLost".to_owned()),
        attempts: message.retries + message.crashes,
        enqueued_at: message.enqueued_at,
        started_at: message.first_started_at,
        finished_at: now(),
        worker: None,
        expires_at: now() + message.result_expires,
    }
}

/// Settles one row.
struct RowSettler {
    sender: flume::Sender<Command>,
    claims: Arc<Shared>,
    queue: u16,
    key: ReadyKey,
}

impl Settler for RowSettler {
    fn started(&self, _tags: &[u64]) {
        self.claims.claims.start(&[self.key]);
    }

    fn settle(&self, tag: u64, settle: Settle, done: Option<super::command::Reply<()>>) {
        let row = match &settle {
            Settle::Ack { result: Some(result) } => TaskRow::over(result).ok(),
            _ => None,
        };
        let settlement = Settlement { queue: self.queue, tag, settle, row, done };
        if let Err(flume::SendError(Command::Settle(settlement))) = self.sender.send(Command::Settle(settlement)) {
            if let Some(done) = settlement.done {
                let _ = done.send(Err(BrokerError::Closed));
            }
        }
    }
}
