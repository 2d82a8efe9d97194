//! Declares queues and exchanges as kombu does, and uses existing ones as they are.
//!
//! RabbitMQ refuses a declaration that differs in any argument from what exists, and closes the channel. Each
//! declaration therefore has a channel of its own that is thrown away, and a queue that exists with other arguments is
//! used as it is.
//!
//! A queue is declared outright, and the broker does not ask first whether the queue exists. A question for a missing
//! queue closes the channel as well, and lapin logs an ERROR for each channel that RabbitMQ closes. With outright
//! declarations lapin logs nothing when queues are made, and nothing when queues exist as they should be.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use lapin::options::{
    BasicGetOptions, ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    QueuePurgeOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::link::{AmqpLink, LiveConnection};
use super::options::AmqpOptions;
use super::{delay, table};
use crate::broker::error::shown;
use crate::broker::{BrokerError, MOST_FAILED, MOST_FAILED_BYTES, QueueBinding, QueueType};
use crate::rabbitmq::{ACCESS_REFUSED, PRECONDITION_FAILED, code};
use crate::task::TaskId;

/// How long RabbitMQ may take to declare something.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a declaration that RabbitMQ refused is not tried again.
const REFUSED_FOR: Duration = Duration::from_secs(60);

/// The queue of the dead letters.
pub(super) const DEAD: &str = "celeriac.dead";
/// The queue of the failed tasks.
pub(super) const FAILED: &str = "celeriac.failed";
/// How many times as much the failed tasks of all queues may be as those of one queue are elsewhere.
const OF_ALL_QUEUES: u64 = 10;
/// The argument that says how often a quorum queue delivers a message before it throws the message away. Without the
/// argument, RabbitMQ 4 takes 20. The queue of the dead letters gets `LOOKS`.
const DELIVERY_LIMIT: &str = "x-delivery-limit";
const LOOKS: u32 = 2_000_000_000;

pub(super) const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;

/// The outcome of a declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Declared {
    /// The queue is new, or has no consumer.
    Unused,
    /// The queue existed, and has consumers.
    Used,
    /// The queue was there, and perhaps with other arguments.
    Otherwise,
}

/// The queues and exchanges that were declared on RabbitMQ.
pub(super) struct Topology {
    link: Arc<AmqpLink>,
    options: Arc<AmqpOptions>,
    known: Mutex<Known>,
    /// The queues by which this process hears broadcasts, by the names of their exchanges.
    own: tokio::sync::Mutex<HashMap<String, OwnQueue>>,
    /// The queues that are bound in another way than kombu does by default.
    bindings: Mutex<HashMap<String, QueueBinding>>,
}

/// A queue by which this process hears a broadcast. It goes with its connection.
struct OwnQueue {
    name: ShortString,
    /// The epoch of the connection.
    connection: u64,
}

#[derive(Default)]
struct Known {
    queues: BTreeSet<String>,
    /// The queues that are bound to the last exchange of the ladder of delays.
    delayed: HashSet<String>,
    /// The queues that have the dead-letter exchange that was asked for.
    dead_lettering: HashSet<String>,
    /// The exchanges of others that are there.
    exchanges: HashSet<String>,
    ladder: bool,
    dead: bool,
    failed: bool,
    /// When RabbitMQ refused to make the queue of the failed tasks, and why.
    failed_refused: Option<(Instant, BrokerError)>,
    /// When RabbitMQ refused to make the queue of the dead letters.
    dead_refused_at: Option<Instant>,
}

impl Topology {
    pub(super) fn new(link: Arc<AmqpLink>, options: Arc<AmqpOptions>) -> Self {
        let (own, bindings) = (tokio::sync::Mutex::default(), Mutex::default());
        Self { link, options, known: Mutex::default(), own, bindings }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }

    /// The names of the task queues that were declared here, without their partitions.
    pub(super) fn queues(&self) -> Vec<String> {
        let known = self.known();
        known.queues.iter().filter(|queue| self.options.partitioned(queue).is_none()).cloned().collect()
    }

