//! lapin alone: what RabbitMQ gives to a program that does nothing but publish, consume and acknowledge.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use celeriac::broker::amqp::QueueType;
use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind};

use super::support::done::{Done, Watch};
use super::support::span;
use super::{AHEAD, PREFETCH, Place};

/// So many are acknowledged by one frame.
const RUN: u64 = 100;
/// So many are outstanding while a queue is filled.
const FILLERS: u64 = 512;

/// What is published.
#[derive(Clone)]
pub struct Letter {
    properties: BasicProperties,
    body: Arc<[u8]>,
}

impl Letter {
    /// A body and nothing else.
    pub fn bare(bytes: usize) -> Self {
        Self { properties: BasicProperties::default().with_delivery_mode(2), body: vec![b'x'; bytes].into() }
    }
}

/// One connection publishes, the other one consumes, as with us.
pub struct Raw {
    publishing: Connection,
    consuming: Connection,
    queue: String,
}

async fn connect(place: &Place) -> Connection {
    let properties = ConnectionProperties::default();
    Connection::connect(&place.rabbit.url(), properties).await.expect("RabbitMQ is there")
}

impl Raw {
    pub async fn open(place: &Place) -> Self {
        let raw = Self {
            publishing: connect(place).await,
            consuming: connect(place).await,
            queue: place.queue.clone(),
        };
        raw.declare(place.queue_type).await;
        raw
    }

    pub async fn close(self) {
        for connection in [self.publishing, self.consuming] {
            // Its channels may be closing by themselves already, which is as good.
            let _ = connection.close(200, "OK".into()).await;
        }
    }

    async fn declare(&self, queue_type: QueueType) -> u64 {
        let channel = self.publishing.create_channel().await.expect("a channel");
        let mut arguments = FieldTable::default();
        if queue_type == QueueType::Quorum {
            arguments.insert("x-queue-type".into(), AMQPValue::LongString(queue_type.as_str().into()));
        }
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let declared = channel.queue_declare(self.queue.as_str().into(), durable, arguments).await;
        declared.expect("the queue is as it should be").message_count().into()
    }

    /// Empties the queue.
    pub async fn purge(place: &Place) {
        let raw = Self::open(place).await;
        let channel = raw.publishing.create_channel().await.expect("a channel");
        channel.queue_purge(raw.queue.as_str().into(), QueuePurgeOptions::default()).await.expect("empty");
        raw.close().await;
    }

    /// How many messages wait.
    pub async fn waiting(place: &Place) -> u64 {
        let raw = Self::open(place).await;
        let waiting = raw.declare(place.queue_type).await;
        raw.close().await;
        waiting
    }

    /// Takes the one message that waits.
    pub async fn take(place: &Place) -> Letter {
        let raw = Self::open(place).await;
        let channel = raw.publishing.create_channel().await.expect("a channel");
        let got = channel.basic_get(raw.queue.as_str().into(), BasicGetOptions { no_ack: true }).await;
        let got = got.expect("an answer").expect("a message waits").delivery;
        raw.close().await;
        Letter { properties: got.properties, body: got.data.into() }
    }

    /// Puts so many messages into the empty queue.
    pub async fn fill(place: &Place, letter: &Letter, count: u64) {
        Self::purge(place).await;
        let raw = Self::open(place).await;
        let left = Arc::new(AtomicU64::new(count));
        let more =
            move || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
        assert_eq!(raw.produce(letter, FILLERS as usize, more).await, count, "the queue is filled");
        raw.close().await;
    }

    async fn confirming(&self) -> Channel {
        let channel = self.publishing.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        channel
    }

    /// So many producers publish, each waiting for the confirm of its last one, while there is `more`.
    async fn produce(
        &self,
        letter: &Letter,
        producers: usize,
        more: impl Fn() -> bool + Clone + Send + 'static,
    ) -> u64 {
        let channel = self.confirming().await;
        let mut producing = Vec::new();
        for _ in 0..producers {
            let (channel, queue, letter, more) =
                (channel.clone(), self.queue.clone(), letter.clone(), more.clone());
            producing.push(tokio::spawn(async move {
                let mut accepted = 0;
                while more() {
                    let options = BasicPublishOptions { mandatory: true, immediate: false };
                    let (key, properties) = (queue.as_str().into(), letter.properties.clone());
                    let sent = channel.basic_publish("".into(), key, options, &letter.body, properties).await;
                    let confirmed = sent.expect("it is sent").await.expect("an answer");
                    assert_eq!(confirmed, Confirmation::Ack(None));
                    accepted += 1;
                }
                accepted
            }));
        }
        let mut total = 0;
        for producer in producing {
            total += producer.await.expect("a producer ends");
        }
        total
    }

