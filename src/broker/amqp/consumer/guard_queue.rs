//! The guard queue of a process. It holds deliveries that RabbitMQ would not wait for, and deliveries that may be
//! poison.
//!
//! RabbitMQ closes a channel on which a delivery stays unacknowledged for longer than RabbitMQ's consumer timeout, 30
//! minutes by default. RabbitMQ also tells nobody how often a task has taken a process down. So this process publishes
//! a copy of such a delivery into a queue of its own, and holds the copy there unacknowledged. When the copy has come,
//! the process acknowledges the original.
//!
//! If the process dies, RabbitMQ dead-letters the copy to the queue that the original came from, because the copy's
//! time to live is over. This time counts while a consumer holds the copy, but does not end a copy that is held. The
//! copy therefore goes back at once or, if it was put into the guard queue just now, within the lease (ten seconds by
//! default). A copy that becomes old is put there anew.
//!
//! The copy of a delivery that may be poison counts one crash more than the original. Nobody reads this count unless
//! the process dies before it settles the delivery.

use std::time::Duration;

use lapin::options::{
    BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};
use serde_json::{Map, Value, json};

use super::super::acks::AckWindow;
use super::super::outgoing::{self, KEPT};
use super::super::post::Aim;
use super::super::table;
use super::super::topology::{broken, short};
use super::channel::{ConsumerStreams, KEEPER, follow};
use super::in_flight::DeliveryLocation;
use super::{ConsumerCommand, QueueConsumer};
use crate::broker::BrokerError;
use crate::task::clock::now;
use crate::task::{Message, TaskId};

/// How long the queue outlives its process. This is longer than its messages live, and longer than a node may be down.
const OUTLIVES: Duration = Duration::from_secs(24 * 3600);

/// The guard queue of a process for one of its lines, and the copies that this process holds there.
pub(super) struct GuardQueue {
    pub(super) channel: Channel,
    pub(super) window: AckWindow,
    exchange: ShortString,
}

impl GuardQueue {
    /// Declares the guard queue and begins to consume from it.
    async fn open(
        queue_type: &str,
        lease: Duration,
        channel: Channel,
    ) -> Result<(Self, ConsumerStreams), BrokerError> {
        let name = short(&format!("celeriac.running.{}", TaskId::new()))?;
        let none = FieldTable::default;
        // Through this exchange, the copy keeps the name of its queue as its routing key. The name leads it back there.
        let exchange =
            ExchangeDeclareOptions { durable: true, auto_delete: true, ..ExchangeDeclareOptions::default() };
        let declared = channel.exchange_declare(name.clone(), ExchangeKind::Fanout, exchange, none());
        declared.await.map_err(|e| broken(&e))?;
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let arguments = table::to_table(arguments(queue_type, lease));
        channel.queue_declare(name.clone(), durable, arguments).await.map_err(|e| broken(&e))?;
        let bound =
            channel.queue_bind(name.clone(), name.clone(), "".into(), QueueBindOptions::default(), none());
        bound.await.map_err(|e| broken(&e))?;
        channel.basic_qos(0, BasicQosOptions { global: false }).await.map_err(|e| broken(&e))?;
        let consume = channel.basic_consume(name.clone(), "".into(), BasicConsumeOptions::default(), none());
        let mut streams = ConsumerStreams::default();
        streams.push(follow(KEEPER, consume.await.map_err(|e| broken(&e))?));
        Ok((Self { channel, window: AckWindow::default(), exchange: name }, streams))
    }
}

fn arguments(queue_type: &str, lease: Duration) -> Map<String, Value> {
    let arguments = json!({
        "x-message-ttl": millis(lease),
        "x-expires": millis(OUTLIVES),
        "x-dead-letter-exchange": "",
    });
    let Value::Object(mut arguments) = arguments else { return Map::new() };
    if queue_type == "quorum" {
        arguments.insert("x-queue-type".into(), "quorum".into());
        arguments.insert("x-dead-letter-strategy".into(), "at-least-once".into());
        arguments.insert("x-overflow".into(), "reject-publish".into());
    }
    arguments
}

