//! What follows from how a run ended. Pure: message and ending in, verdict out.

use std::time::Duration;

use super::canvas::{Launch, replacement};
use super::{
    Ending, ErrorName, Interrupt, Lineage, Message, RawSignature, Refusal, State, TaskResult, Until,
};
use crate::core::{RetryVerdict, Timestamp};

/// Everything that is known when a run has ended.
pub(crate) struct Judge<'a> {
    pub(crate) message: &'a Message,
    pub(crate) now: Timestamp,
    /// When this run started; `None` if it never did.
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) worker: Option<&'a str>,
    /// For the jitter of a retry.
    pub(crate) entropy: u64,
    /// The task was revoked while it ran.
    pub(crate) revoked: bool,
}

/// What is to be done, and what is to be told to hooks and counters.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// The task is over, with this record.
    Over(Box<TaskResult>),
    /// The message waits again, changed. `failed`: of a retry, what its record would say if this had been the last attempt.
    Again { message: Box<Message>, due: Option<Timestamp>, next: Next, failed: Option<Box<TaskResult>> },
    /// Others take its place.
    Replaced(Box<Launch>),
    /// The message goes back as it was.
    HandBack,
    /// The message goes to the dead letters, with this record.
    Dead { reason: String, record: Box<TaskResult> },
}

/// Why a message waits again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Retry,
    Postpone,
    Continue,
    Replace,
}

impl<'a> Judge<'a> {
    /// Of a task that ends before it begins.
    pub(crate) fn unstarted(message: &'a Message, now: Timestamp) -> Self {
        Self { message, now, started_at: None, worker: None, entropy: 0, revoked: false }
    }

    /// A run ended with a value or otherwise.
    pub(crate) fn judge(&self, outcome: Result<String, Ending>) -> Verdict {
        let ending = match outcome {
            Ok(value) => return self.over(State::Success, Some(value), Vec::new(), None),
            Err(ending) => ending,
        };
        if self.revoked && !matches!(ending, Ending::Reject { .. } | Ending::Fail { .. }) {
            return self.revoked("the task was revoked while it ran");
        }
        match ending {
            Ending::Failure { messages, name, transient } => {
                if transient.unwrap_or(self.message.autoretry) {
                    self.retry(None, messages, name)
                } else {
                    self.over(State::Failure, None, messages, Some(name))
                }
            }
            Ending::Retry { after, messages } => self.retry(after, messages, "Retry".into()),
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
            Ending::Continue { task, arguments } => self.go_on(task, arguments),
            Ending::Replace { signature } => self.replace(signature),
            Ending::Fail { errors, name } => self.over(State::Failure, None, errors, Some(name)),
            Ending::Ignore => self.over(State::Ignored, None, Vec::new(), None),
            Ending::Reject { reason, name } => self.dead_as(name, &reason),
            Ending::Interrupted(Interrupt::Revoked) => self.revoked("the task was revoked while it ran"),
            Ending::Interrupted(Interrupt::Shutdown | Interrupt::LaneLost) => Verdict::HandBack,
            Ending::Interrupted(interrupt @ Interrupt::SoftTimeLimit) => {
                let error = vec![interrupt.to_string()];
                let name = "SoftTimeLimitExceeded".into();
                if self.message.autoretry {
                    self.retry(None, error, name)
                } else {
                    self.over(State::Failure, None, error, Some(name))
                }
            }
        }
    }

    /// The body has said so, and ended somehow after that.
    pub(crate) fn failed(&self, errors: &[String]) -> Verdict {
        self.judge(Err(Ending::Fail { errors: errors.to_vec(), name: "Fail".into() }))
    }

    /// The hard time limit passed: FAILURE, and no other attempt, as in Celery.
    pub(crate) fn time_limit(&self, limit: Duration) -> Verdict {
        let text = format!("TimeLimitExceeded: the run took longer than its time limit of {limit:?}");
        if self.revoked {
            return self.revoked(&text);
        }
        self.over(State::Failure, None, vec![text], Some("TimeLimitExceeded".into()))
    }

    /// Not started in time.
    pub(crate) fn expired(&self, at: Timestamp) -> Verdict {
        self.revoked(&format!("expired: it was to start before {at}"))
    }

    /// Its lane does not take it.
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

    /// It stands in no lane yet, and its task is serial.
    pub(crate) fn lined_up(&self, serial: super::Serial) -> Verdict {
        let mut message = self.message.clone();
        message.serial = Some(Box::new(serial));
        Verdict::Again { message: Box::new(message), due: None, next: Next::Postpone, failed: None }
    }

    /// Revoked before it began.
    pub(crate) fn revoked_waiting(&self) -> Verdict {
        self.revoked("the task was revoked before it started")
    }

