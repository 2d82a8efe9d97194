//! The longest time that can be said is for ever: nothing panics, nothing runs at once that was to wait, nothing runs twice.

use std::time::Duration;

use celeriac::core::calendar::{Overlap, Schedule};
use celeriac::task::canvas::group;
use celeriac::task::{Periodic, Task};
use celeriac::{Celeriac, State, task};

use crate::kit::{Gate, LONG, add, builder, hold, note, notes, on_both, record, status_of, until};

const EVER: Duration = Duration::MAX;

#[task(queue = "io")]
async fn runs(ctx: celeriac::Context) -> u32 {
    note(ctx.id(), "ran");
    ctx.attempt()
}

#[task(queue = "cpu")]
fn runs_on_a_thread(ctx: &celeriac::Context) -> u32 {
    note(ctx.id(), "ran");
    ctx.attempt()
}

async fn limits(celeriac: &Celeriac) {
    let client = || celeriac.client();
    for call in [
        runs::s().time_limit(EVER),
        runs::s().soft_time_limit(EVER),
        runs::s().time_limit(EVER).soft_time_limit(EVER).expires(EVER),
    ] {
        let result = call.send(client()).await.unwrap();
        assert_eq!(result.get(EVER).await, Ok(1));
        assert_eq!(notes(result.id()), ["ran"], "once");
    }
    let result = runs_on_a_thread::s().time_limit(EVER).soft_time_limit(EVER).send(client()).await.unwrap();
    assert_eq!(result.get(LONG).await, Ok(1));
    assert_eq!(notes(result.id()), ["ran"], "once");
}

#[tokio::test]
async fn limits_and_expiry() {
    on_both(|celeriac| async move { limits(&celeriac).await }).await;
}

/// On its own and as a step of a canvas, whose options travel as numbers.
#[tokio::test]
async fn a_countdown_never_comes() {
    on_both(|celeriac| async move {
        let client = || celeriac.client();
        let alone = runs::s().countdown(EVER).send(client()).await.unwrap();
        let chain = add::s(1, 1).then(add::p(1).countdown(EVER)).send(client()).await.unwrap();
        let members = group([add::s(1, 2).countdown(EVER), add::s(1, 3)]).send(client()).await.unwrap();
        until("three wait for their time", async || status_of(&celeriac, "io").await.scheduled == 3).await;
        assert!(notes(alone.id()).is_empty());
        assert_eq!(alone.state().await, Ok(State::Pending));
        drop((chain, members));
    })
    .await;
}

#[tokio::test]
async fn a_window_is_never_over_before_its_task_is() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        let unique = || hold::s(gate.name.clone()).unique_for(EVER).send(celeriac.client());
        let first = unique().await.unwrap();
        gate.entered(1).await;
        assert_eq!(unique().await.unwrap().id(), first.id());
        gate.open();
        assert_eq!(record(&first).await.attempts, 1);
    })
    .await;
}

#[task(queue = "io", ignore_result)]
async fn ticks() {}

/// Nobody asks for a lease where one program has the broker; `tests/beat/election.rs` has one that programs share.
#[tokio::test]
async fn beat_leads() {
    let dir = tempfile::tempdir().unwrap();
    for builder in [builder().in_memory(), builder().directory(dir.path())] {
        let each = Periodic::new("ticks", ticks::Task::NAME, Schedule::Every(Duration::from_millis(10)));
        let builder = builder.beat_lease(EVER).periodic(each.overlap(Overlap::Allow));
        let celeriac = builder.start().await.unwrap();
        // The number counts from when beat began to lead, so a beat that was built anew would count anew.
        until("it fires", async || {
            let entries = celeriac.beat().entries().await.unwrap_or_default();
            entries.iter().any(|entry| entry.name == "ticks" && entry.published >= 3)
        })
        .await;
        celeriac.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_shutdown_that_may_take_for_ever_takes_as_long_as_what_runs() {
    let celeriac = builder().in_memory().shutdown_grace(EVER).start().await.unwrap();
    let gate = Gate::new();
    let held = hold::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    let ending = tokio::spawn({
        let celeriac = celeriac.clone();
        async move { celeriac.shutdown_within(EVER).await }
    });
    until("it takes nothing new", async || add::s(1, 1).send(celeriac.client()).await.is_err()).await;
    gate.open();
    let report = ending.await.unwrap().unwrap();
    assert!(report.drained && report.took < LONG, "{report:?}");
    drop(held);
    let idle = builder().in_memory().start().await.unwrap();
    assert!(idle.shutdown_within(EVER).await.unwrap().drained);
}
