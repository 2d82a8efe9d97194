//! The shutdown of a runtime within its grace.
//!
//! The order: beat, the source pollers and the forwarder end, the queues start nothing more, the runs may end by
//! themselves, their bodies are told to end when the grace is nearly over, and at its end what is left is handed back.
//! The history is written for the last time and the broker closes when the queues are done, and the threads of the tree end last.
//!
//! A server beside the runtime (`web::run`) ends within the same grace. Until it has answered its last request, the
//! runtime takes what these requests enqueue, and the broker stays open.

use std::future::ready;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::handle::{Celeriac, CeleriacInner};
use crate::actors::queue::Hurry;
use crate::broker::BrokerError;
use crate::core::time::deadline;
use crate::task;

/// Bodies are told to end this long before the end of the grace, or in the last quarter of a shorter one.
const TOLD_BEFORE: Duration = Duration::from_secs(5);
/// How long a queue may take to say what runs in it, before the shutdown goes on without its answer.
const LOOK: Duration = Duration::from_millis(100);
/// How long child processes may take to end that have nothing to do. They take some milliseconds.
const DISMISSED: Duration = Duration::from_secs(7);
/// How long the last write of the history may take.
const HISTORY: Duration = Duration::from_millis(500);
/// How long a forced step may take.
const FORCED: Duration = Duration::from_secs(1);

/// The report of a shutdown: what ended, and what was handed back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Whether all runs ended by themselves, so that none was handed back.
    pub drained: bool,
    /// The number of runs that were handed back to run again later: their bodies ended because they were told to,
    /// or the grace was over. Runs on an event loop that does not answer are not among them; their queue runs those
    /// tasks again, as after a crash.
    pub handed_back: usize,
    /// The time that the shutdown took.
    #[serde(rename = "took_ms", serialize_with = "crate::core::json_time::millis")]
    pub took: Duration,
}

impl Celeriac {
    /// Shuts the runtime down within its grace (see [`Builder::shutdown_grace`](crate::Builder::shutdown_grace)): it takes
    /// nothing new, starts nothing more, waits for what runs, tells it to end when the grace is nearly over, and hands back
    /// what is left. No attempt is counted for that. A second call waits for nothing and reports nothing.
    ///
    /// # Errors
    /// It is not known whether what was settled last is safe; if it is not, those tasks run again.
    pub async fn shutdown(&self) -> Result<ShutdownReport, BrokerError> {
        let grace = self.inner.grace;
        self.shutdown_within(grace).await
    }

    /// Shuts the runtime down as [`shutdown`](Self::shutdown) does, but within another grace.
    ///
    /// # Errors
    /// It is not known whether what was settled last is safe; if it is not, those tasks run again.
    pub async fn shutdown_within(&self, grace: Duration) -> Result<ShutdownReport, BrokerError> {
        self.shutdown_beside(grace, ready(())).await
    }

    /// Shuts the runtime down while something else ends, within one grace for both. Until that has ended, or the grace
    /// is over, enqueues are taken and the broker stays open.
    pub(crate) async fn shutdown_beside(
        &self,
        grace: Duration,
        other: impl Future<Output = ()>,
    ) -> Result<ShutdownReport, BrokerError> {
        let report = match run(&self.inner, grace, other).await {
            // Another call shuts down, and is perhaps not done yet.
            Ok(None) => return Ok(ShutdownReport::default()),
            Ok(Some(report)) => Ok(report),
            Err(error) => Err(error),
        };
        // The client goes last: a task that still runs and enqueues another one must hear that the runtime shuts
        // down.
        task::uninstall(&self.client());
        report
    }

    /// Waits for SIGTERM, SIGINT or Ctrl-C, or until somebody asks for the end by remote control (`celery control
    /// shutdown`), then shuts down. A program with an actix-web server calls `celeriac::web::run` (feature `web`) instead.
    ///
    /// # Errors
    /// Signals cannot be waited for, or the shutdown fails as in [`shutdown`](Self::shutdown).
    pub async fn run_until_signal(&self) -> Result<ShutdownReport, BrokerError> {
        self.told_to_end().await?;
        self.shutdown().await
    }

