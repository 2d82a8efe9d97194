//! Delays: kept by RabbitMQ, whoever asks for them.

use std::time::Duration;

use celeriac::task::Task;
use celeriac::{Context, State, TaskError, TaskId, task};

use crate::kit::{Gate, LONG, add, hold, io_queue};
use crate::rabbit::{Peer, builder, runtime, text, vhost, with};

#[task(queue = "one", max_retries = 3)]
async fn second_try(ctx: Context) -> Result<u32, TaskError> {
    if ctx.attempt() == 1 {
        return Err(TaskError::retry_in(Duration::from_millis(1200), "not yet"));
    }
    Ok(ctx.attempt())
}

/// Wants another worker, unless it was delivered before.
#[task(queue = "one")]
async fn wants_another_worker(ctx: Context) -> Result<u32, TaskError> {
    if ctx.is_redelivered() { Ok(ctx.attempt()) } else { Err(TaskError::reject_and_requeue("not here")) }
}

/// Celery's `Reject(requeue=True)`: RabbitMQ keeps it for a moment, and it comes as redelivered, in its first attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_put_back_is_redelivered_in_its_first_attempt() {
    let celeriac = runtime(&vhost().await).await;
    let put_back = wants_another_worker::s().send(celeriac.client()).await.unwrap();
    assert_eq!(put_back.get(LONG).await, Ok(1));
    celeriac.shutdown().await.unwrap();
}

/// What is not due keeps nobody from starting: the queue holds two at most, and ten wait for their time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_due_takes_no_place() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let client = || celeriac.client();
    let begun = std::time::Instant::now();
    let mut later = Vec::new();
    for n in 0..10 {
        later.push(add::s(n, 1).queue("one").countdown(Duration::from_secs(3)).send(client()).await.unwrap());
    }
    let far = add::s(0, 0).queue("one").countdown(Duration::from_secs(3600)).send(client()).await.unwrap();
    let retried = second_try::s().send(client()).await.unwrap();
    assert_eq!(add::s(1, 1).queue("one").send(client()).await.unwrap().get(LONG).await, Ok(2));
    assert_eq!(retried.get(LONG).await, Ok(2));
    for (n, task) in later.iter().enumerate() {
        assert_eq!(task.get(LONG).await, Ok(n as i64 + 1));
    }
    assert!(begun.elapsed() >= Duration::from_secs(3), "none came before its time");
    assert_eq!(far.state().await, Ok(State::Pending));
    celeriac.shutdown().await.unwrap();
}

/// A delayed task comes to its own queue, and not to one whose name is the end of that one's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delayed_task_comes_to_one_queue() {
    let celeriac = builder(&vhost().await).queue(io_queue("orders.one", 1)).start().await.unwrap();
    let gate = Gate::new();
    gate.open();
    let delayed = |queue: &str| {
        let call = hold::s(gate.name.clone()).queue(queue).countdown(Duration::from_millis(1100));
        call.send(celeriac.client())
    };
    let own = delayed("one").await.unwrap();
    let other = delayed("orders.one").await.unwrap();
    assert_eq!((own.get(LONG).await, other.get(LONG).await), (Ok(1), Ok(1)));
    // A second copy would have been before this one in the queue.
    assert_eq!(add::s(1, 1).queue("one").send(celeriac.client()).await.unwrap().get(LONG).await, Ok(2));
    assert_eq!(gate.gauge.all(), 2);
    celeriac.shutdown().await.unwrap();
}

/// What a Python client sends straight to the queue with an ETA goes back to RabbitMQ until then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_early_is_parked() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let peer = Peer::connect(&url).await;
    let body = br#"[[2,3],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]"#;
    let eta = chrono::Utc::now() + chrono::Duration::milliseconds(2500);
    for n in 0..5 {
        let id = format!("early-{n}");
        let headers = [("task", text(add::Task::NAME)), ("id", text(&id)), ("eta", text(&eta.to_rfc3339()))];
        peer.send("one", with(&headers), body).await;
    }
    // Five of them are more than the queue may hold, and yet one that is due gets through.
    assert_eq!(add::s(1, 1).queue("one").send(celeriac.client()).await.unwrap().get(LONG).await, Ok(2));
    for n in 0..5 {
        let id = TaskId::from(format!("early-{n}"));
        let record = tokio::time::timeout(LONG, celeriac.client().wait(&id)).await.unwrap().unwrap();
        assert_eq!(record.result.as_deref(), Some("5"));
        assert!(
            record.started_at.unwrap().to_system_time() >= std::time::SystemTime::from(eta),
            "not before its time"
        );
    }
    celeriac.shutdown().await.unwrap();
}

/// Delays of two processes go through the same queues; another runtime finds them as they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delays_outlive_who_asked_for_them() {
    let url = vhost().await;
    let first = runtime(&url).await;
    let gate = Gate::new();
    gate.open();
    let held =
        hold::s(gate.name.clone()).countdown(Duration::from_secs(2)).send(first.client()).await.unwrap();
    first.shutdown().await.unwrap();
    let second = runtime(&url).await;
    let record = tokio::time::timeout(LONG, second.client().wait(held.id())).await.unwrap().unwrap();
    assert_eq!(record.state, State::Success);
    second.shutdown().await.unwrap();
}
