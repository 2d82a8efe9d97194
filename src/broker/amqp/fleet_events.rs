//! Hears the events of all workers and programs, as Celery's receivers do, for operators who look on.
//!
//! RabbitMQ has the events in a queue of this process alone. Few are on their way here at a time, so an operator who
//! reads slowly takes no memory: in the queue, events last as long as the options say.

use std::sync::Arc;

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer, ExchangeKind};
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::link::{LinkState, LiveConnection, ReconnectPause};
use super::topology::{broken, short};
use super::{AmqpInner, clock, pidbox, table};
use crate::broker::BrokerError;
use crate::core::time::deadline;
use crate::protocol::control::Request;
use crate::protocol::events;
use crate::task::TaskId;

/// The routing key of all events.
const ALL: &str = "#";
/// The most messages that are on their way here, and the most events that wait for the reader.
const AT_A_TIME: u16 = 256;

/// The events of a fleet, each as the JSON object that its sender wrote. [`AmqpBroker::fleet_events`] begins to hear
/// them.
///
/// [`AmqpBroker::fleet_events`]: super::AmqpBroker::fleet_events
#[derive(Debug)]
pub struct FleetEvents {
    events: mpsc::Receiver<Map<String, Value>>,
}

impl FleetEvents {
    /// Waits for the next event; its `type` is a text. `None`: the broker is closed. While the connection is away, what
    /// happens is missed.
    pub async fn next(&mut self) -> Option<Map<String, Value>> {
        self.events.recv().await
    }
}

/// Begins to hear events. They come from the moment on at which this returns.
pub(super) async fn hear(shared: Arc<AmqpInner>) -> Result<FleetEvents, BrokerError> {
    let until = deadline(Instant::now(), shared.options.publish_timeout);
    let up = shared.link.up(until).await?;
    let first = shared.link.during(subscribe(&shared, &up)).await?;
    let (sender, events) = mpsc::channel(usize::from(AT_A_TIME));
    shared.runtime.clone().spawn(attend(shared, first, sender));
    Ok(FleetEvents { events })
}

/// Passes events on, on one connection after the other, until the broker is closed or nobody listens.
async fn attend(
    shared: Arc<AmqpInner>,
    first: (Channel, Consumer),
    sender: mpsc::Sender<Map<String, Value>>,
) {
    let mut link = shared.link.watch();
    let mut pause = ReconnectPause::default();
    let mut subscribed = Some(first);
    // As Celery's receivers do, so that who looks on knows at once who is there.
    if let Err(error) = pidbox::broadcast(&shared, &Request::new("heartbeat", Map::new())).await {
        tracing::debug!(%error, "no heartbeats are asked for");
    }
    while !sender.is_closed() {
        let up = match link.wait_for(|state| matches!(state, LinkState::Up(_))).await.as_deref() {
            Ok(LinkState::Up(up)) => up.clone(),
            _ => return,
        };
        let again = subscribed.take();
        let heard = shared.link.during(async {
            let (channel, consumer) = match again {
                Some(first) => first,
                None => subscribe(&shared, &up).await?,
            };
            pass_on(&channel, consumer, &sender).await
        });
        match heard.await {
            Ok(()) => pause = ReconnectPause::default(),
            Err(error) => tracing::warn!(%error, "events are missed for now; trying again"),
        }
        pause.rest().await;
    }
}

/// Opens a channel, and declares a queue of this process alone for the events with this routing key. The queue has the name and the
/// arguments of the queues of Celery's receivers.
pub(super) async fn receiver_queue(
    shared: &AmqpInner,
    up: &LiveConnection,
    key: &str,
) -> Result<(Channel, ShortString), BrokerError> {
    let none = FieldTable::default;
    let exchange = short(&shared.options.event_exchange)?;
    let channel = up.connection.create_channel().await.map_err(|e| broken(&e))?;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let declared = channel.exchange_declare(exchange.clone(), ExchangeKind::Topic, durable, none());
    declared.await.map_err(|e| broken(&e))?;
    let queue = short(&format!("{}.{}", shared.options.event_queue_prefix, TaskId::new()))?;
    let options =
        QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let arguments = table::to_table(shared.options.event_queue_arguments());
    let declared = channel.queue_declare(queue.clone(), options, arguments);
    declared.await.map_err(|e| broken(&e))?;
    let bound = channel.queue_bind(queue.clone(), exchange, short(key)?, QueueBindOptions::default(), none());
    bound.await.map_err(|e| broken(&e))?;
    Ok((channel, queue))
}

/// Makes a queue for all events on one connection, and consumes it.
async fn subscribe(shared: &AmqpInner, up: &LiveConnection) -> Result<(Channel, Consumer), BrokerError> {
    let (channel, queue) = receiver_queue(shared, up, ALL).await?;
    channel.basic_qos(AT_A_TIME, BasicQosOptions::default()).await.map_err(|e| broken(&e))?;
    let consume =
        channel.basic_consume(queue, "".into(), BasicConsumeOptions::default(), FieldTable::default());
    let consumer = consume.await.map_err(|e| broken(&e))?;
    Ok((channel, consumer))
}

/// Passes the events of one connection on, until it is gone or nobody listens.
async fn pass_on(
    channel: &Channel,
    mut consumer: Consumer,
    sender: &mpsc::Sender<Map<String, Value>>,
) -> Result<(), BrokerError> {
    loop {
        let delivery = tokio::select! {
            delivery = consumer.next() => delivery,
            () = sender.closed() => return Ok(()),
        };
        let Some(delivery) = delivery else { return Ok(()) };
        let delivery = delivery.map_err(|e| broken(&e))?;
        for event in events::decode(&delivery.data) {
            clock::hear(event.get("clock"));
            if sender.send(event).await.is_err() {
                return Ok(());
            }
        }
        let tag = delivery.delivery_tag;
        channel.basic_ack(tag, BasicAckOptions::default()).await.map_err(|e| broken(&e))?;
    }
}