    /// Whether this task queue was declared.
    pub(super) fn knows(&self, queue: &str) -> bool {
        self.known().queues.contains(queue)
    }

    /// Forgets all declarations, because something that was declared does not exist any more. Each thing is declared
    /// again when it is needed.
    pub(super) fn forget(&self) {
        let mut known = self.known();
        let queues = std::mem::take(&mut known.queues);
        // Who consumes a queue does not declare it again when something else is not there any more.
        let dead_lettering = std::mem::take(&mut known.dead_lettering);
        let dead_refused_at = known.dead_refused_at;
        *known = Known { dead_lettering, dead_refused_at, ..Known::default() };
        drop(known);
        tracing::debug!(?queues, "the topology is looked at again");
    }

    /// Opens a channel for the caller alone, on the connection that RabbitMQ never blocks.
    pub(super) async fn channel(&self) -> Result<Channel, BrokerError> {
        let up = self.link.up(Instant::now() + PATIENCE).await?;
        self.link.during(async { up.connection.create_channel().await.map_err(|e| broken(&e)) }).await
    }

    /// Makes sure that a task queue exists, with its partitions.
    pub(super) async fn declare(&self, queue: &str) -> Result<(), BrokerError> {
        if self.known().queues.contains(queue) {
            return Ok(());
        }
        // The queue itself is the last one, because who knows it asks no more for its partitions.
        for partition in self.options.partition_names(queue) {
            self.declare_one(&partition).await?;
        }
        self.declare_one(queue).await
    }

    async fn declare_one(&self, queue: &str) -> Result<(), BrokerError> {
        if self.known().queues.contains(queue) {
            return Ok(());
        }
        let name = short(queue)?;
        if name.as_str().is_empty() {
            return Err(BrokerError::Refused("a queue needs a name".to_owned()));
        }
        if self.options.is_broadcast(queue) {
            self.link.during(self.declare_broadcast(queue, name)).await?;
            self.known().queues.insert(queue.to_owned());
            return Ok(());
        }
        self.link.during(self.declare_anew(queue, name)).await
    }

    /// Makes sure that the exchange of a broadcast is there, and that this process hears it if it is to.
    async fn declare_broadcast(&self, queue: &str, name: ShortString) -> Result<(), BrokerError> {
        self.make_exchange(name, ExchangeKind::Fanout).await?;
        if self.options.hears(queue) {
            let up = self.link.up(Instant::now() + PATIENCE).await?;
            self.own_queue(queue, &up).await?;
        }
        Ok(())
    }

    /// Makes a durable exchange unless it is there.
    async fn make_exchange(&self, name: ShortString, kind: ExchangeKind) -> Result<(), BrokerError> {
        let channel = self.channel().await?;
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let told = format!("{kind:?}").to_lowercase();
        let declared = channel.exchange_declare(name.clone(), kind, durable, FieldTable::default()).await;
        declared.map_err(|error| match code(&error) {
            Some(PRECONDITION_FAILED) => BrokerError::Refused(format!(
                "the exchange `{name}` is there and is no durable {told} exchange: {error}; use another name, or delete it in RabbitMQ"
            )),
            _ => broken(&error),
        })
    }

    /// The queue by which this process hears a broadcast on this connection: kombu's, but that it belongs to the
    /// connection alone. So it stays, and gathers what is sent, while nothing is taken from it, and RabbitMQ deletes it with
    /// the connection.
    pub(super) async fn own_queue(
        &self,
        queue: &str,
        up: &LiveConnection,
    ) -> Result<ShortString, BrokerError> {
        let mut own = self.own.lock().await;
        let known = own.get(queue).filter(|own| own.connection == up.epoch).map(|own| own.name.clone());
        let name = match known {
            Some(name) => name,
            None => short(&format!("bcast.{}", TaskId::new()))?,
        };
        // It is declared again although it is known: somebody may have deleted it.
        let channel = up.connection.create_channel().await.map_err(|e| broken(&e))?;
        let alone = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        let arguments = table::to_table(self.options.arguments(queue));
        channel.queue_declare(name.clone(), alone, arguments).await.map_err(|e| broken(&e))?;
        let bind = QueueBindOptions::default();
        let bound = channel.queue_bind(name.clone(), short(queue)?, "".into(), bind, FieldTable::default());
        bound.await.map_err(|e| broken(&e))?;
        self.note_dead_lettering(queue, Declared::Used);
        own.insert(queue.to_owned(), OwnQueue { name: name.clone(), connection: up.epoch });
        Ok(name)
    }

