//! How a canvas is written in Rust.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::chunks::{mapped, split};
use super::join::joined;
use super::node::{Kind, Node};
use super::result::CanvasResult;
use crate::core::Timestamp;
use crate::task::dispatch;
use crate::task::{Client, EnqueueError, Message, NewTask, RawSignature, Signature, Task, TaskId, current};

/// Calls that follow from each other, not made yet; `O` is what comes out at the end. Celery's chain, group, chord or
/// plain signature.
///
/// What comes before is passed on: the result of a step is the first argument of the next one. A typed call with all of
/// its arguments, `add::s(2, 2)`, is complete and takes nothing (Celery's `add.si(2, 2)`); one that waits for its first
/// argument is `add::p(4)` (Celery's `add.s(4)`).
///
/// ```no_run
/// # use celeriac::task;
/// # use celeriac::task::canvas::{chord, group};
/// # use std::time::Duration;
/// #[task]
/// async fn add(a: i64, b: i64) -> i64 { a + b }
/// #[task]
/// async fn sum(all: Vec<i64>) -> i64 { all.iter().sum() }
///
/// # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
/// let patience = Duration::from_secs(5);
/// let chain = add::s(2, 2).then(add::p(4)).then(add::p(8));
/// assert_eq!(chain.delay().await?.get(patience).await?, 16);
///
/// let tens = group((0..10).map(|n| add::s(n, n)));
/// assert_eq!(tens.clone().delay().await?.get(patience).await?.len(), 10);
/// assert_eq!(tens.then(sum::p()).delay().await?.get(patience).await?, 90); // a chord
/// # Ok(()) }
/// # fn main() {}
/// ```
#[must_use = "a canvas does nothing until `.delay()` is awaited"]
pub struct Canvas<O = Value> {
    node: Node,
    /// The first thing that is wrong with it; said when it is sent.
    error: Option<EnqueueError>,
    output: PhantomData<fn() -> O>,
}

/// What can be a part of a canvas: a [`Signature`], a [`Canvas`], or a task as such (`add::Task`), which takes all of its
/// arguments from what comes before.
pub trait IntoCanvas {
    /// What comes out of it.
    type Output;
    /// The conversion.
    fn into_canvas(self) -> Canvas<Self::Output>;
}

impl<O> IntoCanvas for Canvas<O> {
    type Output = O;

    fn into_canvas(self) -> Self {
        self
    }
}

impl<T: Task> IntoCanvas for Signature<T> {
    type Output = T::Output;

    fn into_canvas(self) -> Canvas<T::Output> {
        let (call, arguments) = self.into_parts();
        let mut canvas = called::<T>(&call);
        // All arguments are there: what comes before has no place among them.
        canvas.node.immutable = true;
        match arguments.and_then(|a| serde_json::from_str(&a.args).map_err(|e| e.to_string())) {
            Ok(args) => canvas.node.args = args,
            Err(error) => canvas.error = Some(EnqueueError::Arguments { task: T::NAME.to_owned(), error }),
        }
        canvas
    }
}

impl<T: Task> IntoCanvas for T {
    type Output = T::Output;

    fn into_canvas(self) -> Canvas<T::Output> {
        called::<T>(&NewTask::new(T::NAME, T::options()))
    }
}

fn called<T: Task>(call: &NewTask) -> Canvas<T::Output> {
    let mut node = Node::task(T::NAME);
    node.options.plain = dispatch::write_options(call, &T::options());
    Canvas::of(node)
}

/// A call that takes its first argument from what comes before; `task::p(..)` is the typed way to it.
#[doc(hidden)]
pub fn partial<T: Task, A: Serialize>(task: T, args: &A) -> Canvas<T::Output> {
    let mut canvas = task.into_canvas();
    match serde_json::to_value(args) {
        Ok(Value::Array(args)) => canvas.node.args = args,
        Ok(_) => {} // no further argument
        Err(error) => canvas.fail(T::NAME, &error),
    }
    canvas
}

/// A call of the task of this name, which this program need not have: one that only Python workers know, say.
///
/// ```
/// use celeriac::task::canvas::signature;
/// let add = signature("proj.tasks.add").arg(4).kwarg("precise", true).queue("python");
/// ```
pub fn signature(task: impl Into<String>) -> Canvas {
    Canvas::of(Node::task(task))
}

