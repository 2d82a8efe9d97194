//! A million waiting tasks, or ten million: `cargo bench --bench waiting [-- --quick | 10M]`.
//!
//! What they take in memory and on disk, how long a restart takes with them, whether an urgent task has to wait for
//! them, and whether the last of them are drained as fast as the first. Each question is put to an empty store, too.
//! What a fresh process shows is measured in one: this program starts itself for it. Of more tasks than the disk
//! takes, or than are enqueued within four minutes, there are as many as that, and it says so.

mod support;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use celeriac::catalogue::{Catalogue, Pool, QueueRow};
use celeriac::task;
use support::figures::{Latency, Table, percent, rate, time};
use support::process::{disk, most_resident, resident, size};
use support::store::{Running, directory, fitting};
use support::{bare_log, headline, nanos, sized, span};

const DEEP: &str = "deep";
const SIDE: &str = "side";
const PRODUCERS: usize = 512;
/// The longest that tasks are enqueued.
const FILL: Duration = Duration::from_secs(240);
/// Few workers on tasks of 2 ms: one of them is free twice a millisecond.
const WORKERS: usize = 4;
const BUSY: u64 = 2;

static RUN: AtomicU64 = AtomicU64::new(0);
static BEGAN: AtomicU64 = AtomicU64::new(0);
static URGENT: AtomicU64 = AtomicU64::new(0);
/// Whether the bodies of waiting tasks take their time.
static SLOW: AtomicU64 = AtomicU64::new(1);

#[task(ignore_result, queue = "deep")]
async fn backlog(_payload: String) {
    let _ = BEGAN.compare_exchange(0, nanos(), Ordering::AcqRel, Ordering::Relaxed);
    if SLOW.load(Ordering::Relaxed) > 0 {
        tokio::time::sleep(Duration::from_millis(BUSY)).await;
    }
    RUN.fetch_add(1, Ordering::Relaxed);
}

#[task(ignore_result, queue = "deep")]
async fn urgent() {
    URGENT.store(nanos(), Ordering::Release);
}

fn catalogue(workers: usize) -> Catalogue {
    let queue = |name| QueueRow::new(name).with_pool(Pool::Io).with_workers(workers);
    Catalogue::new().with_queue(queue(DEEP)).with_queue(queue(SIDE))
}

/// Enqueues so many tasks, or as many as there is time for. Answers with their number, and how long it took.
async fn fill(count: u64) -> (u64, Duration) {
    let start = Instant::now();
    let left = Arc::new(AtomicU64::new(count));
    let mut producing = Vec::new();
    for _ in 0..PRODUCERS {
        let left = Arc::clone(&left);
        let is_left =
            move || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
        producing.push(tokio::spawn(async move {
            let mut filled = 0_u64;
            while start.elapsed() < FILL && is_left() {
                backlog::delay("x".repeat(130)).await.expect("accepted");
                filled += 1;
            }
            filled
        }));
    }
    let mut filled = 0;
    for producer in producing {
        filled += producer.await.expect("a producer ends");
    }
    (filled, start.elapsed())
}

