//! `celeriac why` on an embedded store whose program does not run: what the store knows by itself.

use std::path::Path;
use std::time::Duration;

use celeriac::catalogue::QueueRow;
use celeriac::{Celeriac, TaskId, serial_task, task};
use serde_json::{Value, json};

use super::{celeriac as command, text};

const HOUR: Duration = Duration::from_secs(3600);
const WAIT: Duration = Duration::from_secs(120);

#[task(queue = "asked")]
async fn ask(n: u32) -> u32 {
    n
}

#[serial_task(key = "{lane}", queue = "asked")]
async fn ask_in_turn(lane: String) -> String {
    lane
}

async fn start(dir: &Path, is_served: bool) -> Celeriac {
    let row = QueueRow::new("asked").with_served(is_served);
    Celeriac::builder().directory(dir).queue(row).start().await.expect("a start")
}

fn told(dir: &Path, id: &TaskId, more: &[&str]) -> (Option<i32>, String, String) {
    let directory = dir.display().to_string();
    let arguments = ["why", id.as_str(), "--directory", &directory];
    text(command(&[&arguments[..], more].concat(), dir))
}

/// The codes of all reasons, and the whole answer.
fn codes(dir: &Path, id: &TaskId) -> (Vec<String>, Value) {
    let (code, out, err) = told(dir, id, &["--json"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let told: Value = serde_json::from_str(&out).expect("JSON");
    let reasons = told["reasons"].as_array().expect("a list").iter();
    let codes = reasons.map(|reason| reason["code"].as_str().expect("a code").to_owned());
    (codes.collect(), told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_store_says_what_it_knows() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = start(dir.path(), true).await;
    let over = ask::s(1).send(program.client()).await.expect("an enqueue");
    assert_eq!(over.get(WAIT).await, Ok(1));
    program.persistent().pause("asked").await.expect("a pause");
    program.shutdown().await.expect("an end");
    let program = start(dir.path(), false).await;
    let client = || program.client();
    let first = ask::s(2).send(client()).await.expect("an enqueue");
    let second = ask::s(3).send(client()).await.expect("an enqueue");
    let later = ask::s(4).countdown(HOUR).send(client()).await.expect("an enqueue");
    let holder = ask_in_turn::s("joe".to_owned()).send(client()).await.expect("an enqueue");
    let in_line = ask_in_turn::s("joe".to_owned()).send(client()).await.expect("an enqueue");
    let (code, out, err) = told(dir.path(), first.id(), &[]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "the program answers while it runs");
    assert!(out.starts_with("It waits because its queue `asked` is served elsewhere"), "{out}");
    program.shutdown().await.expect("an end");

    let dir = dir.path();
    for (id, expected) in [
        (first.id(), &["paused", "not_served"][..]),
        (second.id(), &["paused", "not_served", "behind"][..]),
        (later.id(), &["not_due", "paused", "not_served"][..]),
        (holder.id(), &["paused", "not_served", "behind"][..]),
        (in_line.id(), &["paused", "lane_busy", "not_served"][..]),
        (over.id(), &["over"][..]),
        (&TaskId::from("nobody"), &["unknown"][..]),
    ] {
        let (codes, told) = codes(dir, id);
        assert_eq!(codes, expected, "{told}");
        assert_eq!((&told["id"], told["as_of"].is_string()), (&json!(id), true));
    }
    let (_, behind) = codes(dir, second.id());
    assert_eq!(behind["reasons"][2]["ahead"], json!({"count": 1, "or_more": false}));
    assert_eq!(behind["reason"]["is_kept"], json!(true));
    let (_, busy) = codes(dir, in_line.id());
    assert_eq!(busy["reasons"][1]["holder"], json!(holder.id()));

    let (code, out, err) = told(dir, first.id(), &[]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "It waits because its queue `asked` is paused, and stays so after a restart.");
    assert!(lines.contains(&"  also: The program of this store does not run."), "{out}");
    assert!(lines.iter().any(|line| line.starts_with("  operator: Let the queue go on")), "{out}");
    assert!(lines.iter().any(|line| line.starts_with("  not known: The program does not run")), "{out}");
    assert!(lines.last().is_some_and(|line| line.starts_with("  asked: store, at 20")), "{out}");
    // Looking changes nothing.
    let (code, out, _) = text(command(&["store", "verify", "--directory", &dir.display().to_string()], dir));
    assert_eq!(code, Some(0), "{out}");
    assert!(out.starts_with("5 waiting tasks, 1 results"), "{out}");

    let directory = dir.display().to_string();
    let pause = ["brake", "set", "pause", "--task", "*::ask", "--id", "quiet", "--directory", &directory];
    assert_eq!(text(command(&pause, dir)).0, Some(0));
    let (reasons, braked) = codes(dir, first.id());
    assert_eq!(reasons, ["paused", "held", "not_served"], "{braked}");
    assert_eq!(
        (&braked["reasons"][1]["hold"], &braked["reasons"][1]["brake"]),
        (&json!("brake"), &json!("quiet"))
    );
    let (reasons, free) = codes(dir, holder.id());
    assert_eq!(reasons, ["paused", "not_served", "behind"], "{free}");
}
