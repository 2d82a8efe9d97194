//! Who waits for whom: `cargo bench --bench fairness [-- --quick]`.
//!
//! - a tenant floods a queue of 50 slots, and another one sends a task now and then: how long that waits, alone, in one line
//!   with the flood, and where tenants share the slots; also among a thousand tenants, and when the flooder spreads over keys;
//! - twelve queues with the promises and the load of CommCare HQ's, at 1/200 of their time, on 40 slots: how much of its promise
//!   the worst of them uses, with workers of their own, in one line, and with a pool;
//! - what one decision costs.

mod support;

use std::f64::consts::TAU;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use celeriac::catalogue::{Catalogue, Pool, PoolRow, QueueRow, format_span};
use celeriac::core::Timestamp;
use celeriac::core::slots::{QueueTerms, SlotRules, Slots, WaitingTask};
use celeriac::task;
use celeriac::task::TENANT;
use support::figures::{Latency, Table, goal, time};
use support::store::Running;
use support::{headline, nanos, sized};

const SLOTS: usize = 50;
/// How long a task of the flood runs, and one of the other tenant.
const RUN: Duration = Duration::from_millis(20);
/// The most tasks of one measurement.
const MOST: usize = 400_000;
/// The slots of the twelve queues.
const SHARED: usize = 40;
/// The twelve queues live so much faster than those that they are modelled on.
const FASTER: f64 = 200.0;

/// When each task was asked for and when it started, in nanoseconds; 0: not yet.
static ASKED: LazyLock<Vec<AtomicU64>> = LazyLock::new(|| (0..MOST).map(|_| AtomicU64::new(0)).collect());
static STARTED: LazyLock<Vec<AtomicU64>> = LazyLock::new(|| (0..MOST).map(|_| AtomicU64::new(0)).collect());
static DONE: AtomicUsize = AtomicUsize::new(0);

#[task(ignore_result, queue = "work")]
async fn flood() {
    tokio::time::sleep(RUN).await;
}

#[task(ignore_result, queue = "work")]
async fn timed(number: usize, micros: u64) {
    STARTED[number].store(nanos(), Ordering::Release);
    DONE.fetch_add(1, Ordering::AcqRel);
    tokio::time::sleep(Duration::from_micros(micros)).await;
}

fn forget() {
    ASKED.iter().chain(STARTED.iter()).for_each(|at| at.store(0, Ordering::Release));
    DONE.store(0, Ordering::Release);
}

/// The tenant of a task of a flood, by its number.
type TenantOf = fn(usize) -> Option<String>;

fn nobody(_: usize) -> Option<String> {
    None
}

fn payer(_: usize) -> Option<String> {
    Some("flood".to_owned())
}

fn keys(number: usize) -> Option<String> {
    Some(format!("key {}", number % 1_000))
}

/// A flood, and the tenant that has to live beside it.
struct Flood {
    /// The number of its tasks.
    tasks: usize,
    /// The tenant of each of them.
    tenant: TenantOf,
    /// The tenant of the other tasks.
    other: Option<&'static str>,
    /// Whether the queue gets its slots from a pool, where one tenant leaves room to others.
    leaves_room: bool,
}

