//! Where the reports of a body in a child go: to the run in the program, which shows and stores them.

use std::sync::Arc;

use parking_lot::Mutex;

use super::super::protocol::{BarReport, Up};
use super::uplink::Uplink;
use crate::task::{ProgressCell, ProgressSink, StateSink, TaskId, TrackedState, read_progress};

/// Hands the states of one run over.
pub(super) struct ChildStates {
    pub(super) uplink: Arc<Uplink>,
    pub(super) run: u64,
}

impl StateSink for ChildStates {
    fn update(&self, state: TrackedState) {
        self.uplink.state(self.run, state.state, state.meta);
    }

    fn update_bar(&self, state: TrackedState) {
        let (progress, note) = read_progress(&state.meta);
        let progress = progress.map(|progress| (progress.current, progress.total));
        self.uplink.bar(self.run, BarReport { progress, note });
    }

    fn failed(&self, errors: &[String]) {
        self.uplink.push(Up::Failed { run: self.run, errors: errors.to_vec() });
    }
}

/// Keeps the bar of one run, and looks at it now and then: a bar says by itself only what is a percent further.
pub(super) struct ChildBar {
    /// What earlier runs have shown.
    before: Option<TrackedState>,
    cell: Mutex<Option<Arc<ProgressCell>>>,
}

impl ChildBar {
    pub(super) fn new(before: Option<TrackedState>) -> Self {
        Self { before, cell: Mutex::default() }
    }

    /// Has the bar say what is new.
    pub(super) fn tick(&self) {
        let cell = self.cell.lock().clone();
        if let Some(cell) = cell {
            cell.tick();
        }
    }
}

impl ProgressSink for ChildBar {
    fn shown_before(&self, _: &TaskId) -> Option<TrackedState> {
        self.before.clone()
    }

    fn opened(&self, cell: &Arc<ProgressCell>) {
        *self.cell.lock() = Some(Arc::clone(cell));
    }

    fn closed(&self, _: &TaskId) {
        *self.cell.lock() = None;
    }
}
