//! A tick that its broker never takes fails with the reason, and its entry goes on with the next one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use celeriac::broker::{
    Backlog, Broker, BrokerError, BrokerFacts, BrokerNotes, BulkChanges, CasOutcome, Condition, Consumer,
    DeadLetter, DeadLetterQueue, Events, FailedTasks, Inspect, Lanes, MemoryBroker, QueueCounts, Results,
    Sink, TenantBacklog, UniqueWindows,
};
use celeriac::core::calendar::Overlap;
use celeriac::store::{CompareAndSet, MemoryStore, Notes};
use celeriac::task::{Message, Receipt};
use celeriac::{Context, State, TaskId, task};

use crate::kit::{builder, entry, ran, status, until, write_down};

const INTERVAL: Duration = Duration::from_millis(20);

#[task(queue = "io")]
async fn recorded(ctx: Context, key: String) {
    write_down(&ctx, key);
}

/// A broker that finds something of some ticks too long. `notes`: whether a note goes with a publish in one step.
struct Narrow {
    inner: MemoryBroker,
    notes: bool,
}

fn check(message: &Message) -> Result<(), BrokerError> {
    match message.arguments.args.contains("too long") {
        true => Err(BrokerError::Invalid("the unique key has 2000 bytes".to_owned())),
        false => Ok(()),
    }
}

#[async_trait]
impl BrokerNotes for Narrow {
    fn notes(&self) -> &dyn Notes {
        BrokerNotes::notes(&self.inner)
    }

    async fn publish_with_cas(
        &self,
        message: Message,
        change: CompareAndSet,
    ) -> Result<CasOutcome, BrokerError> {
        check(&message)?;
        self.inner.publish_with_cas(message, change).await
    }
}

#[async_trait]
impl Broker for Narrow {
    fn name(&self) -> &'static str {
        "narrow"
    }

    fn facts(&self) -> BrokerFacts {
        self.inner.facts()
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
        check(&message)?;
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
        self.inner.lanes()
    }

    fn unique_windows(&self) -> Option<&dyn UniqueWindows> {
        self.inner.unique_windows()
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        self.inner.inspect()
    }

    fn notes(&self) -> Option<&dyn BrokerNotes> {
        self.notes.then_some(self as _)
    }

    fn backlog(&self) -> Option<&dyn Backlog> {
        self.inner.backlog()
    }

    fn events(&self) -> Option<&dyn Events> {
        self.inner.events()
    }

    fn dead_letter_queue(&self) -> Option<&dyn DeadLetterQueue> {
        self.inner.dead_letter_queue()
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tick_that_is_too_long_fails_and_the_next_one_is_tried() {
    for notes in [true, false] {
        let (long, short) = (format!("too long {notes}"), format!("short {notes}"));
        let store = Arc::new(MemoryStore::default());
        let broker = Arc::new(Narrow { inner: MemoryBroker::new(Arc::clone(&store)), notes });
        let each = |key: &str| entry::<recorded::Task>(key, INTERVAL).overlap(Overlap::Allow);
        let celeriac = builder().broker(broker, store).periodic(each(&long)).periodic(each(&short));
        let celeriac = celeriac.start().await.unwrap();
        until("both are tried, again and again", async || {
            status(&celeriac, &long).await.published >= 5 && ran(&short).len() >= 5
        })
        .await;
        let refused = status(&celeriac, &long).await;
        assert_eq!(refused.error, None, "the entry is not held up");
        let id = refused.last_id.expect("the id of its last tick");
        let last = celeriac.async_result(id);
        until("its record is there", async || last.result().await.is_ok_and(|record| record.is_some())).await;
        let record = last.result().await.unwrap().expect("it was there a moment ago");
        assert_eq!((record.state, record.error_type.as_deref()), (State::Failure, Some("Refused")));
        assert!(record.errors[0].contains("the unique key has 2000 bytes"), "{:?}", record.errors);
        assert!(ran(&long).is_empty());
        celeriac.shutdown().await.unwrap();
    }
}
