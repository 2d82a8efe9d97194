//! Several programs on one RabbitMQ, reached from one of them and from the command line.

use std::process::Command;
use std::time::Duration;

use celeriac::broker::amqp::AmqpOptions;
use celeriac::{Builder, Celeriac};
use serde_json::{Value, json};

use crate::kit::{LONG, memory, until, until_status};
use crate::rabbit::{builder, vhost};
use crate::services::blocking;

fn named(url: &str, node: &str) -> Builder {
    builder(url).amqp_options(AmqpOptions::default().with_node(node).with_heartbeat(Duration::from_secs(1)))
}

async fn two(url: &str) -> [Celeriac; 2] {
    let one = named(url, "one@h").start().await.unwrap();
    let two = named(url, "two@h").start().await.unwrap();
    until("both are there", async || one.fleet().ping().await.unwrap().len() == 2).await;
    [one, two]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_speaks_to_all_or_to_some() {
    let url = vhost().await;
    let [one, two] = two(&url).await;
    let pong = json!({"ok": "pong"});
    let all = one.fleet().within(Duration::from_secs(2)).ping().await.unwrap();
    assert_eq!(serde_json::to_value(&all).unwrap(), json!({"one@h": pong, "two@h": pong}));
    // Who is named and there is waited for, and no longer.
    let second = one.fleet().nodes(["two@h"]).within(LONG).ping().await.unwrap();
    assert_eq!(second.keys().collect::<Vec<_>>(), ["two@h"]);
    assert!(one.fleet().nodes(Vec::<String>::new()).ping().await.unwrap().is_empty());

    let both = || one.fleet().nodes(["one@h", "two@h"]).within(LONG);
    let paused = both().pause("io").await.unwrap();
    assert_eq!((paused.len(), &paused["two@h"]), (2, &json!({"ok": "paused io"})));
    for celeriac in [&one, &two] {
        until_status(celeriac, "io", |status| status.paused).await;
    }
    both().resize("io", 9).await.unwrap();
    both().resume("io").await.unwrap();
    for celeriac in [&one, &two] {
        until_status(celeriac, "io", |status| !status.paused && status.workers == 9).await;
    }
    let wrong = both().pause("nosuch").await.unwrap();
    assert!(wrong.values().all(|answer| answer["error"].is_string()), "{wrong:?}");
    let limit =
        both().control("rate_limit", json!({"task_name": "nope", "rate_limit": "1/s"})).await.unwrap();
    assert_eq!(limit["one@h"], json!({"error": "unknown task"}));
    assert!(one.fleet().inspect("active", json!([1])).await.unwrap_err().to_string().contains("an object"));
    assert!(one.fleet().resize("io", 0).await.is_err());
    for celeriac in [one, two] {
        celeriac.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_without_others_has_no_fleet() {
    let celeriac = memory().await;
    let error = celeriac.fleet().ping().await.unwrap_err().to_string();
    assert!(error.contains("the broker `memory` has no remote control"), "{error}");
    celeriac.shutdown().await.unwrap();
}

/// The name stays the same over a restart, also if RabbitMQ has not noticed yet that the last life is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_another_process_keeps_is_waited_for_and_then_given_up() {
    let url = vhost().await;
    let first = named(&url, "same@h").start().await.unwrap();
    until("it has its name", async || !first.fleet().ping().await.unwrap().is_empty()).await;
    let second = named(&url, "same@h").start().await.unwrap();
    // Meanwhile it obeys, and does not answer in the other's name.
    let gone = first.fleet().nodes(["same@h"]).within(LONG).ping().await.unwrap();
    assert_eq!(gone.len(), 1);
    let other = format!("same-{}@h", std::process::id());
    until("it takes another name", async || first.fleet().ping().await.unwrap().contains_key(&other)).await;
    second.shutdown().await.unwrap();

    let third = named(&url, "same@h").start().await.unwrap();
    first.shutdown().await.unwrap();
    until("the name is free, and it has it", async || {
        third.fleet().ping().await.unwrap().keys().collect::<Vec<_>>() == ["same@h"]
    })
    .await;
    third.shutdown().await.unwrap();
}

async fn celeriac(url: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_celeriac"));
    command.args(arguments).env("CELERIAC_BROKER", url);
    let output = blocking(move || command.output().unwrap()).await;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_asks_and_tells() {
    let url = vhost().await;
    let (code, _, err) = celeriac(&url, &["status", "--timeout", "0.1"]).await;
    assert_eq!((code, err.as_str()), (Some(69), "Error: No nodes replied within time constraint\n"));
    let [one, two] = two(&url).await;
    let (code, out, err) = celeriac(&url, &["status", "-d", "one@h,two@h", "-t", "60"]).await;
    assert_eq!((code, out.as_str()), (Some(0), "->  one@h: OK\n->  two@h: OK\n\n2 nodes online.\n"), "{err}");
    let named = ["-d", "one@h", "-t", "60"];
    let said = async |arguments: &[&str]| celeriac(&url, &[arguments, &named].concat()).await;
    let (code, out, _) = said(&["inspect", "active", "--json"]).await;
    assert_eq!((code, out.as_str()), (Some(0), "{\"one@h\":[]}\n"));
    let (_, out, _) = said(&["inspect", "active"]).await;
    assert_eq!(out, "->  one@h: OK\n    - empty -\n\n1 node online.\n");
    let (_, out, _) = said(&["inspect", "query_task", "a", "b"]).await;
    assert_eq!(out, "->  one@h: OK\n    {}\n\n1 node online.\n");
    let (code, out, _) = said(&["control", "rate_limit", "nope", "10/m"]).await;
    assert_eq!((code, out.as_str()), (Some(0), "->  one@h: ERROR\n        unknown task\n"));
    let (_, out, _) = said(&["control", "resize", "io", "3", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), json!([{"one@h": {"ok": "io has 3 workers"}}]));
    until_status(&one, "io", |status| status.workers == 3).await;
    // A program may have added it, so it is asked for.
    let (code, _, err) = celeriac(&url, &["inspect", "nosuch", "-t", "0.1"]).await;
    assert_eq!(code, Some(69));
    assert!(err.contains("No nodes replied") && err.contains("there are: active, active_queues"), "{err}");
    let (code, _, err) = said(&["inspect", "pause", "io"]).await;
    assert_eq!(code, Some(2));
    assert!(err.contains("`pause` is no inspect command"), "{err}");
    for celeriac in [one, two] {
        celeriac.shutdown().await.unwrap();
    }
}
