//! Errors as Python knows them: a class, its module and its arguments.
//!
//! In Python, `.get()` raises the class that a document names if that is an exception of a module that is loaded
//! there, or else a class that it makes up under the same name. If the module has something else of that name, Python
//! refuses the document. So a Rust error names no module. Only two kinds of errors do: the endings that have classes
//! in Celery, and errors that [state a class themselves](crate::task::TaskError::with_python_type).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::protocol::repr;
use crate::task::{Json, State, TaskResult};

const CELERY: &str = "celery.exceptions";
const BILLIARD: &str = "billiard.exceptions";

/// An exception in the form of Celery's documents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exception {
    /// The name of the class.
    pub exc_type: String,
    /// The arguments of the class.
    pub exc_message: Vec<Json>,
    /// The module of the class; `None`: Python makes the class up.
    pub exc_module: Option<String>,
}

impl Exception {
    /// The exception for a record whose state is not SUCCESS.
    pub fn of(result: &TaskResult) -> Self {
        let own = own_name(result);
        let (exc_type, exc_module) = class_of(result);
        let given = result.error_arguments.as_ref().and_then(|list| list.read::<Vec<Json>>().ok());
        let exc_message = match (given, own) {
            (Some(given), _) => given,
            (None, "TaskRevoked") => vec![revocation(&result.errors).into()],
            // The class takes the name of the task and makes a sentence of it.
            (None, "NotRegistered") => vec![result.task.as_str().into()],
            // The second argument says whether the message goes back into its queue.
            (None, "Reject") => vec![result.errors.join(": ").into(), false.into()],
            (None, _) => result.errors.iter().map(|error| error.as_str().into()).collect(),
        };
        Self { exc_type: exc_type.to_owned(), exc_message, exc_module }
    }

    /// The name of the class alone, without its module: `ValueError`. Metrics are told apart by it.
    pub fn class(result: &TaskResult) -> &str {
        let (class, _) = class_of(result);
        class.rsplit('.').next().unwrap_or(class)
    }

    /// Reads the `result` of a failure's document. Some foreign workers write plain text there.
    pub fn read(value: &Value) -> Self {
        let text = |name| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let Some(exc_type) = text("exc_type") else {
            let message = if value.is_null() { Vec::new() } else { vec![value.clone().into()] };
            return Self { exc_type: "Exception".to_owned(), exc_message: message, exc_module: None };
        };
        let exc_message = match value.get("exc_message") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(arguments)) => arguments.iter().cloned().map(Json::from).collect(),
            Some(single) => vec![single.clone().into()],
        };
        Self { exc_type, exc_message, exc_module: text("exc_module") }
    }

    /// The exception as Python's `repr` shows it: `ValueError('bad', 42)`. Celery's `Reject` shows itself in another way.
    pub fn repr(&self) -> String {
        if let ("Reject", Some(CELERY), [reason, requeue]) =
            (self.exc_type.as_str(), self.exc_module.as_deref(), self.exc_message.as_slice())
        {
            let reason = reason.as_str().map_or_else(|| shown(reason), str::to_owned);
            return format!("reject requeue={}: {reason}", shown(requeue));
        }
        let name = self.exc_type.rsplit('.').next().unwrap_or(&self.exc_type);
        let arguments: Vec<String> = self.exc_message.iter().map(shown).collect();
        format!("{name}({})", arguments.join(", "))
    }

    /// The exception in the form of a Python traceback. `place` stands for the lines of code, of which a Rust error
    /// has none; the messages after the first are its causes.
    pub fn traceback(&self, place: &str) -> String {
        let mut text = format!("Traceback (most recent call last):\n  {place}\n{}", self.exc_type);
        // What follows `Reject` is no cause.
        let is_celerys = self.exc_module.as_deref() == Some(CELERY);
        // Who states the arguments has no causes among them, and Python shows several as a tuple.
        if !is_celerys && !self.exc_message.iter().all(|argument| argument.is_string()) {
            let arguments: Vec<String> = self.exc_message.iter().map(shown).collect();
            match arguments.as_slice() {
                [single] => text.push_str(&format!(": {single}")),
                several => text.push_str(&format!(": ({})", several.join(", "))),
            }
            return text;
        }
        let mut messages = self.messages().into_iter();
        if let Some(first) = messages.next() {
            text.push_str(": ");
            text.push_str(&first);
        }
        if !is_celerys {
            for cause in messages {
                text.push_str("\n  caused by: ");
                text.push_str(&cause);
            }
        }
        text
    }

    /// The arguments as messages. An argument that is not text is shown as JSON.
    pub fn messages(&self) -> Vec<String> {
        let text = |argument: &Json| argument.as_str().map_or_else(|| argument.to_string(), str::to_owned);
        self.exc_message.iter().map(text).collect()
    }
}

