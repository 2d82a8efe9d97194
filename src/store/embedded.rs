//! Records in the embedded broker's own tables: a task's settlement and its record are one commit there.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::group::GROUPS_GO;
use super::{
    ChordJoin, ChordPart, GroupResult, LocalPermits, Notes, Parking, Store, StoreError, TrackedState,
};
use crate::broker::{BrokerError, EmbeddedBroker};
use crate::core::Timestamp;
use crate::task::clock::now;
use crate::task::{PermitHolder, PermitKeeper, TaskId, TaskResult};

/// The results side of an [`EmbeddedBroker`]. Records of tasks that waited in memory only are in memory as well.
#[derive(Clone)]
pub struct EmbeddedStore {
    broker: EmbeddedBroker,
    permits: Arc<LocalPermits>,
}

/// The start of the names of notes about permits that were handed over.
const PARKED: &str = "permit/";

fn parked_key(name: &str, holder: &str) -> String {
    format!("{PARKED}{holder}/{name}")
}

impl Parking for EmbeddedBroker {
    fn parked(&self) -> Result<Vec<(String, PermitHolder)>, String> {
        let notes = self.read_notes(PARKED).map_err(|error| error.to_string())?;
        Ok(notes.iter().filter_map(|(_, text)| serde_json::from_str(text).ok()).collect())
    }

    fn park(&self, name: &str, holder: &PermitHolder) {
        let text = serde_json::to_string(&(name, holder)).ok();
        self.set_note(parked_key(name, &holder.holder), text);
    }

    fn unpark(&self, name: &str, holder: &str) {
        self.set_note(parked_key(name, holder), None);
    }
}

impl EmbeddedStore {
    /// The store that belongs to this broker.
    pub fn new(broker: EmbeddedBroker) -> Self {
        let permits = Arc::new(LocalPermits::parking(broker.clone()));
        Self { broker, permits }
    }
}

impl From<BrokerError> for StoreError {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::Closed => Self::Closed,
            other => Self::Io(other.to_string()),
        }
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn put(&self, result: TaskResult) -> Result<bool, StoreError> {
        if self.broker.volatile_results().keeps(&result.id, result.finished_at) {
            return Ok(false);
        }
        Ok(self.broker.put_result(result).await?)
    }

    async fn get(&self, id: &TaskId, now: Timestamp) -> Result<Option<TaskResult>, StoreError> {
        if let Some(result) = self.broker.volatile_results().get(id, now).await? {
            return Ok(Some(result));
        }
        Ok(self.broker.read_result(id)?.filter(|r| r.expires_at > now))
    }

    async fn wait(&self, id: &TaskId) -> Result<TaskResult, StoreError> {
        let on_disk = self.broker.waiters().subscribe(id);
        if let Some(result) = self.broker.read_result(id)? {
            return Ok(result);
        }
        tokio::select! {
            record = on_disk.record() => record,
            record = self.broker.volatile_results().wait(id) => record,
        }
    }

    async fn forget(&self, id: &TaskId) -> Result<bool, StoreError> {
        Ok(self.broker.volatile_results().remove(id) || self.broker.forget_result(id.clone()).await?)
    }

    async fn sweep(&self, now: Timestamp) -> Result<usize, StoreError> {
        let in_memory = self.broker.volatile_results().sweep(now).await?;
        Ok(in_memory + self.broker.sweep_results(now).await?)
    }

    async fn track(&self, state: TrackedState) -> Result<(), StoreError> {
        let id = &state.id;
        let is_over =
            self.broker.read_result(id)?.is_some() || self.broker.volatile_results().keeps(id, now());
        if !is_over {
            self.broker.keep_state(state);
        }
        Ok(())
    }

    async fn tracked(&self, id: &TaskId) -> Result<Option<TrackedState>, StoreError> {
        let tracked = self.broker.volatile_results().tracked(id).await?;
        // Most records are written by a settlement, which does not come through here.
        if tracked.is_some() && self.broker.read_result(id)?.is_some() {
            self.untrack(id).await?;
            return Ok(None);
        }
        Ok(tracked)
    }

    async fn untrack(&self, id: &TaskId) -> Result<(), StoreError> {
        self.broker.volatile_results().untrack(id).await
    }

    // The broker takes a revoked task out for good, on disk; nobody else has to be told.
    async fn revoke(&self, id: &TaskId, until: Timestamp) -> Result<(), StoreError> {
        self.broker.volatile_results().revoke(id, until).await
    }

    async fn revoked(&self, ids: &[TaskId], now: Timestamp) -> Result<Vec<TaskId>, StoreError> {
        self.broker.volatile_results().revoked(ids, now).await
    }

    // Chords are counted along with settlements. These are for tasks that were settled before they ran.
    async fn open_chord(&self, group: &str, size: u64) -> Result<(), StoreError> {
        Ok(self.broker.open_chord(group.to_owned(), size).await?)
    }

    async fn join_chord(&self, part: ChordPart) -> Result<ChordJoin, StoreError> {
        Ok(self.broker.join_chord(part).await?)
    }

    async fn close_chord(&self, group: &str, _token: &str) -> Result<(), StoreError> {
        Ok(self.broker.close_chord(group.to_owned()).await?)
    }

    async fn save_group(&self, group: &GroupResult, lifetime: Option<Duration>) -> Result<(), StoreError> {
        Ok(self.broker.save_group(group, now() + lifetime.unwrap_or(GROUPS_GO)).await?)
    }

    async fn group(&self, id: &str, now: Timestamp) -> Result<Option<GroupResult>, StoreError> {
        Ok(self.broker.read_group(id, now)?)
    }

    async fn forget_group(&self, id: &str) -> Result<bool, StoreError> {
        Ok(self.broker.forget_group(id).await?)
    }

    fn permits(&self) -> Option<Arc<dyn PermitKeeper>> {
        Some(Arc::clone(&self.permits) as Arc<dyn PermitKeeper>)
    }

    fn notes(&self) -> Option<&dyn Notes> {
        Some(&self.broker)
    }
}
