//! Celeriac runs background tasks inside a Rust program: durable by default, supervised by a tree of actix actors, in
//! Celery's words, and with no server to install.
//!
//! ```no_run
//! use celeriac::{Celeriac, task};
//! use std::time::Duration;
//!
//! /// A task is a function. This one mostly waits, so it is `async`.
//! #[task(max_retries = 5)]
//! async fn send_email(user_id: u64) -> Result<String, std::io::Error> {
//!     Ok(format!("sent to user {user_id}"))
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let celeriac = Celeriac::builder().directory("data").start().await?;
//!
//!     let text = send_email(42).await?;              // here and now: it is still the function
//!     let email = send_email::delay(42).await?;      // in the background; on disk by now
//!     let later = send_email::s(42)                  // with options for this one call
//!         .countdown(Duration::from_secs(60))
//!         .priority(5)
//!         .delay()
//!         .await?;
//!
//!     assert_eq!(email.get(Duration::from_secs(5)).await?, text);
//!     later.revoke(false).await?;
//!     celeriac.shutdown().await?;
//!     Ok(())
//! }
//! ```
//!
//! # The parts
//!
//! - **Tasks.** [`#[task]`](macro@task) makes one of a function; its documentation explains every option. A body that
//!   wants to know about its run takes a [`Context`]; one that wants to end otherwise than by a value or an error returns
//!   a [`TaskError`]: retry, postpone, continue, reject, ignore.
//! - **Periodic tasks.** [`#[periodic_task]`](macro@periodic_task) has beat call one again and again: by a crontab in any
//!   time zone, every so often, or at midnight where each tenant is. [`Celeriac::beat`] changes the schedule at run time.
//! - **Calls.** `delay` and [`Signature`] enqueue, and answer with an [`AsyncResult`]: its [`Receipt`]
//!   says where the task is and how safe; its value, [`State`] and record can be waited for. What can go wrong is an
//!   [`EnqueueError`] or a [`GetError`].
//! - **Commit and enqueue.** `delay_on_commit` makes a call that is a task if a transaction of the program's own database
//!   commits: [`commit_table`].
//! - **Canvas.** Tasks follow from each other in chains, groups and chords: [`task::canvas`].
//! - **The runtime.** [`Celeriac::builder`] starts it, on threads of its own, in any program. The handle, [`Celeriac`],
//!   has the operator's levers: [`queues`](Celeriac::queues), [`pause`](Celeriac::pause), [`resize`](Celeriac::resize),
//!   [`dead_letters`](Celeriac::dead_letters), [`brakes`](Celeriac::brakes), [`shutdown`](Celeriac::shutdown).
//! - **Queues.** The [`catalogue`] has a row for each: what is promised, what it runs on, how many at a
//!   time. Without one, the queues that tasks name are served with defaults. The tenants of a queue take turns:
//!   [`tenants`](Celeriac::tenants).
//! - **Soil.** A task says how far it is and gives its user a file; [`Celeriac::soil`] shows both: [`soil`].
//! - **Where work waits.** The [`broker`] and the [`store`] are seams. The default is the
//!   [embedded](broker::embedded) store in a directory: an enqueue that returned `Ok` is synced to disk.
//! - **Celery's tongue.** [`protocol`] turns tasks, results and control messages into what Celery 5.7 writes, and back.
//! - **Supervision.** The tree of [`actors`]: a panic costs one attempt of one task.
//! - **Decisions.** [`core`] has all of them as pure state machines.
//! - **Names.** What a program names daily is at the root, and in the [`prelude`].
//!
//! # What to know before the first task
//!
//! - A task may run twice: it is settled after its run, so one whose process dies runs again. Write it for that.
//! - An `async fn` must not block; what computes is a plain `fn`, and runs on a thread of its own.
//! - A queue without a row in the catalogue runs fifty tasks at a time on the event loop if the task that names it is an
//!   `async fn`, and two at a time on blocking threads if it is a plain `fn`. A row says otherwise.
//! - Call [`Celeriac::shutdown`] at the end: without it, what runs counts as crashed.
//!
//! # Features
//!
//! None is on by default: the embedded store, the queues, beat and Soil need none.
//!
//! | feature | adds |
//! |---|---|
//! | `amqp` | RabbitMQ as the broker, by Celery's protocol: `Builder::amqp`; results by `rpc://` |
//! | `redis` | Redis as the result store, in Celery's documents, and the lanes of serial tasks beside RabbitMQ: `Builder::redis` |
//! | `tls` | `amqps://` and `rediss://` |
//! | `web` | for actix-web: Soil's pages, the console, and the probes of the program's health |
//! | `metrics` | metrics for Prometheus: [`Celeriac::metrics_text`], and with `web` the page that it scrapes |
//! | `log-lines` | the last log lines of a failed attempt are kept with it: `celeriac::log_lines` |
//! | `otel` | spans of OpenTelemetry for calls and runs, named as Celery's instrumentation names them; their contexts go along with the tasks |
//! | `systemd` | the program tells systemd that it is ready, that it ends, and that it is alive |
//! | `s3` | files of downloads in S3 and what speaks its protocol |
//! | `sqlx-postgres`, `sqlx-mysql`, `sqlx-sqlite`, `rusqlite`, `diesel-postgres`, `diesel-sqlite` | commit and enqueue, with transactions of that driver: [`commit_table`] |
//! | `anyhow` | tasks that return `anyhow::Result` |
//! | `jiff` | times of the crate `jiff` wherever a call takes a time; those of `std` and `chrono` need no feature |
//! | `cli` | the `celeriac` command: `cargo install celeriac --features cli`, with `amqp` for what waits in RabbitMQ |
//! | `testing` | for tests of tasks: eager mode, a clock that the test moves, assertions on what was enqueued; and the conformance suites for those who write a broker or a store of their own |
//!
//! The manual, one question a page, is in the folder `docs` of the repository. It begins with `docs/start-here.md`, and
//! `celeriac new` writes the program that is shown there.

