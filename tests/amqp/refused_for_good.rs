//! What RabbitMQ never takes, where nobody holds the call in his hand: ticks, producers, bodies, results. Each fails with the reason,
//! and costs the others nothing.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use celeriac::broker::embedded::EmbeddedOptions;
use celeriac::broker::{Broker, MemoryBroker, OutboxBroker};
use celeriac::core::calendar::Schedule;
use celeriac::store::MemoryStore;
use celeriac::task::canvas::chord;
use celeriac::task::source_poller::{Due, Source, SourcePoller};
use celeriac::task::{AcceptedBy, Arguments, Periodic, Task};
use celeriac::{Context, State, TaskError, task};
use tokio::sync::OnceCell;

use crate::kit::{LONG, add, note, notes, until};
use crate::rabbit::builder;
use crate::services::{Proxy, RabbitMq, RabbitMqOptions, Redis, blocking};

/// More than the node takes, and less than arguments may have.
const TOO_LARGE: usize = 50_000;

/// A node that takes no message of more than 30 KB.
async fn node() -> &'static RabbitMq {
    static NODE: OnceCell<RabbitMq> = OnceCell::const_new();
    let start = || blocking(|| RabbitMqOptions::new().config("max_message_size = 30000").start());
    NODE.get_or_init(start).await
}

/// A vhost of the test's own on that node.
async fn narrow(name: &'static str) -> String {
    let node = node().await;
    blocking(move || node.vhost(name)).await
}

async fn redis(database: u8) -> String {
    blocking(move || Redis::shared().url_of(database)).await
}

#[task(queue = "io", max_retries = 0)]
async fn takes(ctx: Context, text: String, key: String) -> usize {
    note(&key.as_str().into(), ctx.id().to_string());
    text.len()
}

#[task(queue = "io", max_retries = 0)]
async fn makes(bytes: usize) -> String {
    "x".repeat(bytes)
}

