//! The progress bars of the tasks that run in this process, and the seam to whoever keeps them.
//!
//! A body writes into its cell and waits for nobody. A [`ProgressHub`] keeps the [bars](Bars): it looks at the
//! cells now and then, hears what the store has by now, and wakes those who watch a task. In a running tree the hub
//! is the progress actor's; a runtime without actors, as in a test, keeps the bars [itself](LocalProgressHub).

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use crate::store::Store;
use crate::task::{ProgressCell, ProgressSink, TaskId, TrackedState};

/// The bars of the runs here, what the store has of them, and who watches which task.
#[derive(Default)]
pub(crate) struct Bars {
    /// The cells of the runs that have a bar.
    cells: HashMap<TaskId, Arc<ProgressCell>>,
    /// The state that the store has of each of these tasks. Users are shown this, and never what is only in the cell.
    shown: HashMap<TaskId, TrackedState>,
    watched: HashMap<TaskId, watch::Sender<()>>,
}

impl Bars {
    /// Takes in the bar of a run.
    pub(crate) fn open(&mut self, cell: Arc<ProgressCell>) {
        self.cells.insert(cell.id().clone(), cell);
    }

    /// Forgets the bar of a run that has ended.
    pub(crate) fn close(&mut self, id: &TaskId) {
        self.cells.remove(id);
        self.shown.remove(id);
    }

    /// The store has this state of a task now. Wakes who watches the task.
    pub(crate) fn stored(&mut self, state: TrackedState) {
        self.changed(&state.id);
        if self.cells.contains_key(&state.id) {
            self.shown.insert(state.id.clone(), state);
        }
    }

    /// The state that was last shown of a task that runs here.
    pub(crate) fn get(&self, id: &TaskId) -> Option<TrackedState> {
        self.shown.get(id).cloned()
    }

    /// Wakes those who watch this task.
    pub(crate) fn changed(&self, id: &TaskId) {
        if let Some(watchers) = self.watched.get(id) {
            watchers.send_replace(());
        }
    }

    /// A receiver that is notified of each change of this task from now on.
    pub(crate) fn watch(&mut self, id: TaskId) -> watch::Receiver<()> {
        self.watched.entry(id).or_insert_with(|| watch::Sender::new(())).subscribe()
    }

    /// Forgets the watchers of a task if none is left.
    pub(crate) fn stop_watching(&mut self, id: &TaskId) {
        if self.watched.get(id).is_some_and(|watchers| watchers.receiver_count() == 0) {
            self.watched.remove(id);
        }
    }

    /// The cells of all runs that have a bar.
    pub(crate) fn cells(&self) -> impl Iterator<Item = &Arc<ProgressCell>> {
        self.cells.values()
    }
}

/// Whoever keeps the bars. Telling it something never waits.
#[async_trait]
pub(crate) trait ProgressHub: Send + Sync {
    /// A run has a bar from now on.
    fn opened(&self, cell: &Arc<ProgressCell>);

    /// The run of this task has ended, and its bar with it.
    fn closed(&self, id: &TaskId);

    /// The store has this state of a task now.
    fn stored(&self, state: &TrackedState);

    /// The run of this task has begun, or has ended.
    fn changed(&self, id: &TaskId);

    /// The state that was last shown of a task that runs here.
    async fn shown(&self, id: &TaskId) -> Option<TrackedState>;

    /// A receiver that is notified of each change of a task from now on. `None`: nobody keeps the bars just now.
    /// Callers use the function `watch`, which also tells when the watching ends.
    async fn subscribe(&self, id: &TaskId) -> Option<watch::Receiver<()>>;

    /// A subscriber of this task is gone.
    fn stop_watching(&self, id: &TaskId);
}

/// Is notified of each change of one task, for as long as it lives.
pub(crate) struct Watcher {
    progress_hub: Arc<dyn ProgressHub>,
    id: TaskId,
    changes: Option<watch::Receiver<()>>,
}

/// Watches a task. `None`: nobody keeps the bars just now.
pub(crate) async fn watch(progress_hub: &Arc<dyn ProgressHub>, id: &TaskId) -> Option<Watcher> {
    let changes = progress_hub.subscribe(id).await?;
    Some(Watcher { progress_hub: Arc::clone(progress_hub), id: id.clone(), changes: Some(changes) })
}

impl Watcher {
    /// Ignores all changes up to now.
    pub(crate) fn mark(&mut self) {
        if let Some(changes) = &mut self.changes {
            changes.mark_unchanged();
        }
    }

    /// Completes at the next change since the last [`mark`](Self::mark). `false`: whoever kept the bars is gone, so
    /// the caller must watch anew.
    pub(crate) async fn changed(&mut self) -> bool {
        match &mut self.changes {
            Some(changes) => changes.changed().await.is_ok(),
            None => false,
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.changes = None;
        self.progress_hub.stop_watching(&self.id);
    }
}

/// Takes the progress that bodies report to the hub.
pub(crate) struct BarSink {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) progress_hub: Arc<dyn ProgressHub>,
}

impl ProgressSink for BarSink {
    fn shown_before(&self, id: &TaskId) -> Option<TrackedState> {
        // A store in this process answers at once. What a shared store has was read before the body started
        // (`Runtime::begin`).
        if self.store.is_shared() {
            return None;
        }
        self.store.tracked(id).now_or_never()?.ok().flatten()
    }

    fn opened(&self, cell: &Arc<ProgressCell>) {
        self.progress_hub.opened(cell);
    }

    fn closed(&self, id: &TaskId) {
        self.progress_hub.closed(id);
    }
}

/// The bars of a runtime without actors. Nobody looks at the cells, so users see whole percents only.
#[derive(Default)]
pub(crate) struct LocalProgressHub(Mutex<Bars>);

impl LocalProgressHub {
    fn bars(&self) -> MutexGuard<'_, Bars> {
        self.0.lock()
    }
}

#[async_trait]
impl ProgressHub for LocalProgressHub {
    fn opened(&self, cell: &Arc<ProgressCell>) {
        self.bars().open(Arc::clone(cell));
    }

    fn closed(&self, id: &TaskId) {
        self.bars().close(id);
    }

    fn stored(&self, state: &TrackedState) {
        self.bars().stored(state.clone());
    }

    fn changed(&self, id: &TaskId) {
        self.bars().changed(id);
    }

    async fn shown(&self, id: &TaskId) -> Option<TrackedState> {
        self.bars().get(id)
    }

    async fn subscribe(&self, id: &TaskId) -> Option<watch::Receiver<()>> {
        Some(self.bars().watch(id.clone()))
    }

    fn stop_watching(&self, id: &TaskId) {
        self.bars().stop_watching(id);
    }
}
