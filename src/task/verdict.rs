//! The judge of a run: how the run ended decides what becomes of the task. It is pure: it takes a message and an ending
//! and answers with a verdict.

use std::time::Duration;

use super::canvas::{CanvasLimits, Launch, replacement};
use super::{
    Arguments, DEMOTED, DIVERTED, Ending, EnqueueError, ErrorName, FailedAttempt, HELD, Interrupt, Lineage,
    Message, NextAttempt, REQUEUES, RawSignature, Refusal, State, TaskResult, Until,
};
use crate::core::text::{ERROR, MOST_ERROR_BYTES, bounded_errors, shortened};
use crate::core::{Backoff, RetryVerdict, Timestamp};

/// The pauses of a task that was put back into its queue, time after time, so that one which no worker wants does not
/// go round as fast as the machine can.
const REQUEUE_PAUSES: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

/// Everything that is known when a run has ended.
pub(crate) struct Judge<'a> {
    pub(crate) message: &'a Message,
    pub(crate) now: Timestamp,
    /// The time at which this run started. It is `None` if the run never started.
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) worker: Option<&'a str>,
    /// The random number for the jitter of a retry.
    pub(crate) entropy: u64,
    /// Whether the task was revoked while it ran. Such a task does not run again.
    pub(crate) revoked: bool,
    /// Whether the revocation told the run to end. Without it, the run's own ending counts.
    pub(crate) terminated: bool,
    /// The bounds of what may be sent in the task's place.
    pub(crate) limits: CanvasLimits,
    /// The largest size of the arguments of a further run, or of a task in the task's place, in bytes.
    pub(crate) max_message_size: usize,
}

/// The consequence of a run's end, with what hooks and counters have to know.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// The task is over, with this record.
    Over(Box<TaskResult>),
    /// The changed message waits again. For a retry, `failed` is the record of the failed attempt, in state RETRY.
    Again { message: Box<Message>, due: Option<Timestamp>, next: Next, failed: Option<Box<TaskResult>> },
    /// Other tasks take the place of this one.
    Replaced(Box<Launch>),
    /// The message goes back as it was.
    HandBack,
    /// The message goes to the dead letters, with this record.
    Dead { reason: String, record: Box<TaskResult> },
}

/// The reason why a message waits again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Retry,
    Postpone,
    Continue,
    Replace,
    /// The body has put the task back into its queue.
    Requeue,
}

impl<'a> Judge<'a> {
    /// The judge of a task that ends before it begins.
    pub(crate) fn unstarted(message: &'a Message, now: Timestamp) -> Self {
        Self {
            message,
            now,
            started_at: None,
            worker: None,
            entropy: 0,
            revoked: false,
            terminated: false,
            limits: CanvasLimits::default(),
            max_message_size: usize::MAX,
        }
    }

    /// Judges a run by its value or by the ending in place of one.
    pub(crate) fn judge(&self, outcome: Result<String, Ending>) -> Verdict {
        // A success stays a success, even if the task was revoked while it ran.
        let ending = match outcome {
            Ok(value) => return self.over(State::Success, Some(value), Vec::new(), None),
            Err(ending) => ending,
        };
        if self.revoked && self.ends_revoked(&ending) {
            return self.revoked("the task was revoked while it ran");
        }
        match ending {
            Ending::Failure { messages, name, transient } => {
                if transient.unwrap_or(self.message.autoretry) {
                    self.retry(NextAttempt::default(), messages, name)
                } else {
                    self.over(State::Failure, None, messages, Some(name))
                }
            }
            Ending::Retry { messages, name, next } => self.retry(*next, messages, name),
            Ending::Postpone { until } => {
                let due = match until {
                    Until::At(time) => time,
                    Until::In(delay) => self.now + delay,
                };
                let mut message = self.next_message();
                message.eta = Some(due);
                Verdict::Again {
                    message: Box::new(message),
                    due: Some(due),
                    next: Next::Postpone,
                    failed: None,
                }
            }
            Ending::Continue { task, arguments } => self.go_on(&task, arguments),
            Ending::Replace { signature } => self.replace(signature),
            Ending::Fail { errors, name } => self.over(State::Failure, None, errors, Some(name)),
            Ending::Ignore => self.over(State::Ignored, None, Vec::new(), None),
            Ending::TimeLimit(limit) => self.time_limit(limit),
            Ending::Reject { reason, name } => self.dead_as(name, &reason),
            Ending::Requeue { reason } => self.put_back(reason),
            Ending::Interrupted(Interrupt::Revoked) => self.revoked("the task was revoked while it ran"),
            Ending::Interrupted(Interrupt::Shutdown | Interrupt::LaneLost) => Verdict::HandBack,
            Ending::Interrupted(interrupt @ Interrupt::SoftTimeLimit) => {
                let error = vec![interrupt.to_string()];
                let name = "SoftTimeLimitExceeded".into();
                if self.message.autoretry {
                    self.retry(NextAttempt::default(), error, name)
                } else {
                    self.over(State::Failure, None, error, Some(name))
                }
            }
        }
    }

