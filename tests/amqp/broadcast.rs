//! Broadcasts: every process runs each task once, whoever has sent it, and what belongs to one run stays with it.

use std::time::Duration;

use celeriac::app::StartError;
use celeriac::broker::amqp::AmqpOptions;
use celeriac::catalogue::Catalogue;
use celeriac::task::Task;
use celeriac::{Celeriac, Context, EnqueueError, TaskError, serial_task, task};
use lapin::ExchangeKind;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};

use crate::control::Caller;
use crate::kit::{self, io_queue, note, notes, status_of, until};
use crate::rabbit::{Peer, builder, task as python, vhost};

/// Notes its run; of those that `fails`, the first attempt fails.
#[task(queue = "io", ignore_result)]
async fn reload(ctx: Context, fails: bool) -> Result<(), TaskError> {
    note(ctx.id(), format!("retries {}", ctx.retries()));
    if fails && ctx.retries() == 0 {
        return Err(TaskError::retry_in(Duration::from_millis(20), "once"));
    }
    Ok(())
}

#[task(queue = "io", ignore_result)]
async fn refuses(ctx: Context) -> Result<(), TaskError> {
    note(ctx.id(), "refused");
    Err(TaskError::reject("not here"))
}

#[serial_task(name = "broadcast.one_by_one", key = "{n}", queue = "io")]
async fn one_by_one(n: u32) {
    let _ = n;
}

async fn process(url: &str, node: &str) -> Celeriac {
    let options = AmqpOptions::default().with_node(node);
    let news = io_queue("news", 2).with_broadcast(true);
    builder(url).amqp_options(options).queue(news).start().await.unwrap()
}

/// A worker as Celery's: with a queue of its own at the exchange, which it declares as kombu does.
async fn listener(url: &str) -> Peer {
    let peer = Peer::connect(url).await;
    let (channel, none) = (&peer.channel, FieldTable::default);
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare("news".into(), ExchangeKind::Fanout, durable, none()).await.unwrap();
    let alone = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("theirs".into(), alone, none()).await.unwrap();
    let bind = QueueBindOptions::default();
    channel.queue_bind("theirs".into(), "news".into(), "".into(), bind, none()).await.unwrap();
    peer
}

/// The id of the only message that has come there.
async fn only_id(peer: &Peer) -> String {
    let no_ack = || BasicGetOptions { no_ack: true };
    until("it is there", async || peer.ready("theirs").await > 0).await;
    let got = peer.channel.basic_get("theirs".into(), no_ack()).await.unwrap().unwrap().delivery;
    assert_eq!(peer.ready("theirs").await, 0, "it has come once");
    let AMQPValue::LongString(id) = got.properties.headers().as_ref().unwrap().inner()["id"].clone() else {
        panic!("an id")
    };
    String::from_utf8_lossy(id.as_bytes()).into_owned()
}

