//! The part of a message that describes the workflow of its task: Celery's `embed`, and the headers about relations
//! between tasks.
//!
//! Signatures are kept here as they cross the wire and not as typed calls. A chain may go on with a task that only a
//! Python worker knows, and that step has to be passed on unharmed.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Headers, Json, JsonMap, Message, TaskId};

/// A call that has not been made yet, as Celery writes it: the JSON of its `Signature`.
///
/// Composite signatures (`celery.chain`, `celery.group`, `celery.chord`) have this form too, with their parts in
/// `kwargs`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawSignature {
    /// The name of the task that is called.
    pub task: String,
    /// The positional arguments of the call.
    pub args: Vec<Json>,
    /// The arguments of the call that are given by name.
    pub kwargs: JsonMap,
    /// The options of the call as they were written: `task_id`, `queue`, `countdown`, `link`, `chord`, …
    pub options: JsonMap,
    /// The kind of a composite signature: `chain`, `group`, `chord`, …
    pub subtask_type: Option<String>,
    /// Whether the call ignores the result of the task before it, in place of taking it as its first argument.
    pub immutable: bool,
}

/// A signature as it is written, always with all six keys: Python's parent task fails on a callback that lacks one.
#[derive(Serialize)]
struct Written<'a> {
    task: &'a str,
    args: &'a [Json],
    kwargs: &'a JsonMap,
    options: &'a JsonMap,
    subtask_type: Option<&'a str>,
    immutable: bool,
}

/// A signature as it is read. Any key but `task` may be missing or null.
#[derive(Deserialize)]
struct WorkflowDocument {
    task: String,
    #[serde(default)]
    args: Option<Vec<Json>>,
    #[serde(default)]
    kwargs: Option<JsonMap>,
    #[serde(default)]
    options: Option<JsonMap>,
    #[serde(default)]
    subtask_type: Option<String>,
    #[serde(default)]
    immutable: Option<bool>,
}

impl From<WorkflowDocument> for RawSignature {
    fn from(document: WorkflowDocument) -> Self {
        Self {
            task: document.task,
            args: document.args.unwrap_or_default(),
            kwargs: document.kwargs.unwrap_or_default(),
            options: document.options.unwrap_or_default(),
            subtask_type: document.subtask_type,
            immutable: document.immutable.unwrap_or_default(),
        }
    }
}

// A storage format that does not describe itself cannot hold arbitrary JSON, so it gets the signature as JSON text.
impl Serialize for RawSignature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { task, args, kwargs, options, subtask_type, immutable } = self;
        let document = Written {
            task,
            args,
            kwargs,
            options,
            subtask_type: subtask_type.as_deref(),
            immutable: *immutable,
        };
        if serializer.is_human_readable() {
            return document.serialize(serializer);
        }
        let text = serde_json::to_string(&document).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for RawSignature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return WorkflowDocument::deserialize(deserializer).map(Self::from);
        }
        let text = String::deserialize(deserializer)?;
        serde_json::from_str::<WorkflowDocument>(&text).map(Self::from).map_err(serde::de::Error::custom)
    }
}

/// The workflow that a message's task is part of, and the program that sent the message.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Workflow {
    /// The first task of all those that led to this one. It is the task's own id if no task came before.
    pub root_id: Option<TaskId>,
    /// The task that sent this one.
    pub parent_id: Option<TaskId>,
    /// The group or chord that the task is a member of.
    pub group: Option<String>,
    /// The task's place in the group.
    pub group_index: Option<u32>,
    /// The signatures that are called on success, with the result in front of their arguments. Celery's `link`.
    pub callbacks: Vec<RawSignature>,
    /// The signatures that are called on failure, with the task's id in front of their arguments. Celery's
    /// `link_error`.
    pub errbacks: Vec<RawSignature>,
    /// The rest of the chain in reverse order, as on the wire: the last signature is the next step.
    pub chain: Vec<RawSignature>,
    /// The body of the chord whose header the task belongs to.
    pub chord: Option<RawSignature>,
    /// The number of times that a task of this id has replaced itself.
    pub replaced_task_nesting: u32,
    /// The queue in which the caller waits for results by rpc.
    pub reply_to: Option<String>,
    /// The name that tools show instead of the task's.
    pub shadow: Option<String>,
    /// The names of the stamps that the task passes on to what it sends.
    pub stamped_headers: Vec<String>,
    /// The values of the stamps by name.
    pub stamps: Headers,
    /// The sender of the message, for display: `gen<pid>@<host>`.
    pub origin: Option<String>,
}

impl Workflow {
    /// Whether something is sent when the task ends, or may be.
    pub(crate) fn has_followers(&self) -> bool {
        let Self { callbacks, errbacks, chain, chord, .. } = self;
        !(callbacks.is_empty() && errbacks.is_empty() && chain.is_empty()) || chord.is_some()
    }

    /// Whether something follows from the task's end, or a group counts it.
    pub(crate) fn is_of_canvas(&self) -> bool {
        let Self { group, callbacks, errbacks, chain, chord, replaced_task_nesting, .. } = self;
        let alone = callbacks.is_empty() && errbacks.is_empty() && chain.is_empty();
        !alone || chord.is_some() || group.is_some() || *replaced_task_nesting > 0
    }
}

/// The tasks and groups that are related to a task that is over; part of its record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lineage {
    /// The task that sent this one.
    pub parent_id: Option<TaskId>,
    /// The group or chord that the task was a member of.
    pub group_id: Option<String>,
    /// The tasks and groups that the task has sent, in order.
    pub children: Vec<Child>,
    /// The queue in which the caller waits for results by rpc.
    pub reply_to: Option<String>,
}

impl Lineage {
    /// The relations that a message states for its task. It is `None` if the task stands alone.
    pub(crate) fn of(message: &Message) -> Option<Box<Self>> {
        let workflow = message.workflow.as_deref()?;
        let lineage = Self {
            parent_id: workflow.parent_id.clone(),
            group_id: workflow.group.clone(),
            children: Vec::new(),
            reply_to: workflow.reply_to.clone(),
        };
        (lineage != Self::default()).then(|| Box::new(lineage))
    }
}

/// A task or a group that another task has sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Child {
    /// A single task.
    Task(TaskId),
    /// A group: its id and its members.
    Group(String, Vec<TaskId>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_keeps_all_in_both_formats() {
        let text = r#"{"task":"t.add","args":[1],"kwargs":{"x":null},"options":{"task_id":"a"},"subtask_type":null,"immutable":true}"#;
        let signature: RawSignature = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&signature).unwrap(), text);
        let bytes = postcard::to_stdvec(&signature).unwrap();
        assert_eq!(postcard::from_bytes::<RawSignature>(&bytes).unwrap(), signature);
    }

    #[test]
    fn what_an_older_peer_leaves_out_or_adds_is_no_matter() {
        let text = r#"{"task":"t.add","args":null,"chord_size":null}"#;
        let signature: RawSignature = serde_json::from_str(text).unwrap();
        assert_eq!(signature, RawSignature { task: "t.add".into(), ..RawSignature::default() });
    }
}