    /// Whether a revoked run ended because of the revocation. A body that was told to end may do so in any way. A body
    /// that was not told has really failed, or would have run again. (Whether a retry would have run again is known
    /// once its policy was asked.)
    fn ends_revoked(&self, ending: &Ending) -> bool {
        match ending {
            // What a time limit comes to is said where it is judged.
            Ending::Reject { .. } | Ending::Fail { .. } | Ending::TimeLimit(_) => false,
            Ending::Postpone { .. }
            | Ending::Continue { .. }
            | Ending::Replace { .. }
            | Ending::Requeue { .. } => true,
            Ending::Interrupted(interrupt) => self.terminated || *interrupt != Interrupt::SoftTimeLimit,
            _ => self.terminated,
        }
    }

    /// Judges a run whose body has [failed](super::Context::fail) with these errors, however it ended after that.
    pub(crate) fn failed(&self, errors: &[String]) -> Verdict {
        self.judge(Err(Ending::Fail { errors: errors.to_vec(), name: "Fail".into() }))
    }

    /// Judges a run that passed its hard time limit: FAILURE, and no other attempt, as in Celery.
    pub(crate) fn time_limit(&self, limit: Duration) -> Verdict {
        let text = format!("TimeLimitExceeded: the run took longer than its time limit of {limit:?}");
        if self.revoked && self.terminated {
            return self.revoked(&text);
        }
        self.over(State::Failure, None, vec![text], Some("TimeLimitExceeded".into()))
    }

    /// Judges a task that did not start before it expired: REVOKED.
    pub(crate) fn expired(&self, at: Timestamp) -> Verdict {
        self.revoked(&format!("expired: it was to start before {at}"))
    }

    /// Judges a task that a brake ends before it starts: REVOKED, as when it expires. `why` says which brake it is.
    pub(crate) fn expired_by(&self, why: &str) -> Verdict {
        self.revoked(&format!("expired: {why}"))
    }

    /// Sends a task that has not started to another queue, as it is. A run that it had before is counted as ever.
    pub(crate) fn diverted(&self, queue: &str) -> Verdict {
        let mut message = self.message.clone();
        let from = std::mem::replace(&mut message.queue, queue.to_owned());
        message.headers.0.insert(DIVERTED.to_owned(), from.into());
        message.headers.0.remove(HELD); // what held it was in its first queue
        message.headers.0.remove(DEMOTED); // and why it was there says nothing of this one
        // What its call says about an exchange was about its first way, and is over.
        for property in ["exchange", "routing_key"] {
            message.headers.take_property(property);
        }
        Verdict::Again { message: Box::new(message), due: None, next: Next::Postpone, failed: None }
    }

    /// Judges a task that its lane did not take: FAILURE, or REVOKED if a newer task took its place.
    pub(crate) fn refused(&self, refusal: &Refusal) -> Verdict {
        let serial = self.message.serial.as_deref();
        match refusal {
            Refusal::CouldNotAcquireLock => {
                let lane = serial.map_or_else(String::new, |serial| serial.lane.to_string());
                let patience = serial.and_then(|serial| serial.patience()).unwrap_or_default();
                let task = &self.message.task;
                let text = format!(
                    "CouldNotAcquireLock: Could not acquire lock '{lane}' for task '{task}' within {patience:?}"
                );
                self.over(State::Failure, None, vec![text], Some("CouldNotAcquireLock".into()))
            }
            Refusal::Replaced { by } => {
                self.revoked(&format!("task {by} came later and took its place in the lane"))
            }
        }
    }

