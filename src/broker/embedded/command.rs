//! The requests to the engine's thread.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::failed::FailedPick;
use super::groups::GroupStep;
use super::notes::Noting;
use super::ready_key::ReadyKey;
use crate::broker::{
    AgendaPlace, BrokerError, BulkChange, BulkOutcome, BulkPick, DeadLetter, FailedTask, Hastened, KeptTask,
    LaneFacts, LaneLever, MessageLocation, QueueCounts, QueueTenants, RecordFn, Removal, Settle, Sink,
    UndoOutcome,
};
use crate::core::Timestamp;
use crate::store::{ChordJoin, ChordPart};
use crate::task::{LaneName, Message, TaskId, TaskResult, UniqueKey};

/// The sender through which the engine answers a request.
pub(super) type ReplySender<T> = oneshot::Sender<Result<T, BrokerError>>;

/// One request. The engine gathers publishes and settlements into one commit; every other request sees all
/// requests that came before it.
pub(super) enum EngineCommand {
    Publish {
        message: Arc<Message>,
        row: Vec<u8>,
        unique: bool,
        reply: ReplySender<Option<TaskId>>,
    },
    PublishAll {
        messages: Vec<(Arc<Message>, Vec<u8>)>,
        sizes: Vec<(String, u64)>,
        /// The group of a chord that gets one more member by these messages.
        extended_chord: Option<String>,
        unique: bool,
        reply: ReplySender<Option<TaskId>>,
    },
    /// Ends a delivery.
    Settle {
        queue: u16,
        tag: u64,
        settle: Box<Settle>,
        /// The row of the task's record, encoded by the thread that settles.
        row: Option<Vec<u8>>,
        done: Option<ReplySender<()>>,
    },
    Consume {
        queue: String,
        epoch: u64,
        prefetch: usize,
        sink: Sink,
    },
    SetPrefetch {
        queue: String,
        epoch: u64,
        prefetch: usize,
    },
    Cancel {
        queue: String,
        epoch: u64,
    },
    Lane {
        lane: LaneName,
        reply: ReplySender<Option<LaneFacts>>,
    },
    Lanes {
        limit: usize,
        reply: ReplySender<Vec<LaneFacts>>,
    },
    SteerLane {
        lane: LaneName,
        lever: LaneLever,
        reply: ReplySender<bool>,
    },
    /// Asks which task holds a unique window.
    Holder {
        key: UniqueKey,
        reply: ReplySender<Option<TaskId>>,
    },
    /// Ends the unique window of a message before its task is over.
    ReleaseWindow {
        key: UniqueKey,
        id: TaskId,
    },
    Declare {
        queue: String,
        reply: ReplySender<()>,
    },
    Queues {
        reply: ReplySender<Vec<String>>,
    },
    Counts {
        queue: String,
        reply: ReplySender<QueueCounts>,
    },
    OldestReady {
        queue: String,
        reply: ReplySender<Option<Timestamp>>,
    },
    /// Makes rows due before their time that were put back.
    Hasten {
        queue: String,
        from: AgendaPlace,
        limit: usize,
        reply: ReplySender<Hastened>,
    },
    /// Asks for the tenants of a queue that have ready rows.
    Tenants {
        queue: String,
        limit: usize,
        reply: ReplySender<QueueTenants>,
    },
    Find {
        id: TaskId,
        reply: ReplySender<Option<MessageLocation>>,
    },
    Remove {
        id: TaskId,
        record: RecordFn,
        reply: ReplySender<Removal>,
    },
    /// Deletes these tasks without a trace.
    Erase {
        ids: Vec<TaskId>,
        reply: ReplySender<u64>,
    },
    /// Changes these tasks in one commit.
    ChangeAll {
        act: Option<String>,
        change: BulkChange,
        picks: Vec<BulkPick>,
        reply: ReplySender<BulkOutcome>,
    },
    /// Undoes the change of these tasks in one commit.
    Undo {
        act: String,
        picks: Vec<(KeptTask, Option<u64>)>,
        is_last: bool,
        reply: ReplySender<UndoOutcome>,
    },
    /// Forgets some of what is kept for an act, and says whether there is more.
    ForgetKept {
        act: String,
        reply: ReplySender<bool>,
    },
    /// Keeps a failed task that has no delivery.
    KeepFailed {
        task: Box<FailedTask>,
        reply: ReplySender<()>,
    },
    /// Puts failed tasks and dead letters back, or deletes them.
    TakeFailed {
        picks: Vec<FailedPick>,
        reply: ReplySender<Vec<TaskId>>,
    },
    /// Asks for the keys of all rows that are delivered.
    HeldKeys {
        reply: ReplySender<HashSet<ReadyKey>>,
    },
    DeadLetters {
        limit: usize,
        reply: ReplySender<Vec<DeadLetter>>,
    },
    RequeueDeadLetters {
        ids: HashSet<TaskId>,
        reply: ReplySender<Vec<TaskId>>,
    },
    Put {
        result: Box<TaskResult>,
        reply: ReplySender<bool>,
    },
    Forget {
        id: TaskId,
        reply: ReplySender<bool>,
    },
    Sweep {
        now: Timestamp,
        reply: ReplySender<usize>,
    },
    Chord(Join),
    Group(GroupStep),
    Note(Box<Noting>),
    SetNote {
        key: String,
        value: Option<String>,
    },
    Close {
        reply: ReplySender<()>,
    },
}

/// A step of a chord that belongs to no settlement.
pub(super) enum Join {
    Open { group: String, size: u64, reply: ReplySender<()> },
    Part { part: ChordPart, reply: ReplySender<ChordJoin> },
    Close { group: String, reply: ReplySender<()> },
}
