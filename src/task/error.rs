//! How a run can end other than by returning a value.

use std::fmt;
use std::time::Duration;

use super::canvas::IntoCanvas;
use super::{Arguments, EnqueueError, RawSignature, Signature, Task};
use crate::core::Timestamp;

/// What a task's body returns when it does not return its value.
///
/// Any error that implements [`std::error::Error`] becomes a failure by `?`, with its causes as further messages,
/// and is retried under the task's policy. The constructors say the rest of what a run can ask for.
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
#[derive(Debug)]
pub struct TaskError(Box<Ending>);

/// Inside a [`TaskError`].
#[derive(Debug)]
#[non_exhaustive]
pub(crate) enum Ending {
    /// An error. `transient`: yes or no if it was said, else the task's predicate and policy decide.
    Failure { messages: Vec<String>, name: ErrorName, transient: Option<bool> },
    /// Try again, after the policy's delay or the one given; burns an attempt.
    Retry { after: Option<Duration>, messages: Vec<String> },
    /// Not now: at this time, and no attempt is burnt.
    Postpone { until: Until },
    /// The same task goes on with other arguments ("process 1000, then requeue").
    Continue { task: &'static str, arguments: Result<Arguments, String> },
    /// Another signature takes the task's place, under its id.
    Replace { signature: Result<Box<RawSignature>, String> },
    /// FAILURE now, whatever else would follow. Soil's option 1.
    Fail { errors: Vec<String>, name: ErrorName },
    /// IGNORED: no result, no retry. Celery's `Ignore`.
    Ignore,
    /// Into the dead letters. Celery's `Reject(requeue=False)`.
    Reject { reason: String, name: ErrorName },
    /// The body ended because it was told to.
    Interrupted(Interrupt),
}

/// What an error is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ErrorName {
    /// The Rust type, a name of ours such as `Panic`, or a Python class.
    pub(crate) name: String,
    /// The Python module of that class.
    pub(crate) module: Option<String>,
}

impl<T: Into<String>> From<T> for ErrorName {
    fn from(name: T) -> Self {
        Self { name: name.into(), module: None }
    }
}

/// When a postponed task is due.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    At(Timestamp),
    In(Duration),
}

/// Why a body was told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Interrupt {
    /// The soft time limit passed. Celery's `SoftTimeLimitExceeded`; the error's type is that name too.
    #[error("SoftTimeLimitExceeded: the soft time limit of the task passed")]
    SoftTimeLimit,
    /// The task was revoked while it ran.
    #[error("the task was revoked while it ran")]
    Revoked,
    /// The runtime shuts down; the task goes back to its queue and no attempt is burnt.
    #[error("the runtime shuts down")]
    Shutdown,
    /// The lane of a serial task is not sure to be this run's any more: its process could not renew its lease in time, and
    /// another may have started the task. How this run ends does not count, unless nobody has.
    #[error("the lease on the lane of the task could not be renewed")]
    LaneLost,
}

/// A task that met a closing runtime waits this long. By then it is most likely the next start of the program.
const CLOSING: Duration = Duration::from_secs(1);

impl TaskError {
    fn new(ending: Ending) -> Self {
        Self(Box::new(ending))
    }

    pub(crate) fn into_ending(self) -> Ending {
        *self.0
    }

    /// A failure with one or more messages; the task's predicate and policy say whether it is tried again.
    pub fn failure<I>(messages: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        Self::new(Ending::Failure {
            messages: messages.into_iter().map(Into::into).collect(),
            name: "TaskError".into(),
            transient: None,
        })
    }

    /// A failure from anything that can be shown, for error types that are no [`std::error::Error`] (such as
    /// `anyhow::Error` or `String`): `.map_err(TaskError::from_display)?`.
    pub fn from_display<E: fmt::Display>(error: E) -> Self {
        Self::new(Ending::Failure {
            messages: vec![format!("{error:#}")],
            name: std::any::type_name::<E>().into(),
            transient: None,
        })
    }

    /// A failure that another attempt would not mend: FAILURE at once.
    pub fn permanent(message: impl fmt::Display) -> Self {
        Self::from_display(message).with_transient(false)
    }

    /// A failure that another attempt may mend: retried under the policy even where the predicate would say no.
    pub fn transient(message: impl fmt::Display) -> Self {
        Self::from_display(message).with_transient(true)
    }

    /// Try again under the task's policy. Celery's `self.retry()`.
    pub fn retry(reason: impl fmt::Display) -> Self {
        Self::new(Ending::Retry { after: None, messages: vec![reason.to_string()] })
    }

    /// Try again after `delay` instead of the policy's; burns an attempt. Celery's `self.retry(countdown=…)`.
    pub fn retry_in(delay: Duration, reason: impl fmt::Display) -> Self {
        Self::new(Ending::Retry { after: Some(delay), messages: vec![reason.to_string()] })
    }

    /// Not now, but in `delay`; burns no attempt.
    pub fn postpone(delay: Duration) -> Self {
        Self::new(Ending::Postpone { until: Until::In(delay) })
    }

    /// Not now, but at `time`; burns no attempt.
    pub fn postpone_until(time: impl Into<Timestamp>) -> Self {
        Self::new(Ending::Postpone { until: Until::At(time.into()) })
    }

