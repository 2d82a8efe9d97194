//! Errors as Python knows them: a class, its module, its arguments.
//!
//! `.get()` in Python raises the class that a document names, if it is a class of exceptions in a module that is loaded there;
//! else one that is made up under the same name. A module with something else of that name makes Python refuse the document, so
//! nothing is said of where a Rust error comes from: only our own endings, which have classes in Celery, and what an error
//! [says itself](crate::task::TaskError::with_python_type) bear a module.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::task::TaskResult;

const CELERY: &str = "celery.exceptions";
const BILLIARD: &str = "billiard.exceptions";

/// An exception in Celery's form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exception {
    /// The class.
    pub exc_type: String,
    /// The arguments of the class.
    pub exc_message: Vec<Value>,
    /// The module of the class; null: nowhere to be found.
    pub exc_module: Option<String>,
}

impl Exception {
    /// What a record that is not a success is to Python.
    pub fn of(result: &TaskResult) -> Self {
        let own = result.error_type.as_deref().unwrap_or("TaskError");
        let module = |module: &str| Some(module.to_owned());
        let (exc_type, exc_module) = match (&result.error_module, own) {
            (Some(given), own) => (own, module(given)),
            (None, "TaskRevoked") => ("TaskRevokedError", module(CELERY)),
            (None, "NotRegistered" | "Reject" | "ChordError") => (own, module(CELERY)),
            // The task asked for it itself, once too often.
            (None, "Retry") => ("MaxRetriesExceededError", module(CELERY)),
            (None, "TimeLimitExceeded" | "SoftTimeLimitExceeded") => (own, module(BILLIARD)),
            (None, "WorkerLost") => ("WorkerLostError", module(BILLIARD)),
            (None, rust) => (class_name(rust), None),
        };
        let exc_message = match own {
            "TaskRevoked" => vec![revocation(&result.errors).into()],
            // The class wants the name, and makes a sentence of it.
            "NotRegistered" => vec![result.task.as_str().into()],
            // Its second argument says whether it goes back into its queue.
            "Reject" => vec![result.errors.join(": ").into(), false.into()],
            _ => result.errors.iter().map(|error| error.as_str().into()).collect(),
        };
        Self { exc_type: exc_type.to_owned(), exc_message, exc_module }
    }

    /// The error of an attempt that failed and is tried again, of a type of ours or Rust's.
    pub fn of_attempt(errors: &[String], error_type: &str) -> Self {
        let exc_message = errors.iter().map(|error| error.as_str().into()).collect();
        Self { exc_type: class_name(error_type).to_owned(), exc_message, exc_module: None }
    }

    /// Reads what a document of a failure has as its result. Some foreign workers write plain text there.
    pub fn read(value: &Value) -> Self {
        let text = |name| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let Some(exc_type) = text("exc_type") else {
            let message = if value.is_null() { Vec::new() } else { vec![value.clone()] };
            return Self { exc_type: "Exception".to_owned(), exc_message: message, exc_module: None };
        };
        let exc_message = match value.get("exc_message") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(arguments)) => arguments.clone(),
            Some(single) => vec![single.clone()],
        };
        Self { exc_type, exc_message, exc_module: text("exc_module") }
    }

    /// Its arguments as messages; what is no text is shown as JSON.
    pub fn messages(&self) -> Vec<String> {
        let text = |argument: &Value| argument.as_str().map_or_else(|| argument.to_string(), str::to_owned);
        self.exc_message.iter().map(text).collect()
    }
}

/// The last part of a Rust type's path, without its parameters: a name that a Python class can have.
fn class_name(rust: &str) -> &str {
    let path = rust.split('<').next().unwrap_or(rust).trim_start_matches(['&', ' ']);
    match path.rsplit("::").next() {
        Some(name) if !name.is_empty() => name,
        _ => "TaskError",
    }
}

/// Celery has three reasons, and clients compare them.
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

    /// Through the judge, so that no name there can change without this.
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
