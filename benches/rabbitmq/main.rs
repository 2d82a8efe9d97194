//! RabbitMQ, each case beside its limit: `cargo bench --bench rabbitmq [-- [--quick] [--peers] [CASE…]]`, where a case is `publish`,
//! `drain`, `both`, `events`, `inspect`, `flood` or `brakes`.
//!
//! - publishing with confirms, draining a filled queue, and both at once, on classic and on quorum queues: beside lapin
//!   alone, which publishes and consumes the very same messages, with the same persistence, confirms and prefetch, and
//!   acknowledges each hundred of them cumulatively;
//! - `events`: draining while an event of each step is sent and a program reads them all, beside draining without;
//! - `inspect`: how soon a busy worker answers the questions of remote control;
//! - `flood`: one tenant floods a queue beside others, which is in one line, in turns, or has partitions by tenant;
//! - `brakes`: how soon a brake is in force in another program than the one that has set it, and how soon it is gone there;
//! - with `--peers`: beside a Python Celery worker and rusty-celery on the same broker.
//!
//! It starts a RabbitMQ and a Redis of its own. Results would be kept in Redis, and revocations are heard from there; the tasks
//! themselves have no results, acknowledge late and do nothing.

mod brakes;
mod flood;
mod inspect;
mod ours;
mod peers;
mod raw;
#[path = "../support/mod.rs"]
mod support;
#[path = "../fairness/waits.rs"]
mod waits;

use celeriac::broker::amqp::QueueType;
use celeriac_test_support as services;
use support::done::Rounds;
use support::figures::{Table, goal, micros, percent, rate};
use support::{headline, rounds, sized};

use ours::Ours;
use raw::{EventReader, Letter, Raw};
use services::{RabbitMq, Redis};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes of the body of a bare message; with its headers, one of ours has more.
const BODY: usize = 300;
/// Bytes of the argument of our tasks.
const ARGUMENT: usize = 130;
/// Unacknowledged at a time.
const PREFETCH: usize = 1000;
/// Of a drain, so many come before the clock starts, while connections and queues still get going.
const AHEAD: u64 = 1000;

/// How many a drain is given.
fn filling() -> u64 {
    sized(30_000, 4_000)
}

/// Whether this case was asked for, or none by its name.
fn wanted(case: &str) -> bool {
    let cases = ["publish", "drain", "both", "events", "inspect", "flood", "brakes"];
    let mut named = std::env::args().filter(|argument| cases.contains(&argument.as_str())).peekable();
    named.peek().is_none() || named.any(|argument| argument == case)
}

/// Where everything is.
struct Place {
    rabbit: RabbitMq,
    redis: Redis,
    queue_type: QueueType,
    queue: String,
}

impl Place {
    fn new(rabbit: &RabbitMq, redis: &Redis, queue_type: QueueType) -> Self {
        let queue = format!("bench-{}", queue_type.as_str());
        Self { rabbit: rabbit.clone(), redis: redis.clone(), queue_type, queue }
    }
}

/// The same, as lapin alone does it with bare messages, and with ours, and as we do it.
#[derive(Default)]
struct Cases {
    bare: Rounds,
    raw: Rounds,
    ours: Rounds,
}

const HEAD: [&str; 7] =
    ["", "raw, 300 B, no headers", "raw, our messages", "celeriac", "ratio", "goal", "CPU raw / celeriac"];

impl Cases {
    fn row(&self, table: &mut Table, name: &str, least: Option<f64>) {
        let ratio = self.ours.rate.over(&self.raw.rate);
        let verdict = least.map_or("-".to_owned(), |least| goal(ratio.median() >= least, &percent(least)));
        let figures = [&self.bare, &self.raw, &self.ours].map(|case| case.rate.show(rate));
        let cpu = format!("{} / {}", self.raw.cpu.show(micros), self.ours.cpu.show(micros));
        table
            .row([vec![name.to_owned()], figures.to_vec(), vec![ratio.show(percent), verdict, cpu]].concat());
    }
}

async fn publishing(place: &Place, bare: &Letter, own: &Letter, table: &mut Table) {
    for producers in [1, 64, 512] {
        let mut cases = Cases::default();
        for _ in 0..rounds() {
            for (letter, case) in [(bare, &mut cases.bare), (own, &mut cases.raw)] {
                let raw = Raw::open(place).await;
                case.push(raw.publish(letter, producers).await);
                raw.close().await;
            }
            let ours = Ours::sending(place).await;
            cases.ours.push(ours.publish(producers).await);
            ours.shutdown().await;
            Raw::purge(place).await;
        }
        cases.row(table, &format!("{}, {producers} outstanding", place.queue_type.as_str()), None);
    }
}

