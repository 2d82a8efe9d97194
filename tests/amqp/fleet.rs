//! Several programs on one RabbitMQ, reached from one of them and from the command line.

use std::process::Command;
use std::time::Duration;

use celeriac::broker::amqp::AmqpOptions;
use celeriac::{Builder, Celeriac, State};
use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use serde_json::{Value, json};

use crate::kit::{Gate, LONG, add, hold, memory, record, until, until_status};
use crate::rabbit::{Peer, builder, task, vhost};
use crate::services::{Home, Process, await_condition, blocking};

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
    // Whoever has no time to answer within the second is there at the next look.
    let expected = json!({"one@h": pong, "two@h": pong});
    until("both answer", async || {
        let all = one.fleet().ping().await.unwrap();
        serde_json::to_value(&all).unwrap() == expected
    })
    .await;
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

    // It has patience for as long as the first one may take to end.
    let patient = AmqpOptions::default().with_node("same@h").with_heartbeat(Duration::from_secs(60));
    let third = builder(&url).amqp_options(patient).start().await.unwrap();
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

/// A program's own command, by its name and with named arguments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_reaches_a_programs_own_commands() {
    let url = vhost().await;
    let builder = named(&url, "one@h")
        .control_command("echo", |arguments| async move { Ok(arguments) })
        .inspect_command("mood", |_| async { Ok(json!(["calm"])) });
    let one = builder.start().await.unwrap();
    until("it is there", async || !one.fleet().ping().await.unwrap().is_empty()).await;
    let named = ["-d", "one@h", "-t", "60"];
    let said = async |arguments: &[&str]| celeriac(&url, &[arguments, &named].concat()).await;
    let (code, out, err) = said(&["control", "echo", "n=5", "name=Ann", "--json"]).await;
    assert_eq!((code, out.as_str()), (Some(0), "[{\"one@h\":{\"n\":5,\"name\":\"Ann\"}}]\n"), "{err}");
    let (_, out, _) = said(&["inspect", "mood"]).await;
    assert_eq!(out, "->  one@h: OK\n    * calm\n\n1 node online.\n");
    let (code, _, err) = said(&["control", "echo", "5"]).await;
    assert_eq!(code, Some(2));
    assert!(err.contains("name=value"), "{err}");
    one.shutdown().await.unwrap();
}

/// What a command prints, from when it listens until it ends by itself.
struct Listener {
    process: Process,
    home: Home,
}

const LISTENS: &str = "Listening to events; stop with Ctrl-C.\n";

impl Listener {
    async fn start(url: &str, arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let url = url.to_owned();
        let start = move || {
            let home = Home::new("listener");
            let program = env!("CARGO_BIN_EXE_celeriac");
            let process = Process::start("celeriac events", program, home.join("log"), |command| {
                command.arg("events").args(arguments).env("CELERIAC_BROKER", url);
            });
            let log = home.join("log");
            // It may have had its events, and have ended, before this looks.
            await_condition("it listens", || match std::fs::read_to_string(&log) {
                Ok(text) if text.contains(LISTENS) => Ok(()),
                other => Err(format!("{other:?}")),
            });
            Self { process, home }
        };
        blocking(start).await
    }

