//! The outbox, in front of a broker in memory whose way can be barred.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use celeriac::broker::conformance::{BrokerUnderTest, Inbox, sample};
use celeriac::broker::embedded::EmbeddedOptions;
use celeriac::broker::{
    Activity, Backlog, Broker, BrokerError, BrokerFacts, BrokerListener, BrokerNotes, BulkChanges, Condition,
    Consumer, ControlRequest, DeadLetter, DeadLetterQueue, Events, FailedTasks, FollowUps, Inspect, Lanes,
    MemoryBroker, MessageLocation, OutboxBroker, QueueCounts, Removal, Results, Settle, Sink, TenantBacklog,
    UniqueWindows,
};
use celeriac::store::{MemoryStore, Store, StoreError};
use celeriac::task::{
    AcceptedBy, Durability, EventFunnel, EventGroup, EventStream, Message, Receipt, State, TaskId,
    TaskOptions, TaskResult,
};
use futures_util::future::BoxFuture;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::Notify;

/// A broker behind a way that can be barred: then it says that it is away, and refuses.
struct Barred {
    broker: MemoryBroker,
    away: AtomicBool,
    /// It does not know of its absence: only a publish finds out.
    unaware: AtomicBool,
    /// The ids that it refuses for good.
    refused: Mutex<HashSet<String>>,
    /// The queue that has no room.
    full: Mutex<Option<String>>,
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

    fn facts(&self) -> BrokerFacts {
        BrokerFacts { delivery_limit: None, ..self.broker.facts() }
    }

    fn condition(&self) -> Condition {
        let is_unavailable = self.away.load(Ordering::SeqCst) && !self.unaware.load(Ordering::SeqCst);
        Condition { is_unavailable, ..self.broker.condition() }
    }

    async fn declare(&self, queue: &str) -> Result<(), BrokerError> {
        self.broker.declare(queue).await
    }

    async fn queues(&self) -> Result<Vec<String>, BrokerError> {
        self.broker.queues().await
    }

    async fn publish(&self, message: Message, unique: bool) -> Result<Receipt, BrokerError> {
        self.tried.notify_one();
        if self.away.load(Ordering::SeqCst) {
            return Err(BrokerError::io("no way to the broker".to_owned()));
        }
        if self.refused.lock().unwrap().contains(message.id.as_str()) {
            return Err(BrokerError::Refused("it is too odd".to_owned()));
        }
        if self.full.lock().unwrap().as_deref() == Some(&message.queue) {
            return Err(BrokerError::Full("no room".to_owned()));
        }
        self.broker.publish(message, unique).await
    }

    async fn publish_all(&self, messages: Vec<Message>, unique: bool) -> Result<(), BrokerError> {
        self.broker.publish_all(messages, unique).await
    }

    fn consume(&self, queue: &str, prefetch: usize, sink: Sink) -> Result<Box<dyn Consumer>, BrokerError> {
        self.broker.consume(queue, prefetch, sink)
    }

    async fn counts(&self, queue: &str) -> Result<QueueCounts, BrokerError> {
        self.broker.counts(queue).await
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        self.broker.dead_letters(limit).await
    }

    async fn requeue_dead_letters(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
        self.broker.requeue_dead_letters(ids).await
    }

    async fn close(&self) -> Result<(), BrokerError> {
        self.broker.close().await
    }

    fn results(&self) -> Option<&dyn Results> {
        self.broker.results()
    }

    fn lanes(&self) -> Option<&dyn Lanes> {
        None
    }

    fn unique_windows(&self) -> Option<&dyn UniqueWindows> {
        None
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        self.broker.inspect()
    }

    fn notes(&self) -> Option<&dyn BrokerNotes> {
        None
    }

    fn backlog(&self) -> Option<&dyn Backlog> {
        self.broker.backlog()
    }

    fn events(&self) -> Option<&dyn Events> {
        None
    }

    fn dead_letter_queue(&self) -> Option<&dyn DeadLetterQueue> {
        None
    }

    fn failed_tasks(&self) -> Option<&dyn FailedTasks> {
        self.broker.failed_tasks()
    }

    fn tenant_backlog(&self) -> Option<&dyn TenantBacklog> {
        self.broker.tenant_backlog()
    }

