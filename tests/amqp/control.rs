//! Remote control as Celery's tools and as nobody in his right mind uses it.

use std::collections::BTreeSet;
use std::time::Instant;

use celeriac::protocol::control;
use celeriac::{Celeriac, State, TaskError, task};
use futures_util::StreamExt;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Confirmation, ExchangeKind};
use serde_json::{Value, json};

use crate::kit::{Gate, LONG, add, record, until};
use crate::rabbit::{Peer, builder, runtime, vhost};
use crate::services::{RabbitMq, blocking};

/// Somebody who asks workers.
pub struct Caller {
    pub peer: Peer,
    answers: lapin::Consumer,
}

impl Caller {
    pub async fn new(url: &str) -> Self {
        let peer = Peer::connect(url).await;
        let (channel, none) = (&peer.channel, FieldTable::default);
        for (exchange, kind) in
            [(control::EXCHANGE, ExchangeKind::Fanout), (control::REPLY_EXCHANGE, ExchangeKind::Direct)]
        {
            let options = ExchangeDeclareOptions::default();
            channel.exchange_declare(exchange.into(), kind, options, none()).await.unwrap();
        }
        let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        channel.queue_declare("answers".into(), exclusive, none()).await.unwrap();
        let bind = QueueBindOptions::default();
        let bound =
            channel.queue_bind("answers".into(), control::REPLY_EXCHANGE.into(), "me".into(), bind, none());
        bound.await.unwrap();
        let no_ack = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let answers = channel.basic_consume("answers".into(), "".into(), no_ack, none()).await.unwrap();
        Self { peer, answers }
    }

    /// Says something to all who listen. A worker that has just started may not listen yet; then RabbitMQ sends the message
    /// back, and it is said again.
    pub async fn say(&self, properties: BasicProperties, body: &[u8]) {
        let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        until("somebody listens", async || {
            let (exchange, properties) = (control::EXCHANGE.into(), properties.clone());
            let said = self.peer.channel.basic_publish(exchange, "".into(), mandatory, body, properties);
            matches!(said.await.unwrap().await.unwrap(), Confirmation::Ack(None))
        })
        .await;
    }

    pub async fn ask(&self, request: Value) {
        let json = BasicProperties::default().with_content_type(control_type().into());
        self.say(json, request.to_string().as_bytes()).await;
    }

    /// Asks, and wants an answer under this ticket.
    pub async fn ask_for(&self, method: &str, arguments: Value, ticket: &str) {
        let reply_to = json!({"exchange": control::REPLY_EXCHANGE, "routing_key": "me"});
        let request =
            json!({"method": method, "arguments": arguments, "ticket": ticket, "reply_to": reply_to});
        self.ask(request).await;
    }

    /// Asks, and waits for the answer.
    pub async fn told(&mut self, method: &str, arguments: Value) -> Value {
        self.ask_for(method, arguments, method).await;
        let (ticket, answer) = self.answer().await;
        assert_eq!(ticket, method, "{answer}");
        answer
    }

    /// Asks until the answer is as it should be: an event loop that has no time to answer is left out of lists.
    pub async fn until_told(
        &mut self,
        method: &str,
        arguments: Value,
        is_so: impl Fn(&Value) -> bool,
    ) -> Value {
        let start = Instant::now();
        loop {
            let told = self.told(method, arguments.clone()).await;
            if is_so(&told) {
                return told;
            }
            assert!(start.elapsed() < LONG, "{method} never became what it should be: {told}");
        }
    }

    /// As [`until_told`](Self::until_told), of a list with so many items.
    pub async fn list_of(&mut self, length: usize, method: &str, arguments: Value) -> Value {
        let is_so = |told: &Value| told.as_array().is_some_and(|list| list.len() == length);
        self.until_told(method, arguments, is_so).await
    }

    /// The next answer: its ticket, and what it says.
    pub async fn answer(&mut self) -> (String, Value) {
        let delivery = tokio::time::timeout(LONG, self.answers.next()).await.expect("an answer");
        let delivery = delivery.unwrap().unwrap();
        let ticket = delivery.properties.headers().as_ref().unwrap().inner()["ticket"].clone();
        let lapin::types::AMQPValue::LongString(ticket) = ticket else { panic!("{ticket:?}") };
        let body: Value = serde_json::from_slice(&delivery.data).unwrap();
        let answer = body.as_object().unwrap().values().next().unwrap().clone();
        (String::from_utf8_lossy(ticket.as_bytes()).into_owned(), answer)
    }

