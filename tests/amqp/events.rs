//! The events that a worker publishes, as whoever listens on `celeryev` receives them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use celeriac::broker::amqp::AmqpOptions;
use celeriac::protocol::control;
use celeriac::protocol::events::{EXCHANGE, MULTI};
use celeriac::task::Task as _;
use celeriac::{Context, TaskError, TaskId, task};
use futures_util::StreamExt;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, ExchangeKind};
use serde_json::{Value, json};

use crate::kit::{Gate, LONG, add, hold};
use crate::rabbit::{Peer, builder, runtime, text, vhost, with};
use crate::services::{Proxy, RabbitMq, blocking};

const NODE: &str = "rust@events";

#[task(queue = "io", max_retries = 1, default_retry_delay = 0)]
async fn fails_in_the_end() -> Result<(), TaskError> {
    Err(TaskError::failure(["bad"]).with_python_type("builtins", "ValueError"))
}

#[task(queue = "io")]
async fn rejects_itself() -> Result<(), TaskError> {
    Err(TaskError::reject("no"))
}

#[task(queue = "io", send_events = false)]
async fn tells_only_this(ctx: Context) -> Result<(), TaskError> {
    ctx.send_event("task-progress", json!({"done": 5}))?;
    Ok(())
}

/// Holds its event loop until the gate opens, as no body should.
#[task(queue = "io")]
async fn blocks_its_event_loop(gate: String) {
    Gate::named(&gate).pass_blocking();
}

fn options() -> AmqpOptions {
    AmqpOptions::default().with_node(NODE)
}

/// An event as it was received.
#[derive(Clone, Debug)]
struct Received {
    key: String,
    fields: Value,
}

impl Received {
    fn kind(&self) -> &str {
        self.fields["type"].as_str().unwrap()
    }
}

/// Somebody who listens, and asks workers.
struct Listener {
    peer: Peer,
    events: lapin::Consumer,
    answers: lapin::Consumer,
    waiting: VecDeque<Received>,
}

impl Listener {
    async fn new(url: &str) -> Self {
        let peer = Peer::connect(url).await;
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let plain = ExchangeDeclareOptions::default();
        for (exchange, kind, options) in [
            (EXCHANGE, ExchangeKind::Topic, durable),
            (control::EXCHANGE, ExchangeKind::Fanout, plain),
            (control::REPLY_EXCHANGE, ExchangeKind::Direct, plain),
        ] {
            let none = FieldTable::default();
            peer.channel.exchange_declare(exchange.into(), kind, options, none).await.unwrap();
        }
        let events = consume(&peer, "events", EXCHANGE, "#").await;
        let answers = consume(&peer, "answers", control::REPLY_EXCHANGE, "me").await;
        Self { peer, events, answers, waiting: VecDeque::new() }
    }

    async fn next(&mut self) -> Received {
        while self.waiting.is_empty() {
            let delivery = tokio::time::timeout(LONG, self.events.next()).await.expect("an event");
            let delivery = delivery.unwrap().unwrap();
            let properties = &delivery.properties;
            assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "application/json");
            assert_eq!((*properties.delivery_mode(), *properties.priority()), (Some(1), Some(0)));
            let AMQPValue::LongString(node) =
                properties.headers().as_ref().unwrap().inner()["hostname"].clone()
            else {
                panic!("a node")
            };
            let key = delivery.routing_key.as_str().to_owned();
            let events = match serde_json::from_slice(&delivery.data).unwrap() {
                Value::Array(events) => {
                    assert!(key == MULTI && !events.is_empty());
                    events
                }
                one => {
                    assert_eq!(one["type"].as_str().unwrap().replace('-', "."), key);
                    vec![one]
                }
            };
            for fields in events {
                assert_eq!(fields["hostname"].as_str().unwrap().as_bytes(), node.as_bytes());
                assert!(fields["clock"].is_u64() && fields["timestamp"].is_f64(), "{fields}");
                self.waiting.push_back(Received { key: key.clone(), fields });
            }
        }
        self.waiting.pop_front().unwrap()
    }

    /// The next event of this type.
    async fn of_kind(&mut self, kind: &str) -> Received {
        loop {
            let event = self.next().await;
            if event.kind() == kind {
                return event;
            }
        }
    }

    /// All events until the worker goes.
    async fn until_offline(&mut self) -> Vec<Received> {
        let mut all = Vec::new();
        loop {
            let event = self.next().await;
            if event.kind() == "worker-offline" {
                return all;
            }
            all.push(event);
        }
    }

    /// What the worker answers.
    async fn ask(&mut self, method: &str, clock: u64) -> Value {
        let request = json!({
            "method": method, "arguments": {}, "ticket": method,
            "reply_to": {"exchange": control::REPLY_EXCHANGE, "routing_key": "me"},
        });
        let clock = [("clock", AMQPValue::LongLongInt(clock.try_into().unwrap()))];
        let options = BasicPublishOptions::default();
        let body = request.to_string();
        let said = self.peer.channel.basic_publish(
            control::EXCHANGE.into(),
            "".into(),
            options,
            body.as_bytes(),
            with(&clock),
        );
        said.await.unwrap().await.unwrap();
        let answer = tokio::time::timeout(LONG, self.answers.next()).await.expect("an answer");
        let mut answer: Value = serde_json::from_slice(&answer.unwrap().unwrap().data).unwrap();
        answer[NODE].take()
    }
}

