//! The dead letters: one durable queue, each message in it whole, with the reason why it is there.
//!
//! RabbitMQ can only hand out what a queue holds from its head. So to look is to fetch, and to give all back unread by closing
//! the channel: they are where they were then. Two that look at a time each see what the other one has not.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use lapin::options::BasicAckOptions;
use serde_json::Value;

use super::outgoing::{self, DIED_AT, LETTER, QUEUE, REASON};
use super::topology::{DEAD, Topology, broken};
use super::{Shared, table};
use crate::broker::dead_letter::revived;
use crate::broker::{BrokerError, DeadLetter};
use crate::core::{RetryPolicy, Timestamp};
use crate::protocol::WireMessage;
use crate::task::clock::now;
use crate::task::{Arguments, Durability, Headers, Message, TaskId};

/// How much of a body that could not be read is shown.
const SHOWN: usize = 500;

/// The dead letters, oldest first.
pub(super) async fn list(shared: &Shared, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
    shared.topology.declare_dead().await?;
    let channel = shared.topology.channel().await?;
    let mut letters = Vec::new();
    while letters.len() < limit {
        let got = channel.basic_get(DEAD.into(), Topology::FETCH).await.map_err(|e| broken(&e))?;
        let Some(got) = got else { break };
        let delivery = got.delivery;
        letters.push(open(shared, table::to_wire(&delivery.properties, delivery.data)).0);
    }
    // Answered when all of them are back.
    channel.close(200, "OK".into()).await.map_err(|e| broken(&e))?;
    Ok(letters)
}

/// Puts those of these ids back into their queues, in one pass over all letters; answers with those that there were.
pub(super) async fn revive(shared: &Shared, ids: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
    shared.topology.declare_dead().await?;
    let channel = shared.topology.channel().await?;
    let mut wanted: HashSet<&TaskId> = ids.iter().collect();
    let mut found = Vec::new();
    while !wanted.is_empty() {
        let got = channel.basic_get(DEAD.into(), Topology::FETCH).await.map_err(|e| broken(&e))?;
        let Some(got) = got else { break };
        let (delivery_tag, properties, data) =
            (got.delivery.delivery_tag, got.delivery.properties, got.delivery.data);
        let wire = table::to_wire(&properties, data);
        let (letter, message) = open(shared, wire.clone());
        if !wanted.remove(&letter.message.id) {
            continue;
        }
        let queue = letter.message.queue;
        let post = match message {
            Some(message) => outgoing::task(&revived(message, now()), now())?,
            // It is read again by whoever consumes it: a later version, perhaps, understands it.
            None => outgoing::wire(unlabelled(wire), &queue, None, now())?,
        };
        shared.publisher.publish(&post, shared.options.publish_timeout).await?;
        channel.basic_ack(delivery_tag, BasicAckOptions::default()).await.map_err(|e| broken(&e))?;
        found.push(letter.message.id);
    }
    channel.close(200, "OK".into()).await.map_err(|e| broken(&e))?;
    Ok(found)
}

/// A letter, and the task in it if it is one.
fn open(shared: &Shared, mut wire: WireMessage) -> (DeadLetter, Option<Message>) {
    let text =
        |wire: &WireMessage, name: &str| wire.headers.get(name).and_then(Value::as_str).map(str::to_owned);
    let queue = text(&wire, QUEUE).unwrap_or_default();
    let reason = text(&wire, REASON).unwrap_or_else(|| "the message does not say".to_owned());
    let id = text(&wire, LETTER).map_or_else(TaskId::new, TaskId::from);
    let died_at =
        wire.headers.get(DIED_AT).and_then(Value::as_u64).map_or(Timestamp::ZERO, Timestamp::from_millis);
    wire = unlabelled(wire);
    match shared.decode(&wire.properties, &wire.headers, &wire.body, &queue, died_at) {
        Ok(message) => (DeadLetter { message: message.clone(), reason, died_at }, Some(message)),
        Err(error) => {
            let task = error.recognised.task.clone().unwrap_or_default();
            let shown = String::from_utf8_lossy(&wire.body[..wire.body.len().min(SHOWN)]);
            let message = unread(&queue, id, task, Arc::from(&*shown), died_at);
            (DeadLetter { message, reason, died_at }, None)
        }
    }
}

fn unlabelled(mut wire: WireMessage) -> WireMessage {
    for label in [REASON, QUEUE, DIED_AT, LETTER] {
        wire.headers.remove(label);
    }
    wire
}

/// What stands for a message that could not be read: its first argument is what could be shown of its body.
pub(super) fn unread(queue: &str, id: TaskId, task: String, body: Arc<str>, now: Timestamp) -> Message {
    Message {
        id,
        task,
        arguments: Arguments::encode(&(&*body,)).unwrap_or_default(),
        queue: queue.to_owned(),
        priority: 0,
        eta: None,
        expires: None,
        enqueued_at: now,
        first_started_at: None,
        retries: 0,
        crashes: 0,
        continuations: 0,
        retry: RetryPolicy::default(),
        autoretry: false,
        soft_time_limit: None,
        time_limit: None,
        acks_late: true,
        ignore_result: false,
        result_expires: Duration::from_secs(24 * 3600),
        durability: Durability::Disk,
        headers: Headers::default(),
        last_errors: Vec::new(),
        workflow: None,
        serial: None,
        unique: None,
    }
}
