//! A flood, and who has to live beside it.

use std::time::Duration;

use celeriac::catalogue::{Catalogue, Pool, PoolRow, QueueRow};
use celeriac::{serial_task, task};

use super::SLOTS;
use super::support::figures::{Latency, Table, flood_goal, time};
use super::support::sized;
use super::support::store::Running;
use super::waits::{self, on_behalf, send, timed};

/// How long a task of the flood runs, and one of the others.
const RUN: Duration = Duration::from_millis(20);
/// The number of keys over which a flooder spreads, and of tenants.
const MANY: usize = 1_000;
/// Those that come beside a thousand tenants that flood, each with less than its share.
const FEW: usize = 4;
/// So many tasks of a flood are enqueued together.
const BATCH: usize = 1_000;
/// Who has not started so long after the last one was sent is not waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of fewer tasks the 95th percentile is the slowest one. The first task of a tenant comes before anybody leaves room for it.
const LEAST_OF_TAIL: usize = 20;
/// Long tasks live so much faster than those that they are modelled on.
const FASTER: u32 = 20;

/// A task of a flood.
#[task(name = "bench.flood", ignore_result, queue = "work")]
async fn runs(micros: u64) {
    tokio::time::sleep(Duration::from_micros(micros)).await;
}

/// The same with a key of which one runs at a time.
#[serial_task(name = "bench.flood_serial", key = "{key}", ignore_result, queue = "work")]
async fn runs_serially(key: usize, micros: u64) {
    let _ = key;
    tokio::time::sleep(Duration::from_micros(micros)).await;
}

/// The same with a key of which five start in a second.
#[task(name = "bench.flood_metered", ignore_result, queue = "work", rate_limit = "5/s", rate_key = "{key}")]
async fn runs_metered(key: usize, micros: u64) {
    let _ = key;
    tokio::time::sleep(Duration::from_micros(micros)).await;
}

/// What the tasks of a flood have beside a tenant.
#[derive(Clone, Copy)]
enum Keys {
    None,
    Serial,
    Rate,
}

/// The tenant of a task, by its number.
type TenantOf = fn(usize) -> Option<String>;

fn nobody(_: usize) -> Option<String> {
    None
}

fn payer(_: usize) -> Option<String> {
    Some("flood".to_owned())
}

fn one_of_many(number: usize) -> Option<String> {
    Some(format!("tenant {}", number % MANY))
}

fn other(_: usize) -> Option<String> {
    Some("other".to_owned())
}

fn one_of_few(number: usize) -> Option<String> {
    Some(format!("other {}", number % FEW))
}

/// All of a thousand tenants but the one that floods.
fn one_of_the_rest(number: usize) -> Option<String> {
    Some(format!("other {}", number % (MANY - 1)))
}

/// How the slots of the queue are given away.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    /// The number of tasks that are there before.
    tasks: usize,
    keys: Keys,
    flooder: TenantOf,
    other: TenantOf,
    /// Whether the queue gets its slots from a pool, where one tenant leaves room to others.
    leaves_room: bool,
    /// Whether the flood and the others have shares of the slots, and so a goal. The other cases are what it is compared with.
    is_shared: bool,
}

/// What comes beside a flood.
#[derive(Clone, Copy)]
struct Load {
    /// How long a task of the flood runs, by its number.
    run: fn(usize) -> Duration,
    /// How long one runs on average.
    length: Duration,
    /// How long the flood goes on before the first one of the others comes.
    ahead: Duration,
    others: usize,
    pause: Duration,
    target: Duration,
}

fn short(_: usize) -> Duration {
    RUN
}

/// The mean of the long tasks, of which in a quick run a tenth is left.
fn mean_of_long() -> Duration {
    Duration::from_secs(40) / (FASTER * sized(1, 10))
}

/// From half the mean to one and a half of it, so that they do not all end at once.
fn long(number: usize) -> Duration {
    Duration::from_millis(1_000 + (number * 7_919 % 2_000) as u64) / sized(1, 10)
}

async fn fill(case: &Case, run: fn(usize) -> Duration) {
    let micros = |number: usize| run(number).as_micros() as u64;
    for first in (0..case.tasks).step_by(BATCH) {
        let numbers = first..(first + BATCH).min(case.tasks);
        let of = case.flooder;
        match case.keys {
            Keys::None => send(numbers.map(|n| on_behalf(runs::s(micros(n)), of(n)))).await,
            Keys::Serial => {
                send(numbers.map(|n| on_behalf(runs_serially::s(n % MANY, micros(n)), of(n)))).await;
            }
            Keys::Rate => {
                send(numbers.map(|n| on_behalf(runs_metered::s(n % MANY, micros(n)), of(n)))).await;
            }
        }
    }
}

