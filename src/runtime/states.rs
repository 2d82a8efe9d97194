//! Writes the states that bodies report (`PROGRESS` and a program's own) to the store, in the background.
//!
//! Invariants:
//! - A body never waits for the store.
//! - For each task at most one state waits: a newer one replaces it. So there are never more than tasks that run.
//! - The states of one task are written one after the other. The end of a run waits until its last state is
//!   written, so that no state comes after the record.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::progress::ProgressHub;
use crate::store::Store;
use crate::task::{StateSink, TaskId, TrackedState, panic_message};

/// How many states are written at a time.
const BATCH: usize = 64;
/// How many states may wait; more than tasks ever run at once. Beyond that a state is dropped rather than memory
/// taken.
const MOST: usize = 100_000;

/// The writer. Its thread starts with the first state and ends with the writer.
pub(crate) struct StateWriter {
    shared: Arc<StateWriterInner>,
    thread: OnceLock<()>,
}

struct StateWriterInner {
    store: Arc<dyn Store>,
    /// Shows a state once it is stored.
    progress_hub: Arc<dyn ProgressHub>,
    waiting: Mutex<PendingState>,
    /// The number of tasks whose states wait or are being written. The end of a run without any costs one load of
    /// this.
    count: AtomicUsize,
    /// There is something to write, or the writer was dropped.
    arrived: Notify,
    /// A batch was written.
    written: Notify,
}

#[derive(Default)]
struct PendingState {
    states: HashMap<TaskId, TrackedState>,
    order: VecDeque<TaskId>,
    in_flight: HashSet<TaskId>,
    closed: bool,
}

impl StateWriter {
    pub(crate) fn new(store: Arc<dyn Store>, progress_hub: Arc<dyn ProgressHub>) -> Self {
        let shared = StateWriterInner {
            store,
            progress_hub,
            waiting: Mutex::default(),
            count: AtomicUsize::new(0),
            arrived: Notify::new(),
            written: Notify::new(),
        };
        Self { shared: Arc::new(shared), thread: OnceLock::new() }
    }

    /// Waits until all states of this task are written or given up.
    pub(crate) async fn flush(&self, id: &TaskId) {
        while self.shared.count.load(Ordering::Acquire) > 0 {
            // The future is enabled before the look, so that no end of a batch falls between the two.
            let written = self.shared.written.notified();
            let mut written = std::pin::pin!(written);
            written.as_mut().enable();
            {
                let waiting = self.shared.waiting();
                if !waiting.states.contains_key(id) && !waiting.in_flight.contains(id) {
                    return;
                }
            }
            written.await;
        }
    }

    fn start(&self) {
        let shared = Arc::clone(&self.shared);
        let run = move || {
            let written = std::panic::catch_unwind(AssertUnwindSafe(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(shared.write());
                Ok(())
            }));
            // However the thread ends, nobody may wait for it from now on.
            match written {
                Ok(Ok(())) => {}
                Ok(Err(error)) => shared.give_up(&error),
                Err(panic) => shared.give_up(&std::io::Error::other(panic_message(panic))),
            }
        };
        let started = std::thread::Builder::new().name("celeriac-states".to_owned()).spawn(run);
        if let Err(error) = started {
            self.shared.give_up(&error);
        }
    }
}

impl StateSink for StateWriter {
    fn update(&self, state: TrackedState) {
        {
            let mut waiting = self.shared.waiting();
            if waiting.closed {
                return;
            }
            let id = state.id.clone();
            if let Some(older) = waiting.states.get_mut(&id) {
                *older = state;
                return;
            }
            if waiting.states.len() >= MOST {
                tracing::warn!(%id, state = state.state, "too many states wait for the store; this one is dropped");
                return;
            }
            waiting.states.insert(id.clone(), state);
            waiting.order.push_back(id);
            self.shared.recount(&waiting);
        }
        self.thread.get_or_init(|| self.start());
        self.shared.arrived.notify_one();
    }
}

impl Drop for StateWriter {
    fn drop(&mut self) {
        self.shared.waiting().closed = true;
        self.shared.arrived.notify_one();
    }
}

