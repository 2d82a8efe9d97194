//! The options of the RabbitMQ broker.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::broker::embedded::DEFAULT_DELIVERY_LIMIT;
use crate::broker::{QueueSetup, QueueType};
use crate::catalogue::QueueRow;
use crate::core::address::shown;
use crate::core::partition::{self, LEAST_PARTITIONS, MOST_PARTITIONS};
use crate::protocol::Arrival;
use crate::protocol::events::EXCHANGE;

/// The options of the RabbitMQ broker. The defaults suit programs and workers that use Celery's defaults.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AmqpOptions {
    /// How queues without a setup of their own are declared.
    pub every_queue: QueueSetup,
    /// How particular queues are declared, by name.
    pub queues: HashMap<String, QueueSetup>,
    /// The number of runs of one task that may end with their worker; at that number the task is a dead letter.
    /// Default 20.
    pub delivery_limit: u32,
    /// The age at which a delivery is copied into a queue of this process alone (its *keeping*), so that
    /// RabbitMQ's consumer timeout (30 minutes by default) does not close the channel. It must be less than that
    /// timeout, with some time to spare. Default 10 minutes.
    pub guard_after: Duration,
    /// How long RabbitMQ leaves a task in the guard queue of a process that has died, before it gives the task to
    /// another process. Only deliveries that were put into the guard queue just then wait at all. Default 10 seconds.
    pub lease: Duration,
    /// How long a publish may wait for RabbitMQ, including the time in which a lost connection is made again.
    /// Default 30 seconds.
    pub publish_timeout: Duration,
    /// The heartbeat of a connection. RabbitMQ takes a peer for gone that has sent nothing for two to three times
    /// as long, and then gives its deliveries to others: that is how soon they move when a machine is cut off, out
    /// of power or frozen. (RabbitMQ notices at once when a process ends.) It is rounded down to whole seconds, at
    /// least one. `?heartbeat=` in the URL overrides it, and so does a shorter setting of RabbitMQ. Default 3
    /// seconds.
    pub heartbeat: Duration,
    /// The node name under which this process listens for remote control and shows up in Celery's tools. As in
    /// Celery, `%h` is the name of the host, `%n` the same without its domain, `%d` the domain, and `%%` a percent
    /// sign. A name without `@` gets the host. Default `celeriac@%h`.
    pub node: Option<String>,
    /// Whether events are sent of what happens to tasks in this program's queues, from the start: Celery's
    /// `worker_send_task_events`, and `-E` of `celery worker`. The remote commands `enable_events` (Flower sends it)
    /// and `disable_events` switch it. Events of the worker itself are sent in any case. Default false.
    pub task_events: bool,
    /// Whether a `task-sent` event is sent of each call: Celery's `task_send_sent_event`. Default false.
    pub task_sent_events: bool,
    /// The exchange that events go to: Celery's `event_exchange`. Default `celeryev`.
    pub event_exchange: String,
    /// What the names of the queues begin with by which this process hears events of others: Celery's
    /// `event_queue_prefix`. Default `celeryev`.
    pub event_queue_prefix: String,
    /// How long an event waits in such a queue: Celery's `event_queue_ttl`. Default 2 seconds, which is what Celery's
    /// workers take for the queues by which they hear each other.
    pub event_queue_ttl: Duration,
    /// How long such a queue stays without a consumer: Celery's `event_queue_expires`. Default 60 seconds.
    pub event_queue_expires: Duration,
    /// How long a request waits in the queue of remote control: Celery's `control_queue_ttl`. RabbitMQ refuses the
    /// queue if one of the same name has another number. Default 300 seconds.
    pub control_queue_ttl: Duration,
    /// How long the queues of remote control and of its replies stay without a consumer: Celery's
    /// `control_queue_expires`. Default 10 seconds.
    pub control_queue_expires: Duration,
    /// The most bytes that a message's body may take, packed or unpacked.
    pub max_size: usize,
    /// For `amqps://`: a PEM file with the certificate authorities that servers are checked against. Default: the
    /// system's.
    pub ca_certs: Option<PathBuf>,
    /// The broadcasts that this program only sends.
    pub(super) unheard: HashSet<String>,
    /// The address by which messages are published, if it is another one than that by which they are consumed.
    pub(super) write_url: Option<WriteUrl>,
}

