//! What the engine's thread is asked to do.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::groups::GroupStep;
use super::notes::Noting;
use crate::broker::{
    BrokerError, Counts, DeadLetter, LaneFacts, LaneLever, Place, RecordFn, Removal, Settle, Sink,
};
use crate::core::Timestamp;
use crate::store::{ChordJoin, ChordPart};
use crate::task::{LaneName, Message, TaskId, TaskResult, UniqueKey};

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, BrokerError>>;

/// One request. Publishes and settlements are gathered into one commit; everything else sees all that came before it.
pub(super) enum Command {
    Publish {
        message: Arc<Message>,
        row: Vec<u8>,
        unique: bool,
        reply: Reply<Option<TaskId>>,
    },
    PublishAll {
        messages: Vec<(Arc<Message>, Vec<u8>)>,
        sizes: Vec<(String, u64)>,
        /// A chord that gets one more member by it.
        beside: Option<String>,
        unique: bool,
        reply: Reply<Option<TaskId>>,
    },
    Settle(Box<Settlement>),
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
        reply: Reply<Option<LaneFacts>>,
    },
    Lanes {
        limit: usize,
        reply: Reply<Vec<LaneFacts>>,
    },
    SteerLane {
        lane: LaneName,
        lever: LaneLever,
        reply: Reply<bool>,
    },
    /// The holder of a dedupe window.
    Holder {
        key: UniqueKey,
        reply: Reply<Option<TaskId>>,
    },
    /// Ends the window of a message before its task is over.
    LetGo {
        key: UniqueKey,
        id: TaskId,
    },
    Declare {
        queue: String,
        reply: Reply<()>,
    },
    Queues {
        reply: Reply<Vec<String>>,
    },
    Counts {
        queue: String,
        reply: Reply<Counts>,
    },
    Find {
        id: TaskId,
        reply: Reply<Option<Place>>,
    },
    Remove {
        id: TaskId,
        record: RecordFn,
        reply: Reply<Removal>,
    },
    DeadLetters {
        limit: usize,
        reply: Reply<Vec<DeadLetter>>,
    },
    Revive {
        ids: HashSet<TaskId>,
        reply: Reply<Vec<TaskId>>,
    },
    Put {
        result: Box<TaskResult>,
        reply: Reply<bool>,
    },
    Forget {
        id: TaskId,
        reply: Reply<bool>,
    },
    Sweep {
        now: Timestamp,
        reply: Reply<usize>,
    },
    Chord(Join),
    Group(GroupStep),
    Note(Box<Noting>),
    SetNote {
        key: String,
        value: Option<String>,
    },
    Close {
        reply: Reply<()>,
    },
}

/// A step of a chord that goes with no settlement.
pub(super) enum Join {
    Open { group: String, size: u64, reply: Reply<()> },
    Part { part: ChordPart, reply: Reply<ChordJoin> },
    Close { group: String, reply: Reply<()> },
}

/// The end of a delivery.
pub(super) struct Settlement {
    pub(super) queue: u16,
    pub(super) tag: u64,
    pub(super) settle: Settle,
    /// The result's row, encoded by the thread that settles.
    pub(super) row: Option<Vec<u8>>,
    pub(super) done: Option<Reply<()>>,
}
