//! A queue that is deleted while tasks of it run: they go on, and so does what follows from them.

use std::time::Duration;

use celeriac::task::Task as _;
use celeriac::{Context, TaskError, TaskId, task};
use lapin::options::{BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;

use crate::kit::{Gate, LONG, add, until};
use crate::rabbit::{Peer, consumers, runtime, task as python, vhost};
use crate::services::{Proxy, RabbitMq, blocking};

/// Fails in its first attempt, behind a gate.
#[task(queue = "one", max_retries = 3)]
async fn fails_behind_the_gate(ctx: Context, gate: String) -> Result<u32, TaskError> {
    if ctx.attempt() == 1 {
        Gate::named(&gate).pass().await;
        return Err(TaskError::retry_in(Duration::from_millis(20), "not yet"));
    }
    Ok(ctx.attempt())
}

/// What happens between the deletion and the moment in which the worker looks for its queue.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Meanwhile {
    /// Its consumer is cancelled.
    Nothing,
    /// Its consumer is cancelled, and it hears of that when somebody has made the queue anew.
    MadeAnew,
    /// It has lost its connection, and hears nothing.
    Away,
}

/// With one task that runs and one in hand, whose messages go with the queue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_delivered_goes_on_and_so_does_its_retry() {
    for meanwhile in [Meanwhile::Nothing, Meanwhile::MadeAnew, Meanwhile::Away] {
        let url = vhost().await;
        let proxy = blocking(|| Proxy::start(RabbitMq::shared().address())).await;
        let celeriac = runtime(&proxy.url(&url)).await;
        let client = || celeriac.client();
        let peer = Peer::connect(&url).await;
        let gate = Gate::new();
        let runs = fails_behind_the_gate::s(gate.name.clone()).send(client()).await.unwrap();
        gate.entered(1).await;
        let in_hand = add::s(1, 1).queue("one").send(client()).await.unwrap();
        until("it is in hand", async || peer.ready("one").await == 0).await;
        match meanwhile {
            Meanwhile::Nothing => {}
            Meanwhile::MadeAnew => proxy.swallow(),
            Meanwhile::Away => proxy.refuse(),
        }
        peer.channel.queue_delete("one".into(), QueueDeleteOptions::default()).await.unwrap();
        if meanwhile == Meanwhile::MadeAnew {
            let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            peer.channel.queue_declare("one".into(), durable, FieldTable::default()).await.unwrap();
        }
        proxy.resume();
        until("the worker has a queue again", async || consumers(&url, "one").await == Some(1)).await;
        gate.open();
        assert_eq!(runs.get(LONG).await, Ok(2), "{meanwhile:?}");
        assert_eq!(in_hand.get(LONG).await, Ok(2), "{meanwhile:?}");
        assert_eq!(gate.gauge.all(), 1, "{meanwhile:?}: no attempt has run twice");
        celeriac.shutdown().await.unwrap();
    }
}

/// A task that waits for its time finds the queue that was made anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_made_anew_is_bound_to_the_end_of_the_delays() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let hour = Duration::from_secs(3600);
    add::s(0, 0).queue("one").countdown(hour).send(celeriac.client()).await.unwrap();
    let peer = Peer::connect(&url).await;
    peer.channel.queue_delete("one".into(), QueueDeleteOptions::default()).await.unwrap();
    // As it comes out of the delays: a digit for each level, and the queue.
    let key = format!("{}one", "0.".repeat(28));
    until("it is bound", async || {
        let (exchange, mandatory) =
            ("celery_delayed_delivery", BasicPublishOptions { mandatory: true, immediate: false });
        let properties = python(add::Task::NAME, "came-out-of-the-delays");
        let body = b"[[20, 22], {}, {}]";
        let sent =
            peer.channel.basic_publish(exchange.into(), key.as_str().into(), mandatory, body, properties);
        sent.await.unwrap().await.unwrap().take_message().is_none()
    })
    .await;
    let id = TaskId::from("came-out-of-the-delays");
    let record = tokio::time::timeout(LONG, celeriac.client().wait(&id)).await.unwrap().unwrap();
    assert_eq!(record.result.as_deref(), Some("42"));
    celeriac.shutdown().await.unwrap();
}