#[task(queue = "io", max_retries = 0)]
async fn joins(texts: Vec<String>) -> usize {
    texts.iter().map(String::len).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tick_fails_with_the_reason_and_the_next_one_is_tried() {
    let url = narrow("ticks").await;
    let entry = |name: &str, bytes: usize| {
        let arguments = Arguments::encode(&("x".repeat(bytes), name)).unwrap();
        let schedule = Schedule::Every(Duration::from_secs(1));
        Periodic::new(name, takes::Task::NAME, schedule).arguments(arguments)
    };
    let celeriac = builder(&url).result_backend(redis(6).await);
    let celeriac = celeriac.periodic(entry("large", TOO_LARGE)).periodic(entry("small", 10));
    let celeriac = celeriac.start().await.unwrap();
    until("both were tried, again and again", async || {
        let Ok(entries) = celeriac.beat().entries().await else { return false };
        let large = entries.iter().find(|entry| entry.name == "large").unwrap();
        large.published >= 3 && notes(&"small".into()).len() >= 3
    })
    .await;
    assert!(notes(&"large".into()).is_empty());
    let entries = celeriac.beat().entries().await.unwrap();
    let large = entries.into_iter().find(|entry| entry.name == "large").unwrap();
    let last = celeriac.async_result(large.last_id.unwrap());
    until("its record is there", async || last.result().await.is_ok_and(|record| record.is_some())).await;
    let record = last.result().await.unwrap().unwrap();
    assert_eq!(record.state, State::Failure);
    assert!(record.errors[0].contains("message size"), "{:?}", record.errors);
    // A letter would be as large as its message, so the node refuses that as well, and the record alone tells.
    let letters = celeriac.dead_letters(10).await.unwrap();
    assert!(letters.is_empty(), "{letters:?}");
    celeriac.shutdown().await.unwrap();
}

/// Rows that are due until they were enqueued, one of them too large.
struct Rows;

static DUE: Mutex<Vec<u64>> = Mutex::new(Vec::new());

#[async_trait]
impl Source for Rows {
    async fn due(&self, limit: usize) -> Result<Vec<Due>, TaskError> {
        let rows = DUE.lock().unwrap().clone();
        let call =
            |row: u64| takes::s("x".repeat(if row == 2 { TOO_LARGE } else { 10 }), format!("row {row}"));
        Ok(rows.into_iter().take(limit).map(|row| Due::new(format!("row {row}"), call(row))).collect())
    }

    async fn enqueued(&self, keys: &[String]) -> Result<(), TaskError> {
        DUE.lock().unwrap().retain(|row| !keys.contains(&format!("row {row}")));
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_of_a_producer_is_told_and_the_others_are_enqueued() {
    let url = narrow("rows").await;
    DUE.lock().unwrap().extend(0..5);
    let poller = SourcePoller::new("rows", Rows)
        .interval(Duration::from_millis(5))
        .longest_pause(Duration::from_millis(5));
    let celeriac = builder(&url).result_backend(redis(7).await).poller(poller).start().await.unwrap();
    until("the others ran", async || {
        [0, 1, 3, 4].iter().all(|row| !notes(&format!("row {row}").as_str().into()).is_empty())
    })
    .await;
    until("it is told why the one did not", async || {
        let status = celeriac.pollers().await.unwrap().remove(0);
        status.last_error.is_some_and(|error| error.contains("message size"))
    })
    .await;
    assert_eq!(*DUE.lock().unwrap(), [2]);
    assert!(notes(&"row 2".into()).is_empty());
    celeriac.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_fails_with_the_reason() {
    let url = narrow("bodies").await;
    let celeriac = builder(&url).result_backend(redis(8).await).start().await.unwrap();
    let members = || (0..4).map(|_| makes::s(TOO_LARGE / 4));
    let canvas = chord(members(), joins::p()).then(add::p(1));
    let sent = canvas.send(celeriac.client()).await.unwrap();
    let error = tokio::time::timeout(LONG, sent.get(LONG)).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("message size"), "{error}");
    // A letter would be as large as the message of the body, so the node refuses that as well.
    let letters = celeriac.dead_letters(10).await.unwrap();
    assert!(letters.is_empty(), "{letters:?}");
    assert_eq!(add::s(2, 2).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(4));
    celeriac.shutdown().await.unwrap();
}

/// The reply of `rpc://` is a message as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_cannot_be_sent_back_is_told_as_a_failure() {
    let url = narrow("results").await;
    let celeriac = builder(&url).result_backend("rpc://").start().await.unwrap();
    let large = makes::s(TOO_LARGE).send(celeriac.client()).await.unwrap();
    let small = makes::s(10).send(celeriac.client()).await.unwrap();
    assert_eq!(tokio::time::timeout(LONG, small.get(LONG)).await.unwrap().map(|text| text.len()), Ok(10));
    let error = tokio::time::timeout(LONG, large.get(LONG)).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("message size"), "{error}");
    assert_eq!(large.state().await, Ok(State::Failure));
    celeriac.shutdown().await.unwrap();
}

/// The number of messages that an outbox which nobody has open has yet to forward.
async fn pending(dir: &Path) -> u64 {
    let store = Arc::new(MemoryStore::default());
    let inner = Arc::new(MemoryBroker::new(Arc::clone(&store)));
    let outbox = OutboxBroker::open(inner, store, dir, EmbeddedOptions::default()).await.unwrap();
    let pending = outbox.pending();
    outbox.close().await.unwrap();
    pending
}

/// The outbox has accepted it while the node was away, and the node refuses it when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_from_an_outbox_fails_with_the_reason_and_those_behind_it_run() {
    const LARGE: usize = 10;
    let url = narrow("outbox").await;
    let address = node().await.address();
    let proxy = blocking(move || Proxy::start(address)).await;
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("outbox");
    let results = redis(9).await;
    let start = || builder(&proxy.url(&url)).outbox(&dir).result_backend(&results).start();
    let celeriac = start().await.unwrap();
    proxy.refuse();
    let key = |n: usize| format!("outbox {n}");
    let mut sent = Vec::new();
    for n in 0..21 {
        let text = "x".repeat(if n == LARGE { TOO_LARGE } else { 10 });
        let call = takes::s(text, key(n)).send(celeriac.client()).await.unwrap();
        assert_eq!(call.receipt().keeper, AcceptedBy::Outbox, "{n}");
        sent.push(call);
    }
    proxy.resume();
    for (n, call) in sent.iter().enumerate() {
        let ended = tokio::time::timeout(LONG, call.get(LONG)).await.unwrap();
        if n == LARGE {
            let error = ended.unwrap_err().to_string();
            assert!(error.contains("message size"), "{error}");
            assert_eq!(call.state().await, Ok(State::Failure));
        } else {
            assert_eq!(ended, Ok(10), "{n}");
        }
    }
    for n in 0..21 {
        assert_eq!(notes(&key(n).as_str().into()).len(), usize::from(n != LARGE), "{n}");
    }
    // The outbox keeps the letter, whatever its size.
    until("its letter is there", async || !celeriac.dead_letters(10).await.unwrap().is_empty()).await;
    celeriac.shutdown().await.unwrap();
    assert_eq!(pending(&dir).await, 0);
    let celeriac = start().await.unwrap();
    assert_eq!(add::s(1, 1).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(2));
    let letters = celeriac.dead_letters(10).await.unwrap();
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!(&letter.message.id, sent[LARGE].id());
    assert!(letter.reason.contains("message size"), "{}", letter.reason);
    celeriac.shutdown().await.unwrap();
    assert_eq!(pending(&dir).await, 0);
}
