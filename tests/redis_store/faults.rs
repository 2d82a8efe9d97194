//! What goes wrong between the store and its server.

use std::sync::Arc;

use celeriac::store::{Store, StoreError};
use celeriac::task::{PermitAnswer, State, UniqueKey, Want};
use redis::AsyncCommands;

use super::services::Proxy;
use super::*;

async fn proxied(server: &Redis) -> (Arc<Proxy>, RedisStore) {
    let address = server.address();
    let proxy = Arc::new(blocking(move || Proxy::start(address)).await);
    let store = connect(&proxy.url(&server.url_of(2))).await;
    (proxy, store)
}

async fn on(proxy: &Arc<Proxy>, act: fn(&Proxy)) {
    let proxy = Arc::clone(proxy);
    blocking(move || act(&proxy)).await;
}

/// Waits for each of these through `store`; comes back when all of them are subscribed to.
async fn wait_for_all(
    store: &RedisStore,
    server: &Redis,
    records: &[TaskResult],
) -> tokio::task::JoinSet<Result<TaskResult, StoreError>> {
    let mut waits = tokio::task::JoinSet::new();
    for record in records {
        let (store, id) = (store.clone(), record.id.clone());
        waits.spawn(async move { store.wait(&id).await });
    }
    let mut raw = raw(server).await;
    let channels: Vec<String> = records.iter().map(|r| format!("celery-task-meta-{}", r.id)).collect();
    in_time("subscriptions", async {
        loop {
            let counts: Vec<(String, u64)> =
                redis::cmd("PUBSUB").arg("NUMSUB").arg(&channels).query_async(&mut raw).await.unwrap();
            if counts.iter().all(|(_, count)| *count == 1) {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    waits
}

async fn all_end(waits: tokio::task::JoinSet<Result<TaskResult, StoreError>>, records: &[TaskResult]) {
    let mut ended: Vec<TaskResult> =
        in_time("all waits", waits.join_all()).await.into_iter().map(Result::unwrap).collect();
    ended.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(ended, records);
}

fn records(count: usize) -> Vec<TaskResult> {
    let mut records: Vec<_> = (0..count).map(|n| new_record(&n.to_string())).collect();
    records.sort_by(|a, b| a.id.cmp(&b.id));
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_outlive_the_connection() {
    let (server, direct) = shared().await;
    let (proxy, store) = proxied(&server).await;
    let records = records(300);
    let waits = wait_for_all(&store, &server, &records).await;
    // Some are put while nothing passes, so that no announcement of theirs is ever heard.
    on(&proxy, Proxy::refuse).await;
    for record in &records[..200] {
        assert_eq!(direct.put(record.clone()).await, Ok(true));
    }
    on(&proxy, Proxy::resume).await;
    for record in &records[200..] {
        on(&proxy, Proxy::cut).await;
        assert_eq!(direct.put(record.clone()).await, Ok(true));
    }
    all_end(waits, &records).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_silent_for_ever_is_given_up() {
    let (server, _) = shared().await;
    let (proxy, store) = proxied(&server).await;
    let records = records(1);
    let waits = wait_for_all(&store, &server, &records).await;
    let before = proxy.accepted();
    on(&proxy, Proxy::swallow).await;
    in_time("another connection", async {
        while proxy.accepted() == before {
            tokio::time::sleep(Duration::from_millis(20)).await; // the proxy gives no signal
        }
    })
    .await;
    on(&proxy, Proxy::resume).await;
    assert_eq!(store.put(records[0].clone()).await, Ok(true));
    all_end(waits, &records).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_through_cuts_are_done_once_and_say_so() {
    let (server, direct) = shared().await;
    let (proxy, store) = proxied(&server).await;
    let cutting = tokio::spawn({
        let proxy = Arc::clone(&proxy);
        async move {
            for _ in 0..30 {
                on(&proxy, Proxy::cut).await;
                tokio::time::sleep(Duration::from_millis(5)).await; // between cuts, so that something passes
            }
        }
    });
    let mut puts = tokio::task::JoinSet::new();
    let records = records(500);
    for record in records.clone() {
        let store = store.clone();
        puts.spawn(async move { store.put(record).await });
    }
    let put = in_time("all writes", puts.join_all()).await;
    assert!(put.iter().all(|put| *put == Ok(true)), "whoever wrote it first was told so: {put:?}");
    cutting.await.unwrap();
    for record in records {
        assert_eq!(direct.get(&record.id, NOW).await, Ok(Some(record)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_restarts_and_everything_goes_on() {
    let server = blocking(|| services::RedisOptions::new().append_only().start()).await;
    let store = connect(&server.url_of(2)).await;
    let records = records(20);
    let waits = wait_for_all(&store, &server, &records).await;
    assert_eq!(store.put(records[0].clone()).await, Ok(true));
    assert_eq!(store.revoke(&"revoked".into(), NOW).await, Ok(()));
    let stopped = server.clone();
    blocking(move || stopped.kill()).await;
    // Calls while it is away wait for it.
    let mut puts = tokio::task::JoinSet::new();
    for record in records[1..].iter().cloned() {
        let store = store.clone();
        puts.spawn(async move { store.put(record).await });
    }
    let started = server.clone();
    blocking(move || started.start_again()).await;
    assert!(in_time("writes", puts.join_all()).await.into_iter().all(|put| put == Ok(true)));
    all_end(waits, &records).await;
    assert_eq!(
        store.revoked(&["revoked".into()], NOW - Duration::from_secs(1)).await,
        Ok(vec!["revoked".into()])
    );
}

#[tokio::test]
async fn a_server_that_stays_away_is_an_error_that_says_what_to_do() {
    let server = blocking(Redis::start).await;
    let mut options = RedisOptions::default();
    options.patience = Duration::from_millis(200);
    let store = RedisStore::connect(&server.url(), options.clone()).await.unwrap();
    let stopped = server.clone();
    blocking(move || stopped.stop()).await;
    for error in [
        store.put(new_record("1")).await.unwrap_err(),
        store.get(&"a".into(), NOW).await.unwrap_err(),
        RedisStore::connect(&server.url(), options).await.err().unwrap(),
    ] {
        assert!(matches!(error, StoreError::Io(_)));
        let text = error.to_string();
        assert!(text.contains(&server.address().to_string()), "{text}");
        assert!(text.contains("is Redis running"), "{text}");
    }
}

#[tokio::test]
async fn a_replica_is_waited_for_until_it_is_promoted() {
    let server = blocking(Redis::start).await;
    let mut options = RedisOptions::default();
    options.patience = Duration::from_millis(200);
    let impatient = RedisStore::connect(&server.url(), options).await.unwrap();
    let patient = connect(&server.url()).await;
    let demoted = server.clone();
    blocking(move || demoted.cli(&["REPLICAOF", "127.0.0.1", "1"])).await;
    let error = impatient.put(new_record("1")).await.unwrap_err().to_string();
    assert!(error.contains("it is a replica"), "{error}");
    let put = tokio::spawn(async move { patient.put(new_record("1")).await });
    let promoted = server.clone();
    blocking(move || promoted.cli(&["REPLICAOF", "NO", "ONE"])).await;
    assert_eq!(in_time("the write", put).await.unwrap(), Ok(true));
}

#[tokio::test]
async fn what_is_no_document_is_refused_and_harms_nobody_else() {
    let (server, store) = shared().await;
    let mut raw = raw(&server).await;
    let (list, garbage) = (TaskId::new(), TaskId::new());
    let _: () = raw.lpush(format!("celery-task-meta-{list}"), "x").await.unwrap();
    let _: () = raw.set(format!("celery-task-meta-{garbage}"), "{\"status\": ").await.unwrap();
    for (id, part) in [(&list, "something else than a result document"), (&garbage, "cannot be read")] {
        let put = store.put(TaskResult { id: id.clone(), ..new_record("1") }).await.unwrap_err();
        let get = store.get(id, NOW).await.unwrap_err();
        let wait = in_time("an error", store.wait(id)).await.unwrap_err();
        for error in [put, get, wait] {
            assert!(matches!(error, StoreError::Refused(_)), "{error}");
            let text = error.to_string();
            assert!(text.contains(part) && text.contains(&format!("celery-task-meta-{id}")), "{text}");
        }
    }
    // Announced garbage does not end a wait, and the next announcement does.
    let records = records(1);
    let waits = wait_for_all(&store, &server, &records).await;
    let channel = format!("celery-task-meta-{}", records[0].id);
    for garbage in [&b"\xff\xfe"[..], b"", b"[]", b"{\"status\": 7}"] {
        assert_eq!(raw.publish::<_, _, u64>(&channel, garbage).await.unwrap(), 1);
    }
    let direct = connect(&server.url_of(2)).await;
    assert_eq!(direct.put(records[0].clone()).await, Ok(true));
    all_end(waits, &records).await;
}

#[tokio::test]
async fn a_document_that_is_too_large_is_refused() {
    let server = blocking(Redis::shared).await;
    let mut options = RedisOptions::default();
    options.max_document_size = 10_000;
    let store = RedisStore::connect(&server.url_of(2), options).await.unwrap();
    let error = store.put(new_record(&format!("\"{}\"", "x".repeat(10_000)))).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)));
    assert!(error.to_string().contains("the limit is 10000: store the object, and return its id"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_writers_one_wins_a_thousand_times() {
    let (server, first) = shared().await;
    let second = connect(&server.url_of(2)).await;
    for round in 0..1000 {
        let ours = new_record(&round.to_string());
        let theirs = TaskResult { state: State::Failure, result: None, ..ours.clone() };
        if round % 2 == 0 {
            // Half of the times a state is in the way, which each of them may replace.
            let state = celeriac::store::TrackedState {
                id: ours.id.clone(),
                state: "STARTED".into(),
                meta: serde_json::json!({"pid": 1}).into(),
                traceback: None,
                lineage: None,
            };
            first.track(state).await.unwrap();
        }
        let (a, b) = tokio::join!(first.put(ours.clone()), second.put(theirs.clone()));
        let (a, b) = (a.unwrap(), b.unwrap());
        assert!(a != b, "round {round}: {a} {b}");
        let kept = first.get(&ours.id, NOW).await.unwrap().unwrap();
        assert_eq!(kept, if a { ours } else { theirs });
    }
}

/// Who gives up asking while Redis is away does not have the permit when Redis is back, whatever comes to it first.
#[tokio::test(flavor = "multi_thread")]
async fn a_permit_that_nobody_waits_for_is_free() {
    let (server, direct) = shared().await;
    let (proxy, store) = proxied(&server).await;
    let want = |name: &str| [Want { name: name.to_owned(), limit: 1 }];
    let (wanted, other) = (new_record("permit").id.to_string(), new_record("other").id.to_string());
    let keeper = store.permits().unwrap();
    // What this process holds is renewed from now on.
    assert!(matches!(keeper.acquire(&want(&other), "holder").await, Ok(PermitAnswer::Granted { .. })));
    on(&proxy, Proxy::refuse).await;
    on(&proxy, Proxy::cut).await;
    {
        let (wants, keeper) = (want(&wanted), Arc::clone(&keeper));
        let mut asking = std::pin::pin!(keeper.acquire(&wants, "gives up"));
        assert!(futures_util::poll!(&mut asking).is_pending());
    }
    keeper.release(&want(&wanted), "gives up");
    on(&proxy, Proxy::resume).await;
    let (keeper, theirs) = (direct.permits().unwrap(), want(&wanted));
    in_time("the permit", async {
        // Until then it may not have come to Redis at all.
        while store.permits().unwrap().acquire(&want(&other), "holder").await.is_err() {}
        let mut free = 0;
        while free < 5 {
            match keeper.acquire(&theirs, "other").await.unwrap() {
                PermitAnswer::Granted { .. } => {
                    keeper.release(&theirs, "other");
                    free += 1;
                }
                PermitAnswer::Busy(_) => free = 0,
            }
            keeper.freed(std::time::Duration::from_millis(100)).await;
        }
    })
    .await;
}

/// Beside an upgrade: the end of a task ends the window that an older build has begun for it, and not that of another task
/// which an older build would have given the same name.
#[tokio::test(flavor = "multi_thread")]
async fn windows_of_older_builds_end_with_their_tasks() {
    let (server, store) = shared().await;
    let mut raw = raw(&server).await;
    let scope = format!("t{}", new_record("window").id);
    let (key, alike) = (UniqueKey::new(&scope, "a-b"), UniqueKey::new(format!("{scope}-a"), "b"));
    let (id, other) = (new_record("one").id, new_record("other").id);
    let old = format!("celeriac:unique:{scope}-a-b");
    for (name, says) in [(old.clone(), id.to_string()), (format!("celeriac:unique-of:{id}"), old.clone())] {
        let () = raw.set_ex(name, says, 3600).await.unwrap();
    }
    let windows = store.unique_windows().unwrap();
    assert_eq!(windows.release(&alike, &other).await, Ok(false));
    assert_eq!(windows.release(&key, &id).await, Ok(true));
    let left: (Option<String>, Option<String>) =
        raw.mget(&[old, format!("celeriac:unique-of:{id}")]).await.unwrap();
    assert_eq!(left, (None, None));
}
