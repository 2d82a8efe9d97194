//! An ability of brokers: they change many waiting tasks in one step, and can take the change back.
//!
//! What is needed to take a change back is written in the step that makes the change, under the id of the act that the change
//! is part of. So a process that dies in between leaves a task either as it was or changed, and never changed without the
//! means to undo it. Who makes a change decides whether it can be undone, and says when what was kept for that goes.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{BrokerError, Remains};
use crate::task::{DEMOTED, Message, State, TaskId, TaskResult};

/// Makes what a task that is ended leaves behind from its message.
pub type RemainsFn = Arc<dyn Fn(&Message) -> Remains + Send + Sync>;

/// A change of tasks that wait.
#[derive(Clone)]
pub enum BulkChange {
    /// The tasks go to the end of another queue, in their order. They keep their ids, times, priorities, tenants, lanes and
    /// unique windows.
    Move {
        /// The name of the other queue.
        to: String,
    },
    /// The tasks are over, and leave their lanes and unique windows.
    End {
        /// Makes what each of them leaves behind. [`Remains::default`] leaves nothing: the task is deleted.
        remains: RemainsFn,
    },
}

/// A task that is to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkPick {
    /// The id of the task.
    pub id: TaskId,
    /// The tag of its [delivery](super::Delivery), if the caller has that and has not started it. The delivery ends with the
    /// change, and is to be dropped then.
    pub tag: Option<u64>,
}

/// The outcome of a change.
#[derive(Clone, Debug, Default)]
pub struct BulkOutcome {
    /// The tasks that were changed, as they were before.
    pub done: Vec<Arc<Message>>,
    /// The tasks that are delivered to somebody else. If there are any, no task that is kept in the same place as one of them
    /// was changed.
    pub busy: Vec<TaskId>,
}

/// A task that was changed, for as long as that can be undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptTask {
    /// The number under which it is kept. Tasks are brought back in the order of their numbers, which is that in which they
    /// stood.
    pub nth: u64,
    /// The id of the task.
    pub id: TaskId,
}

/// The outcome of an undo.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UndoOutcome {
    /// The tasks that are where they were before the change.
    pub back: Vec<TaskId>,
    /// The tasks that are left as they are: they have run or were changed again by somebody, or another task has their unique
    /// window.
    pub left: Vec<TaskId>,
    /// The tasks that are delivered to somebody, so that it is not known yet whether they run. They are still kept.
    pub busy: Vec<KeptTask>,
}

/// Changes many waiting tasks in one step, and takes such changes back. A broker has this ability only if it knows all its
/// tasks and keeps their records in the same place as their messages.
#[async_trait]
pub trait BulkChanges: Send + Sync {
    /// Changes these tasks, in the order in which they are named. `act` is the id of the act under which is kept what undoes
    /// the change; `None` keeps nothing. A task is not kept from whose end something [follows](Remains::follow_ups), because
    /// that cannot be taken back. A task that does not wait any more, or that waits in the queue to which it is to move, is
    /// left alone.
    ///
    /// # Errors
    /// Nothing was changed; after [`BrokerError::Io`] and [`BrokerError::Panicked`] that is not known.
    async fn change_all(
        &self,
        act: Option<&str>,
        change: &BulkChange,
        picks: Vec<BulkPick>,
    ) -> Result<BulkOutcome, BrokerError>;

    /// The first tasks that are kept for an act, at most `limit`.
    ///
    /// # Errors
    /// The broker is closed or cannot be read.
    async fn kept_for(&self, act: &str, limit: usize) -> Result<Vec<KeptTask>, BrokerError>;

    /// Brings these tasks back, each with the tag of its delivery, if the caller has that and has not started it. A moved task
    /// goes back to its place, and one that was ended waits again where it did and has no record. A serial task that was ended
    /// goes to the end of its lane's line. What is brought back and what is left is not kept any longer. `is_last`: what is
    /// delivered to somebody is left, too.
    ///
    /// # Errors
    /// Nothing was brought back; after [`BrokerError::Io`] and [`BrokerError::Panicked`] that is not known.
    async fn undo(
        &self,
        act: &str,
        picks: Vec<(KeptTask, Option<u64>)>,
        is_last: bool,
    ) -> Result<UndoOutcome, BrokerError>;

    /// Forgets what is kept for an act.
    ///
    /// # Errors
    /// The broker is closed or cannot be written. A part may be forgotten by then.
    async fn forget_kept(&self, act: &str) -> Result<(), BrokerError>;
}

/// Where a task stood among those that are kept: by its sequence, those in lanes behind the others, because one of these may
/// have the lane.
pub(super) fn number(is_in_line: bool, sequence: u64) -> u64 {
    const IN_LINE: u64 = 1 << 63;
    (sequence & !IN_LINE) | if is_in_line { IN_LINE } else { 0 }
}

/// How often a task has run, by the counts in its message. Of a task that has run in between they have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RunMarks {
    has_started: bool,
    retries: u32,
    crashes: u32,
    continuations: u32,
    requeues: u32,
}

impl RunMarks {
    pub(super) fn of(message: &Message) -> Self {
        Self {
            has_started: message.first_started_at.is_some(),
            retries: message.retries,
            crashes: message.crashes,
            continuations: message.continuations,
            requeues: message.requeues(),
        }
    }
}

/// Whether a task that was ended is over by that end and no other one, as far as its record says.
pub(super) fn is_ended_so(record: Option<&TaskResult>) -> bool {
    record.is_none_or(|record| record.state == State::Revoked)
}

/// The message of a task that was ended and waits again. A serial one has to be let into its lane anew.
pub(super) fn waiting_again(mut message: Message) -> Message {
    if let Some(serial) = &mut message.serial {
        serial.let_in_at = None;
        serial.pass = None;
    }
    message
}

/// The message in the queue to which it moves.
pub(super) fn in_queue(message: &Message, queue: &str) -> Message {
    let mut moved = Message { queue: queue.to_owned(), ..message.clone() };
    moved.headers.0.remove(DEMOTED); // why it was in the other queue says nothing of this one
    moved
}
