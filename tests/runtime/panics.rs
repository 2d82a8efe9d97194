//! A panic costs one attempt of one task: ten thousand of them, of every kind, among ten thousand good tasks.

use std::panic::panic_any;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use celeriac::catalogue::{Pool, QueueRow};
use celeriac::task::HookEvent;
use celeriac::{AsyncResult, Celeriac, Context, GetError, State, task};

use crate::kit::{LONG, add, add_cpu, io_queue, on_both, quiet, resident, status_of, until, until_status};

/// Its message is a panic in its drop.
struct Spiteful;

impl Drop for Spiteful {
    fn drop(&mut self) {
        panic!("in the payload's drop");
    }
}

struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        panic!("bad: in the drop of a local");
    }
}

/// Panics before its first await.
#[task(queue = "io", max_retries = 1, default_retry_delay = 0.001)]
async fn at_once() {
    panic!("bad: before the first await");
}

#[task(queue = "io", max_retries = 1, default_retry_delay = 0.001)]
async fn after_await(n: usize) {
    tokio::task::yield_now().await;
    panic!("bad: after an await, number {n}");
}

#[task(queue = "io", max_retries = 1, default_retry_delay = 0.001)]
async fn in_drop() -> u32 {
    let _held = PanicsInDrop;
    tokio::task::yield_now().await;
    7 // it returns well, and then drops what it held
}

#[task(queue = "io", max_retries = 1, default_retry_delay = 0.001, before_start = bad_hook)]
async fn in_hook() {}

fn bad_hook(_: &Context, _: &HookEvent) {
    panic!("bad: in the hook");
}

#[task(queue = "cpu", max_retries = 1, default_retry_delay = 0.001)]
fn on_a_thread() {
    panic!("bad: on a thread");
}

#[task(queue = "io", max_retries = 1, default_retry_delay = 0.001)]
async fn with_spite() {
    panic_any(Spiteful);
}

#[task(queue = "cpu", max_retries = 1, default_retry_delay = 0.001)]
fn with_spite_on_a_thread() {
    panic_any(Spiteful);
}

async fn fails<T: celeriac::task::Task>(result: AsyncResult<T>, message: &str) {
    let Err(GetError::Ended(record)) = result.get(LONG).await else { panic!("it should have failed") };
    assert_eq!(record.state, State::Failure, "{}", record.task);
    assert_eq!(record.errors, [message], "{}", record.task);
    assert_eq!((record.error_type.as_deref(), record.attempts), (Some("Panic"), 2), "{}", record.task);
}

#[tokio::test]
async fn every_kind_of_panic_is_a_failure_with_its_message() {
    on_both(|celeriac| async move {
        let bad = async |n: usize| one_bad(&celeriac, n).await;
        for n in 0..BAD_KINDS {
            bad(n).await;
        }
        // An async body that panics on a thread.
        let elsewhere = after_await::s(1).queue("cpu").send(celeriac.client()).await.unwrap();
        fails(elsewhere, "bad: after an await, number 1").await;
        let io = until_status(&celeriac, "io", |s| s.failed == 5).await;
        assert_eq!((io.panics, io.retried, io.replaced, io.halted), (10, 5, 10, None));
        assert_eq!(add::s(1, 1).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(2));
    })
    .await;
}

const BAD_KINDS: usize = 7;

/// Sends the bad task of this number and waits for its end.
async fn one_bad(celeriac: &Celeriac, n: usize) {
    let client = celeriac.client();
    let sent = "it is accepted";
    match n % BAD_KINDS {
        0 => fails(at_once::s().send(client).await.expect(sent), "bad: before the first await").await,
        1 => {
            let message = format!("bad: after an await, number {n}");
            fails(after_await::s(n).send(client).await.expect(sent), &message).await;
        }
        2 => fails(in_drop::s().send(client).await.expect(sent), "bad: in the drop of a local").await,
        3 => fails(in_hook::s().send(client).await.expect(sent), "bad: in the hook").await,
        4 => fails(on_a_thread::s().send(client).await.expect(sent), "bad: on a thread").await,
        5 => fails(with_spite::s().send(client).await.expect(sent), "a panic without a message").await,
        _ => {
            let result = with_spite_on_a_thread::s().send(client).await.expect(sent);
            fails(result, "a panic without a message").await;
        }
    }
}

