//! What failed for good is kept on RabbitMQ too: found by its arguments, put right, tried again, deleted.

use std::process::Command;
#[cfg(feature = "redis")]
use std::sync::atomic::{AtomicU32, Ordering};

use celeriac::broker::{FailedTask, TaskEdit, TaskFilter};
use celeriac::catalogue::Argument;
use celeriac::task::Task as _;
use celeriac::{Celeriac, State, TaskError, TaskId, task};
use lapin::options::BasicGetOptions;
use lapin::types::AMQPValue;
use serde_json::{Value, json};

use crate::kit::{LONG, record, status_of, until};
use crate::rabbit::{Peer, runtime, task as python, text, vhost};
use crate::services::blocking;

const OLD: &str = "old.example.org";
const NEW: &str = "new.example.org";

/// Charges a customer by way of a payment gateway. The old one is switched off.
#[task(queue = "io", max_retries = 1, default_retry_delay = 0.001)]
async fn charge(customer: u32, gateway: String) -> Result<u32, TaskError> {
    match gateway.as_str() {
        NEW => Ok(customer),
        _ => Err(TaskError::from_display(format!("{gateway} is switched off"))),
    }
}

fn gateway() -> Argument {
    Argument::Name("gateway".to_owned())
}

fn at(name: &str) -> TaskFilter {
    TaskFilter::new().argument(gateway(), name)
}

/// The record of a task comes a moment before the task is kept.
async fn failed(celeriac: &Celeriac, filter: &TaskFilter, count: usize) -> Vec<FailedTask> {
    let list = async || celeriac.failed_tasks(filter, 1000).await.unwrap();
    until("all failed tasks are there", async || list().await.len() == count).await;
    list().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_failed_tasks_are_found_by_an_argument_put_right_and_tried_again() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let client = celeriac.client();
    let (mut lost, mut odd) = (Vec::new(), Vec::new());
    for customer in 0..100 {
        lost.push(charge::s(customer, OLD.to_owned()).send(client.clone()).await.unwrap());
        if customer % 10 == 0 {
            odd.push(charge::s(customer, "none".to_owned()).send(client.clone()).await.unwrap());
        }
    }
    for result in lost.iter().chain(&odd) {
        assert_eq!(record(result).await.state, State::Failure);
    }
    let all = failed(&celeriac, &TaskFilter::new(), 110).await;
    assert!(all.iter().all(|task| task.attempts().len() == 2 && !task.is_dead_letter()));
    assert_eq!(failed(&celeriac, &at(OLD), 100).await.len(), 100);
    assert!(celeriac.dead_letters(10).await.unwrap().is_empty());
    let status = status_of(&celeriac, "io").await;
    assert_eq!((status.ready, status.dead), (0, 0), "nothing is left in its queue");

    let edit = TaskEdit::set(gateway(), NEW);
    let retried = celeriac.edit_and_retry_failed(&at(OLD), edit).await.unwrap();
    assert_eq!((retried.ids.len(), retried.refused), (100, vec![]));
    for (customer, result) in (0..).zip(&lost) {
        assert_eq!(result.get(LONG).await, Ok(customer));
    }
    failed(&celeriac, &TaskFilter::new(), 10).await;
    assert_eq!(celeriac.delete_failed(&at("none")).await.unwrap().len(), 10);
    failed(&celeriac, &TaskFilter::new(), 0).await;
    celeriac.shutdown().await.unwrap();
}

/// RabbitMQ itself drops it when its time has come, and whoever looks at the queue can read it as a task.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_of_python_is_kept_as_it_came() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let peer = Peer::connect(&url).await;
    let body = format!(
        r#"[[7],{{"gateway":"{OLD}"}},{{"callbacks":null,"errbacks":null,"chain":null,"chord":null}}]"#
    );
    peer.send("io", python(charge::Task::NAME, "of-python"), body.as_bytes()).await;
    let id = TaskId::from("of-python");
    let record = tokio::time::timeout(LONG, celeriac.client().wait(&id)).await.unwrap().unwrap();
    assert_eq!(record.state, State::Failure);
    let found = failed(&celeriac, &at(OLD), 1).await;
    assert_eq!((&found[0].message.id, found[0].message.arguments.args.as_str()), (&id, "[7]"));
    assert_eq!(peer.ready("io").await, 0);
    let got = peer.channel.basic_get("celeriac.failed".into(), BasicGetOptions::default()).await.unwrap();
    let got = got.unwrap().delivery;
    let headers = got.properties.headers().clone().unwrap();
    assert_eq!(headers.inner().get("id"), Some(&text("of-python")));
    assert_eq!(headers.inner().get("celeriac-reason"), Some(&text("old.example.org is switched off")));
    assert!(
        matches!(headers.inner().get("celeriac-expires-at"), Some(AMQPValue::LongLongInt(_))),
        "{headers:?}"
    );
    let life: u64 = got.properties.expiration().as_ref().unwrap().as_str().parse().unwrap();
    assert!(life <= 7 * 24 * 3_600_000, "{life}");
    peer.channel.close(200, "OK".into()).await.unwrap(); // it gives the message back

    let edit = TaskEdit::set(gateway(), NEW);
    until("it is back, and is tried again", async || {
        celeriac.edit_and_retry_failed(&at(OLD), edit.clone()).await.unwrap().ids.len() == 1
    })
    .await;
    let record = tokio::time::timeout(LONG, celeriac.client().wait(&id)).await.unwrap().unwrap();
    assert_eq!((record.state, record.result.as_deref()), (State::Success, Some("7")));
    celeriac.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_lists_retries_and_deletes() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let mut lost = Vec::new();
    for customer in 0..5 {
        let sent = charge::s(customer, OLD.to_owned()).send(celeriac.client()).await.unwrap();
        assert_eq!(record(&sent).await.state, State::Failure);
        lost.push(sent);
    }
    failed(&celeriac, &TaskFilter::new(), 5).await;
    let command = async |arguments: &[&str]| {
        let mut arguments: Vec<String> = arguments.iter().map(|s| (*s).to_owned()).collect();
        arguments.insert(0, "failed".to_owned());
        arguments.extend(["--broker".to_owned(), url.clone()]);
        let ran = blocking(move || Command::new(env!("CARGO_BIN_EXE_celeriac")).args(arguments).output())
            .await
            .unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap()
    };
    let out = command(&["list", "--task", "*::charge", "--contains", OLD, "--limit", "2", "--json"]).await;
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&told["all"], told["failed"].as_array().map(Vec::len)), (&json!(5), Some(2)), "{out}");
    assert_eq!(told["failed"][0]["args"], json!([0, OLD]));
    assert_eq!(told["failed"][0]["attempts"][1]["error"], json!("old.example.org is switched off"));
    // Only the program knows the names of what is given by position.
    let set = format!("1={NEW}");
    let out = command(&["retry", "--argument", "0=3", "--set", &set]).await;
    assert_eq!(out, "1 of 1 failed task went back to their queues.\n");
    until("its next run is done", async || status_of(&celeriac, "io").await.done == 1).await;
    let first = lost[0].id().to_string();
    let out = command(&["delete", &first, "--yes", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), json!({ "deleted": [first] }));
    failed(&celeriac, &TaskFilter::new(), 3).await;
    celeriac.shutdown().await.unwrap();
}

