//! States on the way, records at the end, and what callers learn when there is no value.

use std::time::Duration;

use celeriac::{AsyncResult, Context, GetError, State, TaskError, TaskId, task};

use crate::kit::{Gate, LONG, add, hold, note, notes, on_both, record, until, until_state};

#[task(queue = "one")]
async fn fails_once(ctx: &Context, gate: String) -> Result<(), TaskError> {
    if ctx.attempt() > 1 {
        return Ok(());
    }
    Gate::named(&gate).pass().await;
    Err(TaskError::retry_in(Duration::from_secs(3600), "later"))
}

#[tokio::test]
async fn the_states_of_a_task_on_its_way() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        let running = fails_once::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
        gate.entered(1).await;
        assert_eq!(running.state().await, Ok(State::Started));

        // One worker, two deliveries: the next one is fetched, the one after it is not.
        let fetched = add::s(1, 1).queue("one").send(celeriac.client()).await.unwrap();
        until_state(fetched.id(), &celeriac, State::Received).await;
        let waiting = add::s(1, 1).queue("one").send(celeriac.client()).await.unwrap();
        assert_eq!(waiting.state().await, Ok(State::Pending));
        let hour = Duration::from_secs(3600);
        let scheduled = add::s(1, 1).countdown(hour).send(celeriac.client()).await.unwrap();
        assert_eq!(scheduled.state().await, Ok(State::Pending));
        assert_eq!(celeriac.client().state(&"nobody".into()).await, Ok(State::Unknown));
        assert_eq!(running.result().await, Ok(None));

        gate.open();
        assert_eq!(waiting.get(LONG).await, Ok(2));
        until_state(running.id(), &celeriac, State::Retry).await;
        assert_eq!(waiting.state().await, Ok(State::Success));
    })
    .await;
}

#[tokio::test]
async fn a_value_is_waited_for_so_long_and_no_longer() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        let held = hold::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
        gate.entered(1).await;
        let waited = Duration::from_millis(20);
        assert_eq!(held.get(waited).await, Err(GetError::Timeout { id: held.id().clone(), waited }));
        gate.open();
        assert_eq!(held.get(LONG).await, Ok(1), "it went on all the same");
    })
    .await;
}

#[tokio::test]
async fn many_wait_for_one_result() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        let held = hold::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
        let waiting: Vec<_> = (0..50)
            .map(|_| {
                let held = held.clone();
                tokio::spawn(async move { held.get(LONG).await })
            })
            .collect();
        gate.entered(1).await;
        gate.open();
        for waiter in waiting {
            assert_eq!(waiter.await.unwrap(), Ok(1));
        }
    })
    .await;
}

#[tokio::test]
async fn an_unknown_id_is_no_waiting_one() {
    on_both(|celeriac| async move {
        let id = TaskId::new();
        let client = celeriac.client();
        assert_eq!(client.state(&id).await, Ok(State::Unknown));
        assert_eq!(client.result(&id).await, Ok(None));
        let at_once = tokio::time::timeout(LONG, client.wait(&id)).await.expect("it does not wait");
        assert_eq!(at_once, Err(GetError::Unknown(id.clone())));
        assert_eq!(client.revoke(&id, true).await, Ok(false));
        assert_eq!(client.forget(&id).await, Ok(false));
    })
    .await;
}

#[task(queue = "io", ignore_result)]
async fn keeps_nothing(ctx: &Context, reject: bool) -> Result<(), TaskError> {
    note(ctx.id(), "ran");
    if reject { Err(TaskError::reject("foreign")) } else { Ok(()) }
}

#[tokio::test]
async fn a_result_that_is_not_kept_cannot_be_waited_for() {
    on_both(|celeriac| async move {
        let by_task = keeps_nothing::s(false).send(celeriac.client()).await.unwrap();
        let by_call = add::s(1, 1).ignore_result(true).send(celeriac.client()).await.unwrap();
        assert_eq!(by_task.get(LONG).await, Err(GetError::NotKept(by_task.id().clone())));
        assert_eq!(by_call.get(LONG).await, Err(GetError::NotKept(by_call.id().clone())));
        until("it ran", async || notes(by_task.id()).len() == 1).await;
        until_state(by_task.id(), &celeriac, State::Unknown).await;
        assert_eq!(by_task.result().await, Ok(None));
        // The call may say otherwise.
        let kept = keeps_nothing::s(false).ignore_result(false).send(celeriac.client()).await.unwrap();
        assert_eq!(kept.get(LONG).await, Ok(()));
        // What needs looking at is kept in any case.
        let rejected = keeps_nothing::s(true).send(celeriac.client()).await.unwrap();
        until_state(rejected.id(), &celeriac, State::Rejected).await;

        // Whoever has only the id is told while the task is there.
        let gate = Gate::new();
        let held = hold::s(gate.name.clone()).ignore_result(true).send(celeriac.client()).await.unwrap();
        gate.entered(1).await;
        assert_eq!(celeriac.client().wait(held.id()).await, Err(GetError::NotKept(held.id().clone())));
        gate.open();
    })
    .await;
}

#[tokio::test]
async fn a_forgotten_result_is_gone() {
    on_both(|celeriac| async move {
        let sum = add::s(1, 2).send(celeriac.client()).await.unwrap();
        assert_eq!(sum.get(LONG).await, Ok(3));
        assert_eq!(sum.forget().await, Ok(true));
        assert_eq!(sum.forget().await, Ok(false));
        assert_eq!(sum.state().await, Ok(State::Unknown));
        assert_eq!(sum.get(LONG).await, Err(GetError::Unknown(sum.id().clone())));
    })
    .await;
}

#[task(queue = "io", result_expires = 0.001)]
async fn soon_expired() {}

#[tokio::test]
async fn an_expired_result_is_gone_swept_or_not() {
    on_both(|celeriac| async move {
        let kept = add::s(1, 2).send(celeriac.client()).await.unwrap();
        let result: AsyncResult<soon_expired::Task> =
            soon_expired::s().send(celeriac.client()).await.unwrap();
        until_state(result.id(), &celeriac, State::Unknown).await;
        assert_eq!(result.result().await, Ok(None));
        assert_eq!(result.get(LONG).await, Err(GetError::Unknown(result.id().clone())));
        assert_eq!(kept.get(LONG).await, Ok(3));
        celeriac.sweep_results().await.unwrap();
        assert_eq!(kept.get(LONG).await, Ok(3), "a sweep takes what has expired and nothing else");
    })
    .await;
}

#[tokio::test]
async fn records_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac = crate::kit::embedded(dir.path()).await;
    let sum = add::s(1, 2).send(celeriac.client()).await.unwrap();
    let before = record(&sum).await;
    celeriac.shutdown().await.unwrap();
    let celeriac = crate::kit::embedded(dir.path()).await;
    assert_eq!(celeriac.client().result(sum.id()).await, Ok(Some(before)));
    celeriac.shutdown().await.unwrap();
}
