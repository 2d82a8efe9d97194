//! The unique windows of the broker in memory. A task that waits or runs holds each of them, so there are no more
//! of them than of such tasks. They are timed by the steady clock, so that a wall clock that is put forward ends
//! none of them early.

use std::collections::HashMap;

use crate::core::Timestamp;
use crate::task::clock::steady;
use crate::task::{Message, TaskId, UniqueKey};

/// The holder of each window, and its end.
#[derive(Default)]
pub(super) struct MemoryUniqueWindows(HashMap<UniqueKey, (TaskId, Timestamp)>);

impl MemoryUniqueWindows {
    /// The task that this message joins, if there is one.
    pub(super) fn holder(&self, message: &Message) -> Option<TaskId> {
        self.holder_of(&message.unique.as_ref()?.key)
    }

    pub(super) fn holder_of(&self, key: &UniqueKey) -> Option<TaskId> {
        self.0.get(key).filter(|(_, until)| *until > steady()).map(|(id, _)| id.clone())
    }

    /// Begins the window of a message that was taken.
    pub(super) fn acquire(&mut self, message: &Message) {
        if let Some(unique) = &message.unique {
            self.0.insert(unique.key.clone(), (message.id.clone(), unique.passes_at()));
        }
    }

    /// Ends the window of a message, unless it has passed and another task holds it by now.
    pub(super) fn release(&mut self, message: &Message) {
        if let Some(unique) = &message.unique
            && self.0.get(&unique.key).is_some_and(|(id, _)| *id == message.id)
        {
            self.0.remove(&unique.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::task::clock::Jump;
    use crate::task::{Context, Unique};

    #[test]
    fn a_wall_clock_that_is_put_forward_ends_no_window() {
        let hour = Duration::from_secs(3_600);
        let mut message = Context::detached().message().clone();
        message.unique = Some(Box::new(Unique::new(UniqueKey::new("export", "demo"), hour)));
        let mut windows = MemoryUniqueWindows::default();
        windows.acquire(&message);
        let mut clock = Jump::default();
        clock.wall(2 * hour);
        assert_eq!(windows.holder(&message), Some(message.id.clone()));
        clock.pass(hour);
        assert_eq!(windows.holder(&message), None, "an hour has passed");
    }
}
