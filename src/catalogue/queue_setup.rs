//! How Celeriac declares a queue on RabbitMQ if the queue does not exist.
//!
//! This is not a part of the RabbitMQ broker, because a catalogue may say it whatever features the program is built
//! with.

use serde_json::{Map, Value};

use crate::core::partition::{LEAST_PARTITIONS, MOST_PARTITIONS};

/// The type of a queue on RabbitMQ. A queue that exists already is used as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QueueType {
    /// The queue is on one node. This is the default of Celery and kombu.
    #[default]
    Classic,
    /// The queue is on several nodes of a cluster, and its messages survive the loss of a node. It has no priorities
    /// before RabbitMQ 4.
    Quorum,
}

impl QueueType {
    /// All types that there are.
    pub const ALL: [Self; 2] = [Self::Classic, Self::Quorum];

    /// The value of RabbitMQ's argument `x-queue-type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
        }
    }
}

/// How Celeriac declares one queue on RabbitMQ. A field that is not set takes its value from the settings for all
/// queues.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueueSetup {
    /// The type of the queue.
    pub queue_type: Option<QueueType>,
    /// The highest priority, 1 to 255: Celery's `x-max-priority`. Without it, RabbitMQ ignores priorities.
    pub max_priority: Option<u8>,
    /// More of RabbitMQ's arguments, as in kombu's `queue_arguments`.
    pub arguments: Map<String, Value>,
    /// Whether each task that is sent here is run by every process that serves the queue: kombu's `Broadcast`. The name
    /// is that of a fanout exchange, and each process has a queue of its own there for as long as it is connected.
    pub broadcast: bool,
    /// The number of partitions, 2 to 64: further queues on RabbitMQ beside the one of the queue's name, over which the tasks
    /// of tenants are spread. `None`: there are none.
    pub partitions: Option<u8>,
}

/// What to do about a number of partitions that cannot be.
pub(super) fn partitions_advice() -> String {
    format!("write {LEAST_PARTITIONS} to {MOST_PARTITIONS}, or remove it: without it there is one queue")
}

/// Whether a queue can have so many partitions.
pub(super) fn can_be_partitions(number: u8) -> bool {
    (LEAST_PARTITIONS..=MOST_PARTITIONS).contains(&number)
}

impl QueueSetup {
    /// Whether no field is set.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// This setup, with the fields that it does not set taken from `other`.
    #[must_use]
    pub fn over(mut self, other: Self) -> Self {
        let mut arguments = other.arguments;
        arguments.append(&mut self.arguments);
        Self {
            queue_type: self.queue_type.or(other.queue_type),
            max_priority: self.max_priority.or(other.max_priority),
            arguments,
            broadcast: self.broadcast || other.broadcast,
            partitions: self.partitions.or(other.partitions),
        }
    }

    /// The mistakes of the setup: the column, its value, and what to do.
    pub(crate) fn faults(&self) -> Vec<(&'static str, String, String)> {
        let mut faults = Vec::new();
        if self.max_priority == Some(0) {
            faults.push(("max_priority", "0".to_owned(), "write 1 to 255; 10 is enough for most".to_owned()));
        }
        if let (Some(QueueType::Quorum), Some(max)) = (self.queue_type, self.max_priority) {
            let advice = "quorum queues take none: remove it, or write queue_type = \"classic\"";
            faults.push(("max_priority", max.to_string(), advice.to_owned()));
        }
        if self.broadcast && self.queue_type == Some(QueueType::Quorum) {
            let advice = "a process's own queue for broadcasts is classic: remove it, or remove broadcast";
            faults.push(("queue_type", "quorum".to_owned(), advice.to_owned()));
        }
        if let Some(partitions) = self.partitions {
            let value = partitions.to_string();
            if !can_be_partitions(partitions) {
                faults.push(("partitions", value, partitions_advice()));
            } else if self.broadcast {
                let advice =
                    "every process has a queue of its own for a broadcast: remove it, or remove broadcast";
                faults.push(("partitions", value, advice.to_owned()));
            } else if self.arguments.get("x-single-active-consumer") == Some(&Value::Bool(true)) {
                let advice = "x-single-active-consumer keeps the order of one queue, and partitions have none between them: remove one of the two";
                faults.push(("partitions", value, advice.to_owned()));
            }
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
