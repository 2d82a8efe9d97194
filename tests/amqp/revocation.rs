//! Revoking what waits where nobody can take it out.

use std::time::Duration;

use celeriac::task::GetError;
use celeriac::{Context, State, TaskId, task};

use crate::kit::{Gate, LONG, add, hold, note, notes, record, until};
use crate::rabbit::{runtime, vhost};

#[task(queue = "one")]
async fn noted(ctx: Context) -> u32 {
    note(ctx.id(), "ran");
    ctx.attempt()
}

/// One that waits in RabbitMQ is not started when its turn comes; one that runs is ended; an unknown one is pending.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_revoked_does_not_start() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let client = || celeriac.client();
    let gate = Gate::new();
    let held = hold::s(gate.name.clone()).queue("one").send(client()).await.unwrap();
    gate.entered(1).await;
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.push(noted::s().send(client()).await.unwrap());
    }
    for task in &waiting {
        let state = task.state().await.unwrap();
        assert!(matches!(state, State::Pending | State::Received), "{state}");
        assert_eq!(task.revoke(false).await, Ok(true));
    }
    gate.open();
    assert_eq!(held.get(LONG).await, Ok(1));
    for task in &waiting {
        assert_eq!(record(task).await.state, State::Revoked);
        assert!(notes(task.id()).is_empty(), "it has run");
    }
    let gate = Gate::new();
    let held = hold::s(gate.name.clone()).send(client()).await.unwrap();
    gate.entered(1).await;
    assert_eq!(held.revoke(true).await, Ok(true));
    gate.left(1).await;
    assert_eq!(record(&held).await.state, State::Revoked);
    // Nobody can say that it does not wait somewhere.
    assert_eq!(client().state(&TaskId::from("nobody knows it")).await, Ok(State::Pending));
    celeriac.shutdown().await.unwrap();
}

/// A worker in another process hears of it: the broadcast is Celery's own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_is_heard_by_other_processes() {
    let url = vhost().await;
    let [here, there] = [runtime(&url).await, runtime(&url).await];
    let gate = Gate::new();
    let held = hold::s(gate.name.clone()).send(here.client()).await.unwrap();
    gate.entered(1).await;
    // One of the two runs it, and both can end it, whichever that is.
    assert_eq!(there.client().revoke(held.id(), true).await, Ok(true));
    gate.left(1).await;
    let is_revoked = async |celeriac: &celeriac::Celeriac| {
        let result: Result<_, GetError> = celeriac.client().result(held.id()).await;
        result.unwrap().is_some_and(|record| record.state == State::Revoked)
    };
    until("its record is there", async || is_revoked(&here).await || is_revoked(&there).await).await;
    for celeriac in [here, there] {
        let sum = add::s(1, 1).send(celeriac.client()).await.unwrap();
        let _ = tokio::time::timeout(Duration::from_millis(1), sum.get(LONG)).await;
        celeriac.shutdown().await.unwrap();
    }
}

/// A worker begins to hear of revocations when it starts: it knows those from before all the same, and those of its own
/// process at once.
#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_revoked_before_and_after_a_worker_has_started_does_not_start() {
    let url = vhost().await;
    let redis = crate::services::blocking(crate::services::Redis::shared).await.url_of(11);
    let program = async |served: bool| {
        let row = crate::kit::io_queue("one", 1).with_prefetch(2).with_served(served);
        let other = crate::kit::io_queue("io", 1).with_served(served);
        let builder = celeriac::Celeriac::builder().queue(row).queue(other);
        let builder = builder.amqp(crate::rabbit::steady(&url)).result_backend(redis.clone());
        builder.start().await.unwrap()
    };
    let sender = program(false).await;
    let send = async || noted::s().send(sender.client()).await.unwrap();
    let (before, kept) = (send().await, send().await);
    assert_eq!(before.revoke(false).await, Ok(true));
    let worker = program(true).await;
    assert_eq!(record(&before).await.state, State::Revoked);
    assert_eq!(kept.get(LONG).await, Ok(1));
    let gate = Gate::new();
    let held = hold::s(gate.name.clone()).queue("one").send(worker.client()).await.unwrap();
    gate.entered(1).await;
    let mut after = Vec::new();
    for _ in 0..5 {
        after.push(send().await);
    }
    for task in &after {
        assert_eq!(worker.client().revoke(task.id(), false).await, Ok(true));
    }
    gate.open();
    assert_eq!(held.get(LONG).await, Ok(1));
    for task in std::iter::once(&before).chain(&after) {
        assert_eq!(record(task).await.state, State::Revoked);
        assert!(notes(task.id()).is_empty(), "it has run");
    }
    for celeriac in [sender, worker] {
        celeriac.shutdown().await.unwrap();
    }
}
