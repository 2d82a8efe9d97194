//! What RabbitMQ does not say, a queue sees: for how long it is blocked. And what is for ever is so here, too.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use celeriac::broker::amqp::AmqpOptions;
use celeriac::broker::{AmqpBroker, Broker, QueueCounts};
use celeriac::core::poll_schedule::Why;
use celeriac::task::source_poller::{Due, Source, SourcePoller};
use celeriac::{TaskError, task};
use lapin::options::QueuePurgeOptions;

use crate::kit::{Gate, LONG, add, hold, io_queue, record, status_of, until, until_status};
use crate::rabbit::{Peer, builder, task as python, vhost};
use crate::services::{Redis, blocking};

#[task(queue = "io", time_limit = 5)]
async fn limited() -> u32 {
    7
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_in_rabbitmq_counts() {
    let url = vhost().await;
    let celeriac = builder(&url).queue(io_queue("narrow", 1).with_prefetch(1)).start().await.unwrap();
    let gate = Gate::new();
    let held = hold::s(gate.name.clone()).queue("narrow").send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    assert_eq!(status_of(&celeriac, "narrow").await.blockage, Duration::ZERO, "nothing waits");
    let begun = Instant::now();
    let waiting = add::s(1, 1).queue("narrow").send(celeriac.client()).await.unwrap();
    // It is not delivered: the one delivery that the queue may have is the one that runs.
    let status =
        until_status(&celeriac, "narrow", |status| status.blockage > Duration::from_millis(200)).await;
    assert_eq!((status.ready, status.running), (1, 1));
    assert!(status.blockage <= begun.elapsed(), "{:?}: never more than it is", status.blockage);
    gate.open();
    assert_eq!(waiting.get(LONG).await, Ok(2));
    until("nothing waits any more", async || status_of(&celeriac, "narrow").await.blockage == Duration::ZERO)
        .await;
    drop(held);
    celeriac.shutdown().await.unwrap();
}

/// A source that has no rows, and counts how often it was asked.
#[derive(Clone, Default)]
pub struct NoRows(Arc<AtomicUsize>);

#[async_trait]
impl Source for NoRows {
    async fn due(&self, _limit: usize) -> Result<Vec<Due>, TaskError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(Vec::new())
    }
}

/// Nobody here serves the queue, and RabbitMQ does not say since when its message waits: the poller has seen it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poller_asks_for_nothing_while_the_queue_of_others_is_too_old() {
    let url = vhost().await;
    let rows = NoRows::default();
    let asked = || rows.0.load(Ordering::SeqCst);
    let poller = SourcePoller::new("rows", rows.clone())
        .queue("elsewhere")
        .interval(Duration::from_millis(5))
        .max_age(Duration::from_millis(40));
    let elsewhere = io_queue("elsewhere", 1).with_served(false);
    // The poller needs unique windows, which RabbitMQ alone does not keep.
    let redis = blocking(Redis::shared).await.url_of(10);
    let celeriac = builder(&url).result_backend(redis).queue(elsewhere).poller(poller).start().await.unwrap();
    let waits = async || celeriac.pollers().await.unwrap().remove(0).waits;
    until("it asks while the queue is empty", async || asked() > 2).await;
    add::s(1, 1).queue("elsewhere").send(celeriac.client()).await.unwrap();
    until("it waits for the queue", async || waits().await == Some(Why::Age)).await;
    let peer = Peer::connect(&url).await;
    let before = asked();
    for _ in 0..20 {
        celeriac.run_poller("rows").await.unwrap();
        assert_eq!(peer.ready("elsewhere").await, 1);
        assert_eq!((waits().await, asked()), (Some(Why::Age), before), "the source is not asked");
    }
    // Whoever serves the queue has taken the task.
    peer.channel.queue_purge("elsewhere".into(), QueuePurgeOptions::default()).await.unwrap();
    until("it asks again", async || asked() > before).await;
    assert_ne!(waits().await, Some(Why::Age));
    celeriac.shutdown().await.unwrap();
}

/// Every length of time that can be stated, at its longest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_for_ever() {
    let url = vhost().await;
    let options = AmqpOptions::default()
        .with_publish_timeout(Duration::MAX)
        .with_guard_after(Duration::MAX)
        .with_lease(Duration::MAX)
        .with_heartbeat(Duration::MAX);
    let celeriac = builder(&url).amqp_options(options).shutdown_grace(Duration::MAX).start().await.unwrap();
    let client = || celeriac.client();
    let ever = Duration::MAX;
    let call = limited::s().time_limit(ever).soft_time_limit(ever);
    let result = call.send(client()).await.unwrap();
    assert_eq!(record(&result).await.attempts, 1, "it is read again by who runs it, and runs once");
    let late = limited::s().countdown(ever).send(client()).await.unwrap();
    assert_eq!(record(&add::s(1, 2).send(client()).await.unwrap()).await.result.as_deref(), Some("3"));
    assert!(late.result().await.unwrap().is_none(), "it waits");
    assert!(celeriac.shutdown().await.unwrap().drained);
}

/// `AmqpBroker::refused` counts what is no task, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_is_counted() {
    let url = vhost().await;
    let broker = Arc::new(AmqpBroker::connect(&url, AmqpOptions::default()).await.unwrap());
    broker.declare("io").await.unwrap();
    let (arrived, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    let sink = Arc::new(move |deliveries| drop(arrived.send(deliveries)));
    let consumer = broker.consume("io", 10, sink).unwrap();
    assert_eq!(broker.refused(), 0);
    let peer = Peer::connect(&url).await;
    for id in ["a", "b"] {
        peer.send("io", python("t", id), b"[[1],{}]").await;
    }
    peer.send("io", python("t", "good"), b"[[1],{},{}]").await;
    let good = tokio::time::timeout(LONG, arrivals.recv()).await.unwrap().unwrap();
    assert_eq!(good[0].message().id.as_str(), "good");
    until("both are counted", async || broker.refused() == 2).await;
    until("both are kept", async || {
        broker.counts("io").await.unwrap() == QueueCounts { unsettled: 1, dead: 2, ..QueueCounts::default() }
    })
    .await;
    drop((good, consumer));
    broker.close().await.unwrap();
}
