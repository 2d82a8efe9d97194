//! Bars.

use std::time::Duration;

use celeriac::soil::{PartialFailure, Progress, SoilState, Status};
use celeriac::task::Signature;
use celeriac::task::canvas::group;
use celeriac::{Celeriac, Context, TaskError, TaskId, task};
use futures_util::StreamExt;

use crate::kit::{Gate, LONG, add, embedded, hold, on_both, record, until, until_state};

#[task(queue = "io")]
async fn walk(ctx: Context, gate: String, current: u64, total: u64) -> u64 {
    ctx.progress(current, total);
    ctx.progress_note("walking");
    Gate::named(&gate).pass().await;
    total
}

/// Tells 80 of 100 in its first run, and starts over in the second.
#[task(queue = "io", max_retries = 1, default_retry_delay = "0s")]
async fn stumble(ctx: Context, gate: String) -> Result<(), TaskError> {
    if ctx.attempt() == 1 {
        ctx.progress(80, 100);
        return Err(TaskError::transient("stumbled"));
    }
    assert_eq!(ctx.progress_shown(), Some(Progress::of(80, 100)));
    ctx.progress(10, 100);
    Gate::named(&gate).pass().await;
    ctx.progress(90, 100);
    Gate::named(&gate).pass().await;
    Ok(())
}

/// Does a hundred, then continues.
#[task(queue = "io")]
async fn batches(ctx: Context, from: u64, total: u64) -> Result<u64, TaskError> {
    let shown = ctx.progress_shown().map_or(0, |shown| shown.current);
    assert_eq!(shown, from, "it counts on from where it was");
    for row in from..from + 100 {
        ctx.progress(row + 1, total);
    }
    let next = from + 100;
    if next < total {
        return Err(TaskError::continue_with(batches::s(next, total)));
    }
    Ok(total)
}

/// Notes at each of many steps.
#[task(queue = "cpu")]
fn chatter(ctx: &Context, steps: u64) {
    for step in 0..steps {
        ctx.progress(step, steps);
        ctx.progress_note(format!("step {step}"));
    }
}

async fn status(celeriac: &Celeriac, id: &TaskId) -> Status {
    celeriac.soil().status(id).await.unwrap()
}

/// Waits until a bar stands there.
async fn shows(celeriac: &Celeriac, id: &TaskId, current: u64, total: u64) {
    until(&format!("{current} of {total} is shown"), async || {
        status(celeriac, id).await.progress == Some(Progress::of(current, total))
    })
    .await;
}

#[tokio::test]
async fn a_bar_is_shown_and_is_full_when_the_task_is_over() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        let walking = walk::s(gate.name.clone(), 5, 10).send(celeriac.client()).await.unwrap();
        shows(&celeriac, walking.id(), 5, 10).await;
        until("the note is shown", async || {
            status(&celeriac, walking.id()).await.note.as_deref() == Some("walking")
        })
        .await;
        let seen = status(&celeriac, walking.id()).await;
        assert_eq!((seen.state, seen.queue.as_deref(), seen.place), (SoilState::Started, Some("io"), None));
        assert!(seen.task.unwrap().ends_with("walk") && seen.next_poll_ms.is_some());
        gate.open();
        record(&walking).await;
        let seen = status(&celeriac, walking.id()).await;
        assert_eq!((seen.state, seen.result, seen.next_poll_ms), (SoilState::Success, Some(10.into()), None));
        assert_eq!(seen.progress.unwrap().percent, 100);
        assert_eq!((seen.note, seen.line), (None, None));
    })
    .await;
}

#[tokio::test]
async fn only_the_outcome_is_the_end() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        for (current, total, shown) in [(10, 10, (9, 10)), (7, 0, (7, 0))] {
            let walking = walk::s(gate.name.clone(), current, total).send(celeriac.client()).await.unwrap();
            shows(&celeriac, walking.id(), shown.0, shown.1).await;
            let seen = status(&celeriac, walking.id()).await;
            assert_eq!(seen.state, SoilState::Started);
            assert!(seen.progress.unwrap().percent < 100);
        }
        let nothing = walk::s(gate.name.clone(), 0, 0).send(celeriac.client()).await.unwrap();
        until("its note is shown", async || status(&celeriac, nothing.id()).await.note.is_some()).await;
        let seen = status(&celeriac, nothing.id()).await;
        assert_eq!((seen.state, seen.progress), (SoilState::Started, None), "0 of 0 is not done");
        gate.open();
    })
    .await;
}

#[tokio::test]
async fn an_attempt_that_starts_over_does_not_move_the_bar_back() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        let task = stumble::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
        let mut seen = Vec::new();
        let mut watched = celeriac.soil().watch(task.id());
        gate.entered(1).await;
        shows(&celeriac, task.id(), 80, 100).await;
        gate.open();
        while let Some(status) = watched.next().await {
            seen.push(status.unwrap());
        }
        let percents: Vec<_> = seen.iter().filter_map(|status| status.progress).map(|p| p.percent).collect();
        assert!(percents.is_sorted() && percents.last() == Some(&100), "{percents:?}");
        assert_eq!(seen.last().unwrap().state, SoilState::Success);
    })
    .await;
}

#[tokio::test]
async fn a_continuation_carries_on() {
    on_both(|celeriac| async move {
        let task = batches::s(0, 500).send(celeriac.client()).await.unwrap();
        assert_eq!(task.get(LONG).await.unwrap(), 500);
    })
    .await;
}