/// How long the tasks of the other tenant wait, which come every `pause`.
async fn beside(case: &Flood, others: usize, pause: Duration) -> Latency {
    forget();
    let row =
        QueueRow::new("work").with_pool(Pool::Io).with_workers(SLOTS).with_prefetch(case.tasks + others);
    let mut catalogue = Catalogue::new().with_queue(row.with_target(Duration::from_secs(30)));
    if case.leaves_room {
        catalogue = catalogue.with_pool(Pool::Io, PoolRow::new(SLOTS));
    }
    let running = Running::memory(catalogue).await;
    running.celeriac.pause("work").await.expect("it pauses");
    for number in 0..case.tasks {
        let call = flood::s();
        let call = match (case.tenant)(number) {
            Some(tenant) => call.header(TENANT, tenant),
            None => call,
        };
        call.delay().await.expect("accepted");
    }
    running.celeriac.resume("work").await.expect("it resumes");
    for number in 0..others {
        ASKED[number].store(nanos(), Ordering::Release);
        let call = timed::s(number, RUN.as_micros() as u64);
        let call = match case.other {
            Some(tenant) => call.header(TENANT, tenant),
            None => call,
        };
        call.delay().await.expect("accepted");
        tokio::time::sleep(pause).await;
    }
    while DONE.load(Ordering::Acquire) < others {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut waits = Latency::new();
    for (asked, started) in ASKED.iter().zip(STARTED.iter()).take(others) {
        waits.record(started.load(Ordering::Acquire).saturating_sub(asked.load(Ordering::Acquire)));
    }
    running.settled("work").await;
    running.shutdown().await;
    waits
}

async fn floods() {
    let (tasks, others) = (sized(20_000, 2_000), sized(60, 6));
    let flood = |tasks: usize, tenant: TenantOf, other: Option<&'static str>, leaves_room: bool| Flood {
        tasks,
        tenant,
        other,
        leaves_room,
    };
    let often = Duration::from_millis(100);
    // Beside a thousand others, a tenth of a second of work a second would be more than a share.
    let seldom = sized(Duration::from_secs(1), often);
    let fewer = sized(8, 6);
    let cases: [(&str, Flood, usize, Duration); 6] = [
        ("alone", flood(0, nobody, None, false), others, often),
        ("in one line with the flood", flood(tasks, nobody, None, false), others, often),
        ("tenants share the workers of the queue", flood(tasks, payer, Some("other"), false), others, often),
        ("tenants share a pool and leave room", flood(tasks, payer, Some("other"), true), others, often),
        (
            "the flood counts as a tenant for each of 1000 keys",
            flood(tasks, keys, Some("other"), false),
            others,
            often,
        ),
        (
            "1000 tenants flood, and the other sends less than its share",
            flood(tasks, keys, Some("other"), true),
            fewer,
            seldom,
        ),
    ];
    let mut table = Table::new(&["a task of the other tenant waits", "p50", "p95", "p99", "max"]);
    let mut tails = Vec::new();
    for (name, case, others, pause) in &cases {
        let waits = beside(case, *others, *pause).await;
        tails.push(waits.quantile(0.95));
        table.row([vec![(*name).to_owned()], waits.cells().to_vec()].concat());
    }
    table.print(&format!("{tasks} tasks of {} on {SLOTS} slots are there before it", time(RUN)));
    let [alone, line, shared, ..] = tails[..] else { return };
    let met = shared <= alone + 2 * RUN;
    println!(
        "\np95 {} alone, {} in one line, {} where tenants share: {}",
        time(alone),
        time(line),
        time(shared),
        goal(met, "two runs more than alone")
    );
}

/// A queue as HQ has them: its name, its target and the mean of its runs in seconds, how far they scatter, and its part of
/// the load.
type Modelled = (&'static str, f64, f64, f64, f64);

const QUEUES: [Modelled; 12] = [
    ("email", 30.0, 1.5, 0.8, 0.05),
    ("export", 30.0, 90.0, 1.0, 0.12),
    ("restore", 60.0, 8.0, 1.0, 0.08),
    ("import", 60.0, 600.0, 1.2, 0.16),
    ("sms", 300.0, 0.8, 0.6, 0.04),
    ("reminder", 900.0, 1.0, 0.7, 0.04),
    ("repeat", 900.0, 3.0, 1.2, 0.10),
    ("rule", 900.0, 900.0, 1.0, 0.06),
    ("background", 600.0, 20.0, 1.8, 0.12),
    ("case_rule", 3_600.0, 1_200.0, 1.0, 0.08),
    ("saved_export", 21_600.0, 600.0, 1.2, 0.10),
    ("logs", 21_600.0, 2.0, 0.8, 0.05),
];

/// Numbers by chance, the same ones each time.
struct Chance(u64);

impl Chance {
    /// Above 0, at most 1.
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64 + f64::EPSILON
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (TAU * self.uniform()).cos()
    }
}

