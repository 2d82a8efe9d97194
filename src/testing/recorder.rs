//! Records what happened in a test, in order.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt;
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;

use crate::runtime::progress::ProgressHub;
use crate::store::{MemoryStore, Store};
use crate::task::{Message, State, StateSink, TaskId, TrackedState, read_progress};

/// A run of a task, or the end of a task that never ran.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Ran {
    /// The id of the task.
    pub id: TaskId,
    /// The name of the task.
    pub task: String,
    /// The queue that the task came through.
    pub queue: String,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The state in which the run left the task: a finished one, `Retry`, or `Pending` after a postponement, a
    /// continuation, a replacement or a crash.
    pub state: State,
    /// The errors of the run; none if it succeeded.
    pub errors: Vec<String>,
    /// Whether the test made the worker of this run die.
    pub crashed: bool,
    /// Whether the task failed by `TaskError::fail`.
    pub(super) chosen: bool,
}

/// A state that a body reported by `update_state`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReportedState {
    /// The name of the state, such as PROGRESS.
    pub state: String,
    /// The data that the body reported with the state.
    pub meta: Value,
}

/// The record of a test: what was enqueued, reported and run.
pub(super) struct Recorder {
    store: Arc<MemoryStore>,
    progress_hub: OnceLock<Arc<dyn ProgressHub>>,
    notes: Mutex<Notebook>,
}

#[derive(Default)]
struct Notebook {
    /// The calls that were heard of, by id and task: a task that is replaced by another one leaves it its id.
    known: HashSet<(TaskId, String)>,
    enqueued: Vec<Arc<Message>>,
    states: Vec<TrackedState>,
    runs: Vec<Ran>,
}

impl Recorder {
    pub(super) fn new(store: Arc<MemoryStore>) -> Self {
        Self { store, progress_hub: OnceLock::new(), notes: Mutex::default() }
    }

    /// Sets the board that shows the states reported by bodies.
    pub(super) fn show_on(&self, progress_hub: &Arc<dyn ProgressHub>) {
        let _ = self.progress_hub.set(Arc::clone(progress_hub));
    }

    fn notes(&self) -> MutexGuard<'_, Notebook> {
        self.notes.lock()
    }

    /// Hears that a message waits. The first time, that is its enqueue.
    pub(super) fn heard(&self, message: &Arc<Message>) {
        let mut notes = self.notes();
        if notes.known.insert((message.id.clone(), message.task.clone())) {
            notes.enqueued.push(Arc::clone(message));
        }
    }

    pub(super) fn ran(&self, ran: Ran) {
        self.notes().runs.push(ran);
    }

    pub(super) fn enqueued(&self) -> Vec<Arc<Message>> {
        self.notes().enqueued.clone()
    }

    pub(super) fn runs(&self) -> Vec<Ran> {
        self.notes().runs.clone()
    }

    /// The last recorded run of a task.
    pub(super) fn last_run(&self, id: &TaskId) -> Option<Ran> {
        self.notes().runs.iter().rfind(|ran| ran.id == *id).cloned()
    }

    pub(super) fn states(&self, id: &TaskId) -> Vec<ReportedState> {
        let notes = self.notes();
        let of_task = notes.states.iter().filter(|state| state.id == *id);
        of_task
            .map(|state| ReportedState { state: state.state.clone(), meta: state.meta.value().clone() })
            .collect()
    }

    /// The progress that a task reported, as far as users would see it.
    pub(super) fn progress(&self, id: &TaskId) -> Vec<(u64, u64)> {
        let notes = self.notes();
        let of_task = notes.states.iter().filter(|state| state.id == *id);
        let shown = of_task.filter_map(|state| read_progress(&state.meta).0);
        shown.map(|progress| (progress.current, progress.total)).collect()
    }

    /// Forgets the tasks enqueued, the states reported and the runs so far. A task that still waits does not count as
    /// enqueued again.
    pub(super) fn clear(&self) {
        let mut notes = self.notes();
        notes.enqueued.clear();
        notes.runs.clear();
        notes.states.clear();
    }
}

impl StateSink for Recorder {
    fn update(&self, state: TrackedState) {
        self.notes().states.push(state.clone());
        // The memory store never waits.
        let _ = self.store.track(state.clone()).now_or_never();
        if let Some(progress_hub) = self.progress_hub.get() {
            progress_hub.stored(&state);
        }
    }
}
