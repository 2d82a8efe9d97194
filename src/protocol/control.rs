//! Remote control: what workers are told, and what they answer. Celery's pidbox.
//!
//! A request goes to the fanout exchange [`EXCHANGE`] with an empty routing key. Each worker has a [queue](queue_of) bound
//! there, and one without is invisible. Answers, where they are asked for, go to the exchange and routing key that the request
//! names, one for each node.

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{JSON, Properties, WireMessage, glob};
use crate::task::TaskId;

/// The exchange of requests: fanout.
pub const EXCHANGE: &str = "celery.pidbox";
/// The exchange of replies: direct, not durable. It is there only if somebody has declared it.
pub const REPLY_EXCHANGE: &str = "reply.celery.pidbox";

/// A command to one worker, several or all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// `revoke`, `ping`, …
    pub method: String,
    /// Its arguments by name.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub arguments: Map<String, Value>,
    /// The nodes that are meant; `None`: all.
    #[serde(default)]
    pub destination: Option<Vec<String>>,
    /// The nodes that are meant, by a pattern.
    #[serde(default)]
    pub pattern: Option<String>,
    /// What the pattern is: `glob` or `pcre`.
    #[serde(default)]
    pub matcher: Option<String>,
    /// The id of the request, if it wants to be answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// Where to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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

/// An answer: one node's.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// Which request it answers.
    pub ticket: Option<String>,
    /// Who answers.
    pub node: String,
    /// What.
    pub answer: Value,
}

/// A control message that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("the control message cannot be read: {0}")]
pub struct ControlError(String);

/// The queue of a node, to be bound to [`EXCHANGE`].
pub fn queue_of(node: &str) -> String {
    format!("{node}.{EXCHANGE}")
}

/// Writes a request. `clock` is the sender's Lamport clock; `expires`, in seconds since 1970, is when the request is of no use
/// any more, or 0.
pub fn encode(request: &Request, clock: u64, expires: f64) -> WireMessage {
    let mut headers = Map::new();
    headers.insert("clock".to_owned(), clock.into());
    headers.insert("expires".to_owned(), expires.into());
    wire(2, headers, request)
}

/// Reads a request.
///
/// # Errors
/// It is none.
pub fn decode(wire: &WireMessage) -> Result<Request, ControlError> {
    check(wire)?;
    serde_json::from_slice(&wire.body).map_err(|error| ControlError(error.to_string()))
}

/// Writes a node's answer to a request that has a ticket.
pub fn encode_reply(node: &str, ticket: &str, clock: u64, answer: &Value) -> WireMessage {
    let mut headers = Map::new();
    headers.insert("ticket".to_owned(), ticket.into());
    headers.insert("clock".to_owned(), clock.into());
    wire(1, headers, &json!({ node: answer }))
}

/// Reads an answer.
///
/// # Errors
/// It is none.
pub fn decode_reply(wire: &WireMessage) -> Result<Reply, ControlError> {
    check(wire)?;
    let body: Map<String, Value> =
        serde_json::from_slice(&wire.body).map_err(|error| ControlError(error.to_string()))?;
    let (node, answer) =
        body.into_iter().next().ok_or_else(|| ControlError("the answer is of no node".to_owned()))?;
    let ticket = wire.headers.get("ticket").and_then(Value::as_str).map(str::to_owned);
    Ok(Reply { ticket, node, answer })
}

impl Request {
    /// A command to all.
    pub fn new(method: impl Into<String>, arguments: Map<String, Value>) -> Self {
        Self { method: method.into(), arguments, ..Self::default() }
    }

    /// `revoke` of these tasks; with `terminate` they are ended where they run.
    pub fn revoke(ids: &[TaskId], terminate: bool) -> Self {
        let task_id = match ids {
            [id] => Value::from(id.as_str()),
            ids => ids.iter().map(TaskId::as_str).collect(),
        };
        let mut arguments = Map::new();
        arguments.insert("task_id".to_owned(), task_id);
        arguments.insert("terminate".to_owned(), terminate.into());
        arguments.insert("signal".to_owned(), if terminate { "SIGTERM".into() } else { Value::Null });
        Self::new("revoke", arguments)
    }

    /// The tasks that a `revoke` or `terminate` names, and whether they are to be ended where they run.
    pub fn revoked(&self) -> Option<(Vec<TaskId>, bool)> {
        let terminate = match self.method.as_str() {
            "revoke" => self.arguments.get("terminate").and_then(Value::as_bool).unwrap_or(false),
            "terminate" => true,
            _ => return None,
        };
        let ids = match self.arguments.get("task_id")? {
            Value::String(id) => vec![TaskId::from(id.as_str())],
            Value::Array(ids) => ids.iter().filter_map(Value::as_str).map(TaskId::from).collect(),
            _ => return None,
        };
        Some((ids, terminate))
    }

