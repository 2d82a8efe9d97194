//! Declares queues and exchanges as kombu does, and uses those that are there as they are.
//!
//! RabbitMQ refuses a declaration that differs in any argument from what is there, and closes the channel. So each
//! declaration has a channel that is thrown away, and a queue that is there with other arguments is used as it is.
//! A queue is declared outright, without asking for it first: to ask for a queue that is not there closes a
//! channel as well, and lapin logs an ERROR for each channel that RabbitMQ closes. So nothing is logged when
//! queues are made, nor when they are there as they should be.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use lapin::options::{
    BasicGetOptions, ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    QueuePurgeOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::link::AmqpLink;
use super::options::AmqpOptions;
use super::{delay, table};
use crate::broker::error::shown;
use crate::broker::{BrokerError, QueueType};
use crate::rabbitmq::{ACCESS_REFUSED, PRECONDITION_FAILED, code};

/// How long RabbitMQ may take to declare something.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a refused declaration is not tried again.
const REFUSED_FOR: Duration = Duration::from_secs(60);

/// The queue of the dead letters.
pub(super) const DEAD: &str = "celeriac.dead";
/// How often a quorum queue delivers a message before it throws it away, and what is said of that for the dead letters. RabbitMQ 4
/// has 20 if nothing is said.
const DELIVERY_LIMIT: &str = "x-delivery-limit";
const LOOKS: u32 = 2_000_000_000;

pub(super) const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;

/// The outcome of a declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Declared {
    /// The queue is new, or nobody uses it.
    Unused,
    /// The queue was there, and somebody uses it.
    Used,
}

/// The queues and exchanges that were declared on RabbitMQ.
pub(super) struct Topology {
    link: Arc<AmqpLink>,
    options: Arc<AmqpOptions>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    queues: BTreeSet<String>,
    /// The queues that are bound to the end of the ladder of delays.
    delayed: HashSet<String>,
    ladder: bool,
    dead: bool,
    /// When RabbitMQ refused to make the queue of the dead letters.
    dead_refused_at: Option<Instant>,
}

