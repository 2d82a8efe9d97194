//! The report of a body about its progress.
//!
//! A body may report at every step of a tight loop. So a report costs no more than two loads and a store, unless it
//! reaches another whole percent. [`Bar`] decides which reports are published. The progress actor collects from the
//! cell the reports within a percent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};

use super::clock::now;
use super::{Context, Lineage, TaskId, TrackedState};
use crate::core::Progress;
use crate::core::progress::Bar;
use crate::core::text::{ERROR, shortened};

/// The state of a task that reports progress. HQ and Celery's manual use this name.
pub(crate) const PROGRESS: &str = "PROGRESS";

/// The receiver of progress bars.
pub(crate) trait ProgressSink: Send + Sync {
    /// The state that earlier runs of this task have shown.
    fn shown_before(&self, id: &TaskId) -> Option<TrackedState>;

    /// Registers the bar of a run that has begun to report.
    fn opened(&self, cell: &Arc<ProgressCell>);

    /// Removes the bar of a run that reports no more.
    fn closed(&self, id: &TaskId);
}

/// The progress of one run, as its body reports it.
pub(crate) struct ProgressCell {
    current: AtomicU64,
    total: AtomicU64,
    /// The first value of `current` that reaches another percent.
    next: AtomicU64,
    bar: Mutex<BarState>,
    context: std::sync::Weak<super::context::RunState>,
    id: TaskId,
    lineage: Option<Box<Lineage>>,
}

struct BarState {
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
            bar: Mutex::new(BarState { bar: Bar::resumed(shown, note), closed: false }),
            context: context.downgrade(),
            id: context.id().clone(),
            lineage: Lineage::of(context.message()),
        }
    }

    pub(crate) fn id(&self) -> &TaskId {
        &self.id
    }

    fn state(&self) -> MutexGuard<'_, BarState> {
        self.bar.lock()
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

    /// The last report; zero of zero if there was none.
    fn last(&self) -> (u64, u64) {
        (self.current.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    /// Publishes the last report if enough time has passed for it to be worth it.
    pub(crate) fn tick(&self) {
        let mut state = self.state();
        let (current, total) = self.last();
        if !state.closed && state.bar.tick(current, total, now()) {
            self.tell(&state.bar);
        }
    }

    /// Closes the bar at the end of the run. With `tell` the task is not over, and its last report is published.
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
            context.tell_bar(TrackedState {
                id: self.id.clone(),
                state: PROGRESS.to_owned(),
                meta: meta(bar.shown(), bar.note()).into(),
                traceback: None,
                lineage: self.lineage.clone(),
            });
        }
    }
}

/// The data of the state `PROGRESS`, as HQ's Soil writes it, with the note. A total that is not known is null, because
/// HQ's Soil takes a total of 0 for the end.
pub(crate) fn meta(shown: Option<Progress>, note: Option<&str>) -> Value {
    let current = shown.map_or(0, |shown| shown.current);
    let total = shown.map(|shown| shown.total).filter(|total| *total > 0);
    let mut meta = json!({ "current": current, "total": total });
    if let Some(note) = note {
        meta["note"] = note.into();
    }
    meta
}

/// Reads progress and note from the data of a state, whichever program wrote it.
pub(crate) fn read_meta(meta: &Value) -> (Option<Progress>, Option<String>) {
    // Numbers from Python may be floats.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let number = |value: &Value| value.as_u64().or_else(|| value.as_f64().map(|number| number as u64));
    // The state RETRY keeps the progress beside its exception.
    let meta = meta.get("progress").filter(|inner| inner.is_object()).unwrap_or(meta);
    let current = meta.get("current").and_then(number);
    let total = meta.get("total").and_then(number).unwrap_or(0);
    let progress = current.map(|current| Progress::of(current, total));
    let progress = progress.filter(|shown| (shown.current, shown.total) != (0, 0));
    let note = meta.get("note").and_then(Value::as_str).map(str::to_owned);
    (progress, note)
}

impl Context {
    /// Reports the progress of the task: HQ's `DownloadBase.set_progress(task, current, total)`, in Celery
    /// `update_state("PROGRESS", …)`. A total of 0 stands for one that is not known.
    ///
    /// Call it at each step. A call costs a few nanoseconds; the runtime publishes each whole percent, and otherwise
    /// one report per 200 ms. The call waits for nothing and is part of no transaction of the caller's.
    ///
    /// The shown progress never goes back, even if the task is tried again from its start. It never reaches the end,
    /// because only the outcome says that the task is done. After [`fail`](Self::fail) the call has no effect.
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

    /// Reports in a few words what the task does now, such as `"packing"`, to be shown beside the bar. The note is
    /// published as [`progress`](Self::progress) is, and the last one stays. A note of more than 2,000 bytes is cut.
    pub fn progress_note(&self, note: impl AsRef<str>) {
        if let Some(cell) = self.cell() {
            cell.note(&shortened(note.as_ref(), ERROR));
        }
    }

    /// The progress that this run or an earlier one has shown. A continuation counts on from there.
    pub fn progress_shown(&self) -> Option<Progress> {
        self.cell()?.shown()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Json;

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
            (r#"{"current": 3, "total": 1e400}"#, Some(Progress::of(3, u64::MAX))),
            ("null", None),
            ("[1]", None),
        ] {
            assert_eq!(read_meta(&text.parse::<Json>().unwrap()).0, read, "{text}");
        }
    }

    #[test]
    fn half_an_emoji_in_a_note_hides_no_bar() {
        let meta: Json = r#"{"current": 5, "total": 10, "note": "row \ud83d"}"#.parse().unwrap();
        assert_eq!(read_meta(&meta), (Some(Progress::of(5, 10)), Some("row \u{fffd}".to_owned())));
    }
}
