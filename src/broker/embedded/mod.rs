//! The durable broker inside the program: no server, one directory, one process.
//!
//! What it promises, and how:
//! - An `Ok` from a publish means that the message is on disk and synced ([`Durability::Disk`]), or that it is in
//!   memory ([`Durability::Memory`], for tasks that ask for it). The receipt says which.
//! - A settlement and the result that goes with it are one commit: a task is never done without its record, nor
//!   recorded and run again.
//! - A start is noted outside of the commits (see `claims`), so a task that takes the process down is counted and
//!   ends in the dead letters after [`EmbeddedOptions::delivery_limit`] times, and does not take its neighbours along
//!   (see `last_chance`).
//! - Memory holds what is delivered, never the backlog.
//!
//! Tasks that wait in memory have a line of their own beside the one on disk: a queue's consumer gets up to its
//! prefetch from each, and the order is kept within each.

mod ahead;
mod chords;
mod claims;
mod command;
mod commit;
mod dedupe;
mod engine;
mod expiry;
mod files;
mod handle;
mod journal;
mod known_lanes;
mod lanes;
mod last_chance;
mod lock;
mod notes;
mod reclaim;
mod recovery;
mod rows;
mod scan;
mod sequel;
mod settlement;
mod states;
mod tables;
mod window;

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::{
    Broker, BrokerError, Consumer, Counts, DeadLetter, LaneFacts, LaneLever, MemoryBroker, Noted, Place,
    RecordFn, Removal, Sink,
};
use crate::core::Timestamp;
use crate::store::{ChordJoin, ChordPart, MemoryStore, NoteChange, Notes, Waiters};
use crate::task::clock::now;
use crate::task::{Durability, LaneName, Message, Receipt, TaskId, TaskResult, TrackedState, UniqueKey};
use command::{Command, Join, Reply};
use engine::{Engine, Shared};
use lock::DirLock;
use rows::{TaskRow, task_key};
use states::States;
use tables::{Table, Tables};

/// Runs of one message that may end with their worker or process; RabbitMQ's default for quorum queues.
pub const DEFAULT_DELIVERY_LIMIT: u32 = 20;

/// How the embedded store behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EmbeddedOptions {
    /// New tasks are refused when less than this is free on the disk, in bytes, so that those under way can still
    /// be settled and the database can tidy up, for which it takes some dozens of MiB. Default 128 MiB.
    pub min_free_space: u64,
    /// After so many runs that ended with their worker or process, a task is a dead letter. Default 20.
    pub delivery_limit: u32,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self { min_free_space: 128 << 20, delivery_limit: DEFAULT_DELIVERY_LIMIT }
    }
}

/// The embedded store: broker and results in one directory. Cheap to clone; all clones are the same store.
#[derive(Clone)]
pub struct EmbeddedBroker {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    requests: Sender<Command>,
    shared: Arc<Shared>,
    epochs: AtomicU64,
    volatile: MemoryBroker,
    volatile_results: Arc<MemoryStore>,
    states: States,
    thread: Option<JoinHandle<()>>,
    delivery_limit: u32,
}

impl EmbeddedBroker {
    /// Opens the store in `dir`, which is made if it is not there. Recovers by itself from a crash, torn tail
    /// included.
    ///
    /// # Errors
    /// Another process has it, a file of it is damaged, the disk is full or not writable.
    pub fn open(dir: impl AsRef<Path>, options: EmbeddedOptions) -> Result<Self, BrokerError> {
        let dir = dir.as_ref().to_owned();
        let lock = DirLock::take(&dir)?;
        let (claims, found) =
            claims::Claims::open(&dir).map_err(|e| tables::io_error(&dir.join("claims"), &e))?;
        let tables = Tables::open(&dir)?;
        let (states, told) = States::open(&dir).map_err(|e| tables::io_error(&dir.join("states"), &e))?;
        let not_yet = RwLock::new(Err(BrokerError::Closed));
        let shared = Arc::new(Shared { tables: not_yet, claims, waiters: Waiters::default() });
        let (requests, inbox) = mpsc::channel();
        let delivery_limit = options.delivery_limit;
        let mut engine =
            Engine::new(dir.clone(), lock, options, Arc::clone(&shared), tables, requests.clone())?;
        engine.recover_crashed(&found)?;
        let thread = std::thread::Builder::new()
            .name("celeriac-store".to_owned())
            .spawn(move || {
                let closed = engine.run(&inbox);
                drop(engine); // closes the files and lets go of the lock
                drop(inbox); // whoever still waits for an answer hears that it is closed
                if let Some((reply, verdict)) = closed {
                    let _ = reply.send(verdict);
                }
            })
            .map_err(|e| BrokerError::Io(format!("no thread for the store: {e}")))?;
        let volatile_results = Arc::new(MemoryStore::default());
        let inner = Inner {
            dir,
            requests,
            shared,
            epochs: AtomicU64::new(0),
            volatile: MemoryBroker::new(Arc::clone(&volatile_results)),
            volatile_results,
            states,
            thread: Some(thread),
            delivery_limit,
        };
        let broker = Self { inner: Arc::new(inner) };
        broker.recall(told)?;
        Ok(broker)
    }