/// An address that is shown without its password.
#[derive(Clone)]
pub(super) struct WriteUrl(pub(super) String);

impl fmt::Debug for WriteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
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
            // A dead peer is noticed within a lease. Celery's heartbeat is two minutes.
            heartbeat: Duration::from_secs(3),
            node: None,
            task_events: false,
            task_sent_events: false,
            event_exchange: EXCHANGE.to_owned(),
            event_queue_prefix: "celeryev".to_owned(),
            event_queue_ttl: Duration::from_secs(2),
            event_queue_expires: Duration::from_secs(60),
            control_queue_ttl: Duration::from_secs(300),
            control_queue_expires: Duration::from_secs(10),
            max_size: Arrival::MAX_SIZE,
            ca_certs: None,
            unheard: HashSet::new(),
            write_url: None,
        }
    }
}

impl AmqpOptions {
    /// Sets the type of queues whose setup states none.
    #[must_use]
    pub fn queue_type(mut self, queue_type: QueueType) -> Self {
        self.every_queue.queue_type = Some(queue_type);
        self
    }

    /// Sets the highest priority of queues whose setup states none: Celery's `task_queue_max_priority`.
    #[must_use]
    pub fn max_priority(mut self, max_priority: u8) -> Self {
        self.every_queue.max_priority = Some(max_priority);
        self
    }

    /// Sets how this queue is declared.
    #[must_use]
    pub fn queue(mut self, name: impl Into<String>, setup: QueueSetup) -> Self {
        self.queues.insert(name.into(), setup);
        self
    }

    /// Returns these options with another [`delivery_limit`](Self::delivery_limit).
    #[must_use]
    pub fn with_delivery_limit(mut self, limit: u32) -> Self {
        self.delivery_limit = limit;
        self
    }

    /// Returns these options with another [`guard_after`](Self::guard_after).
    #[must_use]
    pub fn with_guard_after(mut self, age: Duration) -> Self {
        self.guard_after = age;
        self
    }

    /// Returns these options with another [`lease`](Self::lease).
    #[must_use]
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Returns these options with another [`publish_timeout`](Self::publish_timeout).
    #[must_use]
    pub fn with_publish_timeout(mut self, timeout: Duration) -> Self {
        self.publish_timeout = timeout;
        self
    }

    /// Returns these options with another [`heartbeat`](Self::heartbeat).
    #[must_use]
    pub fn with_heartbeat(mut self, heartbeat: Duration) -> Self {
        self.heartbeat = heartbeat;
        self
    }

    /// Returns these options with another [`node`](Self::node).
    #[must_use]
    pub fn with_node(mut self, name: impl Into<String>) -> Self {
        self.node = Some(name.into());
        self
    }

    /// Returns these options with another [`task_events`](Self::task_events).
    #[must_use]
    pub fn with_task_events(mut self, on: bool) -> Self {
        self.task_events = on;
        self
    }

    /// Returns these options with another [`task_sent_events`](Self::task_sent_events).
    #[must_use]
    pub fn with_task_sent_events(mut self, on: bool) -> Self {
        self.task_sent_events = on;
        self
    }

    /// Returns these options with another [`event_exchange`](Self::event_exchange).
    #[must_use]
    pub fn with_event_exchange(mut self, exchange: impl Into<String>) -> Self {
        self.event_exchange = exchange.into();
        self
    }