async fn one_good(celeriac: &Celeriac, n: usize) {
    let (a, b) = (i64::try_from(n).unwrap(), 1);
    let client = celeriac.client();
    let sum = if n.is_multiple_of(4) {
        add_cpu::s(a, b).send(client).await.unwrap().get(LONG).await
    } else {
        add::s(a, b).send(client).await.unwrap().get(LONG).await
    };
    assert_eq!(sum, Ok(a + b));
}

/// Sends so many bad and as many good tasks, from a few hundred producers.
async fn storm(celeriac: &Celeriac, each: usize) {
    const PRODUCERS: usize = 250;
    let (bad, good) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let produce = async || {
        loop {
            let n = bad.fetch_add(1, Ordering::Relaxed);
            if n >= each {
                return;
            }
            one_bad(celeriac, n).await;
            one_good(celeriac, good.fetch_add(1, Ordering::Relaxed)).await;
        }
    };
    futures_util::future::join_all((0..PRODUCERS).map(|_| produce())).await;
    assert_eq!(good.load(Ordering::Relaxed), each);
}

#[test]
fn ten_thousand_panics_among_ten_thousand_good_tasks() {
    crate::kit::alone("panics::ten_thousand_panics_in_a_process_of_their_own");
}

#[tokio::test]
#[ignore = "weighs the process; `ten_thousand_panics_among_ten_thousand_good_tasks` runs it in one of its own"]
async fn ten_thousand_panics_in_a_process_of_their_own() {
    const EACH: usize = 10_000;
    quiet();
    let dir = tempfile::tempdir().unwrap();
    let celeriac = Celeriac::builder()
        .queue(io_queue("io", 50))
        .queue(QueueRow::new("cpu").with_pool(Pool::Cpu).with_workers(4))
        .directory(dir.path())
        .start()
        .await
        .unwrap();
    storm(&celeriac, EACH / 20).await; // fills caches and pools, so that what follows can be compared
    let (before, start) = (resident(), Instant::now());
    storm(&celeriac, EACH).await;
    let (after, took) = (resident(), start.elapsed());
    println!(
        "{EACH} panicking and {EACH} good tasks: {took:?}, VmRSS {before} kB before and {after} kB after"
    );

    let all = (EACH + EACH / 20) as u64;
    let mut good = 0;
    let mut bad = 0;
    for (queue, workers) in [("io", 50), ("cpu", 4)] {
        let status = until_status(&celeriac, queue, |s| s.running == 0).await;
        assert_eq!(
            (status.workers, status.stuck, status.ready, status.scheduled),
            (workers, 0, 0, 0),
            "{queue}"
        );
        assert_eq!((status.halted, status.dead), (None, 0), "panics of tasks are no fault of the workers");
        assert_eq!((status.panics, status.retried), (2 * status.failed, status.failed), "{queue}");
        assert_eq!(status.replaced, status.panics, "{queue}");
        (good, bad) = (good + status.done, bad + status.failed);
    }
    assert_eq!((good, bad), (all, all));
    // Results are on disk, so what may stay is the store's write buffer of 64 MiB, and some caches.
    assert!(after < before + 100_000, "{before} kB before, {after} kB after");

    // All workers are there: as many bodies as that can be inside at once.
    let gate = crate::kit::Gate::new();
    for _ in 0..60 {
        crate::kit::hold::s(gate.name.clone()).ignore_result(true).send(celeriac.client()).await.unwrap();
    }
    gate.entered(50).await;
    gate.open();
    gate.left(60).await;
    assert_eq!(gate.gauge.most(), 50);
    until("it is quiet", async || status_of(&celeriac, "io").await.running == 0).await;
    let report = celeriac.shutdown_within(Duration::from_secs(30)).await.unwrap();
    assert!(report.drained);
}
