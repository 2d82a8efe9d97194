//! The runs that the historian (an actor) has not taken yet: what a simulation of this process would begin with.
//!
//! Invariants:
//! - It is empty until somebody [opens](RunInbox::open) it, because nobody else takes anything out.
//! - It is bounded: of too many runs the last ones stay.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::gates::HeldFor;
use crate::core::Timestamp;
use crate::core::simulation::{RecordedRuns, RunRecorder, TaskArrival};
use crate::task::Message;

/// The inbox of recorded runs.
#[derive(Default)]
pub(crate) struct RunInbox {
    is_open: AtomicBool,
    recorder: Mutex<RunRecorder>,
}

impl RunInbox {
    /// Has runs recorded from now on.
    pub(crate) fn open(&self) {
        self.is_open.store(true, Ordering::Relaxed);
    }

    /// Records a run of this message that is over. `held`: for how long gates kept it from starting; it counts as coming when
    /// they let it go. What comes back without a time of its own, as after a crash, counts as coming when it started.
    pub(crate) fn ran(
        &self,
        queue: &str,
        message: &Message,
        held: Option<HeldFor>,
        started_at: Timestamp,
        took: Duration,
    ) {
        if !self.is_open.load(Ordering::Relaxed) {
            return;
        }
        let is_again = message.has_begun();
        let due = held.map_or_else(|| message.due(), |held| held.until.max(message.due()));
        let at = if is_again && message.eta.is_none() { started_at } else { due.min(started_at) };
        self.recorder.lock().record(TaskArrival {
            at,
            queue,
            task: &message.task,
            tenant: message.tenant().unwrap_or_default(),
            priority: message.priority,
            takes: took,
            waited: Some(started_at.since(at)),
            is_again,
        });
    }

    /// Takes all runs out, the oldest first.
    pub(crate) fn take(&self) -> VecDeque<RecordedRuns> {
        self.recorder.lock().take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Context, TENANT};

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_795_348_800_000 + 1_000 * seconds)
    }

    /// A message that came at the time 0.
    fn message() -> Message {
        let mut message = Context::detached().message().clone();
        message.task = "mail.send".into();
        message.priority = 3;
        (message.enqueued_at, message.eta, message.serial) = (at(0), None, None);
        message.headers.0.insert(TENANT.to_owned(), "acme".into());
        message
    }

    /// When the task came, how long it waited in seconds, and whether it came again, as the inbox has it of a run that started at
    /// the time 9 and took two seconds.
    fn recorded(message: &Message, held: Option<HeldFor>) -> (Timestamp, u64, bool) {
        let inbox = RunInbox::default();
        inbox.open();
        inbox.ran("email", message, held, at(9), 2 * SECOND);
        let parts = inbox.take();
        let run = parts[0].iter().next().expect("a run");
        assert_eq!((run.queue, run.task, run.tenant, run.priority), ("email", "mail.send", "acme", 3));
        assert_eq!(run.takes, 2 * SECOND);
        (run.at, run.waited.expect("it was measured").as_secs(), run.is_again)
    }

    #[test]
    fn a_task_comes_when_something_could_have_started_it() {
        assert_eq!(recorded(&message(), None), (at(0), 9, false));
        let later = Message { eta: Some(at(5)), ..message() };
        assert_eq!(recorded(&later, None), (at(5), 4, false));
        let held = HeldFor { since: at(0), until: at(7) };
        assert_eq!(recorded(&message(), Some(held)), (at(7), 2, false));
        let retry = Message { eta: Some(at(8)), retries: 1, ..message() };
        assert_eq!(recorded(&retry, None), (at(8), 1, true));
        let crashed = Message { crashes: 1, ..message() };
        assert_eq!(recorded(&crashed, None), (at(9), 0, true), "nobody knows when it came back");
    }

    #[test]
    fn nothing_is_recorded_that_nobody_takes() {
        let inbox = RunInbox::default();
        inbox.ran("email", &message(), None, at(9), SECOND);
        assert!(inbox.take().is_empty());
        inbox.open();
        inbox.ran("email", &message(), None, at(9), SECOND);
        assert_eq!((inbox.take().len(), inbox.take().len()), (1, 0));
    }
}