/// All of these at once; the results come in the order of the members. Members of different types are made alike by
/// [`Canvas::untyped`].
pub fn group<N: IntoCanvas>(members: impl IntoIterator<Item = N>) -> Canvas<Vec<N::Output>> {
    let mut error = None;
    let members = members.into_iter().map(IntoCanvas::into_canvas);
    let members = members.map(|member| {
        error = error.take().or(member.error);
        member.node
    });
    let node = Node::new(Kind::Group(members.collect()));
    Canvas { error, ..Canvas::of(node) }
}

/// A group, and `body` with the list of its results. The same as `group(header).then(body)`.
pub fn chord<N: IntoCanvas, B: IntoCanvas>(
    header: impl IntoIterator<Item = N>,
    body: B,
) -> Canvas<B::Output> {
    let header = group(header);
    let body = body.into_canvas();
    // Also a header of one or none stays one: its body takes a list.
    let node = Node::chord(header.node, body.node);
    Canvas { error: header.error.or(body.error), ..Canvas::of(node) }
}

/// Steps of different types, one after the other; typed chains are written with [`Canvas::then`].
pub fn chain<N: IntoCanvas>(steps: impl IntoIterator<Item = N>) -> Canvas<N::Output> {
    let mut error = None;
    let steps = steps.into_iter().map(IntoCanvas::into_canvas);
    let steps = steps.map(|step| {
        error = error.take().or(step.error);
        step.node
    });
    let node = joined(steps);
    Canvas { error, ..Canvas::of(node) }
}

/// Calls a task with each of these items as its only argument, all in one message, one after the other. Celery's `map`.
pub fn map<N: IntoCanvas>(
    task: N,
    items: impl IntoIterator<Item = impl Serialize>,
) -> Canvas<Vec<N::Output>> {
    over(task, items, |task, items| mapped("map", task, items))
}

/// Calls a task with each of these lists of arguments, all in one message, one after the other. Celery's `starmap`.
pub fn starmap<N: IntoCanvas>(
    task: N,
    items: impl IntoIterator<Item = impl Serialize>,
) -> Canvas<Vec<N::Output>> {
    over(task, items, |task, items| mapped("starmap", task, items))
}

/// Calls a task with each of these lists of arguments, `n` in each message. Celery's `chunks`.
///
/// # Panics
/// `n` is 0.
pub fn chunks<N: IntoCanvas>(
    task: N,
    items: impl IntoIterator<Item = impl Serialize>,
    n: usize,
) -> Canvas<Vec<Vec<N::Output>>> {
    assert!(n > 0, "chunks of nothing: `n` is 0");
    over(task, items, |task, items| Node::new(Kind::Group(split(&task, items, n))))
}

fn over<N: IntoCanvas, O>(
    task: N,
    items: impl IntoIterator<Item = impl Serialize>,
    make: impl FnOnce(Node, Vec<Value>) -> Node,
) -> Canvas<O> {
    let mut task = task.into_canvas();
    let name = task.node.name().to_owned();
    let items: Result<Vec<_>, _> = items.into_iter().map(|item| serde_json::to_value(item)).collect();
    let items = items.unwrap_or_else(|error| {
        task.fail(&name, &error);
        Vec::new()
    });
    Canvas { error: task.error, ..Canvas::of(make(task.node, items)) }
}

impl<O> Clone for Canvas<O> {
    fn clone(&self) -> Self {
        Self { node: self.node.clone(), error: self.error.clone(), output: PhantomData }
    }
}

impl<O> fmt::Debug for Canvas<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = serde_json::to_string(&self.node.clone().into_raw()).unwrap_or_default();
        f.debug_struct("Canvas").field("signature", &text).field("error", &self.error).finish()
    }
}

impl<O> Canvas<O> {
    fn of(node: Node) -> Self {
        Self { node, error: None, output: PhantomData }
    }

    fn fail(&mut self, task: &str, error: &serde_json::Error) {
        let error = EnqueueError::Arguments { task: task.to_owned(), error: error.to_string() };
        self.error = self.error.take().or(Some(error));
    }

