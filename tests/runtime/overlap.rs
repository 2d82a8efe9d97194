//! Runs of one key do not overlap even when the broker is wrong.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use celeriac::broker::{
    Backlog, Broker, BrokerError, BrokerFacts, BrokerNotes, BulkChanges, Condition, Consumer, DeadLetter,
    DeadLetterQueue, Delivery, Events, FailedTasks, Inspect, Lanes, MemoryBroker, QueueCounts, Results,
    Settle, Settler, Sink, TenantBacklog, UniqueWindows,
};
use celeriac::store::MemoryStore;
use celeriac::task::{Message, Receipt, SerialHeader};
use celeriac::{Celeriac, Context, TaskId, serial_task};
use tokio::sync::oneshot;

use crate::kit::{self, Gate, LONG, builder, status_of, until, until_status};

#[serial_task(key = "{key}", scope = "overlap", queue = "io")]
async fn one_at_a_time(ctx: Context, key: String, gate: String) -> u32 {
    let _ = key;
    Gate::named(&gate).pass().await;
    ctx.attempt()
}

/// How a delivery has ended, as its broker was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Ack,
    Back { crashed: bool },
    Else,
}

/// What it remembers of serial messages, and how their deliveries have ended.
#[derive(Default)]
struct Book {
    serials: Mutex<HashMap<TaskId, SerialHeader>>,
    told: Mutex<Vec<(TaskId, Told)>>,
}

/// A broker that has forgotten its lanes: it lets everybody in.
struct Forgetful {
    inner: MemoryBroker,
    book: Arc<Book>,
}

/// Settles with the broker behind.
struct Behind {
    book: Arc<Book>,
    delivery: Mutex<Option<Delivery>>,
}

impl Settler for Behind {
    fn note_started(&self, _: u64) {}

    fn write_starts(&self) {}

    fn check_fence(&self, _: u64) -> Option<oneshot::Receiver<bool>> {
        None
    }

    fn settle(&self, _: u64, settle: Settle, done: Option<oneshot::Sender<Result<(), BrokerError>>>) {
        let Some(delivery) = self.delivery.lock().unwrap().take() else { return };
        let told = match &settle {
            Settle::Ack { .. } => Told::Ack,
            Settle::Return { crashed } => Told::Back { crashed: *crashed },
            _ => Told::Else,
        };
        self.book.told.lock().unwrap().push((delivery.message().id.clone(), told));
        delivery.settle(settle);
        if let Some(done) = done {
            let _ = done.send(Ok(()));
        }
    }
}

#[async_trait]
impl Broker for Forgetful {
    fn name(&self) -> &'static str {
        "forgetful"
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

    async fn publish(&self, mut message: Message, unique: bool) -> Result<Receipt, BrokerError> {
        if let Some(serial) = message.serial.take() {
            self.book.serials.lock().unwrap().insert(message.id.clone(), *serial);
        }
        self.inner.publish(message, unique).await
    }

    fn consume(&self, queue: &str, prefetch: usize, sink: Sink) -> Result<Box<dyn Consumer>, BrokerError> {
        let book = Arc::clone(&self.book);
        let front: Sink = Arc::new(move |deliveries: Vec<Delivery>| {
            let shown = |delivery: Delivery| {
                let (tag, mut message) = (delivery.tag(), Message::clone(delivery.message()));
                message.serial = book.serials.lock().unwrap().get(&message.id).cloned().map(Box::new);
                let behind = Behind { book: Arc::clone(&book), delivery: Mutex::new(Some(delivery)) };
                Delivery::new(tag, Arc::new(message), Arc::new(behind))
            };
            sink(deliveries.into_iter().map(shown).collect());
        });
        self.inner.consume(queue, prefetch, front)
    }

    async fn counts(&self, queue: &str) -> Result<QueueCounts, BrokerError> {
        self.inner.counts(queue).await
    }

