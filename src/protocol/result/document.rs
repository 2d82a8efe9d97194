//! Reads and writes the meta document.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Exception, children, read_children};
use crate::core::{Timestamp, instant};
use crate::protocol::compression;
use crate::task::token::{member, not_finite, readable};
use crate::task::{DownloadRecord, Json, Lineage, State, TaskId, TaskResult, TrackedState, envelope, look};

/// Which fields a document has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Detail {
    /// The fields that Celery writes by default, and no others. A record that is read back from them has lost the
    /// facts that Celery has no word for.
    Celery,
    /// The fields of Celery's `result_extended` (without the arguments), and the rest of Celeriac's record under the
    /// key `celeriac`, which Python ignores. The record reads back without loss.
    Full,
}

/// The content of a document.
#[derive(Clone, Debug, PartialEq)]
pub enum Meta {
    /// The task is over, and this is its result.
    Over(Box<TaskResult>),
    /// The task is not over, and this is its state.
    Tracked(TrackedState),
}

/// The error of a result document that cannot be read.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("the result document of task {id} cannot be read: {error}")]
pub struct MetaError {
    /// The task of the document.
    pub id: TaskId,
    /// Why the document cannot be read.
    pub error: String,
    /// Whether the document says at least that the task is over, or that it is not. `None`: it says neither.
    pub is_over: Option<bool>,
}

crate::core::debug_as_display!(MetaError);

/// The most bytes to which a result that Celery 5.7 compresses (`result_compression`, off by default) may unpack.
const MAX_UNPACKED: usize = 64 << 20;
/// The beginning of a compressed result. The name of the compression and a zero byte follow.
const PACKED: &[u8] = b"\0celery-compressed\0";

/// The fields of a document in Celery's order.
#[derive(Serialize)]
struct Document<'a, R: Serialize> {
    status: &'a str,
    result: R,
    traceback: Option<&'a str>,
    children: Value,
    date_done: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<&'a str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    extended: Option<Extended<'a>>,
    task_id: &'a str,
}

#[derive(Serialize)]
struct Extended<'a> {
    name: &'a str,
    worker: Option<&'a str>,
    retries: u32,
    queue: &'a str,
    celeriac: CeleriacPart,
}

/// The facts of a record that Celery has no word for.
#[derive(Serialize, Deserialize)]
struct CeleriacPart {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    /// The `errors` of the record, if they differ from the arguments of Celery's exception.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error_module: Option<String>,
    /// Whether the record has the arguments of Celery's exception beside its errors.
    #[serde(default, skip_serializing_if = "is_false")]
    error_arguments: bool,
    attempts: u32,
    enqueued_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
    finished_at: Timestamp,
    expires_at: Timestamp,
    /// Whether the record has a lineage, even an empty one.
    #[serde(default, skip_serializing_if = "is_false")]
    lineage: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply_to: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    download: Option<Box<DownloadRecord>>,
}

/// Writes the document of a task that is over.
pub fn encode(result: &TaskResult, detail: Detail) -> String {
    let extended = (detail == Detail::Full).then(|| Extended {
        name: &result.task,
        worker: result.worker.as_deref(),
        retries: result.attempts.saturating_sub(1),
        queue: &result.queue,
        celeriac: CeleriacPart::of(result),
    });
    let lineage = result.lineage.as_deref();
    let outcome = outcome(result);
    let document = Document {
        status: status(result.state),
        result: &*outcome,
        traceback: result.traceback.as_deref(),
        children: children(lineage.map_or(&[], |lineage| &lineage.children)),
        date_done: Some(instant::write(result.finished_at)),
        group_id: lineage.and_then(|lineage| lineage.group_id.as_deref()),
        parent_id: lineage.and_then(|lineage| lineage.parent_id.as_ref()).map(TaskId::as_str),
        extended,
        task_id: result.id.as_str(),
    };
    write(&document)
}

