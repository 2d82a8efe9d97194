//! How soon the tasks of ten tenants start while a million of another one's wait, in memory and in the embedded store.

use std::time::Duration;

use celeriac::catalogue::{Catalogue, Pool, PoolRow, QueueRow};
use celeriac::task;

use super::SLOTS;
use super::support::figures::{Latency, Table, time};
use super::support::process::{resident, size};
use super::support::sized;
use super::support::store::{Running, directory};
use super::waits::{self, on_behalf, send, timed};

const OTHERS: usize = 10;
/// How long a task runs.
const RUN: Duration = Duration::from_millis(20);
/// So many tasks of the flood are enqueued together.
const BATCH: usize = 5_000;
/// After so long nobody waits for a start any more.
const PATIENCE: Duration = Duration::from_secs(30);

/// A task of the flood.
#[task(name = "bench.waits", ignore_result, queue = "work")]
async fn waiting(micros: u64) {
    tokio::time::sleep(Duration::from_micros(micros)).await;
}

fn catalogue() -> Catalogue {
    let row = QueueRow::new("work").with_pool(Pool::Io).with_workers(SLOTS);
    let row = row.with_target(Duration::from_secs(30));
    Catalogue::new().with_queue(row).with_pool(Pool::Io, PoolRow::new(SLOTS))
}

fn tenant(name: impl Into<String>) -> Option<String> {
    Some(name.into())
}

/// How long the tasks of the others wait behind so many of another tenant, how many have not started, and the memory meanwhile.
async fn picked_up(running: Running, flood: usize) -> (Latency, usize, u64) {
    waits::forget();
    running.celeriac.pause("work").await.expect("it pauses");
    for first in (0..flood).step_by(BATCH) {
        let numbers = first..(first + BATCH).min(flood);
        send(numbers.map(|_| on_behalf(waiting::s(RUN.as_micros() as u64), tenant("flood")))).await;
    }
    running.celeriac.resume("work").await.expect("it resumes");
    tokio::time::sleep(10 * RUN).await;
    let count = OTHERS * sized(30, 4);
    for number in 0..count {
        waits::asked(number);
        let call = timed::s(number, RUN.as_micros() as u64);
        let call = on_behalf(call, tenant(format!("other {}", number % OTHERS)));
        drop(call.delay().await.expect("accepted"));
        tokio::time::sleep(RUN).await;
    }
    waits::started(count, PATIENCE).await;
    let memory = resident();
    let (waits, unstarted) = waits::all(count);
    running.celeriac.shutdown_within(Duration::from_millis(100)).await.expect("it shuts down");
    (waits, unstarted, memory)
}

/// Measures each place without a flood and with one.
pub async fn of_others() {
    let is_large = std::env::args().any(|argument| argument == "10M");
    let flood = if is_large { 10_000_000 } else { sized(1_000_000, 20_000) };
    let mut table =
        Table::new(&["where", "waiting before", "p50", "p95", "p99", "max", "not started", "resident"]);
    let mut tails = Vec::new();
    for (place, is_durable) in [("in memory", false), ("embedded store", true)] {
        // Ten million tasks take more memory than many a machine has.
        let floods = if is_large && !is_durable { vec![0] } else { vec![0, flood] };
        for flood in floods {
            let dir = directory();
            let running = match is_durable {
                true => Running::embedded(dir.path(), catalogue()).await,
                false => Running::memory(catalogue()).await,
            };
            let (waits, unstarted, memory) = picked_up(running, flood).await;
            tails.push((place, flood, waits.quantile(0.99)));
            let before = [place.to_owned(), flood.to_string()].to_vec();
            let after = [unstarted.to_string(), size(memory)].to_vec();
            table.row([before, waits.cells().to_vec(), after].concat());
        }
    }
    table.print(&format!(
        "`pickup`: from the call to the start, for the tasks of {OTHERS} tenants on {SLOTS} slots, of {} each; the call is a part of it",
        time(RUN)
    ));
    println!();
    for pair in tails.windows(2) {
        if let [(place, 0, alone), (other, flood, beside)] = pair
            && place == other
        {
            let times = beside.as_secs_f64() / alone.as_secs_f64().max(1e-6);
            println!(
                "p99 {place}: {} behind {flood}, {} alone, {times:.1} times",
                time(*beside),
                time(*alone)
            );
        }
    }
}
