//! A running body, walled in: whatever it does when it is built, polled or dropped ends as an outcome.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as Poller, Poll};

use tokio::sync::oneshot;

use crate::task::{
    Arguments, Body, BodyFuture, Context, Ending, Entered, Message, Outcome, TaskDefinition, TaskError,
    panic_message,
};

/// What a body came to, without what the runtime adds.
pub(crate) type BodyOutcome = Result<String, Ending>;

/// The failure that a panic is.
pub(super) fn panicked(panic: Box<dyn std::any::Any + Send>) -> Ending {
    Ending::Failure { messages: vec![panic_message(panic)], name: "Panic".into(), transient: None }
}

/// Runs `step`, turning a panic into an ending.
pub(super) fn guard<T>(step: impl FnOnce() -> T) -> Result<T, Ending> {
    catch_unwind(AssertUnwindSafe(step)).map_err(panicked)
}

/// Whether an ending is a panic.
pub(super) fn is_panic(outcome: &BodyOutcome) -> bool {
    matches!(outcome, Err(Ending::Failure { name, .. }) if name.name == "Panic")
}

/// An async body. Its drop is guarded as well, also when it is dropped before its end.
pub(super) struct IoBody {
    future: Option<BodyFuture>,
    message: Arc<Message>,
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
        let body = &mut *self;
        let Some(future) = body.future.as_mut() else { return Poll::Pending };
        let entered = Entered::of(&body.message);
        let outcome = guard(|| future.as_mut().poll(cx));
        drop(entered);
        let outcome = match outcome {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(outcome)) => outcome.map_err(TaskError::into_ending),
            Err(panic) => Err(panic),
        };
        // A panic in the drop of what the body held is a panic of the body, unless it said something worse already.
        let dropped = body.end();
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

type StartIo = fn(Context, &Arguments) -> Result<BodyFuture, TaskError>;

/// Starts an async body on this thread.
pub(super) fn start_io(run: StartIo, context: Context) -> Result<IoBody, Ending> {
    let message = Arc::clone(context.message_arc());
    let entered = Entered::of(&message);
    let future = guard(|| run(context, &message.arguments))?.map_err(TaskError::into_ending)?;
    drop(entered);
    Ok(IoBody { future: Some(future), message })
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
    stuck: Arc<Stuck>,
    over: bool,
}

impl CpuBody {
    /// Starts a body on a blocking thread.
    pub(super) fn start(definition: &'static TaskDefinition, context: Context, stuck: Arc<Stuck>) -> Self {
        let (mut done, outcome) = oneshot::channel();
        let body = Self { outcome, stuck: Arc::clone(&stuck), over: false };
        let runtime = tokio::runtime::Handle::current();
        #[cfg(feature = "testing")]
        let scope = crate::task::scope::here();
        blocking::unblock(move || {
            #[cfg(feature = "testing")]
            let _scope = scope.map(crate::task::scope::Scope::enter);
            let ended = guard(|| match definition.body {
                Body::Cpu(run) => Some(run_cpu(run, context)),
                Body::Io(run) => runtime.block_on(run_io(run, context, &mut done)),
            });
            let returned = ended.unwrap_or_else(|panic| Some(Err(panic)));
            let late = returned.is_some();
            if returned.is_none_or(|outcome| done.send(outcome).is_err()) {
                stuck.now.fetch_sub(1, Ordering::Relaxed);
                stuck.refused.fetch_add(usize::from(late), Ordering::Relaxed);
            }
        })
        .detach();
        body
    }
}

fn run_cpu(run: fn(Context, &Arguments) -> Outcome, context: Context) -> BodyOutcome {
    let message = Arc::clone(context.message_arc());
    let _entered = Entered::of(&message);
    guard(|| run(context, &message.arguments))?.map_err(TaskError::into_ending)
}

/// An async body in a pool of threads has one to itself, and may spawn local tasks as on an event loop. It can be
/// dropped where it waits: `None`, if its run was given up.
async fn run_io(
    run: StartIo,
    context: Context,
    done: &mut oneshot::Sender<BodyOutcome>,
) -> Option<BodyOutcome> {
    let body = match start_io(run, context.clone()) {
        Ok(body) => body,
        Err(ending) => return Some(Err(ending)),
    };
    let local = tokio::task::LocalSet::new();
    tokio::select! {
        biased;
        outcome = local.run_until(body) => Some(outcome),
        interrupt = context.terminated() => Some(Err(Ending::Interrupted(interrupt))),
        () = done.closed() => None,
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
                    name: "WorkerLost".into(),
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
        // Counted before the channel closes: the body takes itself off when it finds it closed.
        self.stuck.now.fetch_add(1, Ordering::Relaxed);
        self.outcome.close();
        if self.outcome.try_recv().is_ok() {
            self.stuck.now.fetch_sub(1, Ordering::Relaxed); // it ended just before
        }
    }
}
