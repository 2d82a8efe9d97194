//! Flower 2.2 and celery-exporter 0.11 in front of a fleet of one Python worker and one of ours: each page, each lever of its API,
//! and what it counts. And Prometheus in front of a program of ours, without a fleet and without that exporter.

#[path = "../soil_pages/chromium.rs"]
#[allow(dead_code)] // these tests use their own part of it
mod chromium;
mod exporter;
mod flower;
mod killed;
mod prometheus;

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use celeriac::broker::amqp::AmqpOptions;
use celeriac::catalogue::{Pool, QueueRow};
use celeriac::store::RedisOptions;
use celeriac::{Celeriac, TaskError, task};
use celeriac_test_support as services;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use chromium::Chromium;
use flower::Flower;
use services::{CeleryWorker, Python, RabbitMq, RabbitMqOptions, Redis, Script, await_condition, blocking};

/// The node of these tests. Flower's page of the broker asks its management API.
fn rabbitmq() -> RabbitMq {
    static NODE: LazyLock<RabbitMq> = LazyLock::new(|| RabbitMqOptions::new().management().start());
    NODE.clone()
}

/// What a body waits for.
static GATE: Semaphore = Semaphore::const_new(0);

#[task(name = "shop.add", queue = "rust")]
async fn add(x: i64, y: i64) -> i64 {
    x + y
}

#[task(name = "shop.fails", queue = "rust", max_retries = 0)]
async fn fails(text: String) -> Result<(), TaskError> {
    Err(TaskError::permanent(text))
}

#[task(name = "shop.waits", queue = "rust")]
async fn waits(gate: String) -> Result<String, TaskError> {
    GATE.acquire().await.map_err(TaskError::from_display)?.forget();
    Ok(gate)
}

/// On a machine that has no time for short heartbeats they would cut connections that nobody wants to cut.
fn options() -> AmqpOptions {
    AmqpOptions::default().with_heartbeat(Duration::from_secs(60))
}

/// The workers of all our queues. An event loop that has no time to answer is asked again.
async fn workers(celeriac: &Celeriac) -> usize {
    loop {
        let queues = celeriac.queues().await.unwrap();
        if queues.missing.is_empty() {
            return queues.iter().map(|queue| queue.workers).sum();
        }
    }
}

/// The fleet, and Flower before it.
struct Fleet {
    celeriac: Celeriac,
    flower: Flower,
    python: CeleryWorker,
    /// The name of our worker.
    ours: String,
}

async fn fleet(vhost: &'static str) -> Fleet {
    let (script, python, broker, redis) = blocking(move || {
        let broker = rabbitmq().vhost(vhost);
        let redis = Redis::shared().url();
        let script = Script::new("tests/flower/app.py")
            .env("FLEET_BROKER", broker.replace("amqp://", "pyamqp://"))
            .env("FLEET_BACKEND", redis.clone());
        let python = Python::with_flower().worker(&script.clone().arg("--concurrency=1"), "python");
        (script, python, broker, redis)
    })
    .await;
    let mut row = QueueRow::new("rust");
    (row.pool, row.workers) = (Pool::Io, 4);
    let celeriac = Celeriac::builder()
        .amqp(&broker)
        .amqp_options(options())
        .redis(redis, RedisOptions::default())
        .queue(row)
        .start()
        .await
        .expect("our worker starts");
    let node = celeriac.node().expect("it has a name in the fleet");
    let flower = blocking(move || Flower::start(&script, &rabbitmq().management_api())).await;
    Fleet { celeriac, flower, python, ours: node }
}

