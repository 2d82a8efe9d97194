//! What is no task, or was given up: kept with its reason, looked at, put back. The worker lives on.

use std::process::Command;
use std::time::Duration;

use celeriac::broker::DeadLetter;
use celeriac::broker::amqp::{AmqpOptions, QueueType};
use celeriac::task::Task;
use celeriac::{Celeriac, State, TaskError, TaskId, task};
use lapin::options::{BasicGetOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, ExchangeKind};

use crate::kit::{LONG, add, io_queue, record, status_of, until};
use crate::rabbit::{Peer, builder, runtime, task as python, text, vhost, with};
use crate::services::blocking;

const EMBED: &str = r#"{"callbacks":null,"errbacks":null,"chain":null,"chord":null}"#;

async fn letters(celeriac: &Celeriac, count: usize) -> Vec<DeadLetter> {
    until("all dead letters are there", async || celeriac.dead_letters(100).await.unwrap().len() == count)
        .await;
    celeriac.dead_letters(100).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_kept_and_the_worker_lives() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let peer = Peer::connect(&url).await;
    let name = add::Task::NAME;
    let whole = format!("[[2,3],{{}},{EMBED}]");
    let huge = format!("[[\"{}\",3],{{}},{EMBED}]", "x".repeat(5 << 20));
    let no_type = BasicProperties::default().with_headers(python(name, "no-type").headers().clone().unwrap());
    let pickle = python(name, "pickle").with_content_type("application/x-python-serialize".into());
    let refused: [(BasicProperties, &[u8], &str); 6] = [
        (BasicProperties::default(), b"\x00\xff garbage", "content type"),
        (no_type, whole.as_bytes(), "content type"),
        (pickle, b"\x80\x04", "pickle"),
        (python(name, "two"), b"[[2],{}]", "body"),
        (python(name, "huge"), huge.as_bytes(), "takes more than"),
        (with(&[("x", text("y"))]), b"{\"a\":1}", "task"),
    ];
    for (properties, body, _) in &refused {
        peer.send("io", properties.clone(), body).await;
    }
    let good = python(name, "good");
    peer.send("io", good, whole.as_bytes()).await;
    // An ETA in seconds is not what Celery writes, and is told apart from one that is.
    let eta = with(&[
        ("task", text(name)),
        ("id", text("integer-eta")),
        ("eta", lapin::types::AMQPValue::LongLongInt(1_795_339_501)),
    ]);
    peer.send("io", eta, whole.as_bytes()).await;
    let client = celeriac.client();
    let sum = tokio::time::timeout(LONG, client.wait(&TaskId::from("good"))).await.unwrap().unwrap();
    assert_eq!(sum.result.as_deref(), Some("5"), "the worker lives");
    let dead = letters(&celeriac, 7).await;
    for ((_, _, part), letter) in refused.iter().zip(&dead) {
        assert!(letter.reason.contains(part), "`{part}` in `{}`", letter.reason);
        assert_eq!(letter.message.queue, "io");
    }
    assert!(dead[6].reason.contains("eta"), "{}", dead[6].reason);
    for id in ["pickle", "huge", "integer-eta"] {
        let record = tokio::time::timeout(LONG, client.wait(&TaskId::from(id))).await.unwrap().unwrap();
        assert_eq!(
            (record.state, record.error_type.as_deref()),
            (State::Failure, Some("InvalidMessage")),
            "{id}"
        );
    }
    // Byte for byte.
    let first =
        peer.channel.basic_get("celeriac.dead".into(), BasicGetOptions { no_ack: true }).await.unwrap();
    assert_eq!(first.unwrap().delivery.data, b"\x00\xff garbage");
    celeriac.shutdown().await.unwrap();
}