/// Nobody can look into a queue of RabbitMQ. Where Redis is told of each task that is sent, an id that nobody ever sent is known to
/// be one.
#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_nobody_sent_differs_from_one_that_waits() {
    use crate::kit::add;
    let url = vhost().await;
    let backend = blocking(|| crate::services::Redis::shared().url_of(4)).await;
    let elsewhere = crate::kit::io_queue("elsewhere", 1).with_served(false);
    let celeriac = crate::rabbit::builder(&url)
        .result_backend(backend)
        .track_sent(true)
        .queue(elsewhere)
        .start()
        .await
        .unwrap();
    let client = celeriac.client();
    let waits = add::s(1, 2).queue("elsewhere").send(client.clone()).await.unwrap();
    assert_eq!(client.state(waits.id()).await, Ok(State::Pending));
    let nobodys = TaskId::new();
    assert_eq!(client.state(&nobodys).await, Ok(State::Unknown));
    assert_eq!(client.wait(&nobodys).await, Err(celeriac::GetError::Unknown(nobodys)));
    // A step of a canvas is told of when it is sent.
    let chained = add::s(1, 2).then(add::p(3)).send(client.clone()).await.unwrap();
    assert_eq!(chained.get(LONG).await, Ok(6));
    let lost = charge::s(1, OLD.to_owned()).send(client.clone()).await.unwrap();
    assert_eq!(record(&lost).await.state, State::Failure);
    failed(&celeriac, &at(OLD), 1).await;
    let retried = celeriac.edit_and_retry_failed(&at(OLD), TaskEdit::set(gateway(), NEW)).await.unwrap();
    assert_eq!(retried.ids, [lost.id().clone()]);
    assert_eq!(lost.get(LONG).await, Ok(1), "the state of its first life is gone");
    celeriac.shutdown().await.unwrap();
}

/// The runs of `repaired`.
#[cfg(feature = "redis")]
static REPAIRED: AtomicU32 = AtomicU32::new(0);
/// The runs of `billed`.
#[cfg(feature = "redis")]
static BILLED: AtomicU32 = AtomicU32::new(0);

/// Fails in both attempts of its first life, and in the first one of its second.
#[cfg(feature = "redis")]
#[task(queue = "io", max_retries = 1, default_retry_delay = 0.001)]
async fn repaired() -> Result<u32, TaskError> {
    match REPAIRED.fetch_add(1, Ordering::SeqCst) {
        run if run < 3 => Err(TaskError::from_display("not yet")),
        run => Ok(run),
    }
}

#[cfg(feature = "redis")]
#[task(queue = "io")]
async fn billed(run: u32) -> u32 {
    BILLED.fetch_add(1, Ordering::SeqCst);
    run
}

/// In Redis the attempts of its first life have taken their numbers. The next step has failed with the first one, and finished
/// is final.
#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_of_a_canvas_that_is_tried_again_has_all_its_attempts_and_runs_without_the_next_one() {
    let url = vhost().await;
    let backend = blocking(|| crate::services::Redis::shared().url_of(4)).await;
    let celeriac = crate::rabbit::builder(&url).result_backend(backend).start().await.unwrap();
    let id = TaskId::new();
    let chained = repaired::s().id(id.clone()).then(billed::p());
    let chained = chained.send(celeriac.client()).await.unwrap();
    assert!(chained.get(LONG).await.is_err());
    let filter = TaskFilter::new().ids([id.clone()]);
    failed(&celeriac, &filter, 1).await;
    assert_eq!(celeriac.retry_failed(&filter).await.unwrap().ids, std::slice::from_ref(&id));
    let record = tokio::time::timeout(LONG, celeriac.client().wait(&id)).await;
    let record = record.expect("no attempt is dropped").unwrap();
    assert_eq!((record.state, record.result.as_deref()), (State::Success, Some("3")));
    celeriac.shutdown().await.unwrap();
    assert_eq!(Peer::connect(&url).await.ready("io").await, 0);
    assert_eq!(BILLED.load(Ordering::SeqCst), 0);
}
