//! Results over RabbitMQ, between programs of ours and with Python's.

use std::time::Duration;

use celeriac::catalogue::QueueRow;
use celeriac::core::Timestamp;
use celeriac::store::conformance::record;
use celeriac::store::{RpcOptions, RpcStore, Store, StoreError, TrackedState};
use celeriac::task::{Lineage, State, TaskId, TaskResult};
use celeriac::{Celeriac, Context, TaskError, task};
use celeriac_test_support as services;
use serde_json::{Value, json};
use services::{Python, RabbitMq, Script, blocking};

const PATIENCE: Duration = Duration::from_secs(120);
const NOW: Timestamp = Timestamp::from_millis(4_102_444_800_000);

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

async fn connect(server: &RabbitMq) -> RpcStore {
    RpcStore::connect(&server.url().replace("amqp://", "rpc://"), RpcOptions::default()).await.unwrap()
}

fn replying_to(queue: &str) -> Option<Box<Lineage>> {
    Some(Box::new(Lineage { reply_to: Some(queue.to_owned()), ..Lineage::default() }))
}

fn new_record(reply_to: &str, result: &str) -> TaskResult {
    TaskResult { lineage: replying_to(reply_to), ..record(TaskId::new().as_str(), result) }
}

fn progress(id: &TaskId, reply_to: &str, done: u32) -> TrackedState {
    TrackedState {
        id: id.clone(),
        state: "PROGRESS".to_owned(),
        meta: json!({"done": done}).into(),
        traceback: None,
        lineage: replying_to(reply_to),
    }
}

/// Waits until a queue has a consumer, and says on which channel of which connection.
async fn consumed(server: &RabbitMq, queue: &str) -> String {
    consumed_elsewhere(server, queue, "nowhere").await
}

/// As [`consumed`], on another channel than that.
async fn consumed_elsewhere(server: &RabbitMq, queue: &str, before: &str) -> String {
    let (server, queue, before) = (server.clone(), format!("{queue}\t"), before.to_owned());
    blocking(move || {
        services::await_condition("the reply queue is consumed", || {
            let consumers = server.ctl(&["list_consumers", "--silent", "queue_name", "channel_pid"]);
            let mut channels = consumers.lines().filter_map(|line| line.strip_prefix(&queue));
            channels.find(|channel| *channel != before).map(str::to_owned).ok_or_else(|| consumers.clone())
        })
    })
    .await
}

/// Closes all connections, and waits until the queue is consumed on a new one.
async fn close_connections(server: &RabbitMq, queue: &str) {
    let before = consumed(server, queue).await;
    let closing = server.clone();
    blocking(move || closing.close_connections()).await;
    consumed_elsewhere(server, queue, &before).await;
}

