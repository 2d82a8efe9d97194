//! The ways in which a run can end other than by returning a value.

mod python;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::canvas::IntoCanvas;
use super::{Arguments, EnqueueError, Json, RawSignature, Signature, Task};
use crate::core::Timestamp;
use crate::core::text::bounded_errors;

/// The error that a task's body returns when it does not return its value.
///
/// With `?`, any error that implements [`std::error::Error`] becomes a failure with its causes as further messages, and
/// is retried under the task's policy. The constructors cover the other endings that a body can ask for.
///
/// ```
/// use celeriac::task::TaskError;
/// # fn fetch() -> Result<String, std::io::Error> { Ok(String::new()) }
/// fn body() -> Result<(), TaskError> {
///     let text = fetch()?; // a transient error: retried
///     if text.contains("gone") {
///         return Err(TaskError::permanent("the form was deleted")); // FAILURE at once
///     }
///     Ok(())
/// }
/// # body().unwrap();
/// ```
pub struct TaskError(Box<Ending>);

/// The ending inside a [`TaskError`]. It is serialized to come from a child process.
#[derive(Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub(crate) enum Ending {
    /// The body failed. `transient` says whether another attempt may help; with `None` the task's predicate and policy
    /// decide.
    Failure { messages: Vec<String>, name: ErrorName, transient: Option<bool> },
    /// The task is tried again, as `next` says. This burns an attempt. `name` is the error's, once no attempt is left.
    Retry { messages: Vec<String>, name: ErrorName, next: Box<NextAttempt> },
    /// The task waits until the given time. This burns no attempt.
    Postpone { until: Until },
    /// The same task goes on with other arguments ("process 1000, then requeue").
    Continue { task: Cow<'static, str>, arguments: Result<Arguments, String> },
    /// Another signature takes the task's place and its id.
    Replace { signature: Result<Box<RawSignature>, String> },
    /// The task ends as FAILURE now and is not retried. It is Soil's option 1.
    Fail { errors: Vec<String>, name: ErrorName },
    /// The task ends as IGNORED, without a result and without a retry. Celery's `Ignore`.
    Ignore,
    /// The message goes to the dead letters. Celery's `Reject(requeue=False)`.
    Reject { reason: String, name: ErrorName },
    /// The message goes back into its queue. This burns no attempt. Celery's `Reject(requeue=True)`.
    Requeue { reason: String },
    /// The body ended because it was told to.
    Interrupted(Interrupt),
    /// The hard time limit passed, this one, and the body was not waited for any longer.
    TimeLimit(Duration),
}

impl Ending {
    /// The name of the error, if the ending is one.
    fn error_name_mut(&mut self) -> Option<&mut ErrorName> {
        match self {
            Self::Failure { name, .. }
            | Self::Retry { name, .. }
            | Self::Fail { name, .. }
            | Self::Reject { name, .. } => Some(name),
            _ => None,
        }
    }

    /// The name of the error, if the ending is one.
    fn error_name(&self) -> Option<&ErrorName> {
        match self {
            Self::Failure { name, .. }
            | Self::Retry { name, .. }
            | Self::Fail { name, .. }
            | Self::Reject { name, .. } => Some(name),
            _ => None,
        }
    }

    /// Whether the ending is an error that was expected.
    pub(crate) fn is_expected(&self) -> bool {
        self.error_name().is_some_and(|name| name.expected)
    }

    /// The place in the source of the panic that was the ending, if it was one and its place is known.
    pub(crate) fn place(&self) -> Option<&str> {
        self.error_name()?.place.as_deref()
    }
}

/// What the next attempt has in place of what the task's policy and its message say.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct NextAttempt {
    pub(crate) after: Option<Duration>,
    pub(crate) max_retries: Option<u32>,
    /// How long after this attempt the next one may start at the latest.
    pub(crate) expires: Option<Duration>,
    /// The arguments, and the task that they are of.
    pub(crate) arguments: Option<(Cow<'static, str>, Result<Arguments, String>)>,
}

