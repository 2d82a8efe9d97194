//! Celeriac as its users have it: `delay().await` from many tasks; a queue of workers, each of which runs a task that does
//! nothing, and acknowledges late.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use celeriac::broker::amqp::{AmqpBroker, AmqpOptions};
use celeriac::broker::{Broker, QueueCounts};
use celeriac::catalogue::{Catalogue, Pool, QueueRow};
use celeriac::store::MemoryStore;
use celeriac::{Celeriac, task};
use tokio::sync::Notify;

use super::support::done::{Done, Watch};
use super::support::span;
use super::{AHEAD, ARGUMENT, Letter, PREFETCH, Place, Raw};

/// Tasks that run at a time.
const WORKERS: usize = 64;

static RUN: AtomicU64 = AtomicU64::new(0);
/// Told when so many have run.
static MARK: AtomicU64 = AtomicU64::new(u64::MAX);
static MARKED: Notify = Notify::const_new();

#[task(name = "bench.noop", ignore_result)]
async fn noop(payload: String) {
    let _ = payload;
    if RUN.fetch_add(1, Ordering::AcqRel) + 1 >= MARK.load(Ordering::Acquire) {
        MARKED.notify_one();
    }
}

/// Comes back when so many have run.
async fn ran(count: u64) {
    MARK.store(count, Ordering::Release);
    while RUN.load(Ordering::Acquire) < count {
        MARKED.notified().await;
    }
    MARK.store(u64::MAX, Ordering::Release);
}

/// A runtime.
pub struct Ours {
    celeriac: Celeriac,
    broker: Arc<dyn Broker>,
    queue: String,
    /// Whether its calls wait for RabbitMQ's confirm.
    confirm: bool,
}

impl Ours {
    async fn start(place: &Place, served: bool, events: bool) -> Self {
        let row = QueueRow::new(&*place.queue)
            .with_pool(Pool::Io)
            .with_workers(WORKERS)
            .with_prefetch(PREFETCH)
            .with_served(served);
        let options = AmqpOptions::default().queue_type(place.queue_type).with_task_events(events);
        let broker: Arc<dyn Broker> =
            Arc::new(AmqpBroker::connect(&place.rabbit.url(), options).await.expect("RabbitMQ is there"));
        let builder = Celeriac::builder()
            .catalogue(Catalogue::new().with_queue(row))
            .broker(Arc::clone(&broker), Arc::new(MemoryStore::default()))
            .result_backend(place.redis.url());
        RUN.store(0, Ordering::Release);
        let celeriac = builder.start().await.expect("the runtime starts");
        Self { celeriac, broker, queue: place.queue.clone(), confirm: true }
    }

    /// One that only sends.
    pub async fn sending(place: &Place) -> Self {
        Self::start(place, false, false).await
    }

    /// One that runs tasks too.
    pub async fn consuming(place: &Place) -> Self {
        Self::start(place, true, false).await
    }

    /// The same, whose calls wait for no confirm.
    pub fn without_confirms(self) -> Self {
        Self { confirm: false, ..self }
    }

    pub async fn shutdown(self) {
        self.celeriac.shutdown().await.expect("the runtime shuts down");
    }

    /// A message as we write it.
    pub async fn letter(place: &Place) -> Letter {
        Raw::open(place).await.close().await; // declares
        Raw::purge(place).await;
        let ours = Self::sending(place).await;
        noop::s("x".repeat(ARGUMENT)).queue(&*place.queue).delay().await.expect("accepted");
        ours.shutdown().await;
        Raw::take(place).await
    }

    /// Comes back when RabbitMQ has the acknowledgements of all that has run.
    async fn settled(&self) {
        while self.broker.counts(&self.queue).await.expect("the broker counts") != QueueCounts::default() {
            tokio::task::yield_now().await;
        }
    }

    async fn produce(&self, producers: usize) -> u64 {
        let start = Instant::now();
        let mut producing = Vec::new();
        for _ in 0..producers {
            let (payload, queue, confirm) = ("x".repeat(ARGUMENT), self.queue.clone(), self.confirm);
            producing.push(tokio::spawn(async move {
                let mut accepted = 0;
                while start.elapsed() < span() {
                    let call = noop::s(payload.clone()).queue(queue.as_str()).confirm(confirm);
                    let sent = call.delay().await;
                    drop(sent.expect("accepted"));
                    accepted += 1;
                }
                accepted
            }));
        }
        let mut total = 0;
        for producer in producing {
            total += producer.await.expect("a producer ends");
        }
        total
    }

    /// Publishes for a while.
    pub async fn publish(&self, producers: usize) -> Done {
        let watch = Watch::start();
        let accepted = self.produce(producers).await;
        watch.stop(accepted)
    }

    /// Runs so many that wait; over when RabbitMQ has the acknowledgements. With `events` it sends an event of each
    /// step, as Celery's worker with `-E`.
    pub async fn drain(place: &Place, count: u64, events: bool) -> Done {
        let ours = Self::start(place, true, events).await;
        ran(AHEAD).await;
        let (watch, ahead) = (Watch::start(), RUN.load(Ordering::Acquire));
        ran(count).await;
        ours.settled().await;
        let done = watch.stop(count - ahead);
        ours.shutdown().await;
        done
    }

    /// Publishes for a while, and runs all of it.
    pub async fn both(&self, producers: usize) -> Done {
        let watch = Watch::start();
        let accepted = self.produce(producers).await;
        ran(accepted).await;
        self.settled().await;
        let done = watch.stop(accepted);
        RUN.store(0, Ordering::Release);
        done
    }
}
