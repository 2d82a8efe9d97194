//! What happened in a test, in order.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::store::{MemoryStore, Store};
use crate::task::{Message, State, StateSink, TaskId, TrackedState};

/// One run of a task, or its end without one.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Ran {
    /// The task's id.
    pub id: TaskId,
    /// The task's name.
    pub task: String,
    /// The queue it came through.
    pub queue: String,
    /// Which attempt it was, from 1.
    pub attempt: u32,
    /// What state it left the task in: a finished one, `Retry`, or `Pending` after a postponement, a continuation, a
    /// replacement or a crash.
    pub state: State,
    /// Why, if it did not go well.
    pub errors: Vec<String>,
    /// Its worker was made to die.
    pub crashed: bool,
    /// It failed by `TaskError::fail`.
    pub(super) chosen: bool,
}

/// A state that a body reported by `update_state`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReportedState {
    /// The state, such as PROGRESS.
    pub state: String,
    /// What went with it.
    pub meta: Value,
}

/// The notebook.
pub(super) struct Recorder {
    store: Arc<MemoryStore>,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    known: HashSet<TaskId>,
    enqueued: Vec<Arc<Message>>,
    states: Vec<TrackedState>,
    runs: Vec<Ran>,
}

impl Recorder {
    pub(super) fn new(store: Arc<MemoryStore>) -> Self {
        Self { store, notes: Mutex::default() }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message waits. The first time, that is its enqueue.
    pub(super) fn heard(&self, message: &Arc<Message>) {
        let mut notes = self.notes();
        if notes.known.insert(message.id.clone()) {
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

    /// The last run of a task.
    pub(super) fn last_run(&self, id: &TaskId) -> Option<Ran> {
        self.notes().runs.iter().rfind(|ran| ran.id == *id).cloned()
    }

    pub(super) fn states(&self, id: &TaskId) -> Vec<ReportedState> {
        let notes = self.notes();
        let of_task = notes.states.iter().filter(|state| state.id == *id);
        of_task.map(|state| ReportedState { state: state.state.clone(), meta: state.meta.clone() }).collect()
    }

    /// Forgets what was enqueued, and ran, so far. What waits still waits, and is not enqueued a second time by that.
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
        // The store in memory never waits.
        let _ = futures_executor::block_on(self.store.track(state));
    }
}
