//! Writes events of tasks as JSON, straight into the body of their message: a busy worker has three of them for each task.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;

use super::{EventOrigin, seconds, utcoffset};
use crate::core::{Timestamp, instant};
use crate::protocol::repr;
use crate::task::{EventKind, Message, TaskEvent};

/// The signal that a terminated task was told to end by, as Celery's tools show it.
const SIGTERM: u8 = 15;
/// The fields that the writer gives every event. A body that sends an event cannot set them.
const COMMON: [&str; 7] = ["type", "hostname", "pid", "clock", "timestamp", "utcoffset", "uuid"];

/// Writes the events of tasks that one origin tells of.
#[derive(Clone, Debug)]
pub struct TaskEventWriter {
    /// The beginning of each event: what is alike in all of them.
    head: Vec<u8>,
}

impl TaskEventWriter {
    /// A writer of events of this origin. It keeps how far the local clock is behind UTC now, which summer time changes, so it is
    /// made anew for each message.
    pub fn new(origin: &EventOrigin) -> Self {
        let mut head = Vec::with_capacity(128);
        let mut object = Object::begin(&mut head);
        object.field("hostname", origin.hostname.as_str());
        object.field("pid", &origin.pid);
        object.field("utcoffset", &utcoffset());
        Self { head }
    }

    /// Appends an event to `out`, as one JSON object. `clock` is the Lamport clock of the process.
    pub fn write(&self, event: &TaskEvent, clock: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        let mut object = Object { out };
        object.field("type", event.kind.name());
        object.field("clock", &clock);
        object.field("timestamp", &seconds(event.at));
        object.field("uuid", event.id().as_str());
        match &event.kind {
            EventKind::Sent | EventKind::Received => {
                if let Some(message) = event.message() {
                    describe(message, &mut object);
                }
            }
            EventKind::Succeeded { result, runtime } => {
                object.field("result", &**result);
                object.field("runtime", &runtime.as_secs_f64());
            }
            EventKind::Failed { exception, traceback } | EventKind::Retried { exception, traceback } => {
                object.field("exception", &**exception);
                object.field("traceback", &traceback.as_deref());
            }
            EventKind::Revoked { terminated, expired } => {
                object.field("terminated", terminated);
                object.field("signum", &terminated.then_some(SIGTERM));
                object.field("expired", expired);
            }
            EventKind::Rejected { requeue } => object.field("requeue", requeue),
            EventKind::Custom { fields, .. } => {
                for (name, value) in fields.iter().filter(|(name, _)| !COMMON.contains(&name.as_str())) {
                    object.field(name, value);
                }
            }
            EventKind::Started { .. } | EventKind::Cancelled => {}
        }
        object.end();
    }
}

/// What `task-sent` and `task-received` say of a message. Celery's workers leave out the last three in
/// `task-received`; exporters have their `queue_name` from there if they are told.
fn describe(message: &Message, object: &mut Object<'_>) {
    let workflow = message.workflow.as_deref();
    let shadow = workflow.and_then(|workflow| workflow.shadow.as_deref());
    let root = workflow.and_then(|workflow| workflow.root_id.as_ref()).unwrap_or(&message.id);
    let parent = workflow.and_then(|workflow| workflow.parent_id.as_ref());
    let time = |time: Option<Timestamp>| time.map(instant::write);
    object.field("name", shadow.unwrap_or(&message.task));
    object.field("args", &shown(message, "argsrepr", positional));
    object.field("kwargs", &shown(message, "kwargsrepr", keyword));
    object.field("root_id", root.as_str());
    object.field("parent_id", &parent.map(|id| id.as_str()));
    object.field("retries", &message.retries);
    object.field("eta", &time(message.eta));
    object.field("expires", &time(message.expires));
    object.field("queue", message.queue.as_str());
    object.field("exchange", "");
    object.field("routing_key", message.queue.as_str());
}

/// Arguments as its sender shows them in this header, or as Python would. `None`: they have no such form.
fn shown<'a>(
    message: &'a Message,
    header: &str,
    show: fn(&'a Message) -> Option<Cow<'a, str>>,
) -> Option<Cow<'a, str>> {
    match message.headers.0.get(header).and_then(Value::as_str) {
        Some(given) => Some(given.into()),
        None => show(message),
    }
}

fn positional(message: &Message) -> Option<Cow<'_, str>> {
    let args = message.arguments.args.as_str();
    let args = if args.is_empty() { "[]" } else { args };
    repr::positional_of(&message.headers, args).ok().map(Cow::Owned)
}

fn keyword(message: &Message) -> Option<Cow<'_, str>> {
    match message.arguments.kwargs.as_str() {
        "" | "{}" => Some("{}".into()),
        kwargs => repr::keyword(kwargs).ok().map(Cow::Owned),
    }
}