async fn consume(peer: &Peer, queue: &str, exchange: &str, key: &str) -> lapin::Consumer {
    let none = FieldTable::default;
    let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    peer.channel.queue_declare(queue.into(), exclusive, none()).await.unwrap();
    let bind = QueueBindOptions::default();
    peer.channel.queue_bind(queue.into(), exchange.into(), key.into(), bind, none()).await.unwrap();
    let no_ack = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    peer.channel.basic_consume(queue.into(), "".into(), no_ack, none()).await.unwrap()
}

/// The types of the events of each task, in their order.
fn by_task(events: &[Received]) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::<_, Vec<_>>::new();
    for event in events {
        if let Some(id) = event.fields["uuid"].as_str() {
            let kind = event.kind().trim_start_matches("task-").to_owned();
            all.entry(id.to_owned()).or_default().push(kind);
        }
    }
    all
}

/// A task as Python sends it, with another header.
fn python_task(name: &str, id: &str, header: &str, value: String) -> BasicProperties {
    with(&[("lang", text("py")), ("task", text(name)), ("id", text(id)), (header, text(&value))])
}

fn in_millis(millis: i64) -> String {
    (chrono::Utc::now() + chrono::TimeDelta::milliseconds(millis)).to_rfc3339()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_task_has_the_events_that_celery_sends() {
    let url = vhost().await;
    let mut listener = Listener::new(&url).await;
    let celeriac = builder(&url).amqp_options(options()).task_events(true).start().await.unwrap();
    let client = || celeriac.client();
    let mut expected = BTreeMap::new();
    let mut expect = |id: &TaskId, kinds: &[&str]| {
        expected.insert(id.to_string(), kinds.iter().map(|kind| (*kind).to_owned()).collect::<Vec<_>>());
    };
    let sum = add::s(2, 3).send(client()).await.unwrap();
    expect(sum.id(), &["received", "started", "succeeded"]);
    let failing = fails_in_the_end::s().send(client()).await.unwrap();
    expect(failing.id(), &["received", "started", "retried", "received", "started", "failed"]);
    let rejected = rejects_itself::s().send(client()).await.unwrap();
    expect(rejected.id(), &["received", "started", "failed", "rejected"]);
    let gate = Gate::new();
    let running = hold::s(gate.name.clone()).send(client()).await.unwrap();
    expect(running.id(), &["received", "started", "revoked"]);
    let muted = tells_only_this::s().send(client()).await.unwrap();
    expect(muted.id(), &["progress"]);
    // As Python sends them: they come at once, and wait for their time elsewhere.
    let name = add::Task::NAME.to_owned();
    let body = b"[[1,1],{},null]";
    let peer = &listener.peer;
    peer.send("io", python_task(&name, "eta", "eta", in_millis(2_500)), body).await;
    expect(&"eta".into(), &["received", "started", "succeeded"]);
    peer.send("io", python_task(&name, "revoked", "eta", in_millis(10_000)), body).await;
    expect(&"revoked".into(), &["received", "revoked"]);
    peer.send("io", python_task(&name, "expired", "expires", in_millis(-1_000)), body).await;
    expect(&"expired".into(), &["revoked"]);
    peer.send("io", python_task("no.such", "unknown", "shadow", "x".into()), body).await;
    expect(&"unknown".into(), &["failed"]);
    let mut all = Vec::new();
    let received = loop {
        let event = listener.next().await;
        all.push(event.clone());
        if event.fields["uuid"] == "revoked" {
            break event;
        }
    };
    assert!(received.fields["eta"].is_string());
    assert_eq!(client().revoke(&"revoked".into(), false).await, Ok(true));
    gate.entered(1).await;
    assert_eq!(running.revoke(true).await, Ok(true));
    // Those that wait for their time are the last ones.
    let mut waits = 2;
    while waits > 0 {
        let event = listener.next().await;
        let kind = event.kind();
        waits -= usize::from(event.fields["uuid"] == "eta" && kind == "task-succeeded");
        waits -= usize::from(event.fields["uuid"] == "revoked" && kind == "task-revoked");
        all.push(event);
    }
    celeriac.shutdown().await.unwrap();
    all.extend(listener.until_offline().await);
    assert_eq!(all[0].kind(), "worker-online", "{:?}", all[0]);
    assert_eq!(by_task(&all), expected);
    let clocks: Vec<u64> = all.iter().filter_map(|event| event.fields["clock"].as_u64()).collect();
    assert!(clocks.is_sorted_by(|a, b| a < b), "{clocks:?}");
    let find = |id: &str, kind: &str| {
        let found = all.iter().find(|event| event.fields["uuid"] == id && event.kind() == kind);
        found.unwrap_or_else(|| panic!("{kind} of {id}"))
    };
    let received = &find(sum.id().as_str(), "task-received").fields;
    assert_eq!((&received["args"], &received["kwargs"]), (&json!("(2, 3)"), &json!("{}")));
    assert_eq!((&received["name"], &received["queue"]), (&json!(name), &json!("io")));
    let succeeded = find(sum.id().as_str(), "task-succeeded");
    assert_eq!((succeeded.key.as_str(), &succeeded.fields["result"]), (MULTI, &json!("5")));
    assert!(succeeded.fields["runtime"].is_f64());
    let failed = &find(failing.id().as_str(), "task-failed").fields;
    assert_eq!(failed["exception"], "ValueError('bad')");
    assert!(failed["traceback"].as_str().unwrap().ends_with("ValueError: bad"), "{failed}");
    let unknown = &find("unknown", "task-failed").fields;
    assert_eq!(
        (&unknown["exception"], &unknown["traceback"]),
        (&json!("NotRegistered('no.such')"), &Value::Null)
    );
    for (id, revocation) in [
        (running.id().as_str(), json!([true, 15, false])),
        ("revoked", json!([false, null, false])),
        ("expired", json!([false, null, true])),
    ] {
        let fields = &find(id, "task-revoked").fields;
        assert_eq!(json!([fields["terminated"], fields["signum"], fields["expired"]]), revocation, "{id}");
    }
    let progress = find(muted.id().as_str(), "task-progress");
    assert_eq!((progress.key.as_str(), &progress.fields["done"]), ("task.progress", &json!(5)));
}

/// More than one message holds, from several tasks at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_tasks_no_event_is_lost_or_out_of_order() {
    const TASKS: usize = 500;
    let url = vhost().await;
    let mut listener = Listener::new(&url).await;
    let celeriac = builder(&url).amqp_options(options()).task_events(true).start().await.unwrap();
    for n in 0..TASKS {
        add::s(i64::try_from(n).unwrap(), 1).send(celeriac.client()).await.unwrap();
    }
    let (mut all, mut succeeded) = (Vec::new(), 0);
    while succeeded < TASKS {
        let event = listener.next().await;
        succeeded += usize::from(event.kind() == "task-succeeded");
        all.push(event);
    }
    celeriac.shutdown().await.unwrap();
    let told = by_task(&all);
    assert_eq!(told.len(), TASKS);
    for (id, kinds) in told {
        assert_eq!(kinds, ["received", "started", "succeeded"], "{id}");
    }
    let clocks: Vec<u64> = all.iter().filter_map(|event| event.fields["clock"].as_u64()).collect();
    assert!(clocks.is_sorted_by(|a, b| a < b), "{clocks:?}");
}

