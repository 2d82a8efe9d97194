//! The task whose body the current thread runs, so that a message which the body sends can name its sender. It is
//! Celery's request stack.
//!
//! A thread is inside a body while it polls or calls that body. Work that the body has spawned elsewhere is not inside
//! it.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;

use super::Message;

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
