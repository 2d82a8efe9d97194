//! The index against the rows that it leads to: whatever happens in whatever order, each row has its entries, there are no others,
//! and a look by the index finds what a look through all tasks finds.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::super::failed_tasks::failed_in;
use super::super::lanes::is_waiting;
use super::super::rows::decode;
use super::super::{EmbeddedOptions, salvage};
use super::*;
use crate::broker::conformance::{Inbox, sample};
use crate::broker::{
    Broker, BulkChange, BulkChanges, BulkPick, Delivery, FailedTask, FailedTasks, Inspect, Remains, Settle,
    Standing, TaskEdit, TaskFilter,
};
use crate::catalogue::Argument;
use crate::task::clock::now;
use crate::task::{Arguments, Durability, LaneName, SEARCH, SerialHeader, TaskId};

fn open(dir: &Path) -> EmbeddedBroker {
    let options = EmbeddedOptions { delivery_limit: 2, max_failed: 4, ..EmbeddedOptions::default() };
    EmbeddedBroker::open(dir, options).unwrap()
}

/// The `n`th message, with this JSON as its only argument, which it declares.
fn declared(n: usize, json: &str) -> Message {
    let mut message = sample("q", n, Durability::Disk);
    message.arguments.args = format!("[{json}]");
    message.headers.0.insert(SEARCH.to_owned(), json!({ "form_id": 0 }));
    message
}

fn by_form(value: &str) -> TaskFilter {
    TaskFilter::new().argument(Argument::Name("form_id".into()), value)
}

fn sorted(ids: impl IntoIterator<Item = TaskId>) -> Vec<String> {
    let mut ids: Vec<String> = ids.into_iter().map(|id| id.to_string()).collect();
    ids.sort();
    ids
}

