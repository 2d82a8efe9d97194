//! Throughput per queue, each beside its limit: `cargo bench --bench throughput [-- --quick]`.
//!
//! - in memory: beside a bare message from actor to actor;
//! - durable: beside a bare group-commit log with records of the same size and as many producers;
//! - all 24 queues of the shipped catalogue at once.
//!
//! A message is made on one thread and dropped on another, which the system's allocator is slow at; a program that wants
//! the most sets another, as this one does, for the limits too.

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix::{Actor, Context, Handler, Message};
use celeriac::catalogue::Catalogue;
use celeriac::task;
use support::done::{Done, Rounds, Watch};
use support::figures::{Series, Table, goal, micros, percent, rate, time};
use support::store::{Running, directory, one_queue};
use support::{bare_log, headline, rounds, sized, span};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const QUEUE: &str = "fast";
/// Bytes of one waiting task as the embedded store writes it; the arguments below bring it there.
const RECORD: usize = 300;
const ARGUMENT: usize = 130;
const WORKERS: usize = 64;

static RUN: AtomicU64 = AtomicU64::new(0);

#[task(ignore_result, queue = "fast")]
async fn noop(_payload: String) {
    RUN.fetch_add(1, Ordering::Relaxed);
}

#[task(queue = "fast")]
async fn kept(payload: String) -> usize {
    RUN.fetch_add(1, Ordering::Relaxed);
    payload.len()
}

/// What producers enqueue.
#[derive(Clone, Copy)]
enum Kind {
    Ignored,
    Kept,
}

/// `producers` enqueue, one after the other each, for `span`; says how many were accepted.
async fn produce(producers: usize, span: Duration, kind: Kind, queue: &str) -> u64 {
    let start = Instant::now();
    let mut producing = Vec::new();
    for _ in 0..producers {
        let (payload, queue) = ("x".repeat(ARGUMENT), queue.to_owned());
        producing.push(tokio::spawn(async move {
            let mut accepted = 0;
            while start.elapsed() < span {
                match kind {
                    Kind::Ignored => {
                        drop(noop::s(payload.clone()).queue(queue.as_str()).delay().await.expect("accepted"))
                    }
                    Kind::Kept => {
                        drop(kept::s(payload.clone()).queue(queue.as_str()).delay().await.expect("accepted"))
                    }
                }
                accepted += 1;
            }
            accepted
        }));
    }
    let mut total = 0;
    for producer in producing {
        total += producer.await.expect("a producer ends");
    }
    total
}

/// Accepted, run and settled.
async fn end_to_end(running: &Running, producers: usize, span: Duration, kind: Kind) -> Done {
    RUN.store(0, Ordering::Relaxed);
    let watch = Watch::start();
    let accepted = produce(producers, span, kind, QUEUE).await;
    running.settled(QUEUE).await;
    assert_eq!(RUN.load(Ordering::Relaxed), accepted, "every accepted task ran once");
    watch.stop(accepted)
}

async fn durable_end_to_end(producers: usize, kind: Kind) -> Done {
    let dir = directory();
    let running = Running::embedded(dir.path(), one_queue(QUEUE, WORKERS)).await;
    let done = end_to_end(&running, producers, span(), kind).await;
    running.shutdown().await;
    done
}

/// Accepted while the queue starts nothing.
async fn durable_enqueue(producers: usize) -> Done {
    let dir = directory();
    let running = Running::embedded(dir.path(), one_queue(QUEUE, WORKERS)).await;
    running.celeriac.pause(QUEUE).await.expect("it pauses");
    let watch = Watch::start();
    let accepted = produce(producers, span(), Kind::Ignored, QUEUE).await;
    let done = watch.stop(accepted);
    running.shutdown().await;
    done
}

/// Calls of `delay_many` with this many each.
const MANY: usize = 100;

/// As [`durable_enqueue`], by `delay_many`.
async fn durable_enqueue_many(producers: usize) -> Done {
    let dir = directory();
    let running = Running::embedded(dir.path(), one_queue(QUEUE, WORKERS)).await;
    running.celeriac.pause(QUEUE).await.expect("it pauses");
    let watch = Watch::start();
    let start = Instant::now();
    let mut producing = Vec::new();
    for _ in 0..producers {
        producing.push(tokio::spawn(async move {
            let (payload, mut accepted) = ("x".repeat(ARGUMENT), 0);
            while start.elapsed() < span() {
                let calls = std::iter::repeat_n(payload.clone(), MANY);
                accepted += noop::delay_many(calls).await.expect("accepted").len() as u64;
            }
            accepted
        }));
    }
    let mut accepted = 0;
    for producer in producing {
        accepted += producer.await.expect("a producer ends");
    }
    let done = watch.stop(accepted);
    running.shutdown().await;
    done
}

