//! Steady load on the embedded store: `cargo bench --bench steady [-- [--quick] [--minutes N] [--kept] [--plot FILE]
//! [CASE…]]`.
//!
//! - `64` and `512`: so many producers each enqueue one task after the other, which does nothing; results are
//!   ignored, or kept with `--kept`;
//! - `results`: 5,000 tasks a second, whatever became of those before; their results are kept for a day.
//!
//! Each case takes ten minutes, or N. Every five seconds there is a row: tasks settled, how long the receipts and the
//! starts took from the call, bytes on disk and in memory. Beside them are the longest answer of the store's thread,
//! which commits before it answers, and the longest sync of a thread that has nothing to do with the store: what the
//! disk itself did. A stall of an enqueue that these syncs do not account for is told at the end. `--plot` writes all
//! of it as a picture.

mod support;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use celeriac::broker::Broker;
use celeriac::task;
use parking_lot::Mutex;
use support::disk_probe::{self, DiskProbe};
use support::figures::{Latency, Series, Table, goal, percent, rate, time};
use support::plot::{Column, Line, Panel, svg};
use support::process::{disk, free, resident, size, written};
use support::store::{Running, directory, one_queue};
use support::{bare_log, headline, nanos, sized, span};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const QUEUE: &str = "steady";
const WORKERS: usize = 64;
/// Bytes of one waiting task as the embedded store writes it; the arguments below bring it there.
const RECORD: usize = 300;
const ARGUMENT: usize = 130;
/// Tasks that each producer may have enqueued and that have not run. A store that takes more than it runs would have
/// a longer backlog each minute, and its time-to-start would be that of the backlog.
const AHEAD: usize = 8;
/// The tasks of `results`, of which some come with each tick.
const A_SECOND: u64 = 5_000;
const TICK: Duration = Duration::from_millis(1);
/// An enqueue that takes longer than the disk by this much is a stall.
const STALL: Duration = Duration::from_millis(50);
/// With less room than this on the disk a case ends.
const LEAST_FREE: u64 = 2 << 30;

/// How far the producers may go on before a task has run.
static ROOM: Semaphore = Semaphore::const_new(0);
static ACCEPTED: AtomicU64 = AtomicU64::new(0);
static RUN: AtomicU64 = AtomicU64::new(0);
/// Whether the load is to end.
static IS_OVER: AtomicBool = AtomicBool::new(false);
/// From the call to the receipt, and from the call to the start, since the last look.
static RECEIPTS: LazyLock<Mutex<Latency>> = LazyLock::new(|| Mutex::new(Latency::new()));
static STARTS: LazyLock<Mutex<Latency>> = LazyLock::new(|| Mutex::new(Latency::new()));
/// The longest answer of the store's thread since the last look, in nanoseconds.
static ANSWERED: AtomicU64 = AtomicU64::new(0);

#[task(name = "steady.ignored", ignore_result, queue = "steady")]
async fn ignored(asked: u64, _payload: String) {
    started(asked);
}

#[task(name = "steady.kept", queue = "steady")]
async fn kept(asked: u64, payload: String) -> usize {
    started(asked);
    payload.len()
}

fn started(asked: u64) {
    STARTS.lock().record(nanos().saturating_sub(asked));
    RUN.fetch_add(1, Ordering::Relaxed);
    ROOM.add_permits(1);
}

#[derive(Clone, Copy, PartialEq)]
enum Case {
    Producers(usize),
    Results,
}

impl Case {
    fn named(word: &str) -> Option<Self> {
        match word {
            "results" => Some(Self::Results),
            number => number.parse::<usize>().ok().filter(|number| *number > 0).map(Self::Producers),
        }
    }

    /// Those whose records the bare log takes beside the case.
    fn producers(self) -> usize {
        match self {
            Self::Producers(producers) => producers,
            Self::Results => 64,
        }
    }

    fn title(self, keeps: bool) -> String {
        let results = if keeps { "results kept" } else { "results ignored" };
        match self {
            Self::Producers(producers) => format!("{producers} producers, {results}"),
            Self::Results => format!("{} in all, {results}", rate(A_SECOND as f64)),
        }
    }
}

/// What the command line asks for.
struct Wanted {
    length: Duration,
    keeps: bool,
    plot: Option<PathBuf>,
    cases: Vec<Case>,
}