async fn until_done(processes: &[&Celeriac], runs: u64) {
    for process in processes {
        until("it has run here", async || status_of(process, "news").await.done == runs).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_process_runs_it_once_whoever_sends_it() {
    let url = vhost().await;
    let (one, two) = (process(&url, "one@test").await, process(&url, "two@test").await);
    let peer = listener(&url).await;
    let sent = reload::s(false).queue("news").send(one.client()).await.unwrap();
    assert_eq!(sent.receipt().queue, "news");
    until_done(&[&one, &two], 1).await;
    assert_eq!(notes(sent.id()).len(), 2);
    assert_eq!(only_id(&peer).await, sent.id().as_str());

    // As a Python client sends it: to the exchange, by the key of the default queue.
    let properties = python(reload::Task::NAME, "from-python");
    let options = BasicPublishOptions::default();
    let body = b"[[false], {}, {}]";
    let said = peer.channel.basic_publish("news".into(), "celery".into(), options, body, properties);
    said.await.unwrap().await.unwrap();
    until_done(&[&one, &two], 2).await;
    assert_eq!(notes(&"from-python".into()).len(), 2);

    // Who is not served here only sends.
    let row = io_queue("news", 1).with_broadcast(true).with_served(false);
    let sender = builder(&url).queue(row).start().await.unwrap();
    only_id(&peer).await;
    let sent = reload::s(false).queue("news").send(sender.client()).await.unwrap();
    until_done(&[&one, &two], 3).await;
    assert_eq!((notes(sent.id()).len(), only_id(&peer).await), (2, sent.id().to_string()));

    let mut caller = Caller::new(&url).await;
    caller.ask_for("active_queues", json!({}), "queues").await;
    let mut own = Vec::new();
    for _ in 0..3 {
        let (_, queues) = caller.answer().await;
        let queues = queues.as_array().unwrap().clone();
        own.extend(queues.into_iter().filter(|queue| queue["alias"] == "news"));
    }
    assert_eq!(own.len(), 2, "{own:?}");
    for queue in &own {
        assert!(queue["name"].as_str().unwrap().starts_with("bcast."), "{queue}");
        assert_eq!(queue["exchange"]["type"], Value::from("fanout"));
    }
    assert_ne!(own[0]["name"], own[1]["name"]);
    for celeriac in [one, two, sender] {
        celeriac.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_one_run_stays_with_it() {
    let url = vhost().await;
    let (one, two) = (process(&url, "one@test").await, process(&url, "two@test").await);
    let peer = listener(&url).await;
    let sent = reload::s(true).queue("news").send(one.client()).await.unwrap();
    let runs = || {
        let mut runs = notes(sent.id());
        runs.sort();
        runs
    };
    until("each process has tried twice", async || runs().len() >= 4).await;
    assert_eq!(runs(), ["retries 0", "retries 0", "retries 1", "retries 1"]);
    assert_eq!(only_id(&peer).await, sent.id().as_str());

    // It waits for its time in RabbitMQ, and comes to all.
    let later = reload::s(false).queue("news").countdown(Duration::from_millis(1200));
    let later = later.send(two.client()).await.unwrap();
    until("both have run it", async || notes(later.id()).len() == 2).await;
    assert_eq!(only_id(&peer).await, later.id().as_str());

    // There is no queue to which one run's letter could go back.
    let refused = refuses::s().queue("news").send(one.client()).await.unwrap();
    until("both have refused it", async || notes(refused.id()).len() == 2).await;
    assert_eq!(only_id(&peer).await, refused.id().as_str());
    assert_eq!(one.dead_letters(10).await.unwrap().len(), 0);

    // It takes tasks on a new connection, too.
    one.shutdown().await.unwrap();
    two.shutdown().await.unwrap();
    let again = process(&url, "one@test").await;
    let sent = reload::s(false).queue("news").send(again.client()).await.unwrap();
    until_done(&[&again], 1).await;
    assert_eq!(notes(sent.id()), ["retries 0"]);
    again.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_one_run_is_refused() {
    let celeriac = kit::builder().in_memory().queue(io_queue("news", 2).with_broadcast(true));
    let celeriac = celeriac.start().await.unwrap();
    let kept = reload::s(false).queue("news").ignore_result(false).send(celeriac.client()).await;
    let error = kept.unwrap_err();
    assert!(matches!(&error, EnqueueError::Broadcast { queue, .. } if queue == "news"), "{error}");
    assert!(error.to_string().contains("say `ignore_result`"), "{error}");
    // A broker without a server has this process alone.
    let sent = reload::s(false).queue("news").send(celeriac.client()).await.unwrap();
    until_done(&[&celeriac], 1).await;
    assert_eq!(notes(sent.id()), ["retries 0"]);
    celeriac.shutdown().await.unwrap();

    let catalogue = Catalogue::new()
        .with_queue(io_queue("io", 2))
        .with_queue(io_queue("news", 2).with_broadcast(true))
        .with_route("broadcast.one_by_one", "news");
    let started = Celeriac::builder().in_memory().catalogue(catalogue).start().await;
    let error = started.err().unwrap();
    assert!(matches!(&error, StartError::Broadcast { queue, .. } if queue == "news"), "{error}");
    assert!(error.to_string().starts_with("task `broadcast.one_by_one` ("), "{error}");
    let text = r#"
[[queue]]
name = "celery"
broadcast = true
[[queue]]
name = "q"
broadcast = true
queue_type = "quorum"
"#;
    let errors = Catalogue::parse(text, "celeriac.toml").unwrap_err().to_string();
    assert!(errors.contains("it is the default queue, and every process would run every task"), "{errors}");
    assert!(errors.contains("a process's own queue for broadcasts is classic"), "{errors}");
    assert_eq!(errors.lines().count(), 2, "{errors}");
}
