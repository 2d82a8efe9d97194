//! What a hundred thousand tenants cost in memory: in a pool by itself, what is left there when all their tasks are over, and in the
//! embedded store, beside as many tasks of one tenant. Each case has a process of its own, so that none finds memory that another
//! one has left.

use std::process::Command;
use std::time::Duration;

use celeriac::catalogue::{Catalogue, Pool, QueueRow};
use celeriac::core::Timestamp;
use celeriac::core::slots::{QueueTerms, SlotRules, Slots, WaitingTask};
use celeriac::task;

use super::SLOTS;
use super::support::figures::{Table, goal};
use super::support::process::{resident, size};
use super::support::sized;
use super::support::store::{Running, directory};
use super::waits::{on_behalf, send};

/// A pool may use so many bytes for a tenant that has one task waiting.
const MOST: u64 = 1_024;
/// So many tasks are enqueued together.
const BATCH: u64 = 5_000;
/// How often as many tenants come, each time with other names.
const ROUNDS: u64 = 3;
/// The argument that makes this program measure one case. Behind it come the case and the number of tenants.
const PART: &str = "--memory-of";

/// A task of one of the tenants. None of them runs while the memory is looked at.
#[task(name = "bench.of_tenant", ignore_result, queue = "many")]
async fn of_tenant() {}

fn name(round: u64, number: u64) -> String {
    format!("tenant {round} {number}")
}

fn new_pool() -> Slots {
    let mut slots = Slots::new(SlotRules { slots: SLOTS, reserve: None, room: None });
    let (target, typical) = (Duration::from_secs(30), Some(Duration::from_millis(20)));
    slots.join(QueueTerms { target, min_workers: 0, typical });
    slots
}

/// Each of so many tenants has one task that waits.
fn come(slots: &mut Slots, round: u64, tenants: u64, now: Timestamp) {
    for number in 0..tenants {
        let (name, tag) = (name(round, number), number);
        let waiting = WaitingTask { tag, tenant: Some(&name), task: "app.task", priority: 0, since: now };
        slots.arrive(0, waiting, now);
    }
}

/// All that waits runs to its end. Answers with when that is.
fn go(slots: &mut Slots, mut now: Timestamp) -> Timestamp {
    loop {
        slots.report(0, SLOTS, true, now);
        slots.dispatch(now);
        let runs: Vec<u64> = std::iter::from_fn(|| slots.take(0)).map(|grant| grant.run).collect();
        if runs.is_empty() {
            return now;
        }
        now = now + Duration::from_millis(20);
        runs.iter().for_each(|run| slots.finish(*run, true, now));
    }
}

/// By how many bytes the memory grows in a case.
async fn grown(case: &str, tenants: u64) -> u64 {
    let dir = directory();
    let row = QueueRow::new("many").with_pool(Pool::Io).with_workers(SLOTS);
    let running = Running::embedded(dir.path(), Catalogue::new().with_queue(row)).await;
    running.celeriac.pause("many").await.expect("it pauses");
    let (mut slots, mut now) = (new_pool(), Timestamp::from_millis(1));
    let before = resident();
    match case {
        "pool" => come(&mut slots, 0, tenants, now),
        "pool-after" => {
            for round in 0..ROUNDS {
                come(&mut slots, round, tenants, now);
                now = go(&mut slots, now);
            }
        }
        _ => {
            for first in (0..tenants).step_by(BATCH as usize) {
                let tenant = |number| if case == "one" { "one".to_owned() } else { name(0, number) };
                let numbers = first..(first + BATCH).min(tenants);
                send(numbers.map(|number| on_behalf(of_tenant::s(), Some(tenant(number))))).await;
            }
        }
    }
    let grown = resident().saturating_sub(before);
    drop(slots);
    running.celeriac.shutdown_within(Duration::from_millis(100)).await.expect("it shuts down");
    grown
}

/// Measures one case and says the bytes, if this process was started for that. Answers with whether it was.
pub async fn is_part() -> bool {
    let mut arguments = std::env::args().skip_while(|argument| argument != PART).skip(1);
    let (Some(case), Some(tenants)) = (arguments.next(), arguments.next()) else { return false };
    println!("{}", grown(&case, tenants.parse().expect("a number of tenants")).await);
    true
}

/// Has a process of its own measure a case.
fn measured(case: &str, tenants: u64) -> u64 {
    let program = std::env::current_exe().expect("this program has a path");
    let output = Command::new(program).args([PART, case, &tenants.to_string()]).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let bytes = said.lines().last().and_then(|line| line.trim().parse().ok());
    bytes.unwrap_or_else(|| panic!("{case}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Measures all cases.
pub fn of_tenants() {
    let tenants = sized(100_000, 5_000);
    let mut table = Table::new(&["", "tenants", "memory grows by", "for each", ""]);
    let mut row = |what: &str, tenants: u64, bytes: u64, verdict: String| {
        let each = format!("{} B", bytes / tenants.max(1));
        table.row([what.to_owned(), tenants.to_string(), size(bytes), each, verdict]);
    };
    let waiting = measured("pool", tenants);
    let verdict = goal(waiting <= MOST * tenants, &format!("{MOST} B for each"));
    row("a pool, a task of each waits", tenants, waiting, verdict);
    let left = measured("pool-after", tenants);
    let verdict = goal(left <= 2 * waiting, "twice that at most, however many have come");
    row("a pool, all their tasks are over", ROUNDS * tenants, left, verdict);
    for tenants in [tenants, 2 * tenants] {
        let (one, many) = (measured("one", tenants), measured("many", tenants));
        row("the embedded store, as many tasks of one tenant", tenants, one, "-".to_owned());
        row("the embedded store, a task of each", tenants, many, "-".to_owned());
    }
    table.print("`memory`: what tenants cost. In a queue of the store 100,000 of them have lines, and the others share some");
}
