//! A running body behind a wall: whatever it does when it is built, polled or dropped becomes an outcome, so a
//! panic in it hurts neither its worker nor the event loop. `run.rs` starts bodies and awaits them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as Poller, Poll};

use futures_lite::future::block_on;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::run_span::span_of;
use crate::core::Timestamp;
use crate::core::text::logged_errors;
use crate::task::clock::now;
use crate::task::panic::located;
use crate::task::{
    Arguments, Body, BodyFuture, Context, CurrentGuard, Ending, ErrorName, Layers, Message, Outcome,
    TaskDefinition, TaskError, layered, panic_message,
};

/// The name of the error of a body that panicked.
const PANIC: &str = "Panic";

/// Runs `step` and turns a panic in it into an ending, which says where the panic was.
pub(super) fn guard<T>(step: impl FnOnce() -> T) -> Result<T, Ending> {
    located(step).map_err(|(panic, place)| Ending::Failure {
        messages: vec![panic_message(panic)],
        name: ErrorName { place: place.map(String::into_boxed_str), ..PANIC.into() },
        transient: None,
    })
}

/// Whether this outcome is that of a panic.
pub(super) fn is_panic(outcome: &Result<String, Ending>) -> bool {
    matches!(outcome, Err(Ending::Failure { name, .. }) if name.name == PANIC)
}

/// Whether this outcome is that of a body whose process has ended.
pub(super) fn is_lost(outcome: &Result<String, Ending>) -> bool {
    matches!(outcome, Err(Ending::Failure { name, .. }) if name.name == "WorkerLost")
}

/// An async body. Its drop is guarded as well, also when it is dropped before its end.
pub(super) struct IoBody {
    future: Option<BodyFuture>,
    message: Arc<Message>,
    span: tracing::Span,
}

impl IoBody {
    fn end(&mut self) -> Result<(), Ending> {
        let future = self.future.take();
        let _in_span = self.span.enter();
        guard(|| drop(future))
    }
}

impl Future for IoBody {
    type Output = Result<String, Ending>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<Result<String, Ending>> {
        let body = &mut *self;
        let Some(future) = body.future.as_mut() else { return Poll::Pending };
        let entered = CurrentGuard::of(&body.message);
        let outcome = body.span.in_scope(|| guard(|| future.as_mut().poll(cx)));
        drop(entered);
        let outcome = match outcome {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(outcome)) => outcome.map_err(TaskError::into_ending),
            Err(panic) => Err(panic),
        };
        // A panic in the drop of what the body held counts as the body's own, unless the body had failed already.
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
            tracing::warn!(panic = %logged_errors(&messages).join(": "), "a body panicked while it was dropped");
        }
    }
}

/// What starts an async body.
pub(super) type StartIo = fn(Context, &Arguments) -> Result<BodyFuture, TaskError>;

/// Builds an async body on this thread, with the program's layers around it; the caller polls it.
pub(super) fn start_io(run: StartIo, context: Context, layers: &Layers) -> Result<IoBody, Ending> {
    let message = Arc::clone(context.message_arc());
    let span = span_of(&context);
    let entered = CurrentGuard::of(&message);
    let future = if layers.is_empty() {
        guard(|| run(context, &message.arguments))?.map_err(TaskError::into_ending)?
    } else {
        layered(layers, Body::Io(run), context)
    };
    drop(entered);
    Ok(IoBody { future: Some(future), message, span })
}

/// The bodies of one queue that go on although their runs were given up. What they return is refused.
#[derive(Default)]
pub(crate) struct Stuck {
    /// Those that hold a thread now, with the starts of their runs.
    bodies: Mutex<Vec<(Context, Timestamp)>>,
    /// How many bodies returned after all, and were refused.
    refused: AtomicUsize,
}

impl Stuck {
    fn bodies(&self) -> MutexGuard<'_, Vec<(Context, Timestamp)>> {
        self.bodies.lock()
    }

    /// The bodies that hold a thread now, with the starts of their runs.
    pub(crate) fn now(&self) -> Vec<(Context, Timestamp)> {
        self.bodies().clone()
    }

    /// How many bodies hold a thread now.
    pub(crate) fn count(&self) -> usize {
        self.bodies().len()
    }

    /// How many bodies returned after all, and were refused.
    pub(crate) fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    fn given_up(&self, context: Context, started_at: Timestamp) {
        self.bodies().push((context, started_at));
    }

    fn returned(&self, context: &Context) {
        self.bodies().retain(|(stuck, _)| !stuck.is_of_run(context));
    }
}

