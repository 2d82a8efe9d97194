//! What other programs see of a canvas in a store that they share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use celeriac::TaskId;
use celeriac::core::Timestamp;
use celeriac::store::{
    ChordJoin, ChordPart, ChordStore, DuplicateStore, GroupStore, MemoryStore, Notes, SharedRates, Store,
    StoreError, TrackedState, UniqueWindowStore,
};
use celeriac::task::canvas::{IntoCanvas, chord};
use celeriac::task::{PermitKeeper, TaskResult};

use super::kit::*;

/// A store in memory that says that it is shared, and notes when each record was written.
#[derive(Default)]
struct Shared {
    inner: MemoryStore,
    written: Mutex<HashMap<TaskId, Instant>>,
}

#[async_trait]
impl Store for Shared {
    fn is_shared(&self) -> bool {
        true
    }

    async fn put(&self, result: TaskResult) -> Result<bool, StoreError> {
        self.written.lock().unwrap().entry(result.id.clone()).or_insert_with(Instant::now);
        self.inner.put(result).await
    }

    async fn get(&self, id: &TaskId, now: Timestamp) -> Result<Option<TaskResult>, StoreError> {
        self.inner.get(id, now).await
    }

    async fn wait(&self, id: &TaskId) -> Result<TaskResult, StoreError> {
        self.inner.wait(id).await
    }

    async fn forget(&self, id: &TaskId) -> Result<bool, StoreError> {
        self.inner.forget(id).await
    }

    async fn sweep(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.inner.sweep(now).await
    }

    async fn track(&self, state: TrackedState) -> Result<(), StoreError> {
        self.inner.track(state).await
    }

    async fn tracked(&self, id: &TaskId) -> Result<Option<TrackedState>, StoreError> {
        self.inner.tracked(id).await
    }

    async fn untrack(&self, id: &TaskId) -> Result<(), StoreError> {
        self.inner.untrack(id).await
    }

    async fn revoke(&self, id: &TaskId, until: Timestamp) -> Result<(), StoreError> {
        self.inner.revoke(id, until).await
    }

    async fn revoked(&self, ids: &[TaskId], now: Timestamp) -> Result<Vec<TaskId>, StoreError> {
        self.inner.revoked(ids, now).await
    }

    fn is_known_revoked(&self, id: &TaskId, now: Timestamp) -> Option<bool> {
        self.inner.is_known_revoked(id, now)
    }

    fn chords(&self) -> Option<&dyn ChordStore> {
        Some(self)
    }

    fn groups(&self) -> Option<&dyn GroupStore> {
        None
    }

    fn duplicates(&self) -> Option<&dyn DuplicateStore> {
        None
    }

    fn notes(&self) -> Option<&dyn Notes> {
        None
    }

    fn unique_windows(&self) -> Option<&dyn UniqueWindowStore> {
        None
    }

    fn permits(&self) -> Option<Arc<dyn PermitKeeper>> {
        None
    }
    fn shared_rates(&self) -> Option<&dyn SharedRates> {
        None
    }

    fn reply_to(&self) -> Option<String> {
        None
    }
}

#[async_trait]
impl ChordStore for Shared {
    async fn open_chord(&self, group: &str, size: u64) -> Result<(), StoreError> {
        self.inner.open_chord(group, size).await
    }

    async fn join_chord(&self, part: ChordPart) -> Result<ChordJoin, StoreError> {
        self.inner.join_chord(part).await
    }

    async fn close_chord(&self, group: &str, token: &str) -> Result<(), StoreError> {
        self.inner.close_chord(group, token).await
    }

    async fn extend_chord(&self, group: &str, id: &TaskId) -> Result<(), StoreError> {
        self.inner.extend_chord(group, id).await
    }

    async fn close_failed_chord(&self, group: &str, token: &str) -> Result<(), StoreError> {
        self.inner.close_failed_chord(group, token).await
    }
}

/// Celery's clients look at the members, then at the body, and raise what failed first: they must be able to see that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_failure_of_a_member_is_seen_before_that_of_the_body() {
    let store = Arc::new(Shared::default());
    let (celeriac, _) = apart_with(Arc::clone(&store) as Arc<dyn Store>).await;
    let header = [add::s(1, 1).into_canvas(), fail::s("broken".into()).then(twice::p())];
    let body = chord(header, sum::p()).send(celeriac.client()).await.unwrap();
    assert!(body.get(LONG).await.is_err());
    let member = body.parent().unwrap().members()[1].id().clone();
    let written = store.written.lock().unwrap().clone();
    let between = written[body.id()].duration_since(written[&member]);
    assert!(between >= Duration::from_millis(30), "{between:?}");
    celeriac.shutdown().await.unwrap();
}
