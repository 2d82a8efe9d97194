//! A task as the runtime knows it: a row of function pointers that the macro registers.

use std::future::Future;
use std::pin::Pin;

use super::{Arguments, ArgumentsError, Context, Serial, Task, TaskError, TaskKind, TaskOptions, Unique};

/// What one run came to: the returned value as JSON, or how else it ended.
pub type Outcome = Result<String, TaskError>;

/// A running async body. It need not be `Send`: a task stays on its queue's arbiter.
pub type BodyFuture = Pin<Box<dyn Future<Output = Outcome>>>;

/// How to run a task's body from encoded arguments.
#[derive(Clone, Copy)]
pub enum Body {
    /// An async body.
    Io(fn(Context, &Arguments) -> Result<BodyFuture, TaskError>),
    /// A blocking body.
    Cpu(fn(Context, &Arguments) -> Outcome),
}

/// What a hook is told.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum HookEvent {
    /// The body is about to start. A panic here fails the attempt.
    BeforeStart,
    /// The task succeeded; its value as JSON.
    Success(String),
    /// The attempt failed with these messages and another follows.
    Retry(Vec<String>),
    /// The task failed for good with these messages.
    Failure(Vec<String>),
}

/// A function called around a run, on the event loop: it must be short and must not block. Celery's
/// `before_start`, `on_success`, `on_retry`, `on_failure`.
pub type Hook = fn(&Context, &HookEvent);

/// The hooks of a task. A panic in any but `before_start` is logged, and changes no outcome.
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
pub struct Hooks {
    /// Before the body starts.
    pub before_start: Option<Hook>,
    /// After success was recorded.
    pub on_success: Option<Hook>,
    /// When another attempt follows.
    pub on_retry: Option<Hook>,
    /// After the failure was recorded.
    pub on_failure: Option<Hook>,
}

/// Makes the serial part of a call of its encoded arguments.
pub type SerialFn = fn(&Arguments) -> Result<Serial, ArgumentsError>;

/// Makes the dedupe window of a call of its encoded arguments.
pub type UniqueFn = fn(&Arguments) -> Result<Unique, ArgumentsError>;

/// One registered task.
pub struct TaskDefinition {
    /// Its name on the wire.
    pub name: &'static str,
    /// Its parameters' names.
    pub params: &'static [&'static str],
    /// Where it is defined, for the error about two tasks of one name.
    pub location: &'static str,
    /// Event loop or blocking thread.
    pub kind: TaskKind,
    /// Its options.
    pub options: fn() -> TaskOptions,
    /// Its body.
    pub body: Body,
    /// Its hooks.
    pub hooks: fn() -> Hooks,
    /// The lane of a call, by its encoded arguments, if the task is serial.
    pub serial: Option<SerialFn>,
    /// The dedupe window of a call, by its encoded arguments, if the task has one.
    pub unique: Option<UniqueFn>,
}

inventory::collect!(TaskDefinition);

/// Encodes what a body returned.
#[doc(hidden)]
pub fn encode_output<T: Task>(value: &T::Output) -> Outcome {
    serde_json::to_string(value).map_err(|e| {
        TaskError::permanent(format!(
            "the task's return value of type {} has no form in JSON: {e}",
            std::any::type_name::<T::Output>()
        ))
    })
}

/// Decodes a task's arguments, and turns a failure into the rejection that it is: another attempt would not mend it.
#[doc(hidden)]
pub fn decode_args<T: Task>(arguments: &Arguments) -> Result<T::Args, TaskError> {
    // What Python raises when a function is called with what it does not take.
    let wrong = |error| TaskError::reject(error).with_python_type("builtins", "TypeError");
    arguments.decode(T::PARAMS).map_err(wrong)
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
        assert!(format!("{error:?}").contains("transient: Some(false)"));
    }

    #[test]
    fn arguments_that_do_not_decode_are_a_rejection() {
        let error = decode_args::<Pairs>(&Arguments::encode(&("x",)).unwrap()).unwrap_err();
        assert!(error.to_string().starts_with("rejected: the arguments (n=\"x\")"), "{error}");
        assert_eq!(decode_args::<Pairs>(&Arguments::encode(&(3,)).unwrap()).unwrap(), (3,));
    }
}
