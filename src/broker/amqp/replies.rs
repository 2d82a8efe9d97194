//! Sends the messages of this process by remote control: answers to requests, and revocations for all workers.
//!
//! These messages have a channel of their own on the connection that publishes. When RabbitMQ blocks publishers, it
//! blocks this connection, and never the one on which deliveries are acknowledged. An answer is sent once, because the
//! asker waits for a second and is then gone. The request names the exchange for the answer. An exchange that is not
//! Celery's own is tried on a channel for it alone. If RabbitMQ closes that channel, the exchange is not tried again
//! for a while.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use lapin::Channel;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use super::post::Aim;
use super::topology::{broken, short};
use super::{AmqpInner, clock, outgoing};
use crate::broker::BrokerError;
use crate::protocol::WireMessage;
use crate::protocol::control::{self, Request};

/// How long RabbitMQ may take to accept an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long this process does not try an exchange again after RabbitMQ closed a channel because of it.
const REFUSED_FOR: Duration = Duration::from_secs(60);
/// The most such exchanges that this process remembers. While it remembers that many, answers go only to Celery's own
/// exchanges.
const REMEMBERED: usize = 256;

/// The sending end of remote control.
#[derive(Default)]
pub(super) struct ControlReplies {
    channel: tokio::sync::Mutex<Option<Channel>>,
    /// The exchanges because of which RabbitMQ closed a channel, and when it did.
    bad: Mutex<HashMap<String, Instant>>,
    /// The number of control messages that were dropped since the start because they could not be read.
    pub(super) refused: AtomicU64,
}

impl ControlReplies {
    async fn channel(&self, shared: &AmqpInner) -> Result<Channel, BrokerError> {
        let mut open = self.channel.lock().await;
        if let Some(channel) = open.as_ref().filter(|channel| channel.status().connected()) {
            return Ok(channel.clone());
        }
        let channel = shared.publisher.new_channel().await?;
        *open = Some(channel.clone());
        Ok(channel)
    }

    /// Tells all workers of a request, and waits until RabbitMQ has the message.
    pub(super) async fn tell(&self, shared: &AmqpInner, wire: WireMessage) -> Result<(), BrokerError> {
        let channel = self.channel(shared).await?;
        publish(&channel, control::EXCHANGE.into(), "".into(), wire).await
    }

    /// Answers a request, if the request wants an answer.
    pub(super) async fn answer(&self, shared: &AmqpInner, node: &str, request: &Request, answer: &Value) {
        let (Some(to), Some(ticket)) = (&request.reply_to, &request.ticket) else { return };
        // An answer that went to the exchange of requests would be a request to all workers.
        if to.exchange == control::EXCHANGE || shared.publisher.is_unavailable() {
            return;
        }
        let (Ok(exchange), Ok(key)) = (short(&to.exchange), short(&to.routing_key)) else { return };
        let wire = control::encode_reply(node, ticket, clock::tick(), answer);
        let is_usual = matches!(to.exchange.as_str(), "" | control::REPLY_EXCHANGE);
        if !is_usual && self.is_bad(&to.exchange) {
            return;
        }
        let sent = async {
            let channel =
                if is_usual { self.channel(shared).await } else { shared.publisher.new_channel().await };
            publish(&channel?, exchange, key, wire).await
        };
        match tokio::time::timeout(PATIENCE, sent).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, exchange = to.exchange, "a control reply could not be sent");
                if !is_usual {
                    let mut bad = self.bad.lock();
                    bad.insert(to.exchange.clone(), Instant::now());
                }
            }
            Err(_) => tracing::debug!(exchange = to.exchange, "a control reply was not taken in time"),
        }
    }

    fn is_bad(&self, exchange: &str) -> bool {
        let mut bad = self.bad.lock();
        bad.retain(|_, since| since.elapsed() < REFUSED_FOR);
        bad.contains_key(exchange) || bad.len() >= REMEMBERED
    }
}

/// Publishes to everybody who listens, and waits until RabbitMQ confirms the message.
async fn publish(
    channel: &Channel,
    exchange: ShortString,
    key: ShortString,
    wire: WireMessage,
) -> Result<(), BrokerError> {
    let post = outgoing::post(exchange, key, wire, Aim::Anybody);
    let options = BasicPublishOptions::default();
    let sent = channel.basic_publish(post.exchange, post.key, options, &post.body, post.properties);
    let confirmed = async { sent.await?.await };
    confirmed.await.map(drop).map_err(|error| broken(&error))
}