// `#[task]` writes `::celeriac::…`; this lets it do so inside this crate too.
extern crate self as celeriac;

pub mod actors;
pub mod app;
pub mod broker;
pub mod catalogue;
pub mod commit_table;
pub mod core;
mod macros;
pub mod prelude;
pub mod protocol;
#[cfg(feature = "amqp")]
pub(crate) mod rabbitmq;
pub mod runtime;
pub mod soil;
pub mod store;
pub mod task;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(any(feature = "amqp", feature = "redis", feature = "s3"))]
pub(crate) mod tls;
#[cfg(feature = "web")]
pub mod web;

#[cfg(feature = "cli")]
pub mod cli;

pub use crate::core::Timestamp;
pub use crate::core::calendar::{Tenant, Zone};
pub use crate::macros::{periodic_task, serial_task, task};
pub use actors::QueueStatus;
pub use app::{Builder, Celeriac, ShutdownReport, StartError, is_child_process};
pub use catalogue::{Catalogue, Pool, QueueRow};
pub use task::canvas::{Canvas, chain, chord, group, signature};
pub use task::source_poller::{Due, Source, SourcePoller};
pub use task::{
    AsyncResult, Client, Context, Data, Durability, EnqueueError, GetError, HookEvent, Interrupt, Json,
    Periodic, Receipt, Signature, State, TaskError, TaskId,
};

/// The attribute for implementations of the traits here whose functions are `async`: [`Source`],
/// [`Broker`](broker::Broker), [`Store`](store::Store) and their abilities, and (as `async_trait(?Send)`)
/// [`Layer`](task::Layer). It is the one of the crate `async-trait`, so
/// that a program need not depend on that crate itself.
pub use async_trait::async_trait;

#[cfg(feature = "log-lines")]
pub use runtime::log_lines::{LogLines, log_lines};

/// The crate whose registry [`Celeriac::register`] takes.
#[cfg(feature = "metrics")]
pub use prometheus_client;

#[doc(hidden)]
pub use inventory as __inventory;