    /// Publishes for a while.
    pub async fn publish(&self, letter: &Letter, producers: usize) -> Done {
        let watch = Watch::start();
        let start = Instant::now();
        let accepted = self.produce(letter, producers, move || start.elapsed() < span()).await;
        watch.stop(accepted)
    }

    /// Consumes until `enough` says so; what it is told is how many have come, and it is asked after each.
    async fn consume(&self, mut enough: impl FnMut(u64) -> bool) {
        let channel = self.consuming.create_channel().await.expect("a channel");
        let prefetch = u16::try_from(PREFETCH).expect("it fits");
        channel.basic_qos(prefetch, BasicQosOptions { global: false }).await.expect("a prefetch");
        let options = BasicConsumeOptions::default();
        let consumer =
            channel.basic_consume(self.queue.as_str().into(), "raw".into(), options, FieldTable::default());
        let mut deliveries = consumer.await.expect("a consumer");
        let mut come = 0;
        loop {
            let delivery = deliveries.next().await.expect("the consumer lives").expect("a delivery");
            come += 1;
            let over = enough(come);
            if over || come % RUN == 0 {
                let all = BasicAckOptions { multiple: true };
                channel.basic_ack(delivery.delivery_tag, all).await.expect("it is acknowledged");
            }
            if over {
                break;
            }
        }
        // Answered after the acknowledgements have arrived.
        channel.close(200, "OK".into()).await.expect("it closes");
    }

    /// Consumes so many that wait.
    pub async fn drain(&self, count: u64) -> Done {
        let mut watch = Watch::start();
        self.consume(|come| {
            if come == AHEAD {
                watch = Watch::start();
            }
            come == count
        })
        .await;
        watch.stop(count - AHEAD)
    }

    /// Publishes for a while, and consumes all of it.
    pub async fn both(&self, letter: &Letter, producers: usize) -> Done {
        let watch = Watch::start();
        let start = Instant::now();
        let (accepted, over) = (AtomicU64::new(0), AtomicBool::new(false));
        let produce = async {
            // The last one is published when the sum of all is known, so that the consumer sees its end.
            let total = self.produce(letter, producers, move || start.elapsed() < span()).await + 1;
            accepted.store(total, Ordering::Relaxed);
            over.store(true, Ordering::Release);
            let last = Arc::new(AtomicBool::new(true));
            self.produce(letter, 1, move || last.swap(false, Ordering::Relaxed)).await;
        };
        let consume =
            self.consume(|come| over.load(Ordering::Acquire) && come == accepted.load(Ordering::Relaxed));
        tokio::join!(produce, consume);
        watch.stop(accepted.into_inner())
    }
}

/// A program that reads all events of the fleet, as Flower does.
pub struct EventReader {
    connection: Connection,
    read: Arc<AtomicU64>,
}

impl EventReader {
    pub async fn start(place: &Place) -> Self {
        let connection = connect(place).await;
        let channel = connection.create_channel().await.expect("a channel");
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let declared =
            channel.exchange_declare("celeryev".into(), ExchangeKind::Topic, durable, FieldTable::default());
        declared.await.expect("the exchange of events");
        let exclusive = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
        let queue =
            channel.queue_declare("".into(), exclusive, FieldTable::default()).await.expect("a queue");
        let name = queue.name().clone();
        let bound = channel.queue_bind(
            name.clone(),
            "celeryev".into(),
            "#".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        bound.await.expect("it is bound");
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consumer = channel.basic_consume(name, "".into(), options, FieldTable::default());
        let mut consumer = consumer.await.expect("a consumer");
        let read = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&read);
        tokio::spawn(async move {
            // A batch of task events is a list in one message.
            while let Some(Ok(delivery)) = consumer.next().await {
                let events = serde_json::from_slice::<serde_json::Value>(&delivery.data);
                let events = events.ok().and_then(|events| events.as_array().map(Vec::len)).unwrap_or(0);
                counted.fetch_add(events as u64, Ordering::AcqRel);
            }
        });
        Self { connection, read }
    }

    /// Waits until so many task events were read, or none came for a second, and returns the number: events that come faster
    /// than RabbitMQ takes them are dropped.
    pub async fn stop(self, all: u64) -> u64 {
        let (mut before, mut since) = (0, Instant::now());
        while before < all && since.elapsed() < Duration::from_secs(1) {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let read = self.read.load(Ordering::Acquire);
            if read > before {
                (before, since) = (read, Instant::now());
            }
        }
        let _ = self.connection.close(200, "OK".into()).await;
        self.read.load(Ordering::Acquire)
    }
}
