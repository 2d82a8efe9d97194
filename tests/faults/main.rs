//! What RabbitMQ, the network and `kill -9` do to a fleet with thousands of tasks in flight, told by an outside ledger.
//!
//! This program is parent and child, as in `tests/crash`: the parent starts RabbitMQ, Redis and copies of itself that
//! enqueue and work, breaks things, and compares what the children had told the [`ledger`] with the records that a
//! [`witness`] saw in Redis ([`book`]).
//!
//! What at-least-once means here: a run whose acknowledgement was lost with its connection, or whose process died, comes
//! again. If its own process still has it, it is recognised and does not run again. Otherwise it does, and is told so
//! (`Context::is_redelivered`); that is a *rerun*, and its record is refused, because finished is final. A publish whose
//! confirmation was lost is sent again under the same id; that copy is told so, too.
//!
//! `FAULTS_TASKS=20000` takes more tasks a case than the usual 2500, `FAULTS_LOG=info` writes the children's log to their
//! stderr files. Arguments filter the cases.

mod beat;
mod book;
mod child;
mod cluster;
mod connections;
mod ledger;
mod node;
mod outbox;
#[path = "../crash/process.rs"]
#[allow(dead_code)] // these cases use their own part of it
mod process;
mod scene;
#[path = "../services/mod.rs"]
mod services;
mod witness;
mod workers;

use std::process::ExitCode;
use std::time::Instant;

const CASES: [(&str, fn()); 10] = [
    ("beat::each_tick_once", beat::each_tick_once),
    ("connections::cut_and_closed", connections::cut_and_closed),
    ("connections::slow_and_half_open", connections::slow_and_half_open),
    ("workers::killed", workers::killed),
    ("node::alarms", node::alarms),
    ("node::queue_deleted", node::queue_deleted),
    ("node::stopped_and_killed", node::stopped_and_killed),
    ("outbox::started_without_a_broker", outbox::started_without_a_broker),
    ("outbox::killed_while_full", outbox::killed_while_full),
    ("cluster::each_node_killed", cluster::each_node_killed),
];

fn main() -> ExitCode {
    if let Ok(role) = std::env::var("CRASH_ROLE") {
        return child::run(&role);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        CASES.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let exact = arguments.iter().any(|argument| argument == "--exact");
    let chosen = CASES.iter().filter(|(name, _)| {
        wanted.is_empty() || wanted.iter().any(|w| if exact { name == w } else { name.contains(w.as_str()) })
    });
    let (mut passed, mut failed) = (0, 0);
    let begin = Instant::now();
    for (name, case) in chosen {
        println!("case {name} ...");
        let start = Instant::now();
        let ok = std::panic::catch_unwind(case).is_ok();
        let verdict = if ok { "ok" } else { "FAILED" };
        println!("test {name} ... {verdict} ({:.1} s)", start.elapsed().as_secs_f64());
        *if ok { &mut passed } else { &mut failed } += 1;
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    let left_out = CASES.len() - passed - failed;
    println!(
        "\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {left_out} filtered out; finished in {:.2}s",
        begin.elapsed().as_secs_f64()
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