/// The ids of the tasks that are not over and of those that have failed, by the index, page by page.
async fn indexed(broker: &EmbeddedBroker, value: &str) -> [Vec<String>; 2] {
    let filter = by_form(value).by_index(|name| name == "form_id");
    let (mut waiting, mut failed, mut after) = (Vec::new(), Vec::new(), None::<String>);
    loop {
        let page = broker.page_unfinished(&filter, &[], after.as_deref(), 2).await.unwrap();
        assert!(page.tasks.len() <= 2 && page.by_index.as_deref() == Some("form_id"));
        waiting.extend(page.tasks.into_iter().map(|task| task.message.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    loop {
        let page = broker.page_failed(&filter, after.as_deref(), 2).await.unwrap();
        assert!(page.tasks.len() <= 2 && page.by_index.as_deref() == Some("form_id"));
        failed.extend(page.tasks.into_iter().map(|task| task.message.id));
        after = page.next;
        if after.is_none() {
            return [sorted(waiting), sorted(failed)];
        }
    }
}

/// The same by a look through all.
async fn scanned(broker: &EmbeddedBroker, value: &str) -> [Vec<String>; 2] {
    let waiting = broker.list_unfinished(&by_form(value), usize::MAX).await.unwrap();
    let failed = broker.list_failed(&by_form(value), usize::MAX).await.unwrap();
    [
        sorted(waiting.into_iter().map(|task| task.message.id)),
        sorted(failed.into_iter().map(|task| task.message.id)),
    ]
}

/// The keys of the entries that these tables have, and of those that their rows should have.
fn entries(tables: &Tables) -> [BTreeSet<Vec<u8>>; 2] {
    let rows = |table| tables.readable(table, &[], Bound::Unbounded);
    let found = rows(TableName::Lanes).filter(|(key, _)| is_entry(key)).map(|(key, _)| key.to_vec());
    let in_lanes = rows(TableName::Lanes).filter(|(key, _)| is_waiting(key));
    let waiting = rows(TableName::Messages).chain(in_lanes);
    let waiting = waiting.flat_map(|(_, row)| waiting_keys(&decode::<Message>(&row).unwrap()));
    let failed = rows(TableName::Dead)
        .flat_map(|(key, row)| failed_keys(&failed_in(&key, &row).expect("a failed task").message, &key));
    [found.collect(), waiting.chain(failed).collect()]
}

/// The tables of an open store, with all that was asked before.
async fn tables(broker: &EmbeddedBroker) -> Tables {
    broker.queues().await.unwrap();
    broker.inner.shared.tables.read().as_ref().unwrap().clone()
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Plain,
    Later,
    InLane,
    Hidden,
    Undeclared,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Ack,
    Retry { value: usize },
    Later { value: usize },
    Fail,
    Bury,
    Return,
    Crash,
}

#[derive(Clone, Debug)]
enum Step {
    Publish {
        value: usize,
        kind: Kind,
    },
    Settle(usize, How),
    Remove(usize),
    RetryFailed {
        which: usize,
        edit: Option<usize>,
    },
    DeleteFailed(usize),
    RequeueDeadLetters,
    Purge,
    /// Moves or ends every second task that waits.
    ChangeAll {
        which: usize,
        moves: bool,
    },
    Undo,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = || 0..VALUES;
    let kind = prop_oneof![
        4 => Just(Kind::Plain),
        2 => Just(Kind::Later),
        3 => Just(Kind::InLane),
        1 => Just(Kind::Hidden),
        1 => Just(Kind::Undeclared),
    ];
    let how = prop_oneof![
        3 => Just(How::Ack),
        3 => value().prop_map(|value| How::Retry { value }),
        1 => value().prop_map(|value| How::Later { value }),
        3 => Just(How::Fail),
        2 => Just(How::Bury),
        1 => Just(How::Return),
        2 => Just(How::Crash),
    ];
    let step = prop_oneof![
        8 => (value(), kind).prop_map(|(value, kind)| Step::Publish { value, kind }),
        9 => ((0..50_usize), how).prop_map(|(which, how)| Step::Settle(which, how)),
        2 => (0..50_usize).prop_map(Step::Remove),
        2 => ((0..50_usize), prop::option::of(value()))
            .prop_map(|(which, edit)| Step::RetryFailed { which, edit }),
        1 => (0..50_usize).prop_map(Step::DeleteFailed),
        1 => Just(Step::RequeueDeadLetters),
        1 => Just(Step::Purge),
        2 => ((0..2_usize), any::<bool>()).prop_map(|(which, moves)| Step::ChangeAll { which, moves }),
        1 => Just(Step::Undo),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..40)
}

/// The number of values.
const VALUES: usize = 5;

/// A value as JSON. Two have the same text, and two the same beginning.
fn json_of(value: usize) -> String {
    match value {
        0 => "17".to_owned(),
        1 => "\"17\"".to_owned(),
        2 => "true".to_owned(),
        _ => format!("\"{}{value}\"", "long ".repeat(60)),
    }
}

/// The texts of all values.
fn texts() -> BTreeSet<String> {
    (0..VALUES).map(|value| json_of(value).trim_matches('"').to_owned()).collect()
}

/// One pick of several.
fn pick<T>(all: Vec<T>, which: usize) -> Option<T> {
    let count = all.len().max(1);
    all.into_iter().nth(which % count)
}

struct Run {
    dir: TempDir,
    broker: EmbeddedBroker,
    inbox: Inbox,
    held: Vec<Delivery>,
    next: usize,
}

impl Run {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let broker = open(dir.path());
        let inbox = Inbox::open(&Self::shared(&broker), "q", 4);
        Self { dir, broker, inbox, held: Vec::new(), next: 0 }
    }

    fn shared(broker: &EmbeddedBroker) -> Arc<dyn Broker> {
        Arc::new(broker.clone())
    }

    async fn step(mut self, step: Step) -> Self {
        let all = TaskFilter::new();
        match step {
            Step::Publish { value, kind } => self.publish(value, kind).await,
            Step::Settle(which, how) => {
                if !self.held.is_empty() {
                    let delivery = self.held.swap_remove(which % self.held.len());
                    settle(delivery, how).await;
                }
            }
            Step::Remove(which) => {
                let waiting = self.broker.list_unfinished(&all, usize::MAX).await.unwrap();
                if let Some(task) = pick(waiting, which) {
                    let nothing = Box::new(|_: &Message| Remains::default());
                    self.broker.remove(&task.message.id, nothing).await.unwrap();
                }
            }
            Step::RetryFailed { which, edit } => {
                let edit = edit.map(|value| {
                    let args = format!("[{}]", json_of(value));
                    TaskEdit::arguments(Arguments { args, kwargs: String::new() })
                });
                if let Some(id) = pick(self.broker.failed_ids(&all).await.unwrap(), which) {
                    self.broker.retry_failed(&[id], edit.as_ref()).await.unwrap();
                }
            }
            Step::DeleteFailed(which) => {
                if let Some(id) = pick(self.broker.failed_ids(&all).await.unwrap(), which) {
                    self.broker.delete_failed(&[id]).await.unwrap();
                }
            }
            Step::RequeueDeadLetters => {
                let letters = self.broker.dead_letters(10).await.unwrap();
                let ids: Vec<TaskId> = letters.into_iter().map(|letter| letter.message.id).collect();
                self.broker.requeue_dead_letters(&ids).await.unwrap();
            }
            Step::Purge => assert!(self.broker.purge("q").await.unwrap().is_some()),
            Step::ChangeAll { which, moves } => {
                let waiting = self.broker.list_unfinished(&all, usize::MAX).await.unwrap();
                let waiting = waiting.into_iter().filter(|task| task.standing != Standing::Delivered);
                let picks = waiting.map(|task| BulkPick { id: task.message.id, tag: None });
                let change = if moves {
                    BulkChange::Move { to: "other".to_owned() }
                } else {
                    BulkChange::End { remains: Arc::new(|_: &Message| Remains::default()) }
                };
                let picks = picks.skip(which).step_by(2).collect();
                self.broker.change_all(Some("act"), &change, picks).await.unwrap();
            }
            Step::Undo => {
                let kept = self.broker.kept_for("act", usize::MAX).await.unwrap();
                let picks = kept.into_iter().map(|kept| (kept, None)).collect();
                self.broker.undo("act", picks, true).await.unwrap();
            }
            Step::Reopen => {
                let Self { dir, broker, inbox, held, next } = self;
                drop((inbox, held));
                broker.close().await.unwrap();
                drop(broker);
                let broker = open(dir.path());
                let inbox = Inbox::open(&Self::shared(&broker), "q", 4);
                return Self { dir, broker, inbox, held: Vec::new(), next };
            }
        }
        self
    }

    async fn publish(&mut self, value: usize, kind: Kind) {
        self.next += 1;
        let mut message = declared(self.next, &json_of(value));
        match kind {
            Kind::Plain => {}
            Kind::Later => message.eta = Some(now() + Duration::from_secs(3600)),
            Kind::InLane => message.serial = Some(Box::new(SerialHeader::new(LaneName::new("t", "k")))),
            Kind::Hidden => drop(message.headers.0.insert("argsrepr".to_owned(), "***".into())),
            Kind::Undeclared => drop(message.headers.0.remove(SEARCH)),
        }
        self.broker.publish(message, false).await.unwrap();
    }

    async fn check(&mut self) {
        let more = self.inbox.rest(&Self::shared(&self.broker), "q").await;
        self.held.extend(more);
        let [found, expected] = entries(&tables(&self.broker).await);
        assert_eq!(found, expected);
        for value in texts() {
            assert_eq!(indexed(&self.broker, &value).await, scanned(&self.broker, &value).await, "{value}");
        }
    }
}

async fn settle(delivery: Delivery, how: How) {
    let message = Message::clone(delivery.message());
    let with = |value| {
        let arguments = Arguments { args: format!("[{}]", json_of(value)), kwargs: String::new() };
        Box::new(Message { arguments, ..message.clone() })
    };
    let end = match how {
        How::Ack => Settle::Ack { result: None, follow_ups: None },
        How::Retry { value } => Settle::Requeue { message: with(value), due: None },
        How::Later { value } => {
            Settle::Requeue { message: with(value), due: Some(now() + Duration::from_secs(3600)) }
        }
        How::Fail => {
            let (failed_at, expires_at) = (now(), Some(now() + Duration::from_secs(3600)));
            let failed = FailedTask { message, reason: "down".to_owned(), failed_at, expires_at };
            Settle::Fail { failed: Box::new(failed), result: None, follow_ups: None }
        }
        How::Bury => Settle::DeadLetter { reason: "odd".to_owned(), result: None, follow_ups: None },
        How::Return => Settle::Return { crashed: false },
        How::Crash => Settle::Return { crashed: true },
    };
    delivery.settle_and_wait(end).await.unwrap();
}

#[test]
fn the_index_has_what_the_rows_say_and_nothing_else() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in steps())| {
        runtime.block_on(async {
            let mut run = Run::new();
            for step in steps {
                run = run.step(step).await;
                run.check().await;
            }
        });
    });
}