/// Writes the document of a task that is not over.
pub fn encode_tracked(state: &TrackedState) -> String {
    let lineage = state.lineage.as_deref();
    let document = Document {
        status: &state.state,
        result: tracked_result(state),
        traceback: state.traceback.as_deref(),
        children: children(lineage.map_or(&[], |lineage| &lineage.children)),
        date_done: None,
        group_id: lineage.and_then(|lineage| lineage.group_id.as_deref()),
        parent_id: lineage.and_then(|lineage| lineage.parent_id.as_ref()).map(TaskId::as_str),
        extended: None,
        task_id: state.id.as_str(),
    };
    write(&document)
}

/// Celery's word for the state of a task that is over. A store of Celery's never has REJECTED, so a rejected task
/// counts as failed.
pub fn status(state: State) -> &'static str {
    match state {
        State::Rejected => State::Failure.as_str(),
        state => state.as_str(),
    }
}

/// The field `result` of a document, as JSON: the value, or the exception. The parts of a chord have the same.
pub fn outcome(result: &TaskResult) -> Box<RawValue> {
    let text = match (result.state, &result.result) {
        (State::Success, Some(json)) => json.clone(),
        (State::Success | State::Ignored, _) => "null".to_owned(),
        _ => write(&Exception::of(result)),
    };
    // A recorded value is JSON. If one is not, its text becomes the result.
    RawValue::from_string(text).unwrap_or_else(|_| {
        let text = Value::from(result.result.as_deref()).to_string();
        RawValue::from_string(text).expect("a JSON value's text is JSON")
    })
}

/// Reads a document of the task `id`. `expires_at` is for records that do not state themselves when they expire.
///
/// Python writes what JSON or a text of Rust's does not have: NaN, and half of a surrogate pair. What people only look
/// at, such as a traceback or the message of an exception, is read as what comes near. The value of a task stays as it
/// was written, and is refused if it is no JSON.
///
/// # Errors
/// The document cannot be unpacked, is not JSON, or lacks a field that it needs.
pub fn decode(id: &TaskId, document: &[u8], expires_at: Timestamp) -> Result<Meta, MetaError> {
    let error = |error: String| MetaError { id: id.clone(), error, is_over: None };
    let unpacked = match document.strip_prefix(PACKED) {
        None => None,
        Some(packed) => {
            let end =
                packed.iter().position(|byte| *byte == 0).ok_or_else(|| error("it is cut off".to_owned()))?;
            let compression = String::from_utf8_lossy(&packed[..end]);
            let unpacked = compression::unpack(&packed[end + 1..], &compression, MAX_UNPACKED);
            Some(unpacked.map_err(|reason| error(reason.to_string()))?)
        }
    };
    let document = unpacked.as_deref().unwrap_or(document);
    let read = match serde_json::from_slice(document) {
        Ok(read) => Ok(read),
        Err(reason) => AnyDocument::read_odd(document, &reason),
    };
    read.and_then(|read| read.into_meta(id, expires_at))
        .map_err(|reason| MetaError { is_over: is_over(document), ..error(reason) })
}

/// Whether a document, which need not be readable, says that its task is over. `None`: it does not say.
fn is_over(document: &[u8]) -> Option<bool> {
    let status = std::str::from_utf8(document).ok().and_then(|text| member(text, "status"));
    let status = status.and_then(|status| serde_json::from_str::<String>(status).ok());
    status.map(|status| over(&status).is_some())
}

/// The state of a task that is over. `None`: the task is not over.
fn over(status: &str) -> Option<State> {
    Some(match status {
        "SUCCESS" => State::Success,
        "FAILURE" => State::Failure,
        "REVOKED" => State::Revoked,
        "REJECTED" => State::Rejected,
        "IGNORED" => State::Ignored,
        _ => return None,
    })
}

