//! `celeriac brake` on an embedded store whose program does not run.

use std::path::Path;
use std::time::Duration;

use celeriac::catalogue::QueueRow;
use celeriac::task::{NewTask, TENANT, TaskOptions};
use celeriac::{Celeriac, task};
use serde_json::{Value, json};

use super::{celeriac as command, text};

const WAIT: Duration = Duration::from_secs(120);

#[task(queue = "mails")]
async fn deliver(to: String) -> String {
    to
}

async fn start(dir: &Path, served: bool) -> Celeriac {
    let rows = ["mails", "bulk"].map(|name| QueueRow::new(name).with_served(served));
    let builder = rows.into_iter().fold(Celeriac::builder(), celeriac::Builder::queue);
    builder.directory(dir).start().await.expect("a start")
}

fn told(dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let directory = dir.display().to_string();
    text(command(&[arguments, &["--directory", &directory]].concat(), dir))
}

fn json_of(out: &str) -> Value {
    serde_json::from_str(out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brakes_are_set_listed_counted_and_taken_away() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = start(dir.path(), false).await;
    let mut sent = Vec::new();
    for n in 0..5 {
        let tenant = if n < 3 { "acme" } else { "other" };
        let call = deliver::s(format!("user-{n}")).header(TENANT, tenant);
        sent.push(call.send(program.client()).await.expect("an enqueue").id().clone());
    }
    program.shutdown().await.expect("an end");

    let (code, out, err) = told(dir.path(), &["brake", "dry-run", "--tenant", "acme"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.starts_with("3 tasks wait and match: tenant acme.\n  in mails: 3\n  of "), "{out}");
    let by_argument = ["brake", "dry-run", "--argument", "0=user-[04]", "--task", "*::deliver", "--json"];
    let (_, out, _) = told(dir.path(), &by_argument);
    let waiting = &json_of(&out)["waiting"];
    assert_eq!((&waiting["tasks"], &waiting["by_queue"]), (&json!(2), &json!({ "mails": 2 })));

    let pause = ["brake", "set", "pause", "--tenant", "acme", "--id", "acme", "--owner", "amina"];
    let (code, out, err) = told(dir.path(), &pause);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(
        out,
        "brake `acme`: pause for tenant acme is set. It holds when the program of the store starts.\n"
    );
    let divert = ["brake", "set", "divert", "--divert-to", "bulk", "--argument", "0=user-4", "--for", "1h"];
    let (code, out, _) = told(dir.path(), &[&divert[..], &["--reason", "a trial", "--json"]].concat());
    assert_eq!(code, Some(0), "{out}");
    let set = json_of(&out)["set"].clone();
    assert_eq!((&set["divert_to"], &set["reason"]), (&json!("bulk"), &json!("a trial")));
    let id = set["id"].as_str().expect("an id").to_owned();
    let (_, out, _) = told(dir.path(), &["brake", "list"]);
    assert!(
        out.contains("acme") && out.contains("divert to bulk") && out.ends_with("2 brakes in force.\n"),
        "{out}"
    );
    let (_, out, _) = told(dir.path(), &["brake", "list", "--json"]);
    let listed = json_of(&out);
    let ids: Vec<_> = listed["brakes"].as_array().expect("a list").iter().map(|brake| &brake["id"]).collect();
    assert_eq!((ids, &listed["unread"]), (vec![&json!("acme"), &json!(id)], &json!(0)));

    let program = start(dir.path(), true).await;
    let record = async |n: usize| {
        let record = tokio::time::timeout(WAIT, program.client().wait(&sent[n])).await.expect("in time");
        record.expect("a record")
    };
    assert_eq!((record(3).await.queue, record(4).await.queue), ("mails".to_owned(), "bulk".to_owned()));
    assert_eq!(program.brakes().list().await.expect("brakes").len(), 2);
    program.shutdown().await.expect("an end");

    let (code, out, _) = told(dir.path(), &["brake", "remove", "acme", &id]);
    assert_eq!((code, out), (Some(0), format!("brake `acme` is taken away.\nbrake `{id}` is taken away.\n")));
    let (code, _, err) = told(dir.path(), &["brake", "remove", "acme"]);
    assert_eq!(code, Some(1));
    assert!(err.starts_with("There is no brake `acme`"), "{err}");
    let (_, out, _) = told(dir.path(), &["brake", "remove", "acme", "--json"]);
    assert_eq!(json_of(&out), json!({ "removed": [], "unknown": ["acme"] }));
    let program = start(dir.path(), true).await;
    for id in &sent {
        let record = tokio::time::timeout(WAIT, program.client().wait(id)).await.expect("in time");
        assert!(record.expect("a record").result.is_some());
    }
    program.shutdown().await.expect("an end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_others_wrote_do_not_steer_a_terminal() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = start(dir.path(), false).await;
    let mut call = NewTask::new("evil\u{1b}[2J\nof all: 9", TaskOptions::default());
    call.options.queue = Some("mails".to_owned());
    program.client().enqueue(Box::new(call)).await.expect("an enqueue");
    program.shutdown().await.expect("an end");
    for arguments in [["brake", "dry-run", "--all"], ["bulk", "revoke", "--all"]] {
        let (code, out, _) = told(dir.path(), &arguments);
        assert_eq!(code, Some(0), "{out:?}");
        assert!(out.contains("  of evil[2J of all: 9: 1\n") && !out.contains('\u{1b}'), "{out:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_line_that_makes_no_brake_is_explained() {
    let dir = tempfile::tempdir().expect("a directory");
    start(dir.path(), true).await.shutdown().await.expect("an end");
    let cases: &[(&[&str], i32, &str)] = &[
        (&["set", "pause"], 2, "no condition"),
        (&["set", "pause", "--all", "--tenant", "a"], 2, "leave one of the two out"),
        (&["set", "slow", "--tenant", "a"], 2, "`slow` needs --rate"),
        (&["set", "slow", "--tenant", "a", "--rate", "fast"], 2, "write a rate such as 10/s"),
        (&["set", "divert", "--tenant", "a"], 2, "`divert` needs --divert-to"),
        (&["set", "divert", "--tenant", "a", "--divert-to", "bulkk"], 2, "there is no such queue"),
        (&["set", "pause", "--queue", "mail"], 2, "there is no such queue"),
        (&["set", "pause", "--tenant", "a", "--rate", "1/s"], 2, "leave out what is too much"),
        (&["set", "stop", "--tenant", "a"], 2, "possible values: pause, slow, divert, expire"),
        (&["set", "pause", "--argument", "a=(", "--id", "x"], 2, "unclosed group"),
        (&["set", "pause", "--argument", "a=1", "--argument", "b=1"], 2, "looks at one argument"),
        (&["set", "pause", "--tenant", "a", "--id", "catalogue-1"], 2, "stands in the catalogue"),
        (&["set", "pause", "--tenant", "a", "--for", "0s"], 2, "which is over"),
        (&["dry-run"], 2, "no condition"),
    ];
    for (arguments, code, says) in cases {
        let (found, _, err) = told(dir.path(), &[&["brake"][..], *arguments].concat());
        assert_eq!(found, Some(*code), "{arguments:?}: {err}");
        assert!(err.contains(says), "{arguments:?}: {err}");
    }
    let rabbitmq = ["brake", "list", "--broker", "amqp://localhost:1"];
    let (code, _, err) = text(command(&rabbitmq, dir.path()));
    assert_eq!(code, Some(2));
    assert!(err.contains("--result-backend"), "{err}");
    let (_, out, _) = told(dir.path(), &["brake", "list"]);
    assert_eq!(out, "0 brakes in force.\n");
}
