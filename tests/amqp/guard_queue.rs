//! Tasks longer than RabbitMQ's consumer timeout, and what becomes of them when their process dies.

use std::time::{Duration, Instant};

use celeriac::broker::amqp::{AmqpOptions, QueueType};
use celeriac::{Context, State, task};

use crate::kit::{Gate, LONG, hold, note, notes, until};
use crate::rabbit::{builder, vhost};
use crate::services::{Proxy, RabbitMq, RabbitMqOptions, await_condition, blocking};

/// Whether RabbitMQ has closed a channel for a delivery that was not acknowledged.
fn lost_patience(node: &RabbitMq) -> bool {
    node.log().to_lowercase().contains("precondition_failed")
}

#[task(queue = "io")]
async fn takes(ctx: Context, milliseconds: u64) -> u64 {
    note(ctx.id(), "started");
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    milliseconds
}

/// A task that runs for twice the consumer timeout runs once, with classic and with quorum queues, and its neighbours too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_longer_than_the_consumer_timeout_runs_once() {
    const TIMEOUT: Duration = Duration::from_secs(10);
    let node = blocking(|| RabbitMqOptions::new().consumer_timeout(TIMEOUT).start()).await;
    let runs_once = async |queue_type: QueueType| {
        let name = queue_type.as_str();
        let made = node.clone();
        let url = blocking(move || made.vhost(name)).await;
        let options = AmqpOptions::default().queue_type(queue_type).with_guard_after(TIMEOUT / 4);
        let celeriac = builder(&url).amqp_options(options).start().await.unwrap();
        let takes_long = 2 * TIMEOUT.as_millis() as u64;
        let long = takes::s(takes_long).send(celeriac.client()).await.unwrap();
        let begun = Instant::now();
        while begun.elapsed() < TIMEOUT * 3 / 2 {
            assert_eq!(takes::s(1).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(1));
        }
        assert_eq!(long.get(LONG).await, Ok(takes_long));
        assert_eq!(notes(long.id()), ["started"]);
        assert!(!lost_patience(&node), "{}", node.log());
        celeriac.shutdown().await.unwrap();
    };
    tokio::join!(runs_once(QueueType::Classic), runs_once(QueueType::Quorum));
}

/// Without the guard queue the same task loses its channel: what is tested above can fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_is_lost_to_the_timeout_is_opened_again() {
    let node = blocking(|| RabbitMqOptions::new().consumer_timeout(Duration::from_secs(2)).start()).await;
    let celeriac = builder(&node.url()).start().await.unwrap();
    let gate = Gate::new();
    let held = hold::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
    let watched = node.clone();
    until("RabbitMQ has lost its patience", async || lost_patience(&watched)).await;
    // It came again, and was recognised: it still runs once.
    assert_eq!(takes::s(1).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(1));
    gate.open();
    assert_eq!(held.get(LONG).await, Ok(1));
    assert_eq!(gate.gauge.all(), 1);
    celeriac.shutdown().await.unwrap();
}

/// A process that is gone leaves what it kept to others, with the crash counted if it was a second one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_process_kept_runs_elsewhere() {
    let url = vhost().await;
    let proxy = blocking(|| Proxy::start(RabbitMq::shared().address())).await;
    let options = AmqpOptions::default().with_guard_after(Duration::from_millis(200));
    let dying = builder(&proxy.url(&url)).amqp_options(options.clone()).start().await.unwrap();
    let gate = Gate::new();
    let held = hold::s(gate.name.clone()).send(dying.client()).await.unwrap();
    gate.entered(1).await;
    let name = url.rsplit_once('/').unwrap().1.to_owned();
    blocking(move || {
        await_condition("it is in the guard queue", || {
            let queues = RabbitMq::shared().ctl(&[
                "list_queues",
                "-p",
                &name,
                "name",
                "messages",
                "--no-table-headers",
            ]);
            let kept =
                queues.lines().any(|line| line.starts_with("celeriac.running.") && line.ends_with("\t1"));
            let moved = queues.lines().any(|line| line == "io\t0");
            if kept && moved { Ok(()) } else { Err(queues) }
        });
    })
    .await;
    proxy.refuse();
    proxy.cut();
    let heir = builder(&url).amqp_options(options).start().await.unwrap();
    gate.entered(2).await;
    gate.open();
    let ended = tokio::time::timeout(LONG, heir.client().wait(held.id())).await.unwrap().unwrap();
    assert_eq!(ended.state, State::Success);
    heir.shutdown().await.unwrap();
    let _ = dying.shutdown_within(Duration::ZERO).await;
}
