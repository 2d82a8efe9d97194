//! What the runtime tells of its tasks.

use std::sync::Arc;

use super::Runtime;
use crate::broker::Delivery;
use crate::core::accounts::OTHER;
use crate::protocol::repr;
use crate::protocol::result::Exception;
use crate::task::clock::now;
use crate::task::{
    Context, EventFunnel, EventGroup, EventKind, Interrupt, Message, Next, State, TaskEvent, TaskResult,
    Verdict,
};

/// What is told at the end of a run: a rejection is a failure first.
pub(super) type Ends = [Option<EventKind>; 2];

impl Runtime {
    /// Whether events of this task are told at all; asked only while somebody listens.
    fn tells(&self, task: &str) -> bool {
        !self.dispatcher.registry.is_muted(task)
    }

    /// Tells what happens to a task in a queue here; asked only while somebody listens.
    pub(super) fn tell_event(&self, message: &Arc<Message>, kind: EventKind) {
        if self.tells(&message.task) {
            self.events.emit(EventGroup::Run, || Some(TaskEvent::now(Arc::clone(message), kind)));
        }
    }

    /// Tells that a delivery has come, unless that was told before. What is not going to run is not received: it is
    /// revoked, or fails.
    pub(crate) fn tell_received(&self, delivery: &Delivery) {
        if !delivery.is_announced() && self.events.is_heard(EventGroup::Run) {
            self.announce(delivery.message());
        }
    }

    /// Tells that a message has come, and answers whether it was told.
    pub(crate) fn announce(&self, message: &Arc<Message>) -> bool {
        let will_run = message.expires.is_none_or(|at| at > now())
            && self.dispatcher.registry.get(&message.task).is_some()
            && self.tells(&message.task);
        if will_run {
            self.events
                .emit(EventGroup::Run, || Some(TaskEvent::now(Arc::clone(message), EventKind::Received)));
        }
        will_run && self.events.is_heard(EventGroup::Run)
    }

    /// What will be told of a verdict when it has come to pass; asked only while somebody listens.
    pub(super) fn ends(&self, verdict: &Verdict, context: &Context) -> Ends {
        if !self.tells(context.task()) {
            return [None, None];
        }
        match verdict {
            Verdict::Over(record) => [end_of(record, context.interrupt()), None],
            Verdict::Dead { record, .. } => {
                let is_rejected = record.error_type.as_deref() == Some("Reject");
                [Some(failed(record)), is_rejected.then_some(EventKind::Rejected { requeue: false })]
            }
            Verdict::Again { failed: Some(record), .. } => [Some(retried(record)), None],
            Verdict::Again { next: Next::Requeue, .. } => [Some(EventKind::Rejected { requeue: true }), None],
            Verdict::HandBack => [Some(EventKind::Cancelled), None],
            Verdict::Again { .. } | Verdict::Replaced(_) => [None, None],
        }
    }

    /// Tells what was made ready by [`ends`](Self::ends).
    pub(super) fn tell_ends(&self, message: &Arc<Message>, ends: Ends) {
        for kind in ends.into_iter().flatten() {
            self.events.emit(EventGroup::Run, || Some(TaskEvent::now(Arc::clone(message), kind)));
        }
    }

    /// Counts and tells that a task is over although nobody here had it.
    pub(super) fn tell_over(&self, message: Option<&Message>, record: &TaskResult) {
        self.count_over(record);
        self.events.emit(EventGroup::Run, || {
            let kind = end_of(record, None).filter(|_| self.tells(&record.task))?;
            Some(match message {
                Some(message) => TaskEvent::now(Arc::new(message.clone()), kind),
                None => TaskEvent::of_unread(record.id.clone(), &record.task, kind),
            })
        });
    }

    fn count_over(&self, record: &TaskResult) {
        // A message that could not be read has whatever name its bytes had.
        let is_known = self.dispatcher.registry.get(&record.task).is_some();
        let task = if is_known { record.task.as_str() } else { OTHER };
        let count = self.events.counts().of(task, &record.queue);
        match record.state {
            State::Revoked => count.revoked(),
            State::Failure | State::Rejected => count.failed(Exception::class(record)),
            _ => {}
        }
    }

    /// Counts and tells that a task was taken out of the broker, because it was revoked.
    pub(crate) fn tell_taken_out(&self, message: &Message) {
        self.events.counts().of(&message.task, &message.queue).revoked();
        self.events.emit(EventGroup::Run, || {
            let kind = EventKind::Revoked { terminated: false, expired: false };
            self.tells(&message.task).then(|| TaskEvent::now(Arc::new(message.clone()), kind))
        });
    }
}

