//! Tasks that wait, tasks that compute, and both on one event loop: `cargo bench --bench io_bound [-- --quick]`.

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use celeriac::broker::embedded::EmbeddedOptions;
use celeriac::catalogue::{Catalogue, Pool, QueueRow};
use celeriac::{Celeriac, task};
use support::figures::{Latency, Series, Table, goal, rate, time};
use support::store::{Running, directory, one_queue};
use support::{headline, nanos, rounds, sized};

const SLEEP: Duration = Duration::from_millis(50);
const WORKERS: usize = 500;

static NOW: AtomicU64 = AtomicU64::new(0);
static MOST: AtomicU64 = AtomicU64::new(0);
static BEAT: AtomicU64 = AtomicU64::new(0);
static ROUNDS: AtomicU64 = AtomicU64::new(0);

#[task(ignore_result, queue = "waiting")]
async fn wait() {
    let now = NOW.fetch_add(1, Ordering::AcqRel) + 1;
    MOST.fetch_max(now, Ordering::AcqRel);
    tokio::time::sleep(SLEEP).await;
    NOW.fetch_sub(1, Ordering::AcqRel);
}

#[task(ignore_result, queue = "computing")]
fn compute(millis: u64) {
    ROUNDS.fetch_add(spin(Duration::from_millis(millis)), Ordering::Relaxed);
}

#[task(ignore_result, queue = "heartbeat")]
async fn beat() {
    BEAT.store(nanos(), Ordering::Release);
}

/// Computes for so long; how much was done.
fn spin(span: Duration) -> u64 {
    let start = Instant::now();
    let mut rounds = 0_u64;
    while start.elapsed() < span {
        rounds += 1;
        std::hint::black_box((0..2000_u64).fold(rounds, |a, b| a.wrapping_mul(31).wrapping_add(b)));
    }
    rounds
}

/// The same sleeps on bare tokio behind a semaphore: what the timer and the cores allow.
async fn bare(count: usize) -> f64 {
    let slots = std::sync::Arc::new(tokio::sync::Semaphore::new(WORKERS));
    let start = Instant::now();
    let mut running = Vec::new();
    for _ in 0..count {
        let slot = slots.clone().acquire_owned().await.expect("the semaphore is open");
        running.push(tokio::spawn(async move {
            tokio::time::sleep(SLEEP).await;
            drop(slot);
        }));
    }
    for task in running {
        task.await.expect("a sleep ends");
    }
    start.elapsed().as_secs_f64()
}

/// All are waiting when the queue is let go; seconds until the last is settled.
async fn sleeping(count: usize, durable: bool) -> f64 {
    let dir = directory();
    let catalogue = one_queue("waiting", WORKERS);
    let running = if durable {
        Running::embedded(dir.path(), catalogue).await
    } else {
        Running::memory(catalogue).await
    };
    running.celeriac.pause("waiting").await.expect("it pauses");
    let mut producing = Vec::new();
    for n in 0..100 {
        let share = count / 100 + usize::from(n < count % 100);
        producing.push(tokio::spawn(async move {
            for _ in 0..share {
                wait::delay().await.expect("accepted");
            }
        }));
    }
    for producer in producing {
        producer.await.expect("a producer ends");
    }
    let start = Instant::now();
    running.celeriac.resume("waiting").await.expect("it resumes");
    running.settled("waiting").await;
    let took = start.elapsed().as_secs_f64();
    running.shutdown().await;
    took
}

async fn io() {
    let count = sized(10_000, 1_000);
    let ideal = count as f64 * SLEEP.as_secs_f64() / WORKERS as f64;
    let mut cases: [Series; 3] = Default::default();
    for _ in 0..rounds() {
        cases[0].push(bare(count).await);
        cases[1].push(sleeping(count, false).await);
        cases[2].push(sleeping(count, true).await);
    }
    assert!(MOST.load(Ordering::Relaxed) <= WORKERS as u64, "no more bodies at once than workers");
    let seconds = |s: f64| time(Duration::from_secs_f64(s));
    let mut table = Table::new(&["", "until all are settled", "of the ideal", "goal"]);
    for (name, series) in ["bare tokio and a semaphore", "memory", "durable"].into_iter().zip(&cases) {
        let goal = match name {
            "durable" => goal(series.median() <= 1.3 * ideal, "1.3 x the ideal"),
            _ => "-".to_owned(),
        };
        table.row([name.to_owned(), series.show(seconds), format!("{:.2} x", series.median() / ideal), goal]);
    }
    table.print(&format!(
        "{count} waiting tasks that sleep {} on {WORKERS} workers: ideal {}, most at once {}",
        time(SLEEP),
        seconds(ideal),
        MOST.load(Ordering::Relaxed)
    ));
}

/// One event loop for a heartbeat and for the queue whose two workers compute on every core.
async fn neighbours() {
    let dir = directory();
    let queue = |name, pool, workers| QueueRow::new(name).with_pool(pool).with_workers(workers);
    let catalogue = Catalogue::new().with_queue(queue("heartbeat", Pool::Io, 2)).with_queue(queue(
        "computing",
        Pool::Cpu,
        2,
    ));
    let options = EmbeddedOptions::default();
    let builder = Celeriac::builder().catalogue(catalogue).directory(dir.path()).embedded_options(options);
    let celeriac = builder.arbiters(1).start().await.expect("the runtime starts");
    let beats = sized(150, 20);
    let quiet = heartbeat(beats).await;

    // The limit: two bare threads that compute as long.
    let millis = 100;
    let tasks = sized(60, 6);
    let bare = tokio::task::spawn_blocking(move || {
        let start = Instant::now();
        let threads: Vec<_> = (0..2)
            .map(|_| {
                std::thread::spawn(move || {
                    (0..tasks / 2).map(|_| spin(Duration::from_millis(millis))).sum::<u64>()
                })
            })
            .collect();
        let rounds: u64 = threads.into_iter().map(|t| t.join().expect("it computes")).sum();
        rounds as f64 / start.elapsed().as_secs_f64()
    });
    let bare = bare.await.expect("the threads end");

    let start = Instant::now();
    for _ in 0..tasks {
        compute::delay(millis).await.expect("accepted");
    }
    let noisy = heartbeat(beats).await;
    while celeriac.queue("computing").await.expect("it answers").done < tasks as u64 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let done = ROUNDS.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
    celeriac.shutdown().await.expect("it shuts down");

    let mut table = Table::new(&["a durable heartbeat, from enqueue to start", "p50", "p95", "p99", "max"]);
    table.row([vec!["alone".to_owned()], quiet.cells().to_vec()].concat());
    table.row(
        [vec!["while two workers compute on the same event loop's queue".to_owned()], noisy.cells().to_vec()]
            .concat(),
    );
    table.print("Noisy neighbours: one event loop, a cpu queue that has both cores busy");
    println!(
        "\nThe two computed at {} rounds, two bare threads at {}: {:.0}% (heartbeats included)",
        rate(done),
        rate(bare),
        done / bare * 100.0
    );
}

async fn heartbeat(count: usize) -> Latency {
    let mut waits = Latency::new();
    for _ in 0..count {
        BEAT.store(0, Ordering::Release);
        let asked = nanos();
        beat::delay().await.expect("accepted");
        let started = loop {
            match BEAT.load(Ordering::Acquire) {
                0 => tokio::time::sleep(Duration::from_micros(200)).await,
                at => break at,
            }
        };
        waits.record(started - asked);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    waits
}

#[tokio::main]
async fn main() {
    headline("io_bound");
    io().await;
    neighbours().await;
}
