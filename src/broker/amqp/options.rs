//! How the RabbitMQ broker behaves.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::broker::embedded::DEFAULT_DELIVERY_LIMIT;
use crate::broker::{QueueSetup, QueueType};
use crate::protocol::Arrival;

/// How the RabbitMQ broker behaves. The defaults suit a Celery estate.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AmqpOptions {
    /// How queues are declared that have no setup of their own.
    pub every_queue: QueueSetup,
    /// How particular queues are declared, by name.
    pub queues: HashMap<String, QueueSetup>,
    /// So many runs that ended with their worker, and a task goes to the dead letters.
    pub delivery_limit: u32,
    /// A delivery that is older than this is put into the keeping of this process, so that RabbitMQ's consumer timeout (30
    /// minutes by default) does not end its channel. Less than that, with some to spare.
    pub guard_after: Duration,
    /// How long a task may wait for its process to come back when that has died with the task in its keeping: how long it
    /// takes until another one gets it. Only deliveries that were put into keeping just now wait at all.
    pub lease: Duration,
    /// How long a publish may wait for RabbitMQ, connections that are lost meanwhile included.
    pub publish_timeout: Duration,
    /// Who has said nothing for two to three times as long is gone: so soon RabbitMQ gives to others what a machine had that is
    /// cut off, out of power or frozen. (Of a process that ends it hears at once.) In whole seconds, at least one; `?heartbeat=`
    /// in the URL wins, and RabbitMQ's own setting, if that is shorter.
    pub heartbeat: Duration,
    /// The name under which this process hears of revocations, and shows up in Celery's tools. Default `celeriac@<host>`.
    pub node: Option<String>,
    /// How many bytes a message's body may take, also when it is unpacked.
    pub max_size: usize,
    /// Of `amqps://`: a PEM file with the certificate authorities that servers are checked against. Default: the system's.
    pub ca_certs: Option<PathBuf>,
}

impl Default for AmqpOptions {
    fn default() -> Self {
        Self {
            every_queue: QueueSetup::default(),
            queues: HashMap::new(),
            delivery_limit: DEFAULT_DELIVERY_LIMIT,
            guard_after: Duration::from_secs(600),
            lease: Duration::from_secs(10),
            publish_timeout: Duration::from_secs(30),
            // So that it is over within a lease. Celery's is two minutes.
            heartbeat: Duration::from_secs(3),
            node: None,
            max_size: Arrival::MAX_SIZE,
            ca_certs: None,
        }
    }
}

impl AmqpOptions {
    /// The type of queues that do not say.
    #[must_use]
    pub fn queue_type(mut self, queue_type: QueueType) -> Self {
        self.every_queue.queue_type = Some(queue_type);
        self
    }

    /// The highest priority of queues that do not say; Celery's `task_queue_max_priority`.
    #[must_use]
    pub fn max_priority(mut self, max_priority: u8) -> Self {
        self.every_queue.max_priority = Some(max_priority);
        self
    }

    /// How this queue is declared.
    #[must_use]
    pub fn queue(mut self, name: impl Into<String>, setup: QueueSetup) -> Self {
        self.queues.insert(name.into(), setup);
        self
    }

    /// See [`delivery_limit`](Self::delivery_limit).
    #[must_use]
    pub fn with_delivery_limit(mut self, limit: u32) -> Self {
        self.delivery_limit = limit;
        self
    }

    /// See [`guard_after`](Self::guard_after).
    #[must_use]
    pub fn with_guard_after(mut self, age: Duration) -> Self {
        self.guard_after = age;
        self
    }

    /// See [`lease`](Self::lease).
    #[must_use]
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// See [`publish_timeout`](Self::publish_timeout).
    #[must_use]
    pub fn with_publish_timeout(mut self, timeout: Duration) -> Self {
        self.publish_timeout = timeout;
        self
    }

    /// See [`heartbeat`](Self::heartbeat).
    #[must_use]
    pub fn with_heartbeat(mut self, heartbeat: Duration) -> Self {
        self.heartbeat = heartbeat;
        self
    }

    /// See [`node`](Self::node).
    #[must_use]
    pub fn with_node(mut self, name: impl Into<String>) -> Self {
        self.node = Some(name.into());
        self
    }

    /// See [`ca_certs`](Self::ca_certs).
    #[must_use]
    pub fn with_ca_certs(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca_certs = Some(file.into());
        self
    }

    /// The type of a queue, should it have to be made.
    pub(super) fn type_of(&self, queue: &str) -> QueueType {
        let own = self.queues.get(queue).and_then(|setup| setup.queue_type);
        own.or(self.every_queue.queue_type).unwrap_or_default()
    }

    /// The arguments of a queue, should it have to be made: none for a classic one, as kombu has it.
    pub(super) fn arguments(&self, queue: &str) -> Map<String, Value> {
        let own = self.queues.get(queue);
        let mut arguments = self.every_queue.arguments.clone();
        arguments.extend(own.into_iter().flat_map(|setup| setup.arguments.clone()));
        if self.type_of(queue) == QueueType::Quorum {
            arguments.insert("x-queue-type".into(), "quorum".into());
        } else if let Some(max) = own.and_then(|s| s.max_priority).or(self.every_queue.max_priority) {
            arguments.insert("x-max-priority".into(), max.into());
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plain_queue_has_no_arguments_and_others_have_kombus() {
        let options = AmqpOptions::default();
        assert!(options.arguments("celery").is_empty());
        let setup = QueueSetup { queue_type: Some(QueueType::Quorum), ..QueueSetup::default() };
        let options = options.max_priority(10).queue("safe", setup);
        assert_eq!(Value::from(options.arguments("celery")), json!({"x-max-priority": 10}));
        assert_eq!(Value::from(options.arguments("safe")), json!({"x-queue-type": "quorum"}));
    }
}
