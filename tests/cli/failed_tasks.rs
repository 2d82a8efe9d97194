//! `celeriac failed` and `celeriac waiting` on an embedded store whose program does not run.

use std::path::Path;
use std::time::Duration;

use celeriac::catalogue::QueueRow;
use celeriac::{Celeriac, State, TaskError, TaskId, serial_task, task};
use serde_json::{Value, json};

use super::{celeriac as command, text};

const WAIT: Duration = Duration::from_secs(120);
const HOUR: Duration = Duration::from_secs(3600);

/// Charges a customer. The year 1999 has no prices.
#[task(queue = "bills", max_retries = 0)]
async fn charge(customer: String, year: u32) -> Result<String, TaskError> {
    if year < 2000 {
        return Err(TaskError::permanent(format!("no prices for {year}")));
    }
    Ok(customer)
}

#[serial_task(key = "{account}", queue = "bills", max_retries = 0)]
async fn book(account: String) -> Result<(), TaskError> {
    Err(TaskError::permanent(format!("{account} is closed")))
}

async fn start(dir: &Path, served: bool) -> Celeriac {
    let row = QueueRow::new("bills").with_served(served);
    Celeriac::builder().directory(dir).queue(row).start().await.expect("a start")
}

fn told(dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let directory = dir.display().to_string();
    text(command(&[arguments, &["--directory", &directory]].concat(), dir))
}

