//! The promises of a [`Store`], one test each, for those who write one.
//!
//! It works as for brokers (see [`broker::conformance`](crate::broker::conformance)): implement [`StoreUnderTest`], and
//! then call `celeriac::store_conformance!(Mine)`, with the words for what else the store promises:
//! `celeriac::store_conformance!(Mine, durable, chords, groups, durable_groups, notes, durable_notes)`.

mod chords;
mod groups;
mod notes;
mod permits;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;

use serde_json::json;

use super::{DuplicateClaim, Store, StoreError, TrackedState, WindowHold};
use crate::core::Timestamp;
use crate::task::clock::now;
use crate::task::{Lineage, State, TaskId, TaskResult, UniqueKey};

pub use chords::*;
pub use groups::*;
pub use notes::*;
pub use permits::*;

/// A store that the suite can open, close and open again.
#[async_trait]
pub trait StoreUnderTest: Sized + Send + Sync + 'static {
    /// Whether records and leases go by the store's own clock, so that a sweep finds nothing to do.
    const EXPIRES_BY_ITSELF: bool = false;

    /// Opens a new store with nothing in it.
    async fn open() -> Self;
    /// The store under test.
    fn store(&self) -> Arc<dyn Store>;
    /// Closes the store and opens it again; `None` if nothing survives that.
    async fn reopen(self) -> Option<Self> {
        None
    }
}

const PATIENCE: Duration = Duration::from_secs(120);
/// The first moment of the year 2100. Some stores look at the clock of their machine as well, for which this is always later.
const NOW: Timestamp = Timestamp::from_millis(4_102_444_800_000);
const HOUR: Duration = Duration::from_secs(3600);

/// A record of a task that ended at a fixed time and that expires an hour later.
pub fn record(id: &str, result: &str) -> TaskResult {
    TaskResult {
        queue: "q".to_owned(),
        result: Some(result.to_owned()),
        errors: vec!["outermost".to_owned(), "cause".to_owned()],
        error_type: Some("Type".to_owned()),
        attempts: 3,
        enqueued_at: NOW - HOUR,
        started_at: Some(NOW - Duration::from_secs(1)),
        worker: Some("q#1".to_owned()),
        ..TaskResult::new(TaskId::from(id), "conformance.task", State::Success, NOW, NOW + HOUR)
    }
}

/// A record that was put is there, as it was.
pub async fn put_and_get<S: StoreUnderTest>() {
    let subject = S::open().await;
    let store = subject.store();
    let plain = TaskResult {
        result: None,
        errors: Vec::new(),
        error_type: None,
        started_at: None,
        worker: None,
        state: State::Revoked,
        ..record("plain", "")
    };
    assert_eq!(store.get(&plain.id, NOW).await, Ok(None));
    for record in [record("a", "[\"ä\",{\"b\":1}]"), plain] {
        assert_eq!(store.put(record.clone()).await, Ok(true));
        assert_eq!(store.get(&record.id, NOW).await, Ok(Some(record)));
    }
}

/// A finished task stays finished: the first record of an id stays.
pub async fn the_first_record_stays<S: StoreUnderTest>() {
    let subject = S::open().await;
    let store = subject.store();
    let first = record("a", "1");
    assert_eq!(store.put(first.clone()).await, Ok(true));
    assert_eq!(store.put(record("a", "2")).await, Ok(false));
    assert_eq!(store.get(&first.id, NOW).await, Ok(Some(first.clone())));
    // Of several records that are put at once, one is kept, and its caller is told so.
    let puts = (0..8).map(|n| store.put(record("b", &n.to_string())));
    let kept = futures_util::future::try_join_all(puts).await.expect("puts");
    assert_eq!(kept.iter().filter(|k| **k).count(), 1);
    let winner = kept.iter().position(|k| *k).expect("one");
    let b = store.get(&TaskId::from("b"), NOW).await.expect("a store").expect("a record");
    assert_eq!(b.result, Some(winner.to_string()));
    // The id is free when the first record has expired.
    let second = TaskResult { finished_at: NOW + HOUR, expires_at: NOW + 2 * HOUR, ..record("a", "2") };
    assert_eq!(store.put(second.clone()).await, Ok(true));
    assert_eq!(store.get(&first.id, NOW + HOUR).await, Ok(Some(second)));
}

/// A record is there until it expires.
pub async fn expiry_is_kept<S: StoreUnderTest>() {
    let subject = S::open().await;
    let store = subject.store();
    let a = record("a", "1");
    assert_eq!(store.put(a.clone()).await, Ok(true));
    assert_eq!(store.get(&a.id, NOW + HOUR - Duration::from_micros(1)).await, Ok(Some(a.clone())));
    assert_eq!(store.get(&a.id, NOW + HOUR).await, Ok(None));
}