/// As with Celery: until somebody switches them on, there are only the worker's own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn task_events_are_off_until_they_are_switched_on() {
    let url = vhost().await;
    let mut listener = Listener::new(&url).await;
    let celeriac = builder(&url).amqp_options(options()).start().await.unwrap();
    let run = async || {
        let sum = add::s(1, 1).send(celeriac.client()).await.unwrap();
        sum.get(LONG).await.unwrap();
        sum.id().to_string()
    };
    let online = listener.next().await;
    assert_eq!((online.kind(), online.key.as_str()), ("worker-online", "worker.online"));
    assert_eq!((&online.fields["freq"], &online.fields["sw_ident"]), (&json!(2.0), &json!("celeriac")));
    let silent = run().await;
    for (method, answer) in
        [("enable_events", "task events enabled"), ("enable_events", "task events already enabled")]
    {
        assert_eq!(listener.ask(method, 0).await, json!({ "ok": answer }));
    }
    let loud = run().await;
    for (method, answer) in
        [("disable_events", "task events disabled"), ("disable_events", "task events already disabled")]
    {
        assert_eq!(listener.ask(method, 0).await, json!({ "ok": answer }));
    }
    let silent_again = run().await;
    celeriac.shutdown().await.unwrap();
    let told = by_task(&listener.until_offline().await);
    assert!(!told.contains_key(&silent) && !told.contains_key(&silent_again), "{told:?}");
    assert_eq!(told[&loud], ["received", "started", "succeeded"]);
    assert_eq!(told.len(), 1);
}

