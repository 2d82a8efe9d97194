//! A task as the runtime knows it: a table of function pointers that the macro registers.

use std::future::Future;
use std::pin::Pin;

use super::finite;
use super::panic::unseen;
use super::{
    Arguments, ArgumentsError, Context, LimitKeyFn, NeededData, SerialHeader, State, Task, TaskError,
    TaskKind, TaskOptions, TenantFn, Unique,
};

/// The outcome of one run: the returned value as JSON, or the way in which the run ended otherwise.
pub type Outcome = Result<String, TaskError>;

/// The future of an async body. It need not be `Send`, because a task stays on its queue's arbiter.
pub type BodyFuture = Pin<Box<dyn Future<Output = Outcome>>>;

/// The function that runs a task's body from encoded arguments.
#[derive(Clone, Copy)]
pub enum Body {
    /// An async body, which runs on the event loop.
    Io(fn(Context, &Arguments) -> Result<BodyFuture, TaskError>),
    /// A blocking body, which runs on a blocking thread.
    Cpu(fn(Context, &Arguments) -> Outcome),
}

/// The event that a hook is called for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum HookEvent {
    /// The body is about to start. A panic of this hook fails the attempt.
    BeforeStart,
    /// The task succeeded with this value, as JSON.
    Success(String),
    /// The attempt failed with these messages, and another attempt follows.
    Retry(Vec<String>),
    /// The task failed for good with these messages.
    Failure(Vec<String>),
    /// The task ended as REVOKED, for this reason. Only the [program](crate::Builder::on_revoked) has a hook for it.
    Revoked(Vec<String>),
    /// A run is over, and left its task in this state: a finished one, `Retry`, or `Pending` if the task goes on in
    /// another way (it was postponed, continued, replaced, or put back).
    AfterReturn(State),
}

/// A function that the runtime calls around a run, on the event loop; it must be short and must not block. Celery calls
/// them `before_start`, `on_success`, `on_retry`, `on_failure` and `after_return`.
pub type Hook = fn(&Context, &HookEvent);

/// The hooks of a task. The runtime logs a panic of any hook but `before_start`, and the outcome stays as it is.
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
pub struct Hooks {
    /// The runtime calls it before the body starts.
    pub before_start: Option<Hook>,
    /// The runtime calls it after the success was recorded.
    pub on_success: Option<Hook>,
    /// The runtime calls it when another attempt follows.
    pub on_retry: Option<Hook>,
    /// The runtime calls it after the failure was recorded.
    pub on_failure: Option<Hook>,
    /// The runtime calls it after each run that it called `before_start` for, whatever came of the run, and after the
    /// other hooks. Celery leaves out runs that end with `RETRY`, `IGNORED` or `REJECTED`; the event says the state.
    pub after_return: Option<Hook>,
}

impl Hooks {
    /// Whether the task has none of them.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { before_start, on_success, on_retry, on_failure, after_return } = self;
        [before_start, on_success, on_retry, on_failure, after_return].iter().all(|hook| hook.is_none())
    }
}

/// Makes the serial part of a call from the call's encoded arguments.
pub type SerialFn = fn(&Arguments) -> Result<SerialHeader, ArgumentsError>;

/// Makes the unique window of a call from the call's encoded arguments.
pub type UniqueFn = fn(&Arguments) -> Result<Unique, ArgumentsError>;

/// One registered task, as its macro defines it.
pub struct TaskDefinition {
    /// The task's name on the wire.
    pub name: &'static str,
    /// The names of the task's parameters, as in [`Task::PARAMS`].
    pub params: &'static [&'static str],
    /// The file and line of the definition, for the error about two tasks of one name.
    pub location: &'static str,
    /// Whether the body runs on the event loop or on a blocking thread.
    pub kind: TaskKind,
    /// Makes the options that the task states.
    pub options: fn() -> TaskOptions,
    /// The function that runs the task.
    pub body: Body,
    /// Makes the hooks of the task.
    pub hooks: fn() -> Hooks,
    /// The data that the body takes from the runtime: its parameters of the type [`Data`](super::Data).
    pub data: &'static [NeededData],
    /// Makes the lane of a call from its encoded arguments, if the task is serial.
    pub serial: Option<SerialFn>,
    /// Makes the unique window of a call from its encoded arguments, if the task has one.
    pub unique: Option<UniqueFn>,
    /// Makes the key of the task's rate limit, if the limit has one.
    pub rate_key: Option<LimitKeyFn>,
    /// Makes the key by which the task's runs are counted, if there is one.
    pub limit_key: Option<LimitKeyFn>,
    /// Makes the tenant of a call from its encoded arguments, if the task names one.
    pub tenant: Option<TenantFn>,
    /// The parameters by whose values the task is searched for; empty: it declares none.
    pub search: &'static [&'static str],
}

