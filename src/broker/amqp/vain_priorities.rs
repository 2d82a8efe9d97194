//! Says that RabbitMQ ignores the priority of a call, because the call's queue is declared without priorities.
//!
//! A classic queue tells priorities apart only if it was made with `x-max-priority`. It is said once for each queue. The
//! queue may have been made by somebody else with other arguments, which this program does not know.

use std::collections::HashSet;

use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::AmqpOptions;
use crate::task::Message;

/// The most queues that are remembered. Names of queues are data of callers too.
const MOST: usize = 1000;

/// Whether a queue that is declared with these arguments ignores priorities. A quorum queue has two of its own.
fn ignores_priorities(arguments: &Map<String, Value>) -> bool {
    !arguments.contains_key("x-max-priority")
        && arguments.get("x-queue-type").is_none_or(|kind| kind != "quorum")
}

/// The queues of which it was said.
#[derive(Default)]
pub(super) struct VainPriorities {
    told: Mutex<HashSet<String>>,
}

impl VainPriorities {
    /// Looks at a message that is about to be published, and says so if its priority has no effect. Answers with whether it
    /// did.
    pub(super) fn look(&self, message: &Message, options: &AmqpOptions) -> bool {
        if message.priority == 0 || message.headers.exchange().is_some() {
            return false;
        }
        let queue = &message.queue;
        if self.told.lock().contains(queue) || !ignores_priorities(&options.arguments(queue)) {
            return false;
        }
        let mut told = self.told.lock();
        let is_news = told.len() < MOST && told.insert(queue.clone());
        drop(told);
        if is_news {
            tracing::warn!(
                queue,
                task = message.task,
                priority = message.priority,
                "the priority of a call has no effect, because the queue is declared without priorities: state `max_priority` in its row, or leave the priority out"
            );
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{QueueSetup, QueueType};
    use crate::task::Context;

    #[test]
    fn it_is_said_once_of_a_queue_without_priorities() {
        let options = AmqpOptions::default()
            .queue("ranked", QueueSetup { max_priority: Some(9), ..QueueSetup::default() })
            .queue("quorum", QueueSetup { queue_type: Some(QueueType::Quorum), ..QueueSetup::default() });
        let told = VainPriorities::default();
        let look = |queue: &str, priority: u8| {
            let mut message = Context::detached().message().clone();
            (message.queue, message.priority) = (queue.to_owned(), priority);
            told.look(&message, &options)
        };
        assert!(!look("plain", 0) && !look("ranked", 5) && !look("quorum", 5));
        assert!(look("plain", 5));
        assert!(!look("plain", 5), "it was said before");
        assert!(look("other", 1));
    }
}
