//! The task that other tasks follow from, and what these inherit of it.

use serde_json::Value;

use crate::task::current::current_message;
use crate::task::{Headers, Message, SENDING, TaskId, span_headers};

/// What a message inherits of the task that it follows from.
#[derive(Clone, Debug, Default)]
pub(crate) struct ParentTask {
    pub(crate) root_id: Option<TaskId>,
    pub(crate) parent_id: Option<TaskId>,
    pub(crate) stamped_headers: Vec<String>,
    pub(crate) stamps: Headers,
    /// The header [`SENDING`].
    pub(super) sending: Option<Value>,
    /// The headers of its trace.
    pub(crate) trace: Headers,
}

impl ParentTask {
    /// The origin of a message that is sent from here: the task whose body this thread runs, if it runs one, and the span
    /// that this thread is in.
    pub(super) fn current() -> Self {
        let mut trace = span_headers();
        let Some(message) = current_message() else { return Self { trace, ..Self::default() } };
        trace.inherit_trace(&message.headers.trace());
        let parent_id = Some(message.id.clone());
        Self { root_id: Some(root_of(&message)), parent_id, trace, ..Self::default() }
    }

    /// The origin of what follows from this message.
    pub(crate) fn of(message: &Message) -> Self {
        let workflow = message.workflow.as_deref();
        Self {
            root_id: Some(root_of(message)),
            parent_id: Some(message.id.clone()),
            stamped_headers: workflow.map(|w| w.stamped_headers.clone()).unwrap_or_default(),
            stamps: workflow.map(|w| w.stamps.clone()).unwrap_or_default(),
            sending: message.headers.0.get(SENDING).cloned(),
            trace: message.headers.trace(),
        }
    }
}

/// The first of the tasks that led to this one, or the task itself.
fn root_of(message: &Message) -> TaskId {
    let root = message.workflow.as_deref().and_then(|workflow| workflow.root_id.as_ref());
    root.unwrap_or(&message.id).clone()
}