    /// The name of the queue by which this process hears a broadcast, if it does.
    pub(super) fn name_of_own(&self, queue: &str) -> Option<String> {
        let own = self.own.try_lock().ok()?;
        own.get(queue).map(|own| own.name.as_str().to_owned())
    }

    /// How a queue is bound, if not as kombu does by default.
    pub(super) fn binding(&self, queue: &str) -> Option<QueueBinding> {
        self.bindings.lock().get(queue).cloned()
    }

    /// Has a queue bound in this way whenever it is declared, and declares it.
    pub(super) async fn bind(&self, queue: &str, binding: QueueBinding) -> Result<(), BrokerError> {
        self.bindings.lock().insert(queue.to_owned(), binding);
        self.known().queues.remove(queue);
        let declared = self.declare(queue).await;
        if declared.is_err() {
            self.bindings.lock().remove(queue);
        }
        declared
    }

    /// Makes sure that a queue is there and bound in this way. A queue that somebody uses is bound as well.
    async fn declare_bound(&self, name: ShortString, binding: &QueueBinding) -> Result<(), BrokerError> {
        let QueueBinding { exchange, exchange_type, routing_key, .. } = binding;
        let kind = match exchange_type.as_str() {
            "direct" => ExchangeKind::Direct,
            "fanout" => ExchangeKind::Fanout,
            "topic" => ExchangeKind::Topic,
            "headers" => ExchangeKind::Headers,
            // RabbitMQ would close the connection.
            other => {
                let (other, types) = (shown(other), QueueBinding::TYPES.join(", "));
                let error = format!("an exchange of type `{other}` is not made here; the types are {types}");
                return Err(BrokerError::Refused(error));
            }
        };
        let (exchange, key) = (short(exchange)?, short(routing_key)?);
        self.make_exchange(exchange.clone(), kind).await?;
        let declared = self.make_queue(&name, &self.options.arguments(name.as_str())).await?;
        self.note_dead_lettering(name.as_str(), declared);
        let channel = self.channel().await?;
        let bind = QueueBindOptions::default();
        let bound = channel.queue_bind(name, exchange, key, bind, FieldTable::default());
        bound.await.map_err(|e| broken(&e))
    }