inventory::collect!(TaskDefinition);

/// Encodes the value that a body returned. A value without a form in JSON is a permanent failure.
#[doc(hidden)]
pub fn encode_output<T: Task>(value: &T::Output) -> Outcome {
    finite::to_string(value).map_err(|e| {
        TaskError::permanent(format!(
            "the task's return value of type {} has no form in JSON: {e}",
            std::any::type_name::<T::Output>()
        ))
    })
}

/// Decodes a task's arguments. Arguments that do not decode are rejected, because another attempt would not help.
#[doc(hidden)]
pub fn decode_args<T: Task>(context: &Context, arguments: &Arguments) -> Result<T::Args, TaskError> {
    // Python raises a `TypeError` when a function is called with arguments that it does not take.
    let wrong = |reason: &str| TaskError::reject(reason).with_python_type("builtins", "TypeError");
    if !context.message().hides_arguments() {
        return arguments.decode_call::<T>().map_err(|error| wrong(&error.to_string()));
    }
    // Neither the values that serde quotes may be shown, nor the text of a panic in a `Deserialize` of the
    // application's.
    match unseen(|| arguments.decode_call::<T>()) {
        Ok(decoded) => decoded.map_err(|error| wrong(error.without_values())),
        Err(place) => Err(wrong(&format!(
            "a panic while the arguments were decoded, at {place}; its text is not shown, because the call hides them"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pairs;

    impl Task for Pairs {
        type Args = (u8,);
        type Output = std::collections::HashMap<(u8, u8), u8>;
        const NAME: &'static str = "pairs";
        const PARAMS: &'static [&'static str] = &["n"];

        fn options() -> TaskOptions {
            TaskOptions::default()
        }
    }

    #[test]
    fn a_value_without_json_form_is_a_permanent_failure() {
        let error = encode_output::<Pairs>(&[((1, 2), 3)].into()).unwrap_err();
        assert!(error.to_string().contains("has no form in JSON"), "{error}");
        assert!(matches!(error.into_ending(), crate::task::Ending::Failure { transient: Some(false), .. }));
    }

    struct Measure;

    impl Task for Measure {
        type Args = (Picky,);
        type Output = (u8, Option<f32>);
        const NAME: &'static str = "measure";
        const PARAMS: &'static [&'static str] = &["n"];

        fn options() -> TaskOptions {
            TaskOptions::default()
        }
    }

    #[derive(Debug, serde::Serialize)]
    struct Picky;

    impl<'de> serde::Deserialize<'de> for Picky {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            panic!("cannot do with {}", String::deserialize(deserializer)?)
        }
    }

    #[test]
    fn a_value_that_holds_nan_is_a_permanent_failure() {
        assert_eq!(encode_output::<Measure>(&(1, Some(0.1))).unwrap(), "[1,0.1]");
        for float in [f32::NAN, f32::INFINITY] {
            let error = encode_output::<Measure>(&(1, Some(float))).unwrap_err();
            assert!(error.to_string().contains(&format!("a number in it is {float}")), "{error}");
            assert_eq!(error.is_transient(), Some(false));
        }
    }

    #[test]
    fn hidden_arguments_are_in_no_reason() {
        let mut message = Context::detached().message().clone();
        message.headers.0.insert("argsrepr".into(), "***".into());
        let context = Context::new(std::sync::Arc::new(message), "w".into(), crate::task::Sinks::default());
        let secret = Arguments::encode(&("hunter2",)).unwrap();
        let error = decode_args::<Pairs>(&context, &secret).unwrap_err().to_string();
        assert!(error.contains("(n)") && !error.contains("hunter2"), "{error}");
        let error = decode_args::<Measure>(&context, &secret).unwrap_err().to_string();
        assert!(error.contains("a panic while the arguments were decoded, at "), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn arguments_that_do_not_decode_are_a_rejection() {
        let context = Context::detached();
        let error = decode_args::<Pairs>(&context, &Arguments::encode(&("x",)).unwrap()).unwrap_err();
        assert!(error.to_string().starts_with("rejected: the arguments (n=\"x\")"), "{error}");
        assert_eq!(decode_args::<Pairs>(&context, &Arguments::encode(&(3,)).unwrap()).unwrap(), (3,));
    }
}
