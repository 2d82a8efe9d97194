//! The status of one task, as its user sees it.
//!
//! Invariants:
//! - Only the outcome of a task makes it ready or failed; progress never does.
//! - A status has a file only if the task succeeded, and then the file exists: one record holds both.

use serde::Serialize;
use serde_json::Value;

use super::{QueuePosition, QueueSummary, StartsBetween, WhyWaiting};
use crate::core::Progress;
use crate::task::{DownloadFacts, Json, State, TaskId, TaskResult};

/// The states of a task in Soil.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SoilState {
    /// Nobody knows this id, or nobody does any more.
    Missing,
    /// The task waits for its first start.
    NotStarted,
    /// The task runs, or waits for its next attempt.
    Started,
    /// The task succeeded.
    Success,
    /// The task failed for good, was revoked, or could not be run.
    Failed,
}

impl SoilState {
    /// The number that HQ uses for this state, from -1 to 3.
    pub fn as_number(self) -> i8 {
        match self {
            Self::Missing => -1,
            Self::NotStarted => 0,
            Self::Started => 1,
            Self::Success => 2,
            Self::Failed => 3,
        }
    }
}

/// The status of one task, which is also the status of its download.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The task's id, which is also the download's.
    pub id: TaskId,
    /// The task's name, if it is known.
    pub task: Option<String>,
    /// The queue that the task waits, runs or ran in, if it is known.
    pub queue: Option<String>,
    /// The state of the task, as Soil tells it.
    pub state: SoilState,
    /// Whether a missing id once had a download, which has expired or was forgotten (HTTP's 410 instead of 404). This
    /// is known for a week.
    pub gone: bool,
    /// The task's progress, if it has reported any. It is complete when the task has succeeded.
    pub progress: Option<Progress>,
    /// The note in which the task says what it does at the moment.
    pub note: Option<String>,
    /// The reasons why the task failed, one text for each error.
    pub errors: Vec<String>,
    /// The value that the task returned.
    pub result: Option<Json>,
    /// The file, if the task succeeded and made one. The serialized form leaves out its owners and headers.
    #[serde(serialize_with = "public_facts")]
    pub download: Option<DownloadFacts>,
    /// The task's place in line, while it waits and the broker can count.
    pub place: Option<QueuePosition>,
    /// The state of the task's queue, while the task is not over and this program serves the queue.
    pub line: Option<QueueSummary>,
    /// Why the task waits, if it does and that can be said.
    pub why: Option<WhyWaiting>,
    /// When the task is likely to start, if it waits for others only and its queue has seen enough to say so.
    pub starts_between: Option<StartsBetween>,
    /// The time after which to ask again, in milliseconds. It is `None` when the status will not change any more.
    pub next_poll_ms: Option<u64>,
    /// Whether somebody revoked the failed task.
    #[serde(skip)]
    pub(crate) is_revoked: bool,
}

impl Status {
    pub(super) fn new(id: TaskId, state: SoilState) -> Self {
        Self {
            id,
            task: None,
            queue: None,
            state,
            gone: false,
            progress: None,
            note: None,
            errors: Vec::new(),
            result: None,
            download: None,
            place: None,
            line: None,
            why: None,
            starts_between: None,
            next_poll_ms: None,
            is_revoked: false,
        }
    }

    /// The status of a task that is over, from its record.
    pub(super) fn over(record: TaskResult, separator: &str) -> Self {
        let mut status = Self::new(record.id, SoilState::Failed);
        status.task = Some(record.task).filter(|task| !task.is_empty());
        status.queue = Some(record.queue).filter(|queue| !queue.is_empty());
        status.result = record.result.as_deref().and_then(|json| json.parse().ok());
        match record.state {
            State::Success => {
                status.errors = legacy_errors(status.result.as_deref(), separator);
                if !says_failed(status.result.as_deref()) {
                    status.errors.clear();
                    status.state = SoilState::Success;
                    status.progress = Some(Progress::done(100));
                    status.download = record.download.map(|download| download.facts);
                }
            }
            State::Ignored => status.state = SoilState::Success,
            _ => {
                status.is_revoked = record.state == State::Revoked;
                let errors = record.errors.iter().flat_map(|error| split(error, separator));
                status.errors = errors.collect();
                if status.errors.is_empty() {
                    let kind = record.error_type.unwrap_or_else(|| record.state.to_string());
                    status.errors.push(kind);
                }
            }
        }
        status
    }

    /// Whether the task is over, so that its status will not change any more.
    pub fn is_over(&self) -> bool {
        matches!(self.state, SoilState::Success | SoilState::Failed)
    }

    /// Whether the task succeeded. It is HQ's `is_ready`.
    pub fn is_ready(&self) -> bool {
        self.state == SoilState::Success
    }

    /// Whether the task has a file to download. It is HQ's `has_file`.
    pub fn has_file(&self) -> bool {
        self.download.is_some()
    }

