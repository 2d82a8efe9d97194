//! Beat's levers: how the runtime reaches the living actor. Each call sends one message and fails with
//! [`BeatError::NotAnswering`] if there is no living actor.

use std::sync::atomic::Ordering;

use actix::{Handler, Message};

use super::control::{GetEntries, PauseEntry, Put, Remove, Trigger};
use super::{Beat, BeatError, BeatParts, EndBeat, EntryStatus};
use crate::task::{Periodic, Receipt};

impl BeatParts {
    async fn pull<M, T>(&self, message: M) -> Result<T, BeatError>
    where
        M: Message<Result = Result<T, BeatError>> + Send + 'static,
        T: Send + 'static,
        Beat: Handler<M>,
    {
        let actor = self.living().ok_or(BeatError::NotAnswering)?;
        actor.send(message).await.unwrap_or(Err(BeatError::NotAnswering))
    }

    /// All entries, ordered by name.
    pub(crate) async fn list(&self) -> Result<Vec<EntryStatus>, BeatError> {
        self.pull(GetEntries).await
    }

    /// Adds an entry, or replaces the entry of its name.
    pub(crate) async fn put(&self, entry: Periodic) -> Result<(), BeatError> {
        self.pull(Put(Box::new(entry))).await
    }

    /// Takes out an entry that was added at run time, or undoes the change of one.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), BeatError> {
        self.pull(Remove(name.to_owned())).await
    }

    /// Pauses an entry, or ends its pause.
    pub(crate) async fn set_paused(&self, name: &str, paused: bool) -> Result<(), BeatError> {
        self.pull(PauseEntry { entry: name.to_owned(), paused }).await
    }

    /// Calls an entry's task now.
    pub(crate) async fn trigger(&self, name: &str) -> Result<Receipt, BeatError> {
        self.pull(Trigger(name.to_owned())).await
    }

    /// Keeps the root from building beat anew in this process.
    pub(crate) fn stay_down(&self) {
        self.resigned.store(true, Ordering::Release);
    }

    /// Ends the living actor, which gives the lead back.
    pub(crate) async fn end(&self) -> Result<(), BeatError> {
        let actor = self.living().ok_or(BeatError::NotAnswering)?;
        actor.send(EndBeat).await.map_err(|_| BeatError::NotAnswering)
    }

    /// Makes the actor panic, for tests of its supervision.
    #[cfg(test)]
    pub(crate) fn kill(&self) {
        if let Some(actor) = self.living() {
            actor.do_send(super::super::queue::Crash);
        }
    }
}
