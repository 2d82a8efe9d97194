//! Acts on all tasks that match a rule: counted exactly, done in the background, and gone on with after a restart.

use std::collections::BTreeMap;

use celeriac::app::{BulkAction, ControlError};
use celeriac::broker::TaskFilter;
use celeriac::core::brake::{Brake, BrakeAction, BrakeRule};
use celeriac::task::TENANT;
use celeriac::{AsyncResult, Celeriac, State, TaskError, TaskId, task};
use futures_util::future::try_join_all;

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

/// What waits, as the broker knows it: the queue of each task.
async fn waiting(celeriac: &Celeriac) -> BTreeMap<TaskId, String> {
    let tasks = celeriac.unfinished_tasks(&TaskFilter::new(), 1_000).await.unwrap();
    tasks.into_iter().map(|task| (task.message.id, task.message.queue)).collect()
}

/// Sends tasks of two tenants to the queue `one`, some for later.
async fn send_some(celeriac: &Celeriac) -> Vec<AsyncResult<add::Task>> {
    let mut sent = Vec::new();
    for n in 0..40 {
        let tenant = if n % 4 == 3 { "other" } else { "acme" };
        let call = add::s(n, 1).queue("one").header(TENANT, tenant);
        let call = if n % 10 == 9 { call.countdown(LONG) } else { call };
        sent.push(call.send(celeriac.client()).await.unwrap());
    }
    sent
}

/// Also what is delivered to a queue that is paused is moved, purged and revoked, and all of it comes back.
#[tokio::test]
async fn what_was_moved_purged_and_revoked_is_where_it_was() {
    on_both(|celeriac| async move {
        let brake = pause(&celeriac).await;
        let sent = send_some(&celeriac).await;
        until_status(&celeriac, "one", |status| status.held > 0).await;
        let before = waiting(&celeriac).await;
        assert_eq!(before.len(), 40);
        let (rule, bulk) = (BrakeRule::new().tenant("acme"), celeriac.bulk());
        let forecast = bulk.dry_run(BulkAction::Move, &rule, Some("io")).await.unwrap();
        assert_eq!((forecast.found, forecast.in_canvas, forecast.not_undoable), (30, 0, None));

        let mut acts = Vec::new();
        for action in [BulkAction::Move, BulkAction::Purge, BulkAction::Revoke] {
            let begun = match action {
                BulkAction::Move => bulk.move_to(&rule, "io").await.unwrap(),
                BulkAction::Purge => bulk.purge(&rule).await.unwrap(),
                _ => bulk.revoke(&rule).await.unwrap(),
            };
            let act = bulk.wait(&begun.id).await.unwrap();
            assert_eq!((act.found, act.done, act.error.as_deref()), (30, 30, None), "{action:?}");
            assert!(act.undoable_until().is_some_and(|until| until > act.begun_at));
            let now = waiting(&celeriac).await;
            let moved = now.values().filter(|queue| *queue == "io").count();
            let expected = if action == BulkAction::Move { (40, 30) } else { (10, 0) };
            assert_eq!((now.len(), moved), expected, "{action:?}");

            celeriac.undo_bulk(&act.id).await.unwrap();
            let undone = bulk.wait(&act.id).await.unwrap();
            let undo = undone.undo.as_ref().unwrap();
            assert_eq!((undo.back, undo.left, undo.error.as_deref()), (30, 0, None), "{action:?}");
            assert_eq!(undone.undoable_until(), None);
            assert_eq!(waiting(&celeriac).await, before, "{action:?}");
            acts.push(undone);
        }
        assert_eq!(bulk.acts().await.unwrap(), acts);
        assert_eq!(celeriac.undo_bulk(&acts[0].id).await.as_ref(), Ok(&acts[0]), "an undo is done once");

        celeriac.brakes().remove(&brake.id).await.unwrap();
        for (n, task) in sent.iter().enumerate().filter(|(n, _)| n % 10 != 9) {
            assert_eq!(task.get(LONG).await, Ok(n as i64 + 1));
            assert_eq!(record(task).await.queue, "one");
        }
    })
    .await;
}

