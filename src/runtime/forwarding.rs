//! Forwarding a row of a commit table to the broker, once.
//!
//! The database of the row has no transaction with the broker. So the broker takes the task first, and the row is deleted
//! after that. A process that dies in between leaves the row, and the next one forwards it again under the same id. What
//! keeps the task from running twice is
//! - a note that the broker changes in one step with the publish, if it keeps notes; it is deleted after the row,
//! - else the [mark](RUN_ONCE_HEADER) by which one copy of a task starts, if all processes see one result store.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Runtime;
use crate::broker::{BrokerNotes, CasOutcome};
use crate::store::{CompareAndSet, StoreError};
use crate::task::{CommitRow, EnqueueError, Message, RUN_ONCE_HEADER, TaskId, panic_message};

/// The prefix of the notes of rows that are forwarded; the id of the task follows.
const FORWARDED: &str = "on-commit/";
/// What such a note says.
const YES: &str = "forwarded";

/// What became of a row that was to be forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Forwarding {
    /// The broker has the task, or had it before.
    Done,
    /// The row cannot be forwarded as it is, for this reason.
    Refused(String),
    /// The row cannot be forwarded now, for this reason.
    Later(String),
}

impl From<EnqueueError> for Forwarding {
    fn from(error: EnqueueError) -> Self {
        let reason = error.to_string();
        if error.is_permanent() { Self::Refused(reason) } else { Self::Later(reason) }
    }
}

impl Runtime {
    /// Makes the message of a row.
    ///
    /// # Errors
    /// What becomes of the row if that cannot be done.
    pub(crate) fn message_of(&self, row: &CommitRow) -> Result<Message, Forwarding> {
        // The keys of lanes and unique windows are made by the program's own code, which may panic.
        match catch_unwind(AssertUnwindSafe(|| self.dispatcher.committed(row))) {
            Ok(made) => made.map_err(Forwarding::from),
            Err(panic) => {
                let panic = panic_message(panic);
                Err(Forwarding::Refused(format!("its message cannot be made: panicked: {panic}")))
            }
        }
    }

    /// Gives the task of a row to the broker, unless the broker has had it before.
    pub(crate) async fn forward(&self, message: Message) -> Forwarding {
        match self.broker.notes() {
            Some(notes) => self.forward_with_note(message, notes).await,
            None => self.forward_with_mark(message).await,
        }
    }

    async fn forward_with_note(&self, message: Message, notes: &dyn BrokerNotes) -> Forwarding {
        let (id, sent) = (message.id.clone(), self.to_tell(std::slice::from_ref(&message)));
        let change = CompareAndSet { key: key(&id), expected: None, value: Some(YES.to_owned()) };
        match notes.publish_with_cas(message, change).await {
            Ok(CasOutcome::Taken(receipt)) => {
                if !receipt.joined {
                    self.tell_sent(sent);
                }
                Forwarding::Done
            }
            Ok(CasOutcome::Outdated) => Forwarding::Done,
            // The broker has another task of this id: the row's own would have left its note.
            Ok(CasOutcome::Changed) => {
                let forgotten = self.forget_forwarded(std::slice::from_ref(&id)).await;
                match forgotten {
                    Ok(_) => EnqueueError::DuplicateId { id }.into(),
                    Err(error) => Forwarding::Later(error.to_string()),
                }
            }
            Err(error) => EnqueueError::from(error).into(),
        }
    }

    async fn forward_with_mark(&self, mut message: Message) -> Forwarding {
        if self.shares_notes() {
            message.headers.0.insert(RUN_ONCE_HEADER.to_owned(), true.into());
        }
        match self.publish(message, true).await {
            Ok(_) | Err(EnqueueError::DuplicateId { .. }) => Forwarding::Done,
            Err(error) => error.into(),
        }
    }

    /// Deletes the notes of rows that are gone. `false`: some of them are there still.
    pub(crate) async fn forget_forwarded(&self, ids: &[TaskId]) -> Result<bool, StoreError> {
        let Some(notes) = self.broker.notes().filter(|_| !ids.is_empty()) else { return Ok(true) };
        let gone = |id| CompareAndSet { key: key(id), expected: Some(YES.to_owned()), value: None };
        notes.notes().compare_and_set_all(ids.iter().map(gone).collect(), None).await
    }

    /// Deletes all notes of rows that were forwarded. Called when no row is left that one of them could be about.
    pub(crate) async fn forget_all_forwarded(&self) -> Result<(), StoreError> {
        let Some(notes) = self.broker.notes() else { return Ok(()) };
        let left = notes.notes().notes(FORWARDED).await?;
        if left.is_empty() {
            return Ok(());
        }
        let gone =
            left.into_iter().map(|(key, text)| CompareAndSet { key, expected: Some(text), value: None });
        notes.notes().compare_and_set_all(gone.collect(), None).await.map(drop)
    }
}

fn key(id: &TaskId) -> String {
    format!("{FORWARDED}{id}")
}