    /// This run did its part; the same task goes on with the arguments of `next` at the end of its queue, under
    /// the same id: "process 1000, then requeue". Attempts start over. `next` must be of the same task.
    pub fn continue_with<T: Task>(next: Signature<T>) -> Self {
        Self::new(Ending::Continue { task: T::NAME, arguments: next.into_arguments() })
    }

    /// Another task, or a whole canvas, takes the place of this one, under its id: who waits for this task gets the result of
    /// that, and what was to follow from this one follows from that. Celery's `self.replace(…)`.
    pub fn replace(with: impl IntoCanvas) -> Self {
        let signature = with.into_canvas().into_raw().map(Box::new).map_err(|error| error.to_string());
        Self::new(Ending::Replace { signature })
    }

    pub(crate) fn replace_with(signature: RawSignature) -> Self {
        Self::new(Ending::Replace { signature: Ok(Box::new(signature)) })
    }

    /// FAILURE with these messages, now and for good, and later states are ignored. Soil's option 1, in Celery
    /// `update_state(FAILURE); raise Ignore()`.
    pub fn fail<I>(errors: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let errors = errors.into_iter().map(Into::into).collect();
        Self::new(Ending::Fail { errors, name: "Fail".into() })
    }

    /// IGNORED: the outcome is of no interest. Celery's `Ignore`.
    pub fn ignore() -> Self {
        Self::new(Ending::Ignore)
    }

    /// Into the dead letters, for somebody to look at. Celery's `Reject(requeue=False)`.
    pub fn reject(reason: impl fmt::Display) -> Self {
        Self::new(Ending::Reject { reason: reason.to_string(), name: "Reject".into() })
    }

    /// The task that it was to call is not in this program.
    pub(crate) fn not_registered(reason: String) -> Self {
        Self::new(Ending::Reject { reason, name: "NotRegistered".into() })
    }

    /// Says whether another attempt may mend a failure; no effect on other endings.
    #[must_use]
    pub fn with_transient(mut self, transient: bool) -> Self {
        if let Ending::Failure { transient: slot, .. } = &mut *self.0 {
            *slot = Some(transient);
        }
        self
    }

    /// Says what a failure is called in Python: whoever waits for the result there gets an exception of this class, with the
    /// messages as its arguments. `with_python_type("builtins", "ValueError")` can be caught as `ValueError`; a class that is
    /// not loaded there is made up under its name. Without this it is made up under the name of the Rust type. No effect on
    /// endings that are no failures.
    ///
    /// ```
    /// # use celeriac::TaskError;
    /// # fn body(age: i32) -> Result<(), TaskError> {
    /// if age < 0 {
    ///     return Err(TaskError::permanent("age is negative").with_python_type("builtins", "ValueError"));
    /// }
    /// # Ok(()) }
    /// # assert!(body(-1).is_err());
    /// ```
    #[must_use]
    pub fn with_python_type(mut self, module: impl Into<String>, class: impl Into<String>) -> Self {
        if let Ending::Failure { name, .. } | Ending::Fail { name, .. } | Ending::Reject { name, .. } =
            &mut *self.0
        {
            *name = ErrorName { name: class.into(), module: Some(module.into()) };
        }
        self
    }

    /// Fills in what the task's predicate thinks, unless the error said it itself.
    #[doc(hidden)]
    #[must_use]
    pub fn or_transient(mut self, is_transient: bool) -> Self {
        if let Ending::Failure { transient: slot @ None, .. } = &mut *self.0 {
            *slot = Some(is_transient);
        }
        self
    }
}

impl<E: std::error::Error + 'static> From<E> for TaskError {
    fn from(error: E) -> Self {
        let mut messages = Vec::new();
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(error) = cause {
            // Also where `ctx.check()?` went through an error type of the application's.
            if let Some(interrupt) = error.downcast_ref::<Interrupt>() {
                return Self::new(Ending::Interrupted(*interrupt));
            }
            // A body that cannot enqueue what follows from it, because the runtime shuts down, is not at fault either.
            // It is put off rather than handed back: should it talk to another runtime than its own, it must not spin.
            if let Some(EnqueueError::ShuttingDown) = error.downcast_ref::<EnqueueError>() {
                return Self::postpone(CLOSING);
            }
            messages.push(error.to_string());
            cause = error.source();
        }
        let name = std::any::type_name::<E>().into();
        Self::new(Ending::Failure { messages, name, transient: None })
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
            Ending::Interrupted(interrupt) => write!(f, "{interrupt}"),
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
            (TaskError::from(Interrupt::Revoked), "the task was revoked while it ran"),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn endings_keep_what_they_were_given() {
        let second = Duration::from_secs(1);
        let ending = TaskError::retry_in(second, "busy").into_ending();
        assert!(matches!(ending, Ending::Retry { after: Some(d), .. } if d == second));
        assert!(matches!(TaskError::retry("busy").into_ending(), Ending::Retry { after: None, .. }));
        let ending = TaskError::postpone(second).into_ending();
        assert!(matches!(ending, Ending::Postpone { until: Until::In(d) } if d == second));
        let ending = TaskError::postpone_until(Timestamp::ZERO).into_ending();
        assert!(matches!(ending, Ending::Postpone { until: Until::At(t) } if t == Timestamp::ZERO));
    }
}
