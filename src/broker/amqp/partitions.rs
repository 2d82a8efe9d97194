//! Queues of the catalogue that are several queues in RabbitMQ: the one of the queue's name, and its partitions.
//!
//! RabbitMQ delivers in the order of a queue, so what a tenant floods comes before what others send later. A task with a
//! tenant therefore goes to one of two partitions of its queue ([`core::partition`](crate::core::partition)), and a flood
//! stands before others in two of them only. Tasks without a tenant stay in the queue of the queue's name, as do those
//! that other programs send there, and everything is consumed together. Nothing above this broker knows of partitions.
//!
//! The lengths that the choice looks at are counted at most once a second and only while something is sent.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use lapin::Channel;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::options::AmqpOptions;
use super::topology::{Topology, short};
use crate::core::partition::{self, PartitionLengths};
use crate::task::Message;
use crate::task::clock::steady;

/// How long RabbitMQ may take to say the lengths. After that they count as unknown.
const PATIENCE: Duration = Duration::from_secs(2);

/// What this process knows of the partitions of all queues.
pub(super) struct Partitions {
    options: Arc<AmqpOptions>,
    topology: Arc<Topology>,
    runtime: Handle,
    lengths: Arc<Mutex<HashMap<String, PartitionLengths>>>,
}

impl Partitions {
    pub(super) fn new(options: Arc<AmqpOptions>, topology: Arc<Topology>) -> Self {
        Self { options, topology, runtime: Handle::current(), lengths: Arc::default() }
    }

    /// The partition that a message goes to. `None`: it goes to the queue of its queue's name.
    pub(super) fn choose(&self, message: &Message) -> Option<u8> {
        let queue = message.queue.as_str();
        let partitions = self.options.partitions(queue)?;
        let tenant = message.tenant().filter(|_| message.headers.exchange().is_none())?;
        let mut all = self.lengths.lock();
        let lengths = match all.get_mut(queue) {
            Some(lengths) => lengths,
            None => all.entry(queue.to_owned()).or_insert_with(|| PartitionLengths::new(partitions)),
        };
        if lengths.begin_count(steady()) {
            self.count(queue.to_owned(), partitions);
        }
        // The order of a serial key is kept by its lane. What is let in all the same stays in order here as well.
        let key = message.serial.as_deref().map(|serial| serial.lane.key());
        Some(lengths.choose(tenant, key))
    }

    /// Has RabbitMQ say how long the partitions of a queue are.
    fn count(&self, queue: String, partitions: u8) {
        let (topology, lengths) = (Arc::clone(&self.topology), Arc::clone(&self.lengths));
        self.runtime.spawn(async move {
            let asked = tokio::time::timeout(PATIENCE, ask(&topology, &queue, partitions));
            let counts = asked.await.unwrap_or_default();
            if let Some(lengths) = lengths.lock().get_mut(&queue) {
                lengths.counted(&counts);
            }
        });
    }
}

/// The lengths of the partitions of a queue; `None` where RabbitMQ does not say it.
async fn ask(topology: &Topology, queue: &str, partitions: u8) -> Vec<Option<u64>> {
    // A question for a queue that is not there would close the channel. A program that only sends to partitions may not have
    // declared the plain queue yet.
    if topology.declare(queue).await.is_err() {
        return Vec::new();
    }
    let Ok(channel) = topology.channel().await else { return Vec::new() };
    let names: Vec<String> = (0..partitions).map(|index| partition::name(queue, index)).collect();
    ready(&channel, &names).await
}

/// The numbers of ready messages in these queues, after everything that was sent on this channel; `None` where RabbitMQ does
/// not say it. All are asked for together, so that many queues take as long as one. A queue that is not there costs the channel.
pub(super) async fn ready(channel: &Channel, queues: &[String]) -> Vec<Option<u64>> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let asked = queues.iter().map(|queue| async move {
        let declared = channel.queue_declare(short(queue).ok()?, passive, FieldTable::default()).await;
        Some(u64::from(declared.ok()?.message_count()))
    });
    join_all(asked).await
}
