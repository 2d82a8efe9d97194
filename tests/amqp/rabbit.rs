//! Runtimes over RabbitMQ, and messages as others send them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use celeriac::broker::amqp::AmqpOptions;
use celeriac::{Builder, Celeriac};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};

use crate::kit;
use crate::services::{RabbitMq, blocking};

/// A vhost of the test's own on the shared node.
pub async fn vhost() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    blocking(move || RabbitMq::shared().vhost(&format!("amqp-{n}"))).await
}

/// The kit's queues, over RabbitMQ.
pub fn builder(url: &str) -> Builder {
    kit::builder().amqp(steady(url))
}

/// An address whose connections only the test cuts: on a machine that has no time for short heartbeats they would cut as
/// well. An address that states its own keeps it.
pub fn steady(url: &str) -> String {
    if url.contains('?') { url.to_owned() } else { format!("{url}?heartbeat=60") }
}

pub async fn runtime(url: &str) -> Celeriac {
    builder(url).start().await.unwrap()
}

/// Options that fail soon.
pub fn impatient() -> AmqpOptions {
    AmqpOptions::default().with_publish_timeout(Duration::from_secs(10))
}

/// Somebody else on RabbitMQ.
pub struct Peer {
    _connection: Connection,
    pub channel: lapin::Channel,
}

impl Peer {
    pub async fn connect(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Self { _connection: connection, channel }
    }

    pub async fn send(&self, queue: &str, properties: BasicProperties, body: &[u8]) {
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let sent = self.channel.basic_publish("".into(), queue.into(), options, body, properties);
        let confirmed = sent.await.unwrap().await.unwrap();
        assert!(confirmed.is_ack() && confirmed.take_message().is_none(), "it arrives in `{queue}`");
    }

    /// Sends many messages, which need not outlive the node, and waits for RabbitMQ's answers a thousand at a time.
    pub async fn send_many(
        &self,
        queue: &str,
        count: usize,
        properties: impl Fn(usize) -> BasicProperties,
        body: &[u8],
    ) {
        let mut sent = Vec::new();
        for n in 0..count {
            let (options, properties) = (BasicPublishOptions::default(), properties(n).with_delivery_mode(1));
            let publish = self.channel.basic_publish("".into(), queue.into(), options, body, properties);
            sent.push(publish.await.unwrap());
            if sent.len() == 1000 || n + 1 == count {
                for confirm in sent.drain(..) {
                    assert!(confirm.await.unwrap().is_ack(), "RabbitMQ has it");
                }
            }
        }
    }

    /// How many messages are ready.
    pub async fn ready(&self, queue: &str) -> u32 {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        self.channel
            .queue_declare(queue.into(), passive, FieldTable::default())
            .await
            .unwrap()
            .message_count()
    }
}

/// How many consumers a queue has; `None`: there is no such queue. The question costs its channel then, so it has its own.
pub async fn consumers(url: &str, queue: &str) -> Option<u32> {
    let peer = Peer::connect(url).await;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declared = peer.channel.queue_declare(queue.into(), passive, FieldTable::default()).await;
    declared.ok().map(|queue| queue.consumer_count())
}

/// The properties of a task as Python sends it.
pub fn task(name: &str, id: &str) -> BasicProperties {
    with(&[("lang", text("py")), ("task", text(name)), ("id", text(id))])
}

pub fn with(headers: &[(&str, AMQPValue)]) -> BasicProperties {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        table.insert((*name).into(), value.clone());
    }
    BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_delivery_mode(2)
        .with_headers(table)
}

pub fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}
