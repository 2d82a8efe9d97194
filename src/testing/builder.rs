//! Builds the runtime of a test.

use std::sync::Arc;

use super::app::TestApp;
use super::client::Eager;
use super::recorder::Recorder;
use crate::Celeriac;
use crate::app::{Builder, StartError};
use crate::broker::{Broker, MemoryBroker};
use crate::core::Timestamp;
use crate::store::{MemoryStore, Store};
use crate::task::clock::now;
use crate::task::scope::VirtualClock;

/// The options of a test's runtime; [`builder`](super::builder) makes one.
///
/// ```
/// # use celeriac::{Celeriac, testing};
/// # use celeriac::catalogue::QueueRow;
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let noon = chrono::DateTime::parse_from_rfc3339("2026-03-01T12:00:00Z")?;
/// let app = testing::builder()
///     .program(Celeriac::builder().queue(QueueRow::new("email")))
///     .at(noon)
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

    /// Takes the program's own setup: its catalogue, its limits, its hooks. Whatever broker and store the setup
    /// names, the test uses those in memory.
    pub fn program(mut self, builder: Builder) -> Self {
        self.program = builder;
        self
    }

    /// Sets the time of the clock at the beginning. The default is the system's time. Set it if the time of day
    /// matters, as for periodic tasks.
    pub fn at(mut self, time: impl Into<Timestamp>) -> Self {
        self.at = Some(time.into());
        self
    }

    /// Sets whether periodic entries fire when the test moves the clock. The default is `false`, because otherwise
    /// all entries of the program would fire in every test.
    pub fn beat(mut self, on: bool) -> Self {
        self.beat = on;
        self
    }

    /// Sets whether a task runs at once where it is enqueued, with its retries and all tasks that follow from it,
    /// until all have ended. The clock skips delays, countdowns and ETAs. It is Celery's `task_always_eager`. The
    /// default is `false`.
    pub fn eager(mut self, on: bool) -> Self {
        self.eager = on;
        self
    }

    /// Sets whether an enqueue in eager mode fails with [`EnqueueError::Ran`](crate::EnqueueError::Ran) if the task
    /// fails. The task's record is kept either way. It is Celery's `task_eager_propagates`. The default is `true`,
    /// where Celery's is `false`: an error that nobody looks for should fail a test. A task that ends itself by
    /// [`TaskError::fail`](crate::TaskError::fail) chose that outcome, so its enqueue succeeds, as with Celery's
    /// `Ignore`.
    pub fn propagates(mut self, on: bool) -> Self {
        self.propagates = on;
        self
    }

    /// Starts the runtime. Until the [`TestApp`] is dropped, `delay` uses this runtime on this thread.
    ///
    /// # Errors
    /// The same errors as [`Builder::start`].
    pub async fn start(self) -> Result<TestApp, StartError> {
        let store = Arc::new(MemoryStore::default());
        let recorder = Arc::new(Recorder::new(Arc::clone(&store)));
        let heard = Arc::clone(&recorder);
        let broker = MemoryBroker::stepped(Arc::clone(&store), Arc::new(move |message| heard.heard(message)));
        let broker = Arc::new(broker);
        let clock = Arc::new(VirtualClock::at(self.at.unwrap_or_else(now)));
        let without_actors = self
            .program
            .without_actors(Arc::clone(&broker) as Arc<dyn Broker>, store as Arc<dyn Store>)
            .beat(self.beat);
        let celeriac = without_actors.start().await?;
        let eager = self.eager.then_some(Eager { propagates: self.propagates });
        TestApp::open(celeriac, broker, clock, recorder, eager).await
    }
}
