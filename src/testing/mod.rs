//! For tests of tasks: run them at once, move the clock by hand, see what was enqueued.
//!
//! Celery's eager mode skips serialization, states and retries, and so a test that passes says little. Here a test has the
//! real thing without its threads: arguments are encoded to JSON and decoded, tasks wait in the broker in memory, and what
//! follows from a run is decided by the code that decides it in production. Only the actors are missing: the test itself
//! takes one task after the other and runs it, in the order in which they became ready, on its own thread.
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
//! - [`eager`] runs a task where it is enqueued, with its retries and all that follows from it.
//! - [`start`] lets tasks wait until the test says [`step`](TestApp::step), [`run_until_idle`](TestApp::run_until_idle) or
//!   [`advance`](TestApp::advance), or asks for a result.
//! - [`assert_enqueued!`](crate::assert_enqueued) and [`assert_not_enqueued!`](crate::assert_not_enqueued) look at what was
//!   enqueued, and show the near misses when they fail.
//!
//! - [`assert_progress!`](crate::assert_progress) and [`assert_download!`](crate::assert_download) look at what a task showed
//!   its user.
//!
//! What is not as in production:
//!
//! - One task runs at a time, so nothing overlaps unless a body itself waits for another task. The number of workers, pausing
//!   and time-to-start mean nothing.
//! - The clock stands until the test moves it. Time that a body spends in `tokio::time::sleep`, and time limits, are tokio's
//!   time: `#[tokio::test(start_paused = true)]` makes that virtual as well.
//! - Retries have no jitter: they are due after their full delay.
//! - An `async fn` runs on the test's thread, a plain `fn` on a thread of its own, as in production.
//! - Periodic entries fire if the test [asks for it](TestBuilder::beat), but not those for each tenant.
//!
//! `delay` finds the test's own runtime on the thread of the test and in the bodies that run for it. Elsewhere, such as in
//! `std::thread::spawn`, it is the runtime that was started last: say `.send(app.client())` there.

mod app;
mod assertions;
mod builder;
mod client;
mod expectation;
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

/// A runtime for one test: tasks wait until the test has them run.
///
/// # Errors
/// As [`Builder::start`](crate::Builder::start).
pub async fn start() -> Result<TestApp, StartError> {
    builder().start().await
}

/// A runtime for one test in which a task runs as soon as it is enqueued, and one that fails has its enqueue fail. Celery's
/// `task_always_eager` with `task_eager_propagates`.
///
/// # Errors
/// As [`Builder::start`](crate::Builder::start).
pub async fn eager() -> Result<TestApp, StartError> {
    builder().eager(true).start().await
}

/// A runtime for one test, with options.
pub fn builder() -> TestBuilder {
    TestBuilder::new()
}
