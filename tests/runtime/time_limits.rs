//! Soft limits tell a body to end; hard limits give its slot back, whatever the body does.

use std::time::Duration;

use celeriac::task::Interrupt;
use celeriac::{Context, State, TaskError, task};

use crate::kit::{
    Gate, LONG, add, add_cpu, hold, hold_cpu, note, notes, on_both, record, status_of, until_status,
};

const SHORT: Duration = Duration::from_millis(30);
/// Of bodies on a thread, which the machine has to give time to before they begin.
const ON_THREAD: Duration = Duration::from_secs(2);

#[task(queue = "io", soft_time_limit = 0.01, autoretry = false)]
async fn waits_for_its_limit(ctx: &Context) -> Result<(), TaskError> {
    Err(ctx.interrupted().await.into())
}

#[task(queue = "cpu", soft_time_limit = 0.01, autoretry = false)]
fn asks_for_its_limit(ctx: &Context) -> Result<(), TaskError> {
    loop {
        ctx.check()?;
        std::thread::yield_now();
    }
}

/// An application's own error with the interrupt in it.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("the import ended early")]
    Interrupted(#[from] Interrupt),
}

#[task(queue = "cpu", soft_time_limit = 0.01, max_retries = 1, default_retry_delay = 0.01)]
fn wraps_its_limit(ctx: &Context) -> Result<(), ImportError> {
    note(ctx.id(), "ran");
    loop {
        ctx.check()?;
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn the_soft_limit_is_an_error_of_its_own() {
    on_both(|celeriac| async move {
        let client = celeriac.client();
        let waited = waits_for_its_limit::s().send(client.clone()).await.unwrap();
        let asked = asks_for_its_limit::s().send(client.clone()).await.unwrap();
        let wrapped = wraps_its_limit::s().send(client).await.unwrap();
        for record in [record(&waited).await, record(&asked).await, record(&wrapped).await] {
            assert_eq!(record.state, State::Failure, "{}", record.task);
            assert_eq!(record.error_type.as_deref(), Some("SoftTimeLimitExceeded"), "{}", record.task);
            assert_eq!(record.errors, ["SoftTimeLimitExceeded: the soft time limit of the task passed"]);
        }
        assert_eq!(notes(wrapped.id()).len(), 2, "it is retried as any error");
    })
    .await;
}

#[task(queue = "io", soft_time_limit = 0.01)]
async fn tidies_up_at_its_limit(ctx: &Context) -> String {
    format!("stopped by {:?}", ctx.interrupted().await)
}

#[tokio::test]
async fn a_body_may_make_the_best_of_its_soft_limit() {
    on_both(|celeriac| async move {
        let tidy = tidies_up_at_its_limit::s().send(celeriac.client()).await.unwrap();
        assert_eq!(
            tidy.get(LONG).await.as_deref(),
            Ok("stopped by SoftTimeLimitExceeded: the soft time limit of the task passed")
        );
    })
    .await;
}

#[tokio::test]
async fn the_hard_limit_drops_a_body_on_the_event_loop_and_allows_no_other_attempt() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        let call = hold::s(gate.name.clone()).queue("one").time_limit(SHORT);
        let held = call.send(celeriac.client()).await.unwrap();
        gate.left(1).await;
        let record = record(&held).await;
        assert_eq!((record.state, record.attempts), (State::Failure, 1));
        assert_eq!(record.error_type.as_deref(), Some("TimeLimitExceeded"));
        assert_eq!(record.errors, ["TimeLimitExceeded: the run took longer than its time limit of 30ms"]);
        // The only slot is free again.
        let next = add::s(1, 1).queue("one").send(celeriac.client()).await.unwrap();
        assert_eq!(next.get(LONG).await, Ok(2));
        let status = until_status(&celeriac, "one", |s| s.done == 1).await;
        assert_eq!((status.timed_out, status.failed, status.retried, status.stuck), (1, 1, 0, 0));
    })
    .await;
}

#[tokio::test]
async fn a_deaf_thread_loses_its_slot_is_counted_as_stuck_and_its_late_return_is_refused() {
    on_both(|celeriac| async move {
        celeriac.resize("cpu", 1).await.unwrap();
        let gate = Gate::new();
        let call = hold_cpu::s(gate.name.clone()).time_limit(ON_THREAD);
        let deaf = call.send(celeriac.client()).await.unwrap();
        gate.entered(1).await;
        let failed = record(&deaf).await;
        assert_eq!(failed.error_type.as_deref(), Some("TimeLimitExceeded"));
        // The queue's only slot is free although the thread is not.
        let next = add_cpu::s(1, 1).send(celeriac.client()).await.unwrap();
        assert_eq!(next.get(LONG).await, Ok(2));
        let status = until_status(&celeriac, "cpu", |s| s.done == 1).await;
        assert_eq!((status.stuck, status.refused, status.timed_out), (1, 0, 1));
        assert_eq!(gate.gauge.now(), 1, "it runs on");

        gate.open();
        until_status(&celeriac, "cpu", |s| (s.stuck, s.refused) == (0, 1)).await;
        assert_eq!(record(&deaf).await, failed, "finished is final");
        assert_eq!(status_of(&celeriac, "cpu").await.done, 1);
    })
    .await;
}

#[tokio::test]
async fn an_async_body_on_a_thread_is_dropped_at_its_hard_limit_and_stays_stuck_no_longer() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        let call = hold::s(gate.name.clone()).queue("cpu").time_limit(ON_THREAD);
        let held = call.send(celeriac.client()).await.unwrap();
        gate.left(1).await;
        assert_eq!(record(&held).await.error_type.as_deref(), Some("TimeLimitExceeded"));
        until_status(&celeriac, "cpu", |s| (s.stuck, s.refused, s.timed_out) == (0, 0, 1)).await;
    })
    .await;
}

#[tokio::test]
async fn a_limit_that_is_kept_changes_nothing() {
    on_both(|celeriac| async move {
        let call = add_cpu::s(1, 2).time_limit(LONG).soft_time_limit(LONG / 2);
        assert_eq!(call.send(celeriac.client()).await.unwrap().get(LONG).await, Ok(3));
    })
    .await;
}