/// Urgent tasks, one after the other, from the enqueue to the start.
async fn urgently(queue: &str, count: usize) -> Latency {
    let mut waits = Latency::new();
    for _ in 0..count {
        URGENT.store(0, Ordering::Release);
        let asked = nanos();
        urgent::s().queue(queue).priority(9).delay().await.expect("accepted");
        let started = loop {
            match URGENT.load(Ordering::Acquire) {
                0 => tokio::time::sleep(Duration::from_micros(200)).await,
                at => break at,
            }
        };
        waits.record(started - asked);
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    waits
}

/// Starts this program anew on the store, which says how it went, and ends without running much.
fn reopen(dir: &Path) -> Reopened {
    let program = std::env::current_exe().expect("this program has a path");
    let told = Command::new(program).arg("--reopen").arg(dir).output().expect("it starts once more");
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    match numbers[..] {
        [open, first, resident] => {
            Reopened { open: Duration::from_nanos(open), first: Duration::from_nanos(first), resident }
        }
        _ => panic!("the second process said: {text}{}", String::from_utf8_lossy(&told.stderr)),
    }
}

struct Reopened {
    open: Duration,
    first: Duration,
    resident: u64,
}

/// The other side of [`reopen`]: nanoseconds until the runtime is up and until the first task starts, bytes resident.
async fn reopened(dir: &Path) {
    let asked = nanos();
    let running = Running::embedded(dir, catalogue(WORKERS)).await;
    let open = nanos() - asked;
    let waiting = running.broker.counts(DEEP).await.expect("the broker counts");
    if waiting.ready + waiting.unsettled == 0 {
        backlog::delay(String::new()).await.expect("accepted");
    }
    while BEGAN.load(Ordering::Acquire) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let first = BEGAN.load(Ordering::Acquire) - asked;
    tokio::time::sleep(Duration::from_millis(300)).await; // some tasks run
    println!("{open} {first} {}", resident());
    running.shutdown().await;
}

/// Lets what waits run as fast as it goes, or has the tasks take their time on few workers.
async fn hurry(running: &Running, hurries: bool) {
    SLOW.store(u64::from(!hurries), Ordering::Relaxed);
    running.celeriac.resize(DEEP, if hurries { 64 } else { WORKERS }).await.expect("it resizes");
    running.celeriac.resume(DEEP).await.expect("it resumes");
}

/// Comes back when `count` more have run, and answers with the rate of each of so many `parts` of them.
async fn drain(count: u64, parts: u64) -> Vec<f64> {
    let mut rates = Vec::new();
    let first = RUN.load(Ordering::Relaxed);
    let (mut before, mut since) = (first, Instant::now());
    for part in 1..=parts {
        while RUN.load(Ordering::Relaxed) - first < count * part / parts {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (done, now) = (RUN.load(Ordering::Relaxed), Instant::now());
        rates.push((done - before) as f64 / (now - since).as_secs_f64());
        (before, since) = (done, now);
    }
    rates
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip_while(|arg| arg != "--reopen");
    if let (Some(_), Some(dir)) = (args.next(), args.next()) {
        return reopened(Path::new(&dir)).await;
    }
    headline("waiting");
    let is_large = std::env::args().any(|argument| argument == "10M");
    let urgents = sized(200, 20);
    let dir = directory();
    let wanted = fitting(dir.path(), if is_large { 10_000_000 } else { sized(1_000_000, 20_000) });
    let empty = reopen(dir.path());
    let limit = bare_log::run(directory().path(), PRODUCERS, 300, 0, span()).await.rate;

    let running = Running::embedded(dir.path(), catalogue(WORKERS)).await;
    let mut starts = Table::new(&["an urgent task, from enqueue to start", "p50", "p95", "p99", "max"]);
    let mut row =
        |name: &str, waits: Latency| starts.row([vec![name.to_owned()], waits.cells().to_vec()].concat());
    row("in an empty queue", urgently(DEEP, urgents).await);
    let before = resident();
    fill(sized(2_000, 300)).await; // they last longer than the urgent ones
    row("in a queue whose workers are busy, little waiting", urgently(DEEP, urgents / 2).await);
    running.settled(DEEP).await;

    running.celeriac.pause(DEEP).await.expect("it pauses");
    let (count, filling) = fill(wanted).await;
    if count < wanted {
        println!("{} are over: {count} of {wanted} tasks are enqueued", time(FILL));
    }
    let (after, on_disk) = (resident(), disk(dir.path()));
    row("in another queue of the store, all waiting", urgently(SIDE, urgents).await);
    running.celeriac.resume(DEEP).await.expect("it resumes");
    row("in a queue whose workers are busy, all waiting", urgently(DEEP, urgents).await);
    running.celeriac.pause(DEEP).await.expect("it pauses");
    running.shutdown().await;
    let full = reopen(dir.path());

    let running = Running::embedded(dir.path(), catalogue(WORKERS)).await;
    running.celeriac.pause(DEEP).await.expect("it pauses");
    let left = running.broker.counts(DEEP).await.expect("the broker counts");
    let left = left.ready + left.unsettled;
    hurry(&running, true).await;
    let mut rates = drain(left / 2, 5).await;
    hurry(&running, false).await;
    row("the same, when half of it has run", urgently(DEEP, urgents).await);
    hurry(&running, true).await;
    rates.extend(drain(left * 2 / 5, 5).await);
    running.settled(DEEP).await;
    let drained = disk(dir.path());
    running.shutdown().await;

    let each = |bytes: u64| format!("{:.0} B each", bytes as f64 / count as f64);
    let mut table = Table::new(&[&format!("{count} waiting tasks of some 300 B"), "", "beside"]);
    let filled = count as f64 / filling.as_secs_f64();
    table.row([
        "enqueued by 512 producers".to_owned(),
        format!("{}, {}", time(filling), rate(filled)),
        format!("{} of a bare log's {}", percent(filled / limit), rate(limit)),
    ]);
    table.row([
        "memory, in the process that enqueued them".to_owned(),
        format!("{} more, {}", size(after.saturating_sub(before)), each(after.saturating_sub(before))),
        format!("{} before, at most {}", size(before), size(most_resident())),
    ]);
    table.row([
        "memory, in a fresh process that runs them".to_owned(),
        format!("{}, {}", size(full.resident), each(full.resident.saturating_sub(empty.resident))),
        format!("{} with an empty store", size(empty.resident)),
    ]);
    table.row([
        "disk".to_owned(),
        format!("{}, {}", size(on_disk), each(on_disk)),
        format!("{} when drained", size(drained)),
    ]);
    table.row([
        "restart: until the runtime is up".to_owned(),
        time(full.open),
        format!("{} with an empty store", time(empty.open)),
    ]);
    table.row([
        "restart: until the first task starts".to_owned(),
        time(full.first),
        format!("{} with an empty store", time(empty.first)),
    ]);
    table.print("What a deep backlog costs");
    starts.print("Whether it is in the way (4 workers, tasks of 2 ms)");
    let parts: Vec<String> = rates.iter().map(|part| rate(*part)).collect();
    println!("\nDrained by 64 workers, tenth by tenth: {}", parts.join(", "));
}
