//! Takes the states that bodies report (`PROGRESS`, …) to the store, behind their backs.
//!
//! A body never waits for the store. What is not written yet is kept once a task: a newer state takes the place of the
//! older one, so there are never more than tasks that run. States of one task are written one after the other, and the
//! end of a run waits until its last one is.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;

use super::progress::Board;
use crate::store::Store;
use crate::task::{StateSink, TaskId, TrackedState};

/// States written at a time.
const BATCH: usize = 64;
/// More tasks than ever run at once; beyond that a state is dropped rather than memory taken.
const MOST: usize = 100_000;

/// The writer; its thread starts with the first state and ends with the writer.
pub(crate) struct StateWriter {
    shared: Arc<Shared>,
    thread: OnceLock<()>,
}

struct Shared {
    store: Arc<dyn Store>,
    /// Who shows what is stored.
    board: Arc<Board>,
    waiting: Mutex<Waiting>,
    /// Tasks that wait or are being written, so that an end without any costs one load.
    count: AtomicUsize,
    /// There is something to write, or nothing any more for ever.
    arrived: Notify,
    /// A batch is written.
    written: Notify,
}

#[derive(Default)]
struct Waiting {
    states: HashMap<TaskId, TrackedState>,
    order: VecDeque<TaskId>,
    in_flight: HashSet<TaskId>,
    closed: bool,
}

impl StateWriter {
    pub(crate) fn new(store: Arc<dyn Store>, board: Arc<Board>) -> Self {
        let shared = Shared {
            store,
            board,
            waiting: Mutex::default(),
            count: AtomicUsize::new(0),
            arrived: Notify::new(),
            written: Notify::new(),
        };
        Self { shared: Arc::new(shared), thread: OnceLock::new() }
    }

    /// Waits until all that was reported of this task is written, or given up.
    pub(crate) async fn flush(&self, id: &TaskId) {
        while self.shared.count.load(Ordering::Acquire) > 0 {
            // Asked for before the look, so that no end of a batch falls between the two.
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
        let run = move || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(shared.write()),
            Err(error) => shared.give_up(&error),
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

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recount(&self, waiting: &Waiting) {
        self.count.store(waiting.states.len() + waiting.in_flight.len(), Ordering::Release);
    }

    /// Writes batch after batch; ends when the writer is dropped and all is written.
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
                match self.store.track(state.clone()).await {
                    Ok(()) => self.board.stored(&state),
                    Err(error) => {
                        tracing::warn!(%id, %error, "the state of a task is not stored; its run goes on");
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

    /// Without a thread nothing is written, and nobody may wait for it.
    fn give_up(&self, error: &std::io::Error) {
        tracing::error!(%error, "no thread to write states of tasks; they are dropped");
        let mut waiting = self.waiting();
        *waiting = Waiting { closed: true, ..Waiting::default() };
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

    use super::*;
    use crate::core::Timestamp;
    use crate::store::StoreError;
    use crate::task::TaskResult;

    /// Writes one state for each permit.
    struct Slow {
        permits: Semaphore,
        written: Mutex<Vec<(TaskId, String)>>,
    }

    #[async_trait]
    impl Store for Slow {
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
            self.permits.acquire().await.map_err(|_| StoreError::Closed)?.forget();
            self.written.lock().unwrap().push((state.id, state.state));
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
    }

    fn state(id: &str, state: String) -> TrackedState {
        TrackedState { id: id.into(), state, meta: ().into(), traceback: None, lineage: None }
    }

    #[tokio::test]
    async fn states_are_written_in_order_and_the_end_waits_for_the_last() {
        let store = Arc::new(Slow { permits: Semaphore::new(0), written: Mutex::default() });
        let board = Arc::new(Board::new(store.clone()));
        let writer = Arc::new(StateWriter::new(store.clone(), board));
        writer.flush(&"a".into()).await; // nothing to wait for
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
        tokio::time::timeout(Duration::from_secs(20), flushed).await.unwrap().unwrap();
        writer.flush(&"b".into()).await;
        let written = store.written.lock().unwrap().clone();
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
        let store = Arc::new(Slow { permits: Semaphore::new(0), written: Mutex::default() });
        store.permits.close();
        let board = Arc::new(Board::new(store.clone()));
        let writer = StateWriter::new(store, board);
        writer.update(state("a", "PROGRESS".into()));
        tokio::time::timeout(Duration::from_secs(20), writer.flush(&"a".into())).await.unwrap();
    }
}