/// A body on a blocking thread. If this is dropped before the body has ended, the body is stuck until it ends.
pub(super) struct CpuBody {
    outcome: oneshot::Receiver<Result<String, Ending>>,
    /// Completes when the body has a thread and begins. All bodies of the process share its blocking threads.
    began: Option<oneshot::Receiver<()>>,
    stuck: Arc<Stuck>,
    context: Context,
    started_at: Timestamp,
    over: bool,
}

impl CpuBody {
    /// Starts the body on a blocking thread.
    pub(super) fn start(
        definition: &'static TaskDefinition,
        context: Context,
        started_at: Timestamp,
        stuck: Arc<Stuck>,
        layers: Layers,
    ) -> Self {
        let (mut done, outcome) = oneshot::channel();
        let (begins, began) = oneshot::channel();
        let own = context.clone();
        let body = Self {
            outcome,
            began: Some(began),
            stuck: Arc::clone(&stuck),
            context: own.clone(),
            started_at,
            over: false,
        };
        let runtime = tokio::runtime::Handle::current();
        #[cfg(feature = "testing")]
        let scope = crate::task::scope::here();
        blocking::unblock(move || {
            #[cfg(feature = "testing")]
            let _scope = scope.map(crate::task::scope::Scope::enter);
            if done.is_closed() {
                // The run was given up while the body waited for a thread, so the body does not begin.
                stuck.returned(&own);
                return;
            }
            own.note_beginning(now());
            let _ = begins.send(());
            let ended = guard(|| match definition.body {
                Body::Cpu(run) => {
                    // Code that looks for the runtime finds it: `Handle::current()`, clients that spawn.
                    let _entered = runtime.enter();
                    Some(run_cpu(run, context, &layers))
                }
                Body::Io(run) => runtime.block_on(run_io(run, context, &layers, &mut done)),
            });
            let returned = ended.unwrap_or_else(|panic| Some(Err(panic)));
            let late = returned.is_some();
            if returned.is_none_or(|outcome| done.send(outcome).is_err()) {
                stuck.refused.fetch_add(usize::from(late), Ordering::Relaxed);
                stuck.returned(&own);
            }
        })
        .detach();
        body
    }

    /// What completes when the body begins.
    pub(super) fn take_beginning(&mut self) -> Option<oneshot::Receiver<()>> {
        self.began.take()
    }
}

/// Runs a blocking body on this thread, with the program's layers around it.
fn run_cpu(
    run: fn(Context, &Arguments) -> Outcome,
    context: Context,
    layers: &Layers,
) -> Result<String, Ending> {
    let message = Arc::clone(context.message_arc());
    let span = span_of(&context);
    let _in_span = span.enter();
    let _entered = CurrentGuard::of(&message);
    let outcome = guard(|| {
        if layers.is_empty() {
            return run(context, &message.arguments);
        }
        // The body is called inside of this, and may block on futures of its own. Tokio's `block_on` and that of
        // `futures` would not let it.
        block_on(layered(layers, Body::Cpu(run), context))
    });
    outcome?.map_err(TaskError::into_ending)
}

/// Runs an async body on a blocking thread of a pool. The body has the thread to itself and may spawn local tasks,
/// as on an event loop. It can be dropped where it waits; the result is `None` if its run was given up.
async fn run_io(
    run: StartIo,
    context: Context,
    layers: &Layers,
    done: &mut oneshot::Sender<Result<String, Ending>>,
) -> Option<Result<String, Ending>> {
    let body = match start_io(run, context.clone(), layers) {
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
    type Output = Result<String, Ending>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<Result<String, Ending>> {
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
        // The body is counted before the channel closes: it takes itself off the count when it finds the channel
        // closed.
        self.stuck.given_up(self.context.clone(), self.started_at);
        self.outcome.close();
        if self.outcome.try_recv().is_ok() {
            self.stuck.returned(&self.context); // it had ended just before
        }
    }
}
