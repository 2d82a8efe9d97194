//! Many tasks are due in the same second, on the embedded store. The reference is the same number of tasks that have
//! been ready all the time in a queue that is paused until then.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use celeriac::catalogue::{Catalogue, Pool, QueueRow};
use celeriac::task;
use parking_lot::Mutex;

use super::support::figures::{Latency, Table, time};
use super::support::store::{Running, directory, fill};
use super::support::{nanos, sized};

const QUEUE: &str = "due";
const SIDE: &str = "side";
const WORKERS: usize = 64;
/// The longest that tasks are enqueued, and that their starts are waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause between two tasks of the other queue.
const PAUSE: Duration = Duration::from_millis(5);

/// When each task of the second has started, in nanoseconds.
static STARTED: Mutex<Vec<u64>> = Mutex::new(Vec::new());

#[task(name = "scale.due_now", ignore_result, queue = "due")]
async fn due_now() {
    STARTED.lock().push(nanos());
}

#[task(name = "scale.beside", ignore_result, queue = "side")]
async fn beside() {}

fn catalogue() -> Catalogue {
    let queue = |name, workers| QueueRow::new(name).with_pool(Pool::Io).with_workers(workers);
    Catalogue::new().with_queue(queue(QUEUE, WORKERS)).with_queue(queue(SIDE, 4))
}

/// How long receipts of the other queue take until something is done.
async fn receipts_until(done: impl Future<Output = ()>) -> Latency {
    let mut done = std::pin::pin!(done);
    let mut every = tokio::time::interval(PAUSE);
    let mut calls = Vec::new();
    loop {
        tokio::select! {
            () = &mut done => break,
            _ = every.tick() => calls.push(tokio::spawn(async {
                let asked = nanos();
                beside::delay().await.expect("accepted");
                nanos() - asked
            })),
        }
    }
    let mut receipts = Latency::new();
    for call in calls {
        receipts.record(call.await.expect("an enqueue ends"));
    }
    receipts
}

/// Comes back when so many have started, or at the end of the patience.
async fn started(count: u64) {
    let start = Instant::now();
    while (STARTED.lock().len() as u64) < count && start.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What a run has shown.
struct Shown {
    /// How long tasks had been due when they started.
    late: Latency,
    /// How many were enqueued, and how many of them have started.
    accepted: u64,
    started: u64,
    /// How long receipts of the other queue took before, and while the tasks started.
    before: Latency,
    meanwhile: Latency,
    /// How long it took to enqueue the tasks.
    filling: Duration,
}

/// Has so many tasks start: all when they are due, `lead` after they were enqueued, or without it when their queue
/// goes on.
async fn shown(count: u64, lead: Option<Duration>) -> Shown {
    let dir = directory();
    let running = Running::embedded(dir.path(), catalogue()).await;
    let for_a_while = tokio::time::sleep(sized(Duration::from_secs(3), Duration::from_millis(300)));
    let before = receipts_until(for_a_while).await;
    *STARTED.lock() = Vec::with_capacity(count as usize);
    let start = Instant::now();
    let (accepted, due) = match lead {
        None => {
            running.celeriac.pause(QUEUE).await.expect("it pauses");
            (fill(count, PATIENCE, |_| due_now::s()).await, None)
        }
        Some(lead) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let due = Duration::from_secs((now + lead).as_secs() + 1); // a whole second
            let at = nanos() + (due - now).as_nanos() as u64;
            let eta = UNIX_EPOCH + due;
            (fill(count, PATIENCE, move |_| due_now::s().eta(eta)).await, Some(at))
        }
    };
    let filling = start.elapsed();
    let due = match due {
        Some(at) if at > nanos() => {
            tokio::time::sleep(Duration::from_nanos(at.saturating_sub(nanos()))).await;
            at
        }
        Some(at) => {
            println!("the tasks were due before the last of them was enqueued");
            at
        }
        None => {
            let at = nanos();
            running.celeriac.resume(QUEUE).await.expect("it resumes");
            at
        }
    };
    let meanwhile = receipts_until(started(accepted)).await;
    let mut late = Latency::new();
    let starts = std::mem::take(&mut *STARTED.lock());
    starts.iter().for_each(|at| late.record(at.saturating_sub(due)));
    running.celeriac.shutdown_within(Duration::from_secs(5)).await.expect("it shuts down");
    Shown { late, accepted, started: starts.len() as u64, before, meanwhile, filling }
}

/// Measures the reference and the second.
pub async fn due() {
    let count = sized(100_000, 2_000);
    let ready = shown(count, None).await;
    let due = shown(count, Some(2 * ready.filling + sized(Duration::from_secs(2), Duration::ZERO))).await;
    let mut table = Table::new(&["tasks", "", "started", "late p50", "p95", "p99", "the last"]);
    let mut others = Table::new(&["receipts of another queue", "p50", "p95", "p99", "max"]);
    for (what, shown) in [("ready, from when their queue goes on", &ready), ("due in one second", &due)] {
        let before = [shown.accepted.to_string(), what.to_owned(), shown.started.to_string()].to_vec();
        table.row([before, shown.late.cells().to_vec()].concat());
        for (when, receipts) in [("before", &shown.before), ("while they start", &shown.meanwhile)] {
            others.row([vec![format!("{what}: {when}")], receipts.cells().to_vec()].concat());
        }
    }
    table.print(&format!("`same-second`: how late tasks start, on {WORKERS} workers"));
    others.print("What an enqueue notices of it");
    let times = due.late.max().as_secs_f64() / ready.late.max().as_secs_f64().max(1e-6);
    println!(
        "\nthe last one due in that second starts {} late, {times:.1} times as late as the last of the ready ones",
        time(due.late.max())
    );
}
