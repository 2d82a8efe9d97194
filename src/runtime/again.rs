//! Tasks that are delivered again although they are over.
//!
//! If the broker has no transaction with the store, the end of a task is a series of steps: its record, the count
//! of its chord, the messages that follow, its acknowledgement. When a process dies between two of them, another
//! process gets the task. If the task's record is there, the body does not run once more: the runtime sends what
//! follows by the record, as Celery's workers do with `worker_deduplicate_successful_tasks`. These messages may
//! have been sent, and may have run, before; therefore the broker [marks](crate::broker::copies) them.

use super::Runtime;
use crate::broker::Delivery;
use crate::task::clock::now;
use crate::task::{Message, State, TaskResult};

impl Runtime {
    /// Whether a task that a shared broker has delivered may be over already: the store is another server, which other processes
    /// use as well. The answer takes no question to the store, so most runs ask the store nothing.
    pub(super) fn may_be_over(&self, delivery: &Delivery) -> bool {
        let message = delivery.message();
        // After a crash the broker may publish the message anew, so that nothing else says that it comes again.
        let comes_again =
            delivery.is_again() || message.crashes > 0 || message.retries > 0 || message.continuations > 0;
        comes_again && !message.ignore_result && self.store.is_shared()
    }

    /// The record of a delivered task that is over: it ended in a process that died before it could acknowledge it.
    pub(super) async fn recorded(&self, delivery: &Delivery) -> Option<TaskResult> {
        let message = delivery.message();
        // A store that does not answer now makes the task run once more; its first record stays then, because a
        // record is final.
        let record = self.store.get(&message.id, now()).await.ok().flatten()?;
        is_end_of(&record, message, delivery.is_again()).then_some(record)
    }
}

/// Whether a record is of a run of this very message, and not of an earlier one with its id. A failure may be that
/// of a dead letter that was put back since; then the task is to run. Messages of other programs do not say when
/// they were sent.
fn is_end_of(record: &TaskResult, message: &Message, is_again: bool) -> bool {
    let since = record.finished_at >= message.enqueued_at;
    match record.state {
        State::Success => since || is_again,
        State::Failure => since && record.worker.is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::broker::refused_result;
    use crate::task::Context;

    #[test]
    fn a_failure_counts_if_it_is_that_of_a_run_of_this_message() {
        let mut message = Context::detached().message().clone();
        message.enqueued_at = now();
        let mut record = refused_result(&message, "no".to_owned());
        record.state = State::Success;
        record.finished_at = message.enqueued_at;
        assert!(is_end_of(&record, &message, false));
        message.enqueued_at = record.finished_at + Duration::from_secs(1);
        assert!(!is_end_of(&record, &message, false), "it was sent again under its id");
        assert!(
            is_end_of(&record, &message, true),
            "it may be one of Python's, which does not say when it was sent"
        );
        message.enqueued_at = record.finished_at;
        record.state = State::Revoked;
        assert!(!is_end_of(&record, &message, true), "it may have been put back");
        record.state = State::Failure;
        assert!(!is_end_of(&record, &message, true), "no worker has run it");
        record.worker = Some("w".to_owned());
        record.finished_at = message.enqueued_at;
        assert!(is_end_of(&record, &message, true));
        message.enqueued_at = record.finished_at + Duration::from_secs(1);
        assert!(!is_end_of(&record, &message, true), "it was put back since");
    }
}
