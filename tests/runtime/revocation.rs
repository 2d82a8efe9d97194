//! Revoking a task wherever it is: waiting, scheduled, fetched, running.

use std::time::Duration;

use celeriac::task::Interrupt;
use celeriac::{Celeriac, Context, State, TaskError, task};

use crate::kit::{Gate, LONG, add, hold, note, notes, on_both, record, status_of, until_state, until_status};

#[tokio::test]
async fn what_has_not_started_never_does() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        let held = hold::s(gate.name.clone()).queue("one").send(celeriac.client()).await.unwrap();
        gate.entered(1).await;
        let send =
            async |call: celeriac::task::Signature<add::Task>| call.send(celeriac.client()).await.unwrap();
        let fetched = send(add::s(1, 1).queue("one")).await;
        until_state(fetched.id(), &celeriac, State::Received).await;
        let waiting = send(add::s(1, 1).queue("one")).await;
        let scheduled = send(add::s(1, 1).countdown(LONG)).await;
        for task in [&fetched, &waiting, &scheduled] {
            assert_eq!(task.revoke(false).await, Ok(true));
            let record = record(task).await;
            assert_eq!((record.state, record.attempts, record.started_at), (State::Revoked, 0, None));
            assert_eq!(record.errors, ["the task was revoked before it started"]);
            assert_eq!(task.revoke(true).await, Ok(false), "once is enough");
        }
        gate.open();
        assert_eq!(held.get(LONG).await, Ok(1));
        until_status(&celeriac, "one", |s| (s.running, s.ready, s.done) == (0, 0, 1)).await;
        assert_eq!(held.revoke(true).await, Ok(false), "it is over");
    })
    .await;
}

/// The answer comes when the end is kept, wherever the task waited.
#[tokio::test]
async fn who_looks_after_the_answer_sees_the_end() {
    on_both(|celeriac| async move {
        celeriac.pause("io").await.unwrap();
        let mut tasks = Vec::new();
        for n in 0..50 {
            let fetched = add::s(n, 1).queue("io").send(celeriac.client()).await.unwrap();
            until_state(fetched.id(), &celeriac, State::Received).await;
            tasks.push(fetched);
        }
        tasks.push(add::s(1, 1).queue("io").countdown(LONG).send(celeriac.client()).await.unwrap());
        for task in tasks {
            assert_eq!(task.revoke(false).await, Ok(true));
            assert_eq!(task.state().await, Ok(State::Revoked));
        }
        celeriac.resume("io").await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_running_body_on_the_event_loop_is_dropped() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        let held = hold::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
        gate.entered(1).await;
        assert_eq!(held.revoke(true).await, Ok(true));
        gate.left(1).await;
        let record = record(&held).await;
        assert_eq!((record.state, record.attempts), (State::Revoked, 1));
        assert_eq!(record.errors, ["the task was revoked while it ran"]);
        until_status(&celeriac, "io", |s| (s.revoked, s.running) == (1, 0)).await;
    })
    .await;
}

#[tokio::test]
async fn an_async_body_on_a_thread_is_dropped_where_it_waits() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        let held = hold::s(gate.name.clone()).queue("cpu").send(celeriac.client()).await.unwrap();
        gate.entered(1).await;
        assert_eq!(held.revoke(true).await, Ok(true));
        gate.left(1).await;
        assert_eq!(record(&held).await.state, State::Revoked);
        assert_eq!(status_of(&celeriac, "cpu").await.stuck, 0);
    })
    .await;
}

#[task(queue = "cpu")]
fn computes(ctx: &Context, gate: String) -> Result<(), TaskError> {
    let gate = Gate::named(&gate);
    let _inside = gate.gauge.enter();
    note(ctx.id(), "runs");
    loop {
        ctx.check()?;
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn a_computing_body_is_told_and_ends_itself() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        let computing = computes::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
        until_state(computing.id(), &celeriac, State::Started).await;
        assert_eq!(computing.revoke(true).await, Ok(true));
        assert_eq!(record(&computing).await.state, State::Revoked);
        assert_eq!(gate.gauge.now(), 0, "it had ended when it was said to be revoked");
        assert_eq!(status_of(&celeriac, "cpu").await.stuck, 0);
    })
    .await;
}

