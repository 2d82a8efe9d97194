//! What a body in a child process costs beside one on a thread: `cargo bench --bench processes [-- --quick]`.
//!
//! The same task, which does nothing, runs in the cpu pool and in the process pool, of one runtime in memory. One after the
//! other shows what a task waits for more; many at once show what it costs more. A task that gets a process of its own
//! (`max_tasks_per_child = 1`) shows what a start costs.

mod support;

use std::time::{Duration, Instant};

use celeriac::catalogue::{Catalogue, Pool, QueueRow};
use celeriac::{Celeriac, task};
use support::figures::{Latency, Series, Table, micros, rate};
use support::process::size;
use support::store::Running;
use support::{headline, rounds, sized};

const PATIENCE: Duration = Duration::from_secs(60);
/// How many calls are under way where many are.
const PRODUCERS: usize = 64;

#[task(queue = "threads")]
fn nothing(n: u64) -> u64 {
    n
}

/// The resident memory of the process that runs it, in bytes.
#[task(queue = "processes")]
fn resident() -> u64 {
    support::process::resident()
}

/// The queues, each with its pool and how many tasks a child runs.
const QUEUES: [(&str, Pool, Option<u32>); 3] =
    [("threads", Pool::Cpu, None), ("processes", Pool::Process, None), ("fresh", Pool::Process, Some(1))];

fn catalogue() -> Catalogue {
    QUEUES.into_iter().fold(Catalogue::new(), |catalogue, (name, pool, tasks)| {
        let mut row = QueueRow::new(name).with_pool(pool).with_workers(2);
        row.max_tasks_per_child = tasks;
        catalogue.with_queue(row)
    })
}

async fn call(queue: &str, n: u64) {
    let call = nothing::s(n).queue(queue).delay().await.expect("accepted");
    assert_eq!(call.get(PATIENCE).await.expect("it succeeds"), n);
}

/// One call after the other. Returns how many there were in a second.
async fn one_by_one(queue: &str, count: u64, waits: &mut Latency) -> f64 {
    let start = Instant::now();
    for n in 0..count {
        let asked = Instant::now();
        call(queue, n).await;
        waits.record(asked.elapsed().as_nanos() as u64);
    }
    count as f64 / start.elapsed().as_secs_f64()
}

/// Many calls at a time. Returns how many there were in a second.
async fn together(queue: &'static str, count: u64) -> f64 {
    let start = Instant::now();
    let each = count / PRODUCERS as u64;
    let producers = (0..PRODUCERS).map(|_| {
        tokio::spawn(async move {
            for n in 0..each {
                call(queue, n).await;
            }
        })
    });
    for producer in producers.collect::<Vec<_>>() {
        producer.await.expect("a producer ends");
    }
    (each * PRODUCERS as u64) as f64 / start.elapsed().as_secs_f64()
}

#[tokio::main]
async fn main() {
    if celeriac::is_child_process() {
        let started = Celeriac::builder().in_memory().start().await;
        panic!("a child serves: {:?}", started.err());
    }
    headline("processes");
    let mut waits = [(); QUEUES.len()].map(|()| Latency::new());
    let mut rates = [(); QUEUES.len()].map(|()| (Series::default(), Series::default()));
    let mut memory = Series::default();
    for _ in 0..rounds() {
        let running = Running::memory(catalogue()).await;
        for ((at, (name, _, tasks)), (single, many)) in QUEUES.into_iter().enumerate().zip(&mut rates) {
            call(name, 0).await; // to have its child there
            let count = if tasks.is_some() { sized(200, 8) } else { sized(20_000, 400) };
            single.push(one_by_one(name, count / 4, &mut waits[at]).await);
            many.push(together(name, count.max(PRODUCERS as u64)).await);
        }
        let call = resident::delay().await.expect("accepted");
        memory.push(call.get(PATIENCE).await.expect("it succeeds") as f64);
        running.shutdown().await;
    }
    let mut table =
        Table::new(&["pool", "p50", "p95", "p99", "max", "one by one", "64 at once", "beside cpu"]);
    let of_threads = rates[0].0.median();
    for ((name, waits), (single, many)) in
        ["cpu", "process", "process, one task each"].into_iter().zip(&waits).zip(&rates)
    {
        let more = 1e6 / single.median() - 1e6 / of_threads;
        let cells = [single.show(rate), many.show(rate), format!("{} more", micros(more))];
        table.row([vec![name.to_owned()], waits.cells().to_vec(), cells.to_vec()].concat());
    }
    table.print("From a call to its result, in memory, of a task that does nothing, with two workers");
    println!("\nAn idle child of this program has {} of memory.", memory.show(|bytes| size(bytes as u64)));
}
