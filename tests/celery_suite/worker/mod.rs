//! The worker under test: all tasks of Celery 5.7.0's `t/integration/tasks.py`, in Rust.
//!
//! Every task says `autoretry = false, acks_late = false`, which are Celery's defaults and not Celeriac's. One run at a
//! time and four messages ahead are what a stock worker with one process has; the tests' expectations of order depend
//! on it.

#![allow(clippy::disallowed_names)] // the tests call by keyword, and two keywords are `foo` and `bar`

mod calls;
mod canvas;
mod errors;
mod python;
mod replacements;
mod request;
mod retries;

use std::process::ExitCode;
use std::time::Duration;

use celeriac::Celeriac;
use celeriac::broker::amqp::AmqpOptions;
use celeriac::catalogue::{Catalogue, Pool, QueueRow};

type Failure = Box<dyn std::error::Error>;

/// Works until a signal comes. The environment is what the suite's own fixtures read (`TEST_BROKER`, `TEST_BACKEND`,
/// `REDIS_HOST`, `REDIS_PORT`), and the node's name in `WORKER_NODENAME`.
pub fn run() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.expect("threads").block_on(work()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn work() -> Result<(), Failure> {
    let row = QueueRow::new("celery").with_pool(Pool::Io).with_workers(1).with_prefetch(4);
    // On a machine that has no time for short heartbeats they would cut connections that nobody wants to cut.
    let options = AmqpOptions::default().with_heartbeat(Duration::from_secs(60));
    let options = options.with_node(std::env::var("WORKER_NODENAME")?);
    let celeriac = Celeriac::builder()
        .catalogue(Catalogue::new().with_default_queue("celery").with_queue(row))
        .amqp(std::env::var("TEST_BROKER")?.replace("pyamqp://", "amqp://"))
        .amqp_options(options)
        .result_backend(std::env::var("TEST_BACKEND")?)
        .arbiters(1)
        .start()
        .await?;
    celeriac.run_until_signal().await?;
    Ok(())
}