    /// The worker answers, and has not answered anything before.
    pub async fn only_pings_back(&mut self, ticket: &str) {
        self.ask_for("ping", json!({}), ticket).await;
        assert_eq!(self.answer().await, (ticket.to_owned(), json!({"ok": "pong"})));
    }
}

fn control_type() -> &'static str {
    "application/json"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_known_is_not_answered_and_every_command_is() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let mut caller = Caller::new(&url).await;
    caller.only_pings_back("first").await;
    for question in ["somebodys_own", "", "PING", "Active", "dump_nothing"] {
        caller.ask_for(question, json!({}), question).await;
    }
    caller.only_pings_back("second").await;
    caller.only_pings_back("third").await;
    // Those about events are known.
    let commands: Vec<_> = control::CHANGES.into_iter().filter(|name| !name.ends_with("_events")).collect();
    for command in &commands {
        caller.ask_for(command, json!({}), command).await;
    }
    let mut answered = BTreeSet::new();
    for _ in &commands {
        let (ticket, answer) = caller.answer().await;
        assert!(answer["error"].is_string() || answer["ok"].is_string(), "{ticket}: {answer}");
        answered.insert(ticket);
    }
    assert_eq!(answered, commands.into_iter().map(str::to_owned).collect());
    caller.ask_for("revoke", json!({"task_id": 5}), "wrong").await;
    assert!(caller.answer().await.1["error"].as_str().unwrap().contains("task_id"));
    celeriac.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_without_names_is_everybody() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let mut caller = Caller::new(&url).await;
    let reply_to = json!({"exchange": control::REPLY_EXCHANGE, "routing_key": "me"});
    for (n, more) in [
        json!({"destination": []}),
        json!({"destination": null, "pattern": "", "matcher": "glob"}),
        json!({"pattern": "celeriac@*", "matcher": "glob"}),
    ]
    .into_iter()
    .enumerate()
    {
        let mut request = json!({"method": "ping", "ticket": n.to_string(), "reply_to": reply_to});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        caller.ask(request).await;
        assert_eq!(caller.answer().await.0, n.to_string());
    }
    for other in [json!({"destination": ["w1@elsewhere"]}), json!({"pattern": "w1@*", "matcher": "glob"})] {
        let mut request = json!({"method": "ping", "ticket": "other", "reply_to": reply_to});
        request.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
        caller.ask(request).await;
    }
    caller.only_pings_back("last").await;
    celeriac.shutdown().await.unwrap();
}

