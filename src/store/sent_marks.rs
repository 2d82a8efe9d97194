//! Marks that say of tasks that they were sent, for brokers that do not know what waits in them. Without one, an id that nobody
//! ever sent looks like that of a task that waits.
//!
//! A mark is the state PENDING, which Celery reads as it reads no state at all. It is written before its message is sent, so
//! that it never takes the place of a later state, and lasts as long as records do.

use futures_util::future::join_all;

use super::Store;
use crate::task::{Message, State, TaskId, TrackedState};

/// The marks of these messages. A task whose result is not kept leaves none: nothing would ever take its place. One that is
/// tried again has a later state already.
pub(crate) fn marks_of<'a>(messages: impl IntoIterator<Item = &'a Message>) -> Vec<TrackedState> {
    let is_new =
        |message: &&Message| !message.ignore_result && message.retries == 0 && message.continuations == 0;
    messages.into_iter().filter(is_new).map(|message| mark(message.id.clone())).collect()
}

/// The mark of a task.
pub(crate) fn mark(id: TaskId) -> TrackedState {
    let state = State::Pending.as_str().to_owned();
    TrackedState { id, state, meta: serde_json::Value::Null.into(), traceback: None, lineage: None }
}

/// Writes marks. One that cannot be written holds no task up; the task then looks as if nobody had sent it until it starts.
pub(crate) async fn write_marks(store: &dyn Store, marks: Vec<TrackedState>) {
    let written = join_all(marks.into_iter().map(|mark| store.track(mark))).await;
    if let Some(error) = written.into_iter().find_map(Result::err) {
        tracing::warn!(%error, "the store was not told of tasks that are sent");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Context;

    #[test]
    fn only_a_new_task_whose_result_is_kept_is_marked() {
        let new = Message { ignore_result: false, ..Context::detached().message().clone() };
        let retried = Message { retries: 1, ..new.clone() };
        let continued = Message { continuations: 1, ..new.clone() };
        let ignored = Message { ignore_result: true, ..new.clone() };
        assert_eq!(marks_of([&new, &retried, &continued, &ignored]), [mark(new.id.clone())]);
        assert_eq!(mark(new.id.clone()).state, "PENDING");
    }
}