/// How long the tasks of the others wait beside the flood: a row of the table, and the 95th percentile.
async fn beside(case: &Case, load: &Load) -> (Vec<String>, Duration) {
    waits::forget();
    let prefetch = case.tasks + load.others;
    let row = QueueRow::new("work").with_pool(Pool::Io).with_workers(SLOTS).with_prefetch(prefetch);
    let mut catalogue = Catalogue::new().with_queue(row.with_target(load.target));
    if case.leaves_room {
        catalogue = catalogue.with_pool(Pool::Io, PoolRow::new(SLOTS));
    }
    let running = Running::memory(catalogue).await;
    running.celeriac.pause("work").await.expect("it pauses");
    fill(case, load.run).await;
    running.celeriac.resume("work").await.expect("it resumes");
    tokio::time::sleep(load.ahead).await;
    for number in 0..load.others {
        waits::asked(number);
        let call = on_behalf(timed::s(number, RUN.as_micros() as u64), (case.other)(number));
        drop(call.delay().await.expect("accepted"));
        tokio::time::sleep(load.pause).await;
    }
    waits::started(load.others, PATIENCE).await;
    let (waits, unstarted) = waits::all(load.others);
    // What is left of the flood is nobody's concern.
    running.celeriac.shutdown_within(Duration::from_millis(100)).await.expect("it shuts down");
    (
        [vec![case.name.to_owned()], waits.cells().to_vec(), vec![unstarted.to_string()]].concat(),
        waits.quantile(0.95),
    )
}

/// Measures the cases and prints them. Answers with the 95th percentile of each.
async fn measure(cases: &[Case], load: &Load, title: &str) -> Vec<Duration> {
    let mut table = Table::new(&["a task of the others waits", "p50", "p95", "p99", "max", "not started"]);
    let mut tails = Vec::new();
    for case in cases {
        let (row, tail) = beside(case, load).await;
        table.row(row);
        tails.push(tail);
    }
    table.print(title);
    tails
}

/// Measures the cases, the first of which is without a flood, and compares the others with it.
async fn compare(cases: &[Case], load: &Load, title: &str) {
    let tails = measure(cases, load, title).await;
    let Some((alone, beside)) = tails.split_first() else { return };
    println!();
    if load.others < LEAST_OF_TAIL {
        println!("The p95 of {} tasks is the slowest of them, the first one included.", load.others);
    }
    for (case, tail) in cases.iter().skip(1).zip(beside) {
        let times = tail.as_secs_f64() / alone.as_secs_f64().max(1e-6);
        let line =
            format!("p95 {}: {} beside {} alone, {times:.1} times", case.name, time(*tail), time(*alone));
        match case.is_shared {
            true => println!("{line}; {}", flood_goal(*tail, *alone, load.length)),
            false => println!("{line}"),
        }
    }
}

fn without_flood(other: TenantOf) -> Case {
    Case {
        name: "alone",
        tasks: 0,
        keys: Keys::None,
        flooder: nobody,
        other,
        leaves_room: false,
        is_shared: false,
    }
}

/// Alone, in one line, where tenants share the workers, and where they share a pool.
fn four(tasks: usize, flooder: TenantOf, other: TenantOf) -> [Case; 4] {
    let alone = without_flood(other);
    let line = Case { name: "in one line with the flood", tasks, other: nobody, ..alone };
    let shared =
        Case { name: "tenants share the workers of the queue", tasks, flooder, is_shared: true, ..alone };
    let pool = Case { name: "tenants share a pool and leave room", leaves_room: true, ..shared };
    [alone, line, shared, pool]
}

/// A tenant floods, and another one sends a task now and then.
pub async fn one_tenant() {
    let tasks = sized(20_000, 2_000);
    let load = ten_a_second(sized(60, 6));
    let title =
        format!("`flood`: {tasks} tasks of {} of one tenant are there before, on {SLOTS} slots", time(RUN));
    compare(&four(tasks, payer, other), &load, &title).await;
}

