//! `celeriac purge` and `celeriac revoke` on an embedded store whose program does not run.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use celeriac::catalogue::QueueRow;
use celeriac::{Celeriac, State, TaskId, serial_task, task};
use serde_json::{Value, json};

use super::{celeriac as command, text};

const WAIT: Duration = Duration::from_secs(120);
const HOUR: Duration = Duration::from_secs(3600);

#[task(queue = "letters")]
async fn mail(n: u32) -> u32 {
    n
}

#[task(queue = "parcels")]
async fn send(n: u32) -> u32 {
    n
}

#[serial_task(key = "{lane}", queue = "turns")]
async fn in_turn(lane: String) -> String {
    lane
}

/// While its queues are not served, whatever is sent waits.
async fn start(dir: &Path, served: bool) -> Celeriac {
    let rows = ["letters", "parcels", "turns"].map(|name| QueueRow::new(name).with_served(served));
    let builder = rows.into_iter().fold(Celeriac::builder().directory(dir), celeriac::Builder::queue);
    builder.start().await.expect("a start")
}

fn told(dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let directory = dir.display().to_string();
    text(command(&[arguments, &["--directory", &directory]].concat(), dir))
}

/// What waits in a queue is gone, wherever it waited, and the store and its lanes are sound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn are_purged_by_queue() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = start(dir.path(), false).await;
    for n in 0..30 {
        mail::s(n).send(program.client()).await.expect("an enqueue");
        mail::s(n).countdown(HOUR).send(program.client()).await.expect("an enqueue");
    }
    let mut kept = Vec::new();
    for n in 0..5 {
        kept.push(send::s(n).send(program.client()).await.expect("an enqueue").id().clone());
        in_turn::s("a".to_owned()).send(program.client()).await.expect("an enqueue");
    }
    program.shutdown().await.expect("an end");

    let (code, out, err) = told(dir.path(), &["purge", "letters", "leters", "--yes"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert_eq!(err, "Nothing was deleted: there is no queue `leters`. Correct the name.\n");
    let (code, _, err) = told(dir.path(), &["purge", "letters"]);
    assert_eq!(code, Some(1), "nobody has said yes");
    assert!(err.contains("  letters: 60 tasks\n") && err.ends_with("Nothing was deleted.\n"), "{err}");
    let (code, out, err) = told(dir.path(), &["purge", "turns", "--yes", "--json"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let numbers: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(numbers, json!({"purged": {"turns": 5}, "all": 5}));
    let mut asked = Command::new(env!("CARGO_BIN_EXE_celeriac"));
    asked.args(["purge", "letters", "turns", "--directory"]).arg(dir.path());
    let pipes = asked.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut asked = pipes.spawn().expect("a process");
    asked.stdin.take().expect("a pipe").write_all(b"yes\n").expect("it reads");
    let (code, out, _) = text(asked.wait_with_output().expect("an end"));
    assert_eq!((code, out.as_str()), (Some(0), "letters: 60 tasks\nturns: 0 tasks\n60 tasks deleted.\n"));

    let (code, out, err) = told(dir.path(), &["store", "verify"]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.starts_with("5 waiting tasks, 0 results and 0 dead letters can be read.\n"), "{out}");
    let program = start(dir.path(), true).await;
    for (n, id) in (0_u32..).zip(&kept) {
        let record = tokio::time::timeout(WAIT, program.client().wait(id)).await.expect("in time");
        assert_eq!(record.expect("a record").state, State::Success, "{n}");
    }
    let next = in_turn::s("a".to_owned()).send(program.client()).await.expect("an enqueue");
    assert_eq!(next.get(WAIT).await, Ok("a".to_owned()), "the lane is free");
    program.shutdown().await.expect("an end");
}

/// They end as REVOKED when the program starts, whether they are due or not, and the others run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn are_revoked_by_name_and_by_id() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = start(dir.path(), false).await;
    let mut revoked: Vec<TaskId> = Vec::new();
    for n in 0..3 {
        revoked.push(mail::s(n).send(program.client()).await.expect("an enqueue").id().clone());
    }
    let later = mail::s(3).countdown(HOUR).send(program.client()).await.expect("an enqueue");
    revoked.push(later.id().clone());
    let [first, second] = [4, 5].map(send::s);
    let first = first.send(program.client()).await.expect("an enqueue").id().clone();
    let second = second.send(program.client()).await.expect("an enqueue").id().clone();
    let turns = ["b", "b"].map(|lane| in_turn::s(lane.to_owned()));
    let mut in_line = Vec::new();
    for turn in turns {
        in_line.push(turn.send(program.client()).await.expect("an enqueue").id().clone());
    }
    let (code, _, err) = told(dir.path(), &["revoke", "--task", "*mail"]);
    assert_eq!(code, Some(1), "the program still runs");
    assert!(err.contains("in use by process"), "{err}");
    program.shutdown().await.expect("an end");

    let (code, out, err) = told(dir.path(), &["revoke", "--task", "*::mail", "--json"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let answer: Value = serde_json::from_str(&out).expect("JSON");
    let mut found: Vec<&str> =
        answer["revoked"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    found.sort_unstable();
    let mut expected: Vec<&str> = revoked.iter().map(TaskId::as_str).collect();
    expected.sort_unstable();
    assert_eq!((found, &answer["unknown"]), (expected, &json!([])));
    let (code, out, _) =
        told(dir.path(), &["revoke", first.as_str(), in_line[1].as_str(), "nobody", "--terminate"]);
    let said = "nobody does not wait here: it is over, or was never here\n2 tasks are revoked when the program starts, before anything runs.\n";
    assert_eq!((code, out.as_str()), (Some(0), said));
    revoked.extend([first, in_line[1].clone()]);

    let program = start(dir.path(), true).await;
    let ends = revoked.iter().map(|id| (id, State::Revoked));
    for (id, state) in ends.chain([(&second, State::Success), (&in_line[0], State::Success)]) {
        let record = tokio::time::timeout(WAIT, program.client().wait(id)).await.expect("in time");
        assert_eq!(record.expect("a record").state, state, "{id}");
    }
    program.shutdown().await.expect("an end");
    // The orders are carried out, and gone.
    let (_, out, _) = told(dir.path(), &["revoke", "--task", "*", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&out).expect("JSON"), json!({"revoked": [], "unknown": []}));
}
