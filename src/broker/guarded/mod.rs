//! Stands in front of a broker that the program brings: a panic in that broker is an error of it, and harms nothing
//! else.
//!
//! Actors and loops of the runtime wait for answers of the broker. If the future that was to give an answer has
//! unwound, the answer never comes, which would stall a queue, beat or a caller for ever. With an error they know
//! what to do. A function that has no error answers with what promises least. How the end of a delivery survives
//! a panic is in [`settlement`].

mod abilities;
mod settlement;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;

use super::{
    Backlog, Broker, BrokerError, BrokerFacts, BrokerNotes, BulkChanges, Condition, Consumer, DeadLetter,
    DeadLetterQueue, Delivery, Events, FailedTasks, Inspect, Lanes, PublishFuture, QueueCounts, Results,
    Sink, TenantBacklog, UniqueWindows,
};
use crate::task::panic::{self, Fixed};
use crate::task::{Message, Receipt, TaskId};

/// The facts of a broker that panicked when it was asked for them: nobody relies on anything.
const CAUTIOUS: BrokerFacts = BrokerFacts { is_shared: true, knows_all: false, delivery_limit: None };

/// A program's broker, each call of which may panic.
pub(crate) struct GuardedBroker {
    given: Arc<dyn Broker>,
    known: BrokerAbilities,
}

/// What the broker is and can do, since it has said so. A broker for which that is not known yet is taken for one that
/// cannot.
#[derive(Default)]
struct BrokerAbilities {
    facts: Fixed<BrokerFacts>,
    results: Fixed<bool>,
    lanes: Fixed<bool>,
    unique_windows: Fixed<bool>,
    inspect: Fixed<bool>,
    notes: Fixed<bool>,
    backlog: Fixed<bool>,
    events: Fixed<bool>,
    dead_letter_queue: Fixed<bool>,
    failed_tasks: Fixed<bool>,
    tenant_backlog: Fixed<bool>,
    bulk_changes: Fixed<bool>,
}

/// Awaits a future that may panic, and makes a panic an error.
async fn caught<T>(what: &str, work: impl Future<Output = Result<T, BrokerError>>) -> Result<T, BrokerError> {
    panic::caught("broker", what, work, BrokerError::Panicked).await
}

/// Calls a function that may panic; after a panic the answer is the default one.
fn calm<T: Default>(what: &str, call: impl FnOnce() -> T) -> T {
    panic::tried("broker", what, call).unwrap_or_default()
}

/// Asks whether the broker has an ability.
fn has(what: &str, known: &Fixed<bool>, ask: impl Fn() -> bool) -> bool {
    known.ask("broker", what, ask).unwrap_or_default()
}

impl GuardedBroker {
    pub(crate) fn over(given: Arc<dyn Broker>) -> Arc<dyn Broker> {
        Arc::new(Self { given, known: BrokerAbilities::default() })
    }
}

#[async_trait]
impl Broker for GuardedBroker {
    fn name(&self) -> &'static str {
        panic::tried("broker", "name", || self.given.name()).unwrap_or("the program's own")
    }

    fn facts(&self) -> BrokerFacts {
        self.known.facts.ask("broker", "facts", || self.given.facts()).unwrap_or(CAUTIOUS)
    }

    fn condition(&self) -> Condition {
        calm("condition", || self.given.condition())
    }

    async fn declare(&self, queue: &str) -> Result<(), BrokerError> {
        caught("declare", async { self.given.declare(queue).await }).await
    }

    async fn queues(&self) -> Result<Vec<String>, BrokerError> {
        caught("queues", async { self.given.queues().await }).await
    }

    async fn publish(&self, message: Message, unique: bool) -> Result<Receipt, BrokerError> {
        self.begin_publish(Arc::new(message), unique).await
    }

    fn begin_publish(&self, message: Arc<Message>, unique: bool) -> PublishFuture<'_> {
        let given = &*self.given;
        match panic::tried("broker", "publish", move || given.begin_publish(message, unique)) {
            Ok(publishing) => publishing.wrapped(|work| caught("publish", work)),
            Err(text) => PublishFuture::answered(Err(BrokerError::Panicked(text))),
        }
    }

    async fn publish_all(&self, messages: Vec<Message>, unique: bool) -> Result<(), BrokerError> {
        caught("publish_all", async { self.given.publish_all(messages, unique).await }).await
    }

    fn consume(&self, queue: &str, prefetch: usize, sink: Sink) -> Result<Box<dyn Consumer>, BrokerError> {
        let front: Sink = Arc::new(move |deliveries: Vec<Delivery>| {
            sink(deliveries.into_iter().map(settlement::guarded).collect());
        });
        let consumer = panic::tried("broker", "consume", || self.given.consume(queue, prefetch, front))
            .unwrap_or_else(|text| Err(BrokerError::Panicked(text)))?;
        Ok(settlement::guarded_consumer(consumer))
    }

    async fn counts(&self, queue: &str) -> Result<QueueCounts, BrokerError> {
        caught("counts", async { self.given.counts(queue).await }).await
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        caught("dead_letters", async { self.given.dead_letters(limit).await }).await
    }

    async fn requeue_dead_letters(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
        caught("requeue_dead_letters", async { self.given.requeue_dead_letters(ids).await }).await
    }

    async fn requeue_dead_letter(&self, id: &TaskId) -> Result<bool, BrokerError> {
        caught("requeue_dead_letter", async { self.given.requeue_dead_letter(id).await }).await
    }

    async fn close(&self) -> Result<(), BrokerError> {
        caught("close", async { self.given.close().await }).await
    }

    fn results(&self) -> Option<&dyn Results> {
        has("results", &self.known.results, || self.given.results().is_some()).then_some(self)
    }

    fn lanes(&self) -> Option<&dyn Lanes> {
        has("lanes", &self.known.lanes, || self.given.lanes().is_some()).then_some(self)
    }

    fn unique_windows(&self) -> Option<&dyn UniqueWindows> {
        let ask = || self.given.unique_windows().is_some();
        has("unique_windows", &self.known.unique_windows, ask).then_some(self)
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        has("inspect", &self.known.inspect, || self.given.inspect().is_some()).then_some(self)
    }

    fn notes(&self) -> Option<&dyn BrokerNotes> {
        has("notes", &self.known.notes, || self.given.notes().is_some()).then_some(self)
    }

    fn backlog(&self) -> Option<&dyn Backlog> {
        has("backlog", &self.known.backlog, || self.given.backlog().is_some()).then_some(self)
    }

    fn events(&self) -> Option<&dyn Events> {
        has("events", &self.known.events, || self.given.events().is_some()).then_some(self)
    }

    fn dead_letter_queue(&self) -> Option<&dyn DeadLetterQueue> {
        let ask = || self.given.dead_letter_queue().is_some();
        has("dead_letter_queue", &self.known.dead_letter_queue, ask).then_some(self)
    }

    fn failed_tasks(&self) -> Option<&dyn FailedTasks> {
        let ask = || self.given.failed_tasks().is_some();
        has("failed_tasks", &self.known.failed_tasks, ask).then_some(self)
    }

    fn tenant_backlog(&self) -> Option<&dyn TenantBacklog> {
        let ask = || self.given.tenant_backlog().is_some();
        has("tenant_backlog", &self.known.tenant_backlog, ask).then_some(self)
    }

    fn bulk_changes(&self) -> Option<&dyn BulkChanges> {
        let ask = || self.given.bulk_changes().is_some();
        has("bulk_changes", &self.known.bulk_changes, ask).then_some(self)
    }
}
