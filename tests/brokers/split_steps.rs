//! A process dies between any two steps of an end whose record is kept beside its broker: nothing is lost, and nothing is there
//! twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use celeriac::broker::conformance::{Inbox, counts, sample, success};
use celeriac::broker::{Broker, ChordEnd, FollowUps, MemoryBroker, QueueCounts, Settle, SplitBroker};
use celeriac::core::Timestamp;
use celeriac::store::{
    ChordJoin, ChordPart, ChordSize, ChordStore, DuplicateStore, GroupStore, MemoryStore, Notes, SharedRates,
    Store, StoreError, UniqueWindowStore,
};
use celeriac::task::{Durability, Message, PermitKeeper, State, TaskId, TaskResult, TrackedState};
use tokio::sync::Notify;

/// The calls to the store of the end that is tested: two records, a chord opened, one joined, one closed.
const CALLS: usize = 5;

/// A store that one call never comes back from, before or after it is done.
struct Stops {
    inner: Arc<MemoryStore>,
    calls: AtomicUsize,
    at: usize,
    is_done: bool,
    reached: Notify,
}

impl Stops {
    async fn call<T>(&self, work: impl Future<Output = T>) -> T {
        let is_the_one = self.calls.fetch_add(1, Ordering::SeqCst) == self.at;
        let done = if is_the_one && !self.is_done { None } else { Some(work.await) };
        match done {
            Some(done) if !is_the_one => done,
            _ => {
                self.reached.notify_one();
                std::future::pending().await
            }
        }
    }
}

#[async_trait]
impl Store for Stops {
    async fn put(&self, result: TaskResult) -> Result<bool, StoreError> {
        self.call(self.inner.put(result)).await
    }

    async fn get(&self, id: &TaskId, now: Timestamp) -> Result<Option<TaskResult>, StoreError> {
        self.inner.get(id, now).await
    }

    async fn wait(&self, id: &TaskId) -> Result<TaskResult, StoreError> {
        self.inner.wait(id).await
    }

    async fn forget(&self, id: &TaskId) -> Result<bool, StoreError> {
        self.inner.forget(id).await
    }

    async fn sweep(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.inner.sweep(now).await
    }

    async fn track(&self, state: TrackedState) -> Result<(), StoreError> {
        self.inner.track(state).await
    }

    async fn tracked(&self, id: &TaskId) -> Result<Option<TrackedState>, StoreError> {
        self.inner.tracked(id).await
    }

    async fn revoke(&self, id: &TaskId, until: Timestamp) -> Result<(), StoreError> {
        self.inner.revoke(id, until).await
    }

    async fn revoked(&self, ids: &[TaskId], now: Timestamp) -> Result<Vec<TaskId>, StoreError> {
        self.inner.revoked(ids, now).await
    }

    fn is_known_revoked(&self, id: &TaskId, now: Timestamp) -> Option<bool> {
        self.inner.is_known_revoked(id, now)
    }

    async fn untrack(&self, _: &TaskId) -> Result<(), StoreError> {
        Ok(())
    }

    fn chords(&self) -> Option<&dyn ChordStore> {
        Some(self)
    }

    fn groups(&self) -> Option<&dyn GroupStore> {
        None
    }

    fn duplicates(&self) -> Option<&dyn DuplicateStore> {
        None
    }

    fn notes(&self) -> Option<&dyn Notes> {
        None
    }

    fn unique_windows(&self) -> Option<&dyn UniqueWindowStore> {
        None
    }

    fn permits(&self) -> Option<Arc<dyn PermitKeeper>> {
        None
    }
    fn shared_rates(&self) -> Option<&dyn SharedRates> {
        None
    }

    fn reply_to(&self) -> Option<String> {
        None
    }

    fn is_shared(&self) -> bool {
        false
    }
}

#[async_trait]
impl ChordStore for Stops {
    async fn open_chord(&self, group: &str, size: u64) -> Result<(), StoreError> {
        self.call(self.inner.open_chord(group, size)).await
    }

    async fn join_chord(&self, part: ChordPart) -> Result<ChordJoin, StoreError> {
        self.call(self.inner.join_chord(part)).await
    }

    async fn close_chord(&self, group: &str, token: &str) -> Result<(), StoreError> {
        self.call(self.inner.close_chord(group, token)).await
    }

    async fn extend_chord(&self, group: &str, id: &TaskId) -> Result<(), StoreError> {
        self.inner.extend_chord(group, id).await
    }