/// Counts and tells that a message is sent that takes the place of its task or follows from it.
pub(super) fn tell_sent(events: &EventFunnel, message: &Message) {
    events.counts().of(&message.task, &message.queue).sent();
    events.emit(EventGroup::Sent, || Some(TaskEvent::now(Arc::new(message.clone()), EventKind::Sent)));
}

fn end_of(record: &TaskResult, interrupt: Option<Interrupt>) -> Option<EventKind> {
    match record.state {
        State::Success => {
            let started_at = record.started_at.unwrap_or(record.finished_at);
            let result = repr::value(record.result.as_deref().unwrap_or("null")).into();
            Some(EventKind::Succeeded { result, runtime: record.finished_at.since(started_at) })
        }
        State::Failure | State::Rejected => Some(failed(record)),
        State::Revoked => {
            let exception = Exception::of(record);
            let expired =
                exception.exc_message.first().is_some_and(|reason| reason.as_str() == Some("expired"));
            Some(EventKind::Revoked { terminated: interrupt == Some(Interrupt::Revoked), expired })
        }
        _ => None,
    }
}

fn failed(record: &TaskResult) -> EventKind {
    let exception = Exception::of(record);
    let is_unknown = record.error_type.as_deref() == Some("NotRegistered");
    let traceback = (!is_unknown).then(|| traceback(&exception, record).into());
    EventKind::Failed { exception: exception.repr().into(), traceback }
}

fn retried(record: &TaskResult) -> EventKind {
    let exception = Exception::of(record);
    let traceback = Some(traceback(&exception, record).into());
    EventKind::Retried { exception: exception.repr().into(), traceback }
}

/// The traceback of a record: the one that it has, or its error in the form of one.
pub(super) fn traceback(exception: &Exception, record: &TaskResult) -> String {
    match &record.traceback {
        Some(traceback) => traceback.clone(),
        None => exception.traceback(&format!("{} in queue {}", record.task, record.queue)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Timestamp;
    use crate::task::{Judge, TaskError};

    fn message() -> Message {
        let mut message = Context::detached().message().clone();
        message.task = "app.t".into();
        message.queue = "q".into();
        message
    }

    fn record(verdict: Verdict) -> TaskResult {
        match verdict {
            Verdict::Over(record)
            | Verdict::Dead { record, .. }
            | Verdict::Again { failed: Some(record), .. } => *record,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_end_is_told_in_celerys_words() {
        let message = message();
        let judge = |started: u64, now: u64| Judge {
            started_at: Some(Timestamp::from_millis(started)),
            ..Judge::unstarted(&message, Timestamp::from_millis(now))
        };
        let end = |verdict: Verdict, interrupt| end_of(&record(verdict), interrupt);
        let runtime = std::time::Duration::from_millis(250);
        let expected = EventKind::Succeeded { result: "[1, 'a']".into(), runtime };
        assert_eq!(end(judge(1000, 1250).judge(Ok(r#"[1,"a"]"#.into())), None), Some(expected));
        let error =
            || TaskError::failure(["bad", "cause"]).with_python_type("builtins", "ValueError").into_ending();
        let expected = EventKind::Failed {
            exception: "ValueError('bad', 'cause')".into(),
            traceback: Some(
                "Traceback (most recent call last):\n  app.t in queue q\nValueError: bad\n  caused by: cause"
                    .into(),
            ),
        };
        assert_eq!(end(judge(1, 2).judge(Err(error())), None), Some(expected));
        let unknown = record(judge(1, 2).not_registered("no such task"));
        let expected = EventKind::Failed { exception: "NotRegistered('app.t')".into(), traceback: None };
        assert_eq!(failed(&unknown), expected);
        let revoked = |terminated, expired| Some(EventKind::Revoked { terminated, expired });
        assert_eq!(end(judge(1, 2).revoked_waiting(), None), revoked(false, false));
        assert_eq!(end(judge(1, 2).expired(Timestamp::ZERO), None), revoked(false, true));
        let told = Some(Interrupt::Revoked);
        assert_eq!(end(judge(1, 2).revoked("the task was revoked while it ran"), told), revoked(true, false));
        assert_eq!(end(judge(1, 2).judge(Err(TaskError::ignore().into_ending())), None), None);
    }

    #[test]
    fn a_retry_names_its_cause() {
        let message = Message { autoretry: true, ..message() };
        let judge = || Judge::unstarted(&message, Timestamp::ZERO);
        let told = |error: TaskError| match retried(&record(judge().judge(Err(error.into_ending())))) {
            EventKind::Retried { exception, traceback: Some(_) } => exception,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            &*told(TaskError::failure(["k"]).with_python_type("builtins", "KeyError")),
            "KeyError('k')"
        );
        assert_eq!(&*told(TaskError::retry("busy")), "Retry('busy')");
    }
}