/// The name of an error's type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ErrorName {
    /// The Rust type, a name of Celeriac's such as `Panic`, or a Python class.
    pub(crate) name: String,
    /// The Python module of the class.
    pub(crate) module: Option<String>,
    /// The arguments of the class, a list, if they are others than the messages.
    pub(crate) arguments: Option<Json>,
    /// Whether the error is expected, so that the log does not call it one.
    pub(crate) expected: bool,
    /// The place in the source, if the error is a panic.
    pub(crate) place: Option<Box<str>>,
}

impl<T: Into<String>> From<T> for ErrorName {
    fn from(name: T) -> Self {
        Self { name: name.into(), module: None, arguments: None, expected: false, place: None }
    }
}

/// The time at which a postponed task is due.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Until {
    At(Timestamp),
    In(Duration),
}

/// Why a body was told to end.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Interrupt {
    /// The soft time limit passed. It is Celery's `SoftTimeLimitExceeded`, and the error's type in the record has that
    /// name.
    #[error("SoftTimeLimitExceeded: the soft time limit of the task passed")]
    SoftTimeLimit,
    /// The task was revoked while it ran.
    #[error("the task was revoked while it ran")]
    Revoked,
    /// The runtime shuts down. The task goes back to its queue, and no attempt is burnt.
    #[error("the runtime shuts down")]
    Shutdown,
    /// The run may have lost the lane of its serial task: its process could not renew its lease in time, and another
    /// process may have started the task. If another one has, the end of this run does not count.
    #[error("the lease on the lane of the task could not be renewed")]
    LaneLost,
}

crate::core::debug_as_display!(TaskError, Interrupt);

/// A task that met a closing runtime waits this long. By then the program has most likely started again.
const CLOSING: Duration = Duration::from_secs(1);

impl TaskError {
    fn new(ending: Ending) -> Self {
        Self(Box::new(ending))
    }

    pub(crate) fn into_ending(self) -> Ending {
        *self.0
    }

    /// A failure with one or more messages. The task's predicate and policy decide whether it is retried. The record has at
    /// most 1,000 messages, and 1 MiB of them; the last one says how many more there were.
    pub fn failure<I>(messages: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        Self::new(Ending::Failure {
            messages: bounded_errors(messages.into_iter().map(Into::into)),
            name: "TaskError".into(),
            transient: None,
        })
    }

    /// A failure from any value that can be shown. It is meant for error types that are no [`std::error::Error`], such
    /// as `String`: `.map_err(TaskError::from_display)?`.
    pub fn from_display<E: fmt::Display>(error: E) -> Self {
        Self::new(Ending::Failure {
            messages: vec![format!("{error:#}")],
            name: std::any::type_name::<E>().into(),
            transient: None,
        })
    }

    /// A failure that another attempt would not mend. The task ends as FAILURE at once.
    pub fn permanent(message: impl fmt::Display) -> Self {
        Self::from_display(message).with_transient(false)
    }

    /// A failure that another attempt may mend. It is retried under the policy, even if the task's predicate would say
    /// no.
    pub fn transient(message: impl fmt::Display) -> Self {
        Self::from_display(message).with_transient(true)
    }

    /// Asks for another attempt under the task's policy. Celery's `self.retry()`.
    pub fn retry(reason: impl fmt::Display) -> Self {
        let (messages, name) = (vec![reason.to_string()], "Retry".into());
        Self::new(Ending::Retry { messages, name, next: Box::default() })
    }

    /// Asks for another attempt after `delay` in place of the policy's delay. It burns an attempt. Celery's
    /// `self.retry(countdown=…)`.
    pub fn retry_in(delay: Duration, reason: impl fmt::Display) -> Self {
        Self::retry(reason).with_countdown(delay)
    }

    /// Postpones the task by `delay`. It burns no attempt.
    pub fn postpone(delay: Duration) -> Self {
        Self::new(Ending::Postpone { until: Until::In(delay) })
    }