impl StateWriterInner {
    fn waiting(&self) -> MutexGuard<'_, PendingState> {
        self.waiting.lock()
    }

    fn recount(&self, waiting: &PendingState) {
        self.count.store(waiting.states.len() + waiting.in_flight.len(), Ordering::Release);
    }

    /// Writes batch after batch. Ends when the writer is dropped and all is written.
    async fn write(&self) {
        loop {
            let batch = self.take();
            if batch.is_empty() {
                if self.waiting().closed {
                    return;
                }
                self.arrived.notified().await;
                continue;
            }
            let writes = batch.into_iter().map(|state| async move {
                let id = state.id.clone();
                // A store that panics costs this one state, and not the thread that writes those of all tasks.
                let tracked = AssertUnwindSafe(async { self.store.track(state.clone()).await });
                match tracked.catch_unwind().await {
                    Ok(Ok(())) => self.progress_hub.stored(&state),
                    Ok(Err(error)) => {
                        tracing::warn!(%id, %error, "the state of a task is not stored; its run goes on");
                    }
                    Err(panic) => {
                        let panic = panic_message(panic);
                        tracing::error!(%id, panic, "the store panicked; the state of a task is not stored, and its run goes on");
                    }
                }
            });
            futures_util::future::join_all(writes).await;
            let mut waiting = self.waiting();
            waiting.in_flight.clear();
            self.recount(&waiting);
            drop(waiting);
            self.written.notify_waiters();
        }
    }

    fn take(&self) -> Vec<TrackedState> {
        let mut waiting = self.waiting();
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Some(id) = waiting.order.pop_front()
        {
            if let Some(state) = waiting.states.remove(&id) {
                waiting.in_flight.insert(id);
                batch.push(state);
            }
        }
        batch
    }

    /// Drops all states: without a thread nothing is written, and nobody may wait for it.
    fn give_up(&self, error: &std::io::Error) {
        tracing::error!(%error, "no thread to write states of tasks; they are dropped");
        let mut waiting = self.waiting();
        *waiting = PendingState { closed: true, ..PendingState::default() };
        self.recount(&waiting);
        drop(waiting);
        self.written.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;
    use tokio::sync::Semaphore;

    use super::super::progress::LocalProgressHub;
    use super::*;
    use crate::core::Timestamp;
    use crate::store::{
        ChordStore, DuplicateStore, GroupStore, Notes, SharedRates, StoreError, UniqueWindowStore,
    };
    use crate::task::{PermitKeeper, TaskResult};

    /// Longer than anything here takes on a slow machine.
    const PATIENCE: Duration = Duration::from_secs(120);

    /// A store that writes one state for each permit, and panics at a state of the name `panic`.
    struct SlowStore {
        permits: Semaphore,
        written: Mutex<Vec<(TaskId, String)>>,
    }

    #[async_trait]
    impl Store for SlowStore {
        async fn put(&self, _: TaskResult) -> Result<bool, StoreError> {
            Err(StoreError::Closed)
        }
        async fn get(&self, _: &TaskId, _: Timestamp) -> Result<Option<TaskResult>, StoreError> {
            Err(StoreError::Closed)
        }
        async fn wait(&self, _: &TaskId) -> Result<TaskResult, StoreError> {
            Err(StoreError::Closed)
        }
        async fn forget(&self, _: &TaskId) -> Result<bool, StoreError> {
            Err(StoreError::Closed)
        }
        async fn sweep(&self, _: Timestamp) -> Result<usize, StoreError> {
            Err(StoreError::Closed)
        }
        async fn track(&self, state: TrackedState) -> Result<(), StoreError> {
            assert!(state.state != "panic", "this store panics");
            self.permits.acquire().await.map_err(|_| StoreError::Closed)?.forget();
            self.written.lock().push((state.id, state.state));
            Ok(())
        }
        async fn tracked(&self, _: &TaskId) -> Result<Option<TrackedState>, StoreError> {
            Err(StoreError::Closed)
        }
        async fn revoke(&self, _: &TaskId, _: Timestamp) -> Result<(), StoreError> {
            Err(StoreError::Closed)
        }
        async fn revoked(&self, _: &[TaskId], _: Timestamp) -> Result<Vec<TaskId>, StoreError> {
            Err(StoreError::Closed)
        }
        fn is_known_revoked(&self, _: &TaskId, _: Timestamp) -> Option<bool> {
            None
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

    fn state(id: &str, state: String) -> TrackedState {
        TrackedState { id: id.into(), state, meta: ().into(), traceback: None, lineage: None }
    }

    #[tokio::test]
    async fn states_are_written_in_order_and_the_end_waits_for_the_last() {
        let store = Arc::new(SlowStore { permits: Semaphore::new(0), written: Mutex::default() });
        let progress_hub = Arc::new(LocalProgressHub::default());
        let writer = Arc::new(StateWriter::new(store.clone(), progress_hub));
        writer.flush(&"a".into()).await; // there is nothing to wait for
        for n in 0..1000 {
            writer.update(state("a", n.to_string()));
            writer.update(state("b", n.to_string()));
        }
        let flushed = {
            let writer = Arc::clone(&writer);
            tokio::spawn(async move { writer.flush(&"a".into()).await })
        };
        tokio::task::yield_now().await;
        assert!(!flushed.is_finished());
        store.permits.add_permits(1_000);
        tokio::time::timeout(PATIENCE, flushed).await.unwrap().unwrap();
        writer.flush(&"b".into()).await;
        let written = store.written.lock().clone();
        for id in ["a", "b"] {
            let of_one: Vec<u32> =
                written.iter().filter(|(i, _)| i.as_str() == id).map(|(_, n)| n.parse().unwrap()).collect();
            assert!(of_one.is_sorted(), "{of_one:?}");
            assert_eq!(of_one.last(), Some(&999));
            assert!(of_one.len() < 10, "coalesced: {of_one:?}");
        }
    }

    #[tokio::test]
    async fn a_store_that_fails_holds_nobody_up() {
        let store = Arc::new(SlowStore { permits: Semaphore::new(0), written: Mutex::default() });
        store.permits.close();
        let progress_hub = Arc::new(LocalProgressHub::default());
        let writer = StateWriter::new(store, progress_hub);
        writer.update(state("a", "PROGRESS".into()));
        tokio::time::timeout(PATIENCE, writer.flush(&"a".into())).await.unwrap();
    }

    #[tokio::test]
    async fn a_store_that_panics_holds_nobody_up() {
        let store = Arc::new(SlowStore { permits: Semaphore::new(1_000), written: Mutex::default() });
        let progress_hub = Arc::new(LocalProgressHub::default());
        let writer = StateWriter::new(store.clone(), progress_hub);
        for round in 0..3 {
            writer.update(state("a", "panic".into()));
            tokio::time::timeout(PATIENCE, writer.flush(&"a".into())).await.unwrap();
            writer.update(state("b", format!("{round}")));
            tokio::time::timeout(PATIENCE, writer.flush(&"b".into())).await.unwrap();
        }
        let written: Vec<_> = store.written.lock().iter().map(|(_, state)| state.clone()).collect();
        assert_eq!(written, ["0", "1", "2"]);
    }
}