    async fn close_failed_chord(&self, group: &str, token: &str) -> Result<(), StoreError> {
        self.inner.close_failed_chord(group, token).await
    }
}

fn message(queue: &str) -> Message {
    sample(queue, 0, Durability::Memory)
}

fn part() -> ChordPart {
    let value = serde_json::json!(7).into();
    ChordPart { group: "g".to_owned(), id: "q-0".into(), index: Some(0), state: State::Success, value }
}

/// A member of a chord of one ends: its record, a task that will never run, a chord that follows, and the body.
fn end(message: &Message) -> Settle {
    let then = |parts: Vec<ChordPart>| {
        assert_eq!(parts, [part()]);
        FollowUps { messages: vec![self::message("body")], ..FollowUps::default() }
    };
    let follow_ups = FollowUps {
        messages: vec![self::message("next")],
        records: vec![success(&self::message("lost"))],
        sizes: vec![ChordSize { group: "inner".to_owned(), size: 1 }],
        chords: vec![ChordEnd { part: part(), then: Box::new(then) }],
    };
    Settle::Ack { result: Some(success(message)), follow_ups: Some(Box::new(follow_ups)) }
}

/// The process dies at this call to the store, before it is done or after; the next one finds all that there should be.
async fn dies(at: usize, is_done: bool) {
    let store = Arc::new(MemoryStore::default());
    let transport: Arc<dyn Broker> = Arc::new(MemoryBroker::new(Arc::default()));
    store.open_chord("g", 1).await.unwrap();
    transport.publish(message("q"), false).await.unwrap();
    let stops =
        Stops { inner: Arc::clone(&store), calls: AtomicUsize::new(0), at, is_done, reached: Notify::new() };
    let stops = Arc::new(stops);
    let first: Arc<dyn Broker> =
        Arc::new(SplitBroker::open(Arc::clone(&transport), Arc::clone(&stops) as _).unwrap());
    let mut inbox = Inbox::open(&first, "q", 1);
    let mut delivery = inbox.next().await;
    delivery.started();
    let settle = end(delivery.message());
    delivery.settle(settle);
    stops.reached.notified().await;
    drop((inbox, first));
    let second: Arc<dyn Broker> =
        Arc::new(SplitBroker::open(Arc::clone(&transport), Arc::clone(&store) as _).unwrap());
    let mut inbox = Inbox::open(&second, "q", 1);
    // Only the closing of a chord comes after the acknowledgement.
    if at < CALLS - 1 {
        let delivery = inbox.next().await;
        assert_eq!(delivery.message().crashes, 1);
        let settle = end(delivery.message());
        delivery.settle_and_wait(settle).await.unwrap();
        assert_eq!(store.join_chord(part()).await, Ok(ChordJoin::Waiting), "the chord is closed");
    }
    inbox.is_quiet(&second, "q").await;
    for queue in ["next", "body"] {
        assert_eq!(
            counts(&second, queue).await,
            QueueCounts { ready: 1, ..QueueCounts::default() },
            "{queue}"
        );
    }
    for id in ["q-0", "lost-0"] {
        let record = store.get(&id.into(), Timestamp::ZERO).await.unwrap().expect("a record");
        assert_eq!(record.state, State::Success, "{id}");
    }
    second.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_between_two_steps_of_an_end_loses_nothing() {
    let ends = (0..CALLS).flat_map(|at| [false, true].map(|is_done| tokio::spawn(dies(at, is_done))));
    for end in futures_util::future::join_all(ends).await {
        end.unwrap();
    }
}

/// A close waits for what is being kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_keeps_what_was_settled() {
    let store = Arc::new(MemoryStore::default());
    let transport = Arc::new(MemoryBroker::new(Arc::default()));
    let split = SplitBroker::open(transport.clone() as _, Arc::clone(&store) as _).unwrap();
    let broker: Arc<dyn Broker> = Arc::new(split);
    for n in 0..100 {
        broker.publish(sample("q", n, Durability::Memory), false).await.unwrap();
    }
    let mut inbox = Inbox::open(&broker, "q", 100);
    for delivery in inbox.take(100).await {
        let result = Some(success(delivery.message()));
        delivery.settle(Settle::Ack { result, follow_ups: None });
    }
    broker.close().await.unwrap();
    for n in 0..100 {
        let id = TaskId::from(format!("q-{n}"));
        assert!(store.get(&id, Timestamp::ZERO).await.unwrap().is_some(), "{id}");
    }
}
