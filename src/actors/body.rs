//! A running body, walled in: whatever it does when it is built, polled or dropped ends as an outcome.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as Poller, Poll};

use tokio::sync::oneshot;

use crate::task::panic_message;
use crate::task::{Arguments, Body, BodyFuture, Context, Ending, TaskDefinition};

/// What a body came to, without what the runtime adds.
pub(super) type BodyOutcome = Result<String, Ending>;

/// The failure that a panic is.
pub(super) fn panicked(panic: Box<dyn std::any::Any + Send>) -> Ending {
    Ending::Failure { messages: vec![panic_message(panic)], error_type: "Panic".to_owned(), transient: None }
}

/// Runs `step`, turning a panic into an ending.
pub(super) fn guard<T>(step: impl FnOnce() -> T) -> Result<T, Ending> {
    catch_unwind(AssertUnwindSafe(step)).map_err(panicked)
}

/// Whether an ending is a panic.
pub(super) fn is_panic(outcome: &BodyOutcome) -> bool {
    matches!(outcome, Err(Ending::Failure { error_type, .. }) if error_type == "Panic")
}

/// An async body. Its drop is guarded as well, also when it is dropped before its end.
pub(super) struct IoBody {
    future: Option<BodyFuture>,
}

impl IoBody {
    fn end(&mut self) -> Result<(), Ending> {
        let future = self.future.take();
        guard(|| drop(future))
    }
}

impl Future for IoBody {
    type Output = BodyOutcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<BodyOutcome> {
        let Some(future) = self.future.as_mut() else { return Poll::Pending };
        let outcome = match guard(|| future.as_mut().poll(cx)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(outcome)) => outcome.map_err(crate::task::TaskError::into_ending),
            Err(panic) => Err(panic),
        };
        // A panic in the drop of what the body held is a panic of the body, unless it said something worse already.
        let dropped = self.end();
        Poll::Ready(match (outcome, dropped) {
            (Ok(_), Err(panic)) => Err(panic),
            (outcome, _) => outcome,
        })
    }
}

impl Drop for IoBody {
    fn drop(&mut self) {
        if let Err(Ending::Failure { messages, .. }) = self.end() {
            tracing::warn!(panic = %messages.join(": "), "a body panicked while it was dropped");
        }
    }
}

/// Starts an async body on this thread.
pub(super) fn start_io(
    run: fn(Context, &Arguments) -> Result<BodyFuture, crate::task::TaskError>,
    context: Context,
) -> Result<IoBody, Ending> {
    let message = Arc::clone(context.message_arc());
    let future = guard(|| run(context, &message.arguments))?.map_err(crate::task::TaskError::into_ending)?;
    Ok(IoBody { future: Some(future) })
}

/// Runs a body to its end on this thread, whatever its kind.
fn run_blocking(
    definition: &TaskDefinition,
    context: Context,
    runtime: &tokio::runtime::Handle,
) -> BodyOutcome {
    match definition.body {
        Body::Io(run) => runtime.block_on(start_io(run, context)?),
        Body::Cpu(run) => {
            let message = Arc::clone(context.message_arc());
            guard(|| run(context, &message.arguments))?.map_err(crate::task::TaskError::into_ending)
        }
    }
}

/// Bodies that go on although their run was given up: nobody takes what they return.
#[derive(Default)]
pub(crate) struct Stuck {
    /// Threads held now.
    pub(crate) now: AtomicUsize,
    /// Bodies that returned after all, and were refused.
    pub(crate) refused: AtomicUsize,
}

/// A body on a blocking thread. Dropped before the body has ended, it counts as stuck until it does.
pub(super) struct CpuBody {
    outcome: oneshot::Receiver<BodyOutcome>,
    given_up: Arc<GivenUp>,
    over: bool,
}

struct GivenUp {
    flag: std::sync::Mutex<Phase>,
    stuck: Arc<Stuck>,
}

#[derive(PartialEq)]
enum Phase {
    Running,
    Abandoned,
    Ended,
}

impl CpuBody {
    /// Starts a body on a blocking thread of its own.
    pub(super) fn start(definition: &'static TaskDefinition, context: Context, stuck: Arc<Stuck>) -> Self {
        let (done, outcome) = oneshot::channel();
        let given_up = Arc::new(GivenUp { flag: std::sync::Mutex::new(Phase::Running), stuck });
        let shared = Arc::clone(&given_up);
        let runtime = tokio::runtime::Handle::current();
        blocking::unblock(move || {
            let outcome = guard(|| run_blocking(definition, context, &runtime)).unwrap_or_else(Err);
            shared.ended();
            let _ = done.send(outcome);
        })
        .detach();
        Self { outcome, given_up, over: false }
    }
}

impl GivenUp {
    fn lock(&self) -> std::sync::MutexGuard<'_, Phase> {
        self.flag.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn ended(&self) {
        let mut phase = self.lock();
        if *phase == Phase::Abandoned {
            self.stuck.now.fetch_sub(1, Ordering::Relaxed);
            self.stuck.refused.fetch_add(1, Ordering::Relaxed);
        }
        *phase = Phase::Ended;
    }
}

impl Future for CpuBody {
    type Output = BodyOutcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<BodyOutcome> {
        Pin::new(&mut self.outcome).poll(cx).map(|outcome| {
            self.over = true;
            outcome.unwrap_or_else(|_| {
                Err(Ending::Failure {
                    messages: vec!["the blocking thread ended without an outcome".to_owned()],
                    error_type: "WorkerLost".to_owned(),
                    transient: None,
                })
            })
        })
    }
}

impl Drop for CpuBody {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut phase = self.given_up.lock();
        if *phase == Phase::Running {
            *phase = Phase::Abandoned;
            self.given_up.stuck.now.fetch_add(1, Ordering::Relaxed);
        }
    }
}