#[tokio::test]
async fn what_has_run_since_is_left_as_it_is() {
    on_both(|celeriac| async move {
        let hold_one = BrakeRule::new().queue("one");
        let brake = celeriac.brakes().set(Brake::new(hold_one, BrakeAction::Pause)).await.unwrap();
        let sent = send_some(&celeriac).await;
        let others = BrakeRule::new().tenant("other");
        let act = celeriac.bulk().move_to(&others, "io").await.unwrap();
        let act = celeriac.bulk().wait(&act.id).await.unwrap();
        assert_eq!(act.done, 10);
        // Those that are due run in their new queue.
        let others = || sent.iter().enumerate().filter(|(n, _)| n % 4 == 3 && n % 10 != 9);
        for (n, task) in others() {
            assert_eq!(task.get(LONG).await, Ok(n as i64 + 1));
            assert_eq!(record(task).await.queue, "io");
        }
        celeriac.undo_bulk(&act.id).await.unwrap();
        let undone = celeriac.bulk().wait(&act.id).await.unwrap().undo.unwrap();
        let left = others().count() as u64;
        assert_eq!((undone.back, undone.left), (10 - left, left));
        celeriac.brakes().remove(&brake.id).await.unwrap();
        for (n, task) in sent.iter().enumerate().filter(|(n, _)| n % 10 != 9) {
            assert_eq!(task.get(LONG).await, Ok(n as i64 + 1), "each has run once");
        }
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_undone_or_moved_is_said() {
    on_both(|celeriac| async move {
        let unknown = celeriac.undo_bulk("nosuch").await.unwrap_err();
        assert_eq!(unknown, ControlError::UnknownAct("nosuch".to_owned()));
        let (bulk, all) = (celeriac.bulk(), BrakeRule::all());
        let retry = bulk.retry(&all).await.unwrap();
        bulk.wait(&retry.id).await.unwrap();
        let refused = celeriac.undo_bulk(&retry.id).await.unwrap_err();
        assert!(matches!(refused, ControlError::CannotUndo(_, _)), "{refused}");
        assert!(bulk.dry_run(BulkAction::Retry, &all, None).await.unwrap().not_undoable.is_some());
        let nowhere = bulk.move_to(&all, "nowhere").await.unwrap_err();
        assert!(matches!(nowhere, ControlError::UnknownQueue { .. }), "{nowhere}");
        assert!(bulk.purge(&BrakeRule::new()).await.is_err());
    })
    .await;
}

/// The shutdown comes at any moment of the act and of its undo, and the next life goes on with them.
#[tokio::test]
async fn an_undo_that_was_cut_off_goes_on_after_the_restart() {
    let dir = tempfile::tempdir().unwrap();
    let start = async || {
        let builder = builder().queue(io_queue("many", 1)).directory(dir.path());
        builder.start().await.unwrap()
    };
    let celeriac = start().await;
    celeriac.persistent().pause("many").await.unwrap();
    let calls = (0..3_000).map(async |n| add::s(n, 1).queue("many").send(celeriac.client()).await);
    try_join_all(calls).await.unwrap();
    let act = celeriac.bulk().purge(&BrakeRule::all()).await.unwrap();
    celeriac.shutdown().await.unwrap();

    let celeriac = start().await;
    celeriac.bulk().wait(&act.id).await.unwrap();
    assert_eq!(celeriac.bulk().count_waiting(&BrakeRule::all()).await.unwrap().tasks, 0);
    celeriac.undo_bulk(&act.id).await.unwrap();
    celeriac.shutdown().await.unwrap();

    let celeriac = start().await;
    let undone = celeriac.bulk().wait(&act.id).await.unwrap();
    assert_eq!(undone.undo.unwrap().left, 0);
    assert_eq!(celeriac.bulk().count_waiting(&BrakeRule::all()).await.unwrap().tasks, 3_000);
    celeriac.shutdown().await.unwrap();
}

/// The cancellation comes early in the act. What is done stays done, is told exactly, and comes back by the undo.
#[tokio::test]
async fn an_act_that_is_cancelled_ends_and_what_it_has_done_can_be_undone() {
    let dir = tempfile::tempdir().unwrap();
    let start = async || {
        let builder = builder().queue(io_queue("many", 1)).directory(dir.path());
        builder.start().await.unwrap()
    };
    let celeriac = start().await;
    celeriac.persistent().pause("many").await.unwrap();
    let calls = (0..6_000).map(async |n| add::s(n, 1).queue("many").send(celeriac.client()).await);
    try_join_all(calls).await.unwrap();
    let all = BrakeRule::all();
    let act = celeriac.bulk().purge(&all).await.unwrap();
    let amina = celeriac.as_operator("amina");
    let asked = amina.cancel_bulk(&act.id).await.unwrap();
    let ended = celeriac.bulk().wait(&act.id).await.unwrap();
    celeriac.shutdown().await.unwrap();

    let celeriac = start().await;
    assert_eq!(celeriac.bulk().wait(&act.id).await.as_ref(), Ok(&ended), "it does not begin again");
    assert!(ended.done >= asked.done && ended.error.is_none(), "{ended:?}");
    assert_eq!(ended.cancel.as_ref().and_then(|cancel| cancel.by.as_deref()), Some("amina"));
    let left = celeriac.bulk().count_waiting(&all).await.unwrap().tasks;
    assert_eq!(left + ended.done, 6_000, "what is done is told");
    assert!(left > 0, "the rest is left alone");
    let over = celeriac.cancel_bulk(&act.id).await.unwrap_err();
    assert!(matches!(over, ControlError::CannotCancel(..)), "{over}");
    let unknown = celeriac.cancel_bulk("nosuch").await.unwrap_err();
    assert_eq!(unknown, ControlError::UnknownAct("nosuch".to_owned()));

    celeriac.undo_bulk(&act.id).await.unwrap();
    let undone = celeriac.bulk().wait(&act.id).await.unwrap().undo.unwrap();
    assert_eq!((undone.back, undone.left), (ended.done, 0));
    assert_eq!(celeriac.bulk().count_waiting(&all).await.unwrap().tasks, 6_000);
    celeriac.shutdown().await.unwrap();
}
