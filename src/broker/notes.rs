//! An ability of brokers: they keep notes beside their messages, and change a note together with a publish.

use async_trait::async_trait;

use super::BrokerError;
use crate::store::{CompareAndSet, Notes};
use crate::task::{Message, Receipt};

/// The outcome of a publish with a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CasOutcome {
    /// The message was taken, and the note changed.
    Taken(Receipt),
    /// The note changed. A message of this id was taken before, so this one was not taken again.
    Changed,
    /// The note says something else by now, so nothing was taken.
    Outdated,
}

/// Keeps notes in the same place as messages, so that one of each can be taken in one step.
#[async_trait]
pub trait BrokerNotes: Send + Sync {
    /// The notes of this broker.
    fn notes(&self) -> &dyn Notes;

    /// Takes a message, as long as its id is not taken, and changes a note; both or neither.
    ///
    /// # Errors
    /// Neither happened; after [`BrokerError::Io`] and [`BrokerError::Panicked`] that is not known.
    async fn publish_with_cas(
        &self,
        message: Message,
        change: CompareAndSet,
    ) -> Result<CasOutcome, BrokerError>;
}