/// The manual's examples are compiled, and those without `no_run` run, with the doc tests.
#[cfg(doctest)]
mod manual {
    #[doc = include_str!("../docs/start-here.md")]
    struct StartHerePage;
    #[doc = include_str!("../docs/recipes/mail.md")]
    struct MailRecipe;
    #[doc = include_str!("../docs/recipes/webhook.md")]
    struct WebhookRecipe;
    #[doc = include_str!("../docs/recipes/import.md")]
    struct ImportRecipe;
    #[cfg(feature = "web")]
    #[doc = include_str!("../docs/recipes/export.md")]
    struct ExportRecipe;
    #[doc = include_str!("../docs/recipes/nightly.md")]
    struct NightlyRecipe;
    #[doc = include_str!("../docs/recipes/rate-limit.md")]
    struct RateLimitRecipe;
    #[doc = include_str!("../docs/recipes/pipeline.md")]
    struct PipelineRecipe;
    #[doc = include_str!("../docs/arguments.md")]
    struct ArgumentsPage;
    #[doc = include_str!("../docs/brakes.md")]
    struct BrakesPage;
    #[doc = include_str!("../docs/bulk-acts.md")]
    struct BulkActsPage;
    #[doc = include_str!("../docs/calling-tasks.md")]
    struct CallingTasksPage;
    #[doc = include_str!("../docs/celery-tools.md")]
    struct CeleryToolsPage;
    #[cfg(all(feature = "sqlx-postgres", feature = "sqlx-sqlite"))]
    #[doc = include_str!("../docs/commit-and-enqueue.md")]
    struct CommitAndEnqueuePage;
    #[cfg(feature = "web")]
    #[doc = include_str!("../docs/console.md")]
    struct ConsolePage;
    #[doc = include_str!("../docs/celery-protocol.md")]
    struct CeleryProtocolPage;
    #[doc = include_str!("../docs/canvas.md")]
    struct CanvasPage;
    #[doc = include_str!("../docs/defaults.md")]
    struct DefaultsPage;
    #[cfg(feature = "web")]
    #[doc = include_str!("../docs/deploying.md")]
    struct DeployingPage;
    #[doc = include_str!("../docs/fairness.md")]
    struct FairnessPage;
    #[cfg(feature = "web")]
    #[doc = include_str!("../docs/health.md")]
    struct HealthPage;
    #[cfg(all(feature = "metrics", feature = "web"))]
    #[doc = include_str!("../docs/metrics.md")]
    struct MetricsPage;
    #[doc = include_str!("../docs/downloads.md")]
    struct DownloadsPage;
    #[doc = include_str!("../docs/limits.md")]
    struct LimitsPage;
    #[doc = include_str!("../docs/embedded-store.md")]
    struct EmbeddedStorePage;
    #[doc = include_str!("../docs/embedding.md")]
    struct EmbeddingPage;
    #[doc = include_str!("../docs/events.md")]
    struct EventsPage;
    #[doc = include_str!("../docs/failed-tasks.md")]
    struct FailedTasksPage;
    #[doc = include_str!("../docs/history.md")]
    struct HistoryPage;
    #[cfg(all(feature = "amqp", feature = "redis"))]
    #[doc = include_str!("../docs/moving-from-celery.md")]
    struct MovingFromCeleryPage;
    #[doc = include_str!("../docs/outcomes-and-retries.md")]
    struct OutcomesAndRetriesPage;
    #[doc = include_str!("../docs/beat.md")]
    struct BeatPage;
    #[doc = include_str!("../docs/periodic-tasks.md")]
    struct PeriodicTasksPage;
    #[doc = include_str!("../docs/pools.md")]
    struct PoolsPage;
    #[doc = include_str!("../docs/process-pool.md")]
    struct ProcessPoolPage;
    #[doc = include_str!("../docs/progress.md")]
    struct ProgressPage;
    #[doc = include_str!("../docs/queues-and-workers.md")]
    struct QueuesAndWorkersPage;
    #[cfg(feature = "amqp")]
    #[doc = include_str!("../docs/outbox.md")]
    struct OutboxPage;
    #[doc = include_str!("../docs/remote-control.md")]
    struct RemoteControlPage;
    #[cfg(feature = "amqp")]
    #[doc = include_str!("../docs/rabbitmq.md")]
    struct RabbitMqPage;
    #[doc = include_str!("../docs/rabbitmq-confirms.md")]
    struct RabbitMqConfirmsPage;
    #[doc = include_str!("../docs/rabbitmq-exchanges.md")]
    struct RabbitMqExchangesPage;
    #[cfg(feature = "redis")]
    #[doc = include_str!("../docs/redis.md")]
    struct RedisPage;
    #[doc = include_str!("../docs/results.md")]
    struct ResultsPage;
    #[doc = include_str!("../docs/searching-tasks.md")]
    struct SearchingTasksPage;
    #[doc = include_str!("../docs/serial-tasks.md")]
    struct SerialTasksPage;
    #[cfg(feature = "web")]
    #[doc = include_str!("../docs/soil-pages.md")]
    struct SoilPagesPage;
    #[cfg(feature = "web")]
    #[doc = include_str!("../docs/soil-branding.md")]
    struct SoilBrandingPage;
    #[doc = include_str!("../docs/tasks.md")]
    struct TasksPage;
    #[doc = include_str!("../docs/tenants.md")]
    struct TenantsPage;
    #[doc = include_str!("../docs/testing.md")]
    struct TestingPage;
    #[cfg(feature = "rusqlite")]
    #[doc = include_str!("../docs/testing-programs.md")]
    struct TestingProgramsPage;
    #[cfg(all(feature = "log-lines", feature = "otel"))]
    #[doc = include_str!("../docs/tracing.md")]
    struct TracingPage;
    #[doc = include_str!("../docs/unique-tasks.md")]
    struct UniqueTasksPage;
    #[doc = include_str!("../docs/locks-and-limits.md")]
    struct LocksAndLimitsPage;
    #[doc = include_str!("../docs/source-pollers.md")]
    struct ProducersPage;
    #[doc = include_str!("../docs/why-and-when.md")]
    struct WhyAndWhenPage;
}
