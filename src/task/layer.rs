//! Layers: code of the program around every run, such as a timer, a span, a filter.
//!
//! Invariants:
//! - A layer runs where its body runs: on the event loop for an async body, on the body's thread for a blocking one. So
//!   whatever the layer sets for its thread, the body finds.
//! - Layers and body are one future, and what holds for a body holds for them together: a panic costs the attempt, time
//!   limits and revocations end both, and a drop reaches all of them.
//! - A program without layers runs its bodies as if there were none.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Body, BodyFuture, Context, Outcome};

/// The layers of a program, the outermost first.
pub(crate) type Layers = Arc<[Box<dyn Layer>]>;

/// Code around every run of a task in this program. [`Builder::layer`](crate::Builder::layer) adds it. It is what
/// `tower` and actix-web call a middleware; Celery's programs override `Task.__call__` for it.
///
/// A layer is called for each attempt that starts, after the hooks `before_start`. It runs the body with
/// [`LayeredBody::run`], or it does not and answers itself. The answer of the outermost layer is the outcome of the run.
///
/// ```
/// use celeriac::task::{Layer, LayeredBody, Outcome};
/// use celeriac::{Celeriac, Context, TaskError};
/// use std::time::{Duration, Instant};
///
/// /// Says how long each run takes, and runs nothing of a tenant that is being moved.
/// struct Watch {
///     moving: String,
/// }
///
/// #[celeriac::async_trait(?Send)]
/// impl Layer for Watch {
///     async fn call(&self, context: &Context, body: LayeredBody<'_>) -> Outcome {
///         if context.header("tenant").and_then(|tenant| tenant.as_str()) == Some(self.moving.as_str()) {
///             return Err(TaskError::postpone(Duration::from_secs(60)));
///         }
///         let start = Instant::now();
///         let outcome = body.run().await;
///         println!("{} took {:?}, and it is {}", context.task(), start.elapsed(), outcome.is_ok());
///         outcome
///     }
/// }
///
/// let builder = Celeriac::builder().layer(Watch { moving: "acme".to_owned() });
/// # let _ = builder;
/// ```
///
/// A layer must not block if tasks of the program run on event loops. If it panics, the attempt has failed, as after a
/// panic of the body. A panic of the body goes through the layers, and a run that is given up drops them, so what a layer
/// has to do in any case belongs into the [`Drop`] of a local value.
#[async_trait(?Send)]
pub trait Layer: Send + Sync + 'static {
    /// Runs the body, or answers in its place. The value of an outcome is JSON.
    async fn call(&self, context: &Context, body: LayeredBody<'_>) -> Outcome;
}

/// The body of a task with the layers that are inside of the one that has it. Dropping it leaves out the body.
#[must_use = "without `.run().await` the body does not run"]
pub struct LayeredBody<'a> {
    layers: &'a [Box<dyn Layer>],
    body: Body,
    context: &'a Context,
}

impl LayeredBody<'_> {
    /// Runs what is inside, and answers with its outcome.
    ///
    /// # Errors
    /// The body, or a layer inside, ended the run in another way than by a value. That includes arguments which the body
    /// cannot take.
    pub async fn run(self) -> Outcome {
        let Self { layers, body, context } = self;
        if let Some((layer, layers)) = layers.split_first() {
            return layer.call(context, LayeredBody { layers, body, context }).await;
        }
        let arguments = &context.message().arguments;
        match body {
            Body::Io(start) => start(context.clone(), arguments)?.await,
            Body::Cpu(run) => run(context.clone(), arguments),
        }
    }
}

impl std::fmt::Debug for LayeredBody<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayeredBody")
            .field("task", &self.context.task())
            .field("layers", &self.layers.len())
            .finish_non_exhaustive()
    }
}

/// The body with all layers around it. A blocking body runs inside the poll of this future.
pub(crate) fn layered(layers: &Layers, body: Body, context: Context) -> BodyFuture {
    let layers = Arc::clone(layers);
    Box::pin(async move { LayeredBody { layers: &layers, body, context: &context }.run().await })
}
