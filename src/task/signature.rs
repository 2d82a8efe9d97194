//! A call that has not been made yet: a task, its arguments and the options of this one call.

use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::client::NewTask;
use super::{Arguments, AsyncResult, Client, Durability, EnqueueError, Task, TaskId, current};
use crate::core::Timestamp;

/// A task with its arguments and the options of one call; Celery's signature.
///
/// ```no_run
/// # use celeriac::task;
/// # use std::time::Duration;
/// #[task]
/// async fn send_email(user: u64) {}
///
/// # async fn demo() -> Result<(), celeriac::EnqueueError> {
/// send_email::s(42).queue("slow_queue").countdown(Duration::from_secs(60)).priority(5).delay().await?;
/// # Ok(()) }
/// # fn main() {}
/// ```
#[must_use = "a signature does nothing until `.delay()` is awaited"]
pub struct Signature<T: Task> {
    call: NewTask,
    arguments: Result<Arguments, String>,
    task: PhantomData<fn() -> T>,
}

impl<T: Task> Clone for Signature<T> {
    fn clone(&self) -> Self {
        Self { call: self.call.clone(), arguments: self.arguments.clone(), task: PhantomData }
    }
}

impl<T: Task> Signature<T> {
    /// A call with these arguments; `task::s(..)` is the typed way to it.
    pub fn new(args: &T::Args) -> Self {
        let arguments = Arguments::encode(args).map_err(|e| e.to_string());
        Self { call: NewTask::new(T::NAME, T::options()), arguments, task: PhantomData }
    }

    /// Into this queue instead of the task's own.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.call.options.queue = Some(queue.into());
        self
    }

    /// Not before this long from the enqueue.
    pub fn countdown(mut self, delay: Duration) -> Self {
        self.call.countdown = Some(delay);
        self
    }

    /// Not before this time.
    pub fn eta(mut self, eta: impl Into<Timestamp>) -> Self {
        self.call.eta = Some(eta.into());
        self
    }

    /// Not started this long after the enqueue: revoked.
    pub fn expires(mut self, after: Duration) -> Self {
        self.call.options.expires = Some(after);
        self.call.expires_at = None;
        self
    }

    /// Not started by this time: revoked.
    pub fn expires_at(mut self, time: impl Into<Timestamp>) -> Self {
        self.call.expires_at = Some(time.into());
        self
    }

    /// With an id of the caller's. While a task of that id waits, runs, or has its result kept, a second one is
    /// refused ([`EnqueueError::DuplicateId`]).
    pub fn id(mut self, id: impl Into<TaskId>) -> Self {
        self.call.id = Some(id.into());
        self
    }

    /// 0 to 255, higher goes first.
    pub fn priority(mut self, priority: u8) -> Self {
        self.call.options.priority = priority;
        self
    }

    /// Hard limit on each run.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.call.options.time_limit = Some(limit);
        self
    }

    /// Soft limit on each run.
    pub fn soft_time_limit(mut self, limit: Duration) -> Self {
        self.call.options.soft_time_limit = Some(limit);
        self
    }

    /// How many times a failed attempt is tried again.
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.call.options.retry.max_retries = retries;
        self
    }

    /// A header that travels with the task; small JSON values.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.call.headers.0.insert(name.into(), value.into());
        self
    }

    /// Keep no result of this call.
    pub fn ignore_result(mut self, ignore: bool) -> Self {
        self.call.options.ignore_result = ignore;
        self
    }

    /// Where this call waits: on disk or in memory.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.call.options.durability = durability;
        self
    }

    /// Enqueues with the program's running [`Celeriac`](crate::Celeriac). Await it, or block on it with
    /// [`Enqueue::wait`].
    pub fn delay(self) -> Enqueue<T> {
        Enqueue { signature: self, client: None }
    }

    /// Enqueues with this handle, for programs that run more than one.
    pub fn send(self, client: impl Into<Arc<dyn Client>>) -> Enqueue<T> {
        Enqueue { signature: self, client: Some(client.into()) }
    }

    pub(crate) fn into_arguments(self) -> Result<Arguments, String> {
        self.arguments
    }
}

/// An enqueue under way. Nothing happens until it is awaited or [waited](Self::wait) for.
#[must_use = "nothing is enqueued until this is awaited"]
pub struct Enqueue<T: Task> {
    signature: Signature<T>,
    client: Option<Arc<dyn Client>>,
}

impl<T: Task> Enqueue<T> {
    async fn run(self) -> Result<AsyncResult<T>, EnqueueError> {
        let client = match self.client {
            Some(client) => client,
            None => current().ok_or(EnqueueError::NotRunning)?,
        };
        let mut call = self.signature.call;
        call.arguments = self
            .signature
            .arguments
            .map_err(|error| EnqueueError::Arguments { task: T::NAME.to_owned(), error })?;
        let receipt = client.enqueue(call).await?;
        Ok(AsyncResult::new(receipt, client))
    }

    /// Enqueues from a thread that is not asynchronous, and blocks until the receipt is there.
    ///
    /// # Errors
    /// See [`EnqueueError`].
    ///
    /// # Panics
    /// When called on a thread that drives asynchronous tasks: there, `.await` it.
    pub fn wait(self) -> Result<AsyncResult<T>, EnqueueError> {
        assert!(
            tokio::runtime::Handle::try_current().is_err(),
            "Enqueue::wait would block an asynchronous thread; use `.await` there"
        );
        futures_executor::block_on(self.run())
    }
}

impl<T: Task> IntoFuture for Enqueue<T> {
    type Output = Result<AsyncResult<T>, EnqueueError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}
