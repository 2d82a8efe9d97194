//! Events of workers and tasks, as Celery's workers publish them for Flower, `celery events` and exporters.
//!
//! An event is one JSON object. It goes to the topic exchange [`EXCHANGE`] under a [routing key](routing_key) that is
//! made of its type; several task events go together as a list under the key [`MULTI`]. Celery's `State` fails on an
//! event of a task that lacks a field which Celery sends, so every field is there, null if it is not known.

mod task_event_writer;

use chrono::{Local, Offset};
use serde_json::{Map, Value, json};

pub use self::task_event_writer::TaskEventWriter;
use super::{JSON, Properties, WireMessage};
use crate::core::Timestamp;
use crate::task::token::readable;

/// The topic exchange that events go to, unless Celery's `event_exchange` says otherwise.
pub const EXCHANGE: &str = "celeryev";
/// The routing key of a list of task events.
pub const MULTI: &str = "task.multi";
/// The time between two heartbeats in seconds. A receiver takes a worker for gone that has been silent for twice as
/// long.
pub const FREQ: f64 = 2.0;
/// The name of the software that workers of Celeriac state.
pub const SW_IDENT: &str = "celeriac";
/// The seconds of `freq` in an extra heartbeat that somebody has asked for, as Celery's workers send it.
const ASKED_FREQ: u8 = 5;

/// The publisher of events, as it names itself in each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventOrigin {
    /// The name of the node, such as `celery@host`.
    pub hostname: String,
    /// The id of the process.
    pub pid: u32,
}

/// The figures that a worker states in its heartbeats.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Vitals {
    /// The number of bodies that run now.
    pub active: u64,
    /// The number of bodies that have started since the process started.
    pub processed: u64,
    /// The load of the machine over 1, 5 and 15 minutes.
    pub loadavg: [f64; 3],
}

/// The events of a worker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WorkerEvent {
    /// The worker has started, or has connected again.
    Online(Vitals),
    /// The worker is there.
    Heartbeat(Vitals),
    /// The worker is there, and somebody has asked.
    AskedHeartbeat,
    /// The worker ends.
    Offline(Vitals),
}

/// The routing key of events of this type: `task-received` goes to `task.received`.
pub fn routing_key(kind: &str) -> String {
    kind.replace('-', ".")
}

/// An event of a worker. `clock` is the Lamport clock of the process.
pub fn of_worker(event: &WorkerEvent, origin: &EventOrigin, clock: u64, at: Timestamp) -> Map<String, Value> {
    let (kind, vitals) = match event {
        WorkerEvent::Online(vitals) => ("worker-online", Some(vitals)),
        WorkerEvent::Heartbeat(vitals) => ("worker-heartbeat", Some(vitals)),
        WorkerEvent::AskedHeartbeat => ("worker-heartbeat", None),
        WorkerEvent::Offline(vitals) => ("worker-offline", Some(vitals)),
    };
    let mut fields = begun(kind, origin, clock, at);
    match vitals {
        Some(Vitals { active, processed, loadavg }) => {
            fields.insert("freq".into(), FREQ.into());
            fields.insert("active".into(), (*active).into());
            fields.insert("processed".into(), (*processed).into());
            fields.insert("loadavg".into(), json!(loadavg));
        }
        None => drop(fields.insert("freq".into(), ASKED_FREQ.into())),
    }
    fields.insert("sw_ident".into(), SW_IDENT.into());
    fields.insert("sw_ver".into(), env!("CARGO_PKG_VERSION").into());
    fields.insert("sw_sys".into(), system().into());
    fields
}

/// The answer to an election among workers: this one has seen the candidate.
pub fn elect_ack(id: &Value, origin: &EventOrigin, clock: u64, at: Timestamp) -> Map<String, Value> {
    let mut fields = begun("worker-elect-ack", origin, clock, at);
    fields.insert("id".into(), id.clone());
    fields
}

/// A message for events of the node of this name, without its body: one event, or a list of them for the routing key [`MULTI`].
pub fn envelope(hostname: &str) -> WireMessage {
    let mut headers = Map::new();
    headers.insert("hostname".to_owned(), hostname.into());
    let properties = Properties {
        content_type: Some(JSON.to_owned()),
        content_encoding: Some("utf-8".to_owned()),
        delivery_mode: Some(1),
        priority: Some(0),
        ..Properties::default()
    };
    WireMessage { properties, headers, body: Vec::new() }
}