impl Topology {
    pub(super) fn new(link: Arc<AmqpLink>, options: Arc<AmqpOptions>) -> Self {
        Self { link, options, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }

    /// The task queues that were declared here.
    pub(super) fn queues(&self) -> Vec<String> {
        self.known().queues.iter().cloned().collect()
    }

    /// Whether a task queue was declared.
    pub(super) fn knows(&self, queue: &str) -> bool {
        self.known().queues.contains(queue)
    }

    /// Forgets what was declared, because something of it is not there any more. Each thing is declared again when
    /// it is needed.
    pub(super) fn forget(&self) {
        let mut known = self.known();
        let queues = std::mem::take(&mut known.queues);
        *known = Known { dead_refused_at: known.dead_refused_at, ..Known::default() };
        drop(known);
        tracing::debug!(?queues, "the topology is looked at again");
    }

    /// Opens a channel for the caller alone, on the connection that RabbitMQ never blocks.
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
            return Err(BrokerError::Refused("a queue needs a name".to_owned()));
        }
        self.link.during(self.declare_anew(queue, name)).await
    }

    async fn declare_anew(&self, queue: &str, name: ShortString) -> Result<(), BrokerError> {
        // A queue that somebody uses is there as its owner wants it.
        if self.make_queue(&name, &self.options.arguments(queue)).await? == Declared::Unused {
            // kombu sends to the default exchange, but declares this exchange and binds the queue to it, so others
            // may use it.
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
                // There is an exchange of another type. The queue can be reached through the default exchange all
                // the same.
                Err(error) if code(&error) == Some(PRECONDITION_FAILED) => {}
                Err(error) => return Err(broken(&error)),
            }
        }
        self.known().queues.insert(queue.to_owned());
        Ok(())
    }

    /// Makes sure that the queue of the dead letters is there.
    pub(super) async fn declare_dead(&self) -> Result<(), BrokerError> {
        if self.known().dead {
            return Ok(());
        }
        let mut arguments = self.options.arguments(DEAD);
        if self.options.type_of(DEAD) == QueueType::Quorum {
            // To look at a letter is to fetch it and to give it back, which RabbitMQ counts as a failed delivery.
            arguments.entry(DELIVERY_LIMIT).or_insert_with(|| LOOKS.into());
        }
        self.link.during(self.make_queue(&DEAD.into(), &arguments)).await?;
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

    /// Builds the ladder of delays as kombu's `declare_native_delayed_delivery_exchanges_and_queues` does, from
    /// the last level up, so that a message that goes in finds its way out.
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
                // A node that can have no quorum queues gets kombu's other choice.
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

    /// Makes a durable queue unless it is there.
    async fn make_queue(
        &self,
        name: &ShortString,
        arguments: &Map<String, Value>,
    ) -> Result<Declared, BrokerError> {
        let channel = self.channel().await?;
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let error =
            match channel.queue_declare(name.clone(), durable, table::to_table(arguments.clone())).await {
                Ok(queue) if queue.message_count() == 0 && queue.consumer_count() == 0 => {
                    return Ok(Declared::Unused);
                }
                Ok(_) => return Ok(Declared::Used),
                Err(error) => error,
            };
        match code(&error) {
            // The queue is another connection's alone, so it is there, and a message that is sent to it arrives.
            Some(RESOURCE_LOCKED) => Ok(Declared::Used),
            // Either the queue is there with other arguments, or these arguments are not allowed.
            Some(PRECONDITION_FAILED) => match self.waiting(name).await? {
                Some(_) => {
                    tracing::info!(
                        queue = name.as_str(),
                        %error,
                        "the queue is there with other arguments than its row or the options say, and is used as it is; state its own (`queue_type`, `max_priority`, `queue_arguments`) to have this said no more"
                    );
                    Ok(Declared::Used)
                }
                None => Err(broken(&error)),
            },
            _ => Err(broken(&error)),
        }
    }

    /// The number of ready dead letters; their queue is made for it if it is not there. If RabbitMQ refuses to
    /// make it, it is not asked again for a while, because each refusal closes a channel.
    pub(super) async fn waiting_dead(&self) -> Result<Option<u64>, BrokerError> {
        let refused_at = self.known().dead_refused_at;
        if refused_at.is_some_and(|at| at.elapsed() < REFUSED_FOR) {
            return Ok(None);
        }
        if let Err(error) = self.declare_dead().await {
            if error.is_permanent() {
                tracing::warn!(%error, "dead letters cannot be counted");
                self.known().dead_refused_at = Some(Instant::now());
                return Ok(None);
            }
            return Err(error);
        }
        self.waiting(&DEAD.into()).await
    }

    /// The number of ready messages in a queue; `None`: there is no queue of this name.
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

    /// Deletes the ready messages of a queue, and says how many there were; `None`: there is no queue of this name.
    pub(super) async fn purge(&self, name: &ShortString) -> Result<Option<u64>, BrokerError> {
        let channel = self.channel().await?;
        let purged = async {
            match channel.queue_purge(name.clone(), QueuePurgeOptions::default()).await {
                Ok(count) => Ok(Some(count.into())),
                Err(error) if code(&error) == Some(NOT_FOUND) => Ok(None),
                Err(error) => Err(broken(&error)),
            }
        };
        self.link.during(purged).await
    }

    /// The options of a fetch that is to be acknowledged.
    pub(super) const FETCH: BasicGetOptions = BasicGetOptions { no_ack: false };
}

/// A name as AMQP takes it.
pub(super) fn short(name: &str) -> Result<ShortString, BrokerError> {
    ShortString::try_new(name).map_err(|_| {
        let (shown, len) = (shown(name), name.len());
        BrokerError::Refused(format!("`{shown}` takes {len} bytes: a name in RabbitMQ may take 255"))
    })
}

pub(super) fn broken(error: &lapin::Error) -> BrokerError {
    match code(error) {
        Some(ACCESS_REFUSED) => BrokerError::Refused(format!(
            "RabbitMQ: {error}; give the user the right to do that (`rabbitmqctl set_permissions`), or name another user in the address"
        )),
        Some(PRECONDITION_FAILED) => BrokerError::Refused(format!("RabbitMQ: {error}")),
        _ => BrokerError::io_because(format!("RabbitMQ: {error}"), error.clone()),
    }
}