impl Wanted {
    fn read() -> Self {
        let (mut minutes, mut keeps, mut plot, mut cases) = (sized(10.0, 0.05), false, None, Vec::new());
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--minutes" => {
                    let number = words.next().and_then(|number| number.parse::<f64>().ok());
                    minutes =
                        number.filter(|number| *number > 0.0).expect("`--minutes` has a number behind it");
                }
                "--plot" => plot = Some(words.next().expect("`--plot` has a file behind it").into()),
                "--kept" => keeps = true,
                other if other.starts_with('-') => {} // of cargo, and of all benchmarks
                other => match Case::named(other) {
                    Some(case) => cases.push(case),
                    None => {
                        panic!("`{other}`: the cases are `results`, and numbers of producers, such as 64")
                    }
                },
            }
        }
        if cases.is_empty() {
            cases = vec![Case::Producers(64), Case::Producers(512), Case::Results];
        }
        Self { length: Duration::from_secs_f64(minutes * 60.0), keeps, plot, cases }
    }
}

/// What was seen between two looks.
struct Window {
    /// When it ended, from the beginning of the load.
    at: Duration,
    /// Tasks that were settled on disk, and bytes that were written to it, per second.
    rate: f64,
    written: f64,
    /// p50, p99, p99.9 and max, from the call to the receipt and to the start.
    receipts: [Duration; 4],
    starts: [Duration; 4],
    /// Bytes on disk and in memory at its end.
    log: u64,
    database: u64,
    resident: u64,
    /// The longest answer of the store's thread, and the longest bare sync.
    store: Duration,
    sync: Duration,
}

/// A case, from its first window to its last.
struct Seen {
    case: Case,
    title: String,
    /// What a bare log does with as many producers, in two steps a task.
    limit: f64,
    windows: Vec<Window>,
    receipts: Latency,
    starts: Latency,
}

/// What only grows, at one moment.
struct Totals {
    at: Instant,
    settled: u64,
    written: u64,
}

impl Totals {
    async fn now(broker: &dyn Broker) -> Self {
        let counts = broker.counts(QUEUE).await.expect("the broker counts");
        let settled = ACCEPTED.load(Ordering::Relaxed).saturating_sub(counts.ready + counts.unsettled);
        Self { at: Instant::now(), settled, written: written() }
    }

    /// A second's part of what has grown since.
    fn a_second(&self, before: &Self, grown: impl Fn(&Self) -> u64) -> f64 {
        grown(self).saturating_sub(grown(before)) as f64 / (self.at - before.at).as_secs_f64()
    }
}

async fn enqueue(keeps: bool, asked: u64) {
    let payload = "x".repeat(ARGUMENT);
    if keeps {
        drop(kept::delay(asked, payload).await.expect("accepted"));
    } else {
        drop(ignored::delay(asked, payload).await.expect("accepted"));
    }
    RECEIPTS.lock().record(nanos().saturating_sub(asked));
    ACCEPTED.fetch_add(1, Ordering::Relaxed);
}

/// So many enqueue one task after the other, until the load is over.
async fn produce(producers: usize, keeps: bool) {
    ROOM.add_permits(AHEAD * producers);
    let mut producing = JoinSet::new();
    for _ in 0..producers {
        producing.spawn(async move {
            while !IS_OVER.load(Ordering::Relaxed) {
                ROOM.acquire().await.expect("it is never closed").forget();
                enqueue(keeps, nanos()).await;
            }
        });
    }
    producing.join_all().await;
}

/// So many come each second, until the load is over. What was missed while the machine was busy comes at once.
async fn pace(keeps: bool) {
    let each = A_SECOND * TICK.as_millis() as u64 / 1_000;
    let mut ticks = tokio::time::interval(TICK);
    let mut calls = JoinSet::new();
    while !IS_OVER.load(Ordering::Relaxed) {
        ticks.tick().await;
        for _ in 0..each {
            calls.spawn(enqueue(keeps, nanos()));
        }
        while let Some(ended) = calls.try_join_next() {
            ended.expect("an enqueue ends");
        }
    }
    calls.join_all().await;
}

/// Asks the store's thread now and then, until the load is over.
async fn ask(broker: Arc<dyn Broker>) {
    while !IS_OVER.load(Ordering::Relaxed) {
        let asked = nanos();
        broker.counts(QUEUE).await.expect("the broker counts");
        ANSWERED.fetch_max(nanos() - asked, Ordering::Relaxed);
        tokio::time::sleep(disk_probe::PAUSE).await;
    }
}

fn take(latency: &Mutex<Latency>) -> Latency {
    let fresh = Latency::new();
    std::mem::replace(&mut *latency.lock(), fresh)
}