    fn bulk_changes(&self) -> Option<&dyn BulkChanges> {
        self.broker.bulk_changes()
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
impl BrokerUnderTest for Front {
    const DURABILITY: Durability = Durability::Memory;

    async fn open() -> Self {
        let store = Arc::new(MemoryStore::default());
        let barred = Barred {
            broker: MemoryBroker::new(Arc::clone(&store)),
            away: AtomicBool::new(false),
            unaware: AtomicBool::new(false),
            refused: Mutex::default(),
            full: Mutex::default(),
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
celeriac::broker_conformance!(Front, results);
celeriac::broker_conformance!(Front, failed);
celeriac::broker_conformance!(Front, tenants);

fn message(n: usize) -> Message {
    sample("q", n, Durability::Memory)
}

/// Takes `n` deliveries and settles them; their ids.
async fn ids(inbox: &mut Inbox, n: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for delivery in inbox.take(n).await {
        ids.push(delivery.message().id.to_string());
        delivery.settle(Settle::Ack { result: None, follow_ups: None });
    }
    ids
}

fn names(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("q-{n}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_accepted_while_the_broker_is_away_comes_once_and_in_order() {
    let front = Front::open().await;
    assert_eq!(front.publish(0).await.keeper, AcceptedBy::Broker);
    front.barred.bar(true);
    for n in 1..600 {
        let receipt = front.publish(n).await;
        assert_eq!((receipt.keeper, receipt.queue.as_str()), (AcceptedBy::Outbox, "q"));
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

/// A trace goes on behind an absence of the broker.
#[tokio::test(flavor = "multi_thread")]
async fn headers_go_through_the_outbox() {
    let front = Front::open().await;
    front.barred.bar(true);
    let mut traced = message(0);
    traced.headers.0.insert("traceparent".to_owned(), Value::from("00-1-2-01"));
    let headers = traced.headers.clone();
    let receipt = front.outbox.publish(traced, false).await.expect("accepted");
    assert_eq!(receipt.keeper, AcceptedBy::Outbox);
    front.barred.bar(false);
    let mut inbox = Inbox::open(&front.broker(), "q", 10);
    let came = inbox.take(1).await;
    assert_eq!(came[0].message().headers, headers);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absence_that_only_a_publish_notices_loses_nothing() {
    let front = Front::open().await;
    front.barred.unaware.store(true, Ordering::SeqCst);
    front.barred.bar(true);
    assert_eq!(front.publish(0).await.keeper, AcceptedBy::Outbox);
    assert_eq!(front.publish(1).await.keeper, AcceptedBy::Outbox);
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
    assert_eq!(front.publish(4).await.keeper, AcceptedBy::Outbox);
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
    assert!(matches!(place, Some(MessageLocation::Waiting(m)) if m.queue == "q"));
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

/// Keeps what it hears in the store, as a runtime does.
struct Heard(Arc<MemoryStore>);

impl BrokerListener for Heard {
    fn options(&self, _: &str) -> Option<TaskOptions> {
        None
    }

    fn plan_follow_ups(&self, _: &Message, _: &mut TaskResult) -> Option<Box<FollowUps>> {
        None
    }

    fn over(&self, _: TaskResult, _: Option<&Message>) {
        unreachable!("an outbox waits for the end");
    }

    fn end(&self, record: TaskResult, message: Option<&Message>) -> BoxFuture<'static, ()> {
        assert_eq!(message.map(|message| &message.id), Some(&record.id), "what follows is the message's");
        let store = Arc::clone(&self.0);
        Box::pin(async move { assert_eq!(store.put(record).await, Ok(true)) })
    }

    fn events(&self, groups: &[EventGroup]) -> EventStream {
        EventFunnel::default().listen(groups)
    }

    fn activity(&self) -> Activity {
        Activity::default()
    }

    fn parked(&self, _: &Arc<Message>) -> bool {
        false
    }

    fn lost(&self, _: Vec<u64>) {}

    fn revoked(&self, _: Vec<TaskId>, _: bool) -> BoxFuture<'static, Result<Vec<TaskId>, StoreError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn control(&self, _: ControlRequest) -> BoxFuture<'static, Option<Value>> {
        Box::pin(std::future::ready(None))
    }
}

impl Front {
    fn set_listener(&self) {
        self.outbox.set_listener(Arc::new(Heard(Arc::clone(&self.store))));
    }
}

/// What was taken has been struck out in the outbox, and so many are left.
async fn settled(front: &Front, left: u64) {
    let settled = async {
        while front.outbox.pending() != left {
            tokio::task::yield_now().await;
        }
    };
    let patience = std::time::Duration::from_secs(120);
    tokio::time::timeout(patience, settled).await.expect("the rest is struck out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_refused_for_good_stops_nothing_and_is_kept() {
    let mut front = Front::open().await;
    front.set_listener();
    front.barred.refused.lock().unwrap().insert("q-3".to_owned());
    let refused = front.outbox.publish(message(3), false).await;
    assert!(
        matches!(refused, Err(BrokerError::Refused(_))),
        "who asks the broker itself hears so: {refused:?}"
    );
    front.barred.bar(true);
    for n in 0..10 {
        front.publish(n).await;
    }
    let mut next = Inbox::open(&front.broker(), "q", 20);
    front.barred.bar(false);
    let others: Vec<String> = names(0..10).into_iter().filter(|name| name != "q-3").collect();
    assert_eq!(ids(&mut next, 9).await, others, "in order");
    let now = celeriac::core::Timestamp::ZERO;
    settled(&front, 0).await;
    let record = front.store.get(&TaskId::from("q-3"), now).await.unwrap().expect("a record");
    assert_eq!((record.state, record.error_type.as_deref()), (State::Failure, Some("Refused")));
    assert!(record.errors[0].contains("it is too odd"), "{:?}", record.errors);
    // As the outbox is afterwards, in this life and in the next one.
    for life in 0..2 {
        let broker = front.broker();
        let letters = broker.dead_letters(10).await.expect("letters");
        let told: Vec<_> =
            letters.iter().map(|l| (l.message.clone(), l.reason.contains("too odd"))).collect();
        assert_eq!(told, [(Message { enqueued_at: letters[0].message.enqueued_at, ..message(3) }, true)]);
        assert_eq!((front.outbox.pending(), broker.counts("q").await.unwrap().dead), (0, 1), "life {life}");
        next.is_quiet(&broker, "q").await;
        drop((broker, next));
        front = front.again().await;
        front.set_listener();
        next = Inbox::open(&front.broker(), "q", 20);
    }
    // Once it is taken, it goes again, counted anew.
    front.barred.refused.lock().unwrap().clear();
    assert_eq!(front.outbox.requeue_dead_letter(&TaskId::from("q-3")).await, Ok(true));
    let delivery = next.next().await;
    assert_eq!(delivery.message().id.as_str(), "q-3");
    assert_eq!(front.outbox.requeue_dead_letter(&TaskId::from("q-3")).await, Ok(false));
    assert_eq!(front.outbox.dead_letters(10).await.expect("letters"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_slows_only_those_who_send_to_it() {
    let front = Front::open().await;
    *front.barred.full.lock().unwrap() = Some("full".to_owned());
    let to_full = |n| sample("full", n, Durability::Memory);
    for n in 0..300 {
        let receipt = front.outbox.publish(to_full(n), false).await.expect("accepted");
        assert_eq!(receipt.keeper, AcceptedBy::Outbox);
    }
    let broker = front.broker();
    let mut inbox = Inbox::open(&broker, "q", 400);
    for n in 0..100 {
        assert_eq!(front.publish(n).await.keeper, AcceptedBy::Broker, "the way of the others is free");
    }
    assert_eq!(ids(&mut inbox, 100).await, names(0..100));
    // And what waits in the outbox for another queue is not behind it.
    front.barred.bar(true);
    for n in 100..120 {
        assert_eq!(front.publish(n).await.keeper, AcceptedBy::Outbox);
    }
    front.barred.bar(false);
    assert_eq!(ids(&mut inbox, 20).await, names(100..120));
    settled(&front, 300).await;
    *front.barred.full.lock().unwrap() = None;
    let mut emptied = Inbox::open(&broker, "full", 400);
    let came = ids(&mut emptied, 300).await;
    assert_eq!(came, (0..300).map(|n| format!("full-{n}")).collect::<Vec<_>>(), "once, in order");
    emptied.is_quiet(&broker, "full").await;
}

/// Versions that had one line left messages of all queues in it.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_version_left_goes_first() {
    let front = Front::open().await;
    let Front { barred, store, outbox, dir } = front;
    drop(outbox);
    let old =
        celeriac::broker::EmbeddedBroker::open(dir.path(), EmbeddedOptions::default()).expect("a store");
    for n in 0..5 {
        let inner = message(n);
        let text = serde_json::to_string(&inner).unwrap();
        let arguments = celeriac::task::Arguments { args: text, kwargs: String::new() };
        let wrapped =
            Message { arguments, queue: "outbox".to_owned(), durability: Durability::Disk, ..inner };
        old.publish(wrapped, false).await.expect("kept");
    }
    old.close().await.expect("a close");
    drop(old);
    barred.bar(true);
    let front = Front::before(barred, store, dir).await;
    assert_eq!(front.outbox.pending(), 5);
    assert_eq!(front.publish(5).await.keeper, AcceptedBy::Outbox);
    front.barred.bar(false);
    let mut inbox = Inbox::open(&front.broker(), "q", 10);
    assert_eq!(ids(&mut inbox, 6).await, names(0..6));
}
