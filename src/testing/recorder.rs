//! What happened in a test, in order.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use futures_util::FutureExt;
use serde_json::Value;

use crate::actors::progress::Board;
use crate::store::{MemoryStore, Store};
use crate::task::{Message, State, StateSink, TaskId, TrackedState, read_progress};

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
    board: OnceLock<Arc<Board>>,
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
        Self { store, board: OnceLock::new(), notes: Mutex::default() }
    }

    /// Who shows what bodies tell.
    pub(super) fn show_on(&self, board: &Arc<Board>) {
        let _ = self.board.set(Arc::clone(board));
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

    /// How far a task said it was, as far as it was shown.
    pub(super) fn progress(&self, id: &TaskId) -> Vec<(u64, u64)> {
        let notes = self.notes();
        let of_task = notes.states.iter().filter(|state| state.id == *id);
        let shown = of_task.filter_map(|state| read_progress(&state.meta).0);
        shown.map(|progress| (progress.current, progress.total)).collect()
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
        let _ = self.store.track(state.clone()).now_or_never();
        if let Some(board) = self.board.get() {
            board.stored(&state);
        }
    }
}
