//! The end of a runtime, within its grace.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::handle::Inner;
use crate::actors::queue::{Close, Hurry, Stop};
use crate::actors::root::Closing;
use crate::broker::BrokerError;

/// Bodies are told this long before the grace ends, or after three quarters of a short one.
const TOLD_BEFORE: Duration = Duration::from_secs(5);
/// What a forced end may take.
const FORCED: Duration = Duration::from_secs(1);

/// How a shutdown went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Whether all running tasks ended by themselves; if not, the rest was handed back.
    pub drained: bool,
    /// How long it took.
    pub took: Duration,
}

pub(super) async fn run(inner: &Inner, grace: Duration) -> Result<ShutdownReport, BrokerError> {
    let start = Instant::now();
    if inner.closing.swap(true, Ordering::AcqRel) {
        return Ok(ShutdownReport::default());
    }
    let Some(tree) = inner.take_tree() else { return Ok(ShutdownReport::default()) };
    // Beat may live on an event loop that somebody blocks; then it does not fire either.
    let _ = timeout_at(start + grace.min(FORCED), tree.root.send(Closing)).await;
    let queues = inner.addresses();
    let mut ends = Vec::new();
    for queue in &queues {
        let (done, end) = oneshot::channel();
        queue.do_send(Close(done));
        ends.push(end);
    }
    let mut all = std::pin::pin!(futures_util::future::join_all(ends));
    let told_at = start + grace.saturating_sub(TOLD_BEFORE.min(grace / 4));
    let mut drained = timeout_at(told_at, &mut all).await.is_ok();
    if !drained {
        queues.iter().for_each(|queue| queue.do_send(Hurry::Ask));
        drained = timeout_at(start + grace, &mut all).await.is_ok();
    }
    if !drained {
        queues.iter().for_each(|queue| queue.do_send(Hurry::Force));
        if timeout_at(Instant::now() + FORCED, &mut all).await.is_err() {
            tracing::error!(
                "an event loop does not answer; its tasks run again after the restart, as after a crash"
            );
        }
    }
    queues.iter().for_each(|queue| queue.do_send(Stop));
    let closed = inner.runtime.broker.close().await;
    inner.closed.cancel();
    inner.runtime.board.close();
    // On a thread of its own: those for bodies may all be stuck.
    let (felled, done) = oneshot::channel();
    std::thread::spawn(move || {
        tree.fell();
        let _ = felled.send(());
    });
    let _ = done.await;
    let report = ShutdownReport { drained, took: start.elapsed() };
    tracing::info!(?report, "shut down");
    closed.map(|()| report)
}

/// Completes at SIGTERM, SIGINT or Ctrl-C.
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
