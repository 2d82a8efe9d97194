//! The outbox, in front of a broker in memory whose way can be barred.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use celeriac::broker::conformance::{Inbox, Subject, sample};
use celeriac::broker::embedded::EmbeddedOptions;
use celeriac::broker::{
    Broker, BrokerError, Consumer, Counts, DeadLetter, MemoryBroker, OutboxBroker, Place, RecordFn, Removal,
    Settle, Sink,
};
use celeriac::store::{MemoryStore, Store};
use celeriac::task::{Durability, Keeper, Message, Receipt, State, TaskId};
use tempfile::TempDir;
use tokio::sync::Notify;

/// A broker behind a way that can be barred: then it says that it is away, and refuses.
struct Barred {
    broker: MemoryBroker,
    away: AtomicBool,
    /// It does not know of its absence: only a publish finds out.
    unaware: AtomicBool,
    tried: Notify,
}

impl Barred {
    fn bar(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }
}

#[async_trait]
impl Broker for Barred {
    fn name(&self) -> &'static str {
        self.broker.name()
    }

    fn settles_results(&self) -> bool {
        self.broker.settles_results()
    }

    fn is_shared(&self) -> bool {
        self.broker.is_shared()
    }

    fn is_away(&self) -> bool {
        self.away.load(Ordering::SeqCst) && !self.unaware.load(Ordering::SeqCst)
    }

    async fn declare(&self, queue: &str) -> Result<(), BrokerError> {
        self.broker.declare(queue).await
    }

    async fn queues(&self) -> Result<Vec<String>, BrokerError> {
        self.broker.queues().await
    }

    async fn publish_all(
        &self,
        messages: Vec<Message>,
        sizes: Vec<(String, u64)>,
        unique: bool,
    ) -> Result<(), BrokerError> {
        self.broker.publish_all(messages, sizes, unique).await
    }

    async fn publish_beside(
        &self,
        messages: Vec<Message>,
        sizes: Vec<(String, u64)>,
        group: &str,
    ) -> Result<(), BrokerError> {
        self.broker.publish_beside(messages, sizes, group).await
    }

    async fn publish(&self, message: Message, unique: bool) -> Result<Receipt, BrokerError> {
        self.tried.notify_one();
        if self.away.load(Ordering::SeqCst) {
            return Err(BrokerError::Io("no way to the broker".to_owned()));
        }
        self.broker.publish(message, unique).await
    }

    fn consume(&self, queue: &str, prefetch: usize, sink: Sink) -> Result<Box<dyn Consumer>, BrokerError> {
        self.broker.consume(queue, prefetch, sink)
    }

    async fn counts(&self, queue: &str) -> Result<Counts, BrokerError> {
        self.broker.counts(queue).await
    }

    async fn find(&self, id: &TaskId) -> Result<Option<Place>, BrokerError> {
        self.broker.find(id).await
    }

    async fn remove(&self, id: &TaskId, record: RecordFn) -> Result<Removal, BrokerError> {
        self.broker.remove(id, record).await
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        self.broker.dead_letters(limit).await
    }

    async fn revive(&self, id: &TaskId) -> Result<bool, BrokerError> {
        self.broker.revive(id).await
    }

    async fn close(&self) -> Result<(), BrokerError> {
        self.broker.close().await
    }
}

struct Front {
    barred: Arc<Barred>,
    store: Arc<MemoryStore>,
    outbox: Arc<OutboxBroker>,
    dir: TempDir,
}

impl Front {
    async fn before(barred: Arc<Barred>, store: Arc<MemoryStore>, dir: TempDir) -> Self {
        let options = EmbeddedOptions::default();
        let outbox =
            OutboxBroker::open(Arc::clone(&barred) as _, Arc::clone(&store) as _, dir.path(), options);
        let outbox = Arc::new(outbox.await.expect("an outbox"));
        Self { barred, store, outbox, dir }
    }

    /// The same directory in front of the same broker, by another life of the process.
    async fn again(self) -> Self {
        let Self { barred, store, outbox, dir } = self;
        drop(outbox); // lets go of the directory, as the end of a process does
        Self::before(barred, store, dir).await
    }

    async fn publish(&self, n: usize) -> Receipt {
        self.outbox.publish(message(n), false).await.expect("accepted")
    }
}

#[async_trait]
impl Subject for Front {
    const DURABILITY: Durability = Durability::Memory;

    async fn open() -> Self {
        let store = Arc::new(MemoryStore::default());
        let barred = Barred {
            broker: MemoryBroker::new(Arc::clone(&store)),
            away: AtomicBool::new(false),
            unaware: AtomicBool::new(false),
            tried: Notify::new(),
        };
        Self::before(Arc::new(barred), store, TempDir::new().expect("a directory")).await
    }

