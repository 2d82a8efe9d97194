//! Messages as they are posted: to their queue, by way of the delays, to the dead letters.

use std::time::Duration;

use lapin::types::ShortString;
use serde_json::Value;

use super::publisher::{Aim, Post};
use super::topology::{DEAD, short};
use super::{delay, table};
use crate::broker::BrokerError;
use crate::core::Timestamp;
use crate::protocol::{self, WireMessage};
use crate::task::{Message, ONCE, TaskId};

/// What is due sooner than this is not worth RabbitMQ's delays, and waits with the consumer.
pub(super) const SOON: Duration = Duration::from_secs(1);

/// On a dead letter: why, from which queue, since when (milliseconds since 1970), and its id here.
pub(super) const REASON: &str = "celeriac-reason";
pub(super) const QUEUE: &str = "celeriac-queue";
pub(super) const DIED_AT: &str = "celeriac-died-at";
pub(super) const LETTER: &str = "celeriac-letter";
/// On a message that was sent before, and may have arrived.
pub(super) const COPY: &str = "celeriac-copy";
/// On a copy in the keeping of a process: which of its deliveries it stands for.
pub(super) const KEPT: &str = "celeriac-kept";

/// A task on its way to its queue, at once or, if its ETA is ahead, later.
pub(super) fn task(message: &Message, now: Timestamp) -> Result<Post, BrokerError> {
    wire(encode(message, now)?, &message.queue, message.eta, now)
}

/// Encodes.
pub(super) fn encode(message: &Message, now: Timestamp) -> Result<WireMessage, BrokerError> {
    protocol::encode(message, now).map_err(|error| BrokerError::Io(error.to_string()))
}

/// A message on its way to a queue.
pub(super) fn wire(
    mut wire: WireMessage,
    queue: &str,
    eta: Option<Timestamp>,
    now: Timestamp,
) -> Result<Post, BrokerError> {
    wire.headers = table::without_traces(wire.headers);
    let ahead = eta.map_or(Duration::ZERO, |eta| eta.since(now));
    if ahead < SOON {
        return Ok(post("".into(), short(queue)?, wire, Aim::Queue(queue.to_owned())));
    }
    // The levels would take it for their own time to live.
    wire.properties.expiration = None;
    let key = short(&delay::routing_key(delay::seconds(ahead), queue))?;
    Ok(post(short(&delay::entry())?, key, wire, Aim::Delayed(queue.to_owned())))
}

/// A message on its way to the dead letters, whole.
pub(super) fn dead(mut wire: WireMessage, queue: &str, reason: &str, letter: &str, now: Timestamp) -> Post {
    wire.headers = table::without_traces(wire.headers);
    wire.headers.insert(REASON.into(), reason.into());
    wire.headers.insert(QUEUE.into(), queue.into());
    wire.headers.insert(DIED_AT.into(), Value::from(now.as_millis()));
    wire.headers.insert(LETTER.into(), letter.into());
    wire.properties.expiration = None;
    post("".into(), DEAD.into(), wire, Aim::Dead)
}

/// A message to wherever.
pub(super) fn post(exchange: ShortString, key: ShortString, mut wire: WireMessage, aim: Aim) -> Post {
    if aim != Aim::Anybody {
        wire.properties.delivery_mode = Some(2);
    }
    // Asked for, and not given yet: what is sent on keeps the mark that it came with.
    let once = wire.headers.get(ONCE) == Some(&Value::Bool(true));
    if once {
        wire.headers.insert(ONCE.into(), mark().into());
    }
    let properties = table::to_properties(wire.properties, wire.headers);
    Post { exchange, key, properties, body: wire.body, aim, once }
}

/// What no other copy of a message has.
pub(super) fn mark() -> String {
    TaskId::new().to_string()
}
