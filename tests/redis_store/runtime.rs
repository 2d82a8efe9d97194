//! A runtime whose results are in Redis.

use std::sync::LazyLock;

use celeriac::catalogue::QueueRow;
use celeriac::store::{Store, StoreError};
use celeriac::task::{GetError, State, TaskError, UpdateStateError};
use celeriac::{Celeriac, Context, task};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::*;

/// What a test lets its bodies do, one permit for each step.
static GATE: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(0));
static RETRY_GATE: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(0));

#[task(track_started)]
async fn import(ctx: Context, rows: u64) -> Result<u64, TaskError> {
    GATE.acquire().await.map_err(TaskError::from_display)?.forget();
    for done in 0..rows {
        ctx.update_state("PROGRESS", json!({"done": done + 1, "total": rows}))?;
    }
    GATE.acquire().await.map_err(TaskError::from_display)?.forget();
    Ok(rows)
}

#[task]
fn count(ctx: Context) -> Result<u32, UpdateStateError> {
    for n in 0..1000 {
        ctx.update_state("PROGRESS", n)?;
    }
    Ok(7)
}

#[task(max_retries = 1, retry_jitter = false, default_retry_delay = "10ms")]
async fn flaky(ctx: Context) -> Result<(), TaskError> {
    if ctx.retries() == 0 {
        return Err(std::io::Error::other("busy").into());
    }
    RETRY_GATE.acquire().await.map_err(TaskError::from_display)?.forget();
    Ok(())
}

#[task(max_retries = 1, retry_jitter = false, default_retry_delay = "10ms")]
async fn asks_again(ctx: Context) -> Result<(), TaskError> {
    if ctx.retries() == 0 {
        return Err(TaskError::retry("not yet"));
    }
    RETRY_GATE.acquire().await.map_err(TaskError::from_display)?.forget();
    Ok(())
}

#[task]
async fn large() -> String {
    "x".repeat(100_000)
}

#[task]
async fn fails() -> Result<(), TaskError> {
    Err(TaskError::permanent("no such form"))
}

