//! Records in the embedded broker's own tables: a task's settlement and its record are one commit there.
//!
//! The tables lie in the room above, with the broker. This is their face as a store, and `RecordTables` is what it needs of them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::group::GROUPS_GO;
use super::{
    ChordJoin, ChordPart, ChordStore, DuplicateStore, GroupResult, GroupStore, LocalPermits, MemoryStore,
    Notes, SharedRates, Store, StoreError, TrackedState, UniqueWindowStore, Waiters,
};
use crate::core::Timestamp;
use crate::task::clock::now;
use crate::task::{PermitKeeper, TaskId, TaskResult};

/// The results side of an [`EmbeddedBroker`](crate::broker::EmbeddedBroker). Records of tasks that waited in memory only are in
/// memory as well.
#[derive(Clone)]
pub struct EmbeddedStore {
    tables: Arc<dyn RecordTables>,
    permits: Arc<LocalPermits>,
}

/// The tables of an embedded broker, where a record is written in the commit that ends its task.
#[async_trait]
pub(crate) trait RecordTables: Send + Sync {
    /// The records of tasks that waited in memory.
    fn in_memory(&self) -> &MemoryStore;

    /// Who waits for records on disk.
    fn waiters(&self) -> &Waiters;

    fn notes(&self) -> &dyn Notes;

    fn read_result(&self, id: &TaskId) -> Result<Option<TaskResult>, StoreError>;

    async fn put_result(&self, result: TaskResult) -> Result<bool, StoreError>;

    async fn forget_result(&self, id: TaskId) -> Result<bool, StoreError>;

    async fn sweep_results(&self, now: Timestamp) -> Result<usize, StoreError>;

    /// Keeps what a task that is not over tells of itself.
    fn keep_state(&self, state: TrackedState);

    async fn open_chord(&self, group: String, size: u64) -> Result<(), StoreError>;

    async fn join_chord(&self, part: ChordPart) -> Result<ChordJoin, StoreError>;

    async fn close_chord(&self, group: String) -> Result<(), StoreError>;

    async fn save_group(&self, group: &GroupResult, until: Timestamp) -> Result<(), StoreError>;

    fn read_group(&self, id: &str, now: Timestamp) -> Result<Option<GroupResult>, StoreError>;

    async fn forget_group(&self, id: &str) -> Result<bool, StoreError>;
}

impl EmbeddedStore {
    pub(crate) fn of(tables: Arc<dyn RecordTables>, permits: LocalPermits) -> Self {
        Self { tables, permits: Arc::new(permits) }
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn put(&self, result: TaskResult) -> Result<bool, StoreError> {
        if self.tables.in_memory().keeps(&result.id, || result.finished_at) {
            return Ok(false);
        }
        self.tables.put_result(result).await
    }

    async fn get(&self, id: &TaskId, now: Timestamp) -> Result<Option<TaskResult>, StoreError> {
        if let Some(result) = self.tables.in_memory().get(id, now).await? {
            return Ok(Some(result));
        }
        Ok(self.tables.read_result(id)?.filter(|r| r.expires_at > now))
    }

    async fn wait(&self, id: &TaskId) -> Result<TaskResult, StoreError> {
        let on_disk = self.tables.waiters().subscribe(id);
        if let Some(result) = self.tables.read_result(id)? {
            return Ok(result);
        }
        tokio::select! {
            record = on_disk.record() => record,
            record = self.tables.in_memory().wait(id) => record,
        }
    }

    async fn forget(&self, id: &TaskId) -> Result<bool, StoreError> {
        Ok(self.tables.in_memory().remove(id) || self.tables.forget_result(id.clone()).await?)
    }

    async fn sweep(&self, now: Timestamp) -> Result<usize, StoreError> {
        let in_memory = self.tables.in_memory().sweep(now).await?;
        Ok(in_memory + self.tables.sweep_results(now).await?)
    }

    async fn track(&self, state: TrackedState) -> Result<(), StoreError> {
        let id = &state.id;
        let is_over = self.tables.read_result(id)?.is_some() || self.tables.in_memory().keeps(id, now);
        if !is_over {
            self.tables.keep_state(state);
        }
        Ok(())
    }

    async fn tracked(&self, id: &TaskId) -> Result<Option<TrackedState>, StoreError> {
        let tracked = self.tables.in_memory().tracked(id).await?;
        // Most records are written by a settlement, which does not come through here.
        if tracked.is_some() && self.tables.read_result(id)?.is_some() {
            self.untrack(id).await?;
            return Ok(None);
        }
        Ok(tracked)
    }

    async fn untrack(&self, id: &TaskId) -> Result<(), StoreError> {
        self.tables.in_memory().untrack(id).await
    }

    // The broker takes a revoked task out for good, on disk, and no other process has to be told.
    async fn revoke(&self, id: &TaskId, until: Timestamp) -> Result<(), StoreError> {
        self.tables.in_memory().revoke(id, until).await
    }

    async fn revoked(&self, ids: &[TaskId], now: Timestamp) -> Result<Vec<TaskId>, StoreError> {
        self.tables.in_memory().revoked(ids, now).await
    }

    fn is_known_revoked(&self, id: &TaskId, now: Timestamp) -> Option<bool> {
        self.tables.in_memory().is_known_revoked(id, now)
    }

    fn permits(&self) -> Option<Arc<dyn PermitKeeper>> {
        Some(Arc::clone(&self.permits) as Arc<dyn PermitKeeper>)
    }
    fn shared_rates(&self) -> Option<&dyn SharedRates> {
        None
    }

    fn notes(&self) -> Option<&dyn Notes> {
        Some(self.tables.notes())
    }

    fn chords(&self) -> Option<&dyn ChordStore> {
        Some(self)
    }

    fn groups(&self) -> Option<&dyn GroupStore> {
        Some(self)
    }

    fn duplicates(&self) -> Option<&dyn DuplicateStore> {
        None
    }

    fn unique_windows(&self) -> Option<&dyn UniqueWindowStore> {
        None
    }

    fn reply_to(&self) -> Option<String> {
        None
    }

    fn is_shared(&self) -> bool {
        false
    }
}

#[async_trait]
impl ChordStore for EmbeddedStore {
    // Settlements count the members of chords. These functions are for tasks that were settled before they ran.
    async fn open_chord(&self, group: &str, size: u64) -> Result<(), StoreError> {
        self.tables.open_chord(group.to_owned(), size).await
    }

    async fn join_chord(&self, part: ChordPart) -> Result<ChordJoin, StoreError> {
        self.tables.join_chord(part).await
    }

    async fn extend_chord(&self, _: &str, _: &TaskId) -> Result<(), StoreError> {
        Err(StoreError::Unsupported(
            "the embedded broker adds a member to a chord when it publishes it".to_owned(),
        ))
    }

    async fn close_chord(&self, group: &str, _token: &str) -> Result<(), StoreError> {
        self.tables.close_chord(group.to_owned()).await
    }

    async fn close_failed_chord(&self, group: &str, token: &str) -> Result<(), StoreError> {
        self.close_chord(group, token).await
    }
}

#[async_trait]
impl GroupStore for EmbeddedStore {
    async fn save_group(&self, group: &GroupResult, lifetime: Option<Duration>) -> Result<(), StoreError> {
        self.tables.save_group(group, now() + lifetime.unwrap_or(GROUPS_GO)).await
    }

    async fn group(&self, id: &str, now: Timestamp) -> Result<Option<GroupResult>, StoreError> {
        self.tables.read_group(id, now)
    }

    async fn forget_group(&self, id: &str) -> Result<bool, StoreError> {
        self.tables.forget_group(id).await
    }
}