    /// Returns these options with another [`event_queue_prefix`](Self::event_queue_prefix).
    #[must_use]
    pub fn with_event_queue_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.event_queue_prefix = prefix.into();
        self
    }

    /// Returns these options with another [`event_queue_ttl`](Self::event_queue_ttl).
    #[must_use]
    pub fn with_event_queue_ttl(mut self, ttl: Duration) -> Self {
        self.event_queue_ttl = ttl;
        self
    }

    /// Returns these options with another [`event_queue_expires`](Self::event_queue_expires).
    #[must_use]
    pub fn with_event_queue_expires(mut self, after: Duration) -> Self {
        self.event_queue_expires = after;
        self
    }

    /// Returns these options with another [`control_queue_ttl`](Self::control_queue_ttl).
    #[must_use]
    pub fn with_control_queue_ttl(mut self, ttl: Duration) -> Self {
        self.control_queue_ttl = ttl;
        self
    }

    /// Returns these options with another [`control_queue_expires`](Self::control_queue_expires).
    #[must_use]
    pub fn with_control_queue_expires(mut self, after: Duration) -> Self {
        self.control_queue_expires = after;
        self
    }

    /// Returns these options with another [`ca_certs`](Self::ca_certs).
    #[must_use]
    pub fn with_ca_certs(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca_certs = Some(file.into());
        self
    }

    /// Publishes by this address, and consumes by that of the broker: a load balancer in front of the nodes, or a user
    /// who may only write. Celery's `broker_write_url`; the broker's own address is then its `broker_read_url`. Like that
    /// one, it may be several, separated by `;`. In either case the program has one connection that publishes and another
    /// one that consumes.
    ///
    /// Both addresses lead to the same virtual host of the same cluster, because queues are declared, and retries and
    /// next steps awaited, where the program consumes. Another virtual host is an error of the start; a message for
    /// another cluster is refused, because its queue is not there.
    #[must_use]
    pub fn with_write_url(mut self, url: impl Into<String>) -> Self {
        self.write_url = Some(WriteUrl(url.into()));
        self
    }

    /// The options in the words of Celery's configuration, as far as operators ask for them.
    pub(crate) fn settings(&self) -> Map<String, Value> {
        [
            ("event_exchange", Value::from(self.event_exchange.as_str())),
            ("event_queue_prefix", self.event_queue_prefix.as_str().into()),
            ("event_queue_ttl", self.event_queue_ttl.as_secs_f64().into()),
            ("event_queue_expires", self.event_queue_expires.as_secs_f64().into()),
            ("control_queue_ttl", self.control_queue_ttl.as_secs_f64().into()),
            ("control_queue_expires", self.control_queue_expires.as_secs_f64().into()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
    }

    /// The arguments of the queues by which events are heard.
    pub(super) fn event_queue_arguments(&self) -> Map<String, Value> {
        lifetimes(Some(self.event_queue_ttl), self.event_queue_expires)
    }

    /// The arguments of the queue of remote control.
    pub(super) fn control_queue_arguments(&self) -> Map<String, Value> {
        lifetimes(Some(self.control_queue_ttl), self.control_queue_expires)
    }

    /// The arguments of the queue of the replies to a question.
    pub(super) fn reply_queue_arguments(&self) -> Map<String, Value> {
        lifetimes(None, self.control_queue_expires)
    }

    /// Takes from the rows of a catalogue how their queues are declared. The rows win.
    pub(crate) fn take_rows(&mut self, rows: &[QueueRow]) {
        for row in rows.iter().filter(|row| !row.setup.is_plain()) {
            let of_options = self.queues.remove(&row.name).unwrap_or_default();
            self.queues.insert(row.name.clone(), row.setup.clone().over(of_options));
            if row.setup.broadcast && !row.served {
                self.unheard.insert(row.name.clone());
            }
        }
    }

    /// The number of partitions of the queue of this name, if it has any.
    pub(super) fn partitions(&self, queue: &str) -> Option<u8> {
        let setup = self.queues.get(queue).filter(|setup| !setup.broadcast)?;
        let partitions = setup.partitions.filter(|partitions| *partitions >= LEAST_PARTITIONS);
        partitions.map(|partitions| partitions.min(MOST_PARTITIONS))
    }

    /// The names of the partitions of this queue.
    pub(super) fn partition_names(&self, queue: &str) -> Vec<String> {
        (0..self.partitions(queue).unwrap_or_default()).map(|index| partition::name(queue, index)).collect()
    }

    /// The queue of which the queue of this name is a partition.
    pub(super) fn partitioned<'q>(&self, name: &'q str) -> Option<&'q str> {
        let (queue, index) = partition::split(name)?;
        (index < self.partitions(queue)?).then_some(queue)
    }

    /// The setup of the queue of this name. Partitions have that of their queue.
    fn setup_of(&self, queue: &str) -> Option<&QueueSetup> {
        self.queues.get(queue).or_else(|| self.queues.get(self.partitioned(queue)?))
    }

    /// Whether the queue of this name is a broadcast.
    pub(super) fn is_broadcast(&self, queue: &str) -> bool {
        self.queues.get(queue).is_some_and(|setup| setup.broadcast)
    }

    /// Whether this process has a queue of its own for this broadcast.
    pub(super) fn hears(&self, queue: &str) -> bool {
        self.is_broadcast(queue) && !self.unheard.contains(queue)
    }

    /// The exchange to which RabbitMQ sends the dead letters of this queue, and their routing key, if the queue is to have
    /// one of its own.
    pub(super) fn dead_letter_exchange(&self, queue: &str) -> Option<(String, Option<String>)> {
        let arguments = self.arguments(queue);
        let text = |name: &str| arguments.get(name).and_then(Value::as_str).map(str::to_owned);
        Some((text("x-dead-letter-exchange")?, text("x-dead-letter-routing-key")))
    }

    /// The type that a queue gets if it has to be made.
    pub(super) fn type_of(&self, queue: &str) -> QueueType {
        let own = self.setup_of(queue).and_then(|setup| setup.queue_type);
        own.or(self.every_queue.queue_type).unwrap_or_default()
    }

    /// The arguments that a queue gets if it has to be made; a classic queue gets none, as with kombu.
    pub(super) fn arguments(&self, queue: &str) -> Map<String, Value> {
        let own = self.setup_of(queue);
        // What is set for all queues is meant for those that keep tasks until somebody takes them.
        if let Some(setup) = own.filter(|setup| setup.broadcast) {
            let mut arguments = setup.arguments.clone();
            arguments.extend(setup.max_priority.map(|max| ("x-max-priority".to_owned(), max.into())));
            return arguments;
        }
        let mut arguments = self.every_queue.arguments.clone();
        arguments.extend(own.into_iter().flat_map(|setup| setup.arguments.clone()));
        if self.type_of(queue) == QueueType::Quorum {
            arguments.insert("x-queue-type".into(), "quorum".into());
        } else if let Some(max) = own.and_then(|s| s.max_priority).or(self.every_queue.max_priority) {
            arguments.insert("x-max-priority".into(), max.into());
        }
        // Whoever takes the dead letters of the queue knows them by its name.
        if let Some(partitioned) = self.partitioned(queue)
            && arguments.contains_key("x-dead-letter-exchange")
        {
            arguments.entry("x-dead-letter-routing-key").or_insert_with(|| partitioned.into());
        }
        arguments
    }
}

