//! What was captured of a Celery 5.7 fleet on RabbitMQ and Redis. One JSON object a line; only host names were changed.

use celeriac::core::Timestamp;
use celeriac::protocol::{Arrival, DecodeError, Properties, WireMessage, decode};
use celeriac::task::{Message, TaskOptions};
use serde_json::Value;

const TASKS: &str = include_str!("captures/task_messages.jsonl");
const RPC: &str = include_str!("captures/rpc_messages.jsonl");
const BEAT: &str = include_str!("captures/beat_messages.jsonl");
const QUORUM: &str = include_str!("captures/quorum_delayed_messages.jsonl");
const REQUESTS: &str = include_str!("captures/pidbox_requests.jsonl");
const REPLIES: &str = include_str!("captures/pidbox_replies.jsonl");
const DOCUMENTS: &str = include_str!("captures/redis_documents.jsonl");

/// A captured message.
#[derive(Clone, Debug)]
pub struct Capture {
    /// What was being done.
    pub scenario: String,
    /// Exchange and routing key.
    pub sent_to: (String, String),
    /// As it crossed the wire.
    pub wire: WireMessage,
}

/// Every task message: of clients, of workers, of beat.
pub fn tasks() -> Vec<Capture> {
    let all = [TASKS, RPC, BEAT, QUORUM].into_iter().flat_map(lines);
    all.filter(|capture| {
        capture.wire.headers.contains_key("task") || capture.wire.body.starts_with(br#"{"args""#)
    })
    .collect()
}

/// The first message of a scenario.
pub fn task(scenario: &str) -> Capture {
    lines(TASKS).find(|capture| capture.scenario == scenario).unwrap_or_else(|| panic!("no {scenario}"))
}

/// Results on their way back over `rpc://`.
pub fn rpc_results() -> Vec<Capture> {
    lines(RPC).filter(|capture| capture.wire.headers.is_empty()).collect()
}

/// Control requests.
pub fn requests() -> Vec<Capture> {
    let of_clients = lines(TASKS).filter(|capture| capture.sent_to.0 == "celery.pidbox");
    lines(REQUESTS).chain(of_clients).collect()
}

/// Answers to control requests.
pub fn replies() -> Vec<Capture> {
    lines(REPLIES).collect()
}

/// Result documents out of Redis, as they were written.
pub fn documents() -> Vec<&'static str> {
    DOCUMENTS.lines().collect()
}

/// Reads a message as a program would in which no task is registered.
pub fn read(wire: &WireMessage) -> Result<Message, DecodeError> {
    decode(wire, &Arrival::new("celery", now(), &|_| None::<TaskOptions>))
}

/// When the messages of these tests arrive.
pub fn now() -> Timestamp {
    Timestamp::from_millis(1_795_339_500_000)
}

fn lines(file: &'static str) -> impl Iterator<Item = Capture> {
    file.lines().map(|line| capture(serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))))
}

fn capture(line: Value) -> Capture {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let given = &line["properties"];
    let number = |name: &str| given[name].as_u64().map(|n| u8::try_from(n).unwrap());
    let properties = Properties {
        content_type: text(&given["content_type"]),
        content_encoding: text(&given["content_encoding"]),
        delivery_mode: number("delivery_mode"),
        priority: number("priority"),
        correlation_id: text(&given["correlation_id"]),
        reply_to: text(&given["reply_to"]),
        expiration: text(&given["expiration"]),
        ..Properties::default()
    };
    let body = match line["body"]["__bytes_hex__"].as_str() {
        Some(hex) => bytes(hex),
        None => line["body"].to_string().into_bytes(),
    };
    Capture {
        scenario: text(&line["scenario"]).unwrap_or_default(),
        sent_to: (text(&line["exchange"]).unwrap(), text(&line["routing_key"]).unwrap()),
        wire: WireMessage { properties, headers: given["headers"].as_object().unwrap().clone(), body },
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
