//! `--once`: what an earlier run left behind, then a mixed load, then the books are closed.

use std::time::{Duration, Instant};

use celeriac::task::State;
use celeriac::{Celeriac, TaskId};

use crate::load::{self, Load, PATIENCE, Tally, Wanted, settle, the_ledger};
use crate::table;
use crate::web::sink::Sink;

/// Runs it all and prints how it went; `false` if anything was lost, left, or is not as it should be. `all`: no queue
/// may stay without a task. (Another catalogue may send the tasks elsewhere.)
pub async fn run(celeriac: &Celeriac, sink: &Sink, all: bool) -> Result<bool, Box<dyn std::error::Error>> {
    let start = Instant::now();
    let mut tally = leftovers(celeriac).await?;
    let before = tally.tasks;
    let load = Load::prepare()?;
    let fed = load::run(load, celeriac, sink).await?;
    tally.tasks += fed.tasks;
    tally.lost += fed.lost;
    tally.faults.extend(fed.faults);
    let left = idle(celeriac).await?;
    let queues = celeriac.queues().await?;
    for queue in queues.iter().filter(|_| all) {
        if queue.done + queue.failed + queue.rejected == 0 {
            tally.faults.push(format!("{} has run nothing", queue.name));
        }
    }
    print!("{}", table::render(&celeriac.catalogue().queues, &queues));
    let sum = |count: fn(&celeriac::actors::QueueStatus) -> u64| queues.iter().map(count).sum::<u64>();
    println!(
        "\nlost {}, left {left}, wrong {}: {} tasks in {} queues in {:.1} s; {} done, {} failed and {} rejected as \
         expected, {} retries, {before} left over from an earlier run",
        tally.lost,
        tally.faults.len(),
        tally.tasks,
        queues.len(),
        start.elapsed().as_secs_f64(),
        sum(|q| q.done),
        sum(|q| q.failed),
        sum(|q| q.rejected),
        sum(|q| q.retried),
    );
    for fault in &tally.faults {
        eprintln!("wrong: {fault}");
    }
    Ok(tally.faults.is_empty() && tally.lost == 0 && left == 0)
}

/// Runs what is left of an earlier run to its end. What the ledger knows as planned only was not accepted; what it
/// knows as accepted must be there.
async fn leftovers(celeriac: &Celeriac) -> Result<Tally, Box<dyn std::error::Error>> {
    let mut tally = Tally::default();
    let ledger = the_ledger();
    for line in ledger.open_lines()? {
        let id = TaskId::from(line.id.as_str());
        let state = celeriac.client().state(&id).await?;
        if state == State::Unknown && !line.accepted {
            ledger.over(&line.id, "NEVER ENQUEUED")?;
            continue;
        }
        let wanted = Wanted { expected: &line.expected, attempts: 1, error: "" };
        if let Some(outcome) = settle(&line.id, wanted, celeriac, &mut tally).await {
            ledger.over(&line.id, &outcome)?;
        }
    }
    let left = idle(celeriac).await?;
    if left > 0 {
        tally.faults.push(format!("{left} tasks of an earlier run were not over after {PATIENCE:?}"));
    }
    Ok(tally)
}

/// Waits until no queue has anything to do, and says how many tasks were left when patience ended. Nobody tells when a
/// queue has become idle, so this asks.
async fn idle(celeriac: &Celeriac) -> Result<u64, Box<dyn std::error::Error>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let queues = celeriac.queues().await?;
        let left = queues.iter().map(|q| q.ready + q.scheduled + q.running as u64).sum();
        if (left == 0 && queues.missing.is_empty()) || Instant::now() > deadline {
            return Ok(left);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
