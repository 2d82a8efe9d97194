//! Events of workers and tasks, as Celery's workers publish them for Flower, `celery events` and exporters.
//!
//! An event is one JSON object. It goes to the topic exchange [`EXCHANGE`] under a [routing key](routing_key) that is
//! made of its type; several task events go together as a list under the key [`MULTI`]. Celery's `State` fails on an
//! event of a task that lacks a field which Celery sends, so every field is there, null if it is not known.

use chrono::{Local, Offset};
use serde_json::{Map, Value, json};

use super::{JSON, Properties, WireMessage, repr};
use crate::core::{Timestamp, instant};
use crate::task::token::readable;
use crate::task::{EventKind, Message, TaskEvent};

/// The topic exchange that events go to, unless Celery's `event_exchange` says otherwise.
pub const EXCHANGE: &str = "celeryev";
/// The routing key of a list of task events.
pub const MULTI: &str = "task.multi";
/// The time between two heartbeats in seconds. A receiver takes a worker for gone that has been silent for twice as
/// long.
pub const FREQ: f64 = 2.0;
/// What workers of Celeriac say they are.
pub const SW_IDENT: &str = "celeriac";
/// The signal that a terminated task was told to end by, as Celery's tools show it.
const SIGTERM: u8 = 15;
/// The seconds of `freq` in an extra heartbeat that somebody has asked for, as Celery's workers send it.
const ASKED_FREQ: u8 = 5;

/// Who publishes events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventOrigin {
    /// The node name, `celery@host`.
    pub hostname: String,
    /// The id of the process.
    pub pid: u32,
}

/// What a worker says of itself in its heartbeats.
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

/// An event of a task. `clock` is the Lamport clock of the process.
pub fn of_task(event: &TaskEvent, origin: &EventOrigin, clock: u64) -> Map<String, Value> {
    let mut own = Map::new();
    match &event.kind {
        EventKind::Sent | EventKind::Received => {
            if let Some(message) = event.message() {
                describe(message, &mut own);
            }
        }
        EventKind::Succeeded { result, runtime } => {
            own.insert("result".into(), (**result).into());
            own.insert("runtime".into(), runtime.as_secs_f64().into());
        }
        EventKind::Failed { exception, traceback } | EventKind::Retried { exception, traceback } => {
            own.insert("exception".into(), (**exception).into());
            own.insert("traceback".into(), traceback.as_deref().into());
        }
        EventKind::Revoked { terminated, expired } => {
            own.insert("terminated".into(), (*terminated).into());
            own.insert("signum".into(), terminated.then_some(SIGTERM).into());
            own.insert("expired".into(), (*expired).into());
        }
        EventKind::Rejected { requeue } => drop(own.insert("requeue".into(), (*requeue).into())),
        EventKind::Custom { fields, .. } => own.clone_from(fields),
        EventKind::Started { .. } | EventKind::Cancelled => {}
    }
    let mut fields = own;
    // What every event has wins over what a body has named alike.
    fields.extend(begun(event.kind.name(), origin, clock, event.at));
    fields.insert("uuid".into(), event.id().as_str().into());
    fields
}

/// The answer to an election among workers: this one has seen the candidate.
pub fn elect_ack(id: &Value, origin: &EventOrigin, clock: u64, at: Timestamp) -> Map<String, Value> {
    let mut fields = begun("worker-elect-ack", origin, clock, at);
    fields.insert("id".into(), id.clone());
    fields
}

/// Writes one event, as the text of `fields`.
pub fn encode(body: String, hostname: &str) -> WireMessage {
    let mut headers = Map::new();
    headers.insert("hostname".to_owned(), hostname.into());
    let properties = Properties {
        content_type: Some(JSON.to_owned()),
        content_encoding: Some("utf-8".to_owned()),
        delivery_mode: Some(1),
        priority: Some(0),
        ..Properties::default()
    };
    WireMessage { properties, headers, body: body.into_bytes() }
}