#[tokio::test]
async fn a_task_that_declares_nothing_has_no_entry() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    broker.publish(sample("q", 1, Durability::Disk), false).await.unwrap();
    let [found, expected] = entries(&tables(&broker).await);
    assert!(found.is_empty() && expected.is_empty());
    broker.publish(declared(2, "17"), false).await.unwrap();
    let [found, expected] = entries(&tables(&broker).await);
    assert_eq!((found.len(), &found), (1, &expected));
}

/// What an earlier program leaves behind, which takes tasks and knows of no index.
#[tokio::test]
async fn an_entry_without_its_row_shows_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    for n in 0..3 {
        broker.publish(declared(n, "17"), false).await.unwrap();
    }
    let failed_at = now();
    for n in 3..5 {
        let (message, reason) = (declared(n, "17"), "down".to_owned());
        let expires_at = Some(failed_at + Duration::from_secs(3600));
        broker.keep_failed(FailedTask { message, reason, failed_at, expires_at }).await.unwrap();
    }
    broker.close().await.unwrap();
    let tables = Tables::open(dir.path(), None).unwrap();
    let mut writes = Writes::default();
    let task = task_key(&TaskId::from("q-1"));
    let (table, key, _) = message_of(&tables, &task).unwrap();
    writes.delete(table, &key);
    writes.delete(TableName::Tasks, &task);
    let (dead, _) = tables.readable(TableName::Dead, &[], Bound::Unbounded).next().unwrap();
    writes.delete(TableName::Dead, &dead);
    tables.write(&[&writes]).unwrap();
    let [found, expected] = entries(&tables);
    assert_eq!((found.len(), expected.len()), (5, 3));
    tables.close();
    let broker = open(dir.path());
    let [waiting, failed] = indexed(&broker, "17").await;
    assert_eq!((waiting, failed), (vec!["q-0".to_owned(), "q-2".to_owned()], vec!["q-4".to_owned()]));
}