    /// Postpones the task until `time`: a [`Timestamp`], a `SystemTime`, or a time of `chrono` or `jiff` (feature `jiff`).
    /// It burns no attempt.
    pub fn postpone_until(time: impl Into<Timestamp>) -> Self {
        Self::new(Ending::Postpone { until: Until::At(time.into()) })
    }

    /// Continues the same task with the arguments of `next` at the end of its queue, under the same id: "process 1000,
    /// then requeue". The count of attempts starts over. `next` must be of the same task; a call of another one is a
    /// failure.
    pub fn continue_with<T: Task>(next: Signature<T>) -> Self {
        Self::new(Ending::Continue { task: T::NAME.into(), arguments: next.into_arguments() })
    }

    /// Replaces this task by another task or a whole canvas, under the same id. Whoever waits for this task gets the
    /// result of the replacement, and the tasks that were to follow from this one follow from the replacement. Celery's
    /// `self.replace(…)`.
    pub fn replace(with: impl IntoCanvas) -> Self {
        let signature = with.into_canvas().into_raw().map(Box::new).map_err(|error| error.to_string());
        Self::new(Ending::Replace { signature })
    }

    pub(crate) fn replace_with(signature: RawSignature) -> Self {
        Self::new(Ending::Replace { signature: Ok(Box::new(signature)) })
    }

    /// Fails the task with these messages, now and for good. Later states are ignored. It is Soil's option 1, in Celery
    /// `update_state(FAILURE); raise Ignore()`. The record has at most 1,000 messages, and 1 MiB of them; the last one says
    /// how many more there were.
    pub fn fail<I>(errors: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let errors = bounded_errors(errors.into_iter().map(Into::into));
        Self::new(Ending::Fail { errors, name: "Fail".into() })
    }

    /// Ends the task as IGNORED, because its outcome is of no interest. Celery's `Ignore`.
    pub fn ignore() -> Self {
        Self::new(Ending::Ignore)
    }

    /// Moves the task to the dead letters, where somebody can look at it. Celery's `Reject(requeue=False)`.
    pub fn reject(reason: impl fmt::Display) -> Self {
        Self::new(Ending::Reject { reason: reason.to_string(), name: "Reject".into() })
    }

    /// Puts the task back into its queue, from where any worker may take it: "this machine cannot, another one may". It
    /// burns no attempt, and the next run finds [`Context::is_redelivered`](super::Context::is_redelivered). Celery's
    /// `Reject(requeue=True)`.
    ///
    /// Celery puts the message back at once. If no worker wants it, it goes round as fast as the machines can. Here the
    /// task waits before it can be taken: 1 s, and twice as long each further time in a row, up to a minute.
    pub fn reject_and_requeue(reason: impl fmt::Display) -> Self {
        Self::new(Ending::Requeue { reason: reason.to_string() })
    }

    /// Rejects a call of a task that is not in this program.
    pub(crate) fn not_registered(reason: String) -> Self {
        Self::new(Ending::Reject { reason, name: "NotRegistered".into() })
    }

    /// States whether another attempt may mend the failure. It has no effect on other endings.
    #[must_use]
    pub fn with_transient(mut self, transient: bool) -> Self {
        if let Ending::Failure { transient: slot, .. } = &mut *self.0 {
            *slot = Some(transient);
        }
        self
    }

    /// Asks for another attempt after `delay` in place of the policy's delay. A failure keeps its messages and its
    /// type, and is what the task ends with when no attempt is left: Celery's `self.retry(exc=…, countdown=…)`. It has
    /// no effect on endings other than failures and retries.
    ///
    /// ```
    /// # use celeriac::TaskError;
    /// # use std::time::Duration;
    /// # fn ask() -> Result<String, std::io::Error> { Ok(String::new()) }
    /// fn body() -> Result<String, TaskError> {
    ///     ask().map_err(|error| TaskError::from(error).with_countdown(Duration::from_secs(5)))
    /// }
    /// # body().unwrap();
    /// ```
    #[must_use]
    pub fn with_countdown(mut self, delay: Duration) -> Self {
        if let Some(next) = self.next_attempt() {
            next.after = Some(delay);
        }
        self
    }

