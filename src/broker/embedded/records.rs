//! The tables as [`EmbeddedStore`] sees them: records, chords, groups, and the permits that were handed over.

use std::sync::Arc;

use async_trait::async_trait;

use super::EmbeddedBroker;
use crate::core::IoFailure;
use crate::core::Timestamp;
use crate::core::key::joined;
use crate::store::embedded::Tables;
use crate::store::{
    ChordJoin, ChordPart, EmbeddedStore, GroupResult, LocalPermits, MemoryStore, Notes, Parking, StoreError,
    Waiters,
};
use crate::task::{PermitHolder, TaskId, TaskResult, TrackedState};

/// The start of the names of notes about permits that were handed over.
const PARKED: &str = "permit/";

fn parked_key(name: &str, holder: &str) -> String {
    joined(&[PARKED, "/", ""], &[&holder, &name])
}

impl EmbeddedStore {
    /// The store that belongs to this broker.
    pub fn new(broker: EmbeddedBroker) -> Self {
        let permits = LocalPermits::parking(broker.clone());
        Self::of(Arc::new(broker), permits)
    }
}

impl Parking for EmbeddedBroker {
    fn parked(&self) -> Result<Vec<(String, PermitHolder)>, IoFailure> {
        let mut parked: Vec<(String, PermitHolder)> = Vec::new();
        for (key, text) in
            self.read_notes(PARKED).map_err(|error| IoFailure::from(StoreError::from(error)))?
        {
            let Ok((name, holder)) = serde_json::from_str::<(String, PermitHolder)>(&text) else { continue };
            let now_called = parked_key(&name, &holder.holder);
            if key != now_called {
                // As an earlier version called it.
                self.set_note(now_called, Some(text));
                self.set_note(key, None);
            }
            parked.push((name, holder));
        }
        Ok(parked)
    }

    fn park(&self, name: &str, holder: &PermitHolder) {
        let text = serde_json::to_string(&(name, holder)).ok();
        self.set_note(parked_key(name, &holder.holder), text);
    }

    fn unpark(&self, name: &str, holder: &str) {
        self.set_note(parked_key(name, holder), None);
    }
}

#[async_trait]
impl Tables for EmbeddedBroker {
    fn in_memory(&self) -> &MemoryStore {
        self.volatile_results()
    }

    fn waiters(&self) -> &Waiters {
        self.waiters()
    }

    fn notes(&self) -> &dyn Notes {
        self
    }

    fn read_result(&self, id: &TaskId) -> Result<Option<TaskResult>, StoreError> {
        Ok(self.read_result(id)?)
    }

    async fn put_result(&self, result: TaskResult) -> Result<bool, StoreError> {
        Ok(self.put_result(result).await?)
    }

    async fn forget_result(&self, id: TaskId) -> Result<bool, StoreError> {
        Ok(self.forget_result(id).await?)
    }

    async fn sweep_results(&self, now: Timestamp) -> Result<usize, StoreError> {
        Ok(self.sweep_results(now).await?)
    }

    fn keep_state(&self, state: TrackedState) {
        self.keep_state(state);
    }

    async fn open_chord(&self, group: String, size: u64) -> Result<(), StoreError> {
        Ok(self.open_chord(group, size).await?)
    }

    async fn join_chord(&self, part: ChordPart) -> Result<ChordJoin, StoreError> {
        Ok(self.join_chord(part).await?)
    }

    async fn close_chord(&self, group: String) -> Result<(), StoreError> {
        Ok(self.close_chord(group).await?)
    }

    async fn save_group(&self, group: &GroupResult, until: Timestamp) -> Result<(), StoreError> {
        Ok(self.save_group(group, until).await?)
    }

    fn read_group(&self, id: &str, now: Timestamp) -> Result<Option<GroupResult>, StoreError> {
        Ok(self.read_group(id, now)?)
    }

    async fn forget_group(&self, id: &str) -> Result<bool, StoreError> {
        Ok(self.forget_group(id).await?)
    }
}
