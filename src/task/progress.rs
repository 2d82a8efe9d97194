//! How a body tells how far it is.
//!
//! A body may say so at every step of a tight loop, so a call does no more than two loads and a store, unless it makes
//! another whole percent. What is told is decided by [`Bar`]; what is said within a percent is collected
//! from the cell by the progress actor.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::clock::now;
use super::{Context, Lineage, TaskId, TrackedState};
use crate::core::Progress;
use crate::core::progress::Bar;

/// The state of a task that says how far it is; HQ's and the one of Celery's manual.
pub(crate) const PROGRESS: &str = "PROGRESS";

/// Where bars are seen.
pub(crate) trait ProgressSink: Send + Sync {
    /// What was shown of this task by earlier runs.
    fn shown_before(&self, id: &TaskId) -> Option<TrackedState>;

    /// A run has something to tell from now on.
    fn opened(&self, cell: &Arc<ProgressCell>);

    /// It has not any more.
    fn closed(&self, id: &TaskId);
}

/// What one run says.
pub(crate) struct ProgressCell {
    current: AtomicU64,
    total: AtomicU64,
    /// The first `current` that makes another percent.
    next: AtomicU64,
    bar: Mutex<State>,
    context: std::sync::Weak<super::context::Run>,
    id: TaskId,
    lineage: Option<Box<Lineage>>,
}

struct State {
    bar: Bar,
    closed: bool,
}

impl ProgressCell {
    pub(super) fn new(context: &Context, before: Option<&TrackedState>) -> Self {
        let (shown, note) = before.map_or((None, None), |state| read_meta(&state.meta));
        Self {
            current: AtomicU64::new(0),
            total: AtomicU64::new(0),
            next: AtomicU64::new(0),
            bar: Mutex::new(State { bar: Bar::resumed(shown, note), closed: false }),
            context: context.downgrade(),
            id: context.id().clone(),
            lineage: Lineage::of(context.message()),
        }
    }

