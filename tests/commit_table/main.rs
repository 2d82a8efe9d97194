//! Commit and enqueue on real databases: orders, each with a mail, under `kill -9`.
//!
//! This program is parent and child, as in `tests/crash`: the parent starts a Postgres or a MariaDB, makes files for SQLite,
//! starts copies of itself that take orders and send mails, kills them, and compares the orders in the database with the
//! mails that the children noted in the [`ledger`].
//!
//! `COMMIT_ORDERS=10000` takes more orders a case than the usual 1000, `COMMIT_LOG=info` writes the children's log to their
//! stderr files. Arguments filter the cases.

mod book;
#[path = "../crash/cases.rs"]
mod cases;
mod child;
mod database;
mod drivers;
mod fleet;
mod killed;
mod ledger;
#[path = "../crash/process.rs"]
#[allow(dead_code)] // these cases use their own part of it
mod process;
mod refused;
mod tripping;

use std::process::ExitCode;
use std::sync::LazyLock;

use celeriac_test_support as services;
use tokio::runtime::Runtime;

const CASES: [(&str, fn()); 11] = [
    ("drivers::sqlite", drivers::sqlite),
    ("drivers::postgres", drivers::postgres),
    ("drivers::mysql", drivers::mysql),
    ("refused::stays_until_somebody_can_take_it", refused::stays_until_somebody_can_take_it),
    ("killed::at_each_step_on_sqlite", killed::at_each_step_on_sqlite),
    ("killed::at_each_step_on_postgres", killed::at_each_step_on_postgres),
    ("killed::at_each_step_on_mysql", killed::at_each_step_on_mysql),
    ("killed::at_random_on_sqlite", killed::at_random_on_sqlite),
    ("killed::at_random_on_postgres", killed::at_random_on_postgres),
    ("killed::at_random_on_mysql", killed::at_random_on_mysql),
    ("fleet::of_workers_on_rabbitmq", fleet::of_workers_on_rabbitmq),
];

fn main() -> ExitCode {
    cases::run(&CASES, child::run)
}

/// Runs what is asynchronous, in the parent.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("threads")
    });
    RUNTIME.block_on(work)
}
