//! Queues and exchanges as kombu declares them, and never otherwise than they are.
//!
//! RabbitMQ refuses a declaration that differs from what is there in any argument. So each queue is asked for first, without
//! saying how it should be; only one that is not there is made. All of that happens on channels that are thrown away: a
//! refusal ends a channel.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::options::{
    BasicGetOptions, ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, ErrorKind, ExchangeKind};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::link::Link;
use super::options::AmqpOptions;
use super::{delay, table};
use crate::broker::BrokerError;

/// How long RabbitMQ may take to declare something.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where dead letters lie.
pub(super) const DEAD: &str = "celeriac.dead";

const NOT_FOUND: u16 = 404;
const PRECONDITION_FAILED: u16 = 406;

/// What was declared on RabbitMQ.
pub(super) struct Topology {
    link: Arc<Link>,
    options: Arc<AmqpOptions>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    queues: BTreeSet<String>,
    /// Queues bound to the end of the ladder of delays.
    delayed: HashSet<String>,
    ladder: bool,
    dead: bool,
}

impl Topology {
    pub(super) fn new(link: Arc<Link>, options: Arc<AmqpOptions>) -> Self {
        Self { link, options, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The task queues that were declared here.
    pub(super) fn queues(&self) -> Vec<String> {
        self.known().queues.iter().cloned().collect()
    }

    /// Whether a task queue was declared.
    pub(super) fn knows(&self, queue: &str) -> bool {
        self.known().queues.contains(queue)
    }

    /// Something is not there that was: all is to be declared again when it is needed.
    pub(super) fn forget(&self) {
        let mut known = self.known();
        let queues = std::mem::take(&mut known.queues);
        *known = Known::default();
        drop(known);
        tracing::debug!(?queues, "the topology is looked at again");
    }

    /// A channel of its own, on the connection that is never blocked.
    pub(super) async fn channel(&self) -> Result<Channel, BrokerError> {
        let up = self.link.up(Instant::now() + PATIENCE).await?;
        self.link.during(async { up.connection.create_channel().await.map_err(|e| broken(&e)) }).await
    }

    /// Makes sure that a task queue is there.
    pub(super) async fn declare(&self, queue: &str) -> Result<(), BrokerError> {
        if self.known().queues.contains(queue) {
            return Ok(());
        }
        let name = short(queue)?;
        if name.as_str().is_empty() {
            return Err(BrokerError::Io("a queue needs a name".to_owned()));
        }
        self.link.during(self.declare_anew(queue, name)).await
    }

    async fn declare_anew(&self, queue: &str, name: ShortString) -> Result<(), BrokerError> {
        let made = self.make_queue(&name, &self.options.arguments(queue)).await?;
        if made {
            // kombu sends to the default exchange, but declares this one and binds to it; so others may use it.
            let channel = self.channel().await?;
            let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
            let exchange = channel
                .exchange_declare(name.clone(), ExchangeKind::Direct, durable, FieldTable::default())
                .await;
            match exchange {
                Ok(()) => {
                    let bind = QueueBindOptions::default();
                    let bound = channel.queue_bind(
                        name.clone(),
                        name.clone(),
                        name.clone(),
                        bind,
                        FieldTable::default(),
                    );
                    bound.await.map_err(|e| broken(&e))?;
                }
                // There is one of another type: the queue is reached by the default exchange all the same.
                Err(error) if code(&error) == Some(PRECONDITION_FAILED) => {}
                Err(error) => return Err(broken(&error)),
            }
        }
        self.known().queues.insert(queue.to_owned());
        Ok(())
    }

    /// Makes sure that there is a place for dead letters.
    pub(super) async fn declare_dead(&self) -> Result<(), BrokerError> {
        if self.known().dead {
            return Ok(());
        }
        self.link.during(self.make_queue(&DEAD.into(), &self.options.arguments(DEAD))).await?;
        self.known().dead = true;
        Ok(())
    }

    /// Makes sure that messages for this queue can be delayed.
    pub(super) async fn declare_delay(&self, queue: &str) -> Result<(), BrokerError> {
        if self.known().delayed.contains(queue) {
            return Ok(());
        }
        self.declare(queue).await?;
        if !self.known().ladder {
            self.link.during(self.build_ladder()).await?;
            self.known().ladder = true;
        }
        let channel = self.channel().await?;
        let key = short(&delay::delivery_key(queue))?;
        let bind = QueueBindOptions::default();
        let bound =
            channel.queue_bind(short(queue)?, delay::DELIVERY.into(), key, bind, FieldTable::default());
        self.link.during(async { bound.await.map_err(|e| broken(&e)) }).await?;
        self.known().delayed.insert(queue.to_owned());
        Ok(())
    }

    /// As kombu's `declare_native_delayed_delivery_exchanges_and_queues`, from the last level up, so that what goes in
    /// finds its way out.
    async fn build_ladder(&self) -> Result<(), BrokerError> {
        let topic = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let none = FieldTable::default;
        let mut channel = self.channel().await?;
        let topics = (0..delay::LEVELS).map(delay::level).chain([delay::DELIVERY.to_owned()]);
        for exchange in topics {
            let declared = channel.exchange_declare(short(&exchange)?, ExchangeKind::Topic, topic, none());
            declared.await.map_err(|e| broken(&e))?;
        }
        for n in 0..delay::LEVELS {
            let (level, below) = (short(&delay::level(n))?, short(&delay::below(n))?);
            let quorum = self.make_queue(&level, &delay::arguments(n, "quorum")).await;
            if let Err(error) = quorum {
                // A node that can have no quorum queue has kombu's other choice.
                tracing::warn!(%error, "the queues for delays are classic ones");
                self.make_queue(&level, &delay::arguments(n, "classic")).await?;
            }
            if !channel.status().connected() {
                channel = self.channel().await?;
            }
            let (one, zero) = (short(&delay::digit_key(n, 1))?, short(&delay::digit_key(n, 0))?);
            let waits =
                channel.queue_bind(level.clone(), level.clone(), one, QueueBindOptions::default(), none());
            waits.await.map_err(|e| broken(&e))?;
            let passes = channel.exchange_bind(below, level, zero, ExchangeBindOptions::default(), none());
            passes.await.map_err(|e| broken(&e))?;
        }
        Ok(())
    }

    /// Makes a durable queue unless it is there; says whether it was made.
    async fn make_queue(
        &self,
        name: &ShortString,
        arguments: &Map<String, Value>,
    ) -> Result<bool, BrokerError> {
        if self.waiting(name).await?.is_some() {
            return Ok(false);
        }
        let channel = self.channel().await?;
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        match channel.queue_declare(name.clone(), durable, table::to_table(arguments.clone())).await {
            Ok(_) => Ok(true),
            // Somebody else has made it meanwhile, in another way: good enough.
            Err(error) if code(&error) == Some(PRECONDITION_FAILED) => match self.waiting(name).await? {
                Some(_) => Ok(false),
                None => Err(broken(&error)),
            },
            Err(error) => Err(broken(&error)),
        }
    }

    /// How many messages are ready in a queue; `None`: there is none of this name.
    pub(super) async fn waiting(&self, name: &ShortString) -> Result<Option<u64>, BrokerError> {
        let channel = self.channel().await?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = async {
            match channel.queue_declare(name.clone(), passive, FieldTable::default()).await {
                Ok(queue) => Ok(Some(queue.message_count().into())),
                Err(error) if code(&error) == Some(NOT_FOUND) => Ok(None),
                Err(error) => Err(broken(&error)),
            }
        };
        self.link.during(declared).await
    }

    /// The options of a fetch that is to be acknowledged.
    pub(super) const FETCH: BasicGetOptions = BasicGetOptions { no_ack: false };
}

/// A name in AMQP's terms.
pub(super) fn short(name: &str) -> Result<ShortString, BrokerError> {
    ShortString::try_new(name).map_err(|_| {
        BrokerError::Io(format!("`{name}` takes {} bytes: a name in RabbitMQ may take 255", name.len()))
    })
}

/// What RabbitMQ answered, if it did.
pub(super) fn code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

pub(super) fn broken(error: &lapin::Error) -> BrokerError {
    BrokerError::Io(format!("RabbitMQ: {error}"))
}
