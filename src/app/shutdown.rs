//! The shutdown of a runtime within its grace.
//!
//! The order: beat and the source pollers end, the queues start nothing more, the runs may end by themselves, their
//! bodies are told to end when the grace is nearly over, and at its end what is left is handed back. The broker
//! closes when the queues are done, and the threads of the tree end last.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::handle::CeleriacInner;
use crate::actors::queue::Hurry;
use crate::broker::BrokerError;
use crate::core::time::deadline;

/// Bodies are told to end this long before the end of the grace, or in the last quarter of a shorter one.
const TOLD_BEFORE: Duration = Duration::from_secs(5);
/// How long a queue may take to say what runs in it, before the shutdown goes on without its answer.
const LOOK: Duration = Duration::from_millis(100);
/// How long child processes may take to end that have nothing to do. They take some milliseconds.
const DISMISSED: Duration = Duration::from_secs(7);
/// How long a forced step may take.
const FORCED: Duration = Duration::from_secs(1);

/// How a shutdown went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Whether all runs ended by themselves, so that none was handed back.
    pub drained: bool,
    /// The number of runs that were handed back to run again later: their bodies ended because they were told to,
    /// or the grace was over. Runs on an event loop that does not answer are not among them; their queue runs those
    /// tasks again, as after a crash.
    pub handed_back: usize,
    /// How long the shutdown took.
    #[serde(rename = "took_ms", serialize_with = "crate::core::json_time::millis")]
    pub took: Duration,
}

/// Shuts the runtime down within `grace`. `None`: another call does it, or has done it.
///
/// # Errors
/// The broker could not make its last settlements safe.
pub(super) async fn run(
    inner: &CeleriacInner,
    grace: Duration,
) -> Result<Option<ShutdownReport>, BrokerError> {
    let start = Instant::now();
    if inner.closing.swap(true, Ordering::AcqRel) {
        return Ok(None);
    }
    let Some(tree) = inner.take_tree() else { return Ok(Some(ShutdownReport::default())) };
    // They go first, so that nothing new is enqueued. Beat may live on an event loop that a task blocks; then it
    // does not publish either, and the shutdown goes on without its answer.
    let closing = timeout_at(start + grace.min(FORCED), tree.closing());
    let (_, ()) = tokio::join!(closing, tell_what_runs(inner, grace));
    let ends_at = deadline(start, grace);
    let queues = inner.queues.ending();
    let mut all = std::pin::pin!(futures_util::future::join_all(queues.close()));
    let mut ended = timeout_at(ends_at - TOLD_BEFORE.min(grace / 4), &mut all).await;
    if ended.is_err() {
        queues.hurry(Hurry::Ask);
        ended = timeout_at(ends_at, &mut all).await;
    }
    if ended.is_err() {
        queues.hurry(Hurry::Force);
        ended = timeout_at(Instant::now() + FORCED, &mut all).await;
    }
    if ended.is_err() {
        tracing::error!(
            "an event loop does not answer; its tasks run again after the restart, as after a crash"
        );
    }
    // A queue whose actor died meanwhile has handed back all its runs, but it does not answer.
    let all_answered = ended.as_ref().is_ok_and(|ends| ends.iter().all(Result::is_ok));
    let handed_back: usize = ended.unwrap_or_default().into_iter().flatten().sum();
    queues.stop();
    let closed = inner.runtime.broker.close().await;
    // Their workers have dismissed them. What is left after this is killed with the event loops.
    let _ = timeout(DISMISSED, inner.runtime.children.none_left()).await;
    inner.runtime.events.close();
    inner.closed.cancel();
    // The tree is stopped on a thread of its own, because the threads for blocking work may all be held by stuck
    // bodies.
    let (felled, done) = oneshot::channel();
    std::thread::spawn(move || {
        tree.stop();
        let _ = felled.send(());
    });
    let _ = done.await;
    let report =
        ShutdownReport { drained: all_answered && handed_back == 0, handed_back, took: start.elapsed() };
    let ShutdownReport { drained, handed_back, took } = report;
    tracing::info!(target: "celeriac", drained, handed_back, ?took, "shut down");
    closed.map(|()| Some(report))
}

/// Says what the shutdown waits for: how many runs each queue has.
async fn tell_what_runs(inner: &CeleriacInner, grace: Duration) {
    let asked = inner.queues.names().into_iter().map(|name| {
        let queues = inner.queues.clone();
        async move {
            let running = timeout(LOOK.min(grace), queues.running(&name)).await.ok().flatten();
            (name, running)
        }
    });
    let mut texts = Vec::new();
    for (queue, running) in futures_util::future::join_all(asked).await {
        // Nobody waits for bodies that were given up.
        match running.map(|running| running.iter().filter(|run| !run.is_stuck).count()) {
            Some(0) => {}
            Some(runs) => texts.push(format!("{queue} {runs}")),
            None => texts.push(format!("{queue} (does not answer)")),
        }
    }
    match texts.join(", ") {
        running if running.is_empty() => {
            tracing::info!(target: "celeriac", "shutting down; nothing runs");
        }
        running => {
            tracing::info!(target: "celeriac", running, ?grace, "shutting down when what runs is over, within the grace");
        }
    }
}

/// Whether somebody has asked by remote control for the end of the program, and whether anybody waits for that.
#[derive(Default)]
pub(super) struct ShutdownSignal {
    asked: CancellationToken,
    waiting: AtomicUsize,
}

impl ShutdownSignal {
    /// Asks for the end. Says whether anybody waits for that.
    pub(super) fn ask(&self) -> bool {
        self.asked.cancel();
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// Completes when the end was asked for.
    pub(super) async fn asked(&self) {
        struct Waits<'a>(&'a AtomicUsize);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::AcqRel);
            }
        }
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let _waits = Waits(&self.waiting);
        self.asked.cancelled().await;
    }
}

/// Completes at SIGTERM or SIGINT; where there are no such signals, at Ctrl-C.
pub(super) async fn signal() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        Ok(())
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