#[task(queue = "io")]
async fn refuses_once(n: u32) -> Result<u32, TaskError> {
    use std::sync::Mutex;
    static SEEN: Mutex<Vec<u32>> = Mutex::new(Vec::new());
    let mut seen = SEEN.lock().unwrap();
    if seen.contains(&n) {
        return Ok(n);
    }
    seen.push(n);
    Err(TaskError::reject(format!("not {n} today")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_requeue_command_puts_back_what_it_is_asked_for() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let mut sent = Vec::new();
    for n in 0..4 {
        let task = refuses_once::s(n).send(celeriac.client()).await.unwrap();
        assert_eq!(record(&task).await.state, State::Rejected);
        sent.push(task);
    }
    letters(&celeriac, 4).await;
    let requeue = async |arguments: &[&str]| {
        let mut arguments: Vec<String> = arguments.iter().map(|s| (*s).to_owned()).collect();
        arguments.splice(0..0, ["requeue".to_owned(), "--broker".to_owned(), url.clone()]);
        let ran = blocking(move || Command::new(env!("CARGO_BIN_EXE_celeriac")).args(arguments).output())
            .await
            .unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap()
    };
    let out = requeue(&["--dry-run"]).await;
    assert!(out.ends_with("4 of 4 dead letters would go back to their queues.\n"), "{out}");
    let none = "0 of 4 dead letters would go back to their queues.\n";
    for filter in
        [["--queue", "cpu"], ["--task", "*.nothing"], ["--reason", "tomorrow"], ["--older-than", "1h"]]
    {
        let out = requeue(&["-n", filter[0], filter[1]]).await;
        assert!(out.starts_with(none), "{out}");
    }
    let out = requeue(&["--task", "*refuses?once", "--queue", "io", "--reason", "not 2 today"]).await;
    assert!(
        out.contains("not 2 today") && out.ends_with("1 of 4 dead letters went back to their queues.\n"),
        "{out}"
    );
    let out = requeue(&["-n", "--reason", "not 2"]).await;
    assert!(out.starts_with("0 of 3 dead letters would go back to their queues.\n"), "{out}");
    assert!(requeue(&["--limit", "1", "--younger-than", "1h"]).await.contains("not 0 today"));
    until("it ran", async || status_of(&celeriac, "io").await.done == 2).await;
    // By the handle, its record is replaced as well.
    assert_eq!(celeriac.requeue_dead_letter(sent[3].id()).await, Ok(true));
    assert_eq!(sent[3].get(LONG).await, Ok(3));
    assert_eq!(celeriac.requeue_dead_letter(sent[3].id()).await, Ok(false));
    assert_eq!(status_of(&celeriac, "io").await.dead, 1);
    celeriac.shutdown_within(Duration::from_secs(20)).await.unwrap();
}

/// With the result backend named, the record of the end goes, and the next run leaves its own.
#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requeued_tasks_record_again() {
    let url = vhost().await;
    let backend = blocking(|| crate::services::Redis::shared().url_of(3)).await;
    let celeriac = crate::rabbit::builder(&url).result_backend(backend.clone()).start().await.unwrap();
    let mut sent = Vec::new();
    for n in 100..140 {
        sent.push(refuses_once::s(n).send(celeriac.client()).await.unwrap());
    }
    for task in &sent {
        assert_eq!(record(task).await.state, State::Rejected);
    }
    letters(&celeriac, 40).await;
    let arguments = ["requeue", "--broker", &url, "--result-backend", &backend, "--limit", "30"];
    let arguments = arguments.map(str::to_owned);
    let ran = blocking(move || Command::new(env!("CARGO_BIN_EXE_celeriac")).args(arguments).output())
        .await
        .unwrap();
    let (out, err) = (String::from_utf8(ran.stdout).unwrap(), String::from_utf8(ran.stderr).unwrap());
    assert!(
        out.ends_with("30 of 40 dead letters went back to their queues.\n") && err.is_empty(),
        "{out}{err}"
    );
    let mut again = 0;
    for (n, task) in (100..).zip(&sent) {
        let is_back = out.contains(task.id().as_str());
        again += usize::from(is_back);
        let wanted = if is_back { State::Success } else { State::Rejected };
        until("its last run is recorded", async || task.state().await == Ok(wanted)).await;
        if is_back {
            assert_eq!(task.get(LONG).await, Ok(n));
        }
    }
    assert_eq!(again, 30);
    celeriac.shutdown_within(Duration::from_secs(20)).await.unwrap();
}

/// A quorum queue counts each look, and RabbitMQ 4 throws a message away after 20 of them if nothing else is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_may_be_looked_at_as_often_as_one_likes() {
    const LOOKS: usize = 25;
    let url = vhost().await;
    let options = AmqpOptions::default().queue_type(QueueType::Quorum);
    let celeriac = crate::rabbit::builder(&url).amqp_options(options).start().await.unwrap();
    let sent = refuses_once::s(500).send(celeriac.client()).await.unwrap();
    assert_eq!(record(&sent).await.state, State::Rejected);
    // A quorum queue that was just made may not be there yet for who fetches from it.
    until("the letter is there", async || {
        celeriac.dead_letters(10).await.is_ok_and(|found| found.len() == 1)
    })
    .await;
    for look in 0..LOOKS {
        // What a look has taken is back in a moment.
        let what = format!("it is there for look {look}");
        until(&what, async || celeriac.dead_letters(10).await.unwrap().len() == 1).await;
    }
    assert_eq!(celeriac.requeue_dead_letter(sent.id()).await, Ok(true));
    assert_eq!(sent.get(LONG).await, Ok(500));
    celeriac.shutdown().await.unwrap();

    // So does RabbitMQ with a queue that has its limit.
    let peer = Peer::connect(&url).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(20));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    peer.channel.queue_declare("limited".into(), durable, arguments).await.unwrap();
    peer.send("limited", python("any", "any"), b"[]").await;
    let look = async || {
        let again = Peer::connect(&url).await;
        let got = again.channel.basic_get("limited".into(), BasicGetOptions::default()).await.unwrap();
        again.channel.close(200, "OK".into()).await.unwrap();
        got.is_some()
    };
    for n in 0..20 {
        until(&format!("it is there for look {n}"), async || look().await).await;
    }
    until("it is thrown away", async || !look().await).await;
}

