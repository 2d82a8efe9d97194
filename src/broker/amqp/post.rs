//! A message that is about to be published, and the place that must be declared before it can arrive.

use std::fmt;
use std::sync::Arc;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, ShortString};

use super::options::AmqpOptions;
use super::outgoing::{COPY, mark};
use super::topology::{DEAD, short};
use crate::broker::BrokerError;
use crate::core::partition;
use crate::task::{Message, RUN_ONCE_HEADER};

/// A message whose body has more bytes than this gets a channel of its own. RabbitMQ's limit (`max_message_size`) is
/// 16 MiB or more.
const LARGE: usize = 1 << 20;

/// A message, and the exchange and routing key by which it goes.
#[derive(Clone)]
pub(super) struct OutgoingMessage {
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: Vec<u8>,
    /// The place where the message comes out in the end.
    pub(super) aim: Aim,
    /// Whether RabbitMQ has to confirm the message.
    pub(super) confirm: bool,
    /// Whether each copy that is sent bears a mark of its own.
    pub(super) once: bool,
    /// The task in the message, if the runtime must be told when RabbitMQ refuses the message.
    pub(super) task: Option<Arc<Message>>,
}

impl OutgoingMessage {
    /// Whether the message gets a channel of its own. A dead letter and a failed task get none: RabbitMQ took the message
    /// before, and they keep their order.
    pub(super) fn goes_alone(&self) -> bool {
        self.body.len() > LARGE && !matches!(self.aim, Aim::Dead | Aim::Failed)
    }

    /// The same message, addressed to the exchange if its queue is a broadcast. A delayed one comes to the exchange by its
    /// key.
    pub(super) fn addressed(mut self, options: &AmqpOptions) -> Self {
        if let Aim::Queue(queue) = &self.aim
            && options.is_broadcast(queue)
        {
            self.exchange = std::mem::replace(&mut self.key, "".into());
            self.aim = Aim::Broadcast(queue.clone());
        }
        self
    }

    /// The same message, addressed to this partition of its queue, at once or by way of the delays.
    pub(super) fn into_partition(mut self, index: Option<u8>) -> Result<Self, BrokerError> {
        if let (Some(index), Aim::Queue(queue) | Aim::Delayed(queue)) = (index, &mut self.aim) {
            // Either key ends in the name of the queue.
            self.key = short(&partition::name(self.key.as_str(), index))?;
            *queue = partition::name(queue, index);
        }
        Ok(self)
    }

    /// The same message, addressed to an exchange of others.
    pub(super) fn addressed_to(mut self, name: &str, key: &str) -> Result<Self, BrokerError> {
        (self.exchange, self.key) = (short(name)?, short(key)?);
        self.aim = Aim::Exchange { name: name.to_owned(), key: key.to_owned() };
        Ok(self)
    }

    /// The same message, addressed to the dead letters.
    pub(super) fn into_dead(mut self) -> Self {
        (self.exchange, self.key) = ("".into(), DEAD.into());
        self.aim = Aim::Dead;
        self
    }

    /// Returns the same message, marked as one that was sent before.
    pub(super) fn copy(&self) -> Self {
        let mut headers = self.properties.headers().clone().unwrap_or_default();
        headers.insert(COPY.into(), AMQPValue::Boolean(true));
        if self.once {
            headers.insert(RUN_ONCE_HEADER.into(), AMQPValue::LongString(mark().into()));
        }
        Self { properties: self.properties.clone().with_headers(headers), ..self.clone() }
    }
}

/// The place that must be declared before a message can arrive there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// The message goes to a task queue.
    Queue(String),
    /// The message goes to a task queue after a delay.
    Delayed(String),
    /// The message goes to every process that hears this broadcast, and perhaps to none.
    Broadcast(String),
    /// The message goes to the dead letters.
    Dead,
    /// The message goes to the failed tasks.
    Failed,
    /// The message goes to an exchange of others, by this routing key.
    Exchange { name: String, key: String },
    /// The message goes into the guard queue of this process.
    GuardQueue,
    /// The message goes to everybody who listens, and perhaps to nobody.
    Anybody,
}

impl Aim {
    /// What is said of a message that RabbitMQ has sent back twice.
    pub(super) fn unroutable(&self) -> BrokerError {
        match self {
            Self::Exchange { .. } => BrokerError::Refused(format!(
                "RabbitMQ has no queue for the message to {self}: bind one, or name another exchange or key"
            )),
            _ => BrokerError::io(format!(
                "RabbitMQ cannot route the message to {self}, although that was just declared: does a policy or another program delete it?"
            )),
        }
    }
}

/// Names the place as part of a sentence: "cannot be routed to ...".
impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue(queue) => write!(f, "queue `{queue}`"),
            Self::Delayed(queue) => write!(f, "queue `{queue}` by way of the delays"),
            Self::Broadcast(queue) => write!(f, "the broadcast `{queue}`"),
            Self::Dead => f.write_str("the dead letters"),
            Self::Failed => f.write_str("the failed tasks"),
            Self::Exchange { name, key } => write!(f, "the exchange `{name}` by the routing key `{key}`"),
            Self::GuardQueue => f.write_str("the guard queue of this process"),
            Self::Anybody => f.write_str("whoever listens"),
        }
    }
}
