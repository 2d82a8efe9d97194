//! What a status says, and how soon, when RabbitMQ is there, is new, and is away.

use std::time::{Duration, Instant};

use celeriac::{TaskError, task};

use crate::kit::{self, LONG, add, until};
use crate::rabbit::{builder, runtime, vhost};
use crate::services::{Proxy, RabbitMq, blocking};

/// Longer than a status may take, and far less than any patience of the broker's.
const SOON: Duration = Duration::from_secs(10);

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
    until("all are there", async || celeriac.queue("io").await.unwrap().dead_in_all == 3).await;
    let counted: Vec<_> = celeriac.queues().await.unwrap().into_iter().map(|q| (q.name, q.dead)).collect();
    let expected = [("io", 3), ("cpu", 0), ("one", 0), ("threads", 0), ("celery", 0)]
        .map(|(name, n)| (name.to_owned(), n));
    assert_eq!(counted, expected);
    let letter = celeriac.dead_letters(1).await.unwrap().remove(0);
    assert_eq!(celeriac.requeue_dead_letter(&letter.message.id).await, Ok(true));
    until("it is there again", async || celeriac.queue("io").await.unwrap().rejected == 4).await;
    until("it is counted once", async || celeriac.queue("io").await.unwrap().dead == 3).await;
    celeriac.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_is_there_at_once_while_rabbitmq_is_away() {
    let url = vhost().await;
    let proxy = blocking(|| Proxy::start(RabbitMq::shared().address())).await;
    let home = tempfile::tempdir().unwrap();
    let celeriac = builder(&proxy.url(&url)).outbox(home.path().join("outbox")).start().await.unwrap();
    assert!(celeriac.queues().await.unwrap().iter().all(|queue| !queue.away));
    let gate = kit::Gate::new();
    kit::hold::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    proxy.refuse();
    let mut slowest = Duration::ZERO;
    until("it says that it is away", async || {
        let asked = Instant::now();
        let queues = celeriac.queues().await.unwrap();
        assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
        queues.iter().all(|queue| queue.away)
    })
    .await;
    for _ in 0..5 {
        let asked = Instant::now();
        let queues = celeriac.queues().await.unwrap();
        slowest = slowest.max(asked.elapsed());
        assert_eq!((queues.len(), queues[0].running), (5, 1), "what is known here is told");
    }
    assert!(slowest < SOON, "{slowest:?}");
    proxy.resume();
    until("it is back", async || celeriac.queues().await.unwrap().iter().all(|queue| !queue.away)).await;
    gate.open();
    assert_eq!(add::s(1, 1).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(2));
    // Half open, nobody knows yet that it is away, and it does not answer.
    proxy.swallow();
    let asked = Instant::now();
    celeriac.queues().await.unwrap();
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    proxy.resume();
    celeriac.shutdown_within(Duration::from_secs(20)).await.unwrap();
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
            assert_eq!(celeriac.queues().await.unwrap().len(), 5);
        }
        assert_eq!(add::s(1, 1).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(2));
        celeriac.shutdown().await.unwrap();
    }
    let said = log.text();
    assert!(!said.contains("ERROR"), "{said}");
}