/// Ends as told, when its gate opens.
#[task(queue = "io", default_retry_delay = 0.01)]
async fn ends_when_let(ctx: &Context, gate: String, fail: bool) -> Result<u32, TaskError> {
    note(ctx.id(), "ran");
    Gate::named(&gate).pass().await;
    if fail { Err(TaskError::transient("again, please")) } else { Ok(7) }
}

async fn revoke_softly(celeriac: &Celeriac, fail: bool) -> (State, usize) {
    let gate = Gate::new();
    let running = ends_when_let::s(gate.name.clone(), fail).send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    assert_eq!(running.revoke(false).await, Ok(true));
    gate.open();
    (record(&running).await.state, notes(running.id()).len())
}

#[tokio::test]
async fn without_terminate_a_running_body_ends_by_itself_but_is_not_tried_again() {
    on_both(|celeriac| async move {
        assert_eq!(revoke_softly(&celeriac, false).await, (State::Success, 1));
        assert_eq!(revoke_softly(&celeriac, true).await, (State::Revoked, 1));
    })
    .await;
}

/// Goes on after its soft limit until it is dropped.
#[task(queue = "io", soft_time_limit = 0.001)]
async fn ignores_the_soft_limit(ctx: &Context, gate: String) {
    assert_eq!(ctx.interrupted().await, Interrupt::SoftTimeLimit);
    Gate::named(&gate).pass().await;
}

#[tokio::test]
async fn a_body_past_its_soft_limit_can_still_be_terminated() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        let deaf = ignores_the_soft_limit::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
        gate.entered(1).await;
        assert_eq!(deaf.revoke(true).await, Ok(true));
        gate.left(1).await;
        assert_eq!(record(&deaf).await.state, State::Revoked);
    })
    .await;
}

/// Fails at once, again and again.
#[task(queue = "io", max_retries = 1_000_000, default_retry_delay = 0.001, retry_backoff = false)]
async fn fails_forever() -> Result<(), TaskError> {
    Err(TaskError::transient("again"))
}

#[tokio::test]
async fn a_task_on_the_move_between_broker_and_queue_is_caught() {
    on_both(|celeriac| async move {
        for _ in 0..50 {
            let moving = fails_forever::s().send(celeriac.client()).await.unwrap();
            tokio::time::sleep(Duration::from_micros(1500)).await; // somewhere between two attempts
            assert_eq!(moving.revoke(true).await, Ok(true));
            assert_eq!(record(&moving).await.state, State::Revoked);
        }
    })
    .await;
}

#[task(queue = "io", acks_late = false)]
async fn acknowledged_early(gate: String) {
    Gate::named(&gate).pass().await;
}

#[tokio::test]
async fn a_task_that_left_the_broker_early_is_found_where_it_runs() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        let held = acknowledged_early::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
        gate.entered(1).await;
        assert_eq!(held.state().await, Ok(State::Started));
        assert_eq!(held.revoke(true).await, Ok(true));
        gate.left(1).await;
        assert_eq!(record(&held).await.state, State::Revoked);
    })
    .await;
}

#[task]
async fn fails_when_let(ctx: Context, gate: String) -> Result<(), TaskError> {
    note(ctx.id(), "ran");
    Gate::named(&gate).pass().await;
    Err(TaskError::permanent("it really failed"))
}

/// Only the revocation that tells it to end ends a run; a failure is one whoever did not want to see it.
#[tokio::test]
async fn without_terminate_a_real_failure_stays_one() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        let running = fails_when_let::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
        gate.entered(1).await;
        assert_eq!(running.revoke(false).await, Ok(true));
        gate.open();
        let record = record(&running).await;
        assert_eq!((record.state, record.errors), (State::Failure, vec!["it really failed".to_owned()]));
    })
    .await;
}