/// `-E` of `celery worker`, as an option: nobody needs to switch them on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn task_events_are_on_from_the_start_if_that_is_wanted() {
    let url = vhost().await;
    let mut listener = Listener::new(&url).await;
    let wanted = options().with_task_events(true);
    let celeriac = builder(&url).amqp_options(wanted).start().await.unwrap();
    let sum = add::s(1, 1).send(celeriac.client()).await.unwrap();
    sum.get(LONG).await.unwrap();
    celeriac.shutdown().await.unwrap();
    let told = by_task(&listener.until_offline().await);
    assert_eq!(told[sum.id().as_str()], ["received", "started", "succeeded"]);
    assert_eq!(told.len(), 1);
}

/// Every receiver asks for a heartbeat when it starts, and what it says of the time is heard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_that_is_asked_for_comes_at_once_and_the_clock_is_heard() {
    const LATER: u64 = 1 << 40;
    let url = vhost().await;
    let mut listener = Listener::new(&url).await;
    let celeriac = builder(&url).amqp_options(options()).start().await.unwrap();
    listener.of_kind("worker-online").await;
    assert_eq!(listener.ask("heartbeat", LATER).await, Value::Null);
    let asked = loop {
        let event = listener.of_kind("worker-heartbeat").await;
        if event.fields["freq"] == 5 {
            break event.fields;
        }
    };
    assert!(asked["clock"].as_u64().unwrap() > LATER && asked.get("active").is_none(), "{asked}");
    celeriac.shutdown().await.unwrap();
    listener.until_offline().await;
}

/// Heartbeats do not come from the event loops that run tasks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_event_loops_are_blocked_is_seen_alive() {
    let url = vhost().await;
    let mut listener = Listener::new(&url).await;
    let celeriac = builder(&url).amqp_options(options()).arbiters(1).start().await.unwrap();
    let gate = Gate::new();
    let blocking = blocks_its_event_loop::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    let mut active = 0;
    while active < 2 {
        let heartbeat = listener.of_kind("worker-heartbeat").await.fields;
        active += u32::from(heartbeat["active"] == 1 && heartbeat["processed"] == 1);
    }
    gate.open();
    blocking.get(LONG).await.unwrap();
    celeriac.shutdown().await.unwrap();
    listener.until_offline().await;
}

