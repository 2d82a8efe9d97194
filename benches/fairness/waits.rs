//! Tasks of which it is noted when they were asked for and when they started.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use celeriac::task;
use celeriac::task::{Signature, TENANT, Task};

use super::support::figures::Latency;
use super::support::nanos;

/// The most tasks of one measurement.
pub const MOST: usize = 400_000;

/// When each task was asked for and when it started, in nanoseconds; 0: not yet.
static ASKED: LazyLock<Vec<AtomicU64>> = LazyLock::new(|| (0..MOST).map(|_| AtomicU64::new(0)).collect());
static STARTED: LazyLock<Vec<AtomicU64>> = LazyLock::new(|| (0..MOST).map(|_| AtomicU64::new(0)).collect());
static DONE: AtomicUsize = AtomicUsize::new(0);

/// Runs for so many microseconds. Its start is noted.
#[task(name = "bench.timed", ignore_result, queue = "work")]
pub async fn timed(number: usize, micros: u64) {
    STARTED[number].store(nanos(), Ordering::Release);
    DONE.fetch_add(1, Ordering::AcqRel);
    tokio::time::sleep(Duration::from_micros(micros)).await;
}

/// Forgets all times.
pub fn forget() {
    ASKED.iter().chain(STARTED.iter()).for_each(|at| at.store(0, Ordering::Release));
    DONE.store(0, Ordering::Release);
}

/// This task is asked for now.
pub fn asked(number: usize) {
    ASKED[number].store(nanos(), Ordering::Release);
}

/// Comes back when so many have started, or at the end of the patience.
pub async fn started(count: usize, patience: Duration) {
    let start = Instant::now();
    while DONE.load(Ordering::Acquire) < count && start.elapsed() < patience {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// How long a task waited, in nanoseconds, and whether it has started: else it has waited until `end`.
pub fn waited(number: usize, end: u64) -> (u64, bool) {
    let (asked, started) = (ASKED[number].load(Ordering::Acquire), STARTED[number].load(Ordering::Acquire));
    let until = if started == 0 { end } else { started.min(end) };
    (until.saturating_sub(asked), started != 0)
}

/// How long the first `count` tasks waited, and how many of them have not started until now.
pub fn all(count: usize) -> (Latency, usize) {
    let (mut waits, mut unstarted, end) = (Latency::new(), 0, nanos());
    for number in 0..count {
        let (waited, has_started) = waited(number, end);
        waits.record(waited);
        unstarted += usize::from(!has_started);
    }
    (waits, unstarted)
}

/// A call on behalf of a tenant, or of none.
pub fn on_behalf<T: Task>(call: Signature<T>, tenant: Option<String>) -> Signature<T> {
    match tenant {
        Some(tenant) => call.header(TENANT, tenant),
        None => call,
    }
}

/// Enqueues these calls together.
pub async fn send<T: Task>(calls: impl IntoIterator<Item = Signature<T>>) {
    drop(Signature::delay_many(calls).await.expect("accepted"));
}
