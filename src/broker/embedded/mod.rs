//! The durable broker inside the program: it needs no server, has one directory, and belongs to one process.
//!
//! What it promises, and how:
//! - An `Ok` from a publish means that the message is on disk and synced ([`Durability::Disk`]), or that it is in
//!   memory ([`Durability::Memory`], for tasks that ask for it). The receipt says which.
//! - A settlement and the result that goes with it are one commit: no task is done without its record, and no
//!   recorded task runs again.
//! - A start is noted outside of the commits (see `start_log`), so a task that takes the process down is counted.
//!   After [`EmbeddedOptions::delivery_limit`] times it is a dead letter, and it does not take its neighbours
//!   along (see `last_chance`).
//! - Memory holds the delivered messages and the last commits, never the backlog (see `hot_log`).
//!
//! Tasks that wait in memory have a line of their own beside the line on disk. A queue's consumer gets up to its
//! prefetch from each, and each keeps its order.

mod abilities;
mod acknowledged;
mod argument_index;
mod backlog;
mod bulk;
mod chords;
mod command;
mod commit;
mod copy;
mod cursors;
mod deliveries;
mod disk_tables;
mod engine;
mod expiry;
mod failed;
mod failed_tasks;
mod files;
mod follow_ups;
mod groups;
mod hasten;
mod home;
mod hot_log;
mod journal;
mod known_lanes;
mod lanes;
mod last_chance;
mod line_cursor;
mod lock;
mod mend;
mod merged_rows;
mod notes;
mod page_marks;
mod paging;
mod places;
mod queue_cursor;
mod readable;
mod ready_key;
mod reclaim;
mod records;
mod recovery;
mod requests;
mod revisit;
mod rows;
mod salvage;
mod scan;
mod settlement;
mod start_log;
mod states;
mod steps;
mod tables;
mod tenant_lines;
mod undo;
mod unfinished;
mod unique_windows;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;

use async_trait::async_trait;
use parking_lot::RwLock;
use tokio::sync::oneshot;

use super::{
    Backlog, Broker, BrokerError, BrokerFacts, BrokerNotes, BulkChanges, Condition, Consumer, DeadLetter,
    DeadLetterQueue, Events, FailedTasks, Inspect, Lanes, MOST_FAILED, MOST_FAILED_BYTES, MemoryBroker,
    PublishFuture, QueueCounts, Results, Sink, TenantBacklog, UniqueWindows, limits,
};
use crate::core::Timestamp;
use crate::store::chord::LARGEST_CHORD;
use crate::store::{ChordJoin, ChordPart, MemoryStore, Waiters};
use crate::task::clock::now;
use crate::task::{Durability, Message, Receipt, TaskId, TaskResult, TrackedState};
use command::{EngineCommand, Join, ReplySender};
use engine::{Engine, EngineShared};
use lock::DirLock;
use rows::{TaskRow, task_key};
use states::States;
use tables::{TableName, Tables};

pub use salvage::{Salvaged, salvage};
pub use verify::{Verified, verify};

/// The number of runs of one message that may end with their worker or process: RabbitMQ's default for quorum queues.
pub const DEFAULT_DELIVERY_LIMIT: u32 = 20;

/// The options of the embedded store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EmbeddedOptions {
    /// The free space in bytes below which new tasks are refused, so that the tasks under way can still be settled
    /// and the database can tidy up, for which it takes some dozens of MiB. Default 128 MiB.
    pub min_free_space: u64,
    /// The number of runs of one task that may end with their worker or process; at that number the task is a dead
    /// letter. Default 20.
    pub delivery_limit: u32,
    /// The most tasks that a queue keeps of those that have failed for good; the oldest go first. Dead letters do not count.
    /// Default 10,000.
    pub max_failed: u64,
    /// The most bytes that those of a queue take. Default 64 MiB.
    pub max_failed_bytes: u64,
    /// The most that the results of a chord's members may take together, in bytes.
    pub(crate) max_chord_size: usize,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            min_free_space: 128 << 20,
            delivery_limit: DEFAULT_DELIVERY_LIMIT,
            max_failed: MOST_FAILED,
            max_failed_bytes: MOST_FAILED_BYTES,
            max_chord_size: LARGEST_CHORD,
        }
    }
}

