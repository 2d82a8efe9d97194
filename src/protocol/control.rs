//! Remote control: commands to workers and their answers, as in Celery's pidbox.
//!
//! A request goes to the fanout exchange [`EXCHANGE`] with an empty routing key. Each worker has a [queue](queue_of)
//! bound to it; a worker without one gets no requests. If the request asks for answers, each node sends one to the
//! exchange and routing key that the request names.

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{JSON, Properties, WireMessage};
use crate::core::glob;
use crate::task::TaskId;
use crate::task::token::readable;

/// The fanout exchange that carries requests.
pub const EXCHANGE: &str = "celery.pidbox";
/// The direct exchange that carries replies. It is not durable, and exists only if somebody has declared it.
pub const REPLY_EXCHANGE: &str = "reply.celery.pidbox";

/// The commands of Celery 5.7 that change something. A sender of such a command reads the answer, or its `error`. All
/// other commands are questions. Flower and the exporters take any answer of any worker for an answer to their
/// question, so a worker must not answer a question that it does not know. The same holds for names that no Celery
/// knows, because other workers may have commands of their own.
pub const CHANGES: [&str; 11] = [
    "rate_limit",
    "time_limit",
    "pool_grow",
    "pool_shrink",
    "pool_restart",
    "autoscale",
    "add_consumer",
    "cancel_consumer",
    "enable_events",
    "disable_events",
    "revoke_by_stamped_headers",
];

/// A command to one worker, to several or to all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The name of the command, such as `revoke` or `ping`.
    pub method: String,
    /// The arguments of the command by name.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub arguments: Map<String, Value>,
    /// The nodes that the command is for. `None` or an empty list: all nodes.
    #[serde(default)]
    pub destination: Option<Vec<String>>,
    /// A pattern for the nodes that the command is for.
    #[serde(default)]
    pub pattern: Option<String>,
    /// The kind of the pattern: `glob` or `pcre`.
    #[serde(default)]
    pub matcher: Option<String>,
    /// The id of the request, which its answers repeat; `None` if it asks for no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// Where the answers go; `None` if it asks for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<ReplyTo>,
}

/// Where the answers to a request go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyTo {
    /// The name of the exchange.
    pub exchange: String,
    /// The routing key of the answers.
    pub routing_key: String,
}

/// The answer of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The id of the request that this answers.
    pub ticket: Option<String>,
    /// The name of the node that answers.
    pub node: String,
    /// The content of the answer.
    pub answer: Value,
}

/// The error of a control message that cannot be read.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("the control message cannot be read: {0}")]
pub struct ControlMessageError(String);

crate::core::debug_as_display!(ControlMessageError);

#[cfg(feature = "amqp")]
impl ControlMessageError {
    /// The error of a message of `size` bytes where at most `limit` are allowed.
    pub(crate) fn too_large(size: usize, limit: usize) -> Self {
        Self(format!("it takes {size} bytes, the limit is {limit}"))
    }
}

/// The name of a node's queue for requests, which the node binds to [`EXCHANGE`].
pub fn queue_of(node: &str) -> String {
    format!("{node}.{EXCHANGE}")
}

/// Writes a request. `clock` is the sender's Lamport clock. `expires` says when the request is out of date, in
/// seconds since 1970; 0 means never.
pub fn encode(request: &Request, clock: u64, expires: f64) -> WireMessage {
    let mut headers = Map::new();
    headers.insert("clock".to_owned(), clock.into());
    headers.insert("expires".to_owned(), expires.into());
    wire(2, headers, request)
}

/// Reads a request that somebody else has written.
///
/// # Errors
/// The content type is not JSON, or the body is no request.
pub fn decode(wire: &WireMessage) -> Result<Request, ControlMessageError> {
    check(wire)?;
    serde_json::from_slice(&wire.body).map_err(|error| ControlMessageError(error.to_string()))
}

/// Writes the answer of `node` to a request with the id `ticket`. `clock` is the node's Lamport clock.
pub fn encode_reply(node: &str, ticket: &str, clock: u64, answer: &Value) -> WireMessage {
    let mut headers = Map::new();
    headers.insert("ticket".to_owned(), ticket.into());
    headers.insert("clock".to_owned(), clock.into());
    wire(1, headers, &json!({ node: answer }))
}

/// Reads the answer of a node.
///
/// # Errors
/// The content type is not JSON, or the body is no answer of a node.
pub fn decode_reply(wire: &WireMessage) -> Result<Reply, ControlMessageError> {
    check(wire)?;
    let body: Map<String, Value> = serde_json::from_slice(&wire.body)
        // An answer is only looked at, and Python's may have NaN in it, or half of a surrogate pair.
        .or_else(|error| {
            let text = String::from_utf8_lossy(&wire.body);
            serde_json::from_str(&readable(&text)).map_err(|_| error)
        })
        .map_err(|error| ControlMessageError(error.to_string()))?;
    let (node, answer) =
        body.into_iter().next().ok_or_else(|| ControlMessageError("the answer is of no node".to_owned()))?;
    let ticket = wire.headers.get("ticket").and_then(Value::as_str).map(str::to_owned);
    Ok(Reply { ticket, node, answer })
}

impl Request {
    /// A command to all nodes that asks for no answer.
    pub fn new(method: impl Into<String>, arguments: Map<String, Value>) -> Self {
        Self { method: method.into(), arguments, ..Self::default() }
    }

    /// A `revoke` of these tasks. With `terminate`, the workers also end those that run.
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

