//! One group commit: what is to be written together, and what is to be said once it is safe.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::chords::Chords;
use super::command::Reply;
use super::lanes::Step;
use super::rows::{ReadyKey, ScheduledKey};
use super::tables::Writes;
use super::window::Held;
use crate::core::Timestamp;
use crate::task::{Message, TaskId, TaskResult};

/// A commit under construction. Publishes and settlements are kept apart: when the disk will not take it, the former
/// are refused, and the latter are kept until it does.
#[derive(Default)]
pub(super) struct Commit {
    pub(super) publishes: Writes,
    pub(super) published: Vec<Published>,
    pub(super) settlements: Writes,
    pub(super) settled: Vec<Settled>,
    /// Accepted in this commit, for the check of unique ids.
    pub(super) ids: HashSet<TaskId>,
    /// Queues (by index) whose counts changed.
    pub(super) queues: BTreeSet<usize>,
    /// Ids whose results expire, with the time.
    pub(super) expiring: Vec<(Timestamp, TaskId)>,
    /// Rows of messages that follow from the end of others.
    pub(super) arrivals: Vec<Arrival>,
    /// What publishes and settlements do to their lanes.
    pub(super) steps: Vec<Step>,
    /// Records of tasks that will never run.
    pub(super) records: Vec<TaskResult>,
    /// Chords that are opened, counted or closed.
    pub(super) chords: Chords,
    /// What was free on the disk when the first publish came, less what was taken since and what is to be flushed.
    pub(super) free: Option<u64>,
}

impl Commit {
    pub(super) fn is_empty(&self) -> bool {
        self.published.is_empty() && self.settled.is_empty() && !self.writes()
    }

    /// Forgets all of it, and keeps the room: large pieces of memory that come and go with every commit cost more than
    /// what is done with them.
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

    /// Whether there is anything to write: what only goes back to where it was needs none.
    pub(super) fn writes(&self) -> bool {
        let is_written = [&self.publishes, &self.settlements].iter().any(|writes| !writes.is_empty());
        is_written || !self.chords.is_empty() || !self.steps.is_empty()
    }
}

/// A publish that waits for its commit.
pub(super) struct Published {
    /// Of several that were sent together, the last one answers for all.
    pub(super) reply: Option<Reply<Option<TaskId>>>,
    pub(super) arrival: Arrival,
}

/// A row that came in.
pub(super) struct Arrival {
    pub(super) queue: usize,
    pub(super) place: Place,
    pub(super) message: Arc<Message>,
}

/// Where a row lies.
#[derive(Clone, Copy)]
pub(super) enum Place {
    Ready(ReadyKey),
    Scheduled(Timestamp, ScheduledKey),
}

impl Place {
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
    pub(super) held: Held,
    pub(super) record: Option<Box<TaskResult>>,
    pub(super) done: Option<Reply<()>>,
    pub(super) end: End,
}

/// What a settlement came to.
pub(super) enum End {
    /// The row is gone.
    Gone,
    /// The row went to the dead letters.
    Dead,
    /// The row is where it was and may be delivered again.
    Back,
    /// Another row took its place.
    Replaced(Arrival),
}
