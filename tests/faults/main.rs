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
#[path = "../crash/cases.rs"]
mod cases;
mod child;
mod cluster;
mod connections;
mod lanes;
mod ledger;
mod node;
mod outbox;
#[path = "../crash/process.rs"]
#[allow(dead_code)] // these cases use their own part of it
mod process;
mod scene;
mod source_pollers;
mod witness;
mod workers;
mod workflows;

use std::process::ExitCode;

use celeriac_test_support as services;

const CASES: [(&str, fn()); 14] = [
    ("beat::each_tick_once", beat::each_tick_once),
    ("connections::cut_and_closed", connections::cut_and_closed),
    ("connections::slow_and_half_open", connections::slow_and_half_open),
    ("workers::killed", workers::killed),
    ("workflows::killed_between_steps", workflows::killed_between_steps),
    ("workflows::killed_at_random", workflows::killed_at_random),
    ("node::alarms", node::alarms),
    ("node::queue_deleted", node::queue_deleted),
    ("node::stopped_and_killed", node::stopped_and_killed),
    ("outbox::started_without_a_broker", outbox::started_without_a_broker),
    ("outbox::killed_while_full", outbox::killed_while_full),
    ("lanes::killed_frozen_and_cut", lanes::killed_frozen_and_cut),
    ("source_pollers::each_row_once", source_pollers::each_row_once),
    ("cluster::each_node_killed", cluster::each_node_killed),
];

fn main() -> ExitCode {
    cases::run(&CASES, child::run)
}
