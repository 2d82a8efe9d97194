//! Reads messages from RabbitMQ as tasks.
//!
//! The broker's thread reads most messages. It also looks after heartbeats, confirmations and other queues, so another
//! thread reads the messages that may take longer.

use std::sync::Arc;

use lapin::BasicProperties;
use lapin::message::Delivery;

use super::AmqpInner;
use super::table::{self, IncomingHeaders};
use crate::core::Timestamp;
use crate::protocol::{self, DecodeError, Reason};
use crate::rabbitmq::frame_guard::Unread;
use crate::task::Message;

/// A message whose body has more bytes than this is read on another thread.
const HEAVY: usize = 256 << 10;

/// A message that was read, or refused.
pub(super) struct ReadMessage {
    pub(super) delivery: Delivery,
    pub(super) message: Result<Message, DecodeError>,
    pub(super) unread: Option<Unread>,
}

/// Whether this message may take longer to read than others can wait.
pub(super) fn is_heavy(delivery: &Delivery) -> bool {
    is_heavy_body(&delivery.properties, &delivery.data)
}

fn is_heavy_body(properties: &BasicProperties, body: &[u8]) -> bool {
    body.len() > HEAVY || IncomingHeaders(properties.headers().as_ref()).has("compression")
}

impl AmqpInner {
    /// Reads a delivery that came through this queue. `unread` has the properties as they came, if the guard has
    /// changed them.
    pub(super) fn read(
        &self,
        delivery: Delivery,
        queue: &str,
        unread: Option<Unread>,
        now: Timestamp,
    ) -> ReadMessage {
        let why = unread.as_ref().map(|unread| unread.why.clone());
        let message = self.read_as_it_is(&delivery.properties, &delivery.data, queue, why, now);
        ReadMessage { delivery, message, unread }
    }

    /// Does the same as [`read`](Self::read), on another thread.
    pub(super) async fn read_beside(
        shared: &Arc<Self>,
        delivery: Delivery,
        queue: &str,
        unread: Option<Unread>,
        now: Timestamp,
    ) -> ReadMessage {
        let (shared, queue) = (Arc::clone(shared), queue.to_owned());
        blocking::unblock(move || shared.read(delivery, &queue, unread, now)).await
    }

    /// Reads a message in the dead letters. It does so on another thread if that may take long.
    pub(super) async fn read_letter(
        shared: &Arc<Self>,
        properties: &BasicProperties,
        body: &[u8],
        queue: &str,
        now: Timestamp,
    ) -> Result<Message, DecodeError> {
        if !is_heavy_body(properties, body) {
            return shared.read_as_it_is(properties, body, queue, None, now);
        }
        let (shared, properties, body, queue) =
            (Arc::clone(shared), properties.clone(), body.to_vec(), queue.to_owned());
        blocking::unblock(move || shared.read_as_it_is(&properties, &body, &queue, None, now)).await
    }

    /// Reads a message. Refuses it with the reason `why` if its properties could not be read.
    fn read_as_it_is(
        &self,
        properties: &BasicProperties,
        body: &[u8],
        queue: &str,
        why: Option<String>,
        now: Timestamp,
    ) -> Result<Message, DecodeError> {
        let came = IncomingHeaders(properties.headers().as_ref());
        let unlike = || {
            let name = table::unlike(properties.headers().as_ref()?)?;
            Some(format!(
                "its header `{name}` is neither UTF-8 nor a number of JSON, and could not be sent on as it is"
            ))
        };
        let why = why.or_else(unlike);
        let properties = table::borrowed(properties);
        match why {
            Some(why) => Err(protocol::refused(Reason::Unreadable(why), properties, &came)),
            None => self.decode(properties, &came, body, queue, now),
        }
    }
}