    /// Sends a message back to the broker with its serial part, because its task is serial and the message stands in no
    /// lane yet.
    pub(crate) fn lined_up(&self, serial: super::SerialHeader) -> Verdict {
        let mut message = self.message.clone();
        message.serial = Some(Box::new(serial));
        Verdict::Again { message: Box::new(message), due: None, next: Next::Postpone, failed: None }
    }

    /// Judges a task that was revoked before it began.
    pub(crate) fn revoked_waiting(&self) -> Verdict {
        self.revoked("the task was revoked before it started")
    }

    /// Judges a task that was revoked before it began or while it ran. `text` is the error in its record.
    pub(crate) fn revoked(&self, text: &str) -> Verdict {
        self.over(State::Revoked, None, vec![text.to_owned()], Some("TaskRevoked".into()))
    }

    /// Judges a task that this program does not know: it goes to the dead letters. Celery's `NotRegistered`.
    pub(crate) fn not_registered(&self, reason: &str) -> Verdict {
        self.dead_as("NotRegistered", reason)
    }

    /// Judges a task that cannot be run here: it goes to the dead letters.
    pub(crate) fn dead(&self, reason: &str) -> Verdict {
        self.dead_as("Reject", reason)
    }

    /// Judges a task whose runs kept ending with their worker: it goes to the dead letters as FAILURE.
    pub(crate) fn worker_lost(&self) -> Verdict {
        let times = self.message.crashes;
        let reason = format!("WorkerLost: its worker or process ended {times} times while it ran");
        let record = self.record(State::Failure, None, vec![reason.clone()], Some("WorkerLost".into()));
        Verdict::Dead { reason, record: Box::new(record) }
    }

    /// The verdict on a task that cannot be run, or that has rejected itself.
    fn dead_as(&self, name: impl Into<ErrorName>, reason: &str) -> Verdict {
        let reason = shortened(reason, MOST_ERROR_BYTES).into_owned();
        let record = self.record(State::Rejected, None, vec![reason.clone()], Some(name.into()));
        Verdict::Dead { reason, record: Box::new(record) }
    }

    fn retry(&self, next: NextAttempt, messages: Vec<String>, name: ErrorName) -> Verdict {
        // The message of the next attempt takes them along.
        let messages = bounded_errors(messages);
        let mut policy = self.message.retry.clone();
        policy.max_retries = next.max_retries.unwrap_or(policy.max_retries);
        let arguments = match next.arguments {
            None => None,
            Some((task, arguments)) => match self.own_arguments(&task, arguments, "be retried") {
                Ok(arguments) => Some(arguments),
                Err(text) => return self.over(State::Failure, None, vec![text], Some("Retry".into())),
            },
        };
        let after = match policy.next(self.message.retries, self.entropy) {
            RetryVerdict::GiveUp => return self.over(State::Failure, None, messages, Some(name)),
            RetryVerdict::Retry { .. } if self.revoked => {
                return self.revoked("the task was revoked while it ran");
            }
            RetryVerdict::Retry { after: by_policy } => next.after.unwrap_or(by_policy),
        };
        let due = self.now + after;
        let place = name.place.clone();
        let failed = Box::new(self.record(State::Retry, None, messages.clone(), Some(name)));
        let mut message = self.next_message();
        message.note_failed_attempt(FailedAttempt::of(&failed, place.as_deref()));
        message.arguments = arguments.unwrap_or(message.arguments);
        message.expires = next.expires.map(|after| self.now + after).or(message.expires);
        message.retries = message.retries.saturating_add(1);
        message.eta = Some(due);
        message.last_errors = messages;
        Verdict::Again { message: Box::new(message), due: Some(due), next: Next::Retry, failed: Some(failed) }
    }

