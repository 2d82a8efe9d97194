//! A trace goes on in a Python worker with OpenTelemetry's instrumentation, and comes back from it.

use std::time::Duration;

use celeriac::broker::amqp::AmqpOptions;
use celeriac::catalogue::{Pool, QueueRow};
use celeriac::store::RedisOptions;
use celeriac::{Celeriac, signature, task};
use serde_json::{Value, json};
use tracing::Instrument as _;

use crate::Request;
use crate::services::{CeleryWorker, PATIENCE, Python, RabbitMq, Redis, Script, blocking};

#[task(name = "rust.traced", queue = "rust")]
async fn traced() -> i64 {
    5
}

/// Our program, and the Python worker beside it.
async fn fleet() -> (Celeriac, CeleryWorker) {
    let (broker, redis, python) = blocking(|| {
        let (broker, redis) = (RabbitMq::shared().vhost("otel"), Redis::shared().url());
        let script = Script::new("tests/otel/app.py")
            .env("FLEET_BROKER", broker.replace("amqp://", "pyamqp://"))
            .env("FLEET_BACKEND", redis.clone());
        let options = ["-Q", "python", "--pool", "solo", "--without-gossip", "--without-mingle"];
        let python = Python::with_otel().worker(&options.into_iter().fold(script, Script::arg), "otel");
        (broker, redis, python)
    })
    .await;
    let celeriac = Celeriac::builder()
        .amqp(&broker)
        // On a machine that has no time for short heartbeats they would cut connections that nobody wants to cut.
        .amqp_options(AmqpOptions::default().with_heartbeat(Duration::from_secs(60)))
        .redis(redis, RedisOptions::default())
        .queue(QueueRow::new("rust").with_pool(Pool::Io).with_workers(2))
        .queue(QueueRow::new("python").with_served(false))
        .start()
        .await
        .expect("our worker starts");
    (celeriac, python)
}

/// The value of a task of the Python side that is sent from this request.
async fn value(celeriac: &Celeriac, request: &Request, task: &str) -> Value {
    let call = signature(task).queue("python").returns::<Value>();
    let send = async { call.send(celeriac.client()).await.unwrap() };
    let sent = send.instrument(request.span.clone()).await;
    sent.get(PATIENCE).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_goes_to_python_and_comes_back() {
    let (celeriac, python) = fleet().await;

    let request = Request::begin();
    let run = value(&celeriac, &request, "python.traced").await;
    let call = request.only("apply_async/python.traced");
    assert_eq!(run["name"], "run/python.traced");
    assert_eq!(run["trace"], request.trace.to_string());
    assert_eq!(run["parent"], call.span_context.span_id().to_string());

    let request = Request::begin();
    let told = value(&celeriac, &request, "python.calls").await;
    let id = told["id"].as_str().expect("an id").to_owned();
    assert_eq!(celeriac.async_result(id).get::<i64>(PATIENCE).await, Ok(5));
    let (trace, call) = (json!(request.trace.to_string()), request.only("apply_async/python.calls"));
    assert_eq!((&told["run"]["trace"], &told["call"]["trace"]), (&trace, &trace));
    assert_eq!(told["run"]["parent"], call.span_context.span_id().to_string());
    assert_eq!(told["call"]["parent"], told["run"]["span"]);
    let back = request.only("run/rust.traced");
    assert_eq!(told["call"]["span"], back.parent_span_id.to_string());
    assert!(back.parent_span_is_remote, "it came with the message");

    celeriac.shutdown().await.unwrap();
    blocking(move || python.stop()).await;
}