/// The name of the error in a record.
fn own_name(result: &TaskResult) -> &str {
    result.error_type.as_deref().unwrap_or("TaskError")
}

/// The class for a record, and its module.
fn class_of(result: &TaskResult) -> (&str, Option<String>) {
    let module = |module: &str| Some(module.to_owned());
    match (&result.error_module, own_name(result)) {
        (Some(given), own) => (own, module(given)),
        (None, "TaskRevoked") => ("TaskRevokedError", module(CELERY)),
        (None, own @ ("NotRegistered" | "Reject" | "ChordError")) => (own, module(CELERY)),
        // The attempt asked for another one. A task that is over has asked once too often.
        (None, own @ "Retry") if result.state == State::Retry => (own, module(CELERY)),
        (None, "Retry") => ("MaxRetriesExceededError", module(CELERY)),
        (None, own @ ("TimeLimitExceeded" | "SoftTimeLimitExceeded")) => (own, module(BILLIARD)),
        (None, "WorkerLost") => ("WorkerLostError", module(BILLIARD)),
        (None, rust) => (class_name(rust), None),
    }
}

/// An argument as Python's `repr` shows it.
fn shown(argument: &Json) -> String {
    match argument.value() {
        Value::String(text) => repr::text(text),
        _ => repr::value(argument.text()),
    }
}

/// The last part of the path of a Rust type, without its parameters, which is a valid name of a Python class.
fn class_name(rust: &str) -> &str {
    let path = rust.split('<').next().unwrap_or(rust).trim_start_matches(['&', ' ']);
    match path.rsplit("::").next() {
        Some(name) if !name.is_empty() => name,
        _ => "TaskError",
    }
}