    /// Ended before it began or while it ran.
    pub(crate) fn revoked(&self, text: &str) -> Verdict {
        self.over(State::Revoked, None, vec![text.to_owned()], Some("TaskRevoked".into()))
    }

    /// Nobody here knows the task. Celery's `NotRegistered`.
    pub(crate) fn not_registered(&self, reason: &str) -> Verdict {
        self.dead_as("NotRegistered", reason)
    }

    /// It cannot be run here.
    pub(crate) fn dead(&self, reason: &str) -> Verdict {
        self.dead_as("Reject", reason)
    }

    /// Its runs kept ending with their worker.
    pub(crate) fn worker_lost(&self) -> Verdict {
        let times = self.message.crashes;
        let reason = format!("WorkerLost: its worker or process ended {times} times while it ran");
        let record = self.record(State::Failure, None, vec![reason.clone()], Some("WorkerLost".into()));
        Verdict::Dead { reason, record: Box::new(record) }
    }

    /// It cannot be run, or says that it should not be.
    fn dead_as(&self, name: impl Into<ErrorName>, reason: &str) -> Verdict {
        let record = self.record(State::Rejected, None, vec![reason.to_owned()], Some(name.into()));
        Verdict::Dead { reason: reason.to_owned(), record: Box::new(record) }
    }

    fn retry(&self, after: Option<Duration>, messages: Vec<String>, name: ErrorName) -> Verdict {
        let policy = &self.message.retry;
        let after = match policy.next(self.message.retries, self.entropy) {
            RetryVerdict::GiveUp => return self.over(State::Failure, None, messages, Some(name)),
            RetryVerdict::Retry { after: by_policy } => after.unwrap_or(by_policy),
        };
        let due = self.now + after;
        let failed = Box::new(self.record(State::Retry, None, messages.clone(), Some(name)));
        let mut message = self.next_message();
        message.retries += 1;
        message.eta = Some(due);
        message.last_errors = messages;
        Verdict::Again { message: Box::new(message), due: Some(due), next: Next::Retry, failed: Some(failed) }
    }

    fn go_on(&self, task: &str, arguments: Result<super::Arguments, String>) -> Verdict {
        let wrong = |text: String| self.over(State::Failure, None, vec![text], Some("Continue".into()));
        if task != self.message.task {
            let own = &self.message.task;
            return wrong(format!(
                "`{own}` wanted to continue as `{task}`: a task continues as itself; enqueue another task with `delay`"
            ));
        }
        match arguments {
            Err(error) => wrong(format!("the next arguments have no form in JSON: {error}")),
            Ok(arguments) => {
                let mut message = self.next_message();
                message.arguments = arguments;
                message.retries = 0;
                message.crashes = 0;
                message.continuations += 1;
                message.eta = None;
                message.last_errors.clear();
                Verdict::Again { message: Box::new(message), due: None, next: Next::Continue, failed: None }
            }
        }
    }

    fn replace(&self, signature: Result<Box<RawSignature>, String>) -> Verdict {
        let launch = signature
            .and_then(|signature| replacement(self.message, *signature).map_err(|error| error.to_string()));
        match launch {
            Ok(launch) => Verdict::Replaced(Box::new(launch)),
            Err(error) => self.over(State::Failure, None, vec![error], Some("ImproperlyConfigured".into())),
        }
    }