    /// Completes when the program is told to end: by a signal, or by remote control. From the first look on, signals are
    /// heard.
    pub(crate) async fn told_to_end(&self) -> Result<(), BrokerError> {
        let told = async {
            tokio::select! {
                signal = signal() => {
                    signal.map_err(|e| BrokerError::io_because(format!("signals cannot be waited for: {e}"), e))
                }
                () = self.shutdown_requested() => Ok(()),
            }
        };
        #[cfg(all(unix, feature = "systemd"))]
        let told = super::systemd::supervised(told);
        told.await
    }

    /// Completes when somebody asks for the end of the program by remote control: Celery's `shutdown`. A program that
    /// does not call [`run_until_signal`](Self::run_until_signal) waits for it here, and then ends itself and
    /// [shuts down](Self::shutdown). While nobody waits, whoever asks is told so.
    pub async fn shutdown_requested(&self) {
        self.inner.control.shutdown.asked().await;
    }

    /// Whether a shutdown has begun. A readiness probe answers no from then on.
    pub fn is_shutting_down(&self) -> bool {
        self.inner.closing.load(Ordering::Acquire)
    }

    /// The grace of a shutdown that states none.
    #[cfg(feature = "web")]
    pub(crate) fn grace(&self) -> Duration {
        self.inner.grace
    }

    /// Cancelled when a shutdown begins, for what would hold it up.
    #[cfg(feature = "web")]
    pub(crate) fn ending(&self) -> CancellationToken {
        self.inner.ending.clone()
    }
}

/// Shuts the runtime down within `grace`, beside something else that ends. `None`: another call does it, or has done it.
///
/// # Errors
/// The broker could not make its last settlements safe.
async fn run(
    inner: &CeleriacInner,
    grace: Duration,
    other: impl Future<Output = ()>,
) -> Result<Option<ShutdownReport>, BrokerError> {
    let start = Instant::now();
    let ends_at = deadline(start, grace);
    let is_first = !inner.closing.swap(true, Ordering::AcqRel);
    inner.ending.cancel();
    let other = async {
        if timeout_at(ends_at, other).await.is_err() {
            tracing::warn!(target: "celeriac", ?grace, "the grace is over, and the server beside the runtime still answers; it is cut short");
        }
        // Another call has nothing to wait for, while the server of the first one still answers.
        if is_first {
            inner.refusing.store(true, Ordering::Release);
        }
    };
    let tree = if is_first { inner.take_tree() } else { None };
    let Some(tree) = tree else {
        other.await;
        return Ok(is_first.then(ShutdownReport::default));
    };
    // Beat may live on an event loop that a task blocks; then it does not publish either, and the shutdown goes on
    // without its answer.
    let closing = timeout_at(start + grace.min(FORCED), tree.closing());
    let closing = async move {
        let _ = closing.await;
    };
    let queues = end_queues(inner, closing, start, grace);
    let ((), (all_answered, handed_back)) = tokio::join!(other, queues);
    let (history, ()) = tokio::join!(timeout(HISTORY, inner.end_history()), inner.end_run_times());
    if history.is_err() {
        tracing::warn!(target: "celeriac", "the end of the history is not written: the store does not answer");
    }
    inner.queues.ending().stop();
    // Nothing starts any more, so what is left of the shares of limits is not needed here.
    let _ = timeout(FORCED, inner.runtime.limits.give_unused_back()).await;
    // While the store is still this program's: the next one has a socket of the same name.
    #[cfg(unix)]
    drop(inner.control.local.lock().take());
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

/// Ends the queues when `closing`, the end of beat and of the source pollers, has come, so that these enqueue nothing
/// more. Says whether all queues have answered, and how many runs were handed back.
async fn end_queues(
    inner: &CeleriacInner,
    closing: impl Future<Output = ()>,
    start: Instant,
    grace: Duration,
) -> (bool, usize) {
    tokio::join!(closing, tell_what_runs(inner, grace));
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
    (all_answered, ended.unwrap_or_default().into_iter().flatten().sum())
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
async fn signal() -> std::io::Result<()> {
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