    async fn declare_anew(&self, queue: &str, name: ShortString) -> Result<(), BrokerError> {
        if let Some(binding) = self.binding(queue) {
            self.declare_bound(name, &binding).await?;
            self.known().queues.insert(queue.to_owned());
            return Ok(());
        }
        // A queue that somebody uses is there as its owner wants it.
        let declared = self.make_queue(&name, &self.options.arguments(queue)).await?;
        self.note_dead_lettering(queue, declared);
        if declared == Declared::Unused {
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
                // An exchange of another type has this name. The queue can be reached through the default exchange all
                // the same.
                Err(error) if code(&error) == Some(PRECONDITION_FAILED) => {}
                Err(error) => return Err(broken(&error)),
            }
        }
        self.known().queues.insert(queue.to_owned());
        Ok(())
    }

    /// Notes whether a queue that was declared has the dead-letter exchange that it is to have.
    fn note_dead_lettering(&self, queue: &str, declared: Declared) {
        let mut known = self.known();
        if declared != Declared::Otherwise && self.options.dead_letter_exchange(queue).is_some() {
            known.dead_lettering.insert(queue.to_owned());
        } else {
            known.dead_lettering.remove(queue);
        }
    }

    /// Whether RabbitMQ makes a dead letter of a message of this queue that is rejected. Else it would throw it away.
    pub(super) fn makes_dead_letters(&self, queue: &str) -> bool {
        self.known().dead_lettering.contains(queue)
    }

    /// Whether an exchange of others is known to be there. The one without a name always is.
    pub(super) fn has_exchange(&self, name: &str) -> bool {
        name.is_empty() || self.known().exchanges.contains(name)
    }

    /// Makes sure that an exchange of others is there: what is sent to one that is not would cost the channel.
    pub(super) async fn find_exchange(&self, name: &str) -> Result<(), BrokerError> {
        if self.has_exchange(name) {
            return Ok(());
        }
        let channel = self.channel().await?;
        let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let exchange = short(name)?;
        let found = async {
            let none = FieldTable::default();
            match channel.exchange_declare(exchange, ExchangeKind::Direct, passive, none).await {
                Ok(()) => Ok(()),
                Err(error) if code(&error) == Some(NOT_FOUND) => Err(BrokerError::Refused(format!(
                    "RabbitMQ has no exchange `{name}`: declare it, or name one that is there"
                ))),
                Err(error) => Err(broken(&error)),
            }
        };
        self.link.during(found).await?;
        self.known().exchanges.insert(name.to_owned());
        Ok(())
    }

    /// Makes sure that the queue of the dead letters exists.
    pub(super) async fn declare_dead(&self) -> Result<(), BrokerError> {
        if self.known().dead {
            return Ok(());
        }
        let mut arguments = self.options.arguments(DEAD);
        if self.options.type_of(DEAD) == QueueType::Quorum {
            // Looking at a letter means to fetch it and to give it back. RabbitMQ counts this as a failed delivery.
            arguments.entry(DELIVERY_LIMIT).or_insert_with(|| LOOKS.into());
        }
        self.link.during(self.make_queue(&DEAD.into(), &arguments)).await?;
        self.known().dead = true;
        Ok(())
    }

    /// Makes sure that the queue of the failed tasks exists. It is bounded, and drops the oldest ones. What is set for all
    /// queues is meant for those that keep tasks until somebody takes them, so a task that is dropped here goes nowhere else.
    pub(super) async fn declare_failed(&self) -> Result<(), BrokerError> {
        {
            let known = self.known();
            if known.failed {
                return Ok(());
            }
            // Each refusal closes a channel, so RabbitMQ is not asked again for a while.
            if let Some((at, error)) = &known.failed_refused
                && at.elapsed() < REFUSED_FOR
            {
                return Err(error.clone());
            }
        }
        let mut arguments = self.options.arguments(FAILED);
        if self.options.type_of(FAILED) == QueueType::Quorum {
            arguments.entry(DELIVERY_LIMIT).or_insert_with(|| LOOKS.into());
        }
        arguments.retain(|name, _| !name.starts_with("x-dead-letter-"));
        for (name, value) in [
            ("x-max-length", Value::from(OF_ALL_QUEUES * MOST_FAILED)),
            ("x-max-length-bytes", Value::from(OF_ALL_QUEUES * MOST_FAILED_BYTES)),
            ("x-overflow", Value::from("drop-head")),
        ] {
            arguments.insert(name.to_owned(), value);
        }
        let made = self.link.during(self.make_queue(&FAILED.into(), &arguments)).await;
        let mut known = self.known();
        match made {
            Ok(_) => known.failed = true,
            Err(error) => {
                known.failed_refused =
                    Some((Instant::now(), error.clone())).filter(|(_, error)| error.is_permanent());
                return Err(error);
            }
        }
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
        self.bind_delivery(queue).await?;
        self.known().delayed.insert(queue.to_owned());
        Ok(())
    }

    /// Binds a queue that was made anew to the end of the delays, if there are any. Tasks that wait there for their time come
    /// out nowhere else, and who sent them does not know that their queue is another one.
    pub(super) async fn bind_to_delays(&self, queue: &str) -> Result<(), BrokerError> {
        match self.find_exchange(delay::DELIVERY).await {
            Ok(()) => self.bind_delivery(queue).await,
            // Nothing was ever delayed.
            Err(error) if error.is_permanent() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Binds a queue to the exchange out of which delayed messages come.
    async fn bind_delivery(&self, queue: &str) -> Result<(), BrokerError> {
        let channel = self.channel().await?;
        let key = short(&delay::delivery_key(queue))?;
        let (name, none) = (short(queue)?, FieldTable::default());
        let bound = async {
            if self.options.is_broadcast(queue) {
                let bind = ExchangeBindOptions::default();
                channel.exchange_bind(name, delay::DELIVERY.into(), key, bind, none).await
            } else {
                let bind = QueueBindOptions::default();
                channel.queue_bind(name, delay::DELIVERY.into(), key, bind, none).await
            }
        };
        self.link.during(async { bound.await.map_err(|e| broken(&e)) }).await
    }

    /// Builds the ladder of delays as kombu's `declare_native_delayed_delivery_exchanges_and_queues` does. It begins
    /// with the last level, so that a message that goes in finds its way out.
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
                // A node that cannot have quorum queues gets kombu's other choice.
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

    /// Makes a durable queue unless it exists.
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
            // Another connection uses the queue exclusively. So the queue exists, and a message to it arrives.
            Some(RESOURCE_LOCKED) => Ok(Declared::Otherwise),
            // Either the queue exists with other arguments, or RabbitMQ does not allow these arguments.
            Some(PRECONDITION_FAILED) => match self.waiting(name).await? {
                Some(_) => {
                    tracing::info!(
                        queue = name.as_str(),
                        %error,
                        "the queue is there with other arguments than its row or the options say, and is used as it is; state its own (`queue_type`, `max_priority`, `queue_arguments`) to have this said no more"
                    );
                    Ok(Declared::Otherwise)
                }
                None => Err(broken(&error)),
            },
            _ => Err(broken(&error)),
        }
    }

    /// The number of ready dead letters. Their queue is made for this if it does not exist. If RabbitMQ refuses to make
    /// it, the broker does not ask again for a while, because each refusal closes a channel.
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

    /// The number of ready messages in a queue, or `None` if no queue has this name.
    pub(super) async fn waiting(&self, name: &ShortString) -> Result<Option<u64>, BrokerError> {
        let channel = self.channel().await?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = async {
            match channel.queue_declare(name.clone(), passive, FieldTable::default()).await {
                Ok(queue) => Ok(Some(queue.message_count().into())),
                Err(error) if is_missing(&error) => Ok(None),
                Err(error) => Err(broken(&error)),
            }
        };
        self.link.during(declared).await
    }

    /// The number of ready messages in a queue and its partitions, or `None` if there is no queue of this name.
    pub(super) async fn waiting_in_all(&self, queue: &str) -> Result<Option<u64>, BrokerError> {
        let Some(own) = self.waiting(&short(queue)?).await? else { return Ok(None) };
        let partitions = self.options.partition_names(queue);
        let waiting =
            partitions.iter().map(|partition| async move { self.waiting(&short(partition)?).await });
        let waiting = try_join_all(waiting).await?;
        Ok(Some(waiting.into_iter().flatten().fold(own, u64::saturating_add)))
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

    /// The options of a fetch that must be acknowledged.
    pub(super) const FETCH: BasicGetOptions = BasicGetOptions { no_ack: false };
}

/// Whether RabbitMQ has no such queue. It answers with the same code if the queue is there and cannot be reached: its node is
/// down, or it has crashed.
fn is_missing(error: &lapin::Error) -> bool {
    const UNREACHABLE: [&str; 4] =
        ["is down or inaccessible", "has crashed and failed", "is stopped by supervisor", "due to timeout"];
    let text = error.to_string();
    code(error) == Some(NOT_FOUND) && !UNREACHABLE.iter().any(|part| text.contains(part))
}

/// Makes a name in the form that AMQP takes.
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