/// All fields that a document of any version of Celery may have.
#[derive(Deserialize)]
struct AnyDocument {
    status: String,
    #[serde(default)]
    result: Option<Box<RawValue>>,
    #[serde(default)]
    traceback: Option<Value>,
    #[serde(default)]
    children: Value,
    #[serde(default)]
    date_done: Value,
    #[serde(default)]
    group_id: Option<String>,
    #[serde(default)]
    parent_id: Option<TaskId>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    worker: Option<String>,
    #[serde(default)]
    retries: Option<u32>,
    #[serde(default)]
    queue: Option<String>,
    #[serde(default)]
    celeriac: Option<CeleriacPart>,
}

impl AnyDocument {
    /// Reads a document that is not all JSON, or not all Unicode. `reason` is the error for one that is neither.
    fn read_odd(document: &[u8], reason: &serde_json::Error) -> Result<Self, String> {
        let text = std::str::from_utf8(document).map_err(|_| reason.to_string())?;
        let mut read: Self = serde_json::from_str(&readable(text)).map_err(|_| reason.to_string())?;
        let Some(result) = member(text, "result") else { return Ok(read) };
        match RawValue::from_string(result.to_owned()) {
            Ok(result) => read.result = Some(result),
            // Others look at it, but a value that nobody wrote must not go on to the next task.
            Err(_) if over(&read.status) == Some(State::Success) => {
                return Err(match not_finite(result) {
                    // Python writes NaN and Infinity without being asked.
                    Some(named) => format!(
                        "there is {named} in its result, which JSON does not know: the task is to return None, or text"
                    ),
                    None => reason.to_string(),
                });
            }
            Err(_) => {}
        }
        Ok(read)
    }

    fn into_meta(self, id: &TaskId, expires_at: Timestamp) -> Result<Meta, String> {
        let Some(state) = over(&self.status) else {
            return self.into_tracked(id).map(Meta::Tracked);
        };
        let json = self.result.as_deref().map_or("null", RawValue::get);
        let exception = match state {
            State::Success | State::Ignored => None,
            _ => Some(Exception::read(&look(json).ok_or("its result is no JSON")?)),
        };
        let lineage = self.lineage();
        let done = self.date_done();
        let rest = self.celeriac;
        let known = rest.as_ref();
        // Texts are in the errors. Whether the rest of a record of ours has more to say, it says itself.
        let error_arguments = exception.as_ref().map(|exception| arguments(json, exception));
        let error_arguments = error_arguments.filter(|list| known.is_some() || !is_of_texts(list));
        let mut result = TaskResult {
            queue: self.queue.unwrap_or_default(),
            result: (state == State::Success).then(|| json.to_owned()),
            errors: exception.as_ref().map_or_else(Vec::new, Exception::messages),
            error_type: exception.as_ref().map(|exception| exception.exc_type.clone()),
            error_module: exception.and_then(|exception| exception.exc_module),
            error_arguments,
            traceback: text(self.traceback),
            attempts: self.retries.map_or(1, |retries| retries.saturating_add(1)),
            worker: self.worker,
            lineage: Some(lineage).filter(|lineage| *lineage != Lineage::default()).map(Box::new),
            ..TaskResult::new(
                id.clone(),
                self.name.unwrap_or_default(),
                known.and_then(|rest| rest.state).unwrap_or(state),
                done,
                expires_at,
            )
        };
        if let Some(rest) = rest {
            rest.apply(&mut result);
        }
        Ok(Meta::Over(Box::new(result)))
    }

    fn into_tracked(self, id: &TaskId) -> Result<TrackedState, String> {
        let lineage = self.lineage();
        let json = self.result.as_deref().map_or("null", RawValue::get);
        let mut meta: Json = json.parse().map_err(|error: serde_json::Error| error.to_string())?;
        if self.status == RETRY && meta.get("exc_type").is_some() {
            meta = plain_retry(meta);
        }
        Ok(TrackedState {
            id: id.clone(),
            state: self.status,
            meta,
            traceback: text(self.traceback),
            lineage: Some(lineage).filter(|lineage| *lineage != Lineage::default()).map(Box::new),
        })
    }

    fn lineage(&self) -> Lineage {
        Lineage {
            parent_id: self.parent_id.clone(),
            group_id: self.group_id.clone(),
            children: read_children(&self.children),
            reply_to: None,
        }
    }