/// The reason of a revocation. Celery has three, and clients compare them.
fn revocation(errors: &[String]) -> &'static str {
    match errors.first().map_or("", String::as_str) {
        text if text.starts_with("expired") => "expired",
        text if text.contains("while it ran") || text == "terminated" => "terminated",
        _ => "revoked",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::core::Timestamp;
    use crate::task::{Context, Ending, Interrupt, Judge, Message, TaskError, Verdict};

    /// The document of an attempt that is tried again.
    fn tried_again(error: TaskError) -> Value {
        match Judge::unstarted(&message(), Timestamp::ZERO).judge(Err(error.into_ending())) {
            Verdict::Again { failed: Some(failed), .. } => {
                serde_json::to_value(Exception::of(&failed)).unwrap()
            }
            other => panic!("{other:?}"),
        }
    }

    fn message() -> Message {
        let mut message = Context::detached().message().clone();
        message.task = "cap.nope".into();
        message
    }

    fn said(verdict: Verdict) -> Value {
        let record = match verdict {
            Verdict::Over(record) | Verdict::Dead { record, .. } => record,
            other => panic!("{other:?}"),
        };
        serde_json::to_value(Exception::of(&record)).unwrap()
    }

    fn ended(error: TaskError) -> Value {
        let mut message = message();
        message.retry.max_retries = 0;
        said(Judge::unstarted(&message, Timestamp::ZERO).judge(Err(error.into_ending())))
    }

    /// The test goes through the judge, so that no name there can change without a failure here.
    #[test]
    fn our_own_endings_bear_celerys_names() {
        let message = message();
        let judge = || Judge::unstarted(&message, Timestamp::ZERO);
        let of = |exc_type: &str, exc_message: Value, exc_module: &str| json!({"exc_type": exc_type, "exc_message": exc_message, "exc_module": exc_module});
        let revoked = |reason: &str| of("TaskRevokedError", json!([reason]), CELERY);
        assert_eq!(said(judge().revoked_waiting()), revoked("revoked"));
        assert_eq!(said(judge().expired(Timestamp::ZERO)), revoked("expired"));
        assert_eq!(said(judge().judge(Err(Ending::Interrupted(Interrupt::Revoked)))), revoked("terminated"));
        assert_eq!(
            said(judge().not_registered("no such task")),
            of("NotRegistered", json!(["cap.nope"]), CELERY)
        );
        assert_eq!(ended(TaskError::reject("r")), of("Reject", json!(["r", false]), CELERY));
        assert_eq!(ended(TaskError::retry("busy")), of("MaxRetriesExceededError", json!(["busy"]), CELERY));
        let limit = said(judge().time_limit(Duration::from_secs(3)));
        assert_eq!(
            (&limit["exc_type"], &limit["exc_module"]),
            (&json!("TimeLimitExceeded"), &json!(BILLIARD))
        );
        let soft = ended(Interrupt::SoftTimeLimit.into());
        assert_eq!(
            (&soft["exc_type"], &soft["exc_module"]),
            (&json!("SoftTimeLimitExceeded"), &json!(BILLIARD))
        );
    }

    /// Celery stores what `self.retry(exc=…)` was given, and `Retry` where an attempt was cancelled without an error.
    #[test]
    fn an_attempt_that_is_tried_again_has_asked_for_it_or_failed_with_its_own_error() {
        let asked = json!({"exc_type": "Retry", "exc_message": ["busy"], "exc_module": CELERY});
        assert_eq!(tried_again(TaskError::retry("busy")), asked);
        let own = TaskError::failure(["bad"]).with_python_type("builtins", "ValueError");
        let failed = json!({"exc_type": "ValueError", "exc_message": ["bad"], "exc_module": "builtins"});
        assert_eq!(tried_again(own.with_countdown(Duration::ZERO)), failed);
    }

    #[test]
    fn rust_errors_bear_their_name_or_the_one_they_were_given() {
        let parse = "x".parse::<u8>().unwrap_err();
        let expected = json!({"exc_type": "ParseIntError", "exc_message": ["invalid digit found in string"], "exc_module": null});
        assert_eq!(ended(parse.clone().into()), expected);
        let given = ended(TaskError::from(parse).with_python_type("builtins", "ValueError"));
        let expected = json!({"exc_type": "ValueError", "exc_message": ["invalid digit found in string"], "exc_module": "builtins"});
        assert_eq!(given, expected);
        let given = ended(
            TaskError::fail(["gone", 7.to_string().as_str()]).with_python_type("shop.errors", "Gone.Away"),
        );
        assert_eq!(
            given,
            json!({"exc_type": "Gone.Away", "exc_message": ["gone", "7"], "exc_module": "shop.errors"})
        );
        let numbers = TaskError::fail(["bad: 42"]).with_python_type("builtins", "ValueError");
        let numbers = numbers.with_python_args(json!(["bad", 42, null, {"a": 0.5}]));
        assert_eq!(
            ended(numbers),
            json!({"exc_type": "ValueError", "exc_message": ["bad", 42, null, {"a": 0.5}], "exc_module": "builtins"})
        );
        for (rust, class) in [
            ("alloc::string::String", "String"),
            ("app::Error<alloc::vec::Vec<u8>>", "Error"),
            ("&str", "str"),
            ("Panic", "Panic"),
            ("", "TaskError"),
            ("a::", "TaskError"),
        ] {
            assert_eq!(class_name(rust), class);
        }
    }

    #[test]
    fn an_exception_is_shown_as_python_shows_it() {
        let of = |name: &str, arguments: Value| {
            Exception::read(&json!({"exc_type": name, "exc_message": arguments}))
        };
        assert_eq!(of("ValueError", json!(["bad", 42])).repr(), "ValueError('bad', 42)");
        assert_eq!(of("Gone.Away", json!(["it's"])).repr(), "Away(\"it's\")");
        assert_eq!(of("SoftTimeLimitExceeded", json!([])).repr(), "SoftTimeLimitExceeded()");
        let reject = json!({"exc_type": "Reject", "exc_message": ["no", false], "exc_module": CELERY});
        let reject = Exception::read(&reject);
        assert_eq!(reject.repr(), "reject requeue=False: no");
        let traceback = "Traceback (most recent call last):\n  t in queue q\n";
        assert_eq!(reject.traceback("t in queue q"), format!("{traceback}Reject: no"));
        let chain = of("E", json!(["outer", "inner"])).traceback("t in queue q");
        assert_eq!(chain, format!("{traceback}E: outer\n  caused by: inner"));
        let stated = of("ValueError", json!(["bad", 42])).traceback("t in queue q");
        assert_eq!(stated, format!("{traceback}ValueError: ('bad', 42)"));
        assert_eq!(of("KeyError", json!([7])).traceback("t in queue q"), format!("{traceback}KeyError: 7"));
    }

    #[test]
    fn any_exception_reads() {
        let read = Exception::read(
            &json!({"exc_type": "ValueError", "exc_message": ["bad", 42], "exc_module": "builtins"}),
        );
        assert_eq!(read.messages(), ["bad", "42"]);
        assert_eq!((read.exc_type.as_str(), read.exc_module.as_deref()), ("ValueError", Some("builtins")));
        assert_eq!(Exception::read(&json!({"exc_type": "E", "exc_message": "one"})).messages(), ["one"]);
        assert_eq!(Exception::read(&json!("just text")).messages(), ["just text"]);
        assert!(Exception::read(&Value::Null).messages().is_empty());
    }
}
