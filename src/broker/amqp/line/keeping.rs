//! The keeping of a process: where deliveries are put that RabbitMQ would not wait for, or that may be poison.
//!
//! RabbitMQ closes a channel on which a delivery stays unacknowledged for its consumer timeout, 30 minutes by default, and
//! tells nobody how often a task has taken a process down. So a copy of such a delivery is published into a queue of this
//! process alone, and held there unacknowledged; when it has come, the original is acknowledged. Should the process die, the
//! copy's time to live is over (it counts while the copy is held, and ends nothing that is held), and RabbitMQ dead-letters
//! it to where it came from, at once or, if it was put there just now, within ten seconds. A copy that becomes old is put
//! there anew.
//!
//! For poison, the copy says one crash more than the original: it is read only if the process dies before it is settled.

use std::time::Duration;

use lapin::options::{
    BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};
use serde_json::{Map, Value, json};

use super::super::acks::AckWindow;
use super::super::outgoing::{self, KEPT};
use super::super::publisher::Aim;
use super::super::table;
use super::super::topology::{broken, short};
use super::channel::{KEEPER, Streams, follow};
use super::holding::Place;
use super::{Command, Line};
use crate::broker::BrokerError;
use crate::task::clock::now;
use crate::task::{Message, TaskId};

/// How long the queue outlives its process: longer than its messages, and longer than a node may be down.
const OUTLIVES: Duration = Duration::from_secs(24 * 3600);

/// The queue of a process for one of its lines, and what is held there.
pub(super) struct Keeping {
    pub(super) channel: Channel,
    pub(super) window: AckWindow,
    exchange: ShortString,
}

impl Keeping {
    /// Declares it and consumes from it.
    async fn open(
        queue_type: &str,
        lease: Duration,
        channel: Channel,
    ) -> Result<(Self, Streams), BrokerError> {
        let name = short(&format!("celeriac.running.{}", TaskId::new()))?;
        let none = FieldTable::default;
        // Through an exchange of its own the message keeps the name of its queue as its routing key, by which it goes back.
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
        let mut streams = Streams::default();
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
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Line {
    /// How often old deliveries are looked for.
    pub(super) fn patrol(&self) -> Duration {
        (self.shared.options.guard_after / 4).clamp(Duration::from_millis(50), Duration::from_secs(60))
    }

    /// Puts into keeping what RabbitMQ waits for too long already.
    pub(super) fn keep_the_old(&mut self) {
        let limit = self.shared.options.guard_after;
        let old = self.holdings.iter().filter(|(_, h)| h.place != Place::Lost && h.since.elapsed() >= limit);
        let old: Vec<u64> = old.map(|(tag, _)| *tag).collect();
        for tag in old {
            self.keep(tag);
        }
    }

    /// Puts into keeping what was delivered before, and is about to start again.
    pub(super) fn keep_suspect(&mut self, tag: u64) {
        if let Some(holding) = self.holdings.get_mut(&tag)
            && matches!(holding.place, Place::Queue { .. })
        {
            holding.started = true;
            self.keep(tag);
        }
    }

    fn keep(&mut self, tag: u64) {
        let Some(holding) = self.holdings.get_mut(&tag).filter(|h| !h.handing_over && !h.posting) else {
            return;
        };
        holding.handing_over = true;
        let mut message = Message::clone(&holding.message);
        message.crashes += u32::from(holding.suspect && holding.started);
        let _ = self.own.send(Command::Keep { tag, message: Box::new(message) });
    }

    /// Publishes a copy into the keeping.
    pub(super) async fn publish_copy(&mut self, tag: u64, message: &Message) {
        let link = std::sync::Arc::clone(&self.shared.link);
        if let Err(error) = link.during(self.try_publish_copy(tag, message)).await {
            tracing::warn!(queue = self.queue, id = %message.id, %error, "a delivery cannot be put into keeping yet");
            if let Some(holding) = self.holdings.get_mut(&tag) {
                holding.handing_over = false;
            }
        }
    }

    async fn try_publish_copy(&mut self, tag: u64, message: &Message) -> Result<(), BrokerError> {
        if !self.holdings.contains_key(&tag) {
            return Ok(());
        }
        let mut wire = outgoing::encode(message, now())?;
        wire.headers.insert(KEPT.into(), tag.into());
        wire.properties.expiration = None;
        if self.flow.as_ref().is_some_and(|flow| flow.keeping.is_none()) {
            let channel = self.shared.topology.channel().await?;
            let (queue_type, lease) = (self.shared.options.type_of(&self.queue), self.shared.options.lease);
            let (keeping, streams) = Keeping::open(queue_type.as_str(), lease, channel).await?;
            self.streams.extend(streams);
            if let Some(flow) = &mut self.flow {
                flow.keeping = Some(keeping);
            }
        }
        let Some(keeping) = self.flow.as_ref().and_then(|flow| flow.keeping.as_ref()) else { return Ok(()) };
        let post = outgoing::post(keeping.exchange.clone(), short(&self.queue)?, wire, Aim::Keeping);
        let (publisher, own) = (std::sync::Arc::clone(&self.shared.publisher), self.own.clone());
        let patience = self.shared.options.publish_timeout;
        self.shared.runtime.spawn(async move {
            if let Err(error) = publisher.publish(&post, patience).await {
                tracing::warn!(%error, "a delivery could not be put into keeping; trying again");
                let _ = own.send(Command::NotKept(tag));
            }
        });
        Ok(())
    }
}