async fn draining(place: &Place, bare: &Letter, own: &Letter, table: &mut Table) {
    let mut cases = Cases::default();
    for _ in 0..rounds() {
        for (letter, case) in [(bare, &mut cases.bare), (own, &mut cases.raw)] {
            Raw::fill(place, letter, filling()).await;
            let raw = Raw::open(place).await;
            case.push(raw.drain(filling()).await);
            raw.close().await;
        }
        Raw::fill(place, own, filling()).await;
        cases.ours.push(Ours::drain(place, filling(), false).await);
    }
    cases.row(table, place.queue_type.as_str(), Some(0.9));
}

async fn both(place: &Place, bare: &Letter, own: &Letter, table: &mut Table) {
    for producers in [64, 512] {
        let mut cases = Cases::default();
        for _ in 0..rounds() {
            for (letter, case) in [(bare, &mut cases.bare), (own, &mut cases.raw)] {
                let raw = Raw::open(place).await;
                case.push(raw.both(letter, producers).await);
                raw.close().await;
            }
            let ours = Ours::consuming(place).await;
            cases.ours.push(ours.both(producers).await);
            ours.shutdown().await;
        }
        let name = format!("{}, {producers} producers", place.queue_type.as_str());
        cases.row(table, &name, Some(0.8));
    }
}

/// Each task has three events: received, started, succeeded.
const EVENTS_OF_A_TASK: u64 = 3;

async fn with_events(place: &Place, own: &Letter, table: &mut Table) {
    let [mut off, mut on, mut unread] = [(); 3].map(|()| Rounds::default());
    let mut read = 0;
    for _ in 0..rounds() {
        Raw::fill(place, own, filling()).await;
        off.push(Ours::drain(place, filling(), false).await);
        Raw::fill(place, own, filling()).await;
        let reader = EventReader::start(place).await;
        on.push(Ours::drain(place, filling(), true).await);
        read = reader.stop(filling() * EVENTS_OF_A_TASK).await;
        Raw::fill(place, own, filling()).await;
        unread.push(Ours::drain(place, filling(), true).await);
    }
    let of_all = format!("{read} of {}", filling() * EVENTS_OF_A_TASK);
    // The reader is in this process and on the same cores, so what reading costs is told apart.
    for (who, case, read) in
        [("read by a program", &on, of_all), ("nobody reads them", &unread, "-".to_owned())]
    {
        let ratio = case.rate.over(&off.rate);
        let [plain, told] = [&off, case].map(|case| case.rate.show(rate));
        let cpu = format!("{} / {}", off.cpu.show(micros), case.cpu.show(micros));
        let verdict = goal(ratio.median() >= 0.9, &percent(0.9));
        let name = format!("{}, {who}", place.queue_type.as_str());
        table.row(vec![name, plain, told, ratio.show(percent), verdict, cpu, read]);
    }
}

#[tokio::main]
async fn main() {
    headline("rabbitmq");
    let (rabbit, redis) = services::blocking(|| (RabbitMq::start(), Redis::start())).await;
    let [mut publish, mut drain, mut whole] = [(); 3].map(|()| Table::new(&HEAD));
    let mut events = Table::new(&["", "events off", "on", "ratio", "goal", "CPU off / on", "events read"]);
    for queue_type in [QueueType::Classic, QueueType::Quorum] {
        let place = Place::new(&rabbit, &redis, queue_type);
        let own = Ours::letter(&place).await;
        let bare = Letter::bare(BODY);
        if wanted("publish") {
            publishing(&place, &bare, &own, &mut publish).await;
        }
        if wanted("drain") {
            draining(&place, &bare, &own, &mut drain).await;
        }
        if wanted("events") {
            with_events(&place, &own, &mut events).await;
            if queue_type == QueueType::Classic {
                peers::with_events(&place, &own, &mut events).await;
            }
        }
        if wanted("both") {
            both(&place, &bare, &own, &mut whole).await;
        }
    }
    if wanted("events") {
        events.print("Draining a filled queue while the events of each task are sent and read");
    }
    if wanted("publish") {
        publish.print("Publishing, each mandatory, persistent and confirmed");
    }
    if wanted("drain") {
        drain.print(&format!(
            "Draining a filled queue, prefetch {PREFETCH}; ours: each task run, then acknowledged"
        ));
    }
    if wanted("both") {
        whole.print("Publishing and consuming at once");
    }
    if wanted("inspect") {
        inspect::answers(&Place::new(&rabbit, &redis, QueueType::Classic)).await;
    }
    if wanted("flood") {
        flood::beside_tenants(&Place::new(&rabbit, &redis, QueueType::Classic)).await;
    }
    if wanted("brakes") {
        brakes::in_force(&Place::new(&rabbit, &redis, QueueType::Classic)).await;
    }
    if std::env::args().any(|argument| argument == "--peers") {
        let place = Place::new(&rabbit, &redis, QueueType::Classic);
        peers::compare(&place).await;
    } else {
        println!("\nBeside Python's Celery and rusty-celery: `-- --peers`");
    }
}