    /// Asks for another attempt, unless the task was tried again `max_retries` times already. This number takes the
    /// place of the policy's for this ending only: Celery's `self.retry(max_retries=…)`. It has no effect on endings
    /// other than failures and retries.
    #[must_use]
    pub fn with_max_retries(mut self, max_retries: u32) -> Self {
        if let Some(next) = self.next_attempt() {
            next.max_retries = Some(max_retries);
        }
        self
    }

    /// Asks for another attempt that must start within `after` from now; if none has, the task is revoked. This takes
    /// the place of the expiry that the call has, also for the attempts that follow: Celery's `self.retry(expires=…)`.
    /// It has no effect on endings other than failures and retries.
    #[must_use]
    pub fn with_expires(mut self, after: Duration) -> Self {
        if let Some(next) = self.next_attempt() {
            next.expires = Some(after);
        }
        self
    }

    /// Asks for another attempt with the arguments of `next`, which must be of the same task; a call of another one is
    /// a failure. Celery's `self.retry(args=…, kwargs=…)`. It has no effect on endings other than failures and retries.
    ///
    /// ```
    /// use celeriac::{TaskError, task};
    ///
    /// #[task]
    /// async fn fetch(url: String, page_size: u32) -> Result<(), TaskError> {
    ///     if page_size > 100 {
    ///         let smaller = fetch::s(url, page_size / 2);
    ///         return Err(TaskError::retry("the page is too large").with_arguments(smaller));
    ///     }
    ///     Ok(())
    /// }
    /// # fn main() {}
    /// ```
    #[must_use]
    pub fn with_arguments<T: Task>(mut self, next: Signature<T>) -> Self {
        if let Some(attempt) = self.next_attempt() {
            attempt.arguments = Some((T::NAME.into(), next.into_arguments()));
        }
        self
    }

    /// The next attempt of a failure or a retry. A failure becomes a retry that bears its messages and its name.
    fn next_attempt(&mut self) -> Option<&mut NextAttempt> {
        if let Ending::Failure { messages, name, .. } = &mut *self.0 {
            let (messages, name) = (std::mem::take(messages), name.clone());
            *self.0 = Ending::Retry { messages, name, next: Box::default() };
        }
        match &mut *self.0 {
            Ending::Retry { next, .. } => Some(next),
            _ => None,
        }
    }

    /// States whether the error is expected: that a user does not exist is a failure of the task, but nobody has to
    /// look at it. An expected error is logged as information and not as an error or a warning; nothing else changes.
    /// Celery's `throws`. The task's option of that name decides for the errors that state nothing. It has no effect on
    /// endings that are no errors.
    #[must_use]
    pub fn with_expected(mut self, expected: bool) -> Self {
        if let Some(name) = self.0.error_name_mut() {
            name.expected = expected;
        }
        self
    }

    /// Whether another attempt may mend the failure. It is `None` if the error does not say so, and the task's policy
    /// decides; it is also `None` for endings that are no failures.
    pub fn is_transient(&self) -> Option<bool> {
        match &*self.0 {
            Ending::Failure { transient, .. } => *transient,
            _ => None,
        }
    }

    /// Fills in what the task's predicate thinks, unless the error has stated it itself.
    #[doc(hidden)]
    #[must_use]
    pub fn or_transient(mut self, is_transient: bool) -> Self {
        if let Ending::Failure { transient: slot @ None, .. } = &mut *self.0 {
            *slot = Some(is_transient);
        }
        self
    }
}