    /// Takes up what was told of tasks that are not over.
    fn recall(&self, mut told: Vec<TrackedState>) -> Result<(), BrokerError> {
        let mut alive = Vec::new();
        for state in told.drain(..) {
            if self.waits_on_disk(&state.id)? {
                self.inner.volatile_results.show(state.clone());
                alive.push(state);
            }
        }
        self.inner.states.start_over(&alive);
        Ok(())
    }

    /// Keeps what a task that is not over tells of itself.
    pub(crate) fn keep_state(&self, state: TrackedState) {
        // Not shown before it is written: what was seen is to be seen after a restart.
        self.inner.states.write(&state, || self.inner.volatile_results.shown());
        self.inner.volatile_results.show(state);
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, BrokerError> {
        let (reply, answer) = oneshot::channel();
        self.inner.requests.send(command(reply)).map_err(|_| BrokerError::Closed)?;
        answer.await.unwrap_or(Err(BrokerError::Closed))
    }

    pub(crate) async fn put_result(&self, result: TaskResult) -> Result<bool, BrokerError> {
        self.ask(|reply| Command::Put { result: Box::new(result), reply }).await
    }

    pub(crate) async fn forget_result(&self, id: TaskId) -> Result<bool, BrokerError> {
        self.ask(|reply| Command::Forget { id, reply }).await
    }

    pub(crate) async fn sweep_results(&self, now: Timestamp) -> Result<usize, BrokerError> {
        self.ask(|reply| Command::Sweep { now, reply }).await
    }

    pub(crate) async fn open_chord(&self, group: String, size: u64) -> Result<(), BrokerError> {
        self.ask(|reply| Command::Chord(Join::Open { group, size, reply })).await
    }

    pub(crate) async fn join_chord(&self, part: ChordPart) -> Result<ChordJoin, BrokerError> {
        self.ask(|reply| Command::Chord(Join::Part { part, reply })).await
    }

    pub(crate) async fn close_chord(&self, group: String) -> Result<(), BrokerError> {
        self.ask(|reply| Command::Chord(Join::Close { group, reply })).await
    }

    /// The record of a task that is over, straight from the tables.
    pub(crate) fn read_result(&self, id: &TaskId) -> Result<Option<TaskResult>, BrokerError> {
        let tables = self.inner.shared.tables.read().unwrap_or_else(PoisonError::into_inner);
        let row = tables.as_ref().map_err(Clone::clone)?.get(Table::Tasks, &task_key(id))?;
        Ok(match row.as_deref().map(TaskRow::decode).transpose()? {
            Some(TaskRow::Over(result)) => Some(*result),
            _ => None,
        })
    }

    /// Whether the tables have a message of this id.
    fn waits_on_disk(&self, id: &TaskId) -> Result<bool, BrokerError> {
        let tables = self.inner.shared.tables.read().unwrap_or_else(PoisonError::into_inner);
        let row = tables.as_ref().map_err(Clone::clone)?.get(Table::Tasks, &task_key(id))?;
        let row = row.as_deref().map(TaskRow::decode).transpose()?;
        Ok(matches!(row, Some(TaskRow::At(_) | TaskRow::InLine(_))))
    }

    /// How many rows of its queue start before that of this task, up to `limit`.
    fn rows_before(&self, id: &TaskId, limit: usize) -> Result<Option<usize>, BrokerError> {
        let tables = self.inner.shared.tables.read().unwrap_or_else(PoisonError::into_inner);
        let tables = tables.as_ref().map_err(Clone::clone)?;
        let row = tables.get(Table::Tasks, &task_key(id))?;
        let Some(TaskRow::At(key)) = row.as_deref().map(TaskRow::decode).transpose()? else {
            return Ok(None);
        };
        let Some(queue) = rows::queue_of(&key).filter(|_| rows::is_ready(&key)) else { return Ok(None) };
        let (first, _) = rows::ready_bounds(queue);
        let before = tables.range(Table::Messages, &first, Bound::Excluded(&key))?;
        let mut count = 0;
        for row in before.take(limit) {
            row?;
            count += 1;
        }
        Ok(Some(count))
    }

    /// Whether the tables know this id: it waits, runs or has its result kept.
    fn is_on_disk(&self, id: &TaskId) -> Result<bool, BrokerError> {
        let tables = self.inner.shared.tables.read().unwrap_or_else(PoisonError::into_inner);
        let row = tables.as_ref().map_err(Clone::clone)?.get(Table::Tasks, &task_key(id))?;
        Ok(match row.as_deref().map(TaskRow::decode).transpose()? {
            Some(TaskRow::Over(result)) => result.expires_at > now(),
            Some(TaskRow::At(_) | TaskRow::InLine(_)) => true,
            None => false,
        })
    }

    pub(crate) fn waiters(&self) -> &Waiters {
        &self.inner.shared.waiters
    }

    pub(crate) fn volatile_results(&self) -> &MemoryStore {
        &self.inner.volatile_results
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let (reply, _) = oneshot::channel();
        let _ = self.requests.send(Command::Close { reply });
        // The last handle may have been owned by a consumer's sink, and so go on the store's own thread.
        let thread = self.thread.take().filter(|t| t.thread().id() != std::thread::current().id());
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

/// Whether a message waits in memory. What is part of a workflow is on disk, so that all of it lies in one place: the end of
/// one task and what follows from it are one commit. The same goes for a serial one, and for one with a dedupe window: a lane
/// has one place.
fn is_volatile(message: &Message) -> bool {
    let is_apart = !message.is_in_canvas() && message.serial.is_none() && message.unique.is_none();
    message.durability == Durability::Memory && is_apart
}

struct EmbeddedConsumer {
    requests: Sender<Command>,
    queue: String,
    epoch: u64,
    volatile: Box<dyn Consumer>,
}

impl Consumer for EmbeddedConsumer {
    fn set_prefetch(&self, prefetch: usize) {
        self.volatile.set_prefetch(prefetch);
        let queue = self.queue.clone();
        let _ = self.requests.send(Command::SetPrefetch { queue, epoch: self.epoch, prefetch });
    }
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        let queue = std::mem::take(&mut self.queue);
        let _ = self.requests.send(Command::Cancel { queue, epoch: self.epoch });
    }
}

#[async_trait]
impl Broker for EmbeddedBroker {
    fn name(&self) -> &'static str {
        "embedded"
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn settles_results(&self) -> bool {
        true
    }

    fn keeps_lanes(&self) -> bool {
        true
    }

    async fn lane(&self, lane: &LaneName) -> Result<Option<LaneFacts>, BrokerError> {
        let lane = lane.clone();
        self.ask(|reply| Command::Lane { lane, reply }).await
    }

    async fn lanes(&self, limit: usize) -> Result<Vec<LaneFacts>, BrokerError> {
        self.ask(|reply| Command::Lanes { limit, reply }).await
    }

    async fn steer_lane(&self, lane: &LaneName, lever: LaneLever) -> Result<bool, BrokerError> {
        let lane = lane.clone();
        self.ask(|reply| Command::SteerLane { lane, lever, reply }).await
    }

    fn keeps_windows(&self) -> bool {
        true
    }

    async fn holder(&self, key: &UniqueKey) -> Result<Option<TaskId>, BrokerError> {
        let key = key.clone();
        self.ask(|reply| Command::Holder { key, reply }).await
    }

    fn let_go(&self, message: &Message) {
        if let Some(unique) = &message.unique {
            let command = Command::LetGo { key: unique.key.clone(), id: message.id.clone() };
            // What is asked from now on stands behind it. A broker that is closed takes nothing anyway.
            let _ = self.inner.requests.send(command);
        }
    }

    fn delivery_limit(&self) -> Option<u32> {
        Some(self.inner.delivery_limit)
    }

    async fn declare(&self, queue: &str) -> Result<(), BrokerError> {
        let queue = queue.to_owned();
        self.ask(|reply| Command::Declare { queue, reply }).await
    }

    async fn queues(&self) -> Result<Vec<String>, BrokerError> {
        let mut names = self.ask(|reply| Command::Queues { reply }).await?;
        names.extend(self.inner.volatile.queues().await?);
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    async fn publish(&self, message: Message, unique: bool) -> Result<Receipt, BrokerError> {
        check(&message)?;
        if is_volatile(&message) {
            if unique && self.is_on_disk(&message.id)? {
                return Err(BrokerError::DuplicateId(message.id));
            }
            return self.inner.volatile.publish_now(message, unique);
        }
        if unique && self.inner.volatile.knows(&message.id)? {
            return Err(BrokerError::DuplicateId(message.id));
        }
        let row = rows::encode(&message)?;
        let receipt = Receipt::new(message.id.clone(), message.queue.clone(), Durability::Disk);
        let message = Arc::new(message);
        let joined = self.ask(|reply| Command::Publish { message, row, unique, reply }).await?;
        Ok(match joined {
            Some(id) => receipt.joining(id),
            None => receipt,
        })
    }

    fn notes(&self) -> Option<&dyn Notes> {
        Some(self)
    }

    async fn ahead(&self, id: &TaskId, limit: usize) -> Result<Option<usize>, BrokerError> {
        match self.inner.volatile.ahead(id, limit).await? {
            Some(ahead) => Ok(Some(ahead)),
            None => self.rows_before(id, limit),
        }
    }

    async fn publish_noted(&self, message: Message, change: NoteChange) -> Result<Noted, BrokerError> {
        check(&message)?;
        self.publish_with_note(message, change).await
    }

    async fn publish_all(
        &self,
        messages: Vec<Message>,
        sizes: Vec<(String, u64)>,
        unique: bool,
    ) -> Result<(), BrokerError> {
        let mut rows = Vec::with_capacity(messages.len());
        for message in messages {
            check(&message)?;
            if unique && self.inner.volatile.knows(&message.id)? {
                return Err(BrokerError::DuplicateId(message.id));
            }
            let row = rows::encode(&message)?;
            rows.push((Arc::new(message), row));
        }
        self.ask(|reply| Command::PublishAll { messages: rows, sizes, unique, reply }).await.map(drop)
    }

    fn consume(&self, queue: &str, prefetch: usize, sink: Sink) -> Result<Box<dyn Consumer>, BrokerError> {
        let epoch = self.inner.epochs.fetch_add(1, Ordering::Relaxed) + 1;
        let volatile = self.inner.volatile.consume(queue, prefetch, Arc::clone(&sink))?;
        let name = queue.to_owned();
        self.inner
            .requests
            .send(Command::Consume { queue: name.clone(), epoch, prefetch, sink })
            .map_err(|_| BrokerError::Closed)?;
        Ok(Box::new(EmbeddedConsumer { requests: self.inner.requests.clone(), queue: name, epoch, volatile }))
    }

    async fn counts(&self, queue: &str) -> Result<Counts, BrokerError> {
        let name = queue.to_owned();
        let disk = self.ask(|reply| Command::Counts { queue: name, reply }).await?;
        let memory = self.inner.volatile.counts(queue).await?;
        Ok(Counts {
            ready: disk.ready + memory.ready,
            scheduled: disk.scheduled + memory.scheduled,
            unsettled: disk.unsettled + memory.unsettled,
            dead: disk.dead + memory.dead,
            in_line: disk.in_line + memory.in_line,
        })
    }

    async fn find(&self, id: &TaskId) -> Result<Option<Place>, BrokerError> {
        if let Some(place) = self.inner.volatile.find(id).await? {
            return Ok(Some(place));
        }
        let id = id.clone();
        self.ask(|reply| Command::Find { id, reply }).await
    }

    async fn remove(&self, id: &TaskId, record: RecordFn) -> Result<Removal, BrokerError> {
        if self.inner.volatile.find(id).await?.is_some() {
            return self.inner.volatile.remove(id, record).await;
        }
        let id = id.clone();
        self.ask(|reply| Command::Remove { id, record, reply }).await
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        let mut letters = self.inner.volatile.dead_letters(limit).await?;
        letters.extend(self.ask(|reply| Command::DeadLetters { limit, reply }).await?);
        letters.sort_by_key(|letter| letter.died_at);
        letters.truncate(limit);
        Ok(letters)
    }

    async fn revive(&self, id: &TaskId) -> Result<bool, BrokerError> {
        Ok(!self.revive_all(std::slice::from_ref(id)).await?.is_empty())
    }

    async fn revive_all(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
        let mut revived = self.inner.volatile.revive_all(ids).await?;
        let ids = ids.iter().filter(|id| !revived.contains(id)).cloned().collect();
        revived.extend(self.ask(|reply| Command::Revive { ids, reply }).await?);
        Ok(revived)
    }

    async fn close(&self) -> Result<(), BrokerError> {
        self.inner.volatile.close().await?;
        self.ask(|reply| Command::Close { reply }).await
    }
}

/// What the tables' keys can hold.
fn check(message: &Message) -> Result<(), BrokerError> {
    for (what, text) in [("id", message.id.as_str()), ("queue", message.queue.as_str())] {
        if text.is_empty() || text.len() > 255 {
            return Err(BrokerError::Io(format!(
                "the {what} of task `{}` has {} bytes; give it 1 to 255",
                message.task,
                text.len()
            )));
        }
    }
    Ok(())
}
