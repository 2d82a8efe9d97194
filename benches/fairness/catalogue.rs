//! The 24 queues of `celeriac.toml`: with today's numbers of workers, and in two pools with as many slots. The catalogue says how
//! long tasks take in words only, so each word stands for a time, which the output states.

use std::time::Duration;

use celeriac::catalogue::{Catalogue, Pool, PoolRow, QueueRow, format_span};

use super::load::{Event, FASTER, Modelled, events, scaled, used};
use super::support::figures::{Table, goal, time};
use super::support::sized;

/// Each queue brings so much of what its own workers can do, on average.
const LOAD: f64 = 0.8;
/// The seconds in which each queue has its rush hour once.
const PERIOD: f64 = 3_600.0;
/// Of the workers of io queues there is one in so many, and so much less load: two cores are to do it.
const IO_PART: usize = 5;
/// Words of `typical_duration`, the mean of runs in seconds that each stands for, and how far they scatter. The first one counts.
const WORDS: [(&str, f64, f64); 3] = [("hour", 900.0, 1.2), ("minute", 120.0, 1.0), ("second", 2.0, 0.8)];
/// What nothing, or "varies wildly", stands for.
const UNSAID: (f64, f64) = (20.0, 1.8);

/// A queue of the catalogue, with its pool and the workers that it has by itself.
struct Served {
    modelled: Modelled,
    pool: Pool,
    workers: usize,
}

impl Served {
    fn new(row: &QueueRow) -> Self {
        let words = row.typical_duration.as_deref().unwrap_or_default();
        let word = WORDS.into_iter().find(|(word, ..)| words.contains(word));
        let (mean, scatter) = word.map_or(UNSAID, |(_, mean, scatter)| (mean, scatter));
        let workers = if row.pool == Pool::Io { row.workers.div_ceil(IO_PART) } else { row.workers };
        let target = row.scheduling_target().as_secs_f64();
        let modelled = Modelled { name: row.name.clone(), target, mean, scatter, work: workers as f64 };
        Self { modelled, pool: row.pool, workers }
    }

    fn row(&self, workers: usize) -> QueueRow {
        let typical = format_span(scaled(self.modelled.mean));
        QueueRow::new(&self.modelled.name)
            .with_pool(self.pool)
            .with_workers(workers)
            .with_target(scaled(self.modelled.target))
            .with_typical_duration(typical)
    }
}

fn of_their_own(queues: &[Served]) -> Catalogue {
    queues.iter().fold(Catalogue::new(), |catalogue, queue| catalogue.with_queue(queue.row(queue.workers)))
}

fn slots(queues: &[Served], pool: Pool) -> usize {
    queues.iter().filter(|queue| queue.pool == pool).map(|queue| queue.workers).sum()
}

/// As many slots as there are workers, of which a fifth is kept for promises that are tighter than a task is long.
fn in_pools(queues: &[Served]) -> Catalogue {
    let pools = [Pool::Io, Pool::Cpu].into_iter().fold(Catalogue::new(), |catalogue, pool| {
        let slots = slots(queues, pool);
        catalogue.with_pool(pool, PoolRow::new(slots).with_reserve(slots / 5))
    });
    queues.iter().fold(pools, |catalogue, queue| catalogue.with_queue(queue.row(slots(queues, queue.pool))))
}

/// Measures both, and prints each queue.
pub async fn promises() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/celeriac.toml");
    let shipped = Catalogue::load(file).expect("the shipped catalogue is right");
    let queues: Vec<Served> = shipped.queues.iter().map(Served::new).collect();
    let (own, pools) = (of_their_own(&queues), in_pools(&queues));
    let kinds: Vec<(Pool, usize)> = queues.iter().map(|queue| (queue.pool, queue.workers)).collect();
    let modelled: Vec<Modelled> = queues.into_iter().map(|queue| queue.modelled).collect();
    let span = sized(2.0 * PERIOD, 800.0);
    let events: Vec<Event> = events(&modelled, LOAD, span, PERIOD);
    let alone = used(own, &modelled, &events, None).await;
    let shared = used(pools, &modelled, &events, None).await;
    let mut table = Table::new(&[
        "queue",
        "pool",
        "workers",
        "target",
        "a run takes",
        "tasks",
        "p95 / target, workers of its own",
        "in a pool",
    ]);
    for (number, (queue, (pool, workers))) in modelled.iter().zip(kinds).enumerate() {
        let tasks = events.iter().filter(|event| event.queue == number).count();
        table.row([
            queue.name.clone(),
            pool.as_str().to_owned(),
            workers.to_string(),
            format_span(Duration::from_secs_f64(queue.target)),
            format_span(Duration::from_secs_f64(queue.mean)),
            tasks.to_string(),
            format!("{:.2}", alone[number]),
            format!("{:.2}", shared[number]),
        ]);
    }
    table.print(&format!(
        "`catalogue`: {} queues at a load of {LOAD}, with rush hours of 1.6 times that, {} of their life at 1/{FASTER} of its time",
        modelled.len(),
        time(Duration::from_secs_f64(span))
    ));
    let missed = |used: &[f64]| used.iter().filter(|used| **used > 1.0).count();
    let (own, pooled) = (missed(&alone), missed(&shared));
    println!(
        "\ntargets missed: {own} with workers of their own, {pooled} in two pools with as many slots: {}",
        goal(pooled == 0, "none in pools")
    );
}