/// The exchange `graves`, and the queue `grave` at it.
async fn graveyard(peer: &Peer) {
    let (channel, none) = (&peer.channel, FieldTable::default);
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare("graves".into(), ExchangeKind::Direct, durable, none()).await.unwrap();
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("grave".into(), durable, none()).await.unwrap();
    let bind = QueueBindOptions::default();
    channel.queue_bind("grave".into(), "graves".into(), "rejected".into(), bind, none()).await.unwrap();
}

/// The oldest letter in `grave`: its headers, and its body.
async fn buried(peer: &Peer) -> (std::collections::BTreeMap<String, AMQPValue>, Vec<u8>) {
    until("it is in the grave", async || peer.ready("grave").await > 0).await;
    let got = peer.channel.basic_get("grave".into(), BasicGetOptions { no_ack: true }).await.unwrap();
    let got = got.unwrap().delivery;
    let headers = got.properties.headers().clone().unwrap_or_default();
    let headers = headers.inner().iter().map(|(name, value)| (name.as_str().to_owned(), value.clone()));
    (headers.collect(), got.data)
}

fn death(headers: &std::collections::BTreeMap<String, AMQPValue>, fact: &str) -> String {
    let AMQPValue::FieldArray(deaths) = &headers["x-death"] else { panic!("{headers:?}") };
    let AMQPValue::FieldTable(death) = &deaths.as_slice()[0] else { panic!("{deaths:?}") };
    let AMQPValue::LongString(text) = &death.inner()[fact] else { panic!("{death:?}") };
    String::from_utf8_lossy(text.as_bytes()).into_owned()
}

#[task(queue = "io")]
async fn always_refuses(n: u32) -> Result<(), TaskError> {
    Err(TaskError::reject(format!("never {n}")))
}

/// As `basic.reject` does it: the letter is RabbitMQ's, or it looks like that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_with_an_exchange_for_its_letters_gets_them_there() {
    let url = vhost().await;
    let peer = Peer::connect(&url).await;
    graveyard(&peer).await;
    // Two queues are there without such an exchange, whatever their rows say. RabbitMQ would throw a rejected message away.
    for queue in ["made-before", "astray"] {
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        peer.channel.queue_declare(queue.into(), durable, FieldTable::default()).await.unwrap();
    }
    let row = |name: &str, exchange: &str| {
        let arguments = serde_json::json!({
            "x-dead-letter-exchange": exchange, "x-dead-letter-routing-key": "rejected",
        });
        io_queue(name, 2).with_queue_arguments(arguments.as_object().cloned().unwrap())
    };
    let celeriac = builder(&url)
        .queue(row("orders", "graves"))
        .queue(row("made-before", "graves"))
        .queue(row("astray", "nowhere"))
        .start()
        .await
        .unwrap();
    let send = async |n: u32, queue: &str| {
        let sent = always_refuses::s(n).queue(queue).send(celeriac.client()).await.unwrap();
        assert_eq!(record(&sent).await.state, State::Rejected);
        sent.id().to_string()
    };
    let id = send(1, "orders").await;
    let (headers, body) = buried(&peer).await;
    assert_eq!(headers["id"], text(&id));
    assert_eq!((death(&headers, "reason"), death(&headers, "queue")), ("rejected".into(), "orders".into()));
    assert!(!headers.contains_key("celeriac-reason"), "RabbitMQ has made it: {headers:?}");
    assert!(body.starts_with(b"[[1],{},"), "{}", String::from_utf8_lossy(&body));

    // What is no task comes there byte for byte.
    peer.send("orders", BasicProperties::default(), b"\x00\xff garbage").await;
    let (headers, body) = buried(&peer).await;
    assert_eq!((death(&headers, "queue").as_str(), &body[..]), ("orders", &b"\x00\xff garbage"[..]));

    let id = send(2, "made-before").await;
    let (headers, _) = buried(&peer).await;
    assert_eq!(headers["id"], text(&id));
    assert_eq!(headers["celeriac-reason"], text("never 2"));
    let facts = (death(&headers, "reason"), death(&headers, "queue"));
    assert_eq!(facts, ("rejected".into(), "made-before".into()));
    assert_eq!(headers["x-first-death-queue"], text("made-before"));

    // There is no such exchange, and the letter is not lost.
    assert_eq!(celeriac.dead_letters(100).await.unwrap().len(), 0);
    let id = send(3, "astray").await;
    let letters = letters(&celeriac, 1).await;
    assert_eq!((letters[0].message.id.as_str(), letters[0].reason.as_str()), (id.as_str(), "never 3"));
    assert_eq!(celeriac.requeue_dead_letter(&TaskId::from(id.as_str())).await, Ok(true));
    celeriac.shutdown().await.unwrap();
}
