//! What a start costs with a pool: all of it, in CPU of a task from its call to its end, and the decision by itself.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use celeriac::catalogue::{Catalogue, Pool, PoolRow};
use celeriac::core::Timestamp;
use celeriac::core::slots::{QueueTerms, SlotRules, Slots, WaitingTask};
use celeriac::task;

use super::SLOTS;
use super::support::done::{Done, Rounds, Watch};
use super::support::figures::{Series, Table, goal, micros, rate};
use super::support::store::{Running, one_queue};
use super::support::{rounds, sized, span};
use super::waits::on_behalf;

const WORKERS: usize = 64;
/// The tenants in whose turns the slots are given away, in the case that has some.
const TENANTS: u64 = 20;
/// A pool may cost a start so many microseconds.
const MOST: f64 = 1.0;

static RUN: AtomicU64 = AtomicU64::new(0);

#[task(name = "bench.noop", ignore_result, queue = "work")]
async fn noop() {
    RUN.fetch_add(1, Ordering::Relaxed);
}

/// How a queue gets its slots.
#[derive(Clone, Copy, PartialEq)]
enum Slotted {
    /// It has its workers to itself.
    Own,
    /// From a pool.
    Pooled,
    /// From a pool, in turns of tenants.
    Tenants,
}

impl Slotted {
    fn catalogue(self) -> Catalogue {
        let catalogue = one_queue("work", WORKERS);
        if self == Self::Own { catalogue } else { catalogue.with_pool(Pool::Io, PoolRow::new(WORKERS)) }
    }

    fn tenant(self, number: u64) -> Option<String> {
        (self == Self::Tenants).then(|| format!("tenant {}", number % TENANTS))
    }
}

/// Accepted in memory, run and settled.
async fn end_to_end(slotted: Slotted, producers: usize) -> Done {
    let running = Running::memory(slotted.catalogue()).await;
    RUN.store(0, Ordering::Relaxed);
    let watch = Watch::start();
    let start = Instant::now();
    let mut producing = Vec::new();
    for producer in 0..producers as u64 {
        producing.push(tokio::spawn(async move {
            let mut accepted = 0;
            while start.elapsed() < span() {
                let call = on_behalf(noop::s(), slotted.tenant(producer + accepted));
                drop(call.delay().await.expect("accepted"));
                accepted += 1;
            }
            accepted
        }));
    }
    let mut accepted = 0;
    for producer in producing {
        accepted += producer.await.expect("a producer ends");
    }
    running.settled("work").await;
    assert_eq!(RUN.load(Ordering::Relaxed), accepted, "every accepted task ran once");
    let done = watch.stop(accepted);
    running.shutdown().await;
    done
}

/// The CPU of each round beside that of the same round without a pool.
fn more(with: &Series, without: &Series) -> f64 {
    (with.over(without).median() - 1.0) * without.median()
}

async fn whole_tasks() {
    let mut table = Table::new(&[
        "producers",
        "slots",
        "in memory, to the end",
        "CPU of a task",
        "more than without",
        "",
    ]);
    let cases = [
        (Slotted::Own, "no pool"),
        (Slotted::Pooled, "a pool"),
        (Slotted::Tenants, "a pool, 20 tenants, with their headers"),
    ];
    for producers in [64, 512] {
        let mut measured = [(); 3].map(|()| Rounds::default());
        for _ in 0..rounds() {
            for ((slotted, _), rounds) in cases.iter().zip(&mut measured) {
                rounds.push(end_to_end(*slotted, producers).await);
            }
        }
        let [own, ..] = &measured;
        for ((slotted, name), of) in cases.iter().zip(&measured) {
            let more = more(&of.cpu, &own.cpu);
            let (more, verdict) = match slotted {
                Slotted::Own => ("-".to_owned(), "-".to_owned()),
                Slotted::Pooled => (micros(more), goal(more <= MOST, "1 us more")),
                Slotted::Tenants => (micros(more), "-".to_owned()),
            };
            let (rate, cpu) = (of.rate.show(rate), of.cpu.show(micros));
            table.row([producers.to_string(), (*name).to_owned(), rate, cpu, more, verdict]);
        }
    }
    table.print("`cost`: what a start costs with a pool beside without");
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
    let mut running = VecDeque::new();
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
        let mut nanos = Series::default();
        (0..rounds()).for_each(|_| nanos.push(decision(queues, tenants, tasks)));
        let met = goal(nanos.median() <= MOST * 1e3, "1 us");
        let shown = nanos.show(|nanos| format!("{nanos:.0} ns"));
        table.row([queues.to_string(), tenants.to_string(), shown, met]);
    }
    table.print("`cost`: what a decision costs by itself");
}

/// Measures both.
pub async fn starts() {
    decisions();
    whole_tasks().await;
}
