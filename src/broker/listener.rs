//! The seam through which a broker that others use too talks to the runtime beside the deliveries.

use std::sync::Arc;

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{BrokerError, DeliveryInfo, FollowUps};
use crate::core::Timestamp;
use crate::protocol::control::{Reply, Request};
use crate::store::StoreError;
use crate::task::{EventGroup, EventStream, Message, TaskId, TaskOptions, TaskResult};

/// An ability of brokers: they hear of more than deliveries, and reach other processes.
#[async_trait]
pub trait Events: Send + Sync {
    /// The name by which other programs that use the broker know this process, if they do: Celery's node name,
    /// `celery@host`.
    fn node(&self) -> Option<String>;

    /// Registers the listener for everything that is not a delivery. It is called once, before anything is
    /// consumed.
    fn set_listener(&self, listener: Arc<dyn BrokerListener>);

    /// Tells every process that consumes here that these tasks are revoked, and with `terminate` that they are to
    /// end if they run.
    ///
    /// # Errors
    /// The broker is closed or cannot be reached.
    async fn broadcast_revoke(&self, ids: &[TaskId], terminate: bool) -> Result<(), BrokerError>;

    /// Sends a command of remote control to the nodes that it is for, and gathers their replies until `patience` is
    /// over, or until every node that the command names has replied. This process replies too, if the command is for
    /// it and it consumes here.
    ///
    /// # Errors
    /// The broker is closed or cannot be reached.
    async fn ask(&self, request: Request, patience: Duration) -> Result<Vec<Reply>, BrokerError>;

    /// The connection as Celery's `stats` shows it; `None`: there is none.
    fn connection(&self) -> Option<BrokerConnection>;

    /// The arguments with which a queue is declared, such as `x-queue-type`.
    fn queue_arguments(&self, queue: &str) -> Map<String, Value>;

    /// Whether a message may be published to an exchange by a routing key.
    fn has_exchanges(&self) -> bool {
        false
    }

    /// How a queue is bound, unless it is as kombu binds one by default: to the direct exchange of its own name.
    fn binding(&self, _queue: &str) -> Option<QueueBinding> {
        None
    }

    /// Has a queue bound to an exchange from now on, and declares both. A queue that is there keeps the bindings that it has.
    ///
    /// # Errors
    /// The broker has no exchanges, or it refuses the queue or the exchange. Then the binding is forgotten.
    async fn bind(&self, queue: &str, binding: QueueBinding) -> Result<(), BrokerError> {
        let exchange = binding.exchange;
        Err(BrokerError::Refused(format!(
            "`{queue}` cannot be bound to the exchange `{exchange}`: the broker has no exchanges"
        )))
    }

    /// The name of the queue by which this process alone hears a broadcast.
    fn own_queue(&self, _queue: &str) -> Option<String> {
        None
    }

    /// The tasks that this process has seen and that wait for their ETA, by ETA, up to `limit`: those that it holds,
    /// and those that it has put back into the broker until then.
    async fn scheduled(&self, limit: usize) -> Vec<ScheduledTask>;
}

/// How a queue is bound to an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueBinding {
    /// The name of the exchange.
    pub exchange: String,
    /// The type of the exchange: `direct`, `fanout`, `topic` or `headers`.
    pub exchange_type: String,
    /// The key of the binding.
    pub routing_key: String,
}

impl QueueBinding {
    /// The types that an exchange may have.
    pub const TYPES: [&str; 4] = ["direct", "fanout", "topic", "headers"];

    /// Describes a binding to this exchange, of this type, with this key.
    pub fn new(
        exchange: impl Into<String>,
        exchange_type: impl Into<String>,
        routing_key: impl Into<String>,
    ) -> Self {
        Self {
            exchange: exchange.into(),
            exchange_type: exchange_type.into(),
            routing_key: routing_key.into(),
        }
    }
}

