//! The process pool: bodies that run in child processes of this program, so that they can be ended whatever they do.
//!
//! A child is the program's own executable, started again with the same arguments and a variable in its environment.
//! Its `main` runs up to the start of the runtime, which does not start there but serves the program that started it:
//! see [`child`]. A socket on the child's standard input joins the two; [`protocol`] says what crosses it. Each worker of
//! such a queue has one child.
//!
//! Invariants:
//! - All that is kept of a run is in the program: the delivery, the verdict, the settlement, progress, permits, files. The
//!   child has the body and nothing else, so that its death loses nothing but the attempt.
//! - A child never outlives the program: its socket closes with it.
//! - A child leads a process group of its own, and what its bodies have started is killed with it.

mod answers;
mod body;
pub(crate) mod child;
mod child_process;
mod driver;
mod exit_text;
mod memory;
mod protocol;

use std::future::pending;

use tokio::time::{Instant, sleep_until};

pub(super) use body::run_in_child;
pub(crate) use child_process::ChildProcess;

/// The variable that says to a process that it is a child of a process pool.
const VARIABLE: &str = "CELERIAC_POOL_CHILD";

/// Waits until this time; without one, for ever.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}