    async fn end(mut self) -> String {
        let ended = move || {
            await_condition("it has its events", || match self.process.has_ended() {
                true => Ok(()),
                false => Err(self.process.log()),
            });
            let _home = self.home;
            self.process.log().replace(LISTENS, "")
        };
        blocking(ended).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_prints_what_happens() {
    let url = vhost().await;
    let one = named(&url, "one@h").task_events(true).start().await.unwrap();
    until("it is there", async || !one.fleet().ping().await.unwrap().is_empty()).await;
    let types = "task-received,task-succ*";
    let of_tasks = Listener::start(&url, &["--task", "*::add", "--type", types, "-n", "4", "--json"]).await;
    let of_workers = Listener::start(&url, &["--type", "worker-heartbeat", "--count", "1"]).await;
    let mut ids = Vec::new();
    for n in 0..2 {
        let sum = add::s(n, 1).send(one.client()).await.unwrap();
        assert_eq!(sum.get(LONG).await, Ok(n + 1));
        ids.push(sum.id().to_string());
    }
    let lines: Vec<Value> =
        of_tasks.end().await.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut told: Vec<(&str, &str)> = lines
        .iter()
        .map(|event| (event["uuid"].as_str().unwrap(), event["type"].as_str().unwrap()))
        .collect();
    told.sort_unstable();
    ids.sort_unstable();
    let expected: Vec<(&str, &str)> =
        ids.iter().flat_map(|id| [(&**id, "task-received"), (&**id, "task-succeeded")]).collect();
    assert_eq!(told, expected);
    assert!(lines.iter().all(|event| event["hostname"] == "one@h"), "{lines:?}");
    let heartbeat = of_workers.end().await;
    assert!(heartbeat.starts_with("one@h [20") && heartbeat.contains("] heartbeat: "), "{heartbeat}");
    assert!(heartbeat.contains("sw_ident=celeriac") && heartbeat.lines().count() == 1, "{heartbeat}");
    one.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_purges_queues() {
    let url = vhost().await;
    let peer = Peer::connect(&url).await;
    for queue in ["pile", "heap"] {
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        peer.channel.queue_declare(queue.into(), durable, FieldTable::default()).await.unwrap();
        for n in 0..7 {
            peer.send(queue, task("any.task", &format!("{queue}-{n}")), b"[[], {}, {}]").await;
        }
    }
    let (code, out, err) = celeriac(&url, &["purge", "pile", "plie", "--yes"]).await;
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert_eq!(err, "Nothing was deleted: there is no queue `plie`. Correct the name.\n");
    // A broadcast has no queue of its own.
    let (durable, none) =
        (ExchangeDeclareOptions { durable: true, ..Default::default() }, FieldTable::default());
    peer.channel.exchange_declare("news".into(), ExchangeKind::Fanout, durable, none).await.unwrap();
    let (code, _, err) = celeriac(&url, &["purge", "news", "pile", "--yes"]).await;
    assert_eq!(code, Some(1));
    assert!(err.starts_with("Nothing was deleted: `news` is an exchange and no queue."), "{err}");
    let (code, out, err) = celeriac(&url, &["purge", "pile"]).await;
    assert_eq!((code, out.as_str()), (Some(1), ""), "nobody has said yes");
    assert!(err.contains("  pile: 7 tasks\n") && err.ends_with("Nothing was deleted.\n"), "{err}");
    assert_eq!(peer.ready("pile").await, 7);
    let (code, out, err) = celeriac(&url, &["purge", "pile", "pile", "--yes"]).await;
    assert_eq!((code, out.as_str()), (Some(0), "pile: 7 tasks\n7 tasks deleted.\n"), "{err}");
    let (_, out, _) = celeriac(&url, &["purge", "heap", "pile", "-y", "--json"]).await;
    assert_eq!(
        serde_json::from_str::<Value>(&out).unwrap(),
        json!({"purged": {"heap": 7, "pile": 0}, "all": 7})
    );
    assert_eq!((peer.ready("pile").await, peer.ready("heap").await), (0, 0));
}

/// By a name, those that workers hold; what RabbitMQ has is counted, and comes to light as it is delivered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_revokes_by_id_and_by_name() {
    let url = vhost().await;
    let (code, _, err) = celeriac(&url, &["revoke", "some-id", "-t", "0.1"]).await;
    assert_eq!((code, err.as_str()), (Some(69), "Error: No nodes replied within time constraint\n"));
    let one = named(&url, "one@h").start().await.unwrap();
    let gate = Gate::new();
    // One runs, one is in hand, one is in RabbitMQ.
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(hold::s(gate.name.clone()).queue("one").send(one.client()).await.unwrap());
    }
    gate.entered(1).await;
    let only = || one.fleet().nodes(["one@h"]).within(LONG);
    until("one waits in the worker", async || {
        only().inspect("reserved", Value::Null).await.unwrap()["one@h"].as_array().unwrap().len() == 1
    })
    .await;
    let (code, out, err) = celeriac(&url, &["revoke", "--task", "*::hold", "-t", "5", "--json"]).await;
    assert_eq!(code, Some(0), "{err}");
    let told: Value = serde_json::from_str(&out).unwrap();
    let running = held[0].id().to_string();
    assert_eq!((&told["revoked"][&running], &told["nodes"]), (&json!("active"), &json!(["one@h"])));
    assert_eq!(told["revoked"][held[1].id().as_str()], "reserved");
    let unseen = told["not_seen"]["one"].as_u64().unwrap_or(0);
    assert_eq!(told["revoked"].as_object().unwrap().len() as u64 + unseen, 3, "{told}");
    assert_eq!(record(&held[1]).await.state, State::Revoked);
    // The third has come by now, if it was in RabbitMQ before.
    let (_, out, _) = celeriac(&url, &["revoke", "--task", "*::hold", "-t", "5"]).await;
    assert!(out.contains("revoked on 1 node: 1 active, "), "{out}");
    assert!(
        out.contains("\nThose that are active go on; --terminate ends them.\nNot seen: messages "),
        "{out}"
    );
    assert_eq!(record(&held[2]).await.state, State::Revoked);

    let (code, out, err) = celeriac(&url, &["revoke", &running, "--terminate", "-t", "5"]).await;
    let said = format!("->  one@h: OK\n        terminate: {running}\n");
    assert_eq!((code, out), (Some(0), said), "{err}");
    assert_eq!(record(&held[0]).await.state, State::Revoked);
    one.shutdown().await.unwrap();
}

/// A report is about the fleet as a whole: what one program knows of its queues is put together with what the others know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_and_a_screen_are_made_of_what_all_programs_say() {
    let url = vhost().await;
    let (code, _, err) = celeriac(&url, &["report", "-t", "0.1"]).await;
    assert_eq!((code, err.as_str()), (Some(69), "Error: No nodes replied within time constraint\n"));
    let [one, two] = two(&url).await;
    // Who has no time to answer within the second is there at the next look.
    let report = async |is_right: &dyn Fn(&Value) -> bool| {
        for _ in 0..20 {
            let (_, out, err) = celeriac(&url, &["report", "--json", "-t", "3"]).await;
            let told: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{err}"));
            if told["processes"].as_array().is_some_and(|all| all.len() == 2) && is_right(&told) {
                return told;
            }
        }
        panic!("the report never came to what it should be");
    };
    let well = report(&|told: &Value| told["findings"].as_array().is_some_and(Vec::is_empty)).await;
    assert_eq!(well["scope"]["asked"], json!(["node one@h", "node two@h"]));
    one.pause("io").await.unwrap();
    let is_paused = |told: &Value| told["findings"][0]["condition"] == "paused";
    let half = report(&|told: &Value| !is_paused(told)).await;
    assert_eq!(half["findings"], json!([]), "the other program goes on");
    two.pause("io").await.unwrap();
    let paused = report(&is_paused).await;
    assert_eq!(paused["findings"][0]["queue"], "io");
    assert_eq!(paused["findings"][0]["causes"][0]["code"], "paused");
    let (code, out, err) = celeriac(&url, &["top", "--once", "-t", "3"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with("celeriac top   all programs on RabbitMQ   20"), "{out}");
    assert!(out.lines().any(|line| line.contains("‖ io")), "{out}");
    for celeriac in [one, two] {
        celeriac.shutdown().await.unwrap();
    }
}