/// The connection of a broker, in the words of kombu's `Connection.info()`. It holds no password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerConnection {
    /// The name of the host that the broker runs on.
    pub hostname: String,
    /// The port of the broker's server.
    pub port: u16,
    /// The name of the user at the broker's server.
    pub userid: String,
    /// The virtual host at the broker's server.
    pub virtual_host: String,
    /// Whether the connection uses TLS.
    pub ssl: bool,
    /// The heartbeat that was asked for.
    pub heartbeat: Duration,
    /// The other nodes of the cluster, as `host:port`.
    pub alternates: Vec<String>,
}

/// A task that waits for its ETA.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ScheduledTask {
    /// The time before which the task does not start.
    pub eta: Timestamp,
    /// The message of the task that waits.
    pub message: Arc<Message>,
    /// How the message came to this process.
    pub delivery_info: Option<Arc<DeliveryInfo>>,
}

impl ScheduledTask {
    /// Describes a task that waits for its ETA.
    pub fn new(eta: Timestamp, message: Arc<Message>, delivery_info: Option<Arc<DeliveryInfo>>) -> Self {
        Self { eta, message, delivery_info }
    }
}

/// A command of remote control for the runtime, which a broker has received for this process.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ControlRequest {
    /// The name of the command, such as `active` or `rate_limit`.
    pub method: String,
    /// The arguments of the command by name.
    pub arguments: Map<String, Value>,
    /// The name of the node that is asked: this process.
    pub node: String,
    /// The Lamport clock of this process.
    pub clock: u64,
}

impl ControlRequest {
    /// Makes a command for `node`, whose Lamport clock says `clock`.
    pub fn new(
        method: impl Into<String>,
        arguments: Map<String, Value>,
        node: impl Into<String>,
        clock: u64,
    ) -> Self {
        Self { method: method.into(), arguments, node: node.into(), clock }
    }
}

/// How busy a runtime is. It is read from counters, and asks nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// The number of bodies that run now.
    pub active: u64,
    /// The number of bodies that have started so far.
    pub processed: u64,
}

/// The runtime, as a broker sees it that others use too. The broker calls it from its own threads, so it must not
/// block.
pub trait BrokerListener: Send + Sync {
    /// The options of a task of this program, which supply what a message from another program does not state.
    fn options(&self, task: &str) -> Option<TaskOptions>;

    /// What follows from the end of this message, with this record; the record may be told of it.
    fn plan_follow_ups(&self, message: &Message, record: &mut TaskResult) -> Option<Box<FollowUps>>;

    /// A task is over without ever having been delivered: its message was refused, or it was given up because its runs kept
    /// ending with their worker. It is a dead letter; this is its record, and its message, if it could be read: what was to
    /// follow from it fails.
    fn over(&self, record: TaskResult, message: Option<&Message>);

    /// As [`over`](Self::over), for a broker that goes on only when the record is stored and what follows is on its way: the
    /// future completes then. It takes as long as the store takes.
    fn end(&self, record: TaskResult, message: Option<&Message>) -> BoxFuture<'static, ()>;

    /// The events of these groups from now on.
    fn events(&self, groups: &[EventGroup]) -> EventStream;

    /// How busy the runtime is.
    fn activity(&self) -> Activity;

    /// A message has come whose ETA is ahead, and the broker sends it away until then. Listeners to events are told
    /// that it was received, and the answer is whether they were. If so, the broker notes it on the message, and says
    /// it of the [delivery](super::Delivery::announced).
    fn parked(&self, message: &Arc<Message>) -> bool;

    /// The lanes of the serial tasks of these deliveries are not sure to be this process's any more: their runs are to end.
    fn lost(&self, tags: Vec<u64>);

    /// Some process has revoked these tasks. The future completes when that is stored and this process has told
    /// the tasks that it has. It answers with the ids of those.
    ///
    /// # Errors
    /// The future fails if the revocation is not stored. The tasks of this process were told all the same.
    fn revoked(
        &self,
        ids: Vec<TaskId>,
        terminate: bool,
    ) -> BoxFuture<'static, Result<Vec<TaskId>, StoreError>>;

    /// Somebody asks this process something by remote control, or tells it to change something. The future completes
    /// with the reply; `None`: the runtime does not know the command, and nobody is answered. It completes within a
    /// fraction of a second, because whoever asks waits for about one.
    fn control(&self, request: ControlRequest) -> BoxFuture<'static, Option<Value>>;
}
