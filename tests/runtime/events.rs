//! What a program hears of its tasks through the stream of events.

use celeriac::task::canvas::chord;
use celeriac::task::{EventKind, EventStream, TaskEvent};
use celeriac::{Celeriac, Context, TaskError, TaskId, task};
use futures_util::StreamExt;

use crate::kit::{Gate, LONG, add, builder, hold, memory, on_both, record};

#[task(queue = "io", max_retries = 1, default_retry_delay = 0.01)]
async fn fails_in_the_end() -> Result<(), TaskError> {
    Err(TaskError::failure(["bad"]).with_python_type("builtins", "ValueError"))
}

#[task(queue = "io")]
async fn rejects_itself() -> Result<(), TaskError> {
    Err(TaskError::reject("no"))
}

#[task(queue = "io")]
async fn wants_another_worker() -> Result<(), TaskError> {
    Err(TaskError::reject_and_requeue("not here"))
}

#[task(queue = "io")]
async fn tells_more(ctx: Context) -> Result<(), TaskError> {
    ctx.send_event("task-progress", serde_json::json!({"done": 1}))?;
    Ok(())
}

#[task(queue = "io", send_events = false)]
async fn mute(ctx: Context) -> Result<(), TaskError> {
    ctx.send_event("task-mark", ())?;
    Ok(())
}

async fn next(events: &mut EventStream) -> TaskEvent {
    tokio::time::timeout(LONG, events.next()).await.expect("an event").expect("the runtime is up")
}

/// The next event that is not of a call.
async fn but_sent(events: &mut EventStream) -> TaskEvent {
    loop {
        let event = next(events).await;
        if event.kind != EventKind::Sent {
            return event;
        }
    }
}

/// The types of the next events of one task, up to one of this type. That it was sent is left out: the call goes on
/// beside the run, and may be the slower of the two.
async fn up_to(events: &mut EventStream, id: &TaskId, last: &str) -> Vec<String> {
    let mut names = Vec::new();
    while names.last().is_none_or(|name| name != last) {
        let event = but_sent(events).await;
        if event.id() == id {
            names.push(event.kind.name().trim_start_matches("task-").to_owned());
        }
        assert!(names.len() < 50, "{last} never came: {names:?}");
    }
    names
}

#[tokio::test]
async fn all_that_happens_to_a_task_is_told_in_order() {
    on_both(|celeriac| async move {
        let client = || celeriac.client();
        let mut events = celeriac.events();
        let sum = add::s(2, 3).send(client()).await.unwrap();
        assert_eq!(up_to(&mut events, sum.id(), "succeeded").await, ["received", "started", "succeeded"]);
        let failing = fails_in_the_end::s().send(client()).await.unwrap();
        let told = up_to(&mut events, failing.id(), "failed").await;
        assert_eq!(told, ["received", "started", "retried", "received", "started", "failed"]);
        let rejected = rejects_itself::s().send(client()).await.unwrap();
        let told = up_to(&mut events, rejected.id(), "rejected").await;
        assert_eq!(told, ["received", "started", "failed", "rejected"]);
        let put_back = wants_another_worker::s().send(client()).await.unwrap();
        let told = up_to(&mut events, put_back.id(), "rejected").await;
        assert_eq!(told, ["received", "started", "rejected"]);
        assert_eq!(put_back.revoke(false).await, Ok(true));
        let telling = tells_more::s().send(client()).await.unwrap();
        let told = up_to(&mut events, telling.id(), "succeeded").await;
        assert_eq!(told, ["received", "started", "progress", "succeeded"]);
        let gate = Gate::new();
        let running = hold::s(gate.name.clone()).send(client()).await.unwrap();
        gate.entered(1).await;
        assert_eq!(running.revoke(true).await, Ok(true));
        let told = up_to(&mut events, running.id(), "revoked").await;
        assert_eq!(told, ["received", "started", "revoked"]);
        assert_eq!(events.missed(), 0);
    })
    .await;
}

#[tokio::test]
async fn an_event_says_what_came_of_it() {
    on_both(|celeriac| async move {
        let mut events = celeriac.events();
        let sum = add::s(2, 3).send(celeriac.client()).await.unwrap();
        let record = record(&sum).await;
        let received = but_sent(&mut events).await;
        assert_eq!(received.kind, EventKind::Received);
        assert_eq!((received.id(), received.task()), (sum.id(), record.task.as_str()));
        assert_eq!(received.message().map(|message| message.queue.as_str()), Some("io"));
        let EventKind::Started { worker } = but_sent(&mut events).await.kind else { panic!("it starts") };
        assert_eq!(Some(&*worker), record.worker.as_deref());
        let ended = but_sent(&mut events).await;
        let runtime = record.finished_at.since(record.started_at.unwrap());
        assert_eq!(ended.kind, EventKind::Succeeded { result: "5".into(), runtime });
        assert!(ended.at >= record.finished_at && ended.at >= received.at);
        let failing = fails_in_the_end::s().send(celeriac.client()).await.unwrap();
        let retried = loop {
            let event = next(&mut events).await;
            if let EventKind::Retried { exception, .. } = event.kind {
                break exception;
            }
        };
        assert_eq!(&*retried, "ValueError('bad')");
        up_to(&mut events, failing.id(), "failed").await;
    })
    .await;
}