/// The arguments of a queue whose messages and which itself are there for a while. RabbitMQ counts milliseconds. It
/// refuses 0 for the queue, and more than 32 bits.
fn lifetimes(ttl: Option<Duration>, expires: Duration) -> Map<String, Value> {
    let millis = |length: Duration| u32::try_from(length.as_millis()).unwrap_or(u32::MAX);
    let mut arguments = Map::new();
    arguments.insert("x-expires".into(), millis(expires).max(1).into());
    if let Some(ttl) = ttl {
        arguments.insert("x-message-ttl".into(), millis(ttl).into());
    }
    arguments
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

    #[test]
    fn the_setup_of_every_queue_holds_where_a_queue_states_nothing() {
        let arguments = |json: Value| json.as_object().cloned().unwrap();
        let own = QueueSetup {
            queue_type: Some(QueueType::Classic),
            arguments: arguments(json!({"x-max-length": 3})),
            ..QueueSetup::default()
        };
        let mut options = AmqpOptions::default().queue("own", own);
        options.every_queue = QueueSetup {
            queue_type: Some(QueueType::Quorum),
            max_priority: Some(5),
            arguments: arguments(json!({"x-max-length": 10, "x-overflow": "reject-publish"})),
            ..QueueSetup::default()
        };
        assert_eq!((options.type_of("any"), options.type_of("own")), (QueueType::Quorum, QueueType::Classic));
        let any = json!({"x-max-length": 10, "x-overflow": "reject-publish", "x-queue-type": "quorum"});
        assert_eq!(Value::from(options.arguments("any")), any);
        let own = json!({"x-max-length": 3, "x-overflow": "reject-publish", "x-max-priority": 5});
        assert_eq!(Value::from(options.arguments("own")), own);
    }

    #[test]
    fn a_partition_is_declared_as_its_queue_and_its_letters_have_the_name_of_the_queue() {
        let mut options = AmqpOptions::default();
        let letters = json!({"x-dead-letter-exchange": "x"}).as_object().cloned().unwrap();
        let row = QueueRow::new("celery").with_queue_type(QueueType::Quorum).with_queue_arguments(letters);
        options.take_rows(&[row.with_partitions(2), QueueRow::new("other")]);
        assert_eq!(options.partition_names("celery"), ["celery.0", "celery.1"]);
        assert!(
            options.partition_names("other").is_empty() && options.partition_names("celery.0").is_empty()
        );
        assert_eq!(options.partitioned("celery.1"), Some("celery"));
        assert_eq!((options.partitioned("celery.2"), options.partitioned("other.0")), (None, None));
        let all = json!({"x-queue-type": "quorum", "x-dead-letter-exchange": "x"});
        assert_eq!(Value::from(options.arguments("celery")), all);
        let of_partition = json!({"x-queue-type": "quorum", "x-dead-letter-exchange": "x", "x-dead-letter-routing-key": "celery"});
        assert_eq!(Value::from(options.arguments("celery.1")), of_partition);
        assert_eq!(options.type_of("celery.0"), QueueType::Quorum);
    }

    #[test]
    fn options_are_shown_without_a_password() {
        let options = AmqpOptions::default().with_write_url("amqp://user:geheim@host/vhost");
        let text = format!("{options:?}");
        assert!(text.contains("amqp://***@host/vhost") && !text.contains("geheim"), "{text}");
    }

    #[test]
    fn what_is_set_for_all_queues_does_not_hold_for_a_broadcast() {
        let setup = QueueSetup { max_priority: Some(3), broadcast: true, ..QueueSetup::default() };
        let mut options = AmqpOptions::default().queue_type(QueueType::Quorum).queue("news", setup);
        assert_eq!(Value::from(options.arguments("news")), json!({"x-max-priority": 3}));
        assert!(options.hears("news") && !options.is_broadcast("other"));
        let row = |name: &str| QueueRow::new(name).with_broadcast(true);
        options.take_rows(&[row("here"), row("there").with_served(false), QueueRow::new("plain")]);
        let is = |queue: &str| (options.is_broadcast(queue), options.hears(queue));
        assert_eq!(["here", "there", "plain"].map(is), [(true, true), (true, false), (false, false)]);
        let letters = json!({"x-dead-letter-exchange": "x"}).as_object().cloned().unwrap();
        options.take_rows(&[QueueRow::new("q").with_queue_arguments(letters)]);
        assert_eq!(options.dead_letter_exchange("q"), Some(("x".to_owned(), None)));
        assert_eq!(options.dead_letter_exchange("plain"), None);
    }

    #[test]
    fn the_queues_of_events_and_of_remote_control_live_as_long_as_is_said() {
        let options = AmqpOptions::default();
        let of = |arguments: Map<String, Value>| Value::from(arguments);
        assert_eq!(of(options.event_queue_arguments()), json!({"x-expires": 60_000, "x-message-ttl": 2_000}));
        let control = json!({"x-expires": 10_000, "x-message-ttl": 300_000});
        assert_eq!(of(options.control_queue_arguments()), control);
        assert_eq!(of(options.reply_queue_arguments()), json!({"x-expires": 10_000}));
        let options = options.with_event_queue_ttl(Duration::MAX).with_event_queue_expires(Duration::ZERO);
        assert_eq!(of(options.event_queue_arguments()), json!({"x-expires": 1, "x-message-ttl": u32::MAX}));
    }
}