    /// And then this, with the result of what is here as its first argument. After a group that is the list of the
    /// members' results: the two make a chord.
    pub fn then<N: IntoCanvas>(self, next: N) -> Canvas<N::Output> {
        let next = next.into_canvas();
        Canvas { error: self.error.or(next.error), ..Canvas::of(self.node.then(next.node)) }
    }

    /// Calls this as well, with the result, when all has gone well; nobody waits for it. Celery's `link`.
    pub fn link(mut self, callback: impl IntoCanvas) -> Self {
        let callback = callback.into_canvas();
        self.node.link(callback.node);
        self.error = self.error.or(callback.error);
        self
    }

    /// Calls this, with the id of the task that failed, when one of the tasks here fails for good. Celery's `on_error`
    /// and `link_error`. Of a chord's tasks it is the body that counts, and it fails when one of the header does.
    pub fn link_error(mut self, errback: impl IntoCanvas) -> Self {
        let errback = errback.into_canvas();
        self.node.link_error(&errback.node);
        self.error = self.error.or(errback.error);
        self
    }

    /// The same, whatever comes out.
    pub fn untyped(self) -> Canvas {
        Canvas { node: self.node, error: self.error, output: PhantomData }
    }

    /// The same, if something of the type `P` comes out.
    pub fn returns<P>(self) -> Canvas<P> {
        Canvas { node: self.node, error: self.error, output: PhantomData }
    }

    /// One more argument, after those that are there.
    pub fn arg(mut self, value: impl Serialize) -> Self {
        match serde_json::to_value(value) {
            Ok(value) => self.node.args.push(value),
            Err(error) => {
                let name = self.node.name().to_owned();
                self.fail(&name, &error);
            }
        }
        self
    }

    /// More arguments, after those that are there.
    pub fn args(self, values: impl IntoIterator<Item = impl Serialize>) -> Self {
        values.into_iter().fold(self, Self::arg)
    }

    /// An argument by name. Composites have none.
    pub fn kwarg(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        match (serde_json::to_value(value), &mut self.node.kind) {
            (Ok(value), Kind::Task { kwargs, .. }) => drop(kwargs.insert(name.into(), value)),
            (Ok(_), _) => {}
            (Err(error), _) => {
                let name = self.node.name().to_owned();
                self.fail(&name, &error);
            }
        }
        self
    }

    /// Takes nothing from what comes before. Celery's `si`.
    pub fn immutable(mut self) -> Self {
        self.node.immutable = true;
        self
    }

    /// Sets an option by Celery's name. Options of a chain are those of its first task, options of a group those of each
    /// member, options of a chord those of header and body; a countdown is the header's.
    pub fn set(mut self, option: &str, value: impl Into<Value>) -> Self {
        self.node.options.set(option, value);
        self
    }

    /// Into this queue instead of the task's own.
    pub fn queue(self, queue: impl Into<String>) -> Self {
        self.set("queue", queue.into())
    }

    /// 0 to 255, higher goes first.
    pub fn priority(self, priority: u8) -> Self {
        self.set("priority", priority)
    }

    /// Not before this long from when it is sent: for a later step, from the end of the one before.
    pub fn countdown(self, delay: Duration) -> Self {
        self.set("countdown", delay.as_secs_f64())
    }

    /// Not before this time.
    pub fn eta(self, eta: impl Into<Timestamp>) -> Self {
        self.set("eta", dispatch::written(eta.into()))
    }

    /// Not started this long after it is sent: revoked.
    pub fn expires(self, after: Duration) -> Self {
        self.set("expires", after.as_secs_f64())
    }

    /// With an id of the caller's: that of the result, or, of a group, the group's.
    pub fn id(self, id: impl Into<TaskId>) -> Self {
        self.set("task_id", id.into().as_str())
    }

    /// Keep no result. Nobody can wait for it then.
    pub fn ignore_result(self, ignore: bool) -> Self {
        self.set("ignore_result", ignore)
    }

    /// Stamps every task in it, and what they send in turn, with a header. Celery's stamps.
    pub fn stamp(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.node.stamp(name, &value.into());
        self
    }

