//! Records in this process's memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::{NoteChange, Notes, Store, StoreError, TrackedState, Waiters};
use crate::core::Timestamp;
use crate::task::{TaskId, TaskResult};

/// Keeps records as long as the process lives.
#[derive(Default)]
pub struct MemoryStore {
    results: DashMap<TaskId, TaskResult>,
    tracked: DashMap<TaskId, TrackedState>,
    revoked: DashMap<TaskId, Timestamp>,
    waiters: Waiters,
    notes: Mutex<BTreeMap<String, String>>,
}

impl MemoryStore {
    /// Keeps a record; `false`: there was one already, which stays.
    pub(crate) fn insert(&self, result: TaskResult) -> bool {
        match self.results.entry(result.id.clone()) {
            Entry::Occupied(mut old) if old.get().expires_at <= result.finished_at => {
                old.insert(result.clone());
            }
            Entry::Occupied(_) => return false,
            Entry::Vacant(free) => {
                free.insert(result.clone());
            }
        }
        self.tracked.remove(&result.id);
        self.waiters.wake(&result);
        true
    }

    /// Whether there is a record of this id that has not expired.
    pub(crate) fn keeps(&self, id: &TaskId, now: Timestamp) -> bool {
        self.results.get(id).is_some_and(|r| r.expires_at > now)
    }

    pub(crate) fn lock_notes(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes a record.
    pub(crate) fn remove(&self, id: &TaskId) -> bool {
        self.results.remove(id).is_some()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn put(&self, result: TaskResult) -> Result<bool, StoreError> {
        Ok(self.insert(result))
    }

    async fn get(&self, id: &TaskId, now: Timestamp) -> Result<Option<TaskResult>, StoreError> {
        Ok(self.results.get(id).filter(|r| r.expires_at > now).map(|r| r.clone()))
    }

    async fn wait(&self, id: &TaskId) -> Result<TaskResult, StoreError> {
        let waiting = self.waiters.subscribe(id);
        if let Some(result) = self.results.get(id).map(|r| r.clone()) {
            return Ok(result);
        }
        waiting.record().await
    }

    async fn forget(&self, id: &TaskId) -> Result<bool, StoreError> {
        Ok(self.remove(id))
    }

    async fn sweep(&self, now: Timestamp) -> Result<usize, StoreError> {
        let mut swept = 0;
        self.results.retain(|_, result| {
            let stays = result.expires_at > now;
            swept += usize::from(!stays);
            stays
        });
        self.revoked.retain(|_, until| *until > now);
        Ok(swept)
    }

    async fn track(&self, state: TrackedState) -> Result<(), StoreError> {
        if !self.results.contains_key(&state.id) {
            self.tracked.insert(state.id.clone(), state);
        }
        Ok(())
    }

    async fn tracked(&self, id: &TaskId) -> Result<Option<TrackedState>, StoreError> {
        Ok(self.tracked.get(id).map(|state| state.clone()))
    }

    async fn revoke(&self, id: &TaskId, until: Timestamp) -> Result<(), StoreError> {
        self.revoked.insert(id.clone(), until);
        Ok(())
    }

    async fn revoked(&self, ids: &[TaskId], now: Timestamp) -> Result<Vec<TaskId>, StoreError> {
        let revoked = |id: &&TaskId| self.revoked.get(*id).is_some_and(|until| *until > now);
        Ok(ids.iter().filter(revoked).cloned().collect())
    }

    fn notes(&self) -> Option<&dyn Notes> {
        Some(self)
    }
}

#[async_trait]
impl Notes for MemoryStore {
    async fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        Ok(self.lock_notes().get(key).cloned())
    }

    async fn notes(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
        let notes = self.lock_notes();
        let from = notes.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        Ok(from.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    async fn change_note(&self, change: NoteChange) -> Result<bool, StoreError> {
        Ok(change.apply(&mut self.lock_notes()))
    }
}
