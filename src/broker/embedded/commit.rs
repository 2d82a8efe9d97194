//! One group commit: the rows to be written together, and the answers to be given once they are safe.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::chords::Chords;
use super::command::ReplySender;
use super::failed::FailedChange;
use super::lanes::LaneStep;
use super::queue_cursor::DeliveredRow;
use super::ready_key::ReadyKey;
use super::rows::ScheduledKey;
use super::tables::Writes;
use crate::core::Timestamp;
use crate::task::{Message, TaskId, TaskResult};

/// A commit under construction. The rows of publishes and of settlements are kept apart: when the disk refuses the
/// commit, the publishes are refused, and the settlements are kept until they can be written.
#[derive(Default)]
pub(super) struct Commit {
    pub(super) publishes: Writes,
    pub(super) published: Vec<Published>,
    pub(super) settlements: Writes,
    pub(super) settled: Vec<Settled>,
    /// The ids that this commit accepts, for the check of unique ids.
    pub(super) ids: HashSet<TaskId>,
    /// The queues, by index, whose counts changed.
    pub(super) queues: BTreeSet<usize>,
    /// The ids whose results expire, each with the time of the expiry.
    pub(super) expiring: Vec<(Timestamp, TaskId)>,
    /// Rows of messages that follow from the end of other tasks.
    pub(super) arrivals: Vec<ArrivedRow>,
    /// What publishes and settlements do to their lanes and unique windows.
    pub(super) steps: Vec<LaneStep>,
    /// Records of tasks that will never run.
    pub(super) records: Vec<TaskResult>,
    /// The chords that this commit opens, counts or closes.
    pub(super) chords: Chords,
    /// The free bytes on the disk when the first publish came, less those that publishes took since and those that
    /// the database has yet to flush. `None`: not measured yet.
    pub(super) free: Option<u64>,
}

impl Commit {
    pub(super) fn is_empty(&self) -> bool {
        self.published.is_empty() && self.settled.is_empty() && !self.writes()
    }

    /// Empties the commit and keeps its memory: large allocations that come and go with every commit cost more
    /// than the work that is done in them.
    pub(super) fn clear(&mut self) {
        self.publishes.clear();
        self.published.clear();
        self.settlements.clear();
        self.settled.clear();
        self.ids.clear();
        self.queues.clear();
        self.expiring.clear();
        self.arrivals.clear();
        self.steps.clear();
        self.records.clear();
        self.chords.clear();
        self.free = None;
    }

    /// Whether the commit has anything to write. A row that only goes back to where it was needs no write.
    pub(super) fn writes(&self) -> bool {
        let is_written = [&self.publishes, &self.settlements].iter().any(|writes| !writes.is_empty());
        is_written || !self.chords.is_empty() || !self.steps.is_empty()
    }
}

/// A publish that waits for its commit.
pub(super) struct Published {
    /// The way to the publisher. Of several messages that are sent together, only the last one has it, and answers
    /// for all.
    pub(super) reply: Option<ReplySender<Option<TaskId>>>,
    pub(super) arrival: ArrivedRow,
}

/// A row that the commit adds to a queue.
pub(super) struct ArrivedRow {
    pub(super) queue: usize,
    pub(super) place: RowKey,
    pub(super) message: Arc<Message>,
}

/// The key of a row among the ready or the scheduled ones.
#[derive(Clone, Copy)]
pub(super) enum RowKey {
    Ready(ReadyKey),
    Scheduled(Timestamp, ScheduledKey),
}

impl RowKey {
    pub(super) fn key(&self) -> &[u8] {
        match self {
            Self::Ready(key) => key,
            Self::Scheduled(_, key) => key,
        }
    }
}

/// A settlement that waits for its commit.
pub(super) struct Settled {
    pub(super) queue: usize,
    pub(super) held: DeliveredRow,
    pub(super) record: Option<Box<TaskResult>>,
    pub(super) done: Option<ReplySender<()>>,
    pub(super) end: RowEnd,
}

/// What became of the row of a settled delivery.
pub(super) enum RowEnd {
    /// The row is deleted.
    Gone,
    /// The row is deleted, and its message is a dead letter.
    Dead,
    /// The row is deleted, and its task is kept as a failed one.
    Failed(FailedChange),
    /// The row is where it was and may be delivered again.
    Back,
    /// Another row took its place.
    Replaced(ArrivedRow),
}