/// Writes several events, each given as the text of its fields, for the routing key [`MULTI`].
pub fn encode_all<'a>(bodies: impl IntoIterator<Item = &'a str>, hostname: &str) -> WireMessage {
    let mut all = String::from("[");
    for body in bodies {
        if all.len() > 1 {
            all.push_str(", ");
        }
        all.push_str(body);
    }
    all.push(']');
    encode(all, hostname)
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

/// What `task-sent` and `task-received` say of a message. Celery's workers leave out the last three in
/// `task-received`; exporters have their `queue_name` from there if they are told.
fn describe(message: &Message, fields: &mut Map<String, Value>) {
    let workflow = message.workflow.as_deref();
    let shadow = workflow.and_then(|workflow| workflow.shadow.as_deref());
    let root = workflow.and_then(|workflow| workflow.root_id.as_ref()).unwrap_or(&message.id);
    let parent = workflow.and_then(|workflow| workflow.parent_id.as_ref());
    let time = |time: Option<Timestamp>| time.map_or(Value::Null, |time| instant::write(time).into());
    let arguments = |name: &str, text: &str, none: &str, show: &dyn Fn(&str) -> Option<String>| {
        let given = message.headers.0.get(name).and_then(Value::as_str).map(str::to_owned);
        let text = if text.is_empty() { none } else { text };
        Value::from(given.or_else(|| show(text)))
    };
    let (args, kwargs) = (&message.arguments.args, &message.arguments.kwargs);
    for (name, value) in [
        ("name", shadow.unwrap_or(&message.task).into()),
        (
            "args",
            arguments("argsrepr", args, "[]", &|text: &str| repr::positional_of(&message.headers, text).ok()),
        ),
        ("kwargs", arguments("kwargsrepr", kwargs, "{}", &|text: &str| repr::keyword(text).ok())),
        ("root_id", root.as_str().into()),
        ("parent_id", parent.map(|id| id.as_str()).into()),
        ("retries", message.retries.into()),
        ("eta", time(message.eta)),
        ("expires", time(message.expires)),
        ("queue", message.queue.as_str().into()),
        ("exchange", "".into()),
        ("routing_key", message.queue.as_str().into()),
    ] {
        fields.insert(name.to_owned(), value);
    }
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
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::task::{Context, Workflow};

    const AT: Timestamp = Timestamp::from_micros(1_795_339_462_481_693);

    fn origin() -> EventOrigin {
        EventOrigin { hostname: "w1@research".into(), pid: 14_891 }
    }

    fn message() -> Message {
        let mut message = Context::detached().message().clone();
        message.id = "e2fa3948".into();
        message.task = "cap.add".into();
        message.queue = "celery".into();
        message.arguments.args = "[2, 3]".into();
        message
    }

    /// The event of a task, without what all have in common, which is checked.
    fn own(message: Message, kind: EventKind) -> Value {
        let name = kind.name().to_owned();
        let mut event = TaskEvent::now(Arc::new(message), kind);
        event.at = AT;
        let mut fields = of_task(&event, &origin(), 34);
        for (key, value) in [
            ("type", Value::from(name)),
            ("hostname", "w1@research".into()),
            ("pid", 14_891.into()),
            ("clock", 34.into()),
            ("timestamp", json!(1_795_339_462.481_693)),
            ("uuid", "e2fa3948".into()),
        ] {
            assert_eq!(fields.remove(key), Some(value), "{key}");
        }
        assert!(fields.remove("utcoffset").is_some_and(|offset| offset.is_f64()));
        fields.into()
    }

    #[test]
    fn the_events_of_a_message_are_read_whoever_wrote_them() {
        let types = |body: &[u8]| -> Vec<String> {
            decode(body).iter().map(|event| event["type"].as_str().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(types(&encode(r#"{"type": "worker-online"}"#.into(), "w@h").body), ["worker-online"]);
        let two = encode_all([r#"{"type": "a"}"#, r#"{"type": "b", "n": NaN}"#], "w@h");
        assert_eq!(types(&two.body), ["a", "b"]);
        for nothing in [&b""[..], b"\x80\x04", b"5", b"[1, null, {}]", br#"{"type": 5}"#] {
            assert!(decode(nothing).is_empty(), "{nothing:?}");
        }
    }

    #[test]
    fn a_received_task_has_all_fields_that_celery_sends() {
        let expected = json!({
            "name": "cap.add", "args": "(2, 3)", "kwargs": "{}", "root_id": "e2fa3948", "parent_id": null,
            "retries": 0, "eta": null, "expires": null, "queue": "celery", "exchange": "", "routing_key": "celery",
        });
        assert_eq!(own(message(), EventKind::Received), expected);
        assert_eq!(own(message(), EventKind::Sent), expected);
        let mut given = message();
        given.headers.0.insert("argsrepr".into(), "(***)".into());
        given.arguments.kwargs = r#"{"x": 1}"#.into();
        given.eta = Some(AT);
        given.retries = 2;
        given.workflow = Some(Box::new(Workflow {
            shadow: Some("nick".into()),
            root_id: Some("r".into()),
            parent_id: Some("p".into()),
            ..Workflow::default()
        }));
        let received = own(given, EventKind::Received);
        let shown = |name: &str| received[name].as_str().unwrap_or_default().to_owned();
        assert_eq!(
            (shown("name"), shown("args"), shown("kwargs")),
            ("nick".into(), "(***)".into(), "{'x': 1}".into())
        );
        assert_eq!((shown("root_id"), shown("parent_id")), ("r".into(), "p".into()));
        assert_eq!(
            (shown("eta"), &received["retries"]),
            ("2026-11-22T09:24:22.481693+00:00".into(), &json!(2))
        );
    }

    #[test]
    fn the_ends_of_tasks_are_celerys() {
        let text = |text: &str| Arc::<str>::from(text);
        let (exception, traceback) = (text("ValueError('x', 42)"), Some(text("Traceback")));
        for (kind, expected) in [
            (EventKind::Started { worker: "q#1".into() }, json!({})),
            (
                EventKind::Succeeded { result: text("5"), runtime: Duration::from_millis(9) },
                json!({"result": "5", "runtime": 0.009}),
            ),
            (
                EventKind::Failed { exception: exception.clone(), traceback: traceback.clone() },
                json!({"exception": "ValueError('x', 42)", "traceback": "Traceback"}),
            ),
            (
                EventKind::Failed { exception: text("NotRegistered('x')"), traceback: None },
                json!({"exception": "NotRegistered('x')", "traceback": null}),
            ),
            (
                EventKind::Retried { exception, traceback },
                json!({"exception": "ValueError('x', 42)", "traceback": "Traceback"}),
            ),
            (
                EventKind::Revoked { terminated: false, expired: true },
                json!({"terminated": false, "signum": null, "expired": true}),
            ),
            (
                EventKind::Revoked { terminated: true, expired: false },
                json!({"terminated": true, "signum": 15, "expired": false}),
            ),
            (EventKind::Rejected { requeue: false }, json!({"requeue": false})),
            (EventKind::Cancelled, json!({})),
        ] {
            assert_eq!(own(message(), kind), expected);
        }
        let success = EventKind::Succeeded { result: text("None"), runtime: Duration::from_secs(1) };
        assert!(own(message(), success)["runtime"].is_f64(), "exporters observe it without a check");
    }

    #[test]
    fn a_custom_event_cannot_pass_itself_off_as_another() {
        let Value::Object(fields) =
            json!({"done": 5, "uuid": "other", "type": "x", "hostname": "h", "clock": 1})
        else {
            panic!("an object")
        };
        let kind = EventKind::Custom { name: "task-progress".into(), fields: Arc::new(fields) };
        assert_eq!(own(message(), kind), json!({"done": 5}));
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
        let wire = encode_all([r#"{"a":1}"#, r#"{"b":2}"#], "w1@research");
        assert_eq!(serde_json::from_slice::<Value>(&wire.body).unwrap(), json!([{"a": 1}, {"b": 2}]));
        assert_eq!(wire.headers["hostname"], "w1@research");
        let Properties { content_type, content_encoding, delivery_mode, priority, .. } = wire.properties;
        assert_eq!((content_type.as_deref(), content_encoding.as_deref()), (Some(JSON), Some("utf-8")));
        assert_eq!((delivery_mode, priority), (Some(1), Some(0)));
    }
}
