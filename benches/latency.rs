//! How long a task waits before it starts: `cargo bench --bench latency [-- --quick]`.
//!
//! From the receipt to the start is what the runtime adds once the disk is done; from the enqueue to the start is what
//! the caller's task waits in all. The limit beside them is a bare group-commit log: one record synced, alone.

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use celeriac::task;
use support::figures::{Latency, Series, Table, goal, time};
use support::store::{Running, directory, one_queue};
use support::{bare_log, headline, nanos, rounds, sized, span};

const QUEUE: &str = "prompt";
/// No run has more tasks than this.
const TASKS: usize = 1 << 20;

/// When each task's body began.
static STARTED: [AtomicU64; TASKS] = [const { AtomicU64::new(0) }; TASKS];
static TAKEN: AtomicU64 = AtomicU64::new(0);

#[task(ignore_result, queue = "prompt")]
async fn stamp(index: usize) {
    STARTED[index].store(nanos(), Ordering::Release);
}

/// A task as its producer saw it.
struct Seen {
    index: usize,
    asked: u64,
    receipt: u64,
}

async fn enqueue(countdown: Option<Duration>) -> Seen {
    let index = TAKEN.fetch_add(1, Ordering::Relaxed) as usize % TASKS;
    STARTED[index].store(0, Ordering::Relaxed);
    let asked = nanos();
    let call = stamp::s(index);
    let call = if let Some(after) = countdown { call.countdown(after) } else { call };
    call.delay().await.expect("accepted");
    Seen { index, asked, receipt: nanos() }
}

/// A task every `pause`, whatever becomes of the one before.
async fn steadily(count: u32, pause: Duration) -> Vec<Seen> {
    let mut ticks = tokio::time::interval(pause);
    let mut enqueues = Vec::new();
    for _ in 0..count {
        ticks.tick().await;
        enqueues.push(tokio::spawn(enqueue(None)));
    }
    let mut seen = Vec::new();
    for enqueue in enqueues {
        seen.push(enqueue.await.expect("an enqueue ends"));
    }
    seen
}

/// Each producer enqueues as soon as it has the receipt for the one before.
async fn eagerly(producers: usize, span: Duration) -> Vec<Seen> {
    let start = Instant::now();
    let mut producing = Vec::new();
    for _ in 0..producers {
        producing.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            while start.elapsed() < span && seen.len() < TASKS / 64 {
                seen.push(enqueue(None).await);
            }
            seen
        }));
    }
    let mut all = Vec::new();
    for producer in producing {
        all.extend(producer.await.expect("a producer ends"));
    }
    all
}

/// From the receipt and from the enqueue to the start.
struct Waits {
    receipt: Latency,
    enqueue: Latency,
    /// The middle of each round, in seconds, from the receipt.
    middles: Series,
}

impl Waits {
    fn new() -> Self {
        Self { receipt: Latency::new(), enqueue: Latency::new(), middles: Series::default() }
    }

    fn record(&mut self, seen: &[Seen]) {
        let mut round = Latency::new();
        for task in seen {
            let started = STARTED[task.index].load(Ordering::Acquire);
            assert_ne!(started, 0, "it ran");
            // The delivery leaves before the receipt does: a body may well start before its producer wakes.
            let since_receipt = started.saturating_sub(task.receipt);
            round.record(since_receipt);
            self.receipt.record(since_receipt);
            self.enqueue.record(started.saturating_sub(task.asked));
        }
        self.middles.push(round.quantile(0.5).as_secs_f64());
    }
}

async fn start(durable: bool) -> (Running, tempfile::TempDir) {
    let dir = directory();
    let catalogue = one_queue(QUEUE, 64);
    let running = if durable {
        Running::embedded(dir.path(), catalogue).await
    } else {
        Running::memory(catalogue).await
    };
    (running, dir)
}

async fn waits() {
    let cases = [
        ("memory, 200 a second", false, 0),
        ("memory, 64 producers", false, 64),
        ("durable, 200 a second", true, 0),
        ("durable, 1 producer", true, 1),
        ("durable, 64 producers", true, 64),
    ];
    let mut all: Vec<Waits> = cases.iter().map(|_| Waits::new()).collect();
    let mut log = Series::default();
    for _ in 0..rounds() {
        for ((_, durable, producers), waits) in cases.iter().zip(&mut all) {
            let (running, _dir) = start(*durable).await;
            steadily(20, Duration::from_millis(1)).await; // to have everything once in memory
            let seen = match producers {
                // In memory nothing holds a producer back: a short while fills the queue.
                64 if !durable => eagerly(64, span() / 24).await,
                0 => steadily(sized(600, 60), Duration::from_millis(5)).await,
                n => eagerly(*n, span()).await,
            };
            running.settled(QUEUE).await;
            waits.record(&seen);
            running.shutdown().await;
        }
        log.push(bare_log::run(directory().path(), 1, 300, 0, span() / 2).await.recip());
    }
    let mut table = Table::new(&["", "from", "p50", "p95", "p99", "max", "goal"]);
    for ((name, durable, _), waits) in cases.iter().zip(&all) {
        let met = waits.middles.median() < 1e-3;
        let goal = if *durable { goal(met, "p50 under 1 ms") } else { "-".to_owned() };
        let row = |from: &str, cells: [String; 4], goal: String| {
            [vec![(*name).to_owned(), from.to_owned()], cells.to_vec(), vec![goal]].concat()
        };
        table.row(row("receipt", waits.receipt.cells(), goal));
        table.row(row("enqueue", waits.enqueue.cells(), String::new()));
    }
    let log = log.show(|seconds| time(Duration::from_secs_f64(seconds)));
    table.print(&format!(
        "Until a task starts. The limit for a durable enqueue: a bare log syncs one record in {log}"
    ));
}

/// How exactly a countdown is kept.
async fn countdowns() {
    let after = sized(Duration::from_millis(500), Duration::from_millis(100));
    let mut late = [Latency::new(), Latency::new()];
    for _ in 0..rounds() {
        for (durable, late) in [false, true].into_iter().zip(&mut late) {
            let (running, _dir) = start(durable).await;
            let mut seen = Vec::new();
            for _ in 0..sized(200, 20) {
                seen.push(enqueue(Some(after)).await);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            running.settled(QUEUE).await;
            for task in &seen {
                let waited = STARTED[task.index].load(Ordering::Acquire).saturating_sub(task.asked);
                late.record(waited.saturating_sub(after.as_nanos() as u64));
            }
            running.shutdown().await;
        }
    }
    let mut table = Table::new(&["", "p50", "p95", "p99", "max"]);
    for (name, late) in ["memory", "durable"].into_iter().zip(&late) {
        table.row([vec![name.to_owned()], late.cells().to_vec()].concat());
    }
    table.print(&format!("How late a task with a countdown of {} starts", time(after)));
}

#[tokio::main]
async fn main() {
    headline("latency");
    waits().await;
    countdowns().await;
}