    /// Whether something can be expected to happen: the task has reported progress, or its own queue starts tasks. A
    /// queue that other programs serve is taken for alive.
    pub fn is_alive(&self) -> bool {
        self.progress.is_some() || self.line.as_ref().is_none_or(QueueSummary::is_alive)
    }

    /// The messages in the task's value, as HQ's tasks return them: `{"messages": …}` with one text or a list of texts.
    pub fn messages(&self) -> Vec<String> {
        self.result.as_ref().and_then(|result| result.get("messages")).map(texts).unwrap_or_default()
    }
}

/// Whether a task that succeeded says that it failed. In HQ's oldest way, such a task returns `{"errors": …}` with
/// anything that is true in Python (`if result and result.get("errors")`).
fn says_failed(result: Option<&Value>) -> bool {
    result.and_then(|result| result.get("errors")).is_some_and(is_true)
}

/// Whether a value that came as JSON is true in Python. `None`, zero, an empty text and an empty collection are false;
/// any other collection is true, even if all of its members are false. A value of a type that JSON does not have is
/// judged by what Celery's envelope holds.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64().is_none_or(|number| number != 0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(all) => !all.is_empty(),
        Value::Object(all) => match (all.get("__type__").and_then(Value::as_str), all.get("__value__")) {
            (Some("decimal"), Some(Value::String(number))) => number.parse::<f64>() != Ok(0.0),
            (Some("bytes" | "base64"), Some(bytes)) => is_true(bytes),
            _ => !all.is_empty(),
        },
    }
}

/// The texts of `errors` in a task's value. If `errors` is true in Python, the list is never empty.
fn legacy_errors(result: Option<&Value>, separator: &str) -> Vec<String> {
    let Some(errors) = result.and_then(|result| result.get("errors")) else { return Vec::new() };
    let told: Vec<String> = texts(errors).iter().flat_map(|error| split(error, separator)).collect();
    let is_blank = told.iter().all(|error| error.trim().is_empty());
    // A failure has to show something, even if that is only the value that was returned.
    if is_blank && is_true(errors) { vec![errors.to_string()] } else { told }
}

/// Reads one text or a list of texts.
fn texts(value: &Value) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match value {
        none if !is_true(none) => Vec::new(),
        Value::Array(all) => all.iter().map(text).collect(),
        one => vec![text(one)],
    }
}

/// Splits an error at the separator. HQ's tasks join several errors with a separator and put one in front, so that a
/// single error is a list as well.
fn split(error: &str, separator: &str) -> Vec<String> {
    if separator.is_empty() || !error.contains(separator) {
        return vec![error.to_owned()];
    }
    // Celery puts the name of the exception's type before its text, and that name is not an error of its own.
    let parts = error.split(separator).map(str::trim).filter(|part| !part.is_empty());
    let parts: Vec<_> = parts.map(str::to_owned).collect();
    let is_type = |part: &String| part.ends_with(':') && !part.contains(' ');
    match parts.split_first() {
        Some((first, rest)) if is_type(first) && !rest.is_empty() => rest.to_vec(),
        _ => parts,
    }
}