    /// The arguments for a further run of the task, or why it cannot have them.
    fn own_arguments(
        &self,
        task: &str,
        arguments: Result<Arguments, String>,
        further: &str,
    ) -> Result<Arguments, String> {
        let own = &self.message.task;
        if task != own {
            return Err(format!(
                "`{own}` wanted to {further} as `{task}`: only as itself it can; enqueue another task with `delay`"
            ));
        }
        let arguments =
            arguments.map_err(|error| format!("the next arguments have no form in JSON: {error}"))?;
        // What a caller may not send, a body may not either.
        let (size, limit) = (arguments.len(), self.max_message_size);
        if size > limit {
            return Err(EnqueueError::TooLarge { task: own.clone(), size, limit }.to_string());
        }
        Ok(arguments)
    }

    fn go_on(&self, task: &str, arguments: Result<Arguments, String>) -> Verdict {
        match self.own_arguments(task, arguments, "continue") {
            Err(text) => self.over(State::Failure, None, vec![text], Some("Continue".into())),
            Ok(arguments) => {
                let mut message = self.next_message();
                message.arguments = arguments;
                message.retries = 0;
                message.crashes = 0;
                message.continuations = message.continuations.saturating_add(1);
                message.eta = None;
                message.last_errors.clear();
                message.forget_failed_attempts();
                Verdict::Again { message: Box::new(message), due: None, next: Next::Continue, failed: None }
            }
        }
    }

    fn replace(&self, signature: Result<Box<RawSignature>, String>) -> Verdict {
        // Chunks are cut from the arguments that came, whoever sent those.
        let most = if self.message.task == "celery.chunks" { usize::MAX } else { self.max_message_size };
        let launch = signature.and_then(|signature| {
            replacement(self.message, *signature, self.limits, most).map_err(|error| error.to_string())
        });
        match launch {
            Ok(launch) => Verdict::Replaced(Box::new(launch)),
            Err(error) => {
                // Python programs catch this error by its class.
                let (name, module) = ("ImproperlyConfigured", "celery.exceptions");
                let name = ErrorName { module: Some(module.to_owned()), ..name.into() };
                self.over(State::Failure, None, vec![error], Some(name))
            }
        }
    }

    fn put_back(&self, reason: String) -> Verdict {
        let times = self.message.requeues();
        let due = self.now + REQUEUE_PAUSES.after(times).peek();
        let mut message = self.next_message();
        message.headers.0.insert(REQUEUES.to_owned(), times.saturating_add(1).into());
        message.eta = Some(due);
        message.last_errors = vec![reason];
        Verdict::Again { message: Box::new(message), due: Some(due), next: Next::Requeue, failed: None }
    }

    fn next_message(&self) -> Message {
        let mut message = self.message.clone();
        message.headers.0.remove(REQUEUES);
        message.headers.0.remove(HELD);
        message.first_started_at = message.first_started_at.or(self.started_at);
        message
    }

    fn over(
        &self,
        state: State,
        result: Option<String>,
        errors: Vec<String>,
        name: Option<ErrorName>,
    ) -> Verdict {
        Verdict::Over(Box::new(self.record(state, result, errors, name)))
    }

    fn record(
        &self,
        state: State,
        result: Option<String>,
        errors: Vec<String>,
        name: Option<ErrorName>,
    ) -> TaskResult {
        let message = self.message;
        let (error_type, error_module, error_arguments) =
            name.map_or((None, None, None), |name| (Some(name.name), name.module, name.arguments));
        let cut = |name: String| shortened(&name, ERROR).into_owned();
        let (error_type, error_module) = (error_type.map(cut), error_module.map(cut));
        TaskResult {
            result,
            // Whatever the body has said, a record is read as a whole, and each task that is lost with this one has a copy.
            errors: bounded_errors(errors),
            error_type,
            error_module,
            error_arguments: error_arguments.filter(|list| list.text().len() <= MOST_ERROR_BYTES),
            attempts: message.tries().saturating_add(u32::from(self.started_at.is_some())),
            started_at: self.started_at,
            worker: self.worker.map(str::to_owned),
            lineage: Lineage::of(message),
            ..TaskResult::of(message, state, self.now)
        }
    }
}

#[cfg(test)]
mod tests;
