//! What queues cost that are there: a hundred, a thousand, ten thousand of them, on the embedded store. Each number
//! has a process of its own, so that none finds memory that another one has left.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use celeriac::catalogue::{Catalogue, Pool, QueueRow};
use celeriac::task;
use tokio::process::Command;

use super::support::figures::{Table, micros, time};
use super::support::process::{cpu, resident, size, threads};
use super::support::store::{Running, directory};
use super::support::{quick, sized};

const WORKERS: usize = 2;
const PRODUCERS: usize = 64;
/// The argument that makes this program measure one number of queues. Behind it come that number and a directory.
const PART: &str = "--queues-of";
/// After so long a number of queues is given up.
const PATIENCE: Duration = Duration::from_secs(120);
/// After so long the end of a task is on disk, too.
const SETTLED: Duration = Duration::from_millis(300);

static RUN: AtomicU64 = AtomicU64::new(0);

#[task(name = "scale.of_queue", ignore_result)]
async fn of_queue() {
    RUN.fetch_add(1, Ordering::AcqRel);
}

fn name(number: usize) -> String {
    format!("queue-{number}")
}

fn catalogue(count: usize) -> Catalogue {
    (0..count).fold(Catalogue::new(), |catalogue, number| {
        catalogue.with_queue(QueueRow::new(name(number)).with_pool(Pool::Io).with_workers(WORKERS))
    })
}

/// One task to each queue, and comes back when all have run.
async fn one_to_each(count: usize) {
    let mut producing = Vec::new();
    for first in 0..PRODUCERS {
        producing.push(tokio::spawn(async move {
            for number in (first..count).step_by(PRODUCERS) {
                of_queue::s().queue(name(number)).delay().await.expect("accepted");
            }
        }));
    }
    for producer in producing {
        producer.await.expect("a producer ends");
    }
    while RUN.load(Ordering::Acquire) < count as u64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What a process has measured. Times are in nanoseconds, memory is in bytes.
struct Figures {
    start: u64,
    before: u64,
    started: u64,
    worked: u64,
    /// CPU of a second in which nothing happens.
    idle: u64,
    tasks: u64,
    cpu: u64,
    shutdown: u64,
    again: u64,
    threads: u64,
}

impl Figures {
    /// As the process prints them.
    fn numbers(&self) -> [u64; 10] {
        let Self { start, before, started, worked, idle, tasks, cpu, shutdown, again, threads } = *self;
        [start, before, started, worked, idle, tasks, cpu, shutdown, again, threads]
    }

    fn read(text: &str) -> Option<Self> {
        let numbers: Vec<u64> = text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let [start, before, started, worked, idle, tasks, cpu, shutdown, again, threads] = numbers[..] else {
            return None;
        };
        Some(Self { start, before, started, worked, idle, tasks, cpu, shutdown, again, threads })
    }
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

async fn measure(count: usize, dir: &Path) -> Figures {
    let rows = catalogue(count);
    let (before, start) = (resident(), Instant::now());
    let running = Running::embedded(dir, rows.clone()).await;
    let (start, started) = (nanos(start.elapsed()), resident());

    let (used, since) = (cpu(), Instant::now());
    one_to_each(count).await;
    let tasks = nanos(since.elapsed());
    tokio::time::sleep(SETTLED).await;
    let used = nanos(cpu().saturating_sub(used));
    for number in 0..count {
        running.settled(&name(number)).await;
    }

    let span = sized(Duration::from_secs(5), Duration::from_millis(300));
    let of_idle = cpu();
    tokio::time::sleep(span).await;
    let idle = cpu().saturating_sub(of_idle).div_f64(span.as_secs_f64());
    let (worked, threads) = (resident(), threads());
    let since = Instant::now();
    running.shutdown().await;
    let shutdown = nanos(since.elapsed());
    let since = Instant::now();
    let running = Running::embedded(dir, rows).await;
    let again = nanos(since.elapsed());
    running.shutdown().await;
    let idle = nanos(idle);
    Figures { start, before, started, worked, idle, tasks, cpu: used, shutdown, again, threads }
}

/// Measures one number of queues and says the figures, if this process was started for that. Answers with whether it
/// was.
pub async fn is_part() -> bool {
    let mut arguments = std::env::args().skip_while(|argument| argument != PART).skip(1);
    let (Some(count), Some(dir)) = (arguments.next(), arguments.next()) else { return false };
    let figures = measure(count.parse().expect("a number of queues"), Path::new(&dir)).await;
    println!("{}", figures.numbers().map(|number| number.to_string()).join(" "));
    true
}

/// Has a process of its own measure so many queues. `None`: it took too long.
async fn measured(count: usize) -> Option<Figures> {
    let dir = directory();
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.kill_on_drop(true).args(quick().then_some("--quick"));
    command.arg(PART).arg(count.to_string()).arg(dir.path());
    let output = tokio::time::timeout(PATIENCE, command.output()).await.ok()?.expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let figures = said.lines().last().and_then(Figures::read);
    Some(
        figures
            .unwrap_or_else(|| panic!("{count} queues: {said}{}", String::from_utf8_lossy(&output.stderr))),
    )
}

/// Measures each number of queues.
pub async fn many() {
    let mut table = Table::new(&[
        "queues",
        "start",
        "start, store there",
        "memory more, started",
        "a queue",
        "each has worked",
        "a queue",
        "CPU idle, of one core",
        "a task to each: all have run",
        "CPU of a task",
        "shutdown",
        "threads",
    ]);
    for count in sized(vec![100, 1_000, 10_000], vec![10, 100]) {
        let Some(figures) = measured(count).await else {
            println!("{count} queues are not done within {}", time(PATIENCE));
            continue;
        };
        let of_queue = |bytes: u64| format!("{} B", bytes / count as u64);
        let started = figures.started.saturating_sub(figures.before);
        let worked = figures.worked.saturating_sub(figures.before);
        let took = |nanos: u64| time(Duration::from_nanos(nanos));
        table.row([
            count.to_string(),
            took(figures.start),
            took(figures.again),
            size(started),
            of_queue(started),
            size(worked),
            of_queue(worked),
            format!("{:.2}%", figures.idle as f64 / 1e7),
            took(figures.tasks),
            micros(figures.cpu as f64 / 1e3 / count as f64),
            took(figures.shutdown),
            figures.threads.to_string(),
        ]);
    }
    table.print(&format!(
        "`queues`: io queues of {WORKERS} workers; a task to each of them from {PRODUCERS} producers"
    ));
}