    async fn publish_all(&self, messages: Vec<Message>, unique: bool) -> Result<(), BrokerError> {
        for message in messages {
            self.publish(message, unique).await?;
        }
        Ok(())
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        self.inner.dead_letters(limit).await
    }

    async fn requeue_dead_letters(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
        self.inner.requeue_dead_letters(ids).await
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
        Broker::notes(&self.inner)
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

    async fn close(&self) -> Result<(), BrokerError> {
        self.inner.close().await
    }
}

async fn forgetful() -> (Celeriac, Arc<Book>) {
    let (store, book) = (Arc::new(MemoryStore::default()), Arc::<Book>::default());
    let broker = Forgetful { inner: MemoryBroker::new(Arc::clone(&store)), book: Arc::clone(&book) };
    (builder().broker(Arc::new(broker), store).start().await.unwrap(), book)
}

#[test]
fn what_a_broker_lets_in_beside_another_run_of_its_key_does_not_start() {
    kit::alone("overlap::a_broker_that_lets_two_in_in_a_process_of_its_own");
}

/// The second does not start, is handed back, is counted, and the log names it. When the first is over it runs, and no attempt
/// of it is burnt.
#[tokio::test]
#[ignore = "a subscriber for all threads; run by `what_a_broker_lets_in_beside_another_run_of_its_key_does_not_start`"]
async fn a_broker_that_lets_two_in_in_a_process_of_its_own() {
    let log = kit::Log::capture(tracing::Level::WARN);
    let (celeriac, book) = forgetful().await;
    let gate = Gate::new();
    let call = || one_at_a_time::s("malawi".into(), gate.name.clone()).send(celeriac.client());
    let first = call().await.unwrap();
    gate.entered(1).await;
    let second = call().await.unwrap();
    let other = one_at_a_time::s("kenya".into(), gate.name.clone()).send(celeriac.client()).await.unwrap();
    gate.entered(2).await; // another key is not held up
    until_status(&celeriac, "io", |status| status.overlaps > 0).await;
    let back = (second.id().clone(), Told::Back { crashed: false });
    until("it is handed back", async || book.told.lock().unwrap().contains(&back)).await;
    assert_eq!((gate.gauge.all(), gate.gauge.now()), (2, 2), "it has not started");
    let said = log.text();
    let line = said.lines().find(|line| line.contains("let a serial task in")).expect("it is told");
    println!("{line}");
    for name in [first.id().as_str(), second.id().as_str(), "overlap-malawi", "one_at_a_time", "forgetful"] {
        assert!(line.contains(name), "{name} is not in {line}");
    }
    gate.open();
    for one in [&first, &second, &other] {
        assert_eq!(one.get(LONG).await, Ok(1), "no attempt is burnt");
    }
    let status = until_status(&celeriac, "io", |status| status.done == 3).await;
    assert_eq!(status.time_to_start.count, 3, "a start that did not take place is not counted");
    assert_eq!(status.failed + status.rejected + status.panics, 0);
    celeriac.shutdown().await.unwrap();
}

/// The broker knows of a limit that was set by hand where the actor of the lane does not; it is no fault of it then.
#[tokio::test]
async fn a_limit_that_was_raised_by_hand_lets_more_run() {
    let celeriac = kit::memory().await;
    celeriac.set_concurrency("overlap", "raised", Some(2)).await.unwrap();
    let gate = Gate::new();
    let mut calls = Vec::new();
    for _ in 0..3 {
        let call = one_at_a_time::s("raised".into(), gate.name.clone());
        calls.push(call.send(celeriac.client()).await.unwrap());
    }
    gate.entered(2).await;
    assert_eq!(celeriac.lane("overlap", "raised").await.unwrap().unwrap().holders.len(), 2);
    gate.open();
    for one in &calls {
        assert_eq!(one.get(LONG).await, Ok(1));
    }
    assert_eq!(gate.gauge.most(), 2);
    assert_eq!(status_of(&celeriac, "io").await.overlaps, 0);
    celeriac.shutdown().await.unwrap();
}