/// What waits for its time is taken out where it waits, and that is told as well.
#[tokio::test]
async fn a_task_that_is_revoked_while_it_waits_was_never_received() {
    on_both(|celeriac| async move {
        let mut events = celeriac.events();
        let later = add::s(1, 1).countdown(10 * LONG).send(celeriac.client()).await.unwrap();
        assert_eq!(later.revoke(false).await, Ok(true));
        assert_eq!(up_to(&mut events, later.id(), "revoked").await, ["revoked"]);
    })
    .await;
}

#[task(queue = "io")]
async fn total(numbers: Vec<i64>) -> i64 {
    numbers.iter().sum()
}

/// The types of the events of one task, up to its success.
async fn of_one(events: &mut EventStream, id: &TaskId) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    while names.last().is_none_or(|name| name != "task-succeeded") {
        let event = next(events).await;
        if event.id() == id {
            names.push(event.kind.name().to_owned());
        }
    }
    names
}

/// As in Celery, what a worker sends in its turn is a call as well, and here it is always told before it is received.
#[tokio::test]
async fn what_follows_from_a_task_is_told_to_be_sent() {
    on_both(|celeriac| async move {
        let expected = ["task-sent", "task-received", "task-started", "task-succeeded"];
        let mut events = celeriac.events();
        let step = add::s(1, 1).then(add::p(3)).send(celeriac.client()).await.unwrap();
        assert_eq!(of_one(&mut events, step.id()).await, expected, "the next step of a chain");
        let body = chord([add::s(1, 1), add::s(2, 2)], total::p());
        let body = body.send(celeriac.client()).await.unwrap();
        assert_eq!(of_one(&mut events, body.id()).await, expected, "the body of a chord");
        let failing = fails_in_the_end::s().send(celeriac.client()).await.unwrap();
        let mut sent = 0;
        loop {
            let event = next(&mut events).await;
            let is_again = event.message().is_some_and(|message| message.retries == 1);
            match event.kind {
                EventKind::Sent if event.id() == failing.id() && is_again => sent += 1,
                EventKind::Retried { .. } => break,
                _ => {}
            }
        }
        assert_eq!(sent, 1, "a retry");
        record(&failing).await;
    })
    .await;
}

#[tokio::test]
async fn a_muted_task_tells_only_what_its_body_sends() {
    on_both(|celeriac| async move {
        let mut events = celeriac.events();
        let muted = mute::s().send(celeriac.client()).await.unwrap();
        record(&muted).await;
        let sum = add::s(1, 1).send(celeriac.client()).await.unwrap();
        let mut told = Vec::new();
        loop {
            let event = next(&mut events).await;
            if event.id() == muted.id() {
                told.push(event.kind.name().to_owned());
            } else if matches!(event.kind, EventKind::Succeeded { .. }) {
                break;
            }
        }
        told.sort();
        assert_eq!(told, ["task-mark", "task-sent"]);
        record(&sum).await;
    })
    .await;
}

/// The stream is a `Stream` as well, and ends with the runtime after all that happened.
#[tokio::test]
async fn the_stream_ends_when_the_runtime_has_shut_down() {
    let celeriac = memory().await;
    let events = celeriac.events();
    let gate = Gate::new();
    let held = hold::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    celeriac.shutdown_within(std::time::Duration::ZERO).await.unwrap();
    let all: Vec<TaskEvent> = tokio::time::timeout(LONG, events.collect()).await.expect("it ends");
    let of_it: Vec<_> = all.iter().filter(|event| event.id() == held.id()).map(|e| e.kind.name()).collect();
    let run: Vec<_> = of_it.iter().filter(|kind| **kind != "task-sent").copied().collect();
    assert_eq!(run, ["task-received", "task-started", "task-cancelled"]);
    assert_eq!(of_it.len(), run.len() + 1, "it was sent");
    assert!(Celeriac::events(&celeriac).next().await.is_none(), "nothing happens any more");
}

/// Who does not read loses the oldest, and holds up nobody.
#[tokio::test]
async fn a_listener_that_does_not_read_loses_events_and_learns_how_many() {
    const TASKS: usize = 1500;
    let celeriac = builder().in_memory().start().await.unwrap();
    let mut events = celeriac.events();
    let mut last = None;
    for n in 0..TASKS {
        last = Some(add::s(i64::try_from(n).unwrap(), 1).send(celeriac.client()).await.unwrap());
    }
    record(&last.unwrap()).await;
    celeriac.shutdown().await.unwrap();
    let mut told = 0;
    while events.next().await.is_some() {
        told += 1;
    }
    let missed = usize::try_from(events.missed()).unwrap();
    assert_eq!((told + missed, told), (4 * TASKS, 4096), "{missed} were missed");
}