    fn next_message(&self) -> Message {
        let mut message = self.message.clone();
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
        let (error_type, error_module) = name.map_or((None, None), |name| (Some(name.name), name.module));
        TaskResult {
            id: message.id.clone(),
            task: message.task.clone(),
            queue: message.queue.clone(),
            state,
            result,
            errors,
            error_type,
            error_module,
            traceback: None,
            attempts: message.retries + message.crashes + u32::from(self.started_at.is_some()),
            enqueued_at: message.enqueued_at,
            started_at: self.started_at,
            finished_at: self.now,
            worker: self.worker.map(str::to_owned),
            expires_at: self.now + message.result_expires,
            lineage: Lineage::of(message),
            download: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Arguments, Context, TaskError};
    use super::*;

    fn message(retries: u32) -> Message {
        let mut message = Context::detached().message().clone();
        message.task = "app::t".into();
        message.retries = retries;
        message.autoretry = true;
        message.retry.jitter = false;
        message
    }

    fn judge(message: &Message, ending: Ending) -> Verdict {
        judge_revoked(message, ending, false)
    }

    fn judge_revoked(message: &Message, ending: Ending, revoked: bool) -> Verdict {
        let now = Timestamp::from_millis(5_000);
        let judge = Judge { message, now, started_at: Some(now), worker: Some("q#1"), entropy: 0, revoked };
        judge.judge(Err(ending))
    }

    fn failure(transient: Option<bool>) -> Ending {
        Ending::Failure { messages: vec!["boom".into()], name: "E".into(), transient }
    }

    fn state(verdict: Verdict) -> Option<(State, u32, Vec<String>)> {
        match verdict {
            Verdict::Over(r) => Some((r.state, r.attempts, r.errors)),
            _ => None,
        }
    }

    #[test]
    fn an_error_is_retried_until_the_policy_gives_up() {
        let Verdict::Again { message: again, due, next, .. } = judge(&message(0), failure(None)) else {
            panic!()
        };
        assert_eq!((again.retries, next), (1, Next::Retry));
        assert_eq!(due, Some(Timestamp::from_millis(15_000)));
        assert_eq!(again.last_errors, ["boom"]);
        assert_eq!(again.first_started_at, Some(Timestamp::from_millis(5_000)));
        let over = state(judge(&message(3), failure(None)));
        assert_eq!(over, Some((State::Failure, 4, vec!["boom".into()])));
    }

    #[test]
    fn what_an_error_is_called_in_python_is_in_the_record_also_after_retries() {
        let error = || TaskError::failure(["bad"]).with_python_type("builtins", "ValueError").into_ending();
        for retries in [0, 3] {
            match judge(&message(retries), error()) {
                Verdict::Over(record) if retries == 3 => {
                    assert_eq!(record.error_type.as_deref(), Some("ValueError"));
                    assert_eq!(record.error_module.as_deref(), Some("builtins"));
                }
                verdict => assert!(matches!(verdict, Verdict::Again { .. }) && retries == 0),
            }
        }
        let Verdict::Over(record) = judge(&message(3), failure(None)) else { panic!() };
        assert_eq!((record.error_type.as_deref(), record.error_module), (Some("E"), None));
        let other = TaskError::ignore().with_python_type("builtins", "ValueError").into_ending();
        assert!(matches!(other, Ending::Ignore));
    }

    #[test]
    fn permanent_errors_and_tasks_without_autoretry_fail_at_once() {
        assert_eq!(state(judge(&message(0), failure(Some(false)))).unwrap().0, State::Failure);
        let mut quiet = message(0);
        quiet.autoretry = false;
        assert_eq!(state(judge(&quiet, failure(None))).unwrap().0, State::Failure);
        assert!(matches!(judge(&quiet, failure(Some(true))), Verdict::Again { .. }));
    }

    #[test]
    fn postpone_and_continue_burn_no_attempt() {
        let Verdict::Again { message: m, due, .. } =
            judge(&message(2), Ending::Postpone { until: Until::In(Duration::from_secs(1)) })
        else {
            panic!()
        };
        assert_eq!((m.retries, due), (2, Some(Timestamp::from_millis(6_000))));
        let next = Arguments { args: "[7]".into(), kwargs: String::new() };
        let ending = Ending::Continue { task: "app::t", arguments: Ok(next.clone()) };
        let Verdict::Again { message: m, due: None, next: Next::Continue, .. } = judge(&message(2), ending)
        else {
            panic!()
        };
        assert_eq!((m.retries, m.continuations, m.arguments), (0, 1, next));
        let other = Ending::Continue { task: "app::u", arguments: Ok(Arguments::default()) };
        assert!(state(judge(&message(0), other)).unwrap().2[0].contains("wanted to continue as `app::u`"));
    }

    #[test]
    fn a_revoked_run_is_not_tried_again_but_what_it_decided_itself_stays() {
        let m = message(0);
        assert_eq!(state(judge_revoked(&m, failure(None), true)).unwrap().0, State::Revoked);
        let fail = Ending::Fail { errors: vec!["no".into()], name: "Fail".into() };
        assert_eq!(state(judge_revoked(&m, fail, true)).unwrap().0, State::Failure);
        let ok = Judge {
            message: &m,
            now: Timestamp::ZERO,
            started_at: None,
            worker: None,
            entropy: 0,
            revoked: true,
        };
        assert_eq!(state(ok.judge(Ok("1".into()))).unwrap().0, State::Success);
    }

    #[test]
    fn interrupts() {
        let m = message(0);
        assert_eq!(judge(&m, Ending::Interrupted(Interrupt::Shutdown)), Verdict::HandBack);
        assert_eq!(state(judge(&m, Ending::Interrupted(Interrupt::Revoked))).unwrap().0, State::Revoked);
        assert!(matches!(judge(&m, Ending::Interrupted(Interrupt::SoftTimeLimit)), Verdict::Again { .. }));
        assert!(matches!(
            judge(&m, Ending::Reject { reason: "r".into(), name: "Reject".into() }),
            Verdict::Dead { .. }
        ));
        assert_eq!(state(judge(&m, Ending::Ignore)).unwrap().0, State::Ignored);
    }
}
