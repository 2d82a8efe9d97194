//! Who has sent whom, and results that nobody keeps.

use celeriac::task::GetError;
use celeriac::task::canvas::{group, map, signature};
use celeriac::{Celeriac, Context, State, TaskError, TaskId, task};

use super::kit::*;

/// Sends two tasks from its body, and returns their ids.
#[task]
async fn sends(ctx: Context, n: i64) -> Result<Vec<String>, TaskError> {
    let alone = add::delay(n, 1).await.map_err(TaskError::from_display)?;
    let chain = add::s(n, 2).then(add::p(3)).delay().await.map_err(TaskError::from_display)?;
    let first = chain.parent().map(|parent| parent.id().to_string()).unwrap_or_default();
    Ok(vec![ctx.id().to_string(), alone.id().to_string(), first])
}

#[task]
fn sends_from_a_thread(ctx: Context) -> Result<Vec<String>, TaskError> {
    let sent = add::delay(1, 1).wait().map_err(TaskError::from_display)?;
    Ok(vec![ctx.id().to_string(), sent.id().to_string()])
}

#[task(ignore_result)]
async fn forgetful(_n: i64) {}

async fn parent_of(celeriac: &Celeriac, id: &str) -> Option<TaskId> {
    let client = celeriac.client();
    let record =
        tokio::time::timeout(LONG, client.wait(&id.into())).await.expect("in time").expect("a record");
    record.lineage.and_then(|lineage| lineage.parent_id)
}

/// As in Celery: what a body sends has the task as its parent.
#[test]
fn what_a_body_sends_says_by_whom() {
    alone("relations::what_a_body_sends_alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by what_a_body_sends_says_by_whom"]
async fn what_a_body_sends_alone() {
    // What a body sends by itself goes to the runtime that was started last, so one form is enough.
    let celeriac = memory().await;
    for from_thread in [false, true] {
        let client = celeriac.client();
        let ids = if from_thread {
            sends_from_a_thread::s().send(client).await.unwrap().get(LONG).await.unwrap()
        } else {
            sends::s(1).send(client).await.unwrap().get(LONG).await.unwrap()
        };
        let [parent, children @ ..] = ids.as_slice() else { panic!("{ids:?}") };
        for child in children {
            assert_eq!(parent_of(&celeriac, child).await, Some(parent.as_str().into()), "{child}");
        }
        assert_eq!(parent_of(&celeriac, parent).await, None, "nobody has sent it from a body");
    }
    celeriac.shutdown().await.unwrap();
}

/// Nobody waits for what will never be there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_is_not_kept_is_told_at_once() {
    on_all(async |celeriac| {
        let client = || celeriac.client();
        let not_kept = |told: Result<(), GetError>, id: &TaskId| {
            assert_eq!(told, Err(GetError::NotKept(id.clone())));
        };
        let known = add::s(1, 1).then(forgetful::p()).send(client()).await.unwrap();
        not_kept(known.get(LONG).await, known.id());
        let said = add::s(1, 1).then(add::p(2).ignore_result(true)).send(client()).await.unwrap();
        not_kept(said.get(LONG).await.map(drop), said.id());
        let member =
            group([add::s(1, 1).then(forgetful::p()).untyped(), add::s(1, 2).then(add::p(1)).untyped()]);
        let member = member.send(client()).await.unwrap();
        not_kept(member.get(LONG).await.map(drop), member.members()[0].id());
        // In between it matters to nobody.
        let between = forgetful::s(1).then(add::s(3, 4)).send(client()).await.unwrap();
        assert_eq!(between.get(LONG).await, Ok(7));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_over_a_task_that_nobody_has_is_not_registered() {
    on_all(async |celeriac| {
        let nowhere =
            map(signature("no.such.task"), [1, 2]).queue("default").send(celeriac.client()).await.unwrap();
        let Err(GetError::Ended(record)) = nowhere.get(LONG).await else { panic!("it cannot run") };
        assert_eq!((record.state, record.error_type.as_deref()), (State::Rejected, Some("NotRegistered")));
        assert!(record.errors[0].contains("no.such.task"), "{:?}", record.errors);
    })
    .await;
}
