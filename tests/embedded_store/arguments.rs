//! The index of declared arguments in a program: after a kill, after a restart, and in a store of an earlier program.

use std::path::Path;
use std::time::Duration;

use celeriac::broker::embedded::{salvage, verify};
use celeriac::broker::{Broker, TaskFilter, TaskPage, UnfinishedTask};
use celeriac::catalogue::{Argument, Pool, QueueRow};
use celeriac::task::{Arguments, SEARCH, Signature};
use celeriac::{Celeriac, TaskError, task};

use crate::{PATIENCE, copy, message, open};

/// Fails for good if it is bad.
#[task(name = "forms.process", queue = "forms", max_retries = 0, search = ["form_id", "user"])]
async fn process(form_id: u64, title: String, user: String) -> Result<(), TaskError> {
    let _ = form_id;
    if title == "bad" { Err(TaskError::permanent(user)) } else { Ok(()) }
}

/// A program that runs its tasks, or one that only sends them.
async fn program(dir: &Path, served: bool) -> Celeriac {
    let row = QueueRow::new("forms").with_pool(Pool::Io).with_workers(2).with_served(served);
    Celeriac::builder().directory(dir).queue(row).start().await.unwrap()
}

fn by(name: &str, value: &str) -> TaskFilter {
    TaskFilter::new().argument(Argument::Name(name.to_owned()), value)
}

async fn page(celeriac: &Celeriac, filter: &TaskFilter) -> TaskPage<UnfinishedTask> {
    celeriac.page_unfinished_tasks(filter, &[], None, 1000).await.unwrap()
}

/// The ids of the tasks that are not over, by the index.
async fn indexed(celeriac: &Celeriac, name: &str, value: &str) -> Vec<String> {
    let page = page(celeriac, &by(name, value)).await;
    assert_eq!((page.by_index.as_deref(), page.next), (Some(name), None));
    let mut ids: Vec<String> = page.tasks.into_iter().map(|task| task.message.id.to_string()).collect();
    ids.sort();
    ids
}

async fn failed(celeriac: &Celeriac, value: &str) -> usize {
    let page = celeriac.page_failed_tasks(&by("form_id", value), None, 1000).await.unwrap();
    assert_eq!(page.by_index.as_deref(), Some("form_id"));
    page.tasks.len()
}

async fn send(celeriac: &Celeriac, id: &str, form_id: u64, title: &str) {
    let call = process::s(form_id, title.to_owned(), format!("user of {form_id}")).id(id);
    let call = if title == "late" { call.countdown(Duration::from_secs(3600)) } else { call };
    call.send(celeriac.client()).await.unwrap();
}