/// Looks at the end of each window, until the time or the disk is over.
async fn watch(broker: &dyn Broker, dir: &Path, probe: &DiskProbe, length: Duration, seen: &mut Seen) {
    let window = sized(Duration::from_secs(5), Duration::from_millis(500));
    let log = dir.join("db").join("log");
    let mut before = Totals::now(broker).await;
    let start = before.at;
    let mut ticks = tokio::time::interval_at((start + window).into(), window);
    while start.elapsed() < length {
        ticks.tick().await;
        let (receipts, starts) = (take(&RECEIPTS), take(&STARTS));
        let store = Duration::from_nanos(ANSWERED.swap(0, Ordering::Relaxed));
        let sync = probe.take();
        let now = Totals::now(broker).await;
        let log = disk(&log);
        seen.windows.push(Window {
            at: now.at - start,
            rate: now.a_second(&before, |totals| totals.settled),
            written: now.a_second(&before, |totals| totals.written),
            receipts: receipts.tail(),
            starts: starts.tail(),
            log,
            database: disk(dir).saturating_sub(log),
            resident: resident(),
            store,
            sync,
        });
        seen.receipts.merge(&receipts);
        seen.starts.merge(&starts);
        before = now;
        let free = free(dir);
        if free < LEAST_FREE {
            println!("the disk has {} free: the case ends after {}", size(free), time(start.elapsed()));
            break;
        }
    }
}

/// Measures a case.
async fn run(case: Case, keeps: bool, length: Duration) -> Seen {
    let keeps = keeps || case == Case::Results;
    let limit = bare_log::run(directory().path(), case.producers(), RECORD, 1, span()).await.rate;
    let (dir, beside) = (directory(), directory());
    let running = Running::embedded(dir.path(), one_queue(QUEUE, WORKERS)).await;
    ROOM.forget_permits(ROOM.available_permits());
    IS_OVER.store(false, Ordering::Relaxed);
    [&ACCEPTED, &RUN, &ANSWERED].into_iter().for_each(|total| total.store(0, Ordering::Relaxed));
    drop([take(&RECEIPTS), take(&STARTS)]);
    let title = case.title(keeps);
    let (windows, receipts, starts) = (Vec::new(), Latency::new(), Latency::new());
    let mut seen = Seen { case, title, limit, windows, receipts, starts };

    let probe = DiskProbe::start(beside.path());
    let load = tokio::spawn(async move {
        match case {
            Case::Producers(producers) => produce(producers, keeps).await,
            Case::Results => pace(keeps).await,
        }
    });
    let asking = tokio::spawn(ask(Arc::clone(&running.broker)));
    watch(&*running.broker, dir.path(), &probe, length, &mut seen).await;
    IS_OVER.store(true, Ordering::Relaxed);
    load.await.expect("the load ends");
    asking.await.expect("the questions end");
    running.settled(QUEUE).await;
    let [run, accepted] = [&RUN, &ACCEPTED].map(|total| total.load(Ordering::Relaxed));
    assert_eq!(run, accepted, "every accepted task ran once");
    running.shutdown().await;
    seen
}

/// The windows with an enqueue that took longer than the disk accounts for. An enqueue waits for two syncs at most:
/// the one under way, and its own. A sync that goes from one window into the next is told in one of them.
fn own_stalls(windows: &[Window]) -> Vec<&Window> {
    let is_stall = |at: usize| {
        let near = &windows[at.saturating_sub(1)..windows.len().min(at + 2)];
        let sync = near.iter().map(|window| window.sync).max().unwrap_or_default();
        windows[at].receipts[3] > STALL + 2 * sync
    };
    (0..windows.len()).filter(|at| is_stall(*at)).map(|at| &windows[at]).collect()
}

impl Window {
    fn cells(&self) -> Vec<String> {
        let tails = [self.receipts, self.starts].concat().into_iter().map(time);
        let bytes = [self.log, self.database, self.written as u64, self.resident].map(size);
        let longest = [self.store, self.sync].map(time);
        let cells = [format!("{:.0} s", self.at.as_secs_f64()), rate(self.rate)].into_iter();
        cells.chain(tails).chain(bytes).chain(longest).collect()
    }
}

impl Seen {
    /// Prints each window.
    fn print(&self) {
        let mut table = Table::new(&[
            "at",
            "settled",
            "receipt p50",
            "p99",
            "p99.9",
            "max",
            "start p50",
            "p99",
            "p99.9",
            "max",
            "log",
            "database",
            "written, 1 s",
            "resident",
            "store",
            "bare sync",
        ]);
        self.windows.iter().for_each(|window| table.row(window.cells()));
        table.print(&self.title);
    }

