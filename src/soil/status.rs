//! What is seen of one task.
//!
//! Invariants:
//! - Only the outcome makes a task ready or failed; progress never does.
//! - A file is shown only of a task that succeeded, and then it is there: both are in one record.

use serde::Serialize;
use serde_json::Value;

use super::{Place, QueueFacts};
use crate::core::Progress;
use crate::task::{DownloadFacts, State, TaskId, TaskResult};

/// Soil's states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SoilState {
    /// Nobody knows this id, or nobody does any more.
    Missing,
    /// It waits for its first start.
    NotStarted,
    /// It runs, or waits for its next attempt.
    Started,
    /// It succeeded.
    Success,
    /// It failed for good, was revoked, or could not be run.
    Failed,
}

impl SoilState {
    /// HQ's numbers: -1 to 3.
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

/// What is seen of one task, and so of one download.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The task's id, which is the download's.
    pub id: TaskId,
    /// The task's name, where that is known.
    pub task: Option<String>,
    /// The queue that it waits, runs or ran in, where that is known.
    pub queue: Option<String>,
    /// Its state.
    pub state: SoilState,
    /// Of a missing one: there was a download of this id, which has expired or was forgotten (HTTP's 410, not 404). That is
    /// known for a week.
    pub gone: bool,
    /// How far it is, if it said so; all of it when it succeeded.
    pub progress: Option<Progress>,
    /// What it is at, in its own words.
    pub note: Option<String>,
    /// Why it failed, one error each.
    pub errors: Vec<String>,
    /// What it returned.
    pub result: Option<Value>,
    /// The file, if it succeeded and made one. Owners and headers are left out when it is serialized.
    #[serde(serialize_with = "public_facts")]
    pub download: Option<DownloadFacts>,
    /// Its place in line, while it waits and the broker can say.
    pub place: Option<Place>,
    /// Its queue, while it is not over and the queue is served by this program.
    pub line: Option<QueueFacts>,
    /// When to ask again, in milliseconds; `None`: it will not change any more.
    pub next_poll_ms: Option<u64>,
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
            next_poll_ms: None,
        }
    }

    /// Of a task that is over.
    pub(super) fn over(record: TaskResult, separator: &str) -> Self {
        let mut status = Self::new(record.id, SoilState::Failed);
        status.task = Some(record.task).filter(|task| !task.is_empty());
        status.queue = Some(record.queue).filter(|queue| !queue.is_empty());
        status.result = record.result.as_deref().and_then(|json| serde_json::from_str(json).ok());
        match record.state {
            State::Success => {
                status.errors = legacy_errors(status.result.as_ref(), separator);
                if status.errors.is_empty() {
                    status.state = SoilState::Success;
                    status.progress = Some(Progress::done(100));
                    status.download = record.download.map(|download| download.facts);
                }
            }
            State::Ignored => status.state = SoilState::Success,
            _ => {
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

    /// Whether it will not change any more.
    pub fn is_over(&self) -> bool {
        matches!(self.state, SoilState::Success | SoilState::Failed)
    }

    /// Whether it succeeded. HQ's `is_ready`.
    pub fn is_ready(&self) -> bool {
        self.state == SoilState::Success
    }

    /// Whether there is a file to be had. HQ's `has_file`.
    pub fn has_file(&self) -> bool {
        self.download.is_some()
    }

    /// Whether something can be expected to happen: the task has told how far it is, or its own queue starts tasks. Of a queue
    /// that others serve, it is believed.
    pub fn is_alive(&self) -> bool {
        self.progress.is_some() || self.line.as_ref().is_none_or(QueueFacts::is_alive)
    }

    /// What the task had to say in the end, as HQ's tasks do it: `{"messages": …}` in what it returned, one or several.
    pub fn messages(&self) -> Vec<String> {
        self.result.as_ref().and_then(|result| result.get("messages")).map(texts).unwrap_or_default()
    }
}

/// HQ's oldest way to fail: to return `{"errors": …}`.
fn legacy_errors(result: Option<&Value>, separator: &str) -> Vec<String> {
    let errors = result.and_then(|result| result.get("errors")).map(texts).unwrap_or_default();
    errors.iter().flat_map(|error| split(error, separator)).collect()
}

/// One text or a list of texts.
fn texts(value: &Value) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match value {
        Value::Null | Value::Bool(false) => Vec::new(),
        Value::Array(all) => all.iter().map(text).collect(),
        Value::String(one) if one.is_empty() => Vec::new(),
        one => vec![text(one)],
    }
}

/// HQ's tasks join several errors with a separator, and begin with one, so that a single error is a list as well.
fn split(error: &str, separator: &str) -> Vec<String> {
    if separator.is_empty() || !error.contains(separator) {
        return vec![error.to_owned()];
    }
    // What Celery puts before the text of an exception is no error of its own.
    let parts = error.split(separator).map(str::trim).filter(|part| !part.is_empty());
    let parts: Vec<_> = parts.map(str::to_owned).collect();
    let is_type = |part: &String| part.ends_with(':') && !part.contains(' ');
    match parts.split_first() {
        Some((first, rest)) if is_type(first) && !rest.is_empty() => rest.to_vec(),
        _ => parts,
    }
}

/// Whose it is, is nobody's business.
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

    #[test]
    fn messages_are_hqs() {
        let mut status = Status::new("a".into(), SoilState::Success);
        for (result, messages) in [
            (json!({"messages": ["a", 2]}), vec!["a", "2"]),
            (json!({"messages": "a"}), vec!["a"]),
            (json!({"x": 1}), vec![]),
            (json!("a"), vec![]),
        ] {
            status.result = Some(result);
            assert_eq!(status.messages(), messages);
        }
    }
}