    /// Whether this node is meant: it is named, or else it matches, or else nobody in particular is meant. A pattern that
    /// cannot be read means nobody.
    pub fn is_for(&self, node: &str) -> bool {
        if let Some(destination) = &self.destination {
            return destination.iter().any(|meant| meant == node);
        }
        match (self.pattern.as_deref(), self.matcher.as_deref()) {
            (Some(pattern), Some("glob")) => matches(&glob::as_regex(pattern), node),
            (Some(pattern), Some("pcre")) => matches(&format!("^(?:{pattern})"), node),
            (Some(_), Some(_)) => false,
            _ => true,
        }
    }
}

/// A size at which no pattern that a person writes is refused, and none can fill the memory.
const MAX_PATTERN: usize = 1 << 20;

fn matches(pattern: &str, node: &str) -> bool {
    regex::RegexBuilder::new(pattern)
        .size_limit(MAX_PATTERN)
        .build()
        .is_ok_and(|regex: Regex| regex.is_match(node))
}

fn wire(delivery_mode: u8, headers: Map<String, Value>, body: &impl Serialize) -> WireMessage {
    WireMessage {
        properties: Properties {
            content_type: Some(JSON.to_owned()),
            content_encoding: Some("utf-8".to_owned()),
            delivery_mode: Some(delivery_mode),
            priority: Some(0),
            ..Properties::default()
        },
        headers,
        body: serde_json::to_vec(body).expect("text and JSON values have a form in JSON"),
    }
}

fn check(wire: &WireMessage) -> Result<(), ControlError> {
    match wire.properties.content_type.as_deref() {
        Some(JSON) => Ok(()),
        other => {
            Err(ControlError(format!("its content type is {}, not {JSON}", other.unwrap_or("not given"))))
        }
    }
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Map<String, Value>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_meant() {
        let all = Request::new("ping", Map::new());
        let named = Request { destination: Some(vec!["w1@a".into()]), ..all.clone() };
        let none = Request { destination: Some(vec![]), ..all.clone() };
        assert_eq!(
            [all.is_for("w1@a"), named.is_for("w1@a"), named.is_for("w2@a"), none.is_for("w1@a")],
            [true, true, false, false]
        );
        let by = |pattern: &str, matcher: &str| {
            let (pattern, matcher) = (Some(pattern.into()), Some(matcher.into()));
            Request { pattern, matcher, ..all.clone() }.is_for("w1@host.a")
        };
        for pattern in ["w*@host.a", "*", "w?@host.a", "w[0-9]@*", "w[!a-z]@*", "w*"] {
            assert!(by(pattern, "glob"), "{pattern}");
        }
        for pattern in ["w", "w1@hostXa", "w[!1]@*", "", "w[1@host.a", "[]]*"] {
            assert!(!by(pattern, "glob"), "{pattern}");
        }
        assert!(by("w\\d@", "pcre") && by("x|w1", "pcre") && !by("host", "pcre") && !by("(", "pcre"));
        assert!(!by("*", "sql"));
    }

    #[test]
    fn a_revocation_of_one_or_several() {
        let one = Request::revoke(&["a".into()], false);
        assert_eq!(
            Value::Object(one.arguments.clone()),
            json!({"task_id": "a", "terminate": false, "signal": null})
        );
        assert_eq!(one.revoked(), Some((vec!["a".into()], false)));
        let two = Request::revoke(&["a".into(), "b".into()], true);
        assert_eq!(
            decode(&encode(&two, 1, 0.0)).unwrap().revoked(),
            Some((vec!["a".into(), "b".into()], true))
        );
        let terminate = Request { method: "terminate".into(), ..one };
        assert_eq!(terminate.revoked(), Some((vec!["a".into()], true)));
        assert_eq!(Request::new("ping", Map::new()).revoked(), None);
        assert_eq!(Request::new("revoke", Map::new()).revoked(), None);
    }

    #[test]
    fn what_is_no_control_message_is_refused() {
        for body in ["", "[]", "{}", "{\"method\":5}", "null"] {
            let mut wire = encode(&Request::new("ping", Map::new()), 1, 0.0);
            wire.body = body.into();
            assert!(
                decode(&wire).is_err() && decode_reply(&wire).is_err() || body.starts_with("{\"m"),
                "{body}"
            );
            assert!(decode(&wire).is_err());
        }
        let mut pickle = encode(&Request::new("ping", Map::new()), 1, 0.0);
        pickle.properties.content_type = Some("application/x-python-serialize".into());
        assert!(decode(&pickle).unwrap_err().to_string().contains("x-python-serialize"));
        let null = WireMessage {
            body: br#"{"method":"ping","arguments":null}"#.to_vec(),
            ..encode(&Request::default(), 0, 0.0)
        };
        assert_eq!(decode(&null).unwrap(), Request::new("ping", Map::new()));
    }
}
