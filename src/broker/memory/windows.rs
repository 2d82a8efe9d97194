//! The dedupe windows of the broker in memory. Each is held by a task that waits or runs, so there are no more of them than
//! of those.

use std::collections::HashMap;

use crate::core::Timestamp;
use crate::task::clock::now;
use crate::task::{Message, TaskId, UniqueKey};

/// Who holds which window, and until when.
#[derive(Default)]
pub(super) struct Windows(HashMap<UniqueKey, (TaskId, Timestamp)>);

impl Windows {
    /// Whom this message joins, if anybody.
    pub(super) fn holder(&self, message: &Message) -> Option<TaskId> {
        self.holder_of(&message.unique.as_ref()?.key)
    }

    pub(super) fn holder_of(&self, key: &UniqueKey) -> Option<TaskId> {
        self.0.get(key).filter(|(_, until)| *until > now()).map(|(id, _)| id.clone())
    }

    /// Begins the window of a message that was taken.
    pub(super) fn hold(&mut self, message: &Message) {
        if let Some(unique) = &message.unique {
            self.0.insert(unique.key.clone(), (message.id.clone(), unique.passes_at()));
        }
    }

    /// Ends the window of a message, unless it has passed and is another one's by now.
    pub(super) fn let_go(&mut self, message: &Message) {
        if let Some(unique) = &message.unique
            && self.0.get(&unique.key).is_some_and(|(id, _)| *id == message.id)
        {
            self.0.remove(&unique.key);
        }
    }
}