fn json_of(out: &str) -> Value {
    serde_json::from_str(out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

async fn end_of(program: &Celeriac, id: &TaskId) -> State {
    let record = tokio::time::timeout(WAIT, program.client().wait(id)).await.expect("in time");
    record.expect("a record").state
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_ones_are_listed_edited_retried_and_deleted() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = start(dir.path(), true).await;
    let mut lost = Vec::new();
    for n in 0..6 {
        let customer = if n < 4 { "acme" } else { "other" };
        let sent = charge::s(customer.to_owned(), 1999).send(program.client()).await.expect("an enqueue");
        assert_eq!(end_of(&program, sent.id()).await, State::Failure);
        lost.push(sent.id().to_string());
    }
    let serial = book::s("a".to_owned()).send(program.client()).await.expect("an enqueue");
    assert_eq!(end_of(&program, serial.id()).await, State::Failure);
    program.shutdown().await.expect("an end");

    let (code, out, err) = told(dir.path(), &["failed", "list", "--argument", "0=acme", "--limit", "3"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(
        out.contains("no prices for 1999") && out.ends_with("3 of 4 failed tasks that match.\n"),
        "{out}"
    );
    let (_, out, _) = told(dir.path(), &["failed", "list", &lost[0], "--verbose"]);
    assert!(out.contains("args [\"acme\",1999] kwargs {}; kept until "), "{out}");
    assert!(out.contains(" attempt 1: ") && out.ends_with("1 of 1 failed task that match.\n"), "{out}");
    let (_, out, _) =
        told(dir.path(), &["failed", "list", "--error", "no prices", "--contains", "other", "--json"]);
    let answer = json_of(&out);
    let ids: Vec<_> = answer["failed"].as_array().expect("a list").iter().map(|task| &task["id"]).collect();
    assert_eq!((ids, &answer["all"]), (vec![&json!(lost[4]), &json!(lost[5])], &json!(2)));

    // A wrong pattern and a wrong argument are told apart from nothing that matches.
    assert_eq!(told(dir.path(), &["failed", "retry", "--argument", "acme"]).0, Some(2));
    let (code, out, _) = told(dir.path(), &["failed", "retry", "--queue", "other", "--set", "1=2026"]);
    assert_eq!((code, out.as_str()), (Some(0), "0 of 0 failed tasks went back to their queues.\n"));

    let acme = ["failed", "retry", "--argument", "0=acme", "--set", "1=2026"];
    let (_, out, _) = told(dir.path(), &[&acme[..], &["--dry-run"]].concat());
    assert!(
        out.starts_with(&lost[0]) && out.ends_with("4 of 4 failed tasks would go back to their queues.\n"),
        "{out}"
    );
    let (code, out, err) = told(dir.path(), &[&acme[..], &["--json"]].concat());
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let answer = json_of(&out);
    assert_eq!(answer, json!({ "retried": lost[..4], "refused": [], "all": 4 }));
    let serial = serial.id().to_string();
    let (_, out, _) = told(dir.path(), &["failed", "retry", &serial, "--set", "0=b"]);
    assert!(out.starts_with(&format!("{serial} stays: it is serial")), "{out}");
    let (code, _, err) = told(dir.path(), &["failed", "delete", "--argument", "0=other"]);
    assert_eq!(code, Some(1), "nobody has said yes");
    assert!(err.starts_with("This deletes 2 failed tasks, and cannot be undone.\n"), "{err}");
    let (_, out, _) = told(dir.path(), &["failed", "delete", "--argument", "0=other", "--yes"]);
    assert_eq!(out, "2 failed tasks deleted.\n");
    let (_, out, _) = told(dir.path(), &["store", "verify"]);
    assert!(
        out.starts_with("4 waiting tasks, 3 results and 0 dead letters (and 1 failed tasks) can be read.\n"),
        "{out}"
    );

    let program = start(dir.path(), true).await;
    for id in &lost[..4] {
        assert_eq!(end_of(&program, &TaskId::from(id.as_str())).await, State::Success);
    }
    program.shutdown().await.expect("an end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_ones_are_listed_and_revoked_by_what_they_say() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = start(dir.path(), false).await;
    let mut sent = Vec::new();
    for customer in ["acme", "acme", "other"] {
        let call = charge::s(customer.to_owned(), 2026).send(program.client()).await.expect("an enqueue");
        sent.push(call.id().clone());
    }
    let later = charge::s("acme".to_owned(), 2027).countdown(HOUR).send(program.client()).await;
    sent.push(later.expect("an enqueue").id().clone());
    for _ in 0..2 {
        book::s("a".to_owned()).send(program.client()).await.expect("an enqueue");
    }
    program.shutdown().await.expect("an end");

    let (code, out, err) = told(dir.path(), &["waiting", "--argument", "0=acme", "--json"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let answer = json_of(&out);
    let mut states: Vec<_> =
        answer["waiting"].as_array().expect("a list").iter().map(|task| task["state"].to_string()).collect();
    states.sort();
    assert_eq!(
        (states, &answer["all"]),
        (["ready", "ready", "scheduled"].map(|s| format!("\"{s}\"")).to_vec(), &json!(3))
    );
    let (_, out, _) = told(dir.path(), &["waiting", "--task", "*::book"]);
    assert!(out.contains("in_line") && out.ends_with("2 of 2 waiting tasks that match.\n"), "{out}");
    assert_eq!(told(dir.path(), &["revoke", "some-id", "--queue", "bills"]).0, Some(2));
    let (_, out, _) = told(dir.path(), &["revoke", "--argument", "0=acme", "--json"]);
    assert_eq!(json_of(&out)["revoked"].as_array().map(Vec::len), Some(3), "{out}");

    let program = start(dir.path(), true).await;
    for (id, state) in sent.iter().zip([State::Revoked, State::Revoked, State::Success, State::Revoked]) {
        assert_eq!(end_of(&program, id).await, state);
    }
    program.shutdown().await.expect("an end");
}

/// Invoices a customer, by whom it is searched for. The year 1999 has no prices.
#[task(queue = "bills", max_retries = 0, search = ["customer"])]
async fn invoice(year: u32, customer: String) -> Result<String, TaskError> {
    if year < 2000 {
        return Err(TaskError::permanent(format!("no prices for {year}")));
    }
    Ok(customer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn declared_arguments_are_found_by_their_index() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = start(dir.path(), true).await;
    for (id, customer) in [("f-1", "acme"), ("f-2", "other"), ("f-3", "acme")] {
        let sent =
            invoice::s(1999, customer.to_owned()).id(id).send(program.client()).await.expect("an enqueue");
        assert_eq!(end_of(&program, sent.id()).await, State::Failure);
    }
    program.shutdown().await.expect("an end");
    let program = start(dir.path(), false).await;
    for (id, customer) in [("w-1", "acme"), ("w-2", "other"), ("w-3", "acme")] {
        invoice::s(2026, customer.to_owned()).id(id).send(program.client()).await.expect("an enqueue");
    }
    // It declares nothing, and its customer is found by no name on a command line.
    charge::s("acme".to_owned(), 2026).send(program.client()).await.expect("an enqueue");
    program.shutdown().await.expect("an end");

    let ids = |answer: &Value, list: &str| {
        let tasks = answer[list].as_array().expect("a list").iter();
        let mut ids: Vec<String> = tasks.map(|task| task["id"].as_str().expect("an id").to_owned()).collect();
        ids.sort();
        ids
    };
    for (command, list, found) in
        [(&["waiting"][..], "waiting", ["w-1", "w-3"]), (&["failed", "list"], "failed", ["f-1", "f-3"])]
    {
        let by_customer = [command, &["--argument", "customer=acme"]].concat();
        let (code, out, err) = told(dir.path(), &[&by_customer[..], &["--json"]].concat());
        assert_eq!((code, err.as_str()), (Some(0), ""));
        let answer = json_of(&out);
        assert_eq!(
            (ids(&answer, list), &answer["by_index"]),
            (found.map(str::to_owned).to_vec(), &json!("customer"))
        );
        assert_eq!(answer["all"], json!(2));
        let (_, out, _) = told(dir.path(), &[&by_customer[..], &["--scan", "--json"]].concat());
        let answer = json_of(&out);
        assert_eq!(
            (ids(&answer, list), &answer["by_index"]),
            (found.map(str::to_owned).to_vec(), &Value::Null)
        );
        let (_, out, _) = told(dir.path(), &[&by_customer[..], &["--limit", "1"]].concat());
        let way = "that match. They were found by the index of `customer`, which has the tasks that declare it; --scan looks through all.\n";
        assert!(out.contains("1 of 2 ") && out.ends_with(way), "{out}");
        let (_, out, _) = told(dir.path(), &[command, &["--argument", "year=2026"]].concat());
        assert!(out.starts_with("0 of 0 ") && !out.contains("index"), "{out}");
    }
}