async fn start(server: &Redis) -> Celeriac {
    let mut options = RedisOptions::default();
    options.max_document_size = 50_000;
    let mut row = QueueRow::new("celery");
    row.workers = 4;
    Celeriac::builder().in_memory().redis(server.url_of(2), options).queue(row).start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn results_and_states_are_where_python_reads_them() {
    let (server, store) = shared().await;
    let celeriac = start(&server).await;
    let client = celeriac.client();

    // STARTED, then PROGRESS, then the record; each of them is there to be read while the body is.
    let result = import::s(5).send(client.clone()).await.unwrap();
    let tracked = async |state: &str| {
        in_time(state, async {
            loop {
                match store.tracked(result.id()).await.unwrap() {
                    Some(tracked) if tracked.state == state => return tracked,
                    _ => tokio::task::yield_now().await,
                }
            }
        })
        .await
    };
    let started = tracked("STARTED").await;
    assert_eq!(started.meta["pid"], json!(std::process::id()));
    // Whichever of the four workers was idle.
    assert!(started.meta["hostname"].as_str().is_some_and(|worker| worker.starts_with("celery#")));
    assert_eq!(result.state().await, Ok(State::Started));
    GATE.add_permits(1);
    in_time("the last progress", async {
        while tracked("PROGRESS").await.meta != json!({"done": 5, "total": 5}) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(result.info().await.unwrap().unwrap(), json!({"done": 5, "total": 5}));
    let by_id = celeriac.async_result(result.id().clone());
    assert_eq!(by_id.tracked().await.unwrap().unwrap().state, "PROGRESS");
    GATE.add_permits(1);
    assert_eq!(result.get(PATIENCE).await, Ok(5));
    assert_eq!(by_id.get::<Value>(PATIENCE).await, Ok(json!(5)));
    assert_eq!((by_id.state().await, by_id.tracked().await), (Ok(State::Success), Ok(None)));
    assert_eq!(by_id.info().await, Ok(Some(5.into())));
    assert_eq!(store.wait(result.id()).await.unwrap().result.as_deref(), Some("5"));

    // A blocking body that reports faster than the store takes it: the end comes last.
    let counted = count::s().send(client.clone()).await.unwrap();
    assert_eq!(counted.get(PATIENCE).await, Ok(7));
    assert_eq!(store.tracked(counted.id()).await, Ok(None));

    // A retry is told, with its error.
    let flaky = flaky::s().send(client.clone()).await.unwrap();
    let retry = in_time("RETRY", async {
        loop {
            match store.tracked(flaky.id()).await.unwrap() {
                Some(tracked) => return tracked,
                None => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    assert_eq!(retry.state, "RETRY");
    assert_eq!(retry.meta["exc_message"], json!(["busy"]), "{}", retry.meta);
    RETRY_GATE.add_permits(1);
    assert_eq!(flaky.get(PATIENCE).await, Ok(()));

    // One that the body asked for is Celery's `Retry`, and has not been asked for once too often.
    let asking = asks_again::s().send(client.clone()).await.unwrap();
    let retry = in_time("RETRY", async {
        loop {
            match store.tracked(asking.id()).await.unwrap() {
                Some(tracked) => return tracked,
                None => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    // The argument of a `Retry` is read as what it is about.
    assert_eq!(retry.meta, json!("not yet"));
    assert!(retry.traceback.is_some_and(|traceback| traceback.ends_with("Retry: not yet")));
    RETRY_GATE.add_permits(1);
    assert_eq!(asking.get(PATIENCE).await, Ok(()));

    // A value that the store refuses is a failure that says so, and no endless loop.
    let large = large::s().send(client.clone()).await.unwrap();
    let Err(GetError::Ended(record)) = large.get(PATIENCE).await else { panic!("refused") };
    assert_eq!((record.state, record.error_type.as_deref()), (State::Failure, Some("BackendStoreError")));
    assert!(record.errors[0].contains("the limit is 50000"), "{:?}", record.errors);

    let failed = fails::s().send(client.clone()).await.unwrap();
    let Err(GetError::Ended(record)) = failed.get(PATIENCE).await else { panic!("it fails") };
    assert_eq!((record.state, record.errors.as_slice()), (State::Failure, &["no such form".to_owned()][..]));
    assert_eq!(failed.info().await, Ok(Some(["no such form"].into())));
    celeriac.shutdown().await.unwrap();
}

/// Its start is not told unless somebody says so: the task does not, so the program has to.
#[task(ignore_result = false)]
async fn starts(gate: String) -> Result<(), TaskError> {
    let gate = STARTS.iter().find(|(name, _)| *name == gate).map(|(_, gate)| gate);
    gate.expect("a gate of this name").acquire().await.map_err(TaskError::from_display)?.forget();
    Ok(())
}

static STARTS: [(&str, Semaphore); 2] =
    [("told", Semaphore::const_new(0)), ("not told", Semaphore::const_new(0))];

#[tokio::test(flavor = "multi_thread")]
async fn the_program_has_every_start_told() {
    let (server, store) = shared().await;
    for (track, gate) in [(true, &STARTS[0]), (false, &STARTS[1])] {
        let builder = Celeriac::builder().in_memory().redis(server.url_of(2), RedisOptions::default());
        let celeriac = builder.track_started(track).start().await.unwrap();
        let result = starts::s(gate.0.into()).send(celeriac.client()).await.unwrap();
        // It runs: this program knows that, whatever the store is told.
        in_time("the start", async {
            while result.state().await != Ok(State::Started) {
                tokio::task::yield_now().await;
            }
        })
        .await;
        if track {
            in_time("STARTED in Redis", async {
                while store.tracked(result.id()).await.unwrap().is_none_or(|seen| seen.state != "STARTED") {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        } else {
            assert_eq!(store.tracked(result.id()).await, Ok(None));
        }
        gate.1.add_permits(1);
        assert_eq!(result.get(PATIENCE).await, Ok(()));
        celeriac.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_waiting_task_that_is_revoked_is_recorded_in_redis() {
    let (server, store) = shared().await;
    let celeriac = start(&server).await;
    celeriac.pause("celery").await.unwrap();
    let result = fails::s().countdown(Duration::from_secs(3600)).send(celeriac.client()).await.unwrap();
    assert_eq!(result.revoke(false).await, Ok(true));
    assert_eq!(store.wait(result.id()).await.unwrap().state, State::Revoked);
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_task_of_another_program_is_waited_for() {
    let (server, store) = shared().await;
    let celeriac = start(&server).await;
    let record = new_record("[1,2]");
    let theirs = celeriac.async_result(record.id.clone());
    assert!(matches!(theirs.get::<Value>(PATIENCE).await, Err(GetError::Unknown(_))));
    let state = celeriac::store::TrackedState {
        id: record.id.clone(),
        state: "PROGRESS".into(),
        meta: json!(50).into(),
        traceback: None,
        lineage: None,
    };
    store.track(state).await.unwrap();
    assert_eq!((theirs.state().await, theirs.info().await), (Ok(State::Started), Ok(Some(50.into()))));
    let waiting = tokio::spawn({
        let theirs = theirs.clone();
        async move { theirs.get::<Vec<u8>>(PATIENCE).await }
    });
    assert_eq!(store.put(record).await, Ok(true));
    assert_eq!(waiting.await.unwrap(), Ok(vec![1, 2]));
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_backend_that_is_not_there_is_an_error_at_the_start() {
    let tls = if cfg!(feature = "tls") { "nothing listens there" } else { "asks for TLS" };
    for (url, part) in [
        ("redis://127.0.0.1:1/0", "nothing listens there"),
        ("rediss://127.0.0.1:1/0", tls),
        ("file:///tmp/x", "`file:///tmp/x` is no result backend"),
    ] {
        let mut options = RedisOptions::default();
        options.patience = Duration::ZERO;
        let builder = Celeriac::builder().in_memory();
        let builder = if url.starts_with("redis://") {
            builder.redis(url, options)
        } else {
            builder.result_backend(url)
        };
        let error = builder.start().await.err().expect("an error").to_string();
        assert!(error.contains(part), "{error}");
    }
    assert!(matches!(RedisStore::connect("nonsense", RedisOptions::default()).await, Err(StoreError::Io(_))));
}

#[task]
async fn sized(bytes: usize) -> String {
    "x".repeat(bytes)
}

#[task]
async fn total(texts: Vec<String>) -> usize {
    texts.iter().map(String::len).sum()
}

/// Parts are counted in Redis before they are read: a body that would be given too much fails, and says what to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_given_no_more_than_may_be_sent_at_once() {
    let (server, _) = shared().await;
    let builder = Celeriac::builder().in_memory().result_backend(server.url_of(2)).max_canvas_size(64 << 10);
    let celeriac = builder.queue(QueueRow::new("celery")).start().await.unwrap();
    let of = async |bytes: usize| {
        let canvas = celeriac::task::canvas::group((0..4).map(|_| sized::s(bytes))).then(total::p());
        in_time("the end", async {
            canvas.send(celeriac.client()).await.unwrap().get(Duration::from_secs(60)).await
        })
        .await
    };
    assert_eq!(of(10 << 10).await, Ok(40 << 10));
    let error = of(20 << 10).await.unwrap_err().to_string();
    assert!(
        error.contains("ChordError")
            && error.contains("take more than 65536 bytes together")
            && error.contains("return its id"),
        "{error}"
    );
    celeriac.shutdown().await.unwrap();
}
