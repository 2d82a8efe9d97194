//! `celeriac bulk` on an embedded store whose program does not run.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use celeriac::catalogue::QueueRow;
use celeriac::task::TENANT;
use celeriac::{Celeriac, State, TaskError, TaskId, task};
use serde_json::{Value, json};

use super::{celeriac as command, text};

const WAIT: Duration = Duration::from_secs(120);

#[task(name = "bulk.deliver", queue = "mails")]
async fn deliver(to: String) -> String {
    to
}

/// Whether the fault is corrected by which deliveries fail.
static CORRECTED: AtomicBool = AtomicBool::new(false);

#[task(name = "bulk.fragile", queue = "mails", max_retries = 0)]
async fn fragile(n: u32) -> Result<u32, TaskError> {
    if CORRECTED.load(Ordering::SeqCst) { Ok(n) } else { Err(TaskError::permanent("not yet")) }
}

async fn start(dir: &Path, served: bool) -> Celeriac {
    let row = QueueRow::new("mails").with_served(served);
    Celeriac::builder().queue(row).directory(dir).start().await.expect("a start")
}

fn told(dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let directory = dir.display().to_string();
    text(command(&[arguments, &["--directory", &directory]].concat(), dir))
}

fn json_of(out: &str) -> Value {
    serde_json::from_str(out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

async fn state_of(program: &Celeriac, id: &TaskId) -> State {
    let record = tokio::time::timeout(WAIT, program.client().wait(id)).await.expect("in time");
    record.expect("a record").state
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_counted_and_then_revoked_by_the_program() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = start(dir.path(), false).await;
    let mut sent = Vec::new();
    for n in 0..7 {
        let tenant = if n < 5 { "acme" } else { "other" };
        let call = deliver::s(format!("user-{n}")).header(TENANT, tenant);
        sent.push(call.send(program.client()).await.expect("an enqueue").id().clone());
    }
    program.shutdown().await.expect("an end");

    let revoke = ["bulk", "revoke", "--tenant", "acme"];
    let (code, out, err) = told(dir.path(), &revoke);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let counted = "5 tasks wait and match: tenant acme.\n  in mails: 5\n  of bulk.deliver: 5\n";
    assert_eq!(out, format!("{counted}Nothing is changed. --yes revokes them.\n"));
    let by_name = ["bulk", "revoke", "--argument", "to=user-[01]"];
    let (_, out, _) = told(dir.path(), &by_name);
    assert!(out.starts_with("0 tasks wait and match: argument to like /user-[01]/.\n"), "{out}");
    assert!(out.contains("so it may revoke more than these"), "{out}");
    let (_, out, _) =
        told(dir.path(), &["bulk", "revoke", "--argument", "0=user-[01]", "--queue", "mails", "--json"]);
    let counted_by_place = json_of(&out);
    let found = (&counted_by_place["waiting"]["tasks"], &counted_by_place["exact"], &counted_by_place["act"]);
    assert_eq!(found, (&json!(2), &json!(true), &Value::Null));
    let (_, out, _) = told(dir.path(), &["bulk", "list"]);
    assert_eq!(out, "0 acts, 0 not over.\n", "nothing is changed without --yes");

    // So that none starts meanwhile.
    let hold = ["brake", "set", "pause", "--tenant", "acme", "--id", "hold"];
    assert_eq!(told(dir.path(), &hold).0, Some(0));
    let (code, out, err) = told(dir.path(), &[&revoke[..], &["--yes"]].concat());
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let act = out.strip_prefix(counted).and_then(|rest| rest.strip_prefix("act `")).unwrap_or_default();
    let (id, rest) = act.split_once('`').unwrap_or_default();
    assert_eq!(rest, ": the program revokes them in the background when it starts.\n", "{out}");
    let (_, out, _) = told(dir.path(), &["bulk", "list", "--json"]);
    let acts = json_of(&out)["acts"].clone();
    let first = &acts[0];
    assert_eq!((&first["id"], &first["action"], &first["found"]), (&json!(id), &json!("revoke"), &json!(5)));
    assert_eq!((&first["done"], &first["ended_at"]), (&json!(0), &Value::Null));
    let (_, out, _) = told(dir.path(), &["bulk", "list"]);
    assert!(out.contains("tenant acme") && out.ends_with("1 act, 1 not over.\n"), "{out}");

    let program = start(dir.path(), true).await;
    let done = tokio::time::timeout(WAIT, program.bulk().wait(id)).await.expect("in time").expect("an act");
    assert_eq!((done.found, done.done, done.failed, done.error), (5, 5, 0, None));
    for (n, id) in sent.iter().enumerate() {
        let state = if n < 5 { State::Revoked } else { State::Success };
        assert_eq!(state_of(&program, id).await, state, "{n}");
    }
    program.shutdown().await.expect("an end");
    let (_, out, _) = told(dir.path(), &["bulk", "list"]);
    assert!(out.ends_with("1 act, 0 not over.\n"), "{out}");
    let (code, out, _) = told(dir.path(), &[&revoke[..], &["--yes"]].concat());
    assert_eq!((code, out.as_str()), (Some(0), "0 tasks wait and match: tenant acme.\n"));
}

/// The id of the act in what a command has printed.
fn act_of(out: &str) -> &str {
    let (_, rest) = out.split_once("act `").unwrap_or_else(|| panic!("{out}"));
    rest.split('`').next().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_moved_or_purged_and_brought_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let program_with = async |served: bool| {
        let rows = ["mails", "slow"].map(|name| QueueRow::new(name).with_served(served));
        let builder = rows.into_iter().fold(Celeriac::builder(), celeriac::app::Builder::queue);
        builder.directory(dir.path()).start().await.expect("a start")
    };
    let program = program_with(false).await;
    let mut sent = Vec::new();
    for n in 0..6 {
        let tenant = if n < 4 { "acme" } else { "other" };
        let call = deliver::s(format!("user-{n}")).header(TENANT, tenant);
        sent.push(call.send(program.client()).await.expect("an enqueue").id().clone());
    }
    program.shutdown().await.expect("an end");
    let waiting = |queue: &str| {
        let (_, out, _) = told(dir.path(), &["brake", "dry-run", "--queue", queue, "--json"]);
        json_of(&out)["waiting"]["tasks"].clone()
    };

    let to_slow = ["bulk", "move", "--to", "slow", "--tenant", "acme"];
    let counted = "4 tasks wait and match: tenant acme.\n  in mails: 4\n  of bulk.deliver: 4\n";
    let (code, out, err) = told(dir.path(), &to_slow);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(out, format!("{counted}Nothing is changed. --yes moves them.\n"));
    let (_, out, _) = told(dir.path(), &[&to_slow[..], &["--yes"]].concat());
    let moved = act_of(&out).to_owned();
    let done = format!("act `{moved}`: 4 tasks moved.\n");
    assert_eq!(
        out,
        format!("{counted}{done}`celeriac bulk undo {moved}` takes it back within ten minutes.\n")
    );
    assert_eq!((waiting("mails"), waiting("slow")), (json!(2), json!(4)));

    let purge = ["bulk", "purge", "--queue", "mails", "--yes", "--json"];
    let (_, out, _) = told(dir.path(), &purge);
    let purged = json_of(&out)["act"].clone();
    assert_eq!((&purged["action"], &purged["done"]), (&json!("purge"), &json!(2)));
    assert!(purged["undoable_until"].is_string() && purged["ended_at"].is_string(), "{purged}");
    assert_eq!(waiting("mails"), json!(0));

    let (code, out, err) = told(dir.path(), &["bulk", "undo", &moved]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(out, format!("act `{moved}`: 4 tasks are where they were before it.\n"));
    let id = purged["id"].as_str().expect("an id");
    let (_, out, _) = told(dir.path(), &["bulk", "undo", id, "--json"]);
    assert_eq!(json_of(&out)["undo"]["back"], json!(2));
    assert_eq!((waiting("mails"), waiting("slow")), (json!(6), json!(0)));
    let (_, out, _) = told(dir.path(), &["bulk", "list"]);
    assert!(out.contains("tenant acme to slow") && out.contains("4 back, 0 left"), "{out}");
    let retry = ["bulk", "revoke", "--queue", "slow", "--json"];
    assert_eq!(json_of(&told(dir.path(), &retry).1)["not_undoable"], Value::Null);

    let program = program_with(true).await;
    for id in &sent {
        assert_eq!(state_of(&program, id).await, State::Success);
    }
    program.shutdown().await.expect("an end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_act_that_is_cancelled_is_not_carried_out_by_the_program() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = start(dir.path(), false).await;
    let sent = deliver::s("a".to_owned()).send(program.client()).await.expect("an enqueue").id().clone();
    program.shutdown().await.expect("an end");
    let (_, out, _) = told(dir.path(), &["bulk", "revoke", "--all", "--yes"]);
    let id = act_of(&out).to_owned();
    let (code, out, err) = told(dir.path(), &["bulk", "cancel", &id]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(out, format!("act `{id}` is cancelled: 0 tasks of 1 were done.\n"));
    let (code, _, err) = told(dir.path(), &["bulk", "cancel", &id]);
    assert_eq!(code, Some(1));
    assert!(err.contains("cannot be cancelled: it was over at"), "{err}");
    let (_, out, _) = told(dir.path(), &["bulk", "list", "--json"]);
    let act = json_of(&out)["acts"][0].clone();
    assert!(act["cancel"]["at"].is_string() && act["ended_at"].is_string(), "{act}");
    let (_, out, _) = told(dir.path(), &["bulk", "list"]);
    assert!(out.contains("cancelled") && out.ends_with("1 act, 0 not over.\n"), "{out}");

    let program = start(dir.path(), true).await;
    assert_eq!(state_of(&program, &sent).await, State::Success);
    program.shutdown().await.expect("an end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_failed_is_counted_and_then_put_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = start(dir.path(), true).await;
    let mut sent = Vec::new();
    for n in 0..4 {
        let tenant = if n < 3 { "acme" } else { "other" };
        let call = fragile::s(n).header(TENANT, tenant);
        sent.push(call.send(program.client()).await.expect("an enqueue").id().clone());
    }
    for id in &sent {
        assert_eq!(state_of(&program, id).await, State::Failure);
    }
    program.shutdown().await.expect("an end");

    let retry = ["bulk", "retry", "--tenant", "acme"];
    let (code, out, err) = told(dir.path(), &retry);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let counted = "3 failed tasks match: tenant acme.\n";
    assert_eq!(out, format!("{counted}Nothing is changed. --yes puts them back into their queues.\n"));
    let (code, out, _) = told(dir.path(), &[&retry[..], &["--yes"]].concat());
    assert_eq!(code, Some(0), "{out}");
    assert!(out.starts_with(&format!("{counted}act `")), "{out}");
    assert!(out.ends_with("`: 3 of 3 went back to their queues.\n"), "{out}");
    let (_, out, _) = told(dir.path(), &["bulk", "retry", "--all", "--json"]);
    assert_eq!(json_of(&out), json!({ "failed": 1, "refused": [], "act": null }));
    let (_, out, _) = told(dir.path(), &["bulk", "list", "--json"]);
    let acts = json_of(&out)["acts"].clone();
    let numbers = (&acts[0]["action"], &acts[0]["found"], &acts[0]["done"], &acts[0]["failed"]);
    assert_eq!(numbers, (&json!("retry"), &json!(3), &json!(3), &json!(0)));
    assert!(acts[0]["ended_at"].is_string(), "{acts}");

    CORRECTED.store(true, Ordering::SeqCst);
    let program = start(dir.path(), true).await;
    for (n, id) in sent.iter().enumerate() {
        let state = if n < 3 { State::Success } else { State::Failure };
        assert_eq!(state_of(&program, id).await, state, "{n}");
    }
    program.shutdown().await.expect("an end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_line_that_makes_no_act_is_explained() {
    let dir = tempfile::tempdir().expect("a directory");
    let rows = ["mails", "slow"].map(|name| QueueRow::new(name).with_served(false));
    let builder = rows.into_iter().fold(Celeriac::builder(), celeriac::app::Builder::queue);
    let program = builder.directory(dir.path()).start().await.expect("a start");
    program.shutdown().await.expect("an end");
    let cases: &[(&[&str], &str)] = &[
        (&["revoke", "--yes"], "no condition"),
        (&["retry"], "no condition"),
        (&["revoke", "--all", "--tenant", "a"], "leave one of the two out"),
        (&["revoke", "--queue", "mail"], "there is no queue `mail`; did you mean `mails`?"),
        (&["retry", "--queue", "mail"], "there is no queue `mail`; did you mean `mails`?"),
        (&["retry", "--argument", "a=("], "unclosed group"),
        (&["revoke", "--argument", "a=1", "--argument", "b=1"], "looks at one argument"),
        (&["move", "--all"], "--to <NAME>"),
        (&["move", "--all", "--to", "slo"], "there is no queue `slo`; did you mean `slow`?"),
        (&["purge"], "no condition"),
        (&["undo"], "<ID>"),
        (&["cancel"], "<ID>"),
        (&["redo"], "unrecognized subcommand"),
    ];
    for (arguments, says) in cases {
        let (found, _, err) = told(dir.path(), &[&["bulk"][..], *arguments].concat());
        assert_eq!(found, Some(2), "{arguments:?}: {err}");
        assert!(err.contains(says), "{arguments:?}: {err}");
    }
    let (code, _, err) = told(dir.path(), &["bulk", "undo", "nosuch"]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("There is no act `nosuch`"), "{err}");
    for arguments in [
        &["revoke", "--all"][..],
        &["retry", "--all"],
        &["list"],
        &["purge", "--all"],
        &["undo", "a"],
        &["cancel", "a"],
    ] {
        let arguments = [&["bulk"][..], arguments, &["--broker", "amqp://localhost:1"]].concat();
        let (code, _, err) = text(command(&arguments, dir.path()));
        assert_eq!(code, Some(1), "{err}");
        assert!(err.contains("needs the --directory of a store"), "{err}");
    }
}
