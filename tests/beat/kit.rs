//! Runtimes with entries, and a book of what ran.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::path::Path;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use celeriac::actors::{BeatError, EntryStatus, QueueStatus};
use celeriac::app::ControlError;
use celeriac::catalogue::{Pool, QueueRow};
use celeriac::core::Timestamp;
use celeriac::core::calendar::{Misfire, Overlap, Schedule, tick_id};
use celeriac::task::{Arguments, Periodic, Task};
use celeriac::{Builder, Celeriac, Context, task};

/// Longer than anything takes, even on a slow machine: who waits this long has found a bug.
pub const LONG: Duration = Duration::from_secs(120);
pub const HOUR: Duration = Duration::from_secs(3600);
/// An interval of which no tick comes due before October 2096, whenever a test runs.
pub const RARELY: Duration = Duration::from_secs(4_000_000_000);

pub fn builder() -> Builder {
    Celeriac::builder().queue(QueueRow::new("io").with_pool(Pool::Io).with_workers(4)).arbiters(2)
}

pub fn embedded(dir: &Path) -> Builder {
    builder().directory(dir)
}

/// Ids of the tasks that ran, in order, by the key that they were given.
static RAN: LazyLock<Mutex<HashMap<String, Vec<String>>>> = LazyLock::new(Mutex::default);

pub fn ran(key: &str) -> Vec<String> {
    RAN.lock().unwrap().get(key).cloned().unwrap_or_default()
}

pub fn write_down(ctx: &Context, key: String) {
    RAN.lock().unwrap().entry(key).or_default().push(ctx.id().to_string());
}

/// Writes down that it ran. It keeps no result, so that nothing but the notes tells a tick that was published.
#[task(queue = "io", ignore_result)]
pub async fn tick(ctx: Context, key: String) {
    assert_eq!(ctx.header("celery_beat_task"), Some(&true.into()), "as Celery's beat marks its messages");
    write_down(&ctx, key);
}

pub fn entry<T: Task>(key: &str, interval: Duration) -> Periodic {
    Periodic::new(key, T::NAME, Schedule::Every(interval))
        .arguments(Arguments { args: serde_json::json!([key]).to_string(), kwargs: String::new() })
}

/// One that publishes each tick, come what may.
pub fn each(key: &str, interval: Duration) -> Periodic {
    entry::<tick::Task>(key, interval)
        .misfire(Misfire::All { within: HOUR })
        .overlap(Overlap::Allow)
        .expires(HOUR)
}

pub fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}

/// Waits until a condition holds that nothing signals.
pub async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < LONG, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn until_ran(key: &str, times: usize) {
    until(&format!("{key} ran {times} times"), async || ran(key).len() >= times).await;
}

/// Each tick of the entry between the first that ran and `end` ran once. Says how many there were.
pub fn assert_each_once(key: &str, interval: Duration, begin: Timestamp, end: Timestamp) -> usize {
    let ids = ran(key);
    let once: BTreeSet<_> = ids.iter().cloned().collect();
    assert_eq!(once.len(), ids.len(), "{key}: a tick ran twice");
    let schedule = Schedule::Every(interval);
    let ticks = std::iter::successors(schedule.next_after(begin), |at| schedule.next_after(*at));
    let ticks: Vec<_> = ticks.take_while(|at| *at <= end).map(|at| tick_id(key, at)).collect();
    let first = ticks.iter().position(|id| once.contains(id)).expect("one of these ticks ran");
    let lost: Vec<_> = ticks[first..].iter().filter(|id| !once.contains(*id)).collect();
    assert!(lost.is_empty(), "{key}: {} of {} ticks are lost", lost.len(), ticks.len() - first);
    ticks.len() - first
}

/// How an entry is. A beat that has lost its lease on a slow machine is asked again.
pub async fn status(celeriac: &Celeriac, name: &str) -> EntryStatus {
    let start = Instant::now();
    let all = loop {
        match celeriac.beat().entries().await {
            Err(BeatError::NotAnswering) if start.elapsed() < LONG => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            all => break all.unwrap(),
        }
    };
    all.into_iter().find(|entry| entry.name == name).unwrap_or_else(|| panic!("no entry {name}"))
}

/// The counters of the queue `io` now. An event loop that has no time to answer is asked again.
pub async fn io(celeriac: &Celeriac) -> QueueStatus {
    let start = Instant::now();
    loop {
        match celeriac.queue("io").await {
            Err(ControlError::NotAnswering(_)) if start.elapsed() < LONG => {}
            status => return status.unwrap(),
        }
    }
}
