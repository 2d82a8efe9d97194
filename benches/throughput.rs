//! Throughput per queue, each beside its limit: `cargo bench --bench throughput [-- --quick]`.
//!
//! - in memory: beside a bare message from actor to actor;
//! - durable: beside a bare group-commit log with records of the same size and as many producers;
//! - all 24 queues of the shipped catalogue at once.

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix::{Actor, Context, Handler, Message};
use celeriac::app::catalogue::Catalogue;
use celeriac::task;
use support::figures::{Series, Table, goal, percent, rate, time};
use support::store::{Running, directory, one_queue};
use support::{bare_log, headline, rounds, sized, span};

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

/// Accepted, run and settled, per second.
async fn end_to_end(running: &Running, producers: usize, span: Duration, kind: Kind) -> f64 {
    RUN.store(0, Ordering::Relaxed);
    let start = Instant::now();
    let accepted = produce(producers, span, kind, QUEUE).await;
    running.settled(QUEUE).await;
    let took = start.elapsed();
    assert_eq!(RUN.load(Ordering::Relaxed), accepted, "every accepted task ran once");
    accepted as f64 / took.as_secs_f64()
}

async fn durable_end_to_end(producers: usize, kind: Kind) -> f64 {
    let dir = directory();
    let running = Running::embedded(dir.path(), one_queue(QUEUE, WORKERS)).await;
    let rate = end_to_end(&running, producers, span(), kind).await;
    running.shutdown().await;
    rate
}

/// Accepted per second while the queue starts nothing.
async fn durable_enqueue(producers: usize) -> f64 {
    let dir = directory();
    let running = Running::embedded(dir.path(), one_queue(QUEUE, WORKERS)).await;
    running.celeriac.pause(QUEUE).await.expect("it pauses");
    let start = Instant::now();
    let accepted = produce(producers, span(), Kind::Ignored, QUEUE).await;
    let rate = accepted as f64 / start.elapsed().as_secs_f64();
    running.shutdown().await;
    rate
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
    for producers in [1, 64, 512] {
        let mut cases: [Series; 6] = Default::default();
        for _ in 0..rounds() {
            for (steps, at) in [(0, 0), (1, 2), (2, 3)] {
                cases[at].push(bare_log::run(directory().path(), producers, RECORD, steps, span()).await);
                match at {
                    0 => cases[1].push(durable_enqueue(producers).await),
                    2 => cases[4].push(durable_end_to_end(producers, Kind::Ignored).await),
                    _ => cases[5].push(durable_end_to_end(producers, Kind::Kept).await),
                }
            }
        }
        let [log, accepted, two, three, done, results] = cases;
        let ratio = accepted.over(&log);
        let verdict = goal(ratio.median() >= 0.7, "70% of the bare log");
        enqueue.row([
            producers.to_string(),
            log.show(rate),
            accepted.show(rate),
            ratio.show(percent),
            verdict,
        ]);
        let ratio = done.over(&two);
        let verdict = match producers {
            1 => "-".to_owned(),
            _ => goal(ratio.median() >= 0.5, "50% of 2 steps"),
        };
        let of_three = done.over(&three).show(percent);
        let figures = [&two, &three, &done, &results].map(|series| series.show(rate));
        whole.row(
            [vec![producers.to_string()], figures.to_vec(), vec![ratio.show(percent), of_three, verdict]]
                .concat(),
        );
    }
    enqueue.print("Durable, enqueue alone: the receipt is on disk");
    whole.print("Durable, end to end: receipt on disk, run, settled on disk");
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
            cases[at].push(end_to_end(&running, producers, span() / 2, Kind::Ignored).await);
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

#[tokio::main]
async fn main() {
    headline("throughput");
    memory().await;
    durable().await;
    catalogue().await;
}