/// One task among 5,000 is found by a look at one row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_tasks_one_is_found_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac = program(dir.path(), false).await;
    for thousand in 0..5 {
        let numbers = thousand * 1_000..(thousand + 1) * 1_000;
        let calls = numbers.map(|n| process::s(n, "good".to_owned(), "all".to_owned()));
        Signature::send_many(calls, celeriac.client()).await.unwrap();
    }
    let found = page(&celeriac, &by("form_id", "4321")).await;
    assert_eq!((found.tasks.len(), found.looked_at, found.next), (1, Some(1), None));
    let by_user = by("user", "all").task("forms.*").unwrap().older_than(Duration::ZERO);
    let first = celeriac.page_unfinished_tasks(&by_user, &[], None, 50).await.unwrap();
    assert_eq!((first.tasks.len(), first.looked_at), (50, Some(50)));
    let next = celeriac.page_unfinished_tasks(&by_user, &[], first.next.as_deref(), 50).await.unwrap();
    assert_eq!((next.tasks.len(), next.looked_at), (50, Some(50)));
    assert!(next.tasks.iter().all(|task| !first.tasks.contains(task)), "none comes twice");
    celeriac.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_index_survives_what_its_rows_survive() {
    let (dir, killed, into) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let celeriac = program(dir.path(), true).await;
    for id in ["late", "bad", "good"] {
        send(&celeriac, id, 17, id).await;
    }
    for id in ["bad", "good"] {
        let client = celeriac.client();
        let record = tokio::time::timeout(PATIENCE, client.wait(&id.into())).await;
        assert!(record.is_ok_and(|record| record.is_ok()), "{id} ends");
    }
    celeriac.shutdown().await.unwrap();

    let celeriac = program(dir.path(), false).await;
    send(&celeriac, "waits", 17, "good").await;
    send(&celeriac, "other", 18, "good").await;
    assert_eq!(indexed(&celeriac, "form_id", "17").await, ["late", "waits"]);
    assert_eq!((failed(&celeriac, "17").await, failed(&celeriac, "18").await), (1, 0));
    celeriac.shutdown().await.unwrap();
    // What a kill would leave: nothing that was written is taken back, nothing more is written.
    let broker = open(dir.path()).unwrap();
    copy(dir.path(), killed.path());
    broker.close().await.unwrap();
    drop(broker);

    let celeriac = program(dir.path(), false).await;
    let revoked = celeriac.revoke_unfinished(&by("form_id", "17"), false).await.unwrap();
    assert_eq!(revoked.ids.len(), 2, "an act on all looks through all");
    assert!(indexed(&celeriac, "form_id", "17").await.is_empty());
    assert_eq!(celeriac.delete_failed(&by("form_id", "17")).await.unwrap().len(), 1);
    assert_eq!(failed(&celeriac, "17").await, 0);
    celeriac.shutdown().await.unwrap();

    let verified = verify(killed.path()).unwrap();
    assert_eq!((verified.damage, verified.waiting, verified.failed), (Vec::new(), 3, 1));
    salvage(killed.path(), into.path()).unwrap();
    for dir in [killed.path(), into.path()] {
        let celeriac = program(dir, false).await;
        assert_eq!(indexed(&celeriac, "form_id", "17").await, ["late", "waits"]);
        assert_eq!(indexed(&celeriac, "user", "user of 18").await, ["other"]);
        assert_eq!(failed(&celeriac, "17").await, 1);
        celeriac.shutdown().await.unwrap();
    }
}

/// Rows that an earlier program has written are in no index, and stay as they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_an_index_gets_one_and_keeps_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    let earlier = open(dir.path()).unwrap();
    let call = Arguments::encode(&(17, "good", "amina")).unwrap();
    for n in 0..3 {
        let mut message = message(n);
        (message.task, message.queue) = ("forms.process".to_owned(), "forms".to_owned());
        message.arguments = call.clone();
        earlier.publish(message, false).await.unwrap();
    }
    earlier.close().await.unwrap();
    drop(earlier);

    let celeriac = program(dir.path(), false).await;
    assert!(indexed(&celeriac, "form_id", "17").await.is_empty());
    let scanned = page(&celeriac, &by("form_id", "17").scanning()).await;
    assert_eq!((scanned.tasks.len(), scanned.by_index), (3, None));
    assert!(scanned.tasks.iter().all(|task| !task.message.headers.0.contains_key(SEARCH)));
    send(&celeriac, "new", 17, "good").await;
    assert_eq!(indexed(&celeriac, "form_id", "17").await, ["new"]);
    assert_eq!(page(&celeriac, &by("form_id", "17").scanning()).await.tasks.len(), 4);
    assert_eq!(celeriac.unfinished_tasks(&by("form_id", "17"), 10).await.unwrap().len(), 4);
    // What is not declared, and what is not told by one name, is looked for in all.
    for all in [by("title", "good"), TaskFilter::new().argument(Argument::Position(0), "17")] {
        let found = page(&celeriac, &all).await;
        assert_eq!((found.tasks.len(), found.by_index, found.looked_at), (4, None, Some(4)));
    }
    celeriac.shutdown().await.unwrap();
}

/// What a caller hides is in no index, whatever its task declares.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hidden_arguments_are_in_no_index() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac = program(dir.path(), false).await;
    let hidden = process::s(17, "good".to_owned(), "amina".to_owned()).argsrepr("***").id("hidden");
    hidden.send(celeriac.client()).await.unwrap();
    assert!(indexed(&celeriac, "form_id", "17").await.is_empty());
    assert!(indexed(&celeriac, "user", "amina").await.is_empty());
    let all = page(&celeriac, &TaskFilter::new()).await;
    assert!(!all.tasks[0].message.headers.0.contains_key(SEARCH));
    celeriac.shutdown().await.unwrap();
}