    fn broker(&self) -> Arc<dyn Broker> {
        Arc::clone(&self.outbox) as _
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as _
    }
}

// While the broker is there, the outbox is not to be noticed.
celeriac::broker_conformance!(Front);

fn message(n: usize) -> Message {
    sample("q", n, Durability::Memory)
}

/// Takes `n` deliveries and settles them; their ids.
async fn ids(inbox: &mut Inbox, n: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for delivery in inbox.take(n).await {
        ids.push(delivery.message().id.to_string());
        delivery.settle(Settle::Ack { result: None, sequel: None });
    }
    ids
}

fn names(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("q-{n}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_accepted_while_the_broker_is_away_comes_once_and_in_order() {
    let front = Front::open().await;
    assert_eq!(front.publish(0).await.keeper, Keeper::Broker);
    front.barred.bar(true);
    for n in 1..600 {
        let receipt = front.publish(n).await;
        assert_eq!((receipt.keeper, receipt.queue.as_str()), (Keeper::Outbox, "q"));
        assert_eq!(receipt.durability, Durability::Disk);
    }
    front.barred.bar(false);
    // It goes behind what waits, though the broker is back; whether it must is for the forwarder to know.
    front.publish(600).await;
    let broker = front.broker();
    let mut inbox = Inbox::open(&broker, "q", 1000);
    let came = ids(&mut inbox, 601).await;
    assert!(came == names(0..601), "in order: {came:?}");
    inbox.is_quiet(&broker, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absence_that_only_a_publish_notices_loses_nothing() {
    let front = Front::open().await;
    front.barred.unaware.store(true, Ordering::SeqCst);
    front.barred.bar(true);
    assert_eq!(front.publish(0).await.keeper, Keeper::Outbox);
    assert_eq!(front.publish(1).await.keeper, Keeper::Outbox);
    front.barred.bar(false);
    let mut inbox = Inbox::open(&front.broker(), "q", 10);
    assert_eq!(ids(&mut inbox, 2).await, names(0..2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_in_the_outbox_survives_the_process() {
    let mut front = Front::open().await;
    front.barred.bar(true);
    let eta = Some(celeriac::core::Timestamp::ZERO + std::time::Duration::from_secs(9));
    let urgent = Message { priority: 9, eta, retries: 2, ..message(3) };
    for n in 0..3 {
        front.publish(n).await;
    }
    front.outbox.publish(urgent.clone(), false).await.expect("accepted");
    front = front.again().await;
    assert_eq!(front.outbox.pending(), 4);
    assert_eq!(front.publish(4).await.keeper, Keeper::Outbox);
    front.barred.bar(false);
    let broker = front.broker();
    let mut inbox = Inbox::open(&broker, "q", 10);
    let deliveries = inbox.take(5).await;
    let came = deliveries.iter().find(|d| d.message().id.as_str() == "q-3").expect("the urgent one");
    assert_eq!(**came.message(), urgent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_in_the_outbox_can_be_found_and_revoked() {
    let front = Front::open().await;
    front.barred.bar(true);
    // As many as the forwarder holds ahead, and more.
    for n in 0..700 {
        front.publish(n).await;
    }
    let id = TaskId::from("q-699");
    let place = front.outbox.find(&id).await.expect("an answer");
    assert!(matches!(place, Some(Place::Waiting(m)) if m.queue == "q"));
    let record = |m: &Message| {
        let mut result = celeriac::broker::conformance::success(m);
        result.state = State::Revoked;
        Some(result).into()
    };
    assert_eq!(front.outbox.remove(&id, Box::new(record)).await, Ok(Removal::Removed));
    assert_eq!(front.outbox.pending(), 699);
    let now = celeriac::core::Timestamp::ZERO;
    let kept = front.store.get(&id, now).await.expect("an answer").expect("a record");
    assert_eq!(kept.state, State::Revoked);
    front.barred.bar(false);
    let broker = front.broker();
    let mut inbox = Inbox::open(&broker, "q", 1000);
    assert_eq!(ids(&mut inbox, 699).await, names(0..699));
    inbox.is_quiet(&broker, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_forwarder_keeps_trying() {
    let front = Front::open().await;
    // Otherwise it would wait until the broker says that it is back.
    front.barred.unaware.store(true, Ordering::SeqCst);
    front.barred.bar(true);
    front.publish(0).await;
    for _ in 0..3 {
        front.barred.tried.notified().await;
    }
    front.barred.bar(false);
    let mut inbox = Inbox::open(&front.broker(), "q", 10);
    assert_eq!(ids(&mut inbox, 1).await, names(0..1));
}