/// So many tasks come beside a flood of short ones, ten in a second.
fn ten_a_second(others: usize) -> Load {
    Load {
        run: short,
        length: RUN,
        ahead: RUN,
        others,
        pause: Duration::from_millis(100),
        target: Duration::from_secs(30),
    }
}

/// A thousand tenants, of which one floods; then all of them flood, beside others that send less than their shares, and beside
/// one that sends more.
pub async fn a_thousand_tenants() {
    let tasks = sized(20_000, 2_000);
    let rest = ten_a_second(sized(30, 6));
    let title = format!(
        "`tenants`: one of {MANY} tenants has {tasks} tasks of {}, on {SLOTS} slots; the others send one each, ten a second",
        time(RUN)
    );
    compare(&four(tasks, payer, one_of_the_rest), &rest, &title).await;

    // By its share a tenant has one run in this time. The first tasks of all come together and go in turns, so nobody is measured
    // before the second turn is over.
    let turn = RUN * MANY as u32 / SLOTS as u32;
    let tasks = MANY * sized(16, 3);
    let few = Load {
        ahead: 2 * turn,
        others: sized(40, 4),
        pause: Duration::from_millis(500) / FEW as u32,
        ..rest
    };
    let all = format!("{MANY} tenants have {} tasks of {} each, on {SLOTS} slots", tasks / MANY, time(RUN));
    let title = format!(
        "`tenants`: {all}; by its share a tenant has one run in {}, and each of {FEW} others sends one in {}",
        time(turn),
        time(few.pause * FEW as u32)
    );
    compare(&four(tasks, one_of_many, one_of_few), &few, &title).await;

    let more = Load { others: sized(40, 6), pause: Duration::from_millis(100), ..few };
    let title = format!(
        "`tenants`: {all}; another one sends one in {}, which is more than its share",
        time(more.pause)
    );
    let [_, _, shared, pool] = four(tasks, one_of_many, other);
    let tails = measure(&[shared, pool], &more, &title).await;
    println!();
    let by_share = by_share(&more, turn, RUN * tasks as u32 / SLOTS as u32).quantile(0.95);
    for (case, tail) in [shared, pool].iter().zip(tails) {
        println!(
            "p95 {}: {}; no goal, because by its share of one run in {} it has {} at least",
            case.name,
            time(tail),
            time(turn),
            time(by_share)
        );
    }
}

/// How long the tasks of a tenant wait that starts one in each turn, until all others are through.
fn by_share(load: &Load, turn: Duration, flood: Duration) -> Latency {
    let (mut waits, mut next) = (Latency::new(), load.ahead);
    for number in 0..load.others {
        let came = load.ahead + load.pause * number as u32;
        let start = next.max(came).min(flood.max(came));
        next = start + turn;
        waits.record((start - came).as_nanos() as u64);
    }
    waits
}

/// A flood of tasks of 40 seconds, at a twentieth of their time.
pub async fn long_tasks() {
    let tasks = sized(2_000, 500);
    let load = Load {
        run: long,
        length: mean_of_long(),
        ahead: RUN,
        others: sized(20, 6),
        pause: Duration::from_millis(500) / sized(1, 10),
        target: Duration::from_secs(30) / FASTER,
    };
    let scale = FASTER * sized(1, 10);
    let title = format!(
        "`long`: {tasks} tasks of 40 s (20 s to 60 s) of one tenant, on {SLOTS} slots, at 1/{scale} of their time"
    );
    compare(&four(tasks, payer, other), &load, &title).await;
    println!("The times are as measured: {scale} times as long in the life that they stand for.");
}

/// The flooder spreads over many keys.
pub async fn many_keys() {
    let tasks = sized(20_000, 2_000);
    let load = ten_a_second(sized(60, 6));
    let alone = without_flood(other);
    let payer = Case {
        name: "one tenant, no keys",
        tasks,
        flooder: payer,
        leaves_room: true,
        is_shared: true,
        ..alone
    };
    let cases = [
        alone,
        payer,
        Case { name: "one tenant, serial keys", keys: Keys::Serial, ..payer },
        Case { name: "one tenant, keys with a rate", keys: Keys::Rate, ..payer },
        Case { name: "each key counts as a tenant", flooder: one_of_many, is_shared: false, ..payer },
    ];
    let title = format!(
        "`keys`: the flooder spreads {tasks} tasks of {} over {} keys, in a pool of {SLOTS} slots",
        time(RUN),
        MANY.min(tasks)
    );
    compare(&cases, &load, &title).await;
}
