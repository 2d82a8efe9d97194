//! Workers that die: restarted under an intensity, halted with the reason, healed when the cause is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use celeriac::{Celeriac, task};

use crate::kit::{LONG, add, builder, io_queue, quiet, status_of, until, until_status};

const WINDOW: Duration = Duration::from_secs(600);

#[task(queue = "one")]
async fn runs() -> u32 {
    7
}

#[tokio::test]
async fn a_queue_whose_workers_cannot_start_halts_with_the_reason_and_hurts_no_other() {
    // One arbiter: the sick queue and the healthy one share their event loop.
    let celeriac = builder()
        .queue(io_queue("sick", 1000).with_max_restarts(999).with_restart_window(WINDOW))
        .arbiters(1)
        .in_memory()
        .on_worker_start(|queue, slot| assert!(queue != "sick", "no connection for worker {slot}"))
        .start()
        .await
        .unwrap();
    let waiting = add::s(1, 1).queue("sick").send(celeriac.client()).await.unwrap();
    let sick = until_status(&celeriac, "sick", |s| s.halted.is_some()).await;
    let reason = sick.halted.unwrap();
    assert!(
        reason.starts_with(&format!(
            "its workers died 1000 times within {WINDOW:?}, last of: no connection for worker "
        )),
        "{reason}"
    );
    assert_eq!((sick.replaced, sick.running, sick.done), (1000, 0, 0), "none is started again");

    assert_eq!(runs::s().send(celeriac.client()).await.unwrap().get(LONG).await, Ok(7));
    let well = status_of(&celeriac, "one").await;
    assert_eq!((well.halted, well.replaced), (None, 0));
    let task = waiting.state().await.unwrap();
    assert!(!task.is_finished(), "what waits there waits on: {task}");
    assert_eq!(status_of(&celeriac, "sick").await.replaced, 1000);
    let report = celeriac.shutdown().await.unwrap();
    assert!(report.drained, "a halted queue does not hold up the end");
}

/// A queue `frail` whose workers die at their start so many times altogether.
async fn frail(workers: usize, deaths: usize, max_restarts: u32, window: Duration) -> Celeriac {
    quiet();
    let left = AtomicUsize::new(deaths);
    Celeriac::builder()
        .queue(io_queue("frail", workers).with_max_restarts(max_restarts).with_restart_window(window))
        .in_memory()
        .on_worker_start(move |queue, _| {
            let one_less = |left: usize| left.checked_sub(1);
            let dies = || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok();
            assert!(queue != "frail" || !dies(), "not yet");
        })
        .start()
        .await
        .unwrap()
}

#[tokio::test]
async fn a_worker_that_dies_three_times_and_then_lives_serves_the_queue() {
    let celeriac = frail(1, 3, 10, WINDOW).await;
    let results: Vec<_> = futures_util::future::join_all(
        (0..5).map(|n| add::s(n, 1).queue("frail").send(celeriac.client()).into_future()),
    )
    .await;
    for (n, result) in results.into_iter().enumerate() {
        let result = result.unwrap();
        assert_eq!(result.get(LONG).await, Ok(n as i64 + 1));
        let record = result.result().await.unwrap().unwrap();
        assert_eq!(record.attempts, 1, "a task is not to blame for a worker that does not start");
    }
    let status = until_status(&celeriac, "frail", |s| s.done == 5).await;
    assert_eq!((status.replaced, status.halted, status.requeued), (3, None, 0));
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_halted_queue_heals_when_the_cause_is_gone() {
    // Two workers, one restart borne: the second death within the window halts.
    let celeriac = frail(2, 2, 1, Duration::from_millis(300)).await;
    let waiting = add::s(1, 1).queue("frail").send(celeriac.client()).await.unwrap();
    assert_eq!(waiting.get(LONG).await, Ok(2));
    let status = until_status(&celeriac, "frail", |s| s.done == 1).await;
    assert_eq!((status.replaced, status.halted), (2, None));
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_resized_queue_staffs_its_new_slots_only() {
    let died = Arc::new(AtomicBool::new(false));
    let once = Arc::clone(&died);
    let hired = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&hired);
    let celeriac = builder()
        .in_memory()
        .on_worker_start(move |queue, _| {
            if queue == "one" {
                count.fetch_add(1, Ordering::SeqCst);
                assert!(once.swap(true, Ordering::SeqCst), "the first one dies");
            }
        })
        .start()
        .await
        .unwrap();
    assert_eq!(runs::s().send(celeriac.client()).await.unwrap().get(LONG).await, Ok(7));
    assert!(died.load(Ordering::SeqCst));
    celeriac.resize("one", 5).await.unwrap();
    until("four more are hired", async || hired.load(Ordering::SeqCst) == 6).await;
    celeriac.resize("one", 2).await.unwrap();
    celeriac.resize("one", 3).await.unwrap();
    until("one more is hired", async || hired.load(Ordering::SeqCst) == 7).await;
    let status = status_of(&celeriac, "one").await;
    assert_eq!((status.workers, status.replaced), (3, 1), "those let go are no deaths");
    celeriac.shutdown().await.unwrap();
}