/// The embedded store: broker and results in one directory. It is cheap to clone, and all clones are the same
/// store.
#[derive(Clone)]
pub struct EmbeddedBroker {
    inner: Arc<EmbeddedInner>,
}

struct EmbeddedInner {
    dir: PathBuf,
    requests: Sender<EngineCommand>,
    shared: Arc<EngineShared>,
    epochs: AtomicU64,
    volatile: MemoryBroker,
    volatile_results: Arc<MemoryStore>,
    states: States,
    thread: Option<JoinHandle<()>>,
    delivery_limit: u32,
}

impl EmbeddedBroker {
    /// Opens the store in `dir`, and makes it if it is not there. After a crash it recovers by itself, also from a
    /// torn tail of the log. In a directory that is not empty and not a store's it makes, changes and deletes
    /// nothing.
    ///
    /// # Errors
    /// Another process has the store, the directory is somebody else's, a file of the store is damaged or lost,
    /// the log ends before what was acknowledged, or the disk is full or not writable.
    pub fn open(dir: impl AsRef<Path>, options: EmbeddedOptions) -> Result<Self, BrokerError> {
        let dir = dir.as_ref().to_owned();
        // The lock comes before any file is opened: two processes must not recover the same store.
        let lock = DirLock::take(&dir)?;
        let tables = open_tables(&dir)?;
        let (start_log, found) =
            start_log::StartLog::open(&dir).map_err(|e| tables::io_error(&dir.join("claims"), e))?;
        let (states, told) = States::open(&dir).map_err(|e| tables::io_error(&dir.join("states"), e))?;
        let not_yet = RwLock::new(Err(BrokerError::Closed));
        let (waiters, dropped_failed) = (Waiters::default(), AtomicU64::new(0));
        let shared = Arc::new(EngineShared { tables: not_yet, start_log, waiters, dropped_failed });
        let (requests, inbox) = mpsc::channel();
        let delivery_limit = options.delivery_limit;
        let mut engine =
            Engine::new(dir.clone(), lock, options, Arc::clone(&shared), tables, requests.clone())?;
        // Crashes are counted before the first delivery, so that no task runs once more than it may.
        engine.recover_crashed(&found)?;
        let thread = std::thread::Builder::new()
            .name("celeriac-store".to_owned())
            .spawn(move || {
                let closed = engine.run(&inbox);
                drop(engine); // closes the files and releases the lock
                drop(inbox); // tells everybody who still waits for an answer that the broker is closed
                if let Some((reply, verdict)) = closed {
                    let _ = reply.send(verdict);
                }
            })
            .map_err(|e| BrokerError::io_because(format!("no thread for the store: {e}"), e))?;
        let volatile_results = Arc::new(MemoryStore::default());
        let inner = EmbeddedInner {
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
        // The states of tasks that still wait are shown again; those of all others go.
        broker.recall(told)?;
        Ok(broker)
    }

    /// Opens a store as [`open`](Self::open) does, and demands that it is there already.
    ///
    /// # Errors
    /// There is no store, in which case nothing is made, or `open` fails.
    pub fn open_existing(dir: impl AsRef<Path>, options: EmbeddedOptions) -> Result<Self, BrokerError> {
        require_store(dir.as_ref())?;
        Self::open(dir, options)
    }

    /// Shows the states of those tasks that are not over, as they were told before the restart.
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

    /// Keeps the state that a task that is not over tells of itself.
    pub(crate) fn keep_state(&self, state: TrackedState) {
        // The state is shown only after it was written: what a user has seen must still be there after a restart.
        self.inner.states.write(&state, || self.inner.volatile_results.shown());
        self.inner.volatile_results.show(state);
    }

    /// The directory of the store.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    async fn ask<T>(&self, command: impl FnOnce(ReplySender<T>) -> EngineCommand) -> Result<T, BrokerError> {
        let (reply, answer) = oneshot::channel();
        self.inner.requests.send(command(reply)).map_err(|_| BrokerError::Closed)?;
        answer.await.unwrap_or(Err(BrokerError::Closed))
    }

