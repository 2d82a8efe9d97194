//! Several runtimes on one broker: one beat leads, and a tick is published once, whoever leads, and however many do.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use celeriac::Celeriac;
use celeriac::actors::BeatError;
use celeriac::broker::{
    Backlog, Broker, BrokerError, BrokerFacts, BrokerNotes, BulkChanges, Condition, Consumer, DeadLetter,
    DeadLetterQueue, Events, FailedTasks, Inspect, Lanes, MemoryBroker, QueueCounts, Results, Sink,
    TenantBacklog, UniqueWindows,
};
use celeriac::core::Timestamp;
use celeriac::store::{MemoryStore, Store};
use celeriac::task::{Message, Receipt, TaskId};

use crate::kit::{LONG, assert_each_once, builder, each, io, now, ran, status, until, until_ran};

const INTERVAL: Duration = Duration::from_millis(20);

/// A broker as it is where several processes consume: they hold an election. `notes`: whether a note goes with a publish
/// in one step.
struct Shared {
    inner: MemoryBroker,
    notes: bool,
}

#[async_trait]
impl Broker for Shared {
    fn name(&self) -> &'static str {
        "shared"
    }

    fn facts(&self) -> BrokerFacts {
        BrokerFacts { is_shared: true, delivery_limit: None, ..self.inner.facts() }
    }

    fn condition(&self) -> Condition {
        self.inner.condition()
    }

    async fn declare(&self, queue: &str) -> Result<(), BrokerError> {
        self.inner.declare(queue).await
    }

    async fn queues(&self) -> Result<Vec<String>, BrokerError> {
        self.inner.queues().await
    }

    async fn publish(&self, message: Message, unique: bool) -> Result<Receipt, BrokerError> {
        self.inner.publish(message, unique).await
    }

    async fn publish_all(&self, messages: Vec<Message>, unique: bool) -> Result<(), BrokerError> {
        self.inner.publish_all(messages, unique).await
    }

    fn consume(&self, queue: &str, prefetch: usize, sink: Sink) -> Result<Box<dyn Consumer>, BrokerError> {
        self.inner.consume(queue, prefetch, sink)
    }

    async fn counts(&self, queue: &str) -> Result<QueueCounts, BrokerError> {
        self.inner.counts(queue).await
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        self.inner.dead_letters(limit).await
    }

    async fn requeue_dead_letters(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
        self.inner.requeue_dead_letters(ids).await
    }

    async fn close(&self) -> Result<(), BrokerError> {
        self.inner.close().await
    }

    fn results(&self) -> Option<&dyn Results> {
        self.inner.results()
    }

    fn lanes(&self) -> Option<&dyn Lanes> {
        None
    }

    fn unique_windows(&self) -> Option<&dyn UniqueWindows> {
        None
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        self.inner.inspect()
    }

    fn notes(&self) -> Option<&dyn BrokerNotes> {
        Broker::notes(&self.inner).filter(|_| self.notes)
    }

    fn backlog(&self) -> Option<&dyn Backlog> {
        None
    }

    fn events(&self) -> Option<&dyn Events> {
        None
    }

    fn dead_letter_queue(&self) -> Option<&dyn DeadLetterQueue> {
        None
    }

    fn failed_tasks(&self) -> Option<&dyn FailedTasks> {
        self.inner.failed_tasks()
    }

    fn tenant_backlog(&self) -> Option<&dyn TenantBacklog> {
        self.inner.tenant_backlog()
    }

    fn bulk_changes(&self) -> Option<&dyn BulkChanges> {
        self.inner.bulk_changes()
    }
}

async fn start(key: &str, broker: &Arc<dyn Broker>, store: &Arc<MemoryStore>) -> Celeriac {
    let store: Arc<dyn Store> = Arc::clone(store) as _;
    builder().broker(Arc::clone(broker), store).periodic(each(key, INTERVAL)).start().await.unwrap()
}

async fn end(key: &str, begin: Timestamp, first: Celeriac, second: Celeriac) {
    let last = status(&second, key).await.last;
    until("all ran", async || {
        let queue = io(&second).await;
        queue.ready == 0 && queue.running == 0
    })
    .await;
    second.beat().resign().await.unwrap();
    // The broker closes with the first that shuts down.
    first.shutdown_within(LONG).await.unwrap();
    let _ = second.shutdown_within(LONG).await;
    assert_each_once(key, INTERVAL, begin, last);
}

async fn takes_over(key: &str, notes: bool) {
    let store = Arc::new(MemoryStore::default());
    let inner = MemoryBroker::new(Arc::clone(&store));
    let broker: Arc<dyn Broker> = Arc::new(Shared { inner, notes });
    let begin = now();
    let first = start(key, &broker, &store).await;
    let second = start(key, &broker, &store).await;
    until_ran(key, 20).await;
    until("the first leads", async || first.beat().entries().await.is_ok()).await;
    assert_eq!(second.beat().entries().await, Err(BeatError::NotAnswering), "one leads");
    let before = ran(key).len();
    first.beat().resign().await.unwrap();
    until("the second leads", async || second.beat().entries().await.is_ok()).await;
    until_ran(key, before + 20).await;
    end(key, begin, first, second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_takes_over() {
    takes_over("elected", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_takes_over_where_broker_and_store_are_two() {
    takes_over("elected apart", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_may_last_for_ever() {
    let store = Arc::new(MemoryStore::default());
    let inner = MemoryBroker::new(Arc::clone(&store));
    let broker: Arc<dyn Broker> = Arc::new(Shared { inner, notes: true });
    let each = each("for ever", Duration::from_millis(10));
    let builder = builder().broker(broker, store).beat_lease(Duration::MAX).periodic(each);
    let celeriac = builder.start().await.unwrap();
    until_ran("for ever", 3).await;
    // The number counts from when this beat began to lead, so one that was built anew would count anew.
    until("it led all the time", async || status(&celeriac, "for ever").await.published >= 3).await;
    celeriac.shutdown_within(LONG).await.unwrap();
}

/// As if an election had gone wrong: both believe to lead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_leaders_publish_each_tick_once() {
    let store = Arc::new(MemoryStore::default());
    let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(Arc::clone(&store)));
    let begin = now();
    let first = start("two leaders", &broker, &store).await;
    let second = start("two leaders", &broker, &store).await;
    until_ran("two leaders", 100).await;
    until("both lead", async || {
        first.beat().entries().await.is_ok() && second.beat().entries().await.is_ok()
    })
    .await;
    end("two leaders", begin, first, second).await;
}