/// Calls of a hundred tasks each, beside a log that takes as many records from as many producers.
async fn many() {
    let mut table =
        Table::new(&["producers", "bare log, enqueue", "delay_many of 100", "ratio", "CPU", "goal"]);
    // As many records wait for their commit at a time as producers of single calls would have.
    for producers in [1, 5] {
        let (mut log, mut taken) = (Rounds::default(), Rounds::default());
        for _ in 0..rounds() {
            log.push(bare_log::run(directory().path(), producers * MANY, RECORD, 0, span()).await);
            taken.push(durable_enqueue_many(producers).await);
        }
        let ratio = taken.rate.over(&log.rate);
        let verdict = goal(ratio.median() >= 0.8, "80% of the bare log");
        let cells = [log.rate.show(rate), taken.rate.show(rate), ratio.show(percent), taken.cpu.show(micros)];
        table.row([vec![producers.to_string()], cells.to_vec(), vec![verdict]].concat());
    }
    table.print("Durable, enqueue of many calls with one receipt");
}

/// All cases of one number of producers, interleaved.
#[derive(Default)]
struct Durable {
    log: Rounds,
    accepted: Rounds,
    two_steps: Rounds,
    three_steps: Rounds,
    done: Rounds,
    kept: Rounds,
}

impl Durable {
    async fn round(&mut self, producers: usize) {
        let log = async |steps| bare_log::run(directory().path(), producers, RECORD, steps, span()).await;
        self.log.push(log(0).await);
        self.accepted.push(durable_enqueue(producers).await);
        self.two_steps.push(log(1).await);
        self.done.push(durable_end_to_end(producers, Kind::Ignored).await);
        self.three_steps.push(log(2).await);
        self.kept.push(durable_end_to_end(producers, Kind::Kept).await);
    }
}

async fn durable() {
    let mut enqueue = Table::new(&["producers", "bare log", "celeriac", "ratio", "goal"]);
    let mut whole = Table::new(&[
        "producers",
        "bare log, 2 steps",
        "3 steps",
        "celeriac",
        "with results",
        "of 2 steps",
        "of 3 steps",
        "goal",
    ]);
    let mut cpu = Table::new(&[
        "producers",
        "bare log, enqueue",
        "celeriac, enqueue",
        "bare log, 2 steps",
        "celeriac, end to end",
        "with results",
    ]);
    for producers in [1, 64, 512] {
        let mut d = Durable::default();
        for _ in 0..rounds() {
            d.round(producers).await;
        }
        let name = producers.to_string();
        let ratio = d.accepted.rate.over(&d.log.rate);
        let verdict = goal(ratio.median() >= 0.7, "70% of the bare log");
        let figures = [&d.log, &d.accepted].map(|case| case.rate.show(rate));
        enqueue.row([vec![name.clone()], figures.to_vec(), vec![ratio.show(percent), verdict]].concat());

        let ratio = d.done.rate.over(&d.two_steps.rate);
        let verdict = match producers {
            1 => "-".to_owned(),
            _ => goal(ratio.median() >= 0.5, "50% of 2 steps"),
        };
        let of_three = d.done.rate.over(&d.three_steps.rate).show(percent);
        let figures = [&d.two_steps, &d.three_steps, &d.done, &d.kept].map(|case| case.rate.show(rate));
        let ratios = vec![ratio.show(percent), of_three, verdict];
        whole.row([vec![name.clone()], figures.to_vec(), ratios].concat());

        let figures = [&d.log, &d.accepted, &d.two_steps, &d.done, &d.kept].map(|case| case.cpu.show(micros));
        cpu.row([vec![name], figures.to_vec()].concat());
    }
    enqueue.print("Durable, enqueue alone: the receipt is on disk");
    whole.print("Durable, end to end: receipt on disk, run, settled on disk");
    cpu.print("Durable, CPU of one task (all threads, user and kernel)");
}

