//! A body in a child process, as its run waits for it: it ends by itself, at a limit, or with its process.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::OptionFuture;
use tokio::time::Instant;

use super::child_process::{ChildProcess, ChildRunEnd};
use super::until;
use crate::runtime::run::{Run, limits};
use crate::task::{Ending, Interrupt};

/// How long a body may go on that was told to end because its task was revoked. A body that asks
/// ([`Context::check`](crate::Context::check)) has ended by then, and its child takes the next task.
const REVOCATION_PATIENCE: Duration = Duration::from_secs(1);

/// Runs the body of `run` in a child, until it ends or must not go on. Where it does not end by itself, its process is
/// killed, and has ended when this completes.
pub(in crate::runtime) async fn run_in_child(run: &Run, child: &ChildProcess) -> Result<String, Ending> {
    let ((soft, hard), context) = (run.time_limits, &run.context);
    // A child that has died since the task was given to it has not begun the task, so no attempt is burnt.
    let Some(mut body) = child.begin(context) else { return Err(Ending::Interrupted(Interrupt::Shutdown)) };
    let limited = soft.is_some() || hard.is_some();
    let limits = limited.then(|| Box::pin(limits(None, soft, hard, context)));
    let mut limits = pin!(OptionFuture::from(limits));
    let mut told = None;
    let mut ends_at = None;
    let mut gives_way = false;
    loop {
        tokio::select! {
            // The body comes first, so that one which is over at its limit counts as ended.
            biased;
            end = &mut body => return match end {
                ChildRunEnd::Body(outcome) => outcome,
                ChildRunEnd::Lost(cause) => Err(lost(&cause)),
            },
            Some(limit) = &mut limits, if limited => {
                body.kill().await;
                return Err(Ending::TimeLimit(limit));
            }
            interrupt = context.interrupted_beyond(told) => {
                told = Some(interrupt);
                body.interrupt(interrupt);
                ends_at = patience(interrupt).map(|patience| Instant::now() + patience).or(ends_at);
            }
            () = context.slot_wanted_back(), if !gives_way => {
                gives_way = true;
                body.give_way();
            }
            () = until(ends_at) => {
                body.kill().await;
                return Err(Ending::Interrupted(told.unwrap_or(Interrupt::Shutdown)));
            }
            () = run.force.cancelled() => {
                body.kill().await;
                return Err(Ending::Interrupted(Interrupt::Shutdown));
            }
        }
    }
}

/// How long a body may go on that was told to end for this reason. `None`: it is only told.
fn patience(interrupt: Interrupt) -> Option<Duration> {
    match interrupt {
        Interrupt::Revoked => Some(REVOCATION_PATIENCE),
        // Another run of the lane may have begun.
        Interrupt::LaneLost => Some(Duration::ZERO),
        Interrupt::SoftTimeLimit | Interrupt::Shutdown => None,
    }
}

/// The ending of a body whose process has ended. As a panic, it is a failed attempt.
fn lost(cause: &str) -> Ending {
    let text = format!("the process that ran it {cause}");
    Ending::Failure { messages: vec![text], name: "WorkerLost".into(), transient: None }
}