    /// Its document, as it crosses the wire.
    ///
    /// # Errors
    /// An argument has no form in JSON.
    pub fn into_raw(self) -> Result<RawSignature, EnqueueError> {
        self.error.map_or_else(|| Ok(self.node.into_raw()), Err)
    }

    /// Sends it with the program's running [`Celeriac`](crate::Celeriac). Await it, or block on it with
    /// [`Launching::wait`].
    pub fn delay(self) -> Launching<O> {
        Launching { canvas: self, client: None, beside: None }
    }

    /// Sends it with this handle, for programs that run more than one.
    pub fn send(self, client: impl Into<Arc<dyn Client>>) -> Launching<O> {
        Launching { canvas: self, client: Some(client.into()), beside: None }
    }

    /// Adds it to the chord of a member that runs, as the `nth` that this run adds.
    pub(crate) fn beside(
        self,
        member: Arc<Message>,
        nth: u32,
        client: Option<Arc<dyn Client>>,
    ) -> Launching<O> {
        Launching { canvas: self, client, beside: Some((member, nth)) }
    }
}

impl<T: Task> Signature<T> {
    /// And then that, with the result of this as its first argument: a chain.
    pub fn then<N: IntoCanvas>(self, next: N) -> Canvas<N::Output> {
        self.into_canvas().then(next)
    }

    /// Calls this as well, with the result, when all has gone well. Celery's `link`.
    pub fn link(self, callback: impl IntoCanvas) -> Canvas<T::Output> {
        self.into_canvas().link(callback)
    }

    /// Calls this, with the id of the task, when it fails for good. Celery's `on_error` and `link_error`.
    pub fn link_error(self, errback: impl IntoCanvas) -> Canvas<T::Output> {
        self.into_canvas().link_error(errback)
    }
}

impl Node {
    fn stamp(&mut self, name: &str, value: &Value) {
        match &mut self.kind {
            Kind::Task { .. } => {
                self.options.set(name, value.clone());
                self.options.set_default("stamped_headers", || Value::Array(Vec::new()));
                if let Some(Value::Array(names)) = self.options.plain.get_mut("stamped_headers")
                    && !names.iter().any(|known| known == name)
                {
                    names.push(name.into());
                }
            }
            Kind::Chain(nodes) | Kind::Group(nodes) => nodes.iter_mut().for_each(|n| n.stamp(name, value)),
            Kind::Chord(chord) => {
                chord.header.stamp(name, value);
                chord.body.stamp(name, value);
            }
        }
        for link in self.options.link.iter_mut().chain(&mut self.options.link_error) {
            link.stamp(name, value);
        }
    }
}

/// A canvas that is being sent. Nothing happens until it is awaited or [waited](Self::wait) for.
#[must_use = "nothing is sent until this is awaited"]
pub struct Launching<O> {
    canvas: Canvas<O>,
    client: Option<Arc<dyn Client>>,
    /// It is added to the chord of this member.
    beside: Option<(Arc<Message>, u32)>,
}

impl<O> Launching<O> {
    async fn run(self) -> Result<CanvasResult<O>, EnqueueError> {
        let client = match self.client {
            Some(client) => client,
            None => current().ok_or(EnqueueError::NotRunning)?,
        };
        let canvas = self.canvas.into_raw()?;
        let promise = match &self.beside {
            Some((member, nth)) => client.add_to_chord(member, canvas, *nth).await?,
            None => client.launch(canvas).await?,
        };
        Ok(CanvasResult::new(promise, client))
    }

    /// Sends it where nothing is asynchronous, and blocks until it is accepted.
    ///
    /// # Errors
    /// See [`EnqueueError`].
    ///
    /// # Panics
    /// On a thread that drives asynchronous tasks: there, `.await` it.
    pub fn wait(self) -> Result<CanvasResult<O>, EnqueueError> {
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => runtime.block_on(self.run()),
            Err(_) => futures_executor::block_on(self.run()),
        }
    }
}

impl<O: 'static> IntoFuture for Launching<O> {
    type Output = Result<CanvasResult<O>, EnqueueError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}
