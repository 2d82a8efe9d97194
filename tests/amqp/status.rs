//! What a status says, and how soon, when RabbitMQ is there, is new, and is away.

use std::time::{Duration, Instant};

use celeriac::actors::QueueStatus;
use celeriac::task::source_poller::SourcePoller;
use celeriac::{Builder, Celeriac, TaskError, task};

use crate::blockage::NoRows;
use crate::kit::{self, LONG, add, status_of, until};
use crate::rabbit::{builder, runtime, vhost};
use crate::services::{Proxy, RabbitMq, Redis, blocking};

/// Longer than a status may take on a slow machine, RabbitMQ having two seconds to answer, and less than whoever publishes waits.
const SOON: Duration = Duration::from_secs(20);

#[task(queue = "io")]
async fn refuses() -> Result<(), TaskError> {
    Err(TaskError::reject("not today"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_counted_for_their_own_queue() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    for _ in 0..3 {
        refuses::s().send(celeriac.client()).await.unwrap();
    }
    until("all are there", async || status_of(&celeriac, "io").await.dead_in_all == 3).await;
    for (name, dead) in [("io", 3), ("cpu", 0), ("one", 0), ("threads", 0), ("celery", 0)] {
        assert_eq!(status_of(&celeriac, name).await.dead, dead, "{name}");
    }
    let letter = celeriac.dead_letters(1).await.unwrap().remove(0);
    assert_eq!(celeriac.requeue_dead_letter(&letter.message.id).await, Ok(true));
    until("it is there again", async || status_of(&celeriac, "io").await.rejected == 4).await;
    until("it is counted once", async || status_of(&celeriac, "io").await.dead == 3).await;
    celeriac.shutdown().await.unwrap();
}

/// Waits for a status, which has to be there soon.
async fn soon<T>(what: &str, status: impl Future<Output = T>) -> T {
    let asked = Instant::now();
    let told = status.await;
    assert!(asked.elapsed() < SOON, "{what}: {:?}", asked.elapsed());
    told
}

/// All that says how things are; each of it is there soon, and complete. Returns the statuses of the queues.
async fn statuses(celeriac: &Celeriac) -> Vec<QueueStatus> {
    let queues = loop {
        let queues = soon("queues", celeriac.queues()).await.unwrap();
        // Else an event loop had no time to answer, and is asked again.
        if queues.missing.is_empty() {
            break queues;
        }
    };
    assert_eq!(queues.len(), 5, "{queues:?}");
    let one = match soon("queue", celeriac.queue("io")).await {
        Ok(one) => one,
        Err(_) => status_of(celeriac, "io").await,
    };
    assert_eq!((one.name.as_str(), one.running), ("io", queues[0].running));
    let pollers = soon("pollers", celeriac.pollers()).await.unwrap();
    assert_eq!((pollers.len(), pollers[0].name.as_str(), pollers[0].leads), (1, "rows", true));
    let lanes = soon("lanes", celeriac.lanes(10)).await.unwrap();
    assert_eq!((lanes.len(), lanes.missing.len()), (0, 0), "nothing here is serial");
    queues.replies
}

/// RabbitMQ is away, and back, and half open.
async fn statuses_are_there_soon(database: u8, way: impl FnOnce(Builder) -> Builder) {
    let url = vhost().await;
    let proxy = blocking(|| Proxy::start(RabbitMq::shared().address())).await;
    // It looks at its queue again and again.
    let poller = SourcePoller::new("rows", NoRows::default()).queue("io").interval(Duration::from_millis(50));
    // The poller needs unique windows, which RabbitMQ alone does not keep.
    let redis = blocking(Redis::shared).await.url_of(database);
    let builder = builder(&proxy.url(&url)).result_backend(redis).poller(poller.max_age(Duration::MAX));
    let celeriac = way(builder).start().await.unwrap();
    until("it leads", async || celeriac.pollers().await.unwrap()[0].leads).await;
    assert!(statuses(&celeriac).await.iter().all(|queue| !queue.away));
    let gate = kit::Gate::new();
    kit::hold::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    proxy.refuse();
    until("it says that it is away", async || statuses(&celeriac).await.iter().all(|queue| queue.away)).await;
    for _ in 0..5 {
        assert_eq!(statuses(&celeriac).await[0].running, 1, "what is known here is told");
    }
    proxy.resume();
    until("it is back", async || celeriac.queues().await.unwrap().iter().all(|queue| !queue.away)).await;
    gate.open();
    assert_eq!(add::s(1, 1).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(2));
    // Half open, nobody knows yet that it is away, and it does not answer.
    proxy.swallow();
    statuses(&celeriac).await;
    proxy.resume();
    celeriac.shutdown_within(Duration::from_secs(20)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_is_there_soon_while_rabbitmq_is_away() {
    statuses_are_there_soon(11, |builder| builder).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_is_there_soon_while_rabbitmq_is_away_and_the_outbox_takes_its_place() {
    let home = tempfile::tempdir().unwrap();
    statuses_are_there_soon(12, |builder| builder.outbox(home.path().join("outbox"))).await;
}

/// What a program's log gets.
#[test]
fn a_first_start_logs_no_error() {
    kit::alone("status::first_starts_in_a_process_of_their_own");
}

/// A first start, a status, a second start: the log has nothing of a channel that RabbitMQ has closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a subscriber for all threads; run by `a_first_start_logs_no_error`"]
async fn first_starts_in_a_process_of_their_own() {
    let log = kit::Log::capture(tracing::Level::WARN);
    let url = vhost().await;
    for _ in 0..2 {
        let celeriac = runtime(&url).await;
        for _ in 0..3 {
            let queues = celeriac.queues().await.unwrap();
            assert_eq!(queues.len() + queues.missing.len(), 5);
        }
        assert_eq!(add::s(1, 1).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(2));
        celeriac.shutdown().await.unwrap();
    }
    let said = log.text();
    assert!(!said.contains("ERROR"), "{said}");
}
