//! The runtime of one test, and the methods by which the test moves it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};

use super::client::{Eager, TestClient};
use super::recorder::{Ran, Recorder, ReportedState};
use super::stage::{CrashPoint, Endless, Stage};
use crate::Celeriac;
use crate::actors::beat::stepped::{SteppedBeat, Stepping};
use crate::app::StartError;
use crate::broker::MemoryBroker;
use crate::core::Timestamp;
use crate::task::scope::{Scope, ScopeGuard, VirtualClock};
use crate::task::{Client, DownloadError, Message, Task, TaskId, TaskResult};

/// A runtime without threads: the test runs its tasks one by one, and moves its clock. See [the module](super).
///
/// Keep it until the end of the test, on the thread where it was started.
///
/// ```
/// use celeriac::{State, assert_enqueued, assert_not_enqueued, task, testing};
/// use std::time::Duration;
///
/// #[task(queue = "email", max_retries = 3, default_retry_delay = 60)]
/// async fn send_email(user: u64) -> Result<(), std::io::Error> {
///     Err(std::io::Error::other("the server is down"))
/// }
///
/// #[tokio::main] // in your tests: #[tokio::test]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let app = testing::start().await?;
///     let email = send_email::delay(42).await?;
///     assert_enqueued!(app, send_email(42), queue = "email");
///     assert_not_enqueued!(app, send_email(43));
///
///     assert_eq!(app.step().await.unwrap().state, State::Retry); // the first attempt failed
///     assert_eq!(app.run_until_idle().await, 0); // the next one is not due
///     assert_eq!(app.advance(Duration::from_secs(3_600)).await, 3);
///     assert_eq!(email.state().await?, State::Failure);
///     Ok(())
/// }
/// ```
pub struct TestApp {
    celeriac: Celeriac,
    stage: Arc<Stage>,
    client: Arc<dyn Client>,
    _entered: ScopeGuard,
}

impl TestApp {
    pub(super) async fn open(
        celeriac: Celeriac,
        broker: Arc<MemoryBroker>,
        clock: Arc<VirtualClock>,
        recorder: Arc<Recorder>,
        eager: Option<Eager>,
    ) -> Result<Self, StartError> {
        let inner = celeriac.client();
        recorder.show_on(&celeriac.runtime_arc().progress_hub);
        let stage = Stage::new(celeriac.runtime_arc(), broker, Arc::clone(&clock), recorder);
        let stage = Arc::new(stage);
        let client = Arc::new_cyclic(|own: &std::sync::Weak<TestClient>| {
            let own = own.clone() as std::sync::Weak<dyn Client>;
            let scope = Scope { clock, client: own };
            TestClient { inner, stage: Arc::clone(&stage), scope, eager }
        });
        let scope = client.scope.clone();
        let entered = scope.clone().enter();
        let client = client as Arc<dyn Client>;
        celeriac.answer_by(&client);
        let app = Self { celeriac, stage, client, _entered: entered };
        if let Some(parts) = app.celeriac.beat_parts() {
            let beat = Arc::downgrade(&app.stage.beat);
            let _ = parts.stepping.set(Stepping { beat, scope });
            *app.stage.beat.lock().await = Some(SteppedBeat::begin(parts).await?);
        }
        Ok(app)
    }

    /// The handle that the program has in production. There are no workers and no event loops here: a queue reports
    /// its waiting tasks and cannot be paused or resized, and a source poller asks its source when the test calls
    /// `run_poller`. The levers of beat work by the test's clock.
    pub fn celeriac(&self) -> &Celeriac {
        &self.celeriac
    }

    /// The client for enqueueing from other threads: `send_email::s(42).send(app.client())`.
    pub fn client(&self) -> Arc<dyn Client> {
        Arc::clone(&self.client)
    }

    /// The time that the test's clock shows.
    pub fn now(&self) -> Timestamp {
        self.stage.clock.now()
    }