/// A JSON object that is being written.
struct Object<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Object<'a> {
    fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out }
    }

    fn field(&mut self, name: &str, value: &(impl Serialize + ?Sized)) {
        if self.out.last() != Some(&b'{') {
            self.out.push(b',');
        }
        self.value(name);
        self.out.push(b':');
        self.value(value);
    }

    /// Writes a value. Texts, numbers and values of JSON always have a form, and memory takes them.
    fn value(&mut self, value: &(impl Serialize + ?Sized)) {
        let written = serde_json::to_writer(&mut *self.out, value);
        debug_assert!(written.is_ok(), "{written:?}");
    }

    fn end(self) {
        self.out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::{Map, json};

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

    fn written(event: &TaskEvent, origin: &EventOrigin, clock: u64) -> Map<String, Value> {
        let mut text = b"before".to_vec();
        TaskEventWriter::new(origin).write(event, clock, &mut text);
        serde_json::from_slice(text.strip_prefix(b"before").expect("what was there stays"))
            .expect("an object")
    }

    /// The event of a task, without what all have in common, which is checked.
    fn own(message: Message, kind: EventKind) -> Value {
        let name = kind.name().to_owned();
        let mut event = TaskEvent::now(Arc::new(message), kind);
        event.at = AT;
        let mut fields = written(&event, &origin(), 34);
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

    /// The same object, put together field by field.
    fn put_together(event: &TaskEvent, origin: &EventOrigin, clock: u64) -> Map<String, Value> {
        let own = match &event.kind {
            EventKind::Sent | EventKind::Received => event.message().map_or(json!({}), |message| {
                let text =
                    |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
                let args = text(&message.arguments.args, "[]");
                let kwargs = text(&message.arguments.kwargs, "{}");
                json!({
                    "name": message.task, "args": repr::positional_of(&message.headers, &args).ok(),
                    "kwargs": repr::keyword(&kwargs).ok(), "root_id": message.id.as_str(), "parent_id": null,
                    "retries": message.retries, "eta": message.eta.map(instant::write),
                    "expires": message.expires.map(instant::write),
                    "queue": message.queue, "exchange": "", "routing_key": message.queue,
                })
            }),
            EventKind::Started { .. } | EventKind::Cancelled => json!({}),
            EventKind::Succeeded { result, runtime } => {
                json!({"result": &**result, "runtime": runtime.as_secs_f64()})
            }
            EventKind::Failed { exception, traceback } | EventKind::Retried { exception, traceback } => {
                json!({"exception": &**exception, "traceback": traceback.as_deref()})
            }
            EventKind::Revoked { terminated, expired } => {
                json!({"terminated": terminated, "signum": terminated.then_some(15), "expired": expired})
            }
            EventKind::Rejected { requeue } => json!({ "requeue": requeue }),
            EventKind::Custom { fields, .. } => Value::Object((**fields).clone()),
        };
        let Value::Object(mut all) = own else { panic!("an object") };
        let common = json!({
            "type": event.kind.name(), "hostname": origin.hostname, "pid": origin.pid, "utcoffset": utcoffset(),
            "clock": clock, "timestamp": seconds(event.at), "uuid": event.id().as_str(),
        });
        if let Value::Object(common) = common {
            all.extend(common);
        }
        all
    }

    fn any_json() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<String>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            Just(json!({"a": [1, null, "é\u{1f}\"\\"]})),
            Just(Value::Null),
        ]
    }

    fn any_kind() -> impl Strategy<Value = EventKind> {
        let text = || any::<String>().prop_map(Arc::<str>::from);
        let traceback = || proptest::option::of(text());
        let fields = proptest::collection::btree_map("[a-z\"é]{0,8}|uuid|type|pid", any_json(), 0..5);
        let fields = fields.prop_map(|fields| Arc::new(fields.into_iter().collect::<Map<String, Value>>()));
        prop_oneof![
            Just(EventKind::Sent),
            Just(EventKind::Received),
            Just(EventKind::Cancelled),
            text().prop_map(|worker| EventKind::Started { worker }),
            (text(), any::<u32>()).prop_map(|(result, micros)| EventKind::Succeeded {
                result,
                runtime: Duration::from_micros(micros.into()),
            }),
            (text(), traceback())
                .prop_map(|(exception, traceback)| EventKind::Failed { exception, traceback }),
            (text(), traceback())
                .prop_map(|(exception, traceback)| EventKind::Retried { exception, traceback }),
            any::<(bool, bool)>()
                .prop_map(|(terminated, expired)| EventKind::Revoked { terminated, expired }),
            any::<bool>().prop_map(|requeue| EventKind::Rejected { requeue }),
            ("[a-z_-]{1,20}", fields)
                .prop_map(|(name, fields)| EventKind::Custom { name: name.as_str().into(), fields }),
        ]
    }

    fn any_message() -> impl Strategy<Value = Message> {
        let time = || proptest::option::of((0..4_000_000_000_000_000_u64).prop_map(Timestamp::from_micros));
        let args = prop_oneof![Just(""), Just("[]"), Just(r#"[1, "it's", [null]]"#), Just("[1"), Just("{}")];
        let kwargs = prop_oneof![Just(""), Just("{}"), Just(r#"{"x": 1.5, "é": "\n"}"#), Just("[]")];
        let names = (any::<String>(), "[^\u{0}]{1,30}", any::<String>());
        (names, args, kwargs, time(), time(), any::<u32>()).prop_map(
            |((task, id, queue), args, kwargs, eta, expires, retries)| {
                let mut message = Context::detached().message().clone();
                (message.task, message.id, message.queue) = (task, id.as_str().into(), queue);
                (message.arguments.args, message.arguments.kwargs) = (args.to_owned(), kwargs.to_owned());
                (message.eta, message.expires, message.retries) = (eta, expires, retries);
                message
            },
        )
    }

    proptest! {
        #[test]
        fn an_event_reads_as_what_it_is_put_together_of(
            message in any_message(),
            kind in any_kind(),
            unread in any::<bool>(),
            micros in 0..4_000_000_000_000_000_u64,
            clock in any::<u64>(),
            hostname in any::<String>(),
            pid in any::<u32>(),
        ) {
            let mut event = if unread {
                TaskEvent::of_unread(message.id, &message.task, kind)
            } else {
                TaskEvent::now(Arc::new(message), kind)
            };
            event.at = Timestamp::from_micros(micros);
            let origin = EventOrigin { hostname, pid };
            prop_assert_eq!(written(&event, &origin, clock), put_together(&event, &origin, clock));
        }
    }
}
