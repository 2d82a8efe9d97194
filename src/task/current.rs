//! Whose body a thread is in, so that what the body sends can say who has sent it. Celery's request stack.
//!
//! A body is entered for as long as it is polled or called. What it has spawned elsewhere is not in it.

use std::cell::RefCell;
use std::sync::Arc;

use super::Message;

thread_local! {
    static CURRENT: RefCell<Option<Arc<Message>>> = const { RefCell::new(None) };
}

/// The task whose body this thread is in, if it is in one.
pub(crate) fn current_message() -> Option<Arc<Message>> {
    CURRENT.with(|current| current.borrow().clone())
}

/// As long as this lives, the thread is in that body; then in the one before.
pub(crate) struct Entered(Option<Arc<Message>>);

impl Entered {
    pub(crate) fn of(message: &Arc<Message>) -> Self {
        Self(CURRENT.with(|current| current.replace(Some(Arc::clone(message)))))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.with(|current| current.replace(self.0.take()));
    }
}