#[tokio::test]
async fn a_bar_survives_the_restart() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac = embedded(dir.path()).await;
    let gate = Gate::new();
    let walking = walk::s(gate.name.clone(), 700, 1_000).send(celeriac.client()).await.unwrap();
    shows(&celeriac, walking.id(), 700, 1_000).await;
    let id = walking.id().clone();
    celeriac.shutdown_within(Duration::ZERO).await.unwrap();
    drop((walking, celeriac));

    let celeriac = embedded(dir.path()).await;
    let seen = status(&celeriac, &id).await;
    assert_eq!((seen.state, seen.progress), (SoilState::Started, Some(Progress::of(700, 1_000))));
    gate.open();
    until_state(&id, &celeriac, celeriac::State::Success).await;
    assert_eq!(celeriac.client().tracked(&id).await.unwrap(), None);
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn who_waits_learns_the_place_in_line() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        let one = |sum: Signature<hold::Task>| sum.queue("one");
        let held = one(hold::s(gate.name.clone())).send(celeriac.client()).await.unwrap();
        gate.entered(1).await;
        let mut line = Vec::new();
        for _ in 0..5 {
            line.push(add::s(1, 2).queue("one").send(celeriac.client()).await.unwrap());
        }
        for (ahead, waiting) in line.iter().enumerate() {
            until("the place is known", async || {
                let seen = status(&celeriac, waiting.id()).await;
                assert_eq!(seen.state, SoilState::NotStarted);
                seen.place.is_some_and(|place| place.ahead == ahead as u64)
            })
            .await;
        }
        let seen = status(&celeriac, line[4].id()).await;
        let queue = seen.line.unwrap();
        assert_eq!((queue.name.as_str(), queue.workers, queue.running), ("one", 1, 1));
        assert!(queue.is_alive());
        celeriac.pause("one").await.unwrap();
        until("the pause is seen", async || {
            let seen = status(&celeriac, line[4].id()).await;
            !seen.is_alive() && seen.line.unwrap().paused
        })
        .await;
        celeriac.resume("one").await.unwrap();
        gate.open();
        for task in &line {
            record(task).await;
        }
        record(&held).await;
    })
    .await;
}

#[tokio::test]
async fn ids_that_nobody_knows_are_missing() {
    on_both(|celeriac| async move {
        for id in ["nobody", "../../etc/passwd", "a\r\nb", "0199a0b0-1234-7abc-8def-0123456789ab"] {
            let seen = status(&celeriac, &id.into()).await;
            assert_eq!((seen.state, seen.gone, seen.next_poll_ms), (SoilState::Missing, false, None), "{id}");
            let all: Vec<_> = celeriac.soil().watch(&id.into()).collect().await;
            assert_eq!(all.len(), 1);
        }
    })
    .await;
}

#[tokio::test]
async fn a_talkative_task_is_told_rarely() {
    on_both(|celeriac| async move {
        let task = chatter::s(200_000).send(celeriac.client()).await.unwrap();
        let mut told = Vec::new();
        let mut watched = celeriac.soil().watch(task.id());
        while let Some(status) = watched.next().await {
            told.push(status.unwrap());
        }
        assert_eq!(told.last().unwrap().state, SoilState::Success);
        assert!(told.len() < 1_000, "{}", told.len());
    })
    .await;
}

#[tokio::test]
async fn a_group_is_seen_as_one() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        let soil = celeriac.soil();
        let over = add::s(1, 2).send(celeriac.client()).await.unwrap();
        record(&over).await;
        let walking = walk::s(gate.name.clone(), 1, 2).send(celeriac.client()).await.unwrap();
        shows(&celeriac, walking.id(), 1, 2).await;
        let ids = [over.id().clone(), walking.id().clone()];
        let id = soil.make_group(ids.clone(), Duration::from_secs(3_600)).await.unwrap();
        assert_eq!(soil.members(&id).await, Ok(Some(ids.to_vec())));
        let group = soil.group_status(&id, PartialFailure::Fails).await.unwrap();
        assert_eq!(soil.members_status(ids, PartialFailure::Fails).await.unwrap().done, 1);
        assert_eq!((group.state, group.done, group.total), (SoilState::Started, 1, 2));
        assert_eq!(group.progress.percent, 75);
        assert!(group.next_poll_ms.is_some());
        gate.open();
        record(&walking).await;
        let group = soil.group_status(&id, PartialFailure::Fails).await.unwrap();
        assert_eq!((group.state, group.progress.percent), (SoilState::Success, 100));
        let none = soil.group_status(&"nobody".into(), PartialFailure::Fails).await.unwrap();
        assert_eq!((none.state, none.total, none.next_poll_ms), (SoilState::Missing, 0, None));
    })
    .await;
}

#[tokio::test]
async fn a_canvas_that_was_saved_is_seen_by_its_id() {
    on_both(|celeriac| async move {
        let sent = group([add::s(1, 2), add::s(3, 4)]).send(celeriac.client()).await.unwrap();
        sent.save().await.unwrap();
        assert_eq!(sent.get(Duration::from_secs(60)).await.unwrap(), [3, 7]);
        let seen = celeriac.soil().group_status(sent.id(), PartialFailure::Fails).await.unwrap();
        assert_eq!((seen.state, seen.done, seen.total), (SoilState::Success, 2, 2));
        let restored = celeriac.group_result(sent.id().as_str()).await.unwrap().expect("it was saved");
        assert_eq!(restored.get(Duration::from_secs(60)).await.unwrap(), [3, 7]);
    })
    .await;
}