/// Serializes a download's facts without its owners and headers, which are not public.
fn public_facts<S: serde::Serializer>(
    facts: &Option<DownloadFacts>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Public<'a> {
        name: &'a str,
        content_type: &'a str,
        size: u64,
        etag: &'a str,
        created: String,
        expires_at: String,
    }
    let public = facts.as_ref().map(|facts| Public {
        name: &facts.name,
        content_type: &facts.content_type,
        size: facts.size,
        etag: &facts.etag,
        created: facts.created.to_string(),
        expires_at: facts.expires_at.to_string(),
    });
    public.serialize(serializer)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_states_have_hqs_numbers() {
        // These are the numbers of HQ's `soil.progress.STATES`.
        let states = [
            (SoilState::Missing, -1),
            (SoilState::NotStarted, 0),
            (SoilState::Started, 1),
            (SoilState::Success, 2),
            (SoilState::Failed, 3),
        ];
        for (state, number) in states {
            assert_eq!(state.as_number(), number, "{state:?}");
        }
    }

    #[test]
    fn hqs_ways_to_name_errors_are_lists() {
        for (error, errors) in [
            ("plain", vec!["plain"]),
            ("\tone", vec!["one"]),
            ("\tone\ttwo", vec!["one", "two"]),
            ("one\ttwo", vec!["one", "two"]),
            ("Exception:\tone\ttwo", vec!["one", "two"]),
            ("\t", vec![]),
        ] {
            assert_eq!(split(error, "\t"), errors, "{error:?}");
        }
        assert_eq!(split("a\tb", ""), ["a\tb"]);
        assert_eq!(legacy_errors(Some(&json!({"errors": ["a", "\tb\tc"]})), "\t"), ["a", "b", "c"]);
        assert_eq!(legacy_errors(Some(&json!({"errors": "a"})), "\t"), ["a"]);
        for none in
            [json!({"errors": []}), json!({"errors": null}), json!({"errors": ""}), json!([1]), json!(5)]
        {
            assert!(legacy_errors(Some(&none), "\t").is_empty(), "{none}");
        }
    }

    fn succeeded(result: String) -> TaskResult {
        let at = crate::core::Timestamp::ZERO;
        TaskResult {
            queue: "a".to_owned(),
            result: Some(result),
            attempts: 1,
            started_at: Some(at),
            ..TaskResult::new("a".into(), "a", State::Success, at, at)
        }
    }

    /// HQ takes `{"errors": value}` for a failure if Python's `bool(value)` is true.
    #[test]
    fn a_success_fails_only_by_errors_that_are_true_in_python() {
        let over = |value: Value| Status::over(succeeded(json!({ "errors": value }).to_string()), "\t");
        for none in [
            json!(null),
            json!(false),
            json!(0),
            json!(0.0),
            json!(-0.0),
            json!(""),
            json!([]),
            json!({}),
            json!({"__type__": "decimal", "__value__": "0.00"}),
            json!({"__type__": "bytes", "__value__": ""}),
        ] {
            let status = over(none.clone());
            assert_eq!((status.state, status.errors.len()), (SoilState::Success, 0), "{none}");
            assert_eq!(status.progress, Some(Progress::done(100)));
        }
        for (some, errors) in [
            (json!(true), vec!["true"]),
            (json!(1), vec!["1"]),
            (json!(-1.5), vec!["-1.5"]),
            (json!("0"), vec!["0"]),
            (json!("no"), vec!["no"]),
            (json!(" "), vec!["\" \""]),
            (json!("\t"), vec!["\"\\t\""]),
            (json!(["a", "\tb\tc"]), vec!["a", "b", "c"]),
            (json!([0]), vec!["0"]),
            (json!([""]), vec!["[\"\"]"]),
            (json!([[]]), vec!["[]"]),
            (json!([null, false]), vec!["null", "false"]),
            (json!({"row 3": ["no name"]}), vec!["{\"row 3\":[\"no name\"]}"]),
            (json!({"a": 0}), vec!["{\"a\":0}"]),
            (
                json!({"__type__": "decimal", "__value__": "0.01"}),
                vec!["{\"__type__\":\"decimal\",\"__value__\":\"0.01\"}"],
            ),
        ] {
            let status = over(some.clone());
            assert_eq!(status.state, SoilState::Failed, "{some}");
            assert_eq!(status.errors, errors, "{some}");
            assert!(status.download.is_none() && status.progress.is_none());
        }
        // What no `Value` can hold hides nothing beside it.
        for (result, errors) in [
            (r#"{"errors": ["cut \ud83d"]}"#, vec!["cut \u{fffd}"]),
            (r#"{"errors": "bad", "x": [1e400, "\udc4d"]}"#, vec!["bad"]),
            (r#"{"errors": 1e400}"#, vec!["1.7976931348623157e+308"]),
            (r#"{"errors": -1e400}"#, vec!["-1.7976931348623157e+308"]),
        ] {
            let status = Status::over(succeeded(result.to_owned()), "\t");
            assert_eq!((status.state, status.has_file()), (SoilState::Failed, false), "{result}");
            assert_eq!(status.errors, errors, "{result}");
            assert_eq!(status.result.unwrap().text(), result, "it is shown as it was written");
        }
        let status = Status::over(succeeded(r#"{"errors": 0, "x": "\ud83d"}"#.to_owned()), "\t");
        assert_eq!((status.state, status.errors.len()), (SoilState::Success, 0));
        // A value that is no dictionary with `errors` states no error.
        for result in ["[\"errors\"]", "\"errors\"", "null", "7", "{\"error\": \"x\"}", "not JSON"] {
            let status = Status::over(succeeded(result.to_owned()), "\t");
            assert_eq!(status.state, SoilState::Success, "{result}");
        }
    }

    #[test]
    fn messages_are_hqs() {
        let mut status = Status::new("a".into(), SoilState::Success);
        for (result, messages) in [
            (json!({"messages": ["a", 2]}), vec!["a", "2"]),
            (json!({"messages": "a"}), vec!["a"]),
            (json!({"messages": 0}), vec![]),
            (json!({"messages": {}}), vec![]),
            (json!({"x": 1}), vec![]),
            (json!("a"), vec![]),
        ] {
            status.result = Some(result.into());
            assert_eq!(status.messages(), messages);
        }
        status.result = r#"{"messages": ["a", "cut \ud83d"], "n": 1e400}"#.parse().ok();
        assert_eq!(status.messages(), ["a", "cut \u{fffd}"]);
    }
}