    /// The case in one row.
    fn cells(&self) -> Vec<String> {
        let mut settled = Series::default();
        self.windows.iter().for_each(|window| settled.push(window.rate));
        let ratio = match self.case {
            Case::Producers(_) => percent(settled.median() / self.limit),
            Case::Results => "-".to_owned(),
        };
        let tails = [self.receipts.tail(), self.starts.tail()].concat().into_iter().map(time);
        let on_disk = self.windows.last().map_or(0, |window| window.log + window.database);
        let most = self.windows.iter().map(|window| window.resident).max().unwrap_or(0);
        let longest =
            |of: fn(&Window) -> Duration| time(self.windows.iter().map(of).max().unwrap_or_default());
        let cells = [self.title.clone(), rate(self.limit), settled.show(rate), ratio].into_iter();
        let behind =
            [size(on_disk), size(most), longest(|window| window.store), longest(|window| window.sync)];
        cells.chain(tails).chain(behind).collect()
    }

    /// Says whether the store has stalled by itself.
    fn judge(&self) {
        let stalls = own_stalls(&self.windows);
        for window in &stalls {
            println!(
                "{}: {} after its begin an enqueue took {}, and a bare sync at most {}",
                self.title,
                time(window.at),
                time(window.receipts[3]),
                time(window.sync)
            );
        }
        let text = format!("no enqueue takes {} longer than two syncs of the disk", time(STALL));
        println!("{}: {}", self.title, goal(stalls.is_empty(), &text));
    }

    /// The panels of the plot.
    fn column(&self) -> Column {
        let line = |name: &'static str, figure: &dyn Fn(&Window) -> f64| {
            let points = self.windows.iter().map(|window| (window.at.as_secs_f64() / 60.0, figure(window)));
            Line { name, points: points.collect() }
        };
        let millis = |took: Duration| took.as_secs_f64() * 1e3;
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let tail = |of: fn(&Window) -> &[Duration; 4]| {
            let names = ["p50", "p99", "p99.9", "max"].into_iter().enumerate();
            names.map(|(nth, name)| line(name, &|window| millis(of(window)[nth]))).collect::<Vec<_>>()
        };
        let panel = |title: &'static str, unit: &'static str, is_logarithmic: bool, lines: Vec<Line>| Panel {
            title,
            unit,
            is_logarithmic,
            lines,
        };
        let mut receipts = tail(|window| &window.receipts);
        receipts.push(line("longest bare sync", &|window| millis(window.sync)));
        let on_disk = vec![
            line("log", &|window| mebibytes(window.log)),
            line("database", &|window| mebibytes(window.database)),
        ];
        let panels = vec![
            panel("tasks settled, a second", "", false, vec![line("tasks", &|window| window.rate)]),
            panel("from the call to the receipt", "ms", true, receipts),
            panel("from the call to the start", "ms", true, tail(|window| &window.starts)),
            panel("on disk", "MiB", false, on_disk),
            panel("written, a second", "MiB", false, vec![line("bytes", &|w| mebibytes(w.written as u64))]),
            panel("resident memory", "MiB", false, vec![line("bytes", &|w| mebibytes(w.resident))]),
        ];
        Column { title: self.title.clone(), panels }
    }
}

#[tokio::main]
async fn main() {
    headline("steady");
    let wanted = Wanted::read();
    let mut all = Vec::new();
    for case in &wanted.cases {
        let seen = run(*case, wanted.keeps, wanted.length).await;
        seen.print();
        all.push(seen);
    }
    let mut table = Table::new(&[
        "",
        "bare log, 2 steps",
        "settled",
        "ratio",
        "receipt p50",
        "p99",
        "p99.9",
        "max",
        "start p50",
        "p99",
        "p99.9",
        "max",
        "disk at the end",
        "most resident",
        "store",
        "bare sync",
    ]);
    all.iter().for_each(|seen| table.row(seen.cells()));
    table.print(&format!("Steady load, {} each, {WORKERS} workers", time(wanted.length)));
    println!();
    all.iter().for_each(Seen::judge);
    if let Some(path) = &wanted.plot {
        let columns: Vec<Column> = all.iter().map(Seen::column).collect();
        let text = svg("Steady load on the embedded store", &columns);
        std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        println!("{}: the plot", path.display());
    }
}
