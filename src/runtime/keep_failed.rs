//! The tasks that have failed for good and are kept: which, and for how long.
//!
//! The broker gets them with the settlement, so that a task which succeeds costs nothing more. A dead letter is kept by
//! itself, and until somebody takes it.

use std::collections::HashMap;
use std::time::Duration;

use super::Runtime;
use crate::broker::FailedTask;
use crate::catalogue::{KEEP_FAILED, QueueRow};
use crate::core::text::{ERROR, shortened};
use crate::task::{Context, FailedAttempt, TaskResult};

/// How long the failed tasks of each queue are kept.
#[derive(Default)]
pub(crate) struct KeepFailed(HashMap<String, Duration>);

impl KeepFailed {
    /// As these rows say.
    pub(crate) fn of(rows: &[QueueRow]) -> Self {
        Self(rows.iter().map(|row| (row.name.clone(), row.keep_failed)).collect())
    }

    /// How long a failed task of this queue is kept; `None`: none is kept.
    fn span(&self, queue: &str) -> Option<Duration> {
        // A queue without a row is served with the defaults.
        let span = self.0.get(queue).copied().unwrap_or(KEEP_FAILED);
        (!span.is_zero()).then_some(span)
    }
}

impl Runtime {
    /// Makes what is kept of a task that has failed with this record. `None`: its queue or the broker keeps none.
    pub(super) fn failed_task(&self, context: &Context, record: &TaskResult) -> Option<FailedTask> {
        let span = self.keep_failed.span(context.queue())?;
        self.broker.failed_tasks()?;
        let mut message = context.message().clone();
        let attempt = FailedAttempt::of(record, context.panic_place());
        message.note_failed_attempt(attempt.with_log(context.take_log()));
        Some(FailedTask {
            message,
            reason: shortened(&record.errors.join(": "), ERROR).into_owned(),
            failed_at: record.finished_at,
            expires_at: Some(record.finished_at + span),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_keeps_them_as_long_as_its_row_says_and_one_without_a_row_by_default() {
        let hour = Duration::from_secs(3600);
        let rows = [
            QueueRow::new("plain"),
            QueueRow::new("short").with_keep_failed(hour),
            QueueRow::new("none").with_keep_failed(Duration::ZERO),
        ];
        let keep = KeepFailed::of(&rows);
        let spans = ["plain", "short", "none", "unlisted"].map(|queue| keep.span(queue));
        assert_eq!(spans, [Some(KEEP_FAILED), Some(hour), None, Some(KEEP_FAILED)]);
    }
}