    /// Encodes a message and hands it over to the store's thread, which answers when the message is on disk. What waits in
    /// memory is taken at once.
    ///
    /// # Errors
    /// The message was not handed over.
    fn hand_over(&self, message: Arc<Message>, unique: bool) -> Result<PublishFuture<'static>, BrokerError> {
        limits::check(&message)?;
        if is_volatile(&message) {
            if unique && self.is_on_disk(&message.id)? {
                return Err(BrokerError::DuplicateId(message.id.clone()));
            }
            return Ok(PublishFuture::answered(self.inner.volatile.publish_now(message, unique)));
        }
        if unique && self.inner.volatile.knows(&message.id)? {
            return Err(BrokerError::DuplicateId(message.id.clone()));
        }
        let row = rows::encode_message(&message)?;
        let receipt = Receipt::new(message.id.clone(), message.queue.clone(), Durability::Disk);
        let (reply, answer) = oneshot::channel();
        let publish = EngineCommand::Publish { message, row, unique, reply };
        self.inner.requests.send(publish).map_err(|_| BrokerError::Closed)?;
        Ok(PublishFuture::asked(receipt, answer))
    }

    /// Takes all of these messages in one commit, or none. `extended_chord`: the group of a chord that gets one more
    /// member.
    async fn publish_together(
        &self,
        messages: Vec<Message>,
        sizes: Vec<(String, u64)>,
        extended_chord: Option<String>,
        unique: bool,
    ) -> Result<(), BrokerError> {
        let mut rows = Vec::with_capacity(messages.len());
        for message in messages {
            limits::check(&message)?;
            if unique && self.inner.volatile.knows(&message.id)? {
                return Err(BrokerError::DuplicateId(message.id));
            }
            let row = rows::encode_message(&message)?;
            rows.push((Arc::new(message), row));
        }
        self.ask(|reply| EngineCommand::PublishAll { messages: rows, sizes, extended_chord, unique, reply })
            .await
            .map(drop)
    }

    pub(crate) async fn put_result(&self, result: TaskResult) -> Result<bool, BrokerError> {
        self.ask(|reply| EngineCommand::Put { result: Box::new(result), reply }).await
    }

    pub(crate) async fn forget_result(&self, id: TaskId) -> Result<bool, BrokerError> {
        self.ask(|reply| EngineCommand::Forget { id, reply }).await
    }

    pub(crate) async fn sweep_results(&self, now: Timestamp) -> Result<usize, BrokerError> {
        self.ask(|reply| EngineCommand::Sweep { now, reply }).await
    }

    pub(crate) async fn open_chord(&self, group: String, size: u64) -> Result<(), BrokerError> {
        self.ask(|reply| EngineCommand::Chord(Join::Open { group, size, reply })).await
    }

    pub(crate) async fn join_chord(&self, part: ChordPart) -> Result<ChordJoin, BrokerError> {
        self.ask(|reply| EngineCommand::Chord(Join::Part { part, reply })).await
    }

    pub(crate) async fn close_chord(&self, group: String) -> Result<(), BrokerError> {
        self.ask(|reply| EngineCommand::Chord(Join::Close { group, reply })).await
    }

    /// Reads the record of a task that is over, straight from the tables.
    pub(crate) fn read_result(&self, id: &TaskId) -> Result<Option<TaskResult>, BrokerError> {
        let tables = self.inner.shared.tables.read();
        let row = tables.as_ref().map_err(Clone::clone)?.get(TableName::Tasks, &task_key(id))?;
        Ok(match row.as_deref().map(TaskRow::decode).transpose()? {
            Some(TaskRow::Over(result)) => Some(*result),
            _ => None,
        })
    }

    /// Whether the tables have a message of this id.
    fn waits_on_disk(&self, id: &TaskId) -> Result<bool, BrokerError> {
        let tables = self.inner.shared.tables.read();
        let row = tables.as_ref().map_err(Clone::clone)?.get(TableName::Tasks, &task_key(id))?;
        let row = row.as_deref().map(TaskRow::decode).transpose()?;
        Ok(matches!(row, Some(TaskRow::At(_) | TaskRow::InLine(_))))
    }

    /// Whether the tables know this id: its task waits, runs or has its result kept.
    fn is_on_disk(&self, id: &TaskId) -> Result<bool, BrokerError> {
        let tables = self.inner.shared.tables.read();
        let row = tables.as_ref().map_err(Clone::clone)?.get(TableName::Tasks, &task_key(id))?;
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

impl Drop for EmbeddedInner {
    fn drop(&mut self) {
        let (reply, _) = oneshot::channel();
        let _ = self.requests.send(EngineCommand::Close { reply });
        // A consumer's sink may own the last handle and drop it on the store's own thread, which cannot join
        // itself.
        let thread = self.thread.take().filter(|t| t.thread().id() != std::thread::current().id());
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

/// Whether a message waits in memory. The messages of a canvas are on disk, so that all of them lie in one place:
/// the end of one task and what follows from it are one commit. Serial messages and those with a unique window are
/// on disk as well, because a lane and a window have one place.
fn is_volatile(message: &Message) -> bool {
    let is_apart = !message.is_in_canvas() && message.serial.is_none() && message.unique.is_none();
    message.durability == Durability::Memory && is_apart
}

struct EmbeddedConsumer {
    requests: Sender<EngineCommand>,
    queue: String,
    epoch: u64,
    volatile: Box<dyn Consumer>,
}

impl Consumer for EmbeddedConsumer {
    fn set_prefetch(&self, prefetch: usize) {
        self.volatile.set_prefetch(prefetch);
        let queue = self.queue.clone();
        let _ = self.requests.send(EngineCommand::SetPrefetch { queue, epoch: self.epoch, prefetch });
    }
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        let queue = std::mem::take(&mut self.queue);
        let _ = self.requests.send(EngineCommand::Cancel { queue, epoch: self.epoch });
    }
}

#[async_trait]
impl Broker for EmbeddedBroker {
    fn name(&self) -> &'static str {
        "embedded"
    }

    fn facts(&self) -> BrokerFacts {
        let delivery_limit = Some(self.inner.delivery_limit);
        BrokerFacts { is_shared: false, knows_all: true, delivery_limit }
    }

    fn condition(&self) -> Condition {
        Condition::default()
    }

    async fn declare(&self, queue: &str) -> Result<(), BrokerError> {
        let queue = queue.to_owned();
        self.ask(|reply| EngineCommand::Declare { queue, reply }).await
    }

    async fn queues(&self) -> Result<Vec<String>, BrokerError> {
        let mut names = self.ask(|reply| EngineCommand::Queues { reply }).await?;
        names.extend(self.inner.volatile.queues().await?);
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    async fn publish(&self, message: Message, unique: bool) -> Result<Receipt, BrokerError> {
        self.begin_publish(Arc::new(message), unique).await
    }

    fn begin_publish(&self, message: Arc<Message>, unique: bool) -> PublishFuture<'_> {
        self.hand_over(message, unique).unwrap_or_else(|error| PublishFuture::answered(Err(error)))
    }

    async fn publish_all(&self, messages: Vec<Message>, unique: bool) -> Result<(), BrokerError> {
        self.publish_together(messages, Vec::new(), None, unique).await
    }

    fn consume(&self, queue: &str, prefetch: usize, sink: Sink) -> Result<Box<dyn Consumer>, BrokerError> {
        let epoch = self.inner.epochs.fetch_add(1, Ordering::Relaxed) + 1;
        let volatile = self.inner.volatile.consume(queue, prefetch, Arc::clone(&sink))?;
        let name = queue.to_owned();
        self.inner
            .requests
            .send(EngineCommand::Consume { queue: name.clone(), epoch, prefetch, sink })
            .map_err(|_| BrokerError::Closed)?;
        Ok(Box::new(EmbeddedConsumer { requests: self.inner.requests.clone(), queue: name, epoch, volatile }))
    }

    async fn counts(&self, queue: &str) -> Result<QueueCounts, BrokerError> {
        let name = queue.to_owned();
        let disk = self.ask(|reply| EngineCommand::Counts { queue: name, reply }).await?;
        let memory = self.inner.volatile.counts(queue).await?;
        Ok(QueueCounts {
            ready: disk.ready + memory.ready,
            scheduled: disk.scheduled + memory.scheduled,
            unsettled: disk.unsettled + memory.unsettled,
            dead: disk.dead + memory.dead,
            in_line: disk.in_line + memory.in_line,
        })
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        let mut letters = self.inner.volatile.dead_letters(limit).await?;
        letters.extend(self.ask(|reply| EngineCommand::DeadLetters { limit, reply }).await?);
        letters.sort_by_key(|letter| letter.died_at);
        letters.truncate(limit);
        Ok(letters)
    }

    async fn requeue_dead_letters(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
        let mut requeued = self.inner.volatile.requeue_dead_letters(ids).await?;
        let ids = ids.iter().filter(|id| !requeued.contains(id)).cloned().collect();
        requeued.extend(self.ask(|reply| EngineCommand::RequeueDeadLetters { ids, reply }).await?);
        Ok(requeued)
    }

    async fn close(&self) -> Result<(), BrokerError> {
        self.inner.volatile.close().await?;
        self.ask(|reply| EngineCommand::Close { reply }).await
    }

    fn results(&self) -> Option<&dyn Results> {
        Some(self)
    }

    fn lanes(&self) -> Option<&dyn Lanes> {
        Some(self)
    }

    fn unique_windows(&self) -> Option<&dyn UniqueWindows> {
        Some(self)
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        Some(self)
    }

    fn notes(&self) -> Option<&dyn BrokerNotes> {
        Some(self)
    }

    fn backlog(&self) -> Option<&dyn Backlog> {
        Some(self)
    }

    fn events(&self) -> Option<&dyn Events> {
        None // no other program uses this broker, and it refuses nothing for good
    }

    fn dead_letter_queue(&self) -> Option<&dyn DeadLetterQueue> {
        None
    }

    fn failed_tasks(&self) -> Option<&dyn FailedTasks> {
        Some(self)
    }

    fn tenant_backlog(&self) -> Option<&dyn TenantBacklog> {
        Some(self)
    }

    fn bulk_changes(&self) -> Option<&dyn BulkChanges> {
        Some(self)
    }
}

/// Opens the tables of a directory whose lock is held.
fn open_tables(dir: &Path) -> Result<Tables, BrokerError> {
    mend::finish(dir)?;
    let mark = acknowledged::read(dir).map_err(|e| tables::io_error(dir, e))?;
    Tables::open(dir, mark)
}

/// Writes all that is only in the log of the store in `dir` to the database's table files. The store's program must not be
/// running. A store does so by itself, a part at a time; tests that damage table files want all of it there.
///
/// # Errors
/// There is no store, another process has it, or it cannot be opened or written.
#[doc(hidden)]
pub fn flush_log(dir: impl AsRef<Path>) -> Result<(), BrokerError> {
    let dir = dir.as_ref();
    require_store(dir)?;
    let _lock = DirLock::take(dir)?;
    let tables = open_tables(dir)?;
    let flushed = tables.flush();
    tables.close();
    flushed
}

/// Says what to do if there is no store in a directory, without changing anything.
pub(crate) fn require_store(dir: &Path) -> Result<(), BrokerError> {
    let is_store = |dir: &Path| home::examine(dir).is_ok_and(home::DirectoryContents::is_made);
    if dir.is_dir() && home::examine(dir)?.is_made() {
        return Ok(());
    }
    let what = if dir.is_dir() { "no store of Celeriac's in" } else { "no directory" };
    let mut text = format!("there is {what} `{}`", dir.display());
    let below = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    match below.filter(|path| path.is_dir()).find(|path| is_store(path)) {
        Some(store) => text.push_str(&format!("; did you mean `{}`?", store.display())),
        None => text.push_str(
            "; name the one that the program was given with `Builder::directory`, which is `celeriac-data` in its working directory unless stated",
        ),
    }
    Err(BrokerError::NoStore(text))
}