    /// The date, which is a text, or in documents of old versions kombu's envelope of one.
    fn date_done(&self) -> Timestamp {
        let mut date = self.date_done.clone();
        envelope::unwrap(&mut date);
        date.as_str().and_then(instant::read).map_or(Timestamp::ZERO, |instant| instant.time)
    }
}

impl CeleriacPart {
    fn of(result: &TaskResult) -> Self {
        let exception = Exception::of(result);
        let failed = !matches!(result.state, State::Success | State::Ignored);
        Self {
            state: Some(result.state).filter(|state| status(*state) != state.as_str()),
            errors: Some(&result.errors)
                .filter(|errors| !failed || **errors != exception.messages())
                .cloned(),
            error_type: result.error_type.clone(),
            error_module: result.error_module.clone(),
            error_arguments: result.error_arguments.is_some(),
            attempts: result.attempts,
            enqueued_at: result.enqueued_at,
            started_at: result.started_at,
            finished_at: result.finished_at,
            expires_at: result.expires_at,
            lineage: result.lineage.is_some(),
            reply_to: result.lineage.as_ref().and_then(|lineage| lineage.reply_to.clone()),
            download: result.download.clone(),
        }
    }

    fn apply(self, result: &mut TaskResult) {
        if let Some(errors) = self.errors {
            result.errors = errors;
        }
        result.error_type = self.error_type;
        result.error_module = self.error_module;
        result.error_arguments = result.error_arguments.take().filter(|_| self.error_arguments);
        result.attempts = self.attempts;
        result.enqueued_at = self.enqueued_at;
        result.started_at = self.started_at;
        result.finished_at = self.finished_at;
        result.expires_at = self.expires_at;
        result.download = self.download;
        if self.lineage {
            result.lineage.get_or_insert_default().reply_to = self.reply_to;
        }
    }
}

/// The arguments of the exception in `json`, as they were written where that is JSON.
fn arguments(json: &str, exception: &Exception) -> Json {
    let written = member(json, "exc_message").and_then(|text| serde_json::from_str::<Vec<Json>>(text).ok());
    Json::list(written.as_deref().unwrap_or(&exception.exc_message))
}

fn is_of_texts(list: &Json) -> bool {
    list.as_array().is_some_and(|list| list.iter().all(Value::is_string))
}

const RETRY: &str = "RETRY";

/// The `result` of a state. For RETRY, Python needs an exception, so any other value is wrapped in Celery's `Retry`.
fn tracked_result(state: &TrackedState) -> Json {
    if state.state != RETRY || state.meta.get("exc_type").is_some() {
        return state.meta.clone();
    }
    let retry = Retry {
        exc_type: "Retry".to_owned(),
        exc_message: vec![state.meta.clone()],
        exc_module: Some("celery.exceptions".to_owned()),
    };
    // Text and JSON values can always be written as JSON.
    Json::encode(&retry).unwrap_or_default()
}

/// Celery's exception `Retry`, whose arguments are passed on unread. One with more to it, such as a progress bar, is
/// none.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Retry {
    exc_type: String,
    exc_message: Vec<Json>,
    exc_module: Option<String>,
}

/// Undoes what [`tracked_result`] does: the value in a `Retry` of Celery's.
fn plain_retry(meta: Json) -> Json {
    let Ok(Retry { exc_type, exc_message, exc_module }) = meta.read() else { return meta };
    match (exc_type.as_str(), exc_module.as_deref(), exc_message.as_slice()) {
        ("Retry", Some("celery.exceptions"), [single]) => single.clone(),
        _ => meta,
    }
}

fn is_false(yes: &bool) -> bool {
    !yes
}

fn text(value: Option<Value>) -> Option<String> {
    value.and_then(|value| value.as_str().map(str::to_owned))
}

fn write(document: &impl Serialize) -> String {
    serde_json::to_string(document).expect("text, numbers and JSON values have a form in JSON")
}
