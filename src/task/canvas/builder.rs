//! The builder of canvases: how a Rust program writes one.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::chunks::{check, mapped, split};
use super::join::joined;
use super::node::{Node, NodeKind};
use super::result::CanvasResult;
use crate::core::Timestamp;
use crate::task::dispatch;
#[cfg(feature = "otel")]
use crate::task::sending::sending;
use crate::task::{
    Arguments, Client, EnqueueError, Json, Message, NewTask, RawSignature, Signature, Task, TaskId, current,
};

/// Calls that follow from each other and have not been made yet. `O` is the type of the final result. It covers
/// Celery's chain, group, chord and plain signature.
///
/// The result of a step is the first argument of the next one. A typed call with all of its arguments, `add::s(2, 2)`,
/// is complete and takes no result (Celery's `add.si(2, 2)`). A call that waits for its first argument is written
/// `add::p(4)` (Celery's `add.s(4)`).
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
pub struct Canvas<O = Json> {
    node: Node,
    /// The first error in the canvas. The caller gets it when the canvas is sent.
    error: Option<EnqueueError>,
    output: PhantomData<fn() -> O>,
}

/// A value that can be a part of a canvas: a [`Signature`], a [`Canvas`], a [`RawSignature`], or a task itself
/// (`add::Task`), which takes all of its arguments from the step before.
pub trait IntoCanvas {
    /// The type of the part's result.
    type Output;
    /// Converts the value to a canvas.
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
        // The call has all of its arguments, so there is no place for the result of the step before.
        canvas.node.immutable = true;
        if let Err(error) = arguments.and_then(|a| canvas.fill(&a).map_err(|e| e.to_string())) {
            canvas.error = Some(EnqueueError::Arguments { task: T::NAME.to_owned(), error });
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

/// A signature that came as a document, for example as an argument of a task, runs as it does in Python: Celery's
/// `signature(document)`. If the document is no signature, whoever sends the canvas gets [`EnqueueError::Canvas`].
impl IntoCanvas for RawSignature {
    type Output = Json;

    fn into_canvas(self) -> Canvas {
        let task = self.task.clone();
        match Node::from_raw(self) {
            Ok(node) => Canvas::of(node),
            Err(error) => Canvas { error: Some(EnqueueError::Canvas(error.to_string())), ..signature(task) },
        }
    }
}

fn called<T: Task>(call: &NewTask) -> Canvas<T::Output> {
    let mut node = Node::task(T::NAME);
    node.options.plain = dispatch::write_options(call, &T::options());
    Canvas::of(node)
}

/// A call that takes its first argument from the step before. `task::p(..)` is the typed way to make one.
#[doc(hidden)]
pub fn partial<T: Task, A: Serialize>(task: T, args: &A) -> Canvas<T::Output> {
    let mut canvas = task.into_canvas();
    // The open argument is the first of those that `*rest` takes, and then that parameter is still there.
    let is_open = T::PARAMS.first().is_some_and(|name| !name.starts_with('*'));
    let params = &T::PARAMS[usize::from(is_open)..];
    if let Err(error) = Arguments::encode_call(args, params).and_then(|arguments| canvas.fill(&arguments)) {
        canvas.fail(T::NAME, &error);
    }
    canvas
}

/// A call of the task of this name. This program need not have the task: it may be one that only Python workers know.
///
/// ```
/// use celeriac::task::canvas::signature;
/// let add = signature("proj.tasks.add").arg(4).kwarg("precise", true).queue("python");
/// ```
pub fn signature(task: impl Into<String>) -> Canvas {
    Canvas::of(Node::task(task))
}

/// Runs all members at once. The results come in the order of the members. [`Canvas::untyped`] makes members of
/// different types alike.
pub fn group<N: IntoCanvas>(members: impl IntoIterator<Item = N>) -> Canvas<Vec<N::Output>> {
    let mut error = None;
    let members = members.into_iter().map(IntoCanvas::into_canvas);
    let members = members.map(|member| {
        error = error.take().or(member.error);
        member.node
    });
    let node = Node::new(NodeKind::Group(members.collect()));
    Canvas { error, ..Canvas::of(node) }
}

/// Runs the header as a group and then `body` with the list of its results. It is the same as
/// `group(header).then(body)`.
pub fn chord<N: IntoCanvas, B: IntoCanvas>(
    header: impl IntoIterator<Item = N>,
    body: B,
) -> Canvas<B::Output> {
    let header = group(header);
    let body = body.into_canvas();
    // A header with one member or none stays a header, because its body takes a list.
    let node = Node::chord(header.node, body.node);
    Canvas { error: header.error.or(body.error), ..Canvas::of(node) }
}

/// Runs the steps one after the other. It is meant for steps of different types; [`Canvas::then`] writes typed chains.
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

/// Calls a task with each of these items as its only argument, one after the other, all in one message. Celery's `map`.
pub fn map<N: IntoCanvas>(
    task: N,
    items: impl IntoIterator<Item = impl Serialize>,
) -> Canvas<Vec<N::Output>> {
    over(task, items, |task, items| mapped("map", task, items))
}

/// Calls a task with each of these lists of arguments, one after the other, all in one message. Celery's `starmap`.
pub fn starmap<N: IntoCanvas>(
    task: N,
    items: impl IntoIterator<Item = impl Serialize>,
) -> Canvas<Vec<N::Output>> {
    over(task, items, |task, items| mapped("starmap", task, items))
}

/// Calls a task with each of these lists of arguments, with `n` lists in each message. Celery's `chunks`.
///
/// # Panics
/// `n` is 0.
pub fn chunks<N: IntoCanvas>(
    task: N,
    items: impl IntoIterator<Item = impl Serialize>,
    n: usize,
) -> Canvas<Vec<Vec<N::Output>>> {
    assert!(n > 0, "chunks of nothing: `n` is 0");
    let mut error = None;
    let canvas = over(task, items, |task, items| match check(items.len(), n) {
        Ok(()) => Node::new(NodeKind::Group(split(task, &items, n))),
        Err(too_many) => {
            error = Some(EnqueueError::Canvas(too_many.to_string()));
            Node::new(NodeKind::Group(Vec::new()))
        }
    });
    Canvas { error: canvas.error.or(error), ..canvas }
}

fn over<N: IntoCanvas, O>(
    task: N,
    items: impl IntoIterator<Item = impl Serialize>,
    make: impl FnOnce(Node, Vec<Json>) -> Node,
) -> Canvas<O> {
    let mut task = task.into_canvas();
    let name = task.node.name().to_owned();
    let items: Result<Vec<_>, _> = items.into_iter().map(|item| Json::encode(&item)).collect();
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

    /// Gives the task of this canvas its arguments.
    fn fill(&mut self, arguments: &Arguments) -> Result<(), serde_json::Error> {
        self.node.args = serde_json::from_str(&arguments.args)?;
        if let (NodeKind::Task { kwargs, .. }, false) = (&mut self.node.kind, arguments.kwargs.is_empty()) {
            *kwargs = serde_json::from_str(&arguments.kwargs)?;
        }
        Ok(())
    }

    fn fail(&mut self, task: &str, error: &serde_json::Error) {
        let error = EnqueueError::Arguments { task: task.to_owned(), error: error.to_string() };
        self.error = self.error.take().or(Some(error));
    }

    fn fail_at(&mut self, place: &str, error: &serde_json::Error) {
        let (task, error) = (self.node.name().to_owned(), format!("{place}: {error}"));
        self.error = self.error.take().or(Some(EnqueueError::Arguments { task, error }));
    }

    /// Adds a next step, which gets the result of this canvas as its first argument. After a group, that is the list of
    /// the members' results, and the two make a chord.
    pub fn then<N: IntoCanvas>(self, next: N) -> Canvas<N::Output> {
        let next = next.into_canvas();
        Canvas { error: self.error.or(next.error), ..Canvas::of(self.node.then(next.node)) }
    }

    /// Also calls `callback` with the result when this canvas has succeeded. Nobody waits for the callback. Celery's
    /// `link`.
    pub fn link(mut self, callback: impl IntoCanvas) -> Self {
        let callback = callback.into_canvas();
        self.node.link(callback.node);
        self.error = self.error.or(callback.error);
        self
    }

    /// Calls `errback` with the id of the failed task when one of the tasks here fails for good. For a chord, the
    /// errback is linked to the body, which fails when a member of the header does. Celery's `on_error` and
    /// `link_error`.
    pub fn link_error(mut self, errback: impl IntoCanvas) -> Self {
        let errback = errback.into_canvas();
        self.node.link_error(&errback.node);
        self.error = self.error.or(errback.error);
        self
    }

    /// Makes the same canvas with a result of any type, as the text that its task wrote.
    pub fn untyped(self) -> Canvas {
        Canvas { node: self.node, error: self.error, output: PhantomData }
    }

    /// Makes the same canvas with a result of the type `P`, which the program has to know.
    pub fn returns<P>(self) -> Canvas<P> {
        Canvas { node: self.node, error: self.error, output: PhantomData }
    }

    /// Adds one more argument after those that are there.
    pub fn arg(mut self, value: impl Serialize) -> Self {
        match Json::encode(&value) {
            Ok(value) => self.node.args.push(value),
            Err(error) => {
                let name = self.node.name().to_owned();
                self.fail(&name, &error);
            }
        }
        self
    }

    /// Adds more arguments after those that are there.
    pub fn args(self, values: impl IntoIterator<Item = impl Serialize>) -> Self {
        values.into_iter().fold(self, Self::arg)
    }

    /// Adds an argument by name. A chain, a group or a chord has no such arguments: sending it is an error then.
    pub fn kwarg(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        match (Json::encode(&value), &mut self.node.kind) {
            (Ok(value), NodeKind::Task { kwargs, .. }) => drop(kwargs.insert(name.into(), value)),
            (Ok(_), _) => {
                let text = "only a task takes arguments by name, and this is a chain, a group or a chord: \
                            give them to its tasks";
                self.error = self.error.take().or(Some(EnqueueError::Canvas(text.to_owned())));
            }
            (Err(error), _) => {
                let name = self.node.name().to_owned();
                self.fail(&name, &error);
            }
        }
        self
    }

    /// Lets the call ignore the result of the step before. Celery's `si`.
    pub fn immutable(mut self) -> Self {
        self.node.immutable = true;
        self
    }

    /// Sets an option by Celery's name. An option of a chain goes to its first task, one of a group to each member, and
    /// one of a chord to header and body; a countdown of a chord goes to the header only.
    pub fn set(mut self, option: &str, value: impl Serialize) -> Self {
        match Json::encode(&value) {
            Ok(value) => self.node.options.set(option, value),
            Err(error) => self.fail_at(&format!("option `{option}`"), &error),
        }
        self
    }

    /// Sends the call to this queue instead of the task's own.
    pub fn queue(self, queue: impl Into<String>) -> Self {
        self.set("queue", queue.into())
    }

    /// Sets the priority, from 0 to 255. The highest goes first.
    pub fn priority(self, priority: u8) -> Self {
        self.set("priority", priority)
    }

    /// Sets how long after it was sent the task may start. A later step of a chain is sent when the step before ends.
    pub fn countdown(self, delay: Duration) -> Self {
        self.set("countdown", delay.as_secs_f64())
    }

    /// Sets the time before which the task must not start. Takes what [`Signature::eta`](crate::task::Signature::eta) takes.
    pub fn eta(self, eta: impl Into<Timestamp>) -> Self {
        self.set("eta", dispatch::written(eta.into()))
    }

    /// Revokes the task if it has not started this long after it was sent.
    pub fn expires(self, after: Duration) -> Self {
        self.set("expires", after.as_secs_f64())
    }

    /// Sets the id of the result. For a group it is the group's id.
    pub fn id(self, id: impl Into<TaskId>) -> Self {
        self.set("task_id", id.into().as_str())
    }

    /// States whether the result is thrown away. If it is, nobody can wait for it.
    pub fn ignore_result(self, ignore: bool) -> Self {
        self.set("ignore_result", ignore)
    }

    /// Sets the text that tools, logs and errors show instead of the positional arguments, for example `<redacted>`.
    /// For a group it applies to each member, and for [`map`] and the like to the items. Celery's `.set(argsrepr=…)`.
    pub fn argsrepr(self, shown: impl Into<String>) -> Self {
        self.set("argsrepr", shown.into())
    }

    /// Sets the text that is shown instead of the keyword arguments. Celery's `.set(kwargsrepr=…)`.
    pub fn kwargsrepr(self, shown: impl Into<String>) -> Self {
        self.set("kwargsrepr", shown.into())
    }

    /// Stamps every task of the canvas with a header. A stamped task passes the stamp on to what it sends. Celery's
    /// stamps.
    pub fn stamp(mut self, name: &str, value: impl Serialize) -> Self {
        match Json::encode(&value) {
            Ok(value) => self.node.stamp(name, &value),
            Err(error) => self.fail_at(&format!("stamp `{name}`"), &error),
        }
        self
    }

    /// Converts the canvas to its document, as it crosses the wire.
    ///
    /// # Errors
    /// An argument has no form in JSON.
    pub fn into_raw(self) -> Result<RawSignature, EnqueueError> {
        self.error.map_or_else(|| Ok(self.node.into_raw()), Err)
    }

    /// Sends the canvas with the program's running [`Celeriac`](crate::Celeriac). Await the answer, or block on it with
    /// [`Launching::wait`].
    pub fn delay(self) -> Launching<O> {
        Launching { canvas: self, client: None, member_of: None }
    }

    /// Sends the canvas with this handle, for programs that run more than one.
    pub fn send(self, client: impl Into<Arc<dyn Client>>) -> Launching<O> {
        Launching { canvas: self, client: Some(client.into()), member_of: None }
    }

    /// Adds the canvas to the chord of a running member, as the `nth` member that this run adds.
    pub(crate) fn into_member_of(
        self,
        member: Arc<Message>,
        nth: u32,
        client: Option<Arc<dyn Client>>,
    ) -> Launching<O> {
        Launching { canvas: self, client, member_of: Some((member, nth)) }
    }
}

impl<T: Task> Signature<T> {
    /// Adds a next step, which gets the result of this call as its first argument. The two make a chain.
    pub fn then<N: IntoCanvas>(self, next: N) -> Canvas<N::Output> {
        self.into_canvas().then(next)
    }

    /// Also calls `callback` with the result when this call has succeeded. Celery's `link`.
    pub fn link(self, callback: impl IntoCanvas) -> Canvas<T::Output> {
        self.into_canvas().link(callback)
    }

    /// Calls `errback` with the id of the task when it fails for good. Celery's `on_error` and `link_error`.
    pub fn link_error(self, errback: impl IntoCanvas) -> Canvas<T::Output> {
        self.into_canvas().link_error(errback)
    }
}

impl Node {
    fn stamp(&mut self, name: &str, value: &Json) {
        match &mut self.kind {
            NodeKind::Task { .. } => {
                self.options.set(name, value.clone());
                let known = self.options.plain.get("stamped_headers").and_then(|names| names.as_array());
                let mut names = known.cloned().unwrap_or_default();
                if !names.iter().any(|known| known == name) {
                    names.push(name.into());
                    self.options.set("stamped_headers", names);
                }
            }
            NodeKind::Chain(nodes) | NodeKind::Group(nodes) => {
                nodes.iter_mut().for_each(|n| n.stamp(name, value))
            }
            NodeKind::Chord(chord) => {
                chord.header.stamp(name, value);
                chord.body.stamp(name, value);
            }
        }
        for link in self.options.link.iter_mut().chain(&mut self.options.link_error) {
            link.stamp(name, value);
        }
    }
}

/// A canvas that has not been sent. Nothing happens until it is awaited or [waited](Self::wait) for.
#[must_use = "nothing is sent until this is awaited"]
pub struct Launching<O> {
    canvas: Canvas<O>,
    client: Option<Arc<dyn Client>>,
    /// The running member of a chord to which the canvas is added, and the number of the addition.
    member_of: Option<(Arc<Message>, u32)>,
}

impl<O> Launching<O> {
    async fn run(self) -> Result<CanvasResult<O>, EnqueueError> {
        let Self { canvas, client, member_of } = self;
        let client = match client {
            Some(client) => client,
            None => current().ok_or(EnqueueError::NotRunning)?,
        };
        let canvas = canvas.into_raw()?;
        #[cfg(feature = "otel")]
        let task = canvas.task.clone();
        let sent = async {
            match &member_of {
                Some((member, nth)) => client.add_to_chord(member, canvas, *nth).await,
                None => client.launch(canvas).await,
            }
        };
        #[cfg(feature = "otel")]
        let sent = sending(&task, sent, |promise| Some(promise.id.to_string()));
        let promise = sent.await?;
        Ok(CanvasResult::new(promise, client))
    }

    /// Sends the canvas from code that is not asynchronous, and blocks until it is accepted.
    ///
    /// # Errors
    /// See [`EnqueueError`].
    ///
    /// # Panics
    /// The current thread drives asynchronous tasks. Use `.await` there.
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
