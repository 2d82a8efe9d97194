//! The judge of a run: how the run ended decides what becomes of the task. It is pure: it takes a message and an ending
//! and answers with a verdict.

use std::time::Duration;

use super::canvas::{CanvasLimits, Launch, replacement};
use super::{
    Arguments, Ending, EnqueueError, ErrorName, Interrupt, Lineage, Message, NextAttempt, REQUEUES,
    RawSignature, Refusal, State, TaskResult, Until,
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
            Ending::Continue { task, arguments } => self.go_on(task, arguments),
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
            Some((task, arguments)) => match self.own_arguments(task, arguments, "be retried") {
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
        let failed = Box::new(self.record(State::Retry, None, messages.clone(), Some(name)));
        let mut message = self.next_message();
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
mod tests {
    use serde_json::json;

    use super::super::{Context, TaskError};
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
        judge_told(message, ending, revoked, false)
    }

    fn judge_told(message: &Message, ending: Ending, revoked: bool, terminated: bool) -> Verdict {
        let now = Timestamp::from_millis(5_000);
        let judge = Judge {
            started_at: Some(now),
            worker: Some("q#1"),
            revoked,
            terminated,
            ..Judge::unstarted(message, now)
        };
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
        let error = || {
            let error = TaskError::failure(["bad"]).with_python_type("builtins", "ValueError");
            error.with_python_args(json!(["bad", 42])).into_ending()
        };
        for retries in [0, 3] {
            match judge(&message(retries), error()) {
                Verdict::Over(record) if retries == 3 => {
                    assert_eq!(record.error_type.as_deref(), Some("ValueError"));
                    assert_eq!(record.error_module.as_deref(), Some("builtins"));
                    assert_eq!(record.error_arguments, Some(json!(["bad", 42]).into()));
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
    fn a_retry_may_say_its_delay_its_limit_its_expiry_and_its_arguments() {
        let next = Arguments { args: "[7]".into(), kwargs: String::new() };
        let ending = |task, max_retries| Ending::Retry {
            messages: vec!["later".into()],
            name: "E".into(),
            next: Box::new(NextAttempt {
                after: Some(Duration::from_secs(1)),
                max_retries: Some(max_retries),
                expires: Some(Duration::from_secs(2)),
                arguments: Some((task, Ok(next.clone()))),
            }),
        };
        // The task's own limit is 3.
        let Verdict::Again { message: m, due, failed: Some(failed), .. } =
            judge(&message(3), ending("app::t", 4))
        else {
            panic!()
        };
        assert_eq!((&m.arguments, m.retries, m.retry.max_retries), (&next, 4, 3));
        assert_eq!((due, failed.error_type.as_deref()), (Some(Timestamp::from_millis(6_000)), Some("E")));
        assert_eq!(m.expires, Some(Timestamp::from_millis(7_000)));
        // One that says none keeps that of the call.
        let until = Some(Timestamp::from_millis(8_000));
        let call = Message { expires: until, ..message(0) };
        let Verdict::Again { message: m, .. } = judge(&call, failure(None)) else { panic!() };
        assert_eq!(m.expires, until);
        let over = state(judge(&message(0), ending("app::t", 0)));
        assert_eq!(over, Some((State::Failure, 1, vec!["later".into()])));
        let (_, _, errors) = state(judge(&message(0), ending("app::u", 4))).unwrap();
        assert!(errors[0].contains("wanted to be retried as `app::u`"), "{errors:?}");
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
    fn the_next_arguments_may_be_as_large_as_those_of_a_call() {
        let m = message(0);
        let judge = Judge { max_message_size: 10, ..Judge::unstarted(&m, Timestamp::ZERO) };
        let of = |len: usize| Arguments { args: "x".repeat(len), kwargs: String::new() };
        let go_on = |len| Ending::Continue { task: "app::t", arguments: Ok(of(len)) };
        let retry = |len| Ending::Retry {
            messages: vec!["later".into()],
            name: "E".into(),
            next: Box::new(NextAttempt {
                arguments: Some(("app::t", Ok(of(len)))),
                ..NextAttempt::default()
            }),
        };
        for (fits, too_large) in [(go_on(10), go_on(11)), (retry(10), retry(11))] {
            assert!(matches!(judge.judge(Err(fits)), Verdict::Again { .. }));
            let (state, _, errors) = state(judge.judge(Err(too_large))).unwrap();
            assert_eq!(state, State::Failure);
            let text = "the arguments of `app::t` take 11 bytes, the limit is 10: store the object";
            assert!(errors[0].starts_with(text), "{errors:?}");
        }
    }

    #[test]
    fn whatever_a_body_says_the_record_is_bounded() {
        let (m, long) = (message(3), "x".repeat(MOST_ERROR_BYTES + 1));
        let errors = || vec![long.clone(), "second".to_owned()];
        let python = TaskError::failure(errors()).with_python_type("m", long.as_str()).into_ending();
        let fail = Ending::Fail { errors: errors(), name: "Fail".into() };
        let reject = Ending::Reject { reason: long.clone(), name: "Reject".into() };
        for ending in [python, fail, reject] {
            let (Verdict::Over(record) | Verdict::Dead { record, .. }) = judge(&m, ending) else { panic!() };
            assert!(record.errors.iter().map(String::len).sum::<usize>() <= MOST_ERROR_BYTES);
            assert!(record.errors[0].ends_with("... (1048577 bytes)"));
            assert!(record.error_type.is_some_and(|name| name.len() <= ERROR));
        }
        let ending = TaskError::failure(errors()).into_ending();
        let Verdict::Again { message: again, .. } = judge(&message(0), ending) else { panic!() };
        assert_eq!(again.last_errors, bounded_errors(errors()));
        let reject = TaskError::reject(&long).into_ending();
        let Verdict::Dead { reason, .. } = judge(&m, reject) else { panic!() };
        assert!(reason.len() <= MOST_ERROR_BYTES);
    }

    #[test]
    fn what_is_put_back_burns_no_attempt_and_waits_longer_each_time() {
        let rejected = || TaskError::reject_and_requeue("no").into_ending();
        let put_back = |message: &Message| match judge(message, rejected()) {
            Verdict::Again { message, due, next: Next::Requeue, failed: None } => (message, due.unwrap()),
            other => panic!("{other:?}"),
        };
        let (mut again, due) = put_back(&message(2));
        assert_eq!((again.retries, again.requeues(), again.eta), (2, 1, Some(due)));
        assert_eq!((due, &again.last_errors), (Timestamp::from_millis(6_000), &vec!["no".to_owned()]));
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let (next, due) = put_back(&again);
            pauses.push(due.since(Timestamp::from_millis(5_000)).as_secs());
            again = next;
        }
        assert_eq!((pauses, again.requeues()), (vec![2, 4, 8, 16, 32, 60, 60], 8));
        // What goes on in another way begins anew.
        let Verdict::Again { message: tried, .. } = judge(&again, failure(None)) else { panic!() };
        assert_eq!((tried.requeues(), tried.retries), (0, 3));
        let revoked = judge_revoked(&again, rejected(), true);
        assert_eq!(state(revoked).unwrap().0, State::Revoked);
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
            terminated: false,
            limits: CanvasLimits::default(),
            max_message_size: usize::MAX,
        };
        assert_eq!(state(ok.judge(Ok("1".into()))).unwrap().0, State::Success);
    }

    #[test]
    fn a_revocation_that_tells_no_body_to_end_leaves_a_real_failure_as_it_is() {
        let ends = |retries, ending, terminated| {
            state(judge_told(&message(retries), ending, true, terminated)).unwrap()
        };
        let boom = vec!["boom".to_owned()];
        // The last attempt, or one that is never tried again, has failed. Where another attempt would follow, the task
        // is revoked.
        assert_eq!(ends(3, failure(None), false), (State::Failure, 4, boom.clone()));
        assert_eq!(ends(0, failure(Some(false)), false), (State::Failure, 1, boom));
        let retry = || TaskError::retry("later").into_ending();
        assert_eq!(ends(3, retry(), false).0, State::Failure);
        assert_eq!(ends(0, retry(), false).0, State::Revoked);
        assert_eq!(ends(3, Ending::Interrupted(Interrupt::SoftTimeLimit), false).0, State::Failure);
        assert_eq!(ends(0, Ending::Ignore, false).0, State::Ignored);
        let until = Until::In(Duration::from_secs(1));
        assert_eq!(ends(0, Ending::Postpone { until }, false).0, State::Revoked);
        assert_eq!(ends(0, Ending::Interrupted(Interrupt::Shutdown), false).0, State::Revoked);
        // A run that was told to end may end in any way, and its task is revoked.
        assert_eq!(ends(3, failure(Some(false)), true).0, State::Revoked);
        let m = message(0);
        let judge = |terminated| Judge { revoked: true, terminated, ..Judge::unstarted(&m, Timestamp::ZERO) };
        let limit = Duration::from_secs(1);
        assert_eq!(state(judge(false).time_limit(limit)).unwrap().0, State::Failure);
        assert_eq!(state(judge(true).time_limit(limit)).unwrap().0, State::Revoked);
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
