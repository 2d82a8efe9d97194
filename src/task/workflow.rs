//! What a message carries of the workflow that it is part of: Celery's `embed`, and the headers about relations.
//!
//! Signatures are kept here as they cross the wire, not as typed calls: a chain may go on with a task that only a Python
//! worker knows, and has to be passed on unharmed.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::{Headers, Message, TaskId};

/// A call that has not been made yet, as Celery writes it: the JSON of its `Signature`.
///
/// Composite ones (`celery.chain`, `celery.group`, `celery.chord`) have this form too, with their parts in `kwargs`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawSignature {
    /// The task's name.
    pub task: String,
    /// Positional arguments.
    pub args: Vec<Value>,
    /// Arguments by name.
    pub kwargs: Map<String, Value>,
    /// Options of the call, unresolved: `task_id`, `queue`, `countdown`, `link`, `chord`, …
    pub options: Map<String, Value>,
    /// `chain`, `group`, `chord`, … for composite ones.
    pub subtask_type: Option<String>,
    /// Whether the result of what comes before is kept out of the arguments.
    pub immutable: bool,
}

/// The six keys, all always written: Python's parent task fails on a callback that lacks one.
#[derive(Serialize, Deserialize)]
struct Document {
    task: String,
    #[serde(default)]
    args: Option<Vec<Value>>,
    #[serde(default)]
    kwargs: Option<Map<String, Value>>,
    #[serde(default)]
    options: Option<Map<String, Value>>,
    #[serde(default)]
    subtask_type: Option<String>,
    #[serde(default)]
    immutable: Option<bool>,
}

impl From<RawSignature> for Document {
    fn from(signature: RawSignature) -> Self {
        let RawSignature { task, args, kwargs, options, subtask_type, immutable } = signature;
        Self {
            task,
            args: Some(args),
            kwargs: Some(kwargs),
            options: Some(options),
            subtask_type,
            immutable: Some(immutable),
        }
    }
}

impl From<Document> for RawSignature {
    fn from(document: Document) -> Self {
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

// Storage formats that do not describe themselves cannot hold a `Value`, so there it is JSON text.
impl Serialize for RawSignature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let document = Document::from(self.clone());
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
            return Document::deserialize(deserializer).map(Self::from);
        }
        let text = String::deserialize(deserializer)?;
        serde_json::from_str::<Document>(&text).map(Self::from).map_err(serde::de::Error::custom)
    }
}

/// What a message carries of the workflow that it is part of, and of the program that sent it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Workflow {
    /// The first task of all that led to this one; its own id if there is none before it.
    pub root_id: Option<TaskId>,
    /// The task that sent this one.
    pub parent_id: Option<TaskId>,
    /// The group or chord that it is a member of.
    pub group: Option<String>,
    /// Its place in the group.
    pub group_index: Option<u32>,
    /// What is called on success, with the result in front of its arguments. Celery's `link`.
    pub callbacks: Vec<RawSignature>,
    /// What is called on failure, with the task's id in front of its arguments. Celery's `link_error`.
    pub errbacks: Vec<RawSignature>,
    /// The rest of the chain in reverse order, as on the wire: the last one is next.
    pub chain: Vec<RawSignature>,
    /// The body of the chord whose header this task belongs to.
    pub chord: Option<RawSignature>,
    /// How often a task of this id has replaced itself.
    pub replaced_task_nesting: u32,
    /// Where the caller's rpc result queue is.
    pub reply_to: Option<String>,
    /// The name to show instead of the task's.
    pub shadow: Option<String>,
    /// The names of the stamps that are passed on to what this task sends.
    pub stamped_headers: Vec<String>,
    /// The stamps.
    pub stamps: Headers,
    /// Who sent it, for display: `gen<pid>@<host>`.
    pub origin: Option<String>,
}

impl Workflow {
    /// Whether something follows from the task's end, or is counted then.
    pub(crate) fn is_of_canvas(&self) -> bool {
        let Self { group, callbacks, errbacks, chain, chord, replaced_task_nesting, .. } = self;
        let alone = callbacks.is_empty() && errbacks.is_empty() && chain.is_empty();
        !alone || chord.is_some() || group.is_some() || *replaced_task_nesting > 0
    }
}

/// Where a task that is over stood among others; part of its record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lineage {
    /// The task that sent it.
    pub parent_id: Option<TaskId>,
    /// The group or chord that it was a member of.
    pub group_id: Option<String>,
    /// What it sent, in order.
    pub children: Vec<Child>,
    /// Where the caller's rpc result queue is.
    pub reply_to: Option<String>,
}

impl Lineage {
    /// What a message says of where its task stands; nothing, if it stands alone.
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

/// Something that a task has sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Child {
    /// A task.
    Task(TaskId),
    /// A group and its members.
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