    /// Runs the task that has been ready for longest, once. Returns `None` if no task is ready.
    pub async fn step(&self) -> Option<Ran> {
        self.stage.step().await
    }

    /// Runs all tasks that are due, and the tasks that follow from them and are due as well. Returns the number of
    /// runs. The clock does not move.
    ///
    /// # Panics
    /// After 10,000 runs, because some task enqueues or continues itself without end.
    pub async fn run_until_idle(&self) -> usize {
        ended(self.stage.run_until_idle().await)
    }

    /// Moves the clock, and runs all tasks that come due on the way, each at its time: ETAs, retries, periodic
    /// entries, and tasks that have waited for their lane as long as they want to. Returns the number of runs.
    ///
    /// # Panics
    /// After 10,000 runs at one time, as [`run_until_idle`](Self::run_until_idle).
    pub async fn advance(&self, by: Duration) -> usize {
        ended(self.stage.advance(self.now() + by).await)
    }

    /// Moves the clock and runs nothing, as if the program had slept. Tasks that came due meanwhile are ready for
    /// [`step`](Self::step), and beat sees all missed ticks at once, at the next
    /// [`run_until_idle`](Self::run_until_idle).
    pub fn jump(&self, by: Duration) {
        self.stage.clock.move_to(self.now() + by);
    }

    /// Makes the worker of the task's next run die when the run has begun, before the body does anything.
    pub fn crash_at_start<T: Task>(&self, _task: T) {
        self.stage.crash(T::NAME, CrashPoint::AtStart);
    }

    /// Makes the worker of the task's next run die when the body has done its work, before the broker is told: the
    /// task runs a second time, and its effects happen twice. Pass the task as a type: `send_email::Task`.
    pub fn crash_before_settle<T: Task>(&self, _task: T) {
        self.stage.crash(T::NAME, CrashPoint::BeforeSettle);
    }

    /// The tasks enqueued so far, in order, by callers, other tasks or beat. A task that goes back to wait is not
    /// enqueued again.
    pub fn enqueued(&self) -> Vec<Arc<Message>> {
        self.stage.recorder.enqueued()
    }

    /// All runs so far, in the order in which they ended.
    pub fn runs(&self) -> Vec<Ran> {
        self.stage.recorder.runs()
    }

    /// All states that the bodies of a task reported by [`update_state`](crate::Context::update_state), in order.
    pub fn reported(&self, id: &TaskId) -> Vec<ReportedState> {
        self.stage.recorder.states(id)
    }

    /// The progress of a task ([`progress`](crate::Context::progress)) as `(current, total)`, each time that users
    /// would see it: at each whole percent.
    pub fn progress(&self, id: &TaskId) -> Vec<(u64, u64)> {
        self.stage.recorder.progress(id)
    }

    /// All bytes of the file that a task exposed.
    ///
    /// # Errors
    /// The task has no file, or the file cannot be read.
    pub async fn downloaded(&self, id: &TaskId) -> Result<Vec<u8>, DownloadError> {
        let mut open = self.celeriac.soil().open(id, None).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = open.body.next().await {
            let chunk =
                chunk.map_err(|error| DownloadError::Source { name: open.facts.name.clone(), error })?;
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// The record of a task, if the task is over and its record was kept.
    pub(super) fn record(&self, id: &TaskId) -> Option<TaskResult> {
        let store = &self.stage.runtime.store;
        // The memory store answers at once.
        store.get(id, self.now()).now_or_never()?.ok().flatten()
    }

    /// Forgets the tasks enqueued, the states reported and the runs so far. Waiting tasks go on waiting.
    pub fn forget(&self) {
        self.stage.recorder.clear();
    }
}

fn ended(runs: Result<usize, Endless>) -> usize {
    match runs {
        Ok(runs) => runs,
        Err(Endless { last, runs }) => {
            panic!(
                "something was still to be run after {runs} runs, the last of `{}`: does it go on for ever?",
                last.task
            )
        }
    }
}
