//! Options that few programs need: each does what it says.

use std::time::Duration;

use celeriac::task::TaskError;
use celeriac::{Context, State, TaskId, task};

use crate::kit::{Gate, LONG, add, builder, io_queue, on_both, record, status_of, until, until_status};

/// Hands its lock to a task that is not due for an hour, for a moment.
#[task(queue = "io", max_retries = 0)]
async fn hands_over(ctx: Context, name: String, within_ms: u64, gate: String) -> Result<String, TaskError> {
    let permit = ctx.lock(name.clone()).acquire().await?;
    Gate::named(&gate).pass().await;
    let next = takes_over::s(name).countdown(Duration::from_secs(3_600));
    let next = next.hand_over_within(permit, Duration::from_millis(within_ms));
    let client = CLIENT.lock().unwrap().iter().rev().find(|(g, _)| *g == gate).map(|(_, c)| c.clone());
    Ok(next.send(client.unwrap()).await?.id().to_string())
}

#[task(queue = "io", max_retries = 0)]
async fn takes_over(ctx: Context, name: String) -> Result<bool, TaskError> {
    Ok(ctx.lock(name).try_acquire().await?.is_none())
}

type Client = std::sync::Arc<dyn celeriac::task::Client>;
static CLIENT: std::sync::Mutex<Vec<(String, Client)>> = std::sync::Mutex::new(Vec::new());

/// `hand_over_within`: whoever has not started by then has lost it. `permit_holders`: who has it is told.
#[tokio::test]
async fn a_permit_is_kept_for_as_long_as_is_said() {
    on_both(|celeriac| async move {
        for (within, stays) in [(Duration::from_millis(30), false), (Duration::MAX, true)] {
            let (gate, name) = (Gate::new(), TaskId::new().to_string());
            CLIENT.lock().unwrap().push((gate.name.clone(), celeriac.client()));
            let millis = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
            let call = hands_over::s(name.clone(), millis, gate.name.clone());
            let first = call.send(celeriac.client()).await.unwrap();
            gate.entered(1).await;
            let holders = celeriac.permit_holders(&name).await.unwrap();
            assert_eq!(holders.len(), 1);
            gate.open();
            let next = first.get(LONG).await.unwrap();
            let is_held = async || !celeriac.permit_holders(&name).await.unwrap().is_empty();
            if stays {
                assert!(is_held().await);
                assert_eq!(celeriac.client().revoke(&next.as_str().into(), false).await, Ok(true));
                until("it is given back by the revocation", async || !is_held().await).await;
            } else {
                until("it is free, and nobody has given it back", async || !is_held().await).await;
            }
        }
    })
    .await;
}

/// A queue that is taken out of the catalogue before it is empty is served all the same.
#[tokio::test]
async fn what_waits_without_a_row_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let with_row = builder().queue(io_queue("leaving", 1)).directory(dir.path()).start().await.unwrap();
    with_row.pause("leaving").await.unwrap();
    let left = add::s(20, 22).queue("leaving").send(with_row.client()).await.unwrap();
    with_row.shutdown().await.unwrap();
    let without = builder().directory(dir.path()).start().await.unwrap();
    let record = tokio::time::timeout(LONG, without.client().wait(left.id())).await.unwrap().unwrap();
    assert_eq!(record.result.as_deref(), Some("42"));
    until("it is counted", async || status_of(&without, "leaving").await.done == 1).await;
    without.shutdown().await.unwrap();
    // Empty, it is no more.
    let empty = builder().directory(dir.path()).start().await.unwrap();
    assert!(empty.queue("leaving").await.unwrap_err().to_string().contains("no queue `leaving`"));
    empty.shutdown().await.unwrap();
}

/// What of a shutdown's tasks ended by itself, and what did not.
#[task(queue = "io")]
async fn heeds(ctx: Context, gate: String) -> Result<(), TaskError> {
    let gate = Gate::named(&gate);
    let _inside = gate.gauge.enter();
    Err(ctx.interrupted().await.into())
}

#[tokio::test]
async fn what_heeds_a_shutdown_is_handed_back_and_not_drained() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        for _ in 0..2 {
            heeds::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
        }
        until("both run", async || gate.gauge.now() == 2).await;
        let done = add::s(1, 1).send(celeriac.client()).await.unwrap();
        assert_eq!(record(&done).await.attempts, 1);
        let report = celeriac.shutdown_within(Duration::from_secs(2)).await.unwrap();
        assert_eq!((report.drained, report.handed_back), (false, 2), "{report:?}");
    })
    .await;
}

/// A task whose first run starts at once, and whose second run starts an hour later.
#[task(queue = "io", rate_limit = "1/h")]
async fn once_an_hour() {}

/// `rate_limit`: what may not start yet waits in its queue, takes no slot and holds up no other task.
#[tokio::test]
async fn a_rate_limit_that_a_task_states_holds_its_runs_back_and_no_others() {
    on_both(|celeriac| async move {
        let first = once_an_hour::s().send(celeriac.client()).await.unwrap();
        let second = once_an_hour::s().send(celeriac.client()).await.unwrap();
        assert_eq!(first.get(LONG).await, Ok(()));
        for n in 0..8 {
            assert_eq!(add::s(n, 1).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(n + 1));
        }
        // The second is held back, by the rate alone.
        until_status(&celeriac, "io", |queue| (queue.held, queue.ready, queue.running) == (1, 0, 0)).await;
        assert_eq!(second.state().await, Ok(State::Received), "a worker has it, and has not started it");
    })
    .await;
}
