//! Puts the runtime of a test together.

use std::sync::Arc;

use super::app::TestApp;
use super::client::Eager;
use super::recorder::Recorder;
use crate::app::{Builder, StartError};
use crate::broker::{Broker, MemoryBroker};
use crate::core::Timestamp;
use crate::store::{MemoryStore, Store};
use crate::task::clock::now;
use crate::task::scope::VirtualClock;
use crate::{Celeriac, task};

/// Options of a test's runtime; [`builder`](super::builder) makes one.
///
/// ```
/// # use celeriac::{Celeriac, testing};
/// # use celeriac::app::catalogue::QueueRow;
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let noon = chrono::DateTime::parse_from_rfc3339("2026-03-01T12:00:00Z")?;
/// let app = testing::builder()
///     .program(Celeriac::builder().queue(QueueRow::new("email")))
///     .at(std::time::SystemTime::from(noon))
///     .beat(true)
///     .start()
///     .await?;
/// assert_eq!(app.now().to_string(), "2026-03-01T12:00:00.000Z");
/// # Ok(()) }
/// ```
#[must_use = "nothing runs until `.start().await`"]
pub struct TestBuilder {
    program: Builder,
    at: Option<Timestamp>,
    beat: bool,
    eager: bool,
    propagates: bool,
}

impl TestBuilder {
    pub(super) fn new() -> Self {
        Self { program: Celeriac::builder(), at: None, beat: false, eager: false, propagates: true }
    }

    /// The runtime as the program sets it up: its catalogue, its limits, its hooks. Whatever broker and store it names, in
    /// the test they are in memory.
    pub fn program(mut self, builder: Builder) -> Self {
        self.program = builder;
        self
    }

    /// What the clock says at the beginning. Default: what the system's says. Set it where the time of day matters, as it does
    /// to periodic tasks.
    pub fn at(mut self, time: impl Into<Timestamp>) -> Self {
        self.at = Some(time.into());
        self
    }

    /// Whether periodic entries fire when the clock is moved. Default `false`: all those of the program would, in every test.
    pub fn beat(mut self, on: bool) -> Self {
        self.beat = on;
        self
    }

    /// Whether a task runs where it is enqueued, at once, to its end: with its retries, and all that follows from it. The
    /// clock skips their delays, as it does those of countdowns and ETAs. Celery's `task_always_eager`. Default `false`.
    pub fn eager(mut self, on: bool) -> Self {
        self.eager = on;
        self
    }

    /// In eager mode, whether an enqueue fails with [`EnqueueError::Ran`](crate::EnqueueError::Ran) if the task does; its
    /// record is kept either way. Celery's `task_eager_propagates`. Default `true`, where Celery's is `false`: an error that
    /// nobody looks for should fail a test. A task that ends itself by [`TaskError::fail`](crate::TaskError::fail) chose that
    /// outcome, so its enqueue succeeds; so it is with Celery's `Ignore`.
    pub fn propagates(mut self, on: bool) -> Self {
        self.propagates = on;
        self
    }

    /// Starts it, and makes it the one that `delay` uses on this thread until the [`TestApp`] is dropped.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn start(self) -> Result<TestApp, StartError> {
        let store = Arc::new(MemoryStore::default());
        let recorder = Arc::new(Recorder::new(Arc::clone(&store)));
        let heard = Arc::clone(&recorder);
        let broker = MemoryBroker::stepped(Arc::clone(&store), Arc::new(move |message| heard.heard(message)));
        let broker = Arc::new(broker);
        let clock = Arc::new(VirtualClock::at(self.at.unwrap_or_else(now)));
        let unmanned = self
            .program
            .unmanned(Arc::clone(&broker) as Arc<dyn Broker>, store as Arc<dyn Store>)
            .beat(self.beat);
        let celeriac = unmanned.start().await?;
        // It answers through the test's client from now on.
        task::uninstall(&celeriac.client());
        let eager = self.eager.then_some(Eager { propagates: self.propagates });
        TestApp::open(celeriac, broker, clock, recorder, eager).await
    }
}
