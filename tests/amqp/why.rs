//! Why a task does not run, over RabbitMQ: what one program knows, what remote control and the command line say of all, and what
//! nobody can know.

use std::process::Command;

use celeriac::core::explanation::{Explanation, TaskReason};
use celeriac::task::Task as _;
use celeriac::{Celeriac, TaskId, task};
use serde_json::{Value, json};

use crate::control::Caller;
use crate::kit::{Gate, LONG, add, hold, until};
use crate::rabbit::{runtime, vhost};
use crate::services::blocking;

#[task(queue = "io", rate_limit = "1/h")]
async fn asked_hourly() {}

fn codes(explanation: &Explanation) -> Vec<&'static str> {
    explanation.reasons.iter().map(TaskReason::code).collect()
}

/// Waits until this is the reason: a delivery and a look cross threads and the wire.
async fn until_reason(celeriac: &Celeriac, id: &TaskId, wanted: &str) -> Explanation {
    let start = std::time::Instant::now();
    loop {
        let explanation = celeriac.explain(id).await.unwrap();
        if explanation.reason().code() == wanted {
            return explanation;
        }
        assert!(start.elapsed() < LONG, "{:?} and not {wanted}", codes(&explanation));
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_says_what_it_has_and_what_nobody_can_know() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let gate = Gate::new();
    let client = || celeriac.client();
    let running = hold::s(gate.name.clone()).queue("one").send(client()).await.unwrap();
    gate.entered(1).await;
    until_reason(&celeriac, running.id(), "running").await;
    // `one` has one worker and takes two deliveries: the third task waits in RabbitMQ.
    let here = add::s(1, 1).queue("one").send(client()).await.unwrap();
    let explanation = until_reason(&celeriac, here.id(), "queue_full").await;
    assert!(explanation.scope.node.is_some() && explanation.queue.as_deref() == Some("one"));
    let there = add::s(2, 2).queue("one").send(client()).await.unwrap();
    let explanation = until_reason(&celeriac, there.id(), "unknown").await;
    assert!(explanation.scope.cannot_know[0].contains("lets nobody look into a queue"), "{explanation:?}");
    assert_eq!((explanation.starts, explanation.ruled_out), (None, Vec::new()));
    gate.open();
    for task in [&here, &there] {
        until_reason(&celeriac, task.id(), "over").await;
    }
    celeriac.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limit_that_is_taken_away_lets_the_task_start() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let mut caller = Caller::new(&url).await;
    let first = asked_hourly::s().send(celeriac.client()).await.unwrap();
    until_reason(&celeriac, first.id(), "over").await;
    let held = asked_hourly::s().send(celeriac.client()).await.unwrap();
    until_reason(&celeriac, held.id(), "held").await;
    let asks = json!({ "id": held.id() });
    let is_held = |told: &Value| told["reason"]["code"] == json!("held");
    let told = caller.until_told("why", asks.clone(), is_held).await;
    assert_eq!((&told["reason"]["hold"], &told["state"]), (&json!("rate_limit"), &json!("waiting")));
    assert_eq!(told["task"], json!(asked_hourly::Task::NAME));
    let lifted = json!({ "task_name": asked_hourly::Task::NAME, "rate_limit": 0 });
    assert_eq!(caller.told("rate_limit", lifted).await, json!({"ok": "rate limit disabled successfully"}));
    assert_eq!(held.get(LONG).await, Ok(()));
    let is_over = |told: &Value| told["state"] == json!("over");
    caller.until_told("why", asks, is_over).await;
    let wrong = caller.told("why", json!({})).await;
    assert!(wrong["error"].as_str().is_some_and(|error| error.contains("'id'")), "{wrong}");
    celeriac.shutdown().await.unwrap();
}

/// Runs `celeriac why`.
async fn why(url: &str, id: &TaskId, more: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_celeriac"));
    command.args(["why", id.as_str(), "--timeout", "1", "--broker", url]).args(more);
    let output = blocking(move || command.output().expect("it runs")).await;
    let utf8 = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), utf8(output.stdout), utf8(output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_asks_all_programs() {
    let url = vhost().await;
    let (code, out, _) = why(&url, &"some-id".into(), &[]).await;
    assert_eq!((code, out.as_str()), (Some(69), ""), "nobody is there");
    let celeriac = runtime(&url).await;
    celeriac.pause("io").await.unwrap();
    let waiting = add::s(1, 2).send(celeriac.client()).await.unwrap();
    until_reason(&celeriac, waiting.id(), "paused").await;
    until("the command says so", async || {
        let (code, out, err) = why(&url, waiting.id(), &["--json"]).await;
        assert!(matches!(code, Some(0 | 69)), "{err}");
        let told: Value = serde_json::from_str(&out).unwrap_or_default();
        told["reason"]["code"] == json!("paused")
    })
    .await;
    until("so does its text", async || {
        let (_, out, _) = why(&url, waiting.id(), &[]).await;
        out.starts_with("It waits because its queue `io` is paused.\n")
    })
    .await;
    until("one that nobody has is told so", async || {
        let (code, out, _) = why(&url, &"some-id".into(), &[]).await;
        code == Some(0) && out.contains("not known: RabbitMQ lets nobody look into a queue")
    })
    .await;
    celeriac.resume("io").await.unwrap();
    assert_eq!(waiting.get(LONG).await, Ok(3));
    celeriac.shutdown().await.unwrap();
}