/// A wait for a record that is there already ends at once.
pub async fn wait_after_put<S: StoreUnderTest>() {
    let subject = S::open().await;
    let store = subject.store();
    let a = record("a", "1");
    assert_eq!(store.put(a.clone()).await, Ok(true));
    assert_eq!(wait(&store, "a").await, Ok(a));
}

async fn wait(store: &Arc<dyn Store>, id: &str) -> Result<TaskResult, StoreError> {
    let id = TaskId::from(id);
    tokio::time::timeout(PATIENCE, store.wait(&id)).await.expect("a record within two minutes")
}

/// All who wait for a record are woken by it, and by nothing else.
pub async fn wait_before_put<S: StoreUnderTest>() {
    let subject = S::open().await;
    let store = subject.store();
    let id = TaskId::from("a");
    // This wait is polled by hand: it must be pending, and must have registered its waker.
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut by_hand = pin!(store.wait(&id));
    assert!(by_hand.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let store = Arc::clone(&store);
        waiting.spawn(async move { wait(&store, "a").await });
    }
    assert_eq!(store.put(record("b", "2")).await, Ok(true));
    assert!(!woken.0.load(std::sync::atomic::Ordering::SeqCst), "woken by the record of another task");
    assert!(by_hand.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let a = record("a", "1");
    assert_eq!(store.put(a.clone()).await, Ok(true));
    assert!(woken.0.load(std::sync::atomic::Ordering::SeqCst), "not woken");
    let polled = by_hand.as_mut().poll(&mut Context::from_waker(&waker));
    assert_eq!(polled, Poll::Ready(Ok(a.clone())));
    for waited in waiting.join_all().await {
        assert_eq!(waited, Ok(a.clone()));
    }
}

#[derive(Default)]
struct Woken(std::sync::atomic::AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

/// A wait that begins when the record is there ends, although somebody has waited for that task before and is not gone yet.
pub async fn wait_beside_one_that_is_over<S: StoreUnderTest>() {
    let subject = S::open().await;
    let store = subject.store();
    let (id, a) = (TaskId::from("a"), record("a", "1"));
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut first = pin!(store.wait(&id));
    assert!(first.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!(store.put(a.clone()).await, Ok(true));
    assert!(woken.0.load(std::sync::atomic::Ordering::SeqCst), "not woken");
    // The first one has been told, and does not look yet.
    assert_eq!(wait(&store, "a").await, Ok(a.clone()));
    assert_eq!(first.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(Ok(a)));
}

/// Waits that are given up do no harm to those that go on, or to the record.
pub async fn waiters_may_give_up<S: StoreUnderTest>() {
    let subject = S::open().await;
    let store = subject.store();
    let id = TaskId::from("a");
    for round in 0..1000 {
        let mut waiting = pin!(store.wait(&id));
        let pending = waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
        assert!(pending, "in round {round}");
    }
    let mut stays = pin!(store.wait(&id));
    assert!(stays.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(store.put(record("a", "1")).await, Ok(true));
    assert_eq!(tokio::time::timeout(PATIENCE, stays).await.expect("woken"), Ok(record("a", "1")));
}

/// A forgotten record is gone, and its id is free.
pub async fn forget_deletes<S: StoreUnderTest>() {
    let subject = S::open().await;
    let store = subject.store();
    let a = record("a", "1");
    assert_eq!(store.forget(&a.id).await, Ok(false));
    assert_eq!(store.put(a.clone()).await, Ok(true));
    assert_eq!(store.forget(&a.id).await, Ok(true));
    assert_eq!(store.forget(&a.id).await, Ok(false));
    assert_eq!(store.get(&a.id, NOW).await, Ok(None));
    assert_eq!(store.put(record("a", "2")).await, Ok(true));
}

/// A sweep deletes and counts the records that have expired (a store may take a minute longer), and nothing else.
pub async fn sweep_deletes_what_expired<S: StoreUnderTest>() {
    let subject = S::open().await;
    let store = subject.store();
    for n in 0..300_u64 {
        let expires_at = NOW + Duration::from_secs(n % 3 * 3600);
        // The records are put one by one, so that each is in a commit of its own.
        let record = TaskResult { expires_at, ..record(&format!("r-{n}"), "1") };
        assert_eq!(store.put(record).await, Ok(true));
    }
    if S::EXPIRES_BY_ITSELF {
        assert_eq!(store.sweep(NOW + 10 * HOUR).await, Ok(0));
        return;
    }
    let mut again = record("r-0", "2");
    again.expires_at = NOW + 5 * HOUR;
    assert_eq!(store.put(again.clone()).await, Ok(true), "the first one has expired");
    let later = NOW + Duration::from_secs(120);
    assert_eq!(store.sweep(NOW - HOUR).await, Ok(0));
    assert_eq!(store.sweep(later).await, Ok(99));
    assert_eq!(store.sweep(later).await, Ok(0));
    assert_eq!(store.get(&again.id, later).await, Ok(Some(again)), "used again since");
    assert_eq!(store.sweep(later + HOUR).await, Ok(100));
    assert_eq!(store.forget(&TaskId::from("r-1")).await, Ok(false), "swept");
    assert_eq!(store.forget(&TaskId::from("r-2")).await, Ok(true), "not yet");
    assert_eq!(store.sweep(later + 10 * HOUR).await, Ok(100));
}

/// Of the copies of a task the first one that asks may start, however often it asks, and no other one.
pub async fn one_copy_starts<S: StoreUnderTest>() {
    let subject = S::open().await;
    let store = subject.store();
    let claim =
        |id: &str, copy: &str| DuplicateClaim { id: id.into(), copy: copy.to_owned(), until: now() + HOUR };
    let claims = store.duplicates().expect("it lets one copy start");
    assert_eq!(claims.claim(&[]).await, Ok(vec![]));
    let first = [claim("a", "1"), claim("b", "1"), claim("a", "2"), claim("a", "1")];
    assert_eq!(claims.claim(&first).await, Ok(vec![true, true, false, true]));
    assert_eq!(claims.claim(&[claim("b", "2"), claim("b", "1")]).await, Ok(vec![false, true]));
    let copies: Vec<_> = (0..16).map(|n| [claim("race", &n.to_string())]).collect();
    let racing = copies.iter().map(|copy| claims.claim(copy));
    let granted = futures_util::future::try_join_all(racing).await.expect("answers");
    assert_eq!(granted.iter().filter(|granted| granted[0]).count(), 1);
}

/// Records survive a restart, and go on expiring. For durable stores.
pub async fn records_survive<S: StoreUnderTest>() {
    let subject = S::open().await;
    let store = subject.store();
    for n in 0..20 {
        assert_eq!(store.put(record(&format!("r-{n}"), "1")).await, Ok(true));
    }
    assert_eq!(store.forget(&TaskId::from("r-7")).await, Ok(true));
    drop(store);
    let subject = subject.reopen().await.expect("a durable store can be opened again");
    let store = subject.store();
    assert_eq!(store.get(&TaskId::from("r-3"), NOW).await, Ok(Some(record("r-3", "1"))));
    assert_eq!(wait(&store, "r-4").await, Ok(record("r-4", "1")));
    assert_eq!(store.get(&TaskId::from("r-7"), NOW).await, Ok(None));
    assert_eq!(store.put(record("r-3", "2")).await, Ok(false));
    let swept = if S::EXPIRES_BY_ITSELF { 0 } else { 19 };
    assert_eq!(store.sweep(NOW + 2 * HOUR).await, Ok(swept));
}

fn tracked(id: &str, state: &str, meta: serde_json::Value) -> TrackedState {
    TrackedState {
        id: TaskId::from(id),
        state: state.to_owned(),
        meta: meta.into(),
        traceback: None,
        lineage: None,
    }
}

/// The last state of a task that is not over is there until its record is.
pub async fn states_are_tracked<S: StoreUnderTest>() {
    let subject = S::open().await;
    let store = subject.store();
    let id = TaskId::from("a");
    assert_eq!(store.tracked(&id).await, Ok(None));
    let lineage =
        Lineage { parent_id: Some("parent".into()), group_id: Some("g".into()), ..Lineage::default() };
    for state in [
        tracked("a", "STARTED", json!({"pid": 7, "hostname": "h"})),
        tracked("a", "PROGRESS", json!({"done": 5, "total": 10})),
        TrackedState {
            traceback: Some("Traceback…".to_owned()),
            ..tracked(
                "a",
                "RETRY",
                json!({"exc_type": "KeyError", "exc_message": ["k"], "exc_module": "builtins"}),
            )
        },
        TrackedState { lineage: Some(Box::new(lineage)), ..tracked("a", "ANYTHING", json!(null)) },
    ] {
        assert_eq!(store.track(state.clone()).await, Ok(()));
        assert_eq!(store.tracked(&id).await, Ok(Some(state)));
        assert_eq!(store.get(&id, NOW).await, Ok(None), "it is not over");
    }
    let waiting = {
        let (store, id) = (Arc::clone(&store), id.clone());
        tokio::spawn(async move { store.wait(&id).await })
    };
    assert_eq!(store.track(tracked("a", "PROGRESS", json!({"done": 9, "total": 10}))).await, Ok(()));
    assert_eq!(store.put(record("a", "1")).await, Ok(true), "a record takes the place of any state");
    let waited = tokio::time::timeout(PATIENCE, waiting).await.expect("woken").expect("no panic");
    assert_eq!(waited, Ok(record("a", "1")), "woken by the record, not by a state");
    assert_eq!(store.tracked(&id).await, Ok(None));
    assert_eq!(store.track(tracked("a", "PROGRESS", json!({"done": 10, "total": 10}))).await, Ok(()));
    assert_eq!(store.tracked(&id).await, Ok(None), "finished is final");
    assert_eq!(store.get(&id, NOW).await, Ok(Some(record("a", "1"))));
}

/// A revoked task is revoked until the stated time.
pub async fn revocations_are_kept<S: StoreUnderTest>() {
    let subject = S::open().await;
    let store = subject.store();
    let ids = ["a", "b", "c"].map(TaskId::from);
    assert_eq!(store.revoked(&[], NOW).await, Ok(vec![]));
    assert_eq!(store.revoked(&ids, NOW).await, Ok(vec![]));
    assert_eq!(store.revoke(&ids[2], NOW + HOUR).await, Ok(()));
    assert_eq!(store.revoke(&ids[0], NOW + 2 * HOUR).await, Ok(()));
    assert_eq!(store.revoked(&ids, NOW).await, Ok(vec![ids[0].clone(), ids[2].clone()]));
    // What is said without a question is true, or nothing is said.
    let known = [0, 1, 2].map(|n| store.is_known_revoked(&ids[n], NOW));
    assert!(known[0] != Some(false) && known[1] != Some(true) && known[2] != Some(false), "{known:?}");
    assert_eq!(store.revoked(&ids, NOW + HOUR).await, Ok(vec![ids[0].clone()]));
    assert_eq!(store.revoked(&ids[1..2], NOW).await, Ok(vec![]));
}

/// Revocations survive a restart. For durable stores that are shared.
pub async fn revocations_survive<S: StoreUnderTest>() {
    let subject = S::open().await;
    let id = TaskId::from("a");
    assert_eq!(subject.store().revoke(&id, NOW + HOUR).await, Ok(()));
    let subject = subject.reopen().await.expect("a durable store can be opened again");
    assert_eq!(subject.store().revoked(std::slice::from_ref(&id), NOW).await, Ok(vec![id]));
}

/// Polls until `holds` is true: a permit that is given back, or whose time is over, is free soon.
async fn soon(what: &str, holds: impl AsyncFn() -> bool) {
    let start = std::time::Instant::now();
    while !holds().await {
        assert!(start.elapsed() < PATIENCE, "it never came true: {what}");
        tokio::task::yield_now().await;
    }
}

/// Of several tasks that ask for a unique window one holds it, until it ends it, or it is ended for it, or it
/// passes.
pub async fn windows_are_held_by_one<S: StoreUnderTest>() {
    let subject = S::open().await;
    let store = subject.store();
    let windows = store.unique_windows().expect("it keeps windows");
    let key = |text: &str| UniqueKey::new("conformance.task", text);
    let (a, b) = (key("a"), key("b"));
    let [first, second, third]: [TaskId; 3] = ["1".into(), "2".into(), "3".into()];
    assert_eq!(windows.holder(&a).await, Ok(None));
    assert_eq!(windows.acquire(&a, &first, HOUR).await, Ok(WindowHold::Begun));
    assert_eq!(windows.acquire(&a, &first, HOUR).await, Ok(WindowHold::Begun), "its own is renewed");
    // Until the first task is published, nobody knows whether there will be a task to join.
    assert_eq!(windows.acquire(&a, &second, HOUR).await, Ok(WindowHold::Publishing(first.clone())));
    assert_eq!(windows.holder(&a).await, Ok(None));
    assert_eq!(windows.renew(&a, &second, HOUR).await, Ok(false));
    assert_eq!(windows.renew(&a, &first, HOUR).await, Ok(true));
    assert_eq!(windows.holder(&a).await, Ok(None), "nor by being renewed");
    assert_eq!(windows.confirm(&a, &second, HOUR).await, Ok(false));
    assert_eq!(windows.confirm(&a, &first, HOUR).await, Ok(true));
    assert_eq!(windows.acquire(&a, &second, HOUR).await, Ok(WindowHold::Taken(first.clone())));
    let short = Duration::from_millis(1);
    assert_eq!(windows.acquire(&a, &first, short).await, Ok(WindowHold::Confirmed), "and is not shortened");
    assert_eq!(windows.renew(&a, &first, short).await, Ok(true), "nor so");
    assert_eq!(windows.acquire(&b, &second, HOUR).await, Ok(WindowHold::Begun));
    assert_eq!(windows.confirm(&b, &second, HOUR).await, Ok(true));
    assert_eq!(windows.release(&a, &second).await, Ok(false));
    assert_eq!(windows.holder(&a).await, Ok(Some(first.clone())));
    assert_eq!(windows.release(&a, &first).await, Ok(true));
    assert_eq!(windows.release(&a, &first).await, Ok(false));
    assert_eq!(windows.release_of(&second).await, Ok(true), "whatever its key");
    assert_eq!(windows.release_of(&second).await, Ok(false));
    let ids: Vec<TaskId> = (0..8).map(|n| TaskId::from(n.to_string())).collect();
    let held = ids.iter().map(|id| windows.acquire(&b, id, HOUR));
    let held = futures_util::future::try_join_all(held).await.expect("a store");
    let winner = held.iter().position(|held| *held == WindowHold::Begun).expect("one has it");
    let joins = WindowHold::Publishing(ids[winner].clone());
    assert!(held.iter().enumerate().all(|(n, held)| n == winner || *held == joins));
    // A task whose process dies before it has published holds nothing when its lease is over, and can confirm it
    // no more.
    let free = async || windows.acquire(&a, &second, short).await == Ok(WindowHold::Begun);
    assert_eq!(windows.acquire(&a, &first, short).await, Ok(WindowHold::Begun));
    soon("the lease of a window is over", free).await;
    assert_eq!(windows.renew(&a, &first, HOUR).await, Ok(false));
    assert_eq!(windows.confirm(&a, &first, HOUR).await, Ok(false));
    // A window that has passed is free, and its task cannot end another task's window.
    soon("the lease of the next one, too", async || {
        windows.acquire(&a, &first, HOUR).await == Ok(WindowHold::Begun)
    })
    .await;
    assert_eq!(windows.confirm(&a, &first, short).await, Ok(true));
    soon("a window passes", async || windows.acquire(&a, &third, HOUR).await == Ok(WindowHold::Begun)).await;
    assert_eq!(windows.confirm(&a, &third, HOUR).await, Ok(true));
    assert_eq!(windows.release(&a, &first).await, Ok(false));
    assert_eq!(windows.release_of(&first).await, Ok(false));
    assert_eq!(windows.holder(&a).await, Ok(Some(third)));
}

/// Makes each promise a test, for a [`StoreUnderTest`](crate::store::conformance::StoreUnderTest).
#[macro_export]
macro_rules! store_conformance {
    ($subject:ty $(, $more:ident)*) => {
        $crate::store_conformance! { @tests $subject:
            put_and_get the_first_record_stays expiry_is_kept wait_after_put wait_before_put
            wait_beside_one_that_is_over waiters_may_give_up
            forget_deletes sweep_deletes_what_expired states_are_tracked revocations_are_kept
        }
        $( $crate::store_conformance! { @more $more $subject } )*
    };
    (@more durable $subject:ty) => {
        $crate::store_conformance! { @tests $subject: records_survive }
    };
    (@more notes $subject:ty) => {
        $crate::store_conformance! { @tests $subject:
            notes_are_compared_and_set notes_change_together many_notes_are_listed one_leads_at_a_time
        }
    };
    (@more groups $subject:ty) => {
        $crate::store_conformance! { @tests $subject: groups_are_kept groups_expire many_groups_are_swept }
    };
    (@more durable_groups $subject:ty) => {
        $crate::store_conformance! { @tests $subject: groups_survive }
    };
    (@more durable_notes $subject:ty) => {
        $crate::store_conformance! { @tests $subject: notes_survive }
    };
    (@more shared $subject:ty) => {
        $crate::store_conformance! { @tests $subject: revocations_survive one_copy_starts }
    };
    (@more permits $subject:ty) => {
        $crate::store_conformance! { @tests $subject:
            permits_have_limits permits_are_had_together handed_over_permits_are_kept
        }
    };
    (@more windows $subject:ty) => {
        $crate::store_conformance! { @tests $subject: windows_are_held_by_one }
    };
    (@more chords $subject:ty) => {
        $crate::store_conformance! { @tests $subject:
            chords_are_counted a_chord_completes_once a_claim_of_the_dead_is_taken_over chords_are_extended failed_chords_are_closed
        }
    };
    (@tests $subject:ty: $($promise:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                $crate::store::conformance::$promise::<$subject>().await;
            }
        )*
    };
}
