//! Serial tasks: `cargo bench --bench serial [-- --quick]`.
//!
//! - what one costs whose lane is free, beside a plain one: the goal is 1.2 times, in CPU and in rate;
//! - what one costs that has to wait in line;
//! - what a long line takes in memory and on disk, and what keys take that nobody uses.

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use celeriac::{serial_task, task};
use support::done::{Done, Rounds, Watch};
use support::figures::{Table, goal, micros, percent, rate};
use support::process::{disk, resident, size};
use support::store::{Running, directory, one_queue};
use support::{headline, rounds, sized, span};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const QUEUE: &str = "fast";
const WORKERS: usize = 64;
const ARGUMENT: usize = 130;
/// Keys of the case in which runs wait for each other.
const FEW: u64 = 16;

static RUN: AtomicU64 = AtomicU64::new(0);
static KEYS: AtomicU64 = AtomicU64::new(0);

#[task(ignore_result, queue = "fast")]
async fn plain(_key: u64, _payload: String) {
    RUN.fetch_add(1, Ordering::Relaxed);
}

#[serial_task(key = "{key}", ignore_result, queue = "fast")]
async fn serial(key: u64, _payload: String) {
    RUN.fetch_add(1, Ordering::Relaxed);
}

#[derive(Clone, Copy)]
enum Kind {
    Plain,
    /// Each of a key of its own.
    Free,
    /// All of a few keys.
    InLine,
}

async fn one(kind: Kind, payload: String) {
    let key = KEYS.fetch_add(1, Ordering::Relaxed);
    match kind {
        Kind::Plain => drop(plain::delay(key, payload).await.expect("accepted")),
        Kind::Free => drop(serial::delay(key, payload).await.expect("accepted")),
        Kind::InLine => drop(serial::delay(key % FEW, payload).await.expect("accepted")),
    }
}

/// Accepted, run and settled.
async fn end_to_end(kind: Kind, producers: usize, durable: bool) -> Done {
    let dir = directory();
    let catalogue = one_queue(QUEUE, WORKERS);
    let running = match durable {
        true => Running::embedded(dir.path(), catalogue).await,
        false => Running::memory(catalogue).await,
    };
    RUN.store(0, Ordering::Relaxed);
    let (watch, start, span) = (Watch::start(), Instant::now(), span());
    let mut producing = Vec::new();
    for _ in 0..producers {
        producing.push(tokio::spawn(async move {
            let mut accepted = 0;
            while start.elapsed() < span {
                one(kind, "x".repeat(ARGUMENT)).await;
                accepted += 1;
            }
            accepted
        }));
    }
    let mut accepted = 0;
    for producer in producing {
        accepted += producer.await.expect("a producer ends");
    }
    running.settled(QUEUE).await;
    assert_eq!(RUN.load(Ordering::Relaxed), accepted, "every accepted task ran once");
    let done = watch.stop(accepted);
    running.shutdown().await;
    done
}

async fn beside_a_plain_one() {
    let mut table = Table::new(&["", "plain", "own key", "in line", "own key, CPU", "in line, CPU", "goal"]);
    for (name, producers, durable) in
        [("in memory, 64 producers", 64, false), ("durable, 64", 64, true), ("durable, 512", 512, true)]
    {
        let mut cases: [Rounds; 3] = Default::default();
        for _ in 0..rounds() {
            for (case, kind) in cases.iter_mut().zip([Kind::Plain, Kind::Free, Kind::InLine]) {
                case.push(end_to_end(kind, producers, durable).await);
            }
        }
        let [plain, free, line] = &cases;
        let shown = |case: &Rounds| format!("{}, {}", case.rate.show(rate), case.cpu.show(micros));
        let cost = free.cpu.over(&plain.cpu);
        let verdict = goal(cost.median() <= 1.2, "120% of the CPU of a plain one");
        let of_plain = line.cpu.over(&plain.cpu).show(percent);
        let cells =
            [name.to_owned(), shown(plain), shown(free), shown(line), cost.show(percent), of_plain, verdict];
        table.row(cells);
    }
    table.print("A serial task beside a plain one: accepted, run, settled");
}

/// A line of many behind a stopped lane, and then keys that were used once.
async fn what_it_takes() {
    let dir = directory();
    let running = Running::embedded(dir.path(), one_queue(QUEUE, WORKERS)).await;
    let lane = "serial::serial";
    let fill = async |count: u64, key: fn(u64) -> u64| {
        let mut producing = Vec::new();
        for producer in 0..512 {
            producing.push(tokio::spawn(async move {
                for n in (producer..count).step_by(512) {
                    drop(serial::delay(key(n), "x".repeat(ARGUMENT)).await.expect("accepted"));
                }
            }));
        }
        for producer in producing {
            producer.await.expect("a producer ends");
        }
    };
    // The database's own memory fills first.
    fill(sized(200_000, 2_000), |n| n).await;
    running.settled(QUEUE).await;
    let (count, before, on_disk) = (sized(500_000, 5_000), resident(), disk(dir.path()));
    fill(count, |n| n + 1_000_000).await;
    running.settled(QUEUE).await;
    let idle = (resident(), disk(dir.path()), running.celeriac.lanes(10).await.expect("lanes").len());
    running.celeriac.set_concurrency(lane, "0", Some(0)).await.expect("a lever");
    fill(count, |_| 0).await;
    let waiting = running.broker.counts(QUEUE).await.expect("counts").in_line;
    let line = (resident(), disk(dir.path()));
    let start = Instant::now();
    running.celeriac.set_concurrency(lane, "0", None).await.expect("a lever");
    running.settled(QUEUE).await;
    let drained = count as f64 / start.elapsed().as_secs_f64();
    let mut table = Table::new(&["", "number", "resident", "on disk"]);
    table.row(["before".to_owned(), String::new(), size(before), size(on_disk)]);
    table.row(["keys used once, idle".to_owned(), count.to_string(), size(idle.0), size(idle.1)]);
    table.row(["runs in one line".to_owned(), waiting.to_string(), size(line.0), size(line.1)]);
    table.print(&format!(
        "What waits and what is idle ({} lanes are kept of the idle ones); the line is drained with {}",
        idle.2,
        rate(drained)
    ));
    running.shutdown().await;
}

#[tokio::main]
async fn main() {
    headline("serial");
    beside_a_plain_one().await;
    tokio::time::timeout(Duration::from_secs(3600), what_it_takes()).await.expect("it comes to an end");
}