    /// The tasks that a `revoke` or `terminate` names, and whether workers also end those that run. Ids that no task
    /// can have are left out. `None`: the request is no such command, or names no tasks.
    pub fn revoked(&self) -> Option<(Vec<TaskId>, bool)> {
        let terminate = match self.method.as_str() {
            // Python treats any number but zero as true.
            "revoke" => match self.arguments.get("terminate") {
                Some(Value::Bool(terminate)) => *terminate,
                Some(Value::Number(number)) => number.as_f64() != Some(0.0),
                _ => false,
            },
            "terminate" => true,
            _ => return None,
        };
        let ids: Vec<&str> = match self.arguments.get("task_id")? {
            Value::String(id) => vec![id],
            Value::Array(ids) => ids.iter().filter_map(Value::as_str).collect(),
            _ => return None,
        };
        let ids = ids.into_iter().filter(|id| (1..=MAX_ID).contains(&id.len()));
        Some((ids.map(TaskId::from).collect(), terminate))
    }

    /// Whether the request is for this node: it names the node, or its pattern matches, or it names nobody. As in
    /// kombu, an empty list of nodes, pattern or matcher counts as none. An invalid pattern matches no node.
    pub fn is_for(&self, node: &str) -> bool {
        if let Some(destination) = self.destination.as_ref().filter(|named| !named.is_empty()) {
            return destination.iter().any(|meant| meant == node);
        }
        let said = |text: &'_ Option<String>| text.clone().filter(|text| !text.is_empty());
        match (said(&self.pattern).as_deref(), said(&self.matcher).as_deref()) {
            (Some(pattern), Some("glob")) => matches(&glob::as_regex(pattern), node),
            (Some(pattern), Some("pcre")) => matches(&format!("^(?:{pattern})"), node),
            (Some(_), Some(_)) => false,
            _ => true,
        }
    }
}

/// The most bytes of a task's id.
const MAX_ID: usize = 255;

/// The most memory of a compiled pattern: enough for any pattern that a person writes, and too little to exhaust the
/// memory.
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

fn check(wire: &WireMessage) -> Result<(), ControlMessageError> {
    match wire.properties.content_type.as_deref() {
        Some(JSON) => Ok(()),
        other => Err(ControlMessageError(format!(
            "its content type is {}, not {JSON}",
            other.unwrap_or("not given")
        ))),
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
            [true, true, false, true]
        );
        let by = |pattern: &str, matcher: &str| {
            let (pattern, matcher) = (Some(pattern.into()), Some(matcher.into()));
            Request { pattern, matcher, ..all.clone() }.is_for("w1@host.a")
        };
        for pattern in ["w*@host.a", "*", "w?@host.a", "w[0-9]@*", "w[!a-z]@*", "w*"] {
            assert!(by(pattern, "glob"), "{pattern}");
        }
        for pattern in ["w", "w1@hostXa", "w[!1]@*", "w[1@host.a", "[]]*"] {
            assert!(!by(pattern, "glob"), "{pattern}");
        }
        assert!(by("w\\d@", "pcre") && by("x|w1", "pcre") && !by("host", "pcre") && !by("(", "pcre"));
        assert!(!by("*", "sql"));
        assert!(by("", "glob") && by("nobody", ""), "as for kombu, half a pattern is none");
        // A node that is named is addressed, whatever the pattern says.
        assert!(Request { pattern: Some("x".into()), matcher: Some("glob".into()), ..named }.is_for("w1@a"));
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
        let odd = json!({"task_id": ["a", 5, null, "", "x".repeat(256), {}], "terminate": 1});
        let Value::Object(odd) = odd else { panic!("an object") };
        assert_eq!(Request::new("revoke", odd).revoked(), Some((vec!["a".into()], true)));
        for task_id in [json!(5), json!(null), json!({"a": 1})] {
            let arguments = Map::from_iter([("task_id".to_owned(), task_id)]);
            assert_eq!(Request::new("revoke", arguments).revoked(), None);
        }
    }

    #[test]
    fn an_answer_that_is_no_unicode_and_no_json_is_shown_all_the_same() {
        let body = br#"{"celery@w": {"ok": [NaN, "cut \ud83d", 5]}}"#.to_vec();
        let wire = WireMessage { body, ..encode_reply("celery@w", "t", 1, &Value::Null) };
        let reply = decode_reply(&wire).unwrap();
        assert_eq!((reply.node.as_str(), reply.ticket.as_deref()), ("celery@w", Some("t")));
        assert_eq!(reply.answer, json!({"ok": ["NaN", "cut \u{fffd}", 5]}));
    }

    #[test]
    fn what_is_no_control_message_is_refused() {
        let typed = |field: &str| format!("{{\"method\":\"ping\",{field}}}");
        for field in [
            "\"destination\":\"w1@a\"",
            "\"destination\":[5]",
            "\"pattern\":5",
            "\"matcher\":[]",
            "\"ticket\":7",
            "\"reply_to\":\"x\"",
            "\"reply_to\":{\"exchange\":1,\"routing_key\":\"\"}",
            "\"arguments\":[]",
        ] {
            let wire = WireMessage { body: typed(field).into_bytes(), ..encode(&Request::default(), 1, 0.0) };
            assert!(decode(&wire).is_err(), "{field}");
        }
        let deep = WireMessage { body: vec![b'['; 100_000], ..encode(&Request::default(), 1, 0.0) };
        assert!(decode(&deep).is_err());
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
