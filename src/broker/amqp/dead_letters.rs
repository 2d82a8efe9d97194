//! The dead letters: one durable queue, with each message whole and the reason why it died.
//!
//! RabbitMQ can hand out only the head of a queue. So to list the letters is to fetch them, and to give all of
//! them back unread by closing the channel, which puts them where they were. Two processes that list at the same
//! time each see only the letters that the other one has not fetched.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use lapin::{BasicProperties, Channel};
use serde_json::Value;
use tokio::time::Instant;

use super::outgoing::{self, APPENDED, DIED_AT, LETTER, PROPERTIES, QUEUE, REASON};
use super::topology::{DEAD, Topology, broken};
use super::{AmqpInner, table};
use crate::broker::dead_letter::requeued;
use crate::broker::{BrokerError, DeadLetter};
use crate::core::Timestamp;
use crate::rabbitmq::frame_guard::UnreadWatch;
use crate::task::clock::now;
use crate::task::{Arguments, Message, TaskId, TaskOptions};

/// How long a caller waits for a connection.
const PATIENCE: Duration = Duration::from_secs(30);
/// The bytes of an unreadable body that are shown.
const SHOWN: usize = 500;

/// What can be put back of a dead letter.
pub(super) enum Again {
    /// A task that was read, and is written anew.
    Task(Box<Message>),
    /// A message as it was sent. Its next consumer reads it again, and may be a later version that understands it.
    AsItWas(Box<BasicProperties>, Vec<u8>),
    /// Nothing can be put back, because the properties have no form in which they could be sent.
    Nothing,
}

/// Lists the dead letters, oldest first.
pub(super) async fn list(shared: &Arc<AmqpInner>, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
    shared.topology.declare_dead().await?;
    let (channel, unread) = look(shared).await?;
    let mut letters = Vec::new();
    while letters.len() < limit {
        let got = channel.basic_get(DEAD.into(), Topology::FETCH).await.map_err(|e| broken(&e))?;
        let Some(got) = got else { break };
        letters.push(open(shared, got.delivery, &unread).await.0);
    }
    // RabbitMQ answers when all letters are back.
    channel.close(200, "OK".into()).await.map_err(|e| broken(&e))?;
    Ok(letters)
}

/// Puts the dead letters of these ids back into their queues, in one pass over all letters. Answers with the ids
/// that it found.
pub(super) async fn requeue_dead_letter(
    shared: &Arc<AmqpInner>,
    ids: &[TaskId],
) -> Result<Vec<TaskId>, BrokerError> {
    shared.topology.declare_dead().await?;
    let (channel, unread) = look(shared).await?;
    let mut wanted: HashSet<&TaskId> = ids.iter().collect();
    let mut found = Vec::new();
    while !wanted.is_empty() {
        let got = channel.basic_get(DEAD.into(), Topology::FETCH).await.map_err(|e| broken(&e))?;
        let Some(got) = got else { break };
        let delivery_tag = got.delivery.delivery_tag;
        let (letter, again) = open(shared, got.delivery, &unread).await;
        if !wanted.remove(&letter.message.id) {
            continue;
        }
        let (id, queue) = (letter.message.id, letter.message.queue);
        let post = match again {
            Again::Task(message) => {
                let message = requeued(*message, now());
                shared.write(&message, shared.partitions.choose(&message))
            }
            Again::AsItWas(properties, body) => {
                outgoing::again(*properties, body, &queue).map(|post| post.addressed(&shared.options))
            }
            Again::Nothing => Err(BrokerError::Refused(
                "its properties could not be read and cannot be written; send the task anew".to_owned(),
            )),
            // A letter that cannot be put back stays unacknowledged, and goes back to its place when the channel is
            // closed.
        };
        let post = match post {
            Ok(post) => post,
            Err(error) => {
                tracing::warn!(%id, queue, %error, "a dead letter cannot be put back, and stays where it is");
                continue;
            }
        };
        // The letter is acknowledged only when its message is confirmed: a crash in between makes two of it, not
        // none.
        if let Err(error) = shared.publisher.publish(&post, shared.options.publish_timeout).await {
            // Whoever asks next which letters are there still must find those that were fetched here.
            let _ = channel.close(200, "OK".into()).await;
            return Err(error);
        }
        channel.basic_ack(delivery_tag, BasicAckOptions::default()).await.map_err(|e| broken(&e))?;
        shared.publisher.requeued(&queue);
        found.push(id);
    }
    channel.close(200, "OK".into()).await.map_err(|e| broken(&e))?;
    Ok(found)
}

/// Opens a channel on which to look at the letters.
pub(super) async fn look(shared: &AmqpInner) -> Result<(Channel, UnreadWatch), BrokerError> {
    let up = shared.link.up(Instant::now() + PATIENCE).await?;
    let open = async { up.connection.create_channel().await.map_err(|e| broken(&e)) };
    let channel = shared.link.during(open).await?;
    let unread = up.aside.watch(channel.id());
    Ok((channel, unread))
}

/// Reads a dead letter, and finds out what can be put back of it.
pub(super) async fn open(
    shared: &Arc<AmqpInner>,
    delivery: Delivery,
    unread: &UnreadWatch,
) -> (DeadLetter, Again) {
    let lies_unread = unread.take(delivery.delivery_tag).is_some();
    let Delivery { properties, data: mut body, .. } = delivery;
    let headers = properties.headers().as_ref().map(table::to_map).unwrap_or_default();
    let text = |name: &str| headers.get(name).and_then(Value::as_str).map(str::to_owned);
    let queue = text(QUEUE).unwrap_or_default();
    let reason = text(REASON).unwrap_or_else(|| "the message does not say".to_owned());
    let id = text(LETTER).map_or_else(TaskId::new, TaskId::from);
    let died_at =
        headers.get(DIED_AT).and_then(Value::as_u64).map_or(Timestamp::ZERO, Timestamp::from_millis);
    let appended = headers.get(APPENDED).and_then(Value::as_u64);
    let was_unread = lies_unread || appended.is_some() || headers.contains_key(PROPERTIES);
    let appended = appended.and_then(|appended| usize::try_from(appended).ok()).unwrap_or_default();
    body.truncate(body.len().saturating_sub(appended));
    let plain = outgoing::unlabelled(&properties);
    let read = match was_unread {
        false => Some(AmqpInner::read_letter(shared, &plain, &body, &queue, died_at).await),
        true => None,
    };
    let task = match read {
        Some(Ok(message)) => {
            let letter = DeadLetter { message: message.clone(), reason, died_at };
            return (letter, Again::Task(Box::new(message)));
        }
        Some(Err(error)) => error.recognised.task.clone(),
        None => text("task"),
    };
    let shown = String::from_utf8_lossy(&body[..body.len().min(SHOWN)]);
    let message = self::unread(&queue, id, task.unwrap_or_default(), Arc::from(&*shown), died_at);
    let again = if was_unread { Again::Nothing } else { Again::AsItWas(Box::new(plain), body) };
    (DeadLetter { message, reason, died_at }, again)
}

/// Stands for a message that could not be read: its first argument is the beginning of the body.
pub(super) fn unread(queue: &str, id: TaskId, task: String, body: Arc<str>, now: Timestamp) -> Message {
    let arguments = Arguments::encode(&(&*body,)).unwrap_or_default();
    let options = TaskOptions { autoretry: false, ..TaskOptions::default() };
    Message::new(id, task, arguments, queue, options, now)
}
