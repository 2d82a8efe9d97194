//! A store that panics: what it was asked for is not had, and everybody else goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use celeriac::broker::MemoryBroker;
use celeriac::core::Timestamp;
use celeriac::store::{
    ChordStore, DuplicateStore, GroupStore, MemoryStore, Notes, SharedRates, Store, StoreError,
    UniqueWindowStore,
};
use celeriac::task::{PermitKeeper, TaskResult, TrackedState};
use celeriac::{Context, State, TaskId, task};

use crate::kit::{LONG, builder, record};

/// Panics at most of what a runtime asks of it beside its actors, some times each; else it is a store in memory.
struct Fragile {
    store: Arc<MemoryStore>,
    track: AtomicUsize,
    tracked: AtomicUsize,
}

impl Fragile {
    fn strike(of: &AtomicUsize, what: &str) {
        if of.fetch_add(1, Ordering::SeqCst) < 2 {
            panic!("{what} panics");
        }
    }
}

#[async_trait]
impl Store for Fragile {
    async fn put(&self, result: TaskResult) -> Result<bool, StoreError> {
        self.store.put(result).await
    }
    async fn get(&self, id: &TaskId, now: Timestamp) -> Result<Option<TaskResult>, StoreError> {
        self.store.get(id, now).await
    }
    async fn wait(&self, id: &TaskId) -> Result<TaskResult, StoreError> {
        self.store.wait(id).await
    }
    async fn forget(&self, id: &TaskId) -> Result<bool, StoreError> {
        self.store.forget(id).await
    }
    async fn sweep(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.store.sweep(now).await
    }
    async fn track(&self, state: TrackedState) -> Result<(), StoreError> {
        Self::strike(&self.track, "track");
        self.store.track(state).await
    }
    async fn tracked(&self, id: &TaskId) -> Result<Option<TrackedState>, StoreError> {
        Self::strike(&self.tracked, "tracked");
        self.store.tracked(id).await
    }
    async fn revoke(&self, id: &TaskId, until: Timestamp) -> Result<(), StoreError> {
        self.store.revoke(id, until).await
    }
    async fn revoked(&self, ids: &[TaskId], now: Timestamp) -> Result<Vec<TaskId>, StoreError> {
        self.store.revoked(ids, now).await
    }
    fn is_known_revoked(&self, id: &TaskId, now: Timestamp) -> Option<bool> {
        self.store.is_known_revoked(id, now)
    }

    async fn untrack(&self, _: &TaskId) -> Result<(), StoreError> {
        Ok(())
    }

    fn chords(&self) -> Option<&dyn ChordStore> {
        None
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

    fn is_shared(&self) -> bool {
        false
    }
}

#[task(queue = "io")]
async fn tells(ctx: Context, n: u64) -> u64 {
    ctx.progress(n, 100);
    n
}

#[tokio::test]
async fn a_store_that_panics_stalls_no_worker() {
    let memory = Arc::new(MemoryStore::default());
    let broker = Arc::new(MemoryBroker::new(Arc::clone(&memory)));
    let store = Arc::new(Fragile { store: memory, track: AtomicUsize::new(0), tracked: AtomicUsize::new(0) });
    let given: Arc<dyn Store> = Arc::<Fragile>::clone(&store);
    let celeriac = builder().broker(broker, given).start().await.unwrap();
    for n in 1..=8 {
        let task = tells::s(n).send(celeriac.client()).await.unwrap();
        assert_eq!(tokio::time::timeout(LONG, task.get(LONG)).await.unwrap().unwrap(), n);
        assert_eq!(record(&task).await.state, State::Success);
    }
    assert!(store.track.load(Ordering::SeqCst) > 2, "it was asked again after its panics");
    celeriac.shutdown().await.unwrap();
}
