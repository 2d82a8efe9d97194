//! The runtime of one test, and its levers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};

use super::client::{Eager, TestClient};
use super::recorder::{Ran, Recorder, ReportedState};
use super::stage::{CrashPoint, Endless, Stage};
use crate::Celeriac;
use crate::actors::beat::stepped::SteppedBeat;
use crate::app::StartError;
use crate::broker::MemoryBroker;
use crate::core::Timestamp;
use crate::task::scope::{Entered, Scope, VirtualClock};
use crate::task::{self, Client, DownloadError, Message, Task, TaskId, TaskResult};

/// A runtime without threads: the test takes its tasks one by one, and moves its clock. See [the module](super).
///
/// Keep it until the end of the test. It stays on its thread.
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
    _entered: Entered,
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
        recorder.show_on(&celeriac.runtime_arc().board);
        let stage = Stage::new(celeriac.runtime_arc(), broker, Arc::clone(&clock), recorder);
        let stage = Arc::new(stage);
        let client = Arc::new_cyclic(|own: &std::sync::Weak<TestClient>| {
            let own = own.clone() as std::sync::Weak<dyn Client>;
            let scope = Scope { clock, client: own };
            TestClient { inner, stage: Arc::clone(&stage), scope, eager }
        });
        let entered = client.scope.clone().enter();
        let client = client as Arc<dyn Client>;
        celeriac.answer_by(&client);
        task::install(Arc::clone(&client));
        let app = Self { celeriac, stage, client, _entered: entered };
        if let Some(parts) = app.celeriac.beat_parts() {
            *app.stage.beat.lock().await = Some(SteppedBeat::begin(parts).await?);
        }
        Ok(app)
    }

    /// The handle that the program has in production. What it says of workers and event loops does not hold here: there
    /// are none.
    pub fn celeriac(&self) -> &Celeriac {
        &self.celeriac
    }

    /// Where to send tasks from other threads: `send_email::s(42).send(app.client())`.
    pub fn client(&self) -> Arc<dyn Client> {
        Arc::clone(&self.client)
    }

    /// What the clock says.
    pub fn now(&self) -> Timestamp {
        self.stage.clock.now()
    }

    /// Runs the task that has been ready for longest, once; `None`: none is ready.
    pub async fn step(&self) -> Option<Ran> {
        self.stage.step().await
    }

    /// Runs what is due, and what follows from it and is due as well; says how many runs that were. The clock stands.
    ///
    /// # Panics
    /// After 10,000 runs: something enqueues or continues itself without end.
    pub async fn run_until_idle(&self) -> usize {
        ended(self.stage.run_until_idle().await)
    }

    /// Moves the clock, and runs all that comes due on the way, each at its time: ETAs, retries, periodic entries, and those
    /// whose patience with their lane ends. Says how many runs that were.
    ///
    /// # Panics
    /// As [`run_until_idle`](Self::run_until_idle).
    pub async fn advance(&self, by: Duration) -> usize {
        ended(self.stage.advance(self.now() + by).await)
    }

    /// Moves the clock and runs nothing, as if the program had slept. What came due meanwhile is there for
    /// [`step`](Self::step); beat sees all that it missed at once, at the next [`run_until_idle`](Self::run_until_idle).
    pub fn jump(&self, by: Duration) {
        self.stage.clock.move_to(self.now() + by);
    }

    /// The worker of the next run of this task dies when the run has begun, before the body does anything.
    pub fn crash_at_start<T: Task>(&self, _task: T) {
        self.stage.crash(T::NAME, CrashPoint::AtStart);
    }

    /// The worker of the next run of this task dies when the body has done its work, before anybody is told: the task runs a
    /// second time, and whatever it did is done twice. Call it with the task as a type: `send_email::Task`.
    pub fn crash_before_settle<T: Task>(&self, _task: T) {
        self.stage.crash(T::NAME, CrashPoint::BeforeSettle);
    }

    /// What was enqueued so far, in order, by whomever: callers, other tasks, beat. A task that waits again is not
    /// enqueued again.
    pub fn enqueued(&self) -> Vec<Arc<Message>> {
        self.stage.recorder.enqueued()
    }

    /// What ran so far, in order.
    pub fn runs(&self) -> Vec<Ran> {
        self.stage.recorder.runs()
    }

    /// The states that the bodies of a task reported by [`update_state`](crate::Context::update_state), all of them, in order.
    pub fn reported(&self, id: &TaskId) -> Vec<ReportedState> {
        self.stage.recorder.states(id)
    }

    /// How far a task said it was ([`progress`](crate::Context::progress)), `(current, total)`, each time that was shown: at
    /// each whole percent.
    pub fn progress(&self, id: &TaskId) -> Vec<(u64, u64)> {
        self.stage.recorder.progress(id)
    }

    /// The file that a task offered, whole.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
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

    /// The record of a task, if it is over and was kept.
    pub(super) fn record(&self, id: &TaskId) -> Option<TaskResult> {
        let store = &self.stage.runtime.store;
        // The store in memory answers at once.
        store.get(id, self.now()).now_or_never()?.ok().flatten()
    }

    /// Forgets what was enqueued, reported and run so far. What waits goes on waiting.
    pub fn forget(&self) {
        self.stage.recorder.clear();
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        task::uninstall(&self.client);
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
