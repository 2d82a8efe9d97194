//! The testing kit for tasks: a test runs tasks at once or one by one, moves the clock by hand, and sees what was
//! enqueued.
//!
//! Celery's eager mode skips serialization, states and retries, so a passing test proves little. Here a test has the
//! real runtime without its threads: arguments are encoded to JSON and decoded, tasks wait in the memory broker, and
//! the same code as in production decides what follows from a run. Only the actors are missing: the test itself takes
//! one task after the other and runs it, in the order in which they became ready, on its own thread.
//!
//! ```
//! use celeriac::{State, TaskError, task, testing};
//!
//! #[task]
//! async fn my_cool_task() -> Result<(), TaskError> {
//!     Err(TaskError::fail(["my uncool error"])) // Soil's option 1: final, however many retries are left
//! }
//!
//! #[tokio::main] // in your tests: #[tokio::test]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let _app = testing::eager().await?;
//!     let result = my_cool_task::delay().await?;
//!     assert_eq!(result.state().await?, State::Failure);
//!     assert_eq!(result.result().await?.unwrap().errors, ["my uncool error"]);
//!     Ok(())
//! }
//! ```
//!
//! - [`eager`] runs a task where it is enqueued, with its retries and all tasks that follow from it.
//! - [`start`] lets tasks wait until the test calls [`step`](TestApp::step),
//!   [`run_until_idle`](TestApp::run_until_idle) or [`advance`](TestApp::advance), or asks for a result.
//! - [`assert_enqueued!`](crate::assert_enqueued) and [`assert_not_enqueued!`](crate::assert_not_enqueued) look at
//!   the calls that were enqueued, and show the near misses when they fail.
//! - [`assert_progress!`](crate::assert_progress) and [`assert_download!`](crate::assert_download) look at what a
//!   task showed its user.
//!
//! These things differ from production:
//!
//! - One task runs at a time, so nothing overlaps unless a body itself waits for another task. The number of workers,
//!   pausing and time-to-start mean nothing.
//! - The clock stands still until the test moves it. `tokio::time::sleep` in a body and time limits follow tokio's
//!   clock, which `#[tokio::test(start_paused = true)]` makes virtual as well.
//! - Retries have no jitter: they are due after their full delay.
//! - Periodic entries fire only if the test [asks for it](TestBuilder::beat), those of each tenant as well, each at
//!   its time by the test's clock. Then the levers of `app.celeriac().beat()` work too.
//!
//! As in production, a plain `fn` runs on a thread of its own. An `async fn` runs on the test's thread.
//!
//! `delay` finds the test's own runtime on the thread of the test and in the bodies that run for it. It never finds
//! the runtime of another test: a test that has not started one gets `EnqueueError::NotRunning`, however many others
//! run beside it. Code of the test on other threads, such as in `std::thread::spawn`, gets the same error; use
//! `.send(app.client())` there.

mod app;
mod assertions;
mod builder;
mod client;
mod expectation;
#[cfg(test)]
mod levers;
#[cfg(test)]
mod outages;
mod recorder;
mod stage;
#[cfg(test)]
mod tests;

pub use app::TestApp;
pub use assertions::{check_download, check_enqueued, check_not_enqueued, check_progress};
pub use builder::TestBuilder;
pub use expectation::Expectation;
pub use recorder::{Ran, ReportedState};

use crate::app::StartError;

/// Starts a runtime for one test, in which tasks wait until the test runs them.
///
/// # Errors
/// The same errors as [`Builder::start`](crate::Builder::start).
pub async fn start() -> Result<TestApp, StartError> {
    builder().start().await
}

/// Starts a runtime for one test, in which a task runs as soon as it is enqueued, and an enqueue fails if its task
/// fails. It is Celery's `task_always_eager` with `task_eager_propagates`.
///
/// # Errors
/// The same errors as [`Builder::start`](crate::Builder::start).
pub async fn eager() -> Result<TestApp, StartError> {
    builder().eager(true).start().await
}

/// The options for the runtime of one test.
pub fn builder() -> TestBuilder {
    TestBuilder::new()
}