/// A task of the model: when it comes, in which queue, and how long it runs, all in seconds of the model.
struct Event {
    at: f64,
    queue: usize,
    runs: f64,
}

/// What comes in so many seconds, at this part of what the slots can do.
fn events(load: f64, span: f64) -> Vec<Event> {
    let mut chance = Chance(7);
    let mut events = Vec::new();
    for (queue, (_, _, mean, scatter, part)) in QUEUES.into_iter().enumerate() {
        let rate = load * SHARED as f64 * part / mean;
        let mut at = 0.0;
        loop {
            // Each queue has its rush hour.
            let now = rate * (1.0 + 0.6 * (TAU * at / 14_400.0 + queue as f64).sin());
            at += -chance.uniform().ln() / now;
            if at > span {
                break;
            }
            let runs = (mean.ln() - scatter * scatter / 2.0 + scatter * chance.normal()).exp();
            events.push(Event { at, queue, runs: runs.min(20.0 * mean) });
        }
    }
    events.sort_by(|one, other| one.at.total_cmp(&other.at));
    events
}

#[derive(Clone, Copy, PartialEq)]
enum Policy {
    Static,
    OneLine,
    Shared,
}

fn twelve(policy: Policy) -> Catalogue {
    let row = |name: &str, workers| QueueRow::new(name).with_pool(Pool::Io).with_workers(workers);
    if policy == Policy::OneLine {
        return Catalogue::new().with_queue(row("line", SHARED));
    }
    // Workers of their own, by the load, as somebody would set them who knew it.
    let mut own: Vec<usize> =
        QUEUES.iter().map(|queue| ((queue.4 * SHARED as f64).round() as usize).max(1)).collect();
    while own.iter().sum::<usize>() > SHARED {
        if let Some(most) = own.iter_mut().max() {
            *most -= 1;
        }
    }
    let mut catalogue = Catalogue::new();
    if policy == Policy::Shared {
        catalogue = catalogue.with_pool(Pool::Io, PoolRow::new(SHARED).with_reserve(0));
    }
    for ((name, target, mean, ..), own) in QUEUES.into_iter().zip(own) {
        let workers = if policy == Policy::Shared { SHARED } else { own };
        let typical = format_span(Duration::from_secs_f64(mean / FASTER));
        let row = row(name, workers).with_target(Duration::from_secs_f64(target / FASTER));
        catalogue = catalogue.with_queue(row.with_typical_duration(typical));
    }
    catalogue
}

/// The part of its promise that each queue uses for 95 of 100 tasks. What has not started at the end has waited until then.
async fn used(policy: Policy, events: &[Event]) -> Vec<f64> {
    forget();
    let running = Running::memory(twelve(policy)).await;
    let start = Instant::now();
    for (number, event) in events.iter().enumerate().take(MOST) {
        tokio::time::sleep_until((start + Duration::from_secs_f64(event.at / FASTER)).into()).await;
        ASKED[number].store(nanos(), Ordering::Release);
        let micros = (event.runs / FASTER * 1e6) as u64;
        let queue = if policy == Policy::OneLine { "line" } else { QUEUES[event.queue].0 };
        timed::s(number, micros).queue(queue).delay().await.expect("accepted");
    }
    let end = nanos();
    let mut parts = vec![Vec::new(); QUEUES.len()];
    for (number, event) in events.iter().enumerate().take(MOST) {
        let asked = ASKED[number].load(Ordering::Acquire);
        let started = match STARTED[number].load(Ordering::Acquire) {
            0 => end,
            at => at.min(end),
        };
        let waited = started.saturating_sub(asked) as f64 / 1e9;
        parts[event.queue].push(waited * FASTER / QUEUES[event.queue].1);
    }
    running.celeriac.shutdown_within(Duration::from_millis(100)).await.expect("it shuts down");
    let tail = |mut parts: Vec<f64>| {
        parts.sort_by(f64::total_cmp);
        parts.get(parts.len() * 95 / 100).or(parts.last()).copied().unwrap_or(0.0)
    };
    parts.into_iter().map(tail).collect()
}

