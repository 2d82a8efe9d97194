//! What a task costs in CPU with ever more of them waiting, on the embedded store. The first backlog is the reference
//! of the others.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use celeriac::task;

use super::support::figures::{Table, micros, rate, time};
use super::support::process::cpu;
use super::support::sized;
use super::support::store::{Running, directory, fill, fitting, one_queue};

const QUEUE: &str = "deep";
const WORKERS: usize = 64;
const PRODUCERS: u64 = 64;
/// The most tasks that are enqueued, and then run, at a time.
const AT_A_TIME: u64 = 20_000;
/// The longest that a backlog is filled in, waited for, and measured.
const FILL: Duration = Duration::from_secs(240);
const QUIET: Duration = Duration::from_secs(30);
const MEASURE: Duration = Duration::from_secs(30);

static RUN: AtomicU64 = AtomicU64::new(0);

#[task(name = "scale.deep", ignore_result, queue = "deep")]
async fn deep(_payload: String) {
    RUN.fetch_add(1, Ordering::AcqRel);
}

fn ran() -> u64 {
    RUN.load(Ordering::Acquire)
}

fn payload() -> String {
    "x".repeat(130)
}

/// What all phases of one kind took.
#[derive(Default)]
struct Spent {
    tasks: u64,
    cpu: Duration,
    time: Duration,
}

impl Spent {
    /// Adds a phase, which answers with the number of its tasks.
    async fn during(&mut self, phase: impl Future<Output = u64>) {
        let (before, start) = (cpu(), Instant::now());
        self.tasks += phase.await;
        self.cpu += cpu().saturating_sub(before);
        self.time += start.elapsed();
    }

    /// Microseconds of CPU of a task.
    fn each(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.tasks as f64
    }

    fn rate(&self) -> f64 {
        self.tasks as f64 / self.time.as_secs_f64()
    }
}

/// Enqueues so many, each with its receipt.
async fn enqueue(count: u64) -> u64 {
    let mut producing = Vec::new();
    for number in 0..PRODUCERS {
        let share = count / PRODUCERS + u64::from(number < count % PRODUCERS);
        producing.push(tokio::spawn(async move {
            for _ in 0..share {
                deep::delay(payload()).await.expect("accepted");
            }
        }));
    }
    for producer in producing {
        producer.await.expect("a producer ends");
    }
    count
}

/// Comes back when this process has nothing to do: what was filled in leaves the store with work behind.
async fn quiet() {
    let pause = sized(Duration::from_millis(500), Duration::from_millis(50));
    let start = Instant::now();
    while start.elapsed() < QUIET {
        let before = cpu();
        tokio::time::sleep(pause).await;
        if cpu().saturating_sub(before) < pause / 50 {
            return;
        }
    }
}

/// The store and what it was given. Its queue is paused but while tasks are to run.
struct Store {
    running: Running,
    accepted: u64,
}

impl Store {
    fn waiting(&self) -> u64 {
        self.accepted - ran()
    }

    /// Lets so many run, or a few more, and comes back when they are settled on disk.
    async fn run(&self, count: u64) -> u64 {
        let (celeriac, first) = (&self.running.celeriac, ran());
        celeriac.resume(QUEUE).await.expect("it resumes");
        while ran() - first < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        celeriac.pause(QUEUE).await.expect("it pauses");
        loop {
            let counts = self.running.broker.counts(QUEUE).await.expect("the broker counts");
            if counts.ready + counts.unsettled + ran() == self.accepted {
                return ran() - first;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Has tasks come and run while `depth` of them wait, and says what the one and the other took.
    async fn measured(&mut self, depth: u64) -> (Spent, Spent) {
        let (mut enqueues, mut runs) = (Spent::default(), Spent::default());
        let (at_a_time, start) = (depth.min(AT_A_TIME), Instant::now());
        while runs.tasks < sized(200_000, 5_000) && start.elapsed() < MEASURE {
            let count = (depth + at_a_time).saturating_sub(self.waiting());
            enqueues.during(enqueue(count)).await;
            self.accepted += count;
            runs.during(self.run(at_a_time)).await;
        }
        (enqueues, runs)
    }
}

/// Measures each backlog.
pub async fn costs() {
    let is_large = std::env::args().any(|argument| argument == "10M");
    let mut depths = sized(vec![1_000, 10_000, 100_000, 1_000_000], vec![1_000, 5_000]);
    depths.extend(is_large.then_some(10_000_000));
    let dir = directory();
    let most = depths.iter().max().map_or(0, |depth| fitting(dir.path(), *depth));
    let running = Running::embedded(dir.path(), one_queue(QUEUE, WORKERS)).await;
    running.celeriac.pause(QUEUE).await.expect("it pauses");
    let mut store = Store { running, accepted: 0 };
    let mut table = Table::new(&[
        "waiting",
        "enqueue, CPU",
        "of the first",
        "enqueued",
        "start and settlement, CPU",
        "of the first",
        "run",
    ]);
    let mut first = None;
    for depth in depths {
        let wanted = depth.min(most).saturating_sub(store.waiting());
        let filled = fill(wanted, FILL, |_| deep::s(payload())).await;
        store.accepted += filled;
        if filled < wanted {
            println!("{} are over: {} of {depth} tasks wait", time(FILL), store.waiting());
        }
        quiet().await;
        let depth = store.waiting();
        let (enqueues, runs) = store.measured(depth).await;
        let (of_enqueue, of_run) = *first.get_or_insert((enqueues.each(), runs.each()));
        let times = |figure: f64, first: f64| format!("{:.2} x", figure / first);
        table.row([
            depth.to_string(),
            micros(enqueues.each()),
            times(enqueues.each(), of_enqueue),
            rate(enqueues.rate()),
            micros(runs.each()),
            times(runs.each(), of_run),
            rate(runs.rate()),
        ]);
    }
    table.print(&format!(
        "`backlog`: CPU of a task, all threads; {PRODUCERS} producers, and in turn with them {WORKERS} workers"
    ));
    store.running.shutdown().await;
}