/// What happens while the connection is away is told when it is back, after the worker has said that it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_is_online_again_after_its_connection_was_lost() {
    let url = vhost().await;
    let mut listener = Listener::new(&url).await;
    let proxy = blocking(|| Proxy::start(RabbitMq::shared().address())).await;
    let celeriac = builder(&proxy.url(&url)).amqp_options(options()).task_events(true).start().await.unwrap();
    listener.of_kind("worker-online").await;
    let gate = Gate::new();
    let held = hold::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    let mut told = Vec::new();
    while told.len() < 2 {
        let event = listener.next().await;
        told.extend((event.fields["uuid"] == held.id().as_str()).then(|| event.kind().to_owned()));
    }
    assert_eq!(told, ["task-received", "task-started"]);
    proxy.refuse();
    proxy.cut();
    gate.open();
    gate.left(1).await;
    proxy.resume();
    let online = loop {
        let event = listener.next().await;
        if event.kind() != "worker-heartbeat" {
            break event;
        }
    };
    assert_eq!(online.kind(), "worker-online");
    let succeeded = listener.of_kind("task-succeeded").await;
    assert_eq!(succeeded.fields["uuid"], held.id().as_str());
    celeriac.shutdown().await.unwrap();
    listener.until_offline().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_told_if_that_is_wanted() {
    let url = vhost().await;
    let mut listener = Listener::new(&url).await;
    let wanted = options().with_task_sent_events(true);
    let celeriac = builder(&url).amqp_options(wanted).start().await.unwrap();
    let sum = add::s(4, 5).send(celeriac.client()).await.unwrap();
    let sent = listener.of_kind("task-sent").await;
    assert_eq!(sent.key, "task.sent");
    let fields = sent.fields;
    assert!(
        fields["hostname"].as_str().unwrap().starts_with(&format!("gen{}@", std::process::id())),
        "{fields}"
    );
    assert_eq!((&fields["uuid"], &fields["args"]), (&json!(sum.id().as_str()), &json!("(4, 5)")));
    assert_eq!(
        (&fields["queue"], &fields["exchange"], &fields["routing_key"]),
        (&json!("io"), &json!(""), &json!("io"))
    );
    celeriac.shutdown().await.unwrap();
    let told = by_task(&listener.until_offline().await);
    assert!(told.is_empty(), "{told:?}");
}

/// Workers that gossip elect one among them only if all that are alive say that they have heard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elections_are_acknowledged() {
    let url = vhost().await;
    let mut listener = Listener::new(&url).await;
    let celeriac = builder(&url).amqp_options(options()).start().await.unwrap();
    listener.of_kind("worker-online").await;
    let candidacy = json!({
        "type": "worker-elect", "hostname": "w1@python", "pid": 1, "clock": 5, "timestamp": 0.5, "utcoffset": 0.0,
        "id": "e1", "topic": "task", "action": {"task": "t"}, "cver": 1,
    });
    let acknowledged = async {
        // The worker may not listen yet; candidates are not asked for twice.
        loop {
            let body = candidacy.to_string();
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let properties = with(&[("hostname", text("w1@python"))]).with_delivery_mode(1).with_priority(0);
            let told = listener.peer.channel.basic_publish(
                EXCHANGE.into(),
                "worker.elect".into(),
                options,
                body.as_bytes(),
                properties,
            );
            told.await.unwrap().await.unwrap();
            let patience = Duration::from_secs(1);
            if let Ok(ack) = tokio::time::timeout(patience, listener.of_kind("worker-elect-ack")).await {
                return ack;
            }
        }
    };
    let ack = tokio::time::timeout(LONG, acknowledged).await.expect("an acknowledgement");
    assert_eq!((ack.key.as_str(), &ack.fields["id"]), ("worker.elect.ack", &json!("e1")));
    assert_eq!(ack.fields["hostname"], NODE);
    celeriac.shutdown().await.unwrap();
}

/// A program that has other names for things says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_go_to_another_exchange_if_it_is_named() {
    let url = vhost().await;
    let mut listener = Listener::new(&url).await;
    let quiet = builder(&url).amqp_options(options().with_event_exchange("other")).start().await.unwrap();
    add::s(1, 1).send(quiet.client()).await.unwrap().get(LONG).await.unwrap();
    quiet.shutdown().await.unwrap();
    let loud = runtime(&url).await;
    let first = listener.next().await;
    assert_eq!(first.kind(), "worker-online");
    assert_ne!(first.fields["hostname"], NODE);
    loud.shutdown().await.unwrap();
}
