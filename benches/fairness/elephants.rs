//! All slots have long tasks that give way at their checkpoints, and an urgent task comes. The promises live a hundred times faster
//! than in the life that they stand for: 300 ms are 30 s there.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use celeriac::catalogue::{Catalogue, Pool, PoolRow, QueueRow};
use celeriac::{Context, TaskError, task};

use super::support::figures::{Latency, Table, goal, time};
use super::support::sized;
use super::support::store::Running;
use super::waits::{self, send, timed};

/// The slots, and the elephants, which have one each.
const SLOTS: usize = 8;
/// The pieces of work of an elephant, with a checkpoint before each.
const PIECES: usize = 3_000;
/// How long a piece takes.
const PIECE: Duration = Duration::from_millis(10);
/// The promise of an urgent task: 30 s at 1/100 of its time.
const TARGET: Duration = Duration::from_millis(300);
/// An elephant gives way when so much of a tighter promise is used.
const TENTH: Duration = Duration::from_millis(30);
const PAUSE: Duration = Duration::from_millis(250);
/// How long a task runs that has no checkpoints.
const STUBBORN: Duration = Duration::from_secs(2);
/// After so long nobody waits for an end any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often each piece of work of each elephant was done.
static WORK: LazyLock<Vec<AtomicU64>> =
    LazyLock::new(|| (0..SLOTS * PIECES).map(|_| AtomicU64::new(0)).collect());
static BEGUN: AtomicUsize = AtomicUsize::new(0);
static FINISHED: AtomicUsize = AtomicUsize::new(0);
/// How often a run began where another one had given way.
static WENT_ON: AtomicUsize = AtomicUsize::new(0);
/// The measurement is over: what is left is done quickly.
static OVER: AtomicBool = AtomicBool::new(false);

/// A long task, from a piece of its work on.
#[task(name = "bench.elephant", ignore_result, queue = "elephants")]
async fn elephant(ctx: Context, number: usize, first: usize) -> Result<(), TaskError> {
    let from = if first == 0 { &BEGUN } else { &WENT_ON };
    from.fetch_add(1, Ordering::AcqRel);
    for piece in first..PIECES {
        ctx.checkpoint(|| elephant::s(number, piece))?;
        WORK[number * PIECES + piece].fetch_add(1, Ordering::AcqRel);
        if !OVER.load(Ordering::Acquire) {
            tokio::time::sleep(PIECE).await;
        }
    }
    FINISHED.fetch_add(1, Ordering::AcqRel);
    Ok(())
}

/// A long task without checkpoints.
#[task(name = "bench.stubborn", ignore_result, queue = "elephants")]
async fn stubborn(micros: u64) {
    BEGUN.fetch_add(1, Ordering::AcqRel);
    tokio::time::sleep(Duration::from_micros(micros)).await;
}

async fn pool() -> Running {
    let row =
        |name: &str, target| QueueRow::new(name).with_pool(Pool::Io).with_workers(SLOTS).with_target(target);
    let catalogue = Catalogue::new()
        .with_pool(Pool::Io, PoolRow::new(SLOTS).with_reserve(0).with_room(0))
        .with_queue(row("elephants", Duration::from_secs(216)))
        .with_queue(row("urgent", TARGET));
    waits::forget();
    BEGUN.store(0, Ordering::Release);
    Running::memory(catalogue).await
}

async fn reached(count: &AtomicUsize, least: usize) {
    let start = Instant::now();
    while count.load(Ordering::Acquire) < least && start.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// How long urgent tasks wait that come one after the other.
async fn urgent(count: usize) -> Latency {
    // A slot is not given up before it was had for a tenth of a second.
    tokio::time::sleep(PAUSE).await;
    for number in 0..count {
        waits::asked(number);
        drop(timed::s(number, 1_000).queue("urgent").delay().await.expect("accepted"));
        tokio::time::sleep(PAUSE).await;
    }
    waits::started(count, PATIENCE).await;
    waits::all(count).0
}

/// Measures urgent tasks alone, behind tasks without checkpoints, and behind elephants.
pub async fn giving_way() {
    let count = sized(40, 8);
    let running = pool().await;
    let alone = urgent(count).await;
    running.shutdown().await;

    let running = pool().await;
    // They do not end all at once.
    let stagger = |number: usize| STUBBORN.as_micros() as u64 * (1 + number as u64 % 8) / 8;
    let first = (0..SLOTS).map(|number| stubborn::s(stagger(number)));
    send(first.chain((0..20 * SLOTS).map(|_| stubborn::s(STUBBORN.as_micros() as u64)))).await;
    reached(&BEGUN, SLOTS).await;
    let behind = urgent(count).await;
    running.celeriac.shutdown_within(Duration::from_millis(100)).await.expect("it shuts down");

    let running = pool().await;
    send((0..SLOTS).map(|number| elephant::s(number, 0))).await;
    reached(&BEGUN, SLOTS).await;
    let beside = urgent(count).await;
    OVER.store(true, Ordering::Release);
    reached(&FINISHED, SLOTS).await;
    running.shutdown().await;
    assert_eq!(FINISHED.load(Ordering::Acquire), SLOTS, "all elephants come to their ends");
    let wrong = WORK.iter().filter(|piece| piece.load(Ordering::Acquire) != 1).count();
    assert_eq!(wrong, 0, "each piece of work is done once");

    let mut table = Table::new(&["an urgent task waits", "p50", "p95", "p99", "max"]);
    let cases = [
        ("alone", &alone),
        ("behind tasks of 2 s without checkpoints", &behind),
        ("behind elephants with a checkpoint every 10 ms", &beside),
    ];
    for (name, waits) in cases {
        table.row([vec![name.to_owned()], waits.cells().to_vec()].concat());
    }
    table.print(&format!(
        "`elephants`: {SLOTS} slots, all of them taken; the urgent queue promises {} (30 s at 1/100 of its time)",
        time(TARGET)
    ));
    let tail = beside.quantile(0.95);
    println!(
        "\np95 {}, of which {} is the tenth of the promise that has to be used: {}",
        time(tail),
        time(TENTH),
        goal(
            tail <= TENTH + PIECE + alone.quantile(0.95),
            "one checkpoint after that, and what it takes alone"
        )
    );
    println!(
        "{} pieces of work, each done once; {} runs went on where another one had given way",
        WORK.len(),
        WENT_ON.load(Ordering::Acquire)
    );
}