    pub(crate) fn id(&self) -> &TaskId {
        &self.id
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn say(&self, current: u64, total: u64) {
        if self.total.load(Ordering::Relaxed) == total {
            self.current.store(current, Ordering::Relaxed);
            if current < self.next.load(Ordering::Relaxed) {
                return;
            }
        }
        self.look(current, total);
    }

    #[cold]
    fn look(&self, current: u64, total: u64) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        self.current.store(current, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        let is_due = state.bar.report(current, total, now());
        self.next.store(state.bar.next_step(total), Ordering::Relaxed);
        if is_due {
            self.tell(&state.bar);
        }
    }

    fn note(&self, note: &str) {
        let mut state = self.state();
        if !state.closed && state.bar.set_note(note, now()) {
            self.tell(&state.bar);
        }
    }

    /// What was said last; nought of nothing if nothing was.
    fn last(&self) -> (u64, u64) {
        (self.current.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    /// Some time has passed: tells what was said since, if it is worth telling.
    pub(crate) fn tick(&self) {
        let mut state = self.state();
        let (current, total) = self.last();
        if !state.closed && state.bar.tick(current, total, now()) {
            self.tell(&state.bar);
        }
    }

    /// The run has ended. `tell`: the task is not over, so what it said last is told.
    pub(crate) fn close(&self, tell: bool) {
        let mut state = self.state();
        let (current, total) = self.last();
        if !state.closed && state.bar.close(current, total) && tell {
            self.tell(&state.bar);
        }
        state.closed = true;
    }

    pub(crate) fn shown(&self) -> Option<Progress> {
        self.state().bar.shown()
    }

    fn tell(&self, bar: &Bar) {
        if let Some(context) = Context::upgrade(&self.context) {
            context.tell(TrackedState {
                id: self.id.clone(),
                state: PROGRESS.to_owned(),
                meta: meta(bar.shown(), bar.note()),
                traceback: None,
                lineage: self.lineage.clone(),
            });
        }
    }
}

/// The meta of `PROGRESS`, as HQ's Soil writes it, and the note. A total that is not known is null: HQ's Soil takes a
/// total of 0 for the end.
pub(crate) fn meta(shown: Option<Progress>, note: Option<&str>) -> Value {
    let current = shown.map_or(0, |shown| shown.current);
    let total = shown.map(|shown| shown.total).filter(|total| *total > 0);
    let mut meta = json!({ "current": current, "total": total });
    if let Some(note) = note {
        meta["note"] = note.into();
    }
    meta
}

/// What the meta of a state says of progress, whoever wrote it.
pub(crate) fn read_meta(meta: &Value) -> (Option<Progress>, Option<String>) {
    // Numbers of Python may be floats.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let number = |value: &Value| value.as_u64().or_else(|| value.as_f64().map(|number| number as u64));
    // A RETRY keeps it beside its exception.
    let meta = meta.get("progress").filter(|inner| inner.is_object()).unwrap_or(meta);
    let current = meta.get("current").and_then(number);
    let total = meta.get("total").and_then(number).unwrap_or(0);
    let progress = current.map(|current| Progress::of(current, total));
    let progress = progress.filter(|shown| (shown.current, shown.total) != (0, 0));
    let note = meta.get("note").and_then(Value::as_str).map(str::to_owned);
    (progress, note)
}

impl Context {
    /// Tells how far the task is: HQ's `DownloadBase.set_progress(task, current, total)`, in Celery
    /// `update_state("PROGRESS", …)`. A total of 0 is one that is not known.
    ///
    /// Call it at each step: a call costs a few nanoseconds, and the runtime tells others at each whole percent, else each
    /// 200 ms. It waits for nothing, and is part of no transaction of the caller's.
    ///
    /// What is shown never goes back, also when the task is tried again from its start, and never reaches the end: that is
    /// for the outcome to say. After [`fail`](Self::fail) it is ignored.
    ///
    /// ```
    /// use celeriac::{Context, task};
    ///
    /// #[task]
    /// fn count(ctx: &Context, rows: u64) -> u64 {
    ///     for row in 0..rows {
    ///         ctx.progress(row, rows);
    ///     }
    ///     rows
    /// }
    /// # fn main() { assert_eq!(count(&Context::detached(), 3), 3); }
    /// ```
    #[inline]
    pub fn progress(&self, current: u64, total: u64) {
        if let Some(cell) = self.cell() {
            cell.say(current, total);
        }
    }

    /// Tells what the task is at, in a few words to be shown beside the bar; `"packing"`. Told as
    /// [`progress`](Self::progress) is; the last note stays.
    pub fn progress_note(&self, note: impl AsRef<str>) {
        if let Some(cell) = self.cell() {
            cell.note(note.as_ref());
        }
    }

    /// How far the task has been shown to be, by this run or an earlier one: what a continuation counts on from.
    pub fn progress_shown(&self) -> Option<Progress> {
        self.cell()?.shown()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_is_hqs_and_reads_back() {
        for (progress, note, text) in [
            (Some(Progress::of(5, 10)), None, r#"{"current":5,"total":10}"#),
            (Some(Progress::of(7, 0)), Some("rows"), r#"{"current":7,"total":null,"note":"rows"}"#),
            (None, Some("packing"), r#"{"current":0,"total":null,"note":"packing"}"#),
        ] {
            let written = meta(progress, note);
            assert_eq!(written, serde_json::from_str::<Value>(text).unwrap());
            assert_eq!(read_meta(&written), (progress, note.map(str::to_owned)));
        }
    }

    #[test]
    fn whatever_python_wrote_is_read_or_nothing() {
        for (text, read) in [
            (r#"{"current": 3.0, "total": 10}"#, Some(Progress::of(3, 10))),
            (r#"{"current": -3, "total": 10}"#, Some(Progress::of(0, 10))),
            (r#"{"current": 10, "total": 10}"#, Some(Progress::of(9, 10))),
            (r#"{"current": null, "total": null}"#, None),
            (r#"{"current": 0, "total": 0}"#, None),
            (r#"{"current": "x"}"#, None),
            (r#"{"exc_type": "Error", "progress": {"current": 1, "total": 4}}"#, Some(Progress::of(1, 4))),
            ("null", None),
            ("[1]", None),
        ] {
            assert_eq!(read_meta(&serde_json::from_str(text).unwrap()).0, read, "{text}");
        }
    }
}