/// Whatever is said there, the worker works on, and answers who asks properly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_control_messages_are_dropped() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let mut caller = Caller::new(&url).await;
    let json = || BasicProperties::default().with_content_type("application/json".into());
    let ping =
        r#"{"method":"ping","ticket":"t","reply_to":{"exchange":"reply.celery.pidbox","routing_key":"me"}}"#;
    let huge = format!(r#"{{"method":"revoke","arguments":{{"task_id":"{}"}}}}"#, "x".repeat(5 << 20));
    let long = format!(r#"{{"method":"{}"}}"#, "y".repeat(1 << 20));
    let hostile: Vec<(BasicProperties, &[u8])> = vec![
        (json(), &b"\x00\xff garbage"[..]),
        (json(), b""),
        (json(), b"[]"),
        (json(), b"null"),
        (json(), br#"{"method":5}"#),
        (json(), br#"{"method":"ping","destination":"celeriac@x"}"#),
        (json(), br#"{"method":"ping","destination":[7]}"#),
        (json(), br#"{"method":"ping","pattern":{},"matcher":"glob"}"#),
        (json(), br#"{"method":"ping","pattern":"(","matcher":"pcre"}"#),
        (json(), br#"{"method":"ping","matcher":8,"pattern":"*"}"#),
        (json(), br#"{"method":"ping","ticket":{"a":1}}"#),
        (json(), br#"{"method":"ping","reply_to":"somewhere"}"#),
        (json(), br#"{"method":"revoke","arguments":[1]}"#),
        (json(), huge.as_bytes()),
        (json(), long.as_bytes()),
        (json(), &[b'['; 100_000]),
        (BasicProperties::default(), ping.as_bytes()),
        (BasicProperties::default().with_content_type("application/x-python-serialize".into()), b"\x80\x04"),
        (BasicProperties::default().with_content_type("application/unknown".into()), ping.as_bytes()),
    ];
    for (properties, body) in hostile {
        caller.say(properties, body).await;
    }
    caller.only_pings_back("after").await;
    assert_eq!(add::s(1, 1).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(2));
    celeriac.shutdown().await.unwrap();
}

/// Ten thousand questions at once wait their turn in RabbitMQ; meanwhile tasks run, and in the end all is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_questions_holds_up_no_task() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let mut caller = Caller::new(&url).await;
    caller.only_pings_back("first").await;
    let json = || BasicProperties::default().with_content_type(control_type().into());
    let ping = |ticket: &str| {
        let reply_to = json!({"exchange": control::REPLY_EXCHANGE, "routing_key": "me"});
        json!({"method": "ping", "ticket": ticket, "reply_to": reply_to}).to_string()
    };
    let begun = Instant::now();
    let mut said = Vec::new();
    for n in 0..10_000 {
        let (exchange, body) = (control::EXCHANGE.into(), ping(&n.to_string()));
        let options = BasicPublishOptions::default();
        let say = caller.peer.channel.basic_publish(exchange, "".into(), options, body.as_bytes(), json());
        said.push(say.await.unwrap());
    }
    for said in said {
        assert!(said.await.unwrap().is_ack());
    }
    let said = begun.elapsed();
    assert_eq!(add::s(1, 1).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(2));
    caller.say(json(), ping("last").as_bytes()).await;
    // They are obeyed some at a time, so the last one may be answered before others.
    let mut answered = BTreeSet::new();
    while answered.len() < 10_000 + 1 {
        answered.insert(caller.answer().await.0);
    }
    assert!(answered.contains("last"));
    println!("10000 pings, said in {said:?}, were answered after {:?}", begun.elapsed());
    assert_eq!(add::s(2, 2).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(4));
    celeriac.shutdown().await.unwrap();
}

/// An exchange that is not there costs the channel of that one answer, and is not tried again; tasks notice nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_reply_to_closes_nothing_that_matters() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let mut caller = Caller::new(&url).await;
    caller.only_pings_back("first").await;
    let nowhere = "an-exchange-that-is-not-there";
    let sums = async {
        for n in 0..200 {
            let sum = add::s(n, 1).send(celeriac.client()).await.unwrap();
            assert_eq!(sum.get(LONG).await, Ok(n + 1));
        }
    };
    let bad = async {
        for n in 0..40 {
            for to in [
                json!({"exchange": nowhere, "routing_key": ""}),
                json!({"exchange": control::EXCHANGE, "routing_key": ""}),
                json!({"exchange": "x".repeat(300), "routing_key": ""}),
                json!({"exchange": "", "routing_key": "a-queue-that-is-not-there"}),
            ] {
                caller.ask(json!({"method": "ping", "ticket": "bad", "reply_to": to})).await;
            }
            caller.only_pings_back(&n.to_string()).await;
        }
    };
    tokio::join!(sums, bad);
    let refusals = async || {
        let log = blocking(|| RabbitMq::shared().log()).await;
        log.lines().filter(|line| line.contains(nowhere)).count()
    };
    until("RabbitMQ says so", async || refusals().await > 0).await;
    // Those that were on their way when the first came back; not one for each of forty.
    let refusals = refusals().await;
    assert!(refusals <= 20, "{refusals}");
    celeriac.shutdown().await.unwrap();
}

#[task(queue = "io")]
async fn fails_when_let(gate: String) -> Result<(), TaskError> {
    Gate::named(&gate).pass().await;
    Err(TaskError::permanent("it really failed"))
}

/// Celery's `revoke` without `terminate` keeps a task from starting, and does nothing to one that runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_by_another_leaves_the_failure_of_a_running_task() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let mut caller = Caller::new(&url).await;
    let gate = Gate::new();
    let running = fails_when_let::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    let ids = json!({"task_id": [running.id(), "another"], "terminate": false});
    caller.ask_for("revoke", ids, "flag").await;
    let answer = caller.answer().await.1;
    let (one, two) = (format!("'{}'", running.id()), "'another'");
    assert_eq!(answer, json!({"ok": format!("tasks {{{one}, {two}}} flagged as revoked")}));
    gate.open();
    let record = record(&running).await;
    assert_eq!((record.state, record.errors), (State::Failure, vec!["it really failed".to_owned()]));
    // With it, whoever runs the task says so, and the run ends.
    let gate = Gate::new();
    let running = fails_when_let::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    caller
        .ask_for("terminate", json!({"task_id": [running.id(), "another"], "signal": "SIGTERM"}), "end")
        .await;
    assert_eq!(caller.answer().await.1, json!({"ok": format!("terminate: {}", running.id())}));
    gate.left(1).await;
    let in_time = tokio::time::timeout(LONG, crate::kit::record(&running)).await.unwrap();
    assert_eq!(in_time.state, State::Revoked);
    celeriac.shutdown().await.unwrap();
}

/// Celery's `@control_command` and `@inspect_command`: they answer beside the built-in commands, and what goes wrong in
/// one is its own affair.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_has_commands_of_its_own() {
    let url = vhost().await;
    let builder = builder(&url)
        .control_command("set_mode", |arguments| async move {
            let mode = arguments["mode"].as_str().ok_or("set_mode() needs `mode`, a text")?;
            Ok(json!({ "ok": format!("the mode is {mode}") }))
        })
        .inspect_command("mode", |arguments| async move { Ok(json!([arguments, null])) })
        .inspect_command("falls", |arguments| async move {
            assert!(arguments.is_null(), "it fell");
            Ok(Value::Null)
        })
        .inspect_command("falls_at_once", |arguments| {
            assert!(arguments.is_null(), "not even a future");
            async { Ok(Value::Null) }
        });
    let celeriac = builder.start().await.unwrap();
    let mut caller = Caller::new(&url).await;
    let careful = caller.told("set_mode", json!({"mode": "careful"})).await;
    assert_eq!(careful, json!({"ok": "the mode is careful"}));
    assert_eq!(caller.told("set_mode", json!({})).await, json!({"error": "set_mode() needs `mode`, a text"}));
    assert_eq!(caller.told("mode", json!({"n": 5, "of": ["a"]})).await, json!([{"n": 5, "of": ["a"]}, null]));
    for (command, panic) in [("falls", "it fell"), ("falls_at_once", "not even a future")] {
        let answer = caller.told(command, json!({})).await;
        let expected = format!("RuntimeError('{command}() panicked: {panic}')");
        assert_eq!(answer, json!({ "error": expected }));
    }
    // A question that another program has is not answered here, and the built-in commands are as before.
    caller.ask_for("moods", json!({}), "unknown").await;
    caller.only_pings_back("after").await;
    let replies = celeriac.fleet().control("set_mode", json!({"mode": "bold"})).await.unwrap();
    assert_eq!(replies.into_values().collect::<Vec<_>>(), [json!({"ok": "the mode is bold"})]);
    assert_eq!(add::s(1, 1).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(2));
    celeriac.shutdown().await.unwrap();
}

/// It is said before anything is connected to.
#[tokio::test]
async fn a_command_with_the_name_of_another_is_an_error_at_start() {
    let start = async |names: &[&str]| {
        let mut builder = Celeriac::builder().amqp("amqp://127.0.0.1:1/");
        for name in names {
            builder = builder.control_command(*name, |_| async { Ok(Value::Null) });
        }
        builder.start().await.map(drop).unwrap_err().to_string()
    };
    assert!(start(&["rate_limit"]).await.contains("`rate_limit` cannot be added: Celery or Celeriac has"));
    assert!(start(&["flush", "flush"]).await.contains("`flush` cannot be added: the program adds two"));
    assert!(start(&["flush"]).await.contains("127.0.0.1:1"), "a good name is not in the way");
}
