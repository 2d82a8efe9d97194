//! A broker that panics, for [`fragile`](super).

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use celeriac::TaskId;
use celeriac::broker::{
    Backlog, Broker, BrokerError, BrokerFacts, BrokerNotes, BulkChanges, Condition, Consumer, DeadLetter,
    DeadLetterQueue, Delivery, Events, FailedTasks, Inspect, Lanes, MemoryBroker, QueueCounts, Results,
    Settle, Settler, Sink, TenantBacklog, UniqueWindows,
};
use celeriac::store::MemoryStore;
use celeriac::task::{Message, Receipt};
use tokio::sync::oneshot;

use super::Strikes;

/// A broker in memory that panics.
pub(super) struct FragileBroker {
    inner: MemoryBroker,
    /// Whether it keeps results itself. If not, they are kept in the store.
    keeps_results: bool,
    strikes: Arc<Strikes>,
}

impl FragileBroker {
    pub(super) fn over(store: Arc<MemoryStore>, keeps_results: bool, strikes: Arc<Strikes>) -> Arc<Self> {
        Arc::new(Self { inner: MemoryBroker::new(store), keeps_results, strikes })
    }
}

#[async_trait]
impl Broker for FragileBroker {
    fn name(&self) -> &'static str {
        "fragile"
    }

    /// It does not know all, so the store is asked what is revoked.
    fn facts(&self) -> BrokerFacts {
        self.strikes.strike("facts");
        BrokerFacts { knows_all: self.keeps_results, ..self.inner.facts() }
    }

    fn condition(&self) -> Condition {
        self.strikes.strike("condition");
        self.inner.condition()
    }

    async fn declare(&self, queue: &str) -> Result<(), BrokerError> {
        self.inner.declare(queue).await
    }

    async fn queues(&self) -> Result<Vec<String>, BrokerError> {
        self.inner.queues().await
    }

    async fn publish(&self, message: Message, unique: bool) -> Result<Receipt, BrokerError> {
        self.strikes.strike("publish");
        self.inner.publish(message, unique).await
    }

    async fn publish_all(&self, messages: Vec<Message>, unique: bool) -> Result<(), BrokerError> {
        self.strikes.strike("publish_all");
        self.inner.publish_all(messages, unique).await
    }

    fn consume(&self, queue: &str, prefetch: usize, sink: Sink) -> Result<Box<dyn Consumer>, BrokerError> {
        self.strikes.strike("consume");
        let strikes = Arc::clone(&self.strikes);
        let front: Sink = Arc::new(move |deliveries: Vec<Delivery>| {
            let fragile = |delivery: Delivery| {
                let (tag, message) = (delivery.tag(), Arc::clone(delivery.message()));
                let (delivery, strikes) = (Mutex::new(Some(delivery)), Arc::clone(&strikes));
                Delivery::new(tag, message, Arc::new(FragileSettler { delivery, strikes }))
            };
            sink(deliveries.into_iter().map(fragile).collect());
        });
        self.inner.consume(queue, prefetch, front)
    }

    async fn counts(&self, queue: &str) -> Result<QueueCounts, BrokerError> {
        self.strikes.strike("counts");
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
        self.inner.results().filter(|_| self.keeps_results)
    }

    fn lanes(&self) -> Option<&dyn Lanes> {
        None
    }

    fn unique_windows(&self) -> Option<&dyn UniqueWindows> {
        self.inner.unique_windows().filter(|_| self.keeps_results)
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        self.inner.inspect()
    }

    fn notes(&self) -> Option<&dyn BrokerNotes> {
        None
    }

    fn backlog(&self) -> Option<&dyn Backlog> {
        self.inner.backlog()
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

/// Settles one delivery, after its panics.
struct FragileSettler {
    delivery: Mutex<Option<Delivery>>,
    strikes: Arc<Strikes>,
}

impl Settler for FragileSettler {
    fn note_started(&self, _: u64) {
        self.strikes.strike("note_started");
    }

    fn write_starts(&self) {
        self.strikes.strike("write_starts");
    }

    fn check_fence(&self, _: u64) -> Option<oneshot::Receiver<bool>> {
        None
    }

    fn settle(&self, _: u64, settle: Settle, done: Option<oneshot::Sender<Result<(), BrokerError>>>) {
        self.strikes.strike("settle");
        let Some(delivery) = self.delivery.lock().unwrap().take() else { return };
        delivery.settle(settle);
        if let Some(done) = done {
            let _ = done.send(Ok(()));
        }
    }
}
