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
        let of = current_message().map(|message| Self::of(&message)).unwrap_or_default();
        let Self { root_id, parent_id, trace: of_task, .. } = of;
        let mut trace = span_headers();
        trace.inherit_trace(&of_task);
        Self { root_id, parent_id, trace, ..Self::default() }
    }

    /// The origin of what follows from this message.
    pub(crate) fn of(message: &Message) -> Self {
        let workflow = message.workflow.as_deref();
        Self {
            root_id: workflow.and_then(|w| w.root_id.clone()).or_else(|| Some(message.id.clone())),
            parent_id: Some(message.id.clone()),
            stamped_headers: workflow.map(|w| w.stamped_headers.clone()).unwrap_or_default(),
            stamps: workflow.map(|w| w.stamps.clone()).unwrap_or_default(),
            sending: message.headers.0.get(SENDING).cloned(),
            trace: message.headers.trace(),
        }
    }
}