/// Of several nodes, the first one that is there; a connection that is lost goes to the next.
#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_are_tried() {
    let server = blocking(RabbitMq::start).await; // whose connections are closed
    let nobody = format!("rpc://guest:guest@127.0.0.1:{}", services::free_port());
    let there = server.url().replace("amqp://", "rpc://");
    for urls in [format!("{nobody};{there}"), format!("{there};{nobody}")] {
        let client = RpcStore::connect(&urls, RpcOptions::default()).await.unwrap();
        let worker = connect(&server).await;
        let queue = client.reply_to().unwrap();
        close_connections(&server, &queue).await;
        let record = new_record(&queue, "1");
        assert_eq!(worker.put(record.clone()).await, Ok(true));
        let waited = in_time("a record", client.wait(&record.id)).await.unwrap();
        assert_eq!(waited.result.as_deref(), Some("1"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn states_and_records_reach_whoever_sent_the_task() {
    let server = blocking(RabbitMq::shared).await;
    let (client, worker) = (connect(&server).await, connect(&server).await);
    let queue = client.reply_to().unwrap();
    let record = new_record(&queue, "[1]");
    let waiting = tokio::spawn({
        let (client, id) = (client.clone(), record.id.clone());
        async move { client.wait(&id).await }
    });
    assert_eq!(worker.track(progress(&record.id, &queue, 5)).await, Ok(()));
    in_time("a state", async {
        while client.tracked(&record.id).await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let tracked = client.tracked(&record.id).await.unwrap().unwrap();
    assert_eq!((tracked.state.as_str(), tracked.meta), ("PROGRESS", json!({"done": 5}).into()));
    assert_eq!(client.get(&record.id, NOW).await, Ok(None));
    assert_eq!(worker.put(record.clone()).await, Ok(true));
    assert_eq!(in_time("the record", waiting).await.unwrap(), Ok(record.clone()));
    assert_eq!(client.get(&record.id, NOW).await, Ok(Some(record.clone())));
    assert_eq!((client.tracked(&record.id).await, worker.get(&record.id, NOW).await), (Ok(None), Ok(None)));
    // A second one, of a run that was thought dead, changes nothing.
    let late = TaskResult { result: Some("[2]".into()), ..record.clone() };
    assert_eq!(worker.put(late).await, Ok(true));
    let next = new_record(&queue, "3");
    assert_eq!(worker.put(next.clone()).await, Ok(true));
    assert_eq!(in_time("the next record", client.wait(&next.id)).await, Ok(next.clone()));
    assert_eq!(client.get(&record.id, NOW).await, Ok(Some(record.clone())));
    assert_eq!(client.forget(&record.id).await, Ok(true));
    assert_eq!(client.get(&record.id, NOW).await, Ok(None));
    assert_eq!(client.sweep(next.expires_at).await, Ok(1));
    // Nobody to tell, or nobody there any more: no error.
    assert_eq!(worker.put(TaskResult { lineage: None, ..next.clone() }).await, Ok(true));
    assert_eq!(worker.put(new_record("gone", "1")).await, Ok(true));
    assert!(
        client.chords().is_none() && client.groups().is_none(),
        "it counts no chords and keeps no groups"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn results_go_on_after_the_connections_were_closed() {
    let server = blocking(RabbitMq::start).await;
    let (client, worker) = (connect(&server).await, connect(&server).await);
    let queue = client.reply_to().unwrap();
    let record = new_record(&queue, "1");
    let waiting = tokio::spawn({
        let (client, id) = (client.clone(), record.id.clone());
        async move { client.wait(&id).await }
    });
    close_connections(&server, &queue).await;
    assert_eq!(worker.put(record.clone()).await, Ok(true));
    assert_eq!(in_time("the record", waiting).await.unwrap(), Ok(record));
    // When the store is dropped its thread ends, and its queue with it.
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.wait(&"never".into()).await }
    });
    drop(client);
    waiting.abort();
    blocking(move || {
        services::await_condition("the reply queue is gone", || {
            let queues = server.ctl(&["list_queues", "--silent", "name"]);
            if queues.lines().any(|name| name == queue) { Err(queues) } else { Ok(()) }
        });
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_and_we_send_each_other_results() {
    let server = blocking(RabbitMq::shared).await;
    let store = connect(&server).await;
    let script = |action: &str, queue: &str, ids: &[&TaskId]| {
        let script = Script::new("tests/rpc_store/results.py").arg(server.url()).arg(action).arg(queue);
        ids.iter().fold(script, |script, id| script.arg(id.as_str()))
    };
    // Python is the worker.
    let id = TaskId::new();
    let waiting = tokio::spawn({
        let (store, id) = (store.clone(), id.clone());
        async move { store.wait(&id).await }
    });
    let work = script("work", &store.reply_to().unwrap(), &[&id]);
    blocking(move || Python::with_celery().run(&work).expect_success("results.py")).await;
    let record = in_time("Python's result", waiting).await.unwrap().unwrap();
    assert_eq!(record.state, State::Success);
    assert_eq!(serde_json::from_str::<Value>(&record.result.unwrap()).unwrap(), json!([1, "ä"]));
    // Python is the client.
    let queue = TaskId::new().to_string();
    let success = new_record(&queue, r#"{"a": [1, "ä"]}"#);
    let failure = TaskResult {
        state: State::Failure,
        result: None,
        errors: vec!["no such key".into()],
        error_type: Some("KeyError".into()),
        error_module: Some("builtins".into()),
        ..new_record(&queue, "")
    };
    let wait = script("wait", &queue, &[&success.id, &failure.id]);
    let printed =
        tokio::spawn(blocking(move || Python::with_celery().run(&wait).expect_success("results.py")));
    consumed(&server, &queue).await;
    for record in [&success, &failure] {
        assert_eq!(store.track(progress(&record.id, &queue, 5)).await, Ok(()));
        assert_eq!(store.put(record.clone()).await, Ok(true));
    }
    let printed = in_time("Python's client", printed).await.unwrap();
    let lines: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let raised = json!({"class": "KeyError", "module": "builtins", "args": ["no such key"]});
    assert_eq!(
        lines,
        [
            json!({"state": "SUCCESS", "value": {"a": [1, "ä"]}}),
            json!({"state": "FAILURE", "raised": raised})
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_is_told_at_once_what_python_wrote() {
    let server = blocking(RabbitMq::shared).await;
    let store = connect(&server).await;
    let (nan, half) = (TaskId::new(), TaskId::new());
    let waiting = [&nan, &half].map(|id| {
        let (store, id) = (store.clone(), id.clone());
        tokio::spawn(async move { store.wait(&id).await })
    });
    let script = Script::new("tests/rpc_store/results.py").arg(server.url()).arg("odd");
    let script = script.arg(store.reply_to().unwrap()).arg(nan.as_str()).arg(half.as_str());
    blocking(move || Python::with_celery().run(&script).expect_success("results.py")).await;
    let [of_nan, of_half] = waiting;
    let error = in_time("an error", of_nan).await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)), "{error}");
    assert!(error.to_string().contains("there is NaN in its result"), "{error}");
    let failed = in_time("a record", of_half).await.unwrap().unwrap();
    assert_eq!((failed.state, failed.error_type.as_deref()), (State::Failure, Some("ValueError")));
    assert_eq!(failed.errors, ["cut \u{fffd}"]);
    assert_eq!(failed.traceback.as_deref(), Some("ValueError: cut \u{fffd}\n"));
    // Who comes later is told the same, until it is forgotten.
    assert_eq!(in_time("an error", store.wait(&nan)).await, Err(error.clone()));
    assert_eq!(store.get(&nan, NOW).await, Err(error));
    assert_eq!((store.forget(&nan).await, store.get(&nan, NOW).await), (Ok(true), Ok(None)));
}

#[task]
async fn double(ctx: Context, n: u64) -> Result<u64, TaskError> {
    ctx.update_state("PROGRESS", json!({"done": 1}))?;
    Ok(n * 2)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_gets_its_results_over_rpc() {
    let server = blocking(RabbitMq::shared).await;
    let celeriac = Celeriac::builder()
        .in_memory()
        .result_backend(server.url().replace("amqp://", "rpc://"))
        .queue(QueueRow::new("celery"))
        .start()
        .await
        .unwrap();
    for n in 0..50 {
        let result = double::s(n).send(celeriac.client()).await.unwrap();
        assert_eq!(result.get(PATIENCE).await, Ok(n * 2));
        assert_eq!(result.state().await, Ok(State::Success));
    }
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_rabbitmq_that_is_not_there_is_an_error_that_says_what_to_do() {
    let mut options = RpcOptions::default();
    options.patience = Duration::from_millis(200);
    let error = RpcStore::connect("rpc://127.0.0.1:1", options).await.err().unwrap();
    assert!(matches!(error, StoreError::Io(_)));
    let text = error.to_string();
    assert!(text.contains("rabbitmq at 127.0.0.1:1") && text.contains("is it running"), "{text}");
}
