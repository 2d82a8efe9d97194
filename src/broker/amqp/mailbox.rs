//! The asking side of remote control: sends a command to the fleet and gathers what its nodes reply.
//!
//! As in kombu, each question has a reply queue of its own, which goes when its connection or its consumer does.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use lapin::ExchangeKind;
use lapin::options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use tokio::time::Instant;

use super::clock;
use super::pidbox::declare_exchange;
use super::topology::{broken, short};
use super::{AmqpInner, table};
use crate::broker::BrokerError;
use crate::core::time::deadline;
use crate::protocol::control::{self, Reply, ReplyTo, Request};
use crate::task::TaskId;

/// The most replies that one question takes in: more than any fleet has nodes, and a bound for who floods the queue.
const MOST: usize = 10_000;

/// Sends a request, and gathers the replies until `patience` is over or all nodes that it names have replied.
pub(super) async fn ask(
    shared: Arc<AmqpInner>,
    mut request: Request,
    patience: Duration,
) -> Result<Vec<Reply>, BrokerError> {
    let ticket = TaskId::new().to_string();
    let key = TaskId::new().to_string();
    let until = deadline(Instant::now(), patience.max(shared.options.publish_timeout));
    shared.link.up(until).await?;
    let channel = shared.topology.channel().await?;
    let work = async {
        declare_exchange(&channel, control::EXCHANGE, ExchangeKind::Fanout).await?;
        declare_exchange(&channel, control::REPLY_EXCHANGE, ExchangeKind::Direct).await?;
        let queue = short(&format!("{key}.{}", control::REPLY_EXCHANGE))?;
        let options =
            QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        let arguments = table::to_table(shared.options.reply_queue_arguments());
        channel.queue_declare(queue.clone(), options, arguments).await.map_err(|e| broken(&e))?;
        let (exchange, routing_key) = (short(control::REPLY_EXCHANGE)?, short(&key)?);
        let none = FieldTable::default;
        let bound =
            channel.queue_bind(queue.clone(), exchange, routing_key, QueueBindOptions::default(), none());
        bound.await.map_err(|e| broken(&e))?;
        let no_ack = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consume = channel.basic_consume(queue, "".into(), no_ack, none());
        let mut came = consume.await.map_err(|e| broken(&e))?;

        request.ticket = Some(ticket.clone());
        request.reply_to =
            Some(ReplyTo { exchange: control::REPLY_EXCHANGE.to_owned(), routing_key: key.clone() });
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let expires = (since_1970 + patience.min(crate::core::time::FOR_EVER)).as_secs_f64();
        shared.replies.tell(&shared, control::encode(&request, clock::tick(), expires)).await?;

        let until = deadline(Instant::now(), patience);
        let mut replies: Vec<Reply> = Vec::new();
        while !is_complete(&request, &replies) && replies.len() < MOST {
            let Ok(Some(delivery)) = tokio::time::timeout_at(until, came.next()).await else { break };
            let delivery = delivery.map_err(|e| broken(&e))?;
            match control::decode_reply(&table::to_wire(&delivery.properties, delivery.data)) {
                Ok(reply) if reply.ticket.as_deref() == Some(&ticket) => replies.push(reply),
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "a control reply is not understood"),
            }
        }
        Ok(replies)
    };
    let replies = shared.link.during(work).await;
    // The queue goes with the channel's consumer.
    let _ = channel.close(200, "OK".into()).await;
    let mut replies = replies?;
    replies.sort_by(|one, other| one.node.cmp(&other.node));
    Ok(replies)
}

/// Whether every node that the request names has replied.
fn is_complete(request: &Request, replies: &[Reply]) -> bool {
    let named = request.destination.as_deref().unwrap_or_default();
    !named.is_empty() && named.iter().all(|node| replies.iter().any(|reply| reply.node == *node))
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value};

    use super::*;

    #[test]
    fn a_question_to_named_nodes_is_over_when_all_have_replied() {
        let reply = |node: &str| Reply { ticket: None, node: node.to_owned(), answer: Value::Null };
        let all = Request::new("ping", Map::new());
        assert!(!is_complete(&all, &[reply("a@h")]), "nobody knows how many there are");
        let two = Request { destination: Some(vec!["a@h".into(), "b@h".into()]), ..all };
        assert!(!is_complete(&two, &[reply("a@h"), reply("a@h")]));
        assert!(is_complete(&two, &[reply("b@h"), reply("a@h")]));
    }
}