async fn promises() {
    let span = sized(3_600.0, 400.0);
    let policies =
        [(Policy::Static, "workers of their own"), (Policy::OneLine, "one line"), (Policy::Shared, "a pool")];
    let mut table = Table::new(&["load", "", "worst p95 of waited / target", "queues over their target"]);
    for load in sized(vec![0.85, 0.95, 1.15], vec![0.95]) {
        let events = events(load, span);
        for (policy, name) in policies {
            let used = used(policy, &events).await;
            let worst = used.iter().copied().fold(0.0, f64::max);
            let over = used.iter().filter(|used| **used > 1.0).count();
            table.row([format!("{load}"), name.to_owned(), format!("{worst:.2}"), format!("{over} of 12")]);
        }
    }
    table.print(&format!(
        "Twelve queues on {SHARED} slots, {} of their life",
        time(Duration::from_secs_f64(span))
    ));
}

/// Nanoseconds of a task's way through a pool: it comes, gets a slot, and gives it back.
fn decision(queues: usize, tenants: u64, tasks: u64) -> f64 {
    let mut slots = Slots::new(SlotRules { slots: SLOTS, reserve: None, room: None });
    let names: Vec<String> = (0..tenants).map(|tenant| format!("tenant {tenant}")).collect();
    for queue in 0..queues {
        let target = Duration::from_secs(30 << queue.min(12));
        slots.join(QueueTerms { target, min_workers: 0, typical: Some(Duration::from_secs(1)) });
        slots.report(queue, SLOTS, true, Timestamp::ZERO);
    }
    let mut now = Timestamp::from_millis(1);
    let arrive = |slots: &mut Slots, tag: u64, now: Timestamp| {
        let tenant = names.get((tag % tenants.max(1)) as usize).map(String::as_str);
        let waiting = WaitingTask { tag, tenant, task: "app.task", priority: 0, since: now };
        slots.arrive(tag as usize % queues, waiting, now);
    };
    // There is always something to choose from.
    (0..4_000).for_each(|tag| arrive(&mut slots, tag, now));
    let mut running = std::collections::VecDeque::new();
    let start = Instant::now();
    for tag in 4_000..4_000 + tasks {
        now = now + Duration::from_micros(500);
        arrive(&mut slots, tag, now);
        slots.dispatch(now);
        for queue in 0..queues {
            while let Some(grant) = slots.take(queue) {
                running.push_back((queue, grant.run));
            }
        }
        if let Some((queue, run)) = running.pop_front() {
            slots.finish(run, true, now);
            slots.report(queue, SLOTS, true, now);
        }
    }
    start.elapsed().as_nanos() as f64 / tasks as f64
}

fn decisions() {
    let tasks = sized(400_000, 20_000);
    let mut table = Table::new(&["queues", "tenants", "a task's way through the pool", ""]);
    for (queues, tenants) in [(1, 0), (12, 0), (1, 20), (12, 20), (1, 1_000), (12, 1_000)] {
        let nanos = decision(queues, tenants, tasks);
        let met = goal(nanos <= 1_000.0, "1 us");
        table.row([queues.to_string(), tenants.to_string(), format!("{nanos:.0} ns"), met]);
    }
    table.print("What a decision costs");
}

#[tokio::main]
async fn main() {
    headline("fairness");
    decisions();
    floods().await;
    promises().await;
}