#[tokio::test]
async fn a_row_without_an_entry_is_found_by_a_look_through_all() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let mut earlier = declared(1, "17");
    earlier.headers.0.remove(SEARCH);
    earlier.arguments = Arguments { args: "[]".to_owned(), kwargs: "{\"form_id\":17}".to_owned() };
    broker.publish(earlier, false).await.unwrap();
    for n in 2..5 {
        broker.publish(declared(n, "17"), false).await.unwrap();
    }
    assert_eq!(indexed(&broker, "17").await[0], ["q-2", "q-3", "q-4"]);
    let all = by_form("17").by_index(|_| true).scanning();
    let page = broker.page_unfinished(&all, &[], None, 10).await.unwrap();
    assert_eq!((page.tasks.len(), page.by_index, page.looked_at), (4, None, Some(4)));
    // A place in one list is no place in the other.
    let filter = by_form("17").by_index(|_| true);
    let first = broker.page_unfinished(&filter, &[], None, 1).await.unwrap();
    let next = first.next.expect("there are more");
    assert!(broker.page_unfinished(&all, &[], Some(&next), 1).await.is_err());
    assert!(broker.page_failed(&all, Some("i7"), 1).await.is_err());
    for odd in ["i", "i_____w", "iAA"] {
        let page = broker.page_unfinished(&filter, &[], Some(odd), 10).await.unwrap();
        assert!(page.next.is_none(), "{odd}");
    }
}

#[tokio::test]
async fn a_copy_of_a_damaged_store_has_the_index_made_anew() {
    let into = tempfile::tempdir().unwrap();
    let mut run = Run::new();
    for (n, kind) in
        [Kind::Plain, Kind::Later, Kind::InLane, Kind::InLane, Kind::Plain].into_iter().enumerate()
    {
        run.publish(n, kind).await;
    }
    run.check().await;
    settle(run.held.pop().expect("a delivery"), How::Fail).await;
    settle(run.held.pop().expect("a delivery"), How::Bury).await;
    let Run { dir: store, broker, inbox, held, .. } = run;
    drop((inbox, held));
    broker.close().await.unwrap();
    salvage(store.path(), into.path()).unwrap();
    let tables = Tables::open(into.path(), None).unwrap();
    let [found, expected] = entries(&tables);
    assert_eq!((found.len(), &found), (5, &expected));
}

#[test]
fn no_two_values_have_the_same_key() {
    let long = "x".repeat(WHOLE + 2);
    let longer: Vec<(&str, &str)> = (WHOLE..=WHOLE + 2).map(|bytes| ("a", &long[..bytes])).collect();
    let arguments = [&[("a", "b"), ("ab", ""), ("", "ab")][..], &longer].concat();
    let keys: BTreeSet<Vec<u8>> = arguments.iter().map(|argument| prefix(WAITING, *argument)).collect();
    assert_eq!(keys.len(), arguments.len());
    assert!(keys.iter().all(|key| key.len() <= 5 + 2 + WHOLE && is_entry(key)));
    for key in [failed_key(7, 9).to_vec(), 9_u64.to_be_bytes().to_vec()] {
        let message = declared(1, "17");
        let entry = failed_keys(&message, &key).pop().expect("an entry");
        let end = &entry[prefix(FAILED, ("form_id", "17")).len()..];
        assert_eq!(dead_key(end), Some((9, key)));
    }
    assert!(failed_keys(&declared(1, "17"), b"damaged/x").is_empty());
    assert_eq!((dead_key(&[1; 7]), dead_key(&[1; 9])), (None, None));
}
