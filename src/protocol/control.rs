//! Remote control: what workers are told, and what they answer. Celery's pidbox.
//!
//! A request goes to the fanout exchange [`EXCHANGE`], each worker has a queue bound there, and answers, if it was asked
//! to, go to the exchange and routing key that the request names.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::WireMessage;

/// The exchange of requests: fanout.
pub const EXCHANGE: &str = "celery.pidbox";
/// The exchange of replies: direct. It is there only if somebody has declared it.
pub const REPLY_EXCHANGE: &str = "reply.celery.pidbox";

/// A command to one worker, several or all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// `revoke`, `ping`, …
    pub method: String,
    /// Its arguments by name.
    #[serde(default)]
    pub arguments: Map<String, Value>,
    /// The nodes that are meant; `None`: all.
    pub destination: Option<Vec<String>>,
    /// The nodes that are meant, by a pattern.
    pub pattern: Option<String>,
    /// What the pattern is: `glob` or `pcre`.
    pub matcher: Option<String>,
    /// The id of the request, if it wants to be answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// Where to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<ReplyTo>,
}

/// Where an answer goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyTo {
    /// The exchange.
    pub exchange: String,
    /// The routing key.
    pub routing_key: String,
}

/// A request that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("the control message cannot be read: {0}")]
pub struct ControlError(pub String);

/// The queue of a node, to be bound to [`EXCHANGE`].
pub fn queue_of(node: &str) -> String {
    format!("{node}.celery.pidbox")
}

/// Writes a request. `clock` is the sender's Lamport clock, `expires` when it is of no use any more, in seconds since 1970,
/// or 0.
pub fn encode(request: &Request, clock: u64, expires: f64) -> WireMessage {
    let _ = (request, clock, expires);
    WireMessage::default()
}

/// Reads a request.
///
/// # Errors
/// It is none.
pub fn decode(wire: &WireMessage) -> Result<Request, ControlError> {
    let _ = wire;
    Err(ControlError(String::new()))
}

/// Writes a node's answer to a request that has a ticket.
pub fn encode_reply(node: &str, ticket: &str, clock: u64, answer: &Value) -> WireMessage {
    let _ = (node, ticket, clock, answer);
    WireMessage::default()
}

impl Request {
    /// `revoke` of these tasks.
    pub fn revoke(ids: &[crate::task::TaskId], terminate: bool) -> Self {
        let _ = (ids, terminate);
        Self::default()
    }

    /// Whether this node is meant.
    pub fn is_for(&self, node: &str) -> bool {
        let _ = node;
        true
    }
}
