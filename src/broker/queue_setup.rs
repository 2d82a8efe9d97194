//! How one queue is made on RabbitMQ, should it not be there.
//!
//! Not a part of that broker, because a catalogue says it whatever the program is built with.

use serde_json::{Map, Value};

/// Which kind of queue RabbitMQ is to make. One that is there already is used as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QueueType {
    /// On one node. Celery's and kombu's default.
    #[default]
    Classic,
    /// On several nodes of a cluster: what was accepted survives the loss of a node. Has no priorities before RabbitMQ 4.
    Quorum,
}

impl QueueType {
    /// Every type.
    pub const ALL: [Self; 2] = [Self::Classic, Self::Quorum];

    /// RabbitMQ's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
        }
    }
}

/// How one queue is declared, should it not be there. What is not stated is as for all queues.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueueSetup {
    /// Its type.
    pub queue_type: Option<QueueType>,
    /// Celery's `x-max-priority`: 1 to 255. Without it, RabbitMQ takes no notice of priorities.
    pub max_priority: Option<u8>,
    /// More of RabbitMQ's arguments, as in kombu's `queue_arguments`.
    pub arguments: Map<String, Value>,
}

impl QueueSetup {
    /// Whether nothing is stated.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// This setup, and what it does not state from another one.
    #[must_use]
    pub fn over(mut self, other: Self) -> Self {
        let mut arguments = other.arguments;
        arguments.append(&mut self.arguments);
        Self {
            queue_type: self.queue_type.or(other.queue_type),
            max_priority: self.max_priority.or(other.max_priority),
            arguments,
        }
    }

    /// What is wrong with it: the column, its value, and what to do.
    pub(crate) fn faults(&self) -> Vec<(&'static str, String, String)> {
        let mut faults = Vec::new();
        if self.max_priority == Some(0) {
            faults.push(("max_priority", "0".to_owned(), "write 1 to 255; 10 is enough for most".to_owned()));
        }
        if let (Some(QueueType::Quorum), Some(max)) = (self.queue_type, self.max_priority) {
            let advice = "quorum queues take none: remove it, or write queue_type = \"classic\"";
            faults.push(("max_priority", max.to_string(), advice.to_owned()));
        }
        for (key, column) in [("x-queue-type", "queue_type"), ("x-max-priority", "max_priority")] {
            if let Some(value) = self.arguments.get(key) {
                let advice = format!("it has a column of its own: write {column} = {value}");
                faults.push(("queue_arguments", format!("{key} = {value}"), advice));
            }
        }
        faults
    }
}
