//! The task that a message follows from, and what the message inherits of it: the task whose body the current thread runs and
//! sends the message (Celery's request stack), or one that has ended.
//!
//! A thread is inside a body while it polls or calls that body. Work that the body has spawned elsewhere is not inside
//! it.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;

use serde_json::Value;

use super::{Headers, Message, SENDING, TaskId, span_headers};

thread_local! {
    static CURRENT: RefCell<Option<Arc<Message>>> = const { RefCell::new(None) };
}

/// The message of the task whose body this thread runs, if it runs one.
pub(crate) fn current_message() -> Option<Arc<Message>> {
    CURRENT.with(|current| current.borrow().clone())
}

/// Awaits a future inside the body of this message's task, on whatever thread it is polled. It is for what a body in a
/// child process asks of this one.
pub(crate) async fn inside<T>(message: &Arc<Message>, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let _entered = CurrentGuard::of(message);
        future.as_mut().poll(cx)
    })
    .await
}

/// A guard: while it lives, the thread is inside the body; when it is dropped, the thread is back in the body before.
pub(crate) struct CurrentGuard(Option<Arc<Message>>);

impl CurrentGuard {
    pub(crate) fn of(message: &Arc<Message>) -> Self {
        Self(CURRENT.with(|current| current.replace(Some(Arc::clone(message)))))
    }
}

impl Drop for CurrentGuard {
    fn drop(&mut self) {
        CURRENT.with(|current| current.replace(self.0.take()));
    }
}

/// What a message inherits of the task that it follows from.
#[derive(Clone, Debug, Default)]
pub(crate) struct ParentTask {
    pub(crate) root_id: Option<TaskId>,
    pub(crate) parent_id: Option<TaskId>,
    pub(crate) stamped_headers: Vec<String>,
    pub(crate) stamps: Headers,
    /// The value of the header [`SENDING`], which carries the span of the call; `None`: there is none.
    pub(super) sending: Option<Value>,
    /// The headers of its trace.
    pub(crate) trace: Headers,
}

impl ParentTask {
    /// The origin of a message that is sent from here: the task whose body this thread runs, if it runs one, and the span
    /// that this thread is in.
    pub(super) fn current() -> Self {
        let mut trace = if cfg!(feature = "otel") { span_headers() } else { Headers::default() };
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