fn millis(time: Duration) -> u64 {
    // RabbitMQ refuses a queue whose messages live for more than ten years.
    const LONGEST: u64 = 10 * 365 * 24 * 3600 * 1000;
    u64::try_from(time.as_millis()).unwrap_or(LONGEST).min(LONGEST)
}

impl QueueConsumer {
    /// How often the line looks for old deliveries.
    pub(super) fn patrol(&self) -> Duration {
        (self.shared.options.guard_after / 4).clamp(Duration::from_millis(50), Duration::from_secs(60))
    }

    /// Puts the deliveries for which RabbitMQ has waited too long already into the guard queue.
    pub(super) fn keep_the_old(&mut self) {
        let limit = self.shared.options.guard_after;
        let old = self
            .in_flight
            .iter()
            .filter(|(_, h)| h.place != DeliveryLocation::Lost && h.since.elapsed() >= limit);
        let old: Vec<u64> = old.map(|(tag, _)| *tag).collect();
        for tag in old {
            self.keep(tag);
        }
    }

    /// Puts a delivery that was delivered before and is about to start again into the guard queue.
    pub(super) fn keep_suspect(&mut self, tag: u64) {
        if let Some(in_flight) = self.in_flight.get_mut(&tag)
            && matches!(in_flight.place, DeliveryLocation::Queue { .. })
        {
            in_flight.started = true;
            self.keep(tag);
        }
    }

    /// Asks this line to publish a copy of a delivery, unless one is on its way or the delivery is about to end.
    fn keep(&mut self, tag: u64) {
        let Some(in_flight) = self.in_flight.get_mut(&tag).filter(|h| !h.handing_over && !h.posting) else {
            return;
        };
        in_flight.handing_over = true;
        let mut message = Message::clone(&in_flight.message);
        message.crashes = message.crashes.saturating_add(u32::from(in_flight.suspect && in_flight.started));
        let _ = self.own.send(ConsumerCommand::Keep { tag, message: Box::new(message) });
    }

    /// Publishes a copy of a delivery into the guard queue.
    pub(super) async fn publish_copy(&mut self, tag: u64, message: &Message) {
        let link = std::sync::Arc::clone(&self.shared.link);
        if let Err(error) = link.during(self.try_publish_copy(tag, message)).await {
            tracing::warn!(queue = self.queue, id = %message.id, %error, "a delivery cannot be put into the guard queue yet");
            if let Some(in_flight) = self.in_flight.get_mut(&tag) {
                in_flight.handing_over = false;
            }
        }
    }

    async fn try_publish_copy(&mut self, tag: u64, message: &Message) -> Result<(), BrokerError> {
        if !self.in_flight.contains_key(&tag) {
            return Ok(());
        }
        let mut wire = outgoing::encode(message, now())?;
        wire.headers.insert(KEPT.into(), tag.into());
        wire.properties.expiration = None;
        if self.flow.as_ref().is_some_and(|flow| flow.guard_queue.is_none()) {
            let channel = self.shared.topology.channel().await?;
            let (queue_type, lease) = (self.shared.options.type_of(&self.queue), self.shared.options.lease);
            let (guard_queue, streams) = GuardQueue::open(queue_type.as_str(), lease, channel).await?;
            self.streams.extend(streams);
            if let Some(flow) = &mut self.flow {
                flow.guard_queue = Some(guard_queue);
            }
        }
        let Some(guard_queue) = self.flow.as_ref().and_then(|flow| flow.guard_queue.as_ref()) else {
            return Ok(());
        };
        let post = outgoing::post(guard_queue.exchange.clone(), short(self.source())?, wire, Aim::GuardQueue);
        let (publisher, own) = (std::sync::Arc::clone(&self.shared.publisher), self.own.clone());
        let patience = self.shared.options.publish_timeout;
        self.shared.runtime.spawn(async move {
            if let Err(error) = publisher.publish(&post, patience).await {
                tracing::warn!(%error, "a delivery could not be put into the guard queue; trying again");
                let _ = own.send(ConsumerCommand::NotKept(tag));
            }
        });
        Ok(())
    }
}
