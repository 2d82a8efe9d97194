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
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;

use super::{
    Backlog, Broker, BrokerError, BrokerFacts, BrokerNotes, Condition, Consumer, DeadLetter, DeadLetterQueue,
    Delivery, Events, Inspect, Lanes, QueueCounts, Results, Sink, UniqueWindows,
};
use crate::task::{Message, Receipt, TaskId, panic};

/// The facts of a broker that panicked when it was asked for them: nobody relies on anything.
const CAUTIOUS: BrokerFacts = BrokerFacts { is_shared: true, knows_all: false, delivery_limit: None };

/// A program's broker, each call of which may panic.
pub(crate) struct GuardedBroker {
    given: Arc<dyn Broker>,
    /// The facts, since they were told. They never change.
    facts: OnceLock<BrokerFacts>,
}

/// Awaits a future that may panic, and makes a panic an error.
async fn caught<T>(
    what: &str,
    work: impl Future<Output = Result<T, BrokerError>>,
) -> Result<T, BrokerError> {
    panic::caught("broker", what, work, BrokerError::Panicked).await
}

/// Calls a function that may panic; after a panic the answer is the default one.
fn calm<T: Default>(what: &str, call: impl FnOnce() -> T) -> T {
    panic::tried("broker", what, call).unwrap_or_default()
}

impl GuardedBroker {
    pub(crate) fn over(given: Arc<dyn Broker>) -> Arc<dyn Broker> {
        Arc::new(Self { given, facts: OnceLock::new() })
    }
}

#[async_trait]
impl Broker for GuardedBroker {
    fn name(&self) -> &'static str {
        panic::tried("broker", "name", || self.given.name()).unwrap_or("the program's own")
    }

    fn facts(&self) -> BrokerFacts {
        if let Some(facts) = self.facts.get() {
            return *facts;
        }
        match panic::tried("broker", "facts", || self.given.facts()) {
            Ok(facts) => *self.facts.get_or_init(|| facts),
            Err(_) => CAUTIOUS,
        }
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
        caught("publish", async { self.given.publish(message, unique).await }).await
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
        calm("results", || self.given.results().is_some()).then_some(self)
    }

    fn lanes(&self) -> Option<&dyn Lanes> {
        calm("lanes", || self.given.lanes().is_some()).then_some(self)
    }

    fn unique_windows(&self) -> Option<&dyn UniqueWindows> {
        calm("unique_windows", || self.given.unique_windows().is_some()).then_some(self)
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        calm("inspect", || self.given.inspect().is_some()).then_some(self)
    }

    fn notes(&self) -> Option<&dyn BrokerNotes> {
        calm("notes", || self.given.notes().is_some()).then_some(self)
    }

    fn backlog(&self) -> Option<&dyn Backlog> {
        calm("backlog", || self.given.backlog().is_some()).then_some(self)
    }

    fn events(&self) -> Option<&dyn Events> {
        calm("events", || self.given.events().is_some()).then_some(self)
    }

    fn dead_letter_queue(&self) -> Option<&dyn DeadLetterQueue> {
        calm("dead_letter_queue", || self.given.dead_letter_queue().is_some()).then_some(self)
    }
}