struct Counter {
    left: u64,
    done: Option<tokio::sync::oneshot::Sender<()>>,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Hop;

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Handler<Hop> for Counter {
    type Result = ();

    fn handle(&mut self, _: Hop, _: &mut Context<Self>) {
        self.left -= 1;
        if self.left == 0
            && let Some(done) = self.done.take()
        {
            let _ = done.send(());
        }
    }
}

/// Messages per second to an actor, from its own thread or from another.
fn hops(count: u64, across: bool) -> f64 {
    actix::System::new().block_on(async move {
        let (done, all) = tokio::sync::oneshot::channel();
        let counter = Counter { left: count, done: Some(done) };
        let arbiter = actix::Arbiter::new();
        let address =
            if across { Counter::start_in_arbiter(&arbiter.handle(), |_| counter) } else { counter.start() };
        let start = Instant::now();
        for n in 0..count {
            address.do_send(Hop);
            if n % 1024 == 0 {
                tokio::task::yield_now().await;
            }
        }
        all.await.expect("the actor counts to the end");
        let took = start.elapsed();
        arbiter.stop();
        count as f64 / took.as_secs_f64()
    })
}

async fn memory() {
    let count = sized(2_000_000, 50_000);
    let mut cases: [Series; 4] = Default::default();
    for _ in 0..rounds() {
        for across in [false, true] {
            let hops = tokio::task::spawn_blocking(move || hops(count, across)).await.expect("the hops end");
            cases[usize::from(across)].push(hops);
        }
        for (at, producers) in [(2, 1), (3, 64)] {
            let running = Running::memory(one_queue(QUEUE, WORKERS)).await;
            cases[at].push(end_to_end(&running, producers, span() / 2, Kind::Ignored).await.rate);
            running.shutdown().await;
        }
    }
    let mut table = Table::new(&["in memory", "per second", "of a hop to another thread"]);
    for (name, series) in [
        "bare actix hop, same thread",
        "bare actix hop, to another thread",
        "celeriac, 1 producer: accepted, run, settled",
        "celeriac, 64 producers",
    ]
    .into_iter()
    .zip(&cases)
    {
        table.row([name.to_owned(), series.show(rate), series.over(&cases[1]).show(percent)]);
    }
    table.print("In memory, one queue");
}

/// All queues of the shipped catalogue at once, durable, each with producers of its own.
async fn catalogue() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/celeriac.toml");
    let catalogue = Catalogue::load(file).expect("the shipped catalogue is right");
    let dir = directory();
    let running = Running::embedded(dir.path(), catalogue).await;
    let names: Vec<String> = running.celeriac.catalogue().queues.iter().map(|row| row.name.clone()).collect();
    let start = Instant::now();
    let time_to_feed = span() * 2;
    let mut feeding = Vec::new();
    for name in names.clone().into_iter().filter(|name| name != QUEUE) {
        feeding.push(tokio::spawn(async move { produce(16, time_to_feed, Kind::Ignored, &name).await }));
    }
    let mut accepted = 0;
    for producer in feeding {
        accepted += producer.await.expect("a producer ends");
    }
    for name in &names {
        running.settled(name).await;
    }
    let took = start.elapsed().as_secs_f64();
    let mut table = Table::new(&["queue", "pool", "workers", "done", "start p50", "start p95", "start max"]);
    for queue in running.celeriac.queues().await.expect("the queues answer") {
        if queue.name == QUEUE {
            continue;
        }
        let waits = queue.time_to_start;
        let cells =
            [queue.name, queue.pool.to_owned(), queue.workers.to_string(), rate(queue.done as f64 / took)];
        table.row(cells.into_iter().chain([waits.p50, waits.p95, waits.max].map(time)));
    }
    let total = rate(accepted as f64 / took);
    table.print(&format!(
        "Durable, the 24 queues of the shipped catalogue at once, 16 producers each: {total} in all"
    ));
    running.shutdown().await;
}

/// How long the one case runs that a profiler looks at.
const PROFILED: Duration = Duration::from_secs(5);

/// Runs one case alone, for a profiler: `-- profile memory|durable|enqueue PRODUCERS`.
async fn profiled(case: &str, producers: usize) {
    let dir = directory();
    let running = match case {
        "memory" => Running::memory(one_queue(QUEUE, WORKERS)).await,
        "durable" | "enqueue" => Running::embedded(dir.path(), one_queue(QUEUE, WORKERS)).await,
        _ => panic!("`profile {case}`: the cases are memory, durable, and enqueue"),
    };
    let done = if case == "enqueue" {
        running.celeriac.pause(QUEUE).await.expect("it pauses");
        let watch = Watch::start();
        let accepted = produce(producers, PROFILED, Kind::Ignored, QUEUE).await;
        watch.stop(accepted)
    } else {
        end_to_end(&running, producers, PROFILED, Kind::Ignored).await
    };
    println!("{case}, {producers} producers: {}, {} of CPU a task", rate(done.rate), micros(done.cpu));
    running.shutdown().await;
}

/// Runs the named cases (`-- memory durable many catalogue`), or all.
#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    if let [profile, case, producers] = &args[..]
        && profile == "profile"
    {
        return profiled(case, producers.parse().expect("a number of producers")).await;
    }
    headline("throughput");
    let wanted = |case: &str| args.is_empty() || args.iter().any(|arg| arg == case);
    if wanted("memory") {
        memory().await;
    }
    if wanted("durable") {
        durable().await;
    }
    if wanted("many") {
        many().await;
    }
    if wanted("catalogue") {
        catalogue().await;
    }
}
