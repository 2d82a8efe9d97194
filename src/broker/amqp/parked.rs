//! The tasks that this process has put back into RabbitMQ, where they wait for their ETA.
//!
//! Celery's workers hold such tasks in their memory, and tools ask the workers for the list (`inspect scheduled`).
//! Here the tasks wait in RabbitMQ, so the process remembers which ones it has sent there. The list is only for people
//! to look at. It is bounded: a task that does not fit is not listed, and waits all the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::broker::{DeliveryInfo, ScheduledTask};
use crate::core::Timestamp;
use crate::task::{Message, TaskId};

/// The most tasks that the list holds.
const MOST: usize = 10_000;
/// The most bytes that the arguments of the listed tasks may take.
const ROOM: usize = 8 << 20;

/// A task that waits, and the way in which its message came to this process.
type ParkedTask = (Arc<Message>, Option<Arc<DeliveryInfo>>);

/// The list of the tasks that wait, by ETA.
#[derive(Default)]
pub(super) struct ParkedTasks(Mutex<ParkedTable>);

#[derive(Default)]
struct ParkedTable {
    tasks: BTreeMap<(Timestamp, TaskId), ParkedTask>,
    bytes: usize,
}

impl ParkedTable {
    fn forget_the_due(&mut self, now: Timestamp) {
        while let Some(first) = self.tasks.first_entry()
            && first.key().0 <= now
        {
            self.bytes -= size(&first.remove().0);
        }
    }
}

impl ParkedTasks {
    /// Remembers that a task waits until its ETA.
    pub(super) fn add(
        &self,
        eta: Timestamp,
        message: &Arc<Message>,
        info: Option<Arc<DeliveryInfo>>,
        now: Timestamp,
    ) {
        let mut table = self.0.lock();
        table.forget_the_due(now);
        if table.tasks.len() >= MOST || table.bytes + size(message) > ROOM {
            return;
        }
        table.bytes += size(message);
        if let Some((old, _)) = table.tasks.insert((eta, message.id.clone()), (Arc::clone(message), info)) {
            table.bytes -= size(&old);
        }
    }

    /// The tasks whose ETA is ahead, by ETA.
    pub(super) fn list(&self, limit: usize, now: Timestamp) -> Vec<ScheduledTask> {
        let mut table = self.0.lock();
        table.forget_the_due(now);
        let tasks = table.tasks.iter().take(limit);
        tasks
            .map(|((eta, _), (message, info))| ScheduledTask::new(*eta, Arc::clone(message), info.clone()))
            .collect()
    }
}

fn size(message: &Message) -> usize {
    message.arguments.len() + message.task.len()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::task::Context;

    #[test]
    fn what_is_due_is_forgotten_and_there_is_a_bound() {
        let at = |seconds: u64| Timestamp::ZERO + Duration::from_secs(seconds);
        let message = |id: &str, bytes: usize| {
            let mut message = Context::detached().message().clone();
            message.id = id.into();
            message.arguments.args = "x".repeat(bytes);
            Arc::new(message)
        };
        let parked = ParkedTasks::default();
        for (id, eta) in [("late", 30), ("soon", 10), ("soon", 10)] {
            parked.add(at(eta), &message(id, 10), None, at(1));
        }
        let ids = |limit, now| -> Vec<String> {
            parked.list(limit, at(now)).iter().map(|task| task.message.id.to_string()).collect()
        };
        assert_eq!(ids(9, 1), ["soon", "late"]);
        assert_eq!(ids(1, 1), ["soon"]);
        assert_eq!(ids(9, 10), ["late"]);
        parked.add(at(40), &message("large", ROOM), None, at(11));
        assert_eq!(ids(9, 11), ["late"], "there is no room for it");
        parked.add(at(40), &message("small", 10), None, at(30));
        assert_eq!(ids(9, 30), ["small"]);
        for n in 0..MOST + 5 {
            parked.add(at(50), &message(&n.to_string(), 1), None, at(30));
        }
        assert_eq!(ids(usize::MAX, 30).len(), MOST);
    }
}