/// Reads the events of one message: one object, or a list of them. What is no event is left out.
pub fn decode(body: &[u8]) -> Vec<Map<String, Value>> {
    // Events are only looked at, and Python's may have NaN in them, or half of a surrogate pair.
    let lenient = || serde_json::from_str(&readable(&String::from_utf8_lossy(body)));
    let event = |value| match value {
        Value::Object(event) if event.get("type").is_some_and(Value::is_string) => Some(event),
        _ => None,
    };
    match serde_json::from_slice(body).or_else(|_| lenient()) {
        Ok(Value::Array(events)) => events.into_iter().filter_map(event).collect(),
        Ok(single) => event(single).into_iter().collect(),
        Err(_) => Vec::new(),
    }
}

/// The fields that every event has.
fn begun(kind: &str, origin: &EventOrigin, clock: u64, at: Timestamp) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("type".into(), kind.into());
    fields.insert("hostname".into(), origin.hostname.as_str().into());
    fields.insert("pid".into(), origin.pid.into());
    fields.insert("clock".into(), clock.into());
    fields.insert("timestamp".into(), seconds(at).into());
    fields.insert("utcoffset".into(), utcoffset().into());
    fields
}

/// Unix seconds as a float, to the microsecond.
#[allow(clippy::cast_precision_loss)] // 2^53 microseconds are 285 years
fn seconds(at: Timestamp) -> f64 {
    at.as_micros() as f64 / 1e6
}

/// The hours that the local clock is behind UTC, summer time included: -2.0 in Berlin's summer. Receivers reckon with
/// the difference to their own.
fn utcoffset() -> f64 {
    let east = Local::now().offset().fix().local_minus_utc();
    if east == 0 { 0.0 } else { -f64::from(east) / 3600.0 }
}

/// The operating system by Python's name.
fn system() -> &'static str {
    match std::env::consts::OS {
        "linux" => "Linux",
        "macos" => "Darwin",
        "windows" => "Windows",
        "freebsd" => "FreeBSD",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::from_micros(1_795_339_462_481_693);

    fn origin() -> EventOrigin {
        EventOrigin { hostname: "w1@research".into(), pid: 14_891 }
    }

    #[test]
    fn the_events_of_a_message_are_read_whoever_wrote_them() {
        let types = |body: &[u8]| -> Vec<String> {
            decode(body).iter().map(|event| event["type"].as_str().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(types(br#"{"type": "worker-online"}"#), ["worker-online"]);
        assert_eq!(types(br#"[{"type": "a"}, {"type": "b", "n": NaN}]"#), ["a", "b"]);
        for nothing in [&b""[..], b"\x80\x04", b"5", b"[1, null, {}]", br#"{"type": 5}"#] {
            assert!(decode(nothing).is_empty(), "{nothing:?}");
        }
    }

    #[test]
    fn workers_say_what_celerys_say() {
        let vitals = Vitals { active: 1, processed: 46, loadavg: [1.5, 1.03, 0.55] };
        let said = |event: WorkerEvent| {
            let mut fields = of_worker(&event, &origin(), 7, AT);
            assert!(fields.remove("utcoffset").is_some_and(|offset| offset.is_f64()));
            let (version, system) = (fields.remove("sw_ver"), fields.remove("sw_sys"));
            assert!(
                version.is_some_and(|version| version.is_string()) && system.is_some_and(|s| s.is_string())
            );
            Value::from(fields)
        };
        let mut expected = json!({
            "type": "worker-online", "hostname": "w1@research", "pid": 14_891, "clock": 7, "freq": 2.0, "active": 1,
            "processed": 46, "loadavg": [1.5, 1.03, 0.55], "sw_ident": "celeriac",
            "timestamp": 1_795_339_462.481_693,
        });
        assert_eq!(said(WorkerEvent::Online(vitals)), expected);
        expected["type"] = "worker-heartbeat".into();
        assert_eq!(said(WorkerEvent::Heartbeat(vitals)), expected);
        expected["type"] = "worker-offline".into();
        assert_eq!(said(WorkerEvent::Offline(vitals)), expected);
        let asked = said(WorkerEvent::AskedHeartbeat);
        assert_eq!((&asked["freq"], asked.get("active")), (&json!(5), None));
        let ack = Value::from(elect_ack(&json!("e1"), &origin(), 433, AT));
        assert_eq!(
            (&ack["type"], &ack["id"], &ack["clock"]),
            (&json!("worker-elect-ack"), &json!("e1"), &json!(433))
        );
    }

    #[test]
    fn messages_are_celerys() {
        assert_eq!(
            (routing_key("worker-elect-ack"), routing_key("task-x_y")),
            ("worker.elect.ack".into(), "task.x_y".into())
        );
        let wire = envelope("w1@research");
        assert_eq!(wire.headers["hostname"], "w1@research");
        let Properties { content_type, content_encoding, delivery_mode, priority, .. } = wire.properties;
        assert_eq!((content_type.as_deref(), content_encoding.as_deref()), (Some(JSON), Some("utf-8")));
        assert_eq!((delivery_mode, priority), (Some(1), Some(0)));
    }
}
