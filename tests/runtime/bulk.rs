//! Acts on all tasks that match a rule: counted exactly, done in the background, and gone on with after a restart.

use celeriac::app::{BulkAction, ControlError};
use celeriac::core::brake::{Brake, BrakeAction, BrakeRule};
use celeriac::task::TENANT;
use celeriac::{Celeriac, State, TaskError, task};

use crate::kit::{LONG, add, builder, hold, io_queue, on_both, record, until_status};

/// Fails until somebody says that it may succeed.
#[task(queue = "io", max_retries = 0)]
async fn fragile(gate: String, n: u32) -> Result<u32, TaskError> {
    let gate = crate::kit::Gate::named(&gate);
    if gate.is_open() { Ok(n) } else { Err(TaskError::permanent("not yet")) }
}

async fn pause(celeriac: &Celeriac) -> Brake {
    celeriac.brakes().set(Brake::new(BrakeRule::all(), BrakeAction::Pause)).await.unwrap()
}

#[tokio::test]
async fn all_that_waits_and_matches_is_revoked_and_nothing_else() {
    on_both(|celeriac| async move {
        let gate = crate::kit::Gate::new();
        let call = hold::s(gate.name.clone()).header(TENANT, "acme");
        let runs = call.send(celeriac.client()).await.unwrap();
        gate.entered(1).await;
        let brake = pause(&celeriac).await;
        let (mut revoked, mut stay) = (Vec::new(), Vec::new());
        for n in 0..50 {
            let call = add::s(n, 1).header(TENANT, "acme");
            let call = if n % 5 == 0 { call.countdown(LONG) } else { call };
            revoked.push(call.send(celeriac.client()).await.unwrap());
            stay.push(add::s(n, 1).header(TENANT, "other").send(celeriac.client()).await.unwrap());
        }
        let rule = BrakeRule::new().tenant("acme");
        assert_eq!(celeriac.bulk().count_waiting(&rule).await.unwrap().tasks, 50);
        let act = celeriac.bulk().revoke(&rule).await.unwrap();
        assert_eq!((act.action, act.found, act.ended_at), (BulkAction::Revoke, 50, None));
        let done = celeriac.bulk().wait(&act.id).await.unwrap();
        assert_eq!((done.done, done.failed, done.error.as_deref()), (50, 0, None));
        for task in &revoked {
            assert_eq!(record(task).await.state, State::Revoked);
        }
        assert_eq!(celeriac.bulk().count_waiting(&rule).await.unwrap().tasks, 0);
        assert_eq!(celeriac.bulk().acts().await.unwrap(), [done]);
        celeriac.brakes().remove(&brake.id).await.unwrap();
        for (n, task) in (1..).zip(&stay) {
            assert_eq!(task.get(LONG).await, Ok(n));
        }
        gate.open();
        assert_eq!(runs.get(LONG).await, Ok(1), "what runs is left alone");
    })
    .await;
}

#[tokio::test]
async fn all_that_has_failed_and_matches_is_tried_again() {
    on_both(|celeriac| async move {
        let gate = crate::kit::Gate::new();
        let mut lost = Vec::new();
        for n in 0..20 {
            let tenant = if n < 12 { "acme" } else { "other" };
            let call = fragile::s(gate.name.clone(), n).header(TENANT, tenant);
            lost.push(call.send(celeriac.client()).await.unwrap());
        }
        for task in &lost {
            assert_eq!(record(task).await.state, State::Failure);
        }
        let rule = BrakeRule::new().tenant("acme");
        assert_eq!(celeriac.bulk().count_failed(&rule).await, Ok(12));
        gate.open();
        let act = celeriac.bulk().retry(&rule).await.unwrap();
        let done = celeriac.bulk().wait(&act.id).await.unwrap();
        assert_eq!((done.found, done.done, done.failed), (12, 12, 0));
        for (n, task) in (0..).zip(&lost[..12]) {
            assert_eq!(task.get(LONG).await, Ok(n));
        }
        assert_eq!(celeriac.bulk().count_failed(&BrakeRule::all()).await, Ok(8), "the others stay");
    })
    .await;
}

/// The shutdown comes at any moment of the act. The next life goes on with it, and does what is left.
#[tokio::test]
async fn an_act_that_was_cut_off_goes_on_after_the_restart() {
    let dir = tempfile::tempdir().unwrap();
    let start = async || {
        let builder = builder().queue(io_queue("many", 1)).directory(dir.path());
        builder.start().await.unwrap()
    };
    let celeriac = start().await;
    pause(&celeriac).await;
    let mut sent = Vec::new();
    for n in 0..400 {
        let call = add::s(n, 1).queue("many").header(TENANT, "acme");
        sent.push(call.send(celeriac.client()).await.unwrap().id().clone());
    }
    add::s(7, 1).queue("many").send(celeriac.client()).await.unwrap();
    let act = celeriac.bulk().revoke(&BrakeRule::new().tenant("acme")).await.unwrap();
    assert_eq!(act.found, 400);
    celeriac.shutdown().await.unwrap();

    let celeriac = start().await;
    let done = celeriac.bulk().wait(&act.id).await.unwrap();
    assert_eq!((done.found, done.failed, done.error.as_deref()), (400, 0, None));
    let client = celeriac.client();
    for id in &sent {
        let record = tokio::time::timeout(LONG, client.wait(id)).await.unwrap().unwrap();
        assert_eq!(record.state, State::Revoked);
    }
    let status = until_status(&celeriac, "many", |status| status.held == 1).await;
    assert_eq!((status.running, status.done), (0, 0), "the other one is still paused");
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_act_without_a_condition_or_of_an_unknown_id_is_refused() {
    on_both(|celeriac| async move {
        let none = celeriac.bulk().revoke(&BrakeRule::new()).await.unwrap_err();
        assert!(matches!(none, ControlError::Brake(_)), "{none}");
        assert!(celeriac.bulk().retry(&BrakeRule::new().queue("oi")).await.is_err());
        assert_eq!(celeriac.bulk().act("nosuch").await, Ok(None));
        assert_eq!(celeriac.bulk().wait("nosuch").await, Err(ControlError::UnknownAct("nosuch".to_owned())));
        let act = celeriac.bulk().revoke(&BrakeRule::new().tenant("nobody")).await.unwrap();
        let done = celeriac.bulk().wait(&act.id).await.unwrap();
        assert_eq!((done.found, done.done), (0, 0));
    })
    .await;
}