impl TaskError {
    /// Fills in what the task's `throws` thinks, unless the error has stated that it is expected.
    #[doc(hidden)]
    #[must_use]
    pub fn or_expected(self, is_expected: bool) -> Self {
        if is_expected { self.with_expected(true) } else { self }
    }
}

impl<E: std::error::Error + 'static> From<E> for TaskError {
    fn from(error: E) -> Self {
        Self::of_error(&error, std::any::type_name::<E>())
    }
}

impl TaskError {
    /// The ending that an error stands for: a failure with its causes, of this type, unless one of them says otherwise.
    pub(super) fn of_error(error: &(dyn std::error::Error + 'static), name: &str) -> Self {
        let mut messages = Vec::new();
        let mut cause = Some(error);
        while let Some(error) = cause {
            // `ctx.check()?` may also have gone through an error type of the application's.
            if let Some(interrupt) = error.downcast_ref::<Interrupt>() {
                return Self::new(Ending::Interrupted(*interrupt));
            }
            // A body that cannot enqueue what follows from it, because the runtime shuts down, is not at fault either.
            // It is postponed and not handed back: if it talks to another runtime than its own, it must not spin.
            if let Some(EnqueueError::ShuttingDown) = error.downcast_ref::<EnqueueError>() {
                return Self::postpone(CLOSING);
            }
            messages.push(error.to_string());
            cause = error.source();
        }
        Self::new(Ending::Failure { messages, name: name.into(), transient: None })
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Ending::Failure { messages, .. } => f.write_str(&messages.join(": ")),
            Ending::Retry { messages, .. } => write!(f, "retry: {}", messages.join(": ")),
            Ending::Postpone { .. } => f.write_str("postponed"),
            Ending::Continue { task, .. } => write!(f, "{task} goes on with a new cursor"),
            Ending::Replace { .. } => f.write_str("replaced"),
            Ending::Fail { errors, .. } => f.write_str(&errors.join("; ")),
            Ending::Ignore => f.write_str("ignored"),
            Ending::Reject { reason, .. } => write!(f, "rejected: {reason}"),
            Ending::Requeue { reason } => write!(f, "rejected, and put back into its queue: {reason}"),
            Ending::Interrupted(interrupt) => write!(f, "{interrupt}"),
            Ending::TimeLimit(limit) => write!(f, "the time limit of {limit:?} passed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("could not read the form")]
        Parse(#[from] std::num::ParseIntError),
        #[error("ended")]
        Ended(#[from] Interrupt),
        #[error("deep")]
        Deep(#[source] Box<Outer>),
    }

    fn parse_error() -> std::num::ParseIntError {
        "x".parse::<u8>().unwrap_err()
    }

    fn failure(error: TaskError) -> (Vec<String>, String, Option<bool>) {
        match error.into_ending() {
            Ending::Failure { messages, name, transient } => (messages, name.name, transient),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_error_brings_its_causes_and_its_type() {
        let error = Outer::Deep(Box::new(Outer::Parse(parse_error())));
        let (messages, error_type, transient) = failure(error.into());
        assert_eq!(messages, ["deep", "could not read the form", "invalid digit found in string"]);
        assert!(error_type.ends_with("tests::Outer"), "{error_type}");
        assert_eq!(transient, None);
    }

    #[test]
    fn an_interrupt_is_no_failure_however_deep_it_sits() {
        for error in [
            TaskError::from(Interrupt::Shutdown),
            Outer::from(Interrupt::Shutdown).into(),
            Outer::Deep(Box::new(Outer::Ended(Interrupt::Shutdown))).into(),
        ] {
            assert_eq!(error.to_string(), "the runtime shuts down");
            assert!(matches!(error.into_ending(), Ending::Interrupted(Interrupt::Shutdown)));
        }
    }

    #[test]
    fn a_body_that_cannot_enqueue_in_a_closing_runtime_is_put_off() {
        let ending = TaskError::from(EnqueueError::ShuttingDown).into_ending();
        assert!(matches!(ending, Ending::Postpone { until: Until::In(CLOSING) }));
        assert!(matches!(TaskError::from(EnqueueError::NotRunning).into_ending(), Ending::Failure { .. }));
    }

    #[test]
    fn what_the_error_says_of_itself_beats_the_predicate() {
        let transient = |error: TaskError| failure(error).2;
        assert_eq!(transient(TaskError::from(parse_error()).or_transient(false)), Some(false));
        assert_eq!(transient(TaskError::failure(["a"]).or_transient(true)), Some(true));
        assert_eq!(transient(TaskError::permanent("a").or_transient(true)), Some(false));
        assert_eq!(transient(TaskError::transient("a").or_transient(false)), Some(true));
        assert_eq!(transient(TaskError::transient("a").with_transient(false)), Some(false));
        let retry = TaskError::retry("later").with_transient(false).or_transient(false);
        assert!(matches!(retry.into_ending(), Ending::Retry { .. }));
    }

    #[test]
    fn each_ending_reads_well() {
        let second = Duration::from_secs(1);
        for (error, text) in [
            (TaskError::failure(["a", "b"]), "a: b"),
            (TaskError::from_display("text"), "text"),
            (TaskError::retry("busy"), "retry: busy"),
            (TaskError::retry_in(second, "busy"), "retry: busy"),
            (TaskError::postpone(second), "postponed"),
            (TaskError::postpone_until(Timestamp::ZERO), "postponed"),
            (TaskError::fail(["a", "b"]), "a; b"),
            (TaskError::ignore(), "ignored"),
            (TaskError::reject("foreign"), "rejected: foreign"),
            (TaskError::reject_and_requeue("busy"), "rejected, and put back into its queue: busy"),
            (TaskError::from(Interrupt::Revoked), "the task was revoked while it ran"),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn a_failure_that_says_how_to_go_on_keeps_its_messages_and_its_type() {
        let error = TaskError::permanent("busy").with_python_type("app", "Busy").with_max_retries(7);
        let error = error.with_expires(Duration::from_secs(9));
        let Ending::Retry { messages, name, next } = error.into_ending() else { panic!() };
        assert_eq!(
            (messages, name.name, name.module.as_deref()),
            (vec!["busy".into()], "Busy".into(), Some("app"))
        );
        assert_eq!((next.max_retries, next.after), (Some(7), None));
        assert_eq!(next.expires, Some(Duration::from_secs(9)));
        let ignored = TaskError::ignore().with_countdown(Duration::ZERO).with_max_retries(1);
        assert!(matches!(ignored.into_ending(), Ending::Ignore));
    }

    #[test]
    fn an_error_is_expected_if_it_or_its_task_says_so() {
        let is_expected = |error: TaskError| error.into_ending().is_expected();
        let plain = || TaskError::from(parse_error());
        assert!(!is_expected(plain()) && !is_expected(plain().or_expected(false)));
        assert!(is_expected(plain().or_expected(true)));
        let stated = plain().with_expected(true).or_expected(false).with_python_type("app", "Gone");
        assert!(is_expected(stated.with_max_retries(1)), "it stays so when it says more");
        assert!(!is_expected(TaskError::ignore().with_expected(true)));
    }

    #[test]
    fn endings_keep_what_they_were_given() {
        let second = Duration::from_secs(1);
        let after = |error: TaskError| match error.into_ending() {
            Ending::Retry { next, .. } => next.after,
            other => panic!("{other:?}"),
        };
        assert_eq!(after(TaskError::retry_in(second, "busy")), Some(second));
        assert_eq!(after(TaskError::retry("busy")), None);
        let ending = TaskError::postpone(second).into_ending();
        assert!(matches!(ending, Ending::Postpone { until: Until::In(d) } if d == second));
        let ending = TaskError::postpone_until(Timestamp::ZERO).into_ending();
        assert!(matches!(ending, Ending::Postpone { until: Until::At(t) } if t == Timestamp::ZERO));
    }
}
