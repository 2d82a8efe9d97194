//! Ticks around `kill -9`: each is published once, none is lost, and none runs again that was settled.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use celeriac::core::Timestamp;
use celeriac::core::calendar::{Misfire, Overlap, Schedule, tick_id};
use celeriac::task::{Periodic, Task};
use celeriac::{Context, task};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::child::{Child, Failure, emptied, say, until_signal};
use crate::ledger::{Line, Reader, note};
use crate::process::Home;

const ENTRY: &str = "killed";
const INTERVAL: Duration = Duration::from_millis(10);
const HOUR: Duration = Duration::from_secs(3600);
const KILLS: u64 = 60;
/// The least time that the kills take, so that there are ticks enough.
const LEAST: Duration = Duration::from_secs(4);

/// It keeps no result, so that its id is free as soon as it is settled: what tells a tick that was published is the note
/// and nothing else.
#[task(queue = "io", ignore_result)]
async fn tick(ctx: Context) {
    note(&Line::Tick { id: ctx.id().to_string(), crashes: ctx.message().crashes });
}

fn entry() -> Periodic {
    Periodic::new(ENTRY, tick::Task::NAME, Schedule::Every(INTERVAL))
        .misfire(Misfire::All { within: HOUR })
        .overlap(Overlap::Allow)
        .expires(HOUR)
}

/// Beats until it is killed. The last life decides what is due, takes the entry's tempo away, runs what is left and says
/// up to where it came.
pub async fn child(child: Child) -> Result<(), Failure> {
    let celeriac = child.builder().periodic(entry()).start().await?;
    if child.orders.seed == 0 {
        return until_signal(&celeriac, "up").await;
    }
    let now: Timestamp = std::time::SystemTime::now().into();
    let mut look = tokio::time::interval(Duration::from_millis(5));
    let last = loop {
        look.tick().await;
        let last = celeriac.beat().entries().await?.iter().map(|entry| entry.last).max().ok_or("no entry")?;
        if last >= now - INTERVAL {
            break last;
        }
    };
    celeriac.beat().resign().await?;
    emptied(&celeriac).await?;
    say(&format!("last {}", last.as_micros()));
    celeriac.shutdown().await?;
    Ok(())
}

pub fn each_tick_once() {
    let seed = rand::rng().random_range(0..1_000_000);
    println!("    seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut home = Home::new();
    let mut reader = Reader::open(&home.ledger());
    let begin: Timestamp = std::time::SystemTime::now().into();
    let (start, mut kills) = (Instant::now(), 0);
    while kills < KILLS || start.elapsed() < LEAST {
        kills += 1;
        let life = home.spawn("beat", "");
        life.expect("up");
        // The moment of the kill is what this is about, so this is a sleep that is meant.
        std::thread::sleep(Duration::from_micros(rng.random_range(0..60_000)));
        life.kill_9().assert_no_panic();
    }
    let orders = crate::child::Orders { seed: 1, ..crate::child::Orders::default() };
    let life = home.spawn("beat", &orders.line());
    let last = life.expect("last ");
    let last = Timestamp::from_micros(last["last ".len()..].parse().expect("a number"));
    life.death().assert_clean();

    // Runs of each task, by the crashes that it had had by then: a task that was published twice begins twice with none.
    let mut begun: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    let mut doubled = Vec::new();
    let mut runs = 0;
    for line in reader.lines() {
        if let Line::Tick { id, crashes } = line {
            runs += 1;
            if !begun.entry(id.clone()).or_default().insert(crashes) {
                doubled.push(id);
            }
        }
    }
    let schedule = Schedule::Every(INTERVAL);
    let ticks = std::iter::successors(schedule.next_after(begin), |at| schedule.next_after(*at));
    let ticks: Vec<_> = ticks.take_while(|at| *at <= last).map(|at| tick_id(ENTRY, at)).collect();
    let first = ticks.iter().position(|id| begun.contains_key(id)).expect("some ran");
    let lost = ticks[first..].iter().filter(|id| !begun.contains_key(*id)).count();
    println!(
        "    {kills} kills, {} ticks, {runs} runs ({} of tasks that a kill had cut short), lost {lost}, doubled {}",
        ticks.len() - first,
        runs - begun.len(),
        doubled.len()
    );
    assert_eq!(lost, 0, "ticks were lost");
    assert!(doubled.is_empty(), "published twice: {doubled:?}");
    assert!(ticks.len() - first > 200, "too little happened to mean anything");
}