impl Fleet {
    /// Asks Flower, which blocks.
    async fn ask<T: Send + 'static>(
        self: &std::sync::Arc<Self>,
        ask: impl FnOnce(&Flower) -> T + Send + 'static,
    ) -> T {
        let this = std::sync::Arc::clone(self);
        blocking(move || ask(&this.flower)).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flower_sees_and_steers_our_worker_as_it_does_pythons() {
    let fleet = std::sync::Arc::new(fleet("flower").await);
    let (ours, theirs) = (fleet.ours.clone(), fleet.python.node().to_owned());
    let client = fleet.celeriac.client();

    // Flower switches the events of tasks on; from then on it sees them.
    let (path, node) = ("/api/workers?status=true", ours.clone());
    fleet
        .ask(move |flower| flower.until(path, |workers| (workers[&node] == json!(true)).then_some(())))
        .await;
    let seen = add::s(2, 3).send(client.clone()).await.unwrap();
    let id = seen.id().to_string();
    assert_eq!(seen.get(services::PATIENCE).await, Ok(5));
    // The first one may have run before the events were on.
    let deadline = Instant::now() + services::PATIENCE;
    let mut known = id;
    loop {
        let asked = known.clone();
        let answer = fleet.ask(move |flower| flower.get(&format!("/api/task/info/{asked}"))).await;
        if answer.status == 200 && answer.json()["state"] == json!("SUCCESS") {
            break;
        }
        assert!(Instant::now() < deadline, "Flower never sees a task of ours: {answer:?}");
        let again = add::s(2, 3).send(client.clone()).await.unwrap();
        assert_eq!(again.get(services::PATIENCE).await, Ok(5));
        known = again.id().to_string();
    }
    let failed = fails::s("no such order".into()).send(client.clone()).await.unwrap();
    failed.get(services::PATIENCE).await.unwrap_err();
    let running = waits::s("gate".into()).send(client.clone()).await.unwrap();

    // What Flower says of single tasks.
    let (node, id) = (ours.clone(), known.clone());
    let info = fleet.ask(move |flower| flower.get(&format!("/api/task/info/{id}")).json()).await;
    assert_eq!(
        (&info["name"], &info["worker"], &info["result"]),
        (&json!("shop.add"), &json!(node), &json!("5"))
    );
    assert!(info["runtime"].is_number(), "{info}");
    let id = failed.id().to_string();
    let path = format!("/api/task/info/{id}");
    let state =
        |wanted: &'static str| move |info: &Value| (info["state"] == json!(wanted)).then(|| info.clone());
    let (asked, wanted) = (path.clone(), state("FAILURE"));
    let info = fleet.ask(move |flower| flower.until(&asked, wanted)).await;
    assert!(info["exception"].as_str().is_some_and(|text| text.contains("no such order")), "{info}");
    assert!(info["traceback"].is_string(), "{info}");
    let (asked, wanted) = (format!("/api/task/info/{}", running.id()), state("STARTED"));
    fleet.ask(move |flower| flower.until(&asked, wanted)).await;

    // The worker's page stands on eight questions, and each is answered by both.
    let asks_all = |node: String| {
        move |flower: &Flower| {
            flower.until(&format!("/api/workers?refresh=1&workername={node}"), |workers| {
                let worker = &workers[&node];
                let asked = [
                    "stats",
                    "active_queues",
                    "registered",
                    "scheduled",
                    "active",
                    "reserved",
                    "revoked",
                    "conf",
                ];
                asked.iter().all(|name| !worker[name].is_null()).then(|| worker.clone())
            })
        }
    };
    let us = fleet.ask(asks_all(ours.clone())).await;
    let them = fleet.ask(asks_all(theirs.clone())).await;
    let (path, node) = (format!("/api/workers?refresh=1&workername={ours}"), ours.clone());
    let id = json!(running.id().as_str());
    fleet
        .ask(move |flower| {
            flower.until(&path, |workers| (workers[&node]["active"][0]["id"] == id).then_some(()))
        })
        .await;
    for part in ["total", "broker", "pool", "rusage", "prefetch_count", "pid"] {
        assert!(!us["stats"][part].is_null() && !them["stats"][part].is_null(), "{part}: {us}");
    }
    assert!(us["registered"].to_string().contains("shop.waits"), "{us}");
    assert!(!us["conf"].to_string().contains("guest:guest"), "no password is told");

    // The page of the broker stands on this: our queue is among those whose size it tells.
    fleet
        .ask(|flower| {
            flower.until("/api/queues/length", |queues| {
                let queues = queues["active_queues"].as_array()?;
                let named = |name| queues.iter().any(|queue| queue["name"] == json!(name));
                (named("rust") && named("python")).then_some(())
            })
        })
        .await;

    // Each page opens, in a browser.
    let (pages, task) = (std::sync::Arc::clone(&fleet), known.clone());
    let node = ours.clone();
    blocking(move || {
        let chromium = Chromium::start(true);
        chromium.size(1200, 900);
        for (name, path, shows) in [
            ("workers", "/workers".to_owned(), node.clone()),
            ("worker", format!("/worker/{node}"), "Max concurrency".to_owned()),
            ("tasks", "/tasks".to_owned(), "shop.add".to_owned()),
            ("task", format!("/task/{task}"), "SUCCESS".to_owned()),
            // It asks the workers for their queues, and the broker for each queue's size.
            ("broker", "/broker".to_owned(), "rust".to_owned()),
        ] {
            chromium.go(&pages.flower.url(&path));
            chromium.until(&format!("document.body.innerText.includes({})", json!(shows)));
            chromium.picture(&format!("flower-{name}"));
        }
    })
    .await;

    let before = workers(&fleet.celeriac).await;
    // Each lever of the worker's page answers as with a Python worker.
    for (path, status) in [
        (format!("/api/worker/pool/grow/{ours}?n=2"), 200),
        (format!("/api/worker/pool/shrink/{ours}?n=1"), 200),
        (format!("/api/worker/pool/autoscale/{ours}?min=1&max=3"), 403),
        (format!("/api/worker/pool/restart/{ours}"), 403),
        (format!("/api/worker/queue/cancel-consumer/{ours}?queue=rust"), 200),
        (format!("/api/worker/queue/add-consumer/{ours}?queue=rust"), 200),
        (format!("/api/task/timeout/shop.add?workername={ours}&hard=30&soft=20"), 200),
        (format!("/api/task/rate-limit/shop.add?workername={ours}&ratelimit=100/m"), 200),
    ] {
        let asked = path.clone();
        let answer = fleet.ask(move |flower| flower.post(&asked)).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
    }
    // The pool of a worker here is that of all its queues: two more, and one less.
    let deadline = Instant::now() + services::PATIENCE;
    while workers(&fleet.celeriac).await != before + 1 {
        assert!(Instant::now() < deadline, "there were {before} workers");
    }
    while fleet.celeriac.queue("rust").await.map(|queue| queue.paused) != Ok(false) {
        assert!(Instant::now() < deadline, "it is paused");
    }

    // A revocation by its button.
    let asked = format!("/api/task/revoke/{}?terminate=true", running.id());
    assert_eq!(fleet.ask(move |flower| flower.post(&asked).status).await, 200);
    running.get(services::PATIENCE).await.unwrap_err();
    let (asked, wanted) = (format!("/api/task/info/{}", running.id()), state("REVOKED"));
    fleet.ask(move |flower| flower.until(&asked, wanted)).await;

    // What it counts for Prometheus.
    let node = ours.clone();
    let online = format!("flower_worker_online{{worker=\"{node}\"}} 1.0");
    let counted = move |flower: &Flower| {
        await_condition("Flower counts", || {
            let metrics = flower.get("/metrics").body;
            let all = [online.as_str(), "type=\"task-succeeded\""];
            if all.iter().all(|figure| metrics.contains(figure)) { Ok(()) } else { Err(metrics) }
        });
    };
    fleet.ask(counted).await;

    // The last button ends our worker, and Flower sees it go.
    let path = format!("/api/worker/shutdown/{ours}");
    assert_eq!(fleet.ask(move |flower| flower.post(&path).status).await, 200);
    fleet.celeriac.shutdown().await.unwrap();
    let node = ours.clone();
    fleet
        .ask(move |flower| {
            flower.until("/api/workers?status=true", |workers| (workers[&node] != json!(true)).then_some(()))
        })
        .await;
}
