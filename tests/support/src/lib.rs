//! Real services for tests: RabbitMQ, Redis, Postgres, MariaDB, Prometheus and Python's Celery, each started by the test on
//! ports and directories of its own, and a proxy that breaks the way to them.
//!
//! A test binary takes it in with `use celeriac_test_support as services;` in its root.
//!
//! Nothing that the system itself runs is needed, touched or in the way. A service ends by its pid when its last
//! handle is dropped, and by the kernel when the test process ends in any way, `kill -9` included. A service that
//! cannot be started fails the test and says why; no test is skipped for want of one.
//!
//! Everything here blocks its thread. In async tests call it before the work begins, or through [`blocking`].

#![allow(dead_code)] // some fields only keep a process or a directory
#![allow(clippy::new_without_default)] // `new` makes files, or stands beside methods that start something

mod authority;
mod dialogue;
mod home;
mod mariadb;
mod ports;
mod postgres;
mod process;
mod program;
mod prometheus;
mod proxy;
mod python;
mod rabbitmq;
mod redis;
mod s3;

use std::time::{Duration, Instant};

pub use authority::Authority;
pub use dialogue::Dialogue;
pub use home::Home;
pub use mariadb::MariaDb;
pub use ports::free as free_port;
pub use postgres::Postgres;
pub use process::{Output, Process, run};
pub use program::Program;
pub use prometheus::{Prometheus, promtool};
pub use proxy::Proxy;
pub use python::{CeleryWorker, Python, Script, Server};
pub use rabbitmq::{RabbitMq, RabbitMqOptions};
pub use redis::{Redis, RedisOptions, Sentinel};
pub use s3::S3;

/// Longer than anything takes on a slow machine; who waits this long has hung.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// Runs what blocks without holding up the runtime of an async test.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Waits for a condition of another process, which gives no signal. `Err` is why it does not hold yet.
pub fn await_condition<T>(what: &str, condition: impl FnMut() -> Result<T, String>) -> T {
    await_condition_for(PATIENCE, what, condition)
}

/// As [`await_condition`], with another patience.
pub fn await_condition_for<T>(
    patience: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<T, String>,
) -> T {
    let start = Instant::now();
    loop {
        match condition() {
            Ok(value) => return value,
            Err(why) => assert!(start.elapsed() < patience, "not within {patience:?}: {what}: {why}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
