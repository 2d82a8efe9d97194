//! The callers' side of a runtime: the client, receipts, and the results to come.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::canvas::Promise;
use super::{
    Arguments, CommitTableError, Durability, Headers, Json, Message, RawSignature, SerialHeader, State, Task,
    TaskId, TaskOptions, TaskResult, TrackedState, Unique, UntypedResult,
};
use crate::core::Timestamp;

/// A call as the caller asked for it, before the runtime fills in the rest.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NewTask {
    /// The name of the task that is called.
    pub task: String,
    /// The encoded arguments of the call.
    pub arguments: Arguments,
    /// The options of the task, with those of the call in their place where the call states any.
    pub options: TaskOptions,
    /// The id that the caller has chosen, if any.
    pub id: Option<TaskId>,
    /// The time from now before which the task must not start.
    pub countdown: Option<Duration>,
    /// The time before which the task must not start. It takes precedence over `countdown`.
    pub eta: Option<Timestamp>,
    /// The time after which the task must not start any more. It takes precedence over `options.expires`.
    pub expires_at: Option<Timestamp>,
    /// The number of attempts that count as failed already: Celery's `apply_async(retries=…)`.
    pub retries: u32,
    /// The headers that the application gives to the call.
    pub headers: Headers,
    /// The lane that the task is to stand in. With `None` the task's own rule decides, if this program knows the task.
    pub serial: Option<Box<SerialHeader>>,
    /// The unique window of the call; a window of length 0 is none. With `None` the task's own rule decides, if this
    /// program knows the task.
    pub unique: Option<Box<Unique>>,
}

impl NewTask {
    /// A call of the named task, without arguments so far.
    pub fn new(task: impl Into<String>, options: TaskOptions) -> Self {
        Self {
            task: task.into(),
            arguments: Arguments::default(),
            options,
            id: None,
            countdown: None,
            eta: None,
            expires_at: None,
            retries: 0,
            headers: Headers::default(),
            serial: None,
            unique: None,
        }
    }
}

/// The proof that a task was accepted, and what was promised for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Receipt {
    /// The id of the task that was enqueued.
    pub id: TaskId,
    /// The physical name of the queue that holds the task.
    pub queue: String,
    /// The durability of the task by now. `Disk`: it is synced to disk. `Memory`: it lives as long as the process.
    pub durability: Durability,
    /// The place that has taken the task.
    pub keeper: AcceptedBy,
    /// Whether the call joined an earlier one in place of making a new task. Then `id` is that of the earlier task,
    /// which does the same work: the two are the same by their unique window (`unique_for`), or the earlier one waits
    /// in the lane (`newcomer = "skip"`).
    pub joined: bool,
}

/// The place that has taken a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum AcceptedBy {
    /// The broker has the task, and workers can see it.
    #[default]
    Broker,
    /// The outbox of this process has the task, because the broker is away. The outbox forwards the task when the
    /// broker is back.
    Outbox,
}

impl Receipt {
    /// Makes a receipt. It is meant for implementations of [`Client`].
    pub fn new(id: TaskId, queue: String, durability: Durability) -> Self {
        Self { id, queue, durability, keeper: AcceptedBy::Broker, joined: false }
    }

    /// Makes the same receipt, of a task that `keeper` has taken.
    #[must_use]
    pub fn kept_by(mut self, keeper: AcceptedBy) -> Self {
        self.keeper = keeper;
        self
    }

    /// Makes the same receipt, of a call that joined the task `id` in place of making a new one.
    #[must_use]
    pub fn joining(mut self, id: TaskId) -> Self {
        (self.id, self.joined) = (id, true);
        self
    }
}

/// The reason why a task was not accepted. Nothing was enqueued, unless the text says that this is not known.
#[derive(Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum EnqueueError {
    /// No runtime runs in this program.
    #[error(
        "no Celeriac runs in this program: call `Celeriac::builder()...start().await` first, or use `.send(&handle)`"
    )]
    NotRunning,
    /// The runtime is shutting down.
    #[error("the runtime is shutting down and takes no new tasks")]
    ShuttingDown,
    /// An argument, a header or an option has no form in JSON. The text of the last two names them.
    #[error("the arguments of `{task}` have no form in JSON: {error}")]
    Arguments {
        /// The task's name.
        task: String,
        /// The error of serde.
        error: String,
    },
    /// The arguments are too large.
    #[error(
        "the arguments of `{task}` take {size} bytes, the limit is {limit}: store the object, pass its id, and let the task fetch it"
    )]
    TooLarge {
        /// The task's name.
        task: String,
        /// The size of the arguments in bytes.
        size: usize,
        /// The largest size allowed (`max_message_size`), in bytes.
        limit: usize,
    },
    /// The headers, or other parts of the call beside its arguments, are too large.
    #[error(
        "the headers of `{task}` take {size} bytes, the limit is {limit}: a header is for a name or an id, so store what is large, and let the task fetch it"
    )]
    HeadersTooLarge {
        /// The task's name.
        task: String,
        /// The size of the headers in bytes.
        size: usize,
        /// The largest size allowed (`max_message_size`), in bytes.
        limit: usize,
    },
    /// The name of a header or a stamp, or a property of the message, is not usable.
    #[error("`{task}` cannot be sent: {what}")]
    Name {
        /// The task's name.
        task: String,
        /// What is wrong with which name.
        what: String,
    },
    /// The catalogue has no such queue.
    #[error("`{task}` goes to queue `{queue}`, which is not in the catalogue{hint}")]
    UnknownQueue {
        /// The task's name.
        task: String,
        /// The queue that was asked for.
        queue: String,
        /// The text "; did you mean ...", or an empty text.
        hint: String,
    },
    /// The id is not usable.
    #[error("the task id has {len} bytes; an id has 1 to 255")]
    BadId {
        /// The length of the id in bytes.
        len: usize,
    },
    /// Another task has this id.
    #[error(
        "a task of id `{id}` waits, runs or has its result kept, or two calls that are made together have this id; take another id, or forget that result first"
    )]
    DuplicateId {
        /// The id that was asked for.
        id: TaskId,
    },
    /// The disk of the store is full.
    #[error(
        "the store takes no new tasks: {reason}; nothing was enqueued. It goes on by itself when there is room"
    )]
    StorageFull {
        /// The disk and how much room is left on it.
        reason: String,
    },
    /// The broker refuses the message for good, as it is.
    #[error("the broker refuses the task for good: {reason}; nothing was enqueued")]
    Refused {
        /// The reason that the broker gives.
        reason: String,
    },
    /// The key of a serial task, or of a unique window, could not be made from the arguments.
    #[error("`{task}` has a key, and it cannot be made: {error}")]
    NoKey {
        /// The task's name.
        task: String,
        /// What is wrong with the arguments.
        error: String,
    },
    /// The name of the task's tenant is not usable.
    #[error("`{task}` cannot be sent: {what}")]
    Tenant {
        /// The task's name.
        task: String,
        /// What is wrong with which name.
        what: String,
    },
    /// The task is serial, and the broker keeps no lanes.
    #[error(
        "`{task}` is serial, and the broker `{broker}` keeps no lanes: its runs could overlap. Give the program a result backend in Redis, where they are kept for RabbitMQ, or keep the task on the embedded broker"
    )]
    NoLanes {
        /// The task's name.
        task: String,
        /// The broker's name.
        broker: Cow<'static, str>,
    },
    /// The call has a unique window, and neither the broker nor the store keeps such windows.
    #[error(
        "`{task}` has a unique window (`unique_for`), and neither the broker `{broker}` nor the result store can say who came first: keep results in Redis, with `.result_backend(\"redis://…\")`, or take the embedded broker"
    )]
    NoWindows {
        /// The task's name.
        task: String,
        /// The broker's name.
        broker: Cow<'static, str>,
    },
    /// The call names an exchange, and the broker has none.
    #[error(
        "`{task}` goes to an exchange, and the broker `{broker}` has none: take `exchange` and `routing_key` away and name a queue, or use RabbitMQ"
    )]
    NoExchanges {
        /// The task's name.
        task: String,
        /// The broker's name.
        broker: Cow<'static, str>,
    },
    /// The queue is a broadcast, and the call needs one run or one end.
    #[error("`{task}` goes to the broadcast `{queue}`, which every process that serves it runs, but {what}")]
    Broadcast {
        /// The task's name.
        task: String,
        /// The queue.
        queue: String,
        /// What the call needs, and what to do.
        what: Cow<'static, str>,
    },
    /// The store could not say whether the call is a duplicate.
    #[error("whether `{task}` is a duplicate is not known, and nothing was enqueued: {error}")]
    Window {
        /// The task's name.
        task: String,
        /// The error of the store.
        error: String,
    },
    /// The canvas cannot be sent as it is, for the reason in the text.
    #[error("the canvas cannot be sent: {0}")]
    Canvas(String),
    /// The store that counts the members of chords did not do its part, for the reason in the text. That passes by
    /// itself, or when somebody has repaired the store.
    #[error("the canvas cannot be sent now: {0}")]
    Chord(String),
    /// The broker failed, for the reason in the text.
    #[error("the broker could not take the task: {0}")]
    Broker(String),
    /// The call could not be written into the commit table.
    #[error(transparent)]
    CommitTable(#[from] CommitTableError),
    /// The task was accepted and run at once, and did not succeed. This happens in eager mode only (the feature
    /// `testing`).
    #[error("`{task}` was run at once and is {state}: {}", .errors.join("; "))]
    Ran {
        /// The task's name.
        task: String,
        /// The task's id; its record says more.
        id: TaskId,
        /// The state in which the task ended.
        state: State,
        /// The reasons why it did not succeed.
        errors: Vec<String>,
    },
}

crate::core::debug_as_display!(EnqueueError);

impl EnqueueError {
    /// Whether the runtime would refuse the same call each time, because of what the call says or because nobody could
    /// take it. Then trying again helps only if the call or the program has changed.
    pub fn is_permanent(&self) -> bool {
        !matches!(
            self,
            Self::NotRunning
                | Self::ShuttingDown
                | Self::StorageFull { .. }
                | Self::Window { .. }
                | Self::Chord(_)
                | Self::Broker(_)
                | Self::CommitTable(CommitTableError::Failed(_))
        )
    }
}

/// The reason why a result has no value.
#[derive(Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum GetError {
    /// The task was not over within the time that the caller waited.
    #[error("task {id} was not over after {waited:?}")]
    Timeout {
        /// The task's id.
        id: TaskId,
        /// The time that the caller waited.
        waited: Duration,
    },
    /// Nobody knows the id: the task was never accepted here, or its result was not kept, was forgotten or has expired.
    #[error(
        "no task of id `{0}` waits, runs or left a result: it was never accepted here, or its result was not kept, was forgotten, or has expired"
    )]
    Unknown(TaskId),
    /// The task keeps no result (`ignore_result`), so there is nothing to wait for.
    #[error("task {0} keeps no result: it, or its call, says `ignore_result`")]
    NotKept(TaskId),
    /// The task ended without a value; its record says how.
    #[error("task {} ended as {}: {}", .0.id, .0.state, .0.errors.join(": "))]
    Ended(Box<TaskResult>),
    /// The value does not decode as the type asked for.
    #[error("the result of task {id} does not decode: {error}")]
    Decode {
        /// The task's id.
        id: TaskId,
        /// The error of serde.
        error: String,
    },
    /// The runtime shut down before the task was over.
    #[error(
        "the runtime has shut down before task {0} was over; a durable task goes on when it is started again"
    )]
    ShutDown(TaskId),
    /// Nobody who has answered has the task, and some queues have not answered within a second: a task blocks their event
    /// loop, as a rule, or their actor is being restarted. A revocation takes effect when they come to it.
    #[error(
        "nobody has task {id} of those that have answered, and queue `{queues}` does not answer within a second"
    )]
    NotAnswering {
        /// The task's id.
        id: TaskId,
        /// The names of the queues.
        queues: String,
    },
    /// The store failed, for the reason in the text.
    #[error("the store could not be read: {0}")]
    Store(String),
    /// Nothing is left to run, and the task is not over. This happens only in a test with a clock of its own (the
    /// feature `testing`).
    #[error("task {id} is {state}, and nothing is due: {next}")]
    Idle {
        /// The task's id.
        id: TaskId,
        /// The task's state.
        state: State,
        /// What would happen next, and when.
        next: String,
    },
}

crate::core::debug_as_display!(GetError);

/// The functions that a runtime offers to callers. [`Celeriac`](crate::Celeriac) implements it; the testing kit and
/// other runtimes do so too.
#[async_trait]
pub trait Client: Send + Sync + 'static {
    /// Accepts a task. The call is boxed, because it is large and goes from hand to hand.
    async fn enqueue(&self, call: Box<NewTask>) -> Result<Receipt, EnqueueError>;
    /// Accepts several calls, and answers with their receipts in the order of the calls. A client that cannot take them
    /// together takes one after the other, and stops at the first that it refuses.
    async fn enqueue_many(&self, calls: Vec<NewTask>) -> Result<Vec<Receipt>, EnqueueError> {
        let mut receipts = Vec::with_capacity(calls.len());
        for call in calls {
            receipts.push(self.enqueue(Box::new(call)).await?);
        }
        Ok(receipts)
    }
    /// Finds what is wrong with a call that is made when a transaction commits, before it is written into the commit
    /// table. A client that cannot tell finds nothing.
    fn check(&self, _call: &NewTask) -> Result<(), EnqueueError> {
        Ok(())
    }
    /// Sends a canvas: gives ids to its tasks, sends those that run first, and says where the result will be.
    async fn launch(&self, _canvas: RawSignature) -> Result<Promise, EnqueueError> {
        Err(EnqueueError::Canvas("this client knows single tasks only".to_owned()))
    }
    /// Sends a canvas as one more member of the chord that `member` is in; it is the `nth` that this run of `member`
    /// adds.
    async fn add_to_chord(
        &self,
        _member: &Message,
        _canvas: RawSignature,
        _nth: u32,
    ) -> Result<Promise, EnqueueError> {
        Err(EnqueueError::Canvas("this client knows no chords".to_owned()))
    }
    /// The state of a task.
    async fn state(&self, id: &TaskId) -> Result<State, GetError>;
    /// The record of a task, if the task is over and its record was kept.
    async fn result(&self, id: &TaskId) -> Result<Option<TaskResult>, GetError>;
    /// The last reported state of a task that is not over, with its data.
    async fn tracked(&self, _id: &TaskId) -> Result<Option<TrackedState>, GetError> {
        Ok(None)
    }
    /// Waits until a task is over, without polling. An id that nobody knows is an error at once.
    async fn wait(&self, id: &TaskId) -> Result<TaskResult, GetError>;
    /// Waits until a task is over that may not have been sent yet, because it follows from another task.
    async fn expect(&self, id: &TaskId) -> Result<TaskResult, GetError> {
        self.wait(id).await
    }
    /// Takes a task out of its queue, or, with `terminate`, ends the task if it runs. Answers whether there was
    /// anything to revoke.
    async fn revoke(&self, id: &TaskId, terminate: bool) -> Result<bool, GetError>;
    /// Deletes the record of a task that is over. Answers whether there was one.
    async fn forget(&self, id: &TaskId) -> Result<bool, GetError>;
    /// Saves the members of a group, for `lifetime` or else for as long as results are kept.
    async fn save_group(&self, _group: &Promise, _lifetime: Option<Duration>) -> Result<(), GetError> {
        Err(GetError::Store("this client keeps no groups".to_owned()))
    }
}

/// The clients that were installed and not uninstalled, in the order of their installation.
static INSTALLED: RwLock<Vec<Arc<dyn Client>>> = RwLock::new(Vec::new());

/// The client that `delay` uses: that of the runtime which was started last and still runs; inside a test, that of the
/// test.
pub fn current() -> Option<Arc<dyn Client>> {
    #[cfg(feature = "testing")]
    if let Some(client) = super::scope::here().and_then(|scope| scope.client.upgrade()) {
        return Some(client);
    }
    INSTALLED.read().last().cloned()
}

/// Makes `client` the one that `delay` uses, until it is [uninstalled](uninstall) or another one is installed.
pub fn install(client: Arc<dyn Client>) {
    INSTALLED.write().push(client);
}

/// Removes `client` from those that `delay` may use. Then `delay` uses the one installed before it.
pub fn uninstall(client: &Arc<dyn Client>) {
    INSTALLED.write().retain(|other| !Arc::ptr_eq(other, client));
}

/// A task that was enqueued: its receipt and, in time, its result. Celery's `AsyncResult`.
pub struct AsyncResult<T: Task> {
    receipt: Receipt,
    /// Whether the call said `ignore_result`, so that no result will ever come.
    ignored: bool,
    client: Arc<dyn Client>,
    task: PhantomData<fn() -> T>,
}

impl<T: Task> AsyncResult<T> {
    pub(crate) fn new(receipt: Receipt, ignored: bool, client: Arc<dyn Client>) -> Self {
        Self { receipt, ignored, client, task: PhantomData }
    }

    /// Returns the id of the task.
    pub fn id(&self) -> &TaskId {
        &self.receipt.id
    }

    /// The receipt of the enqueue.
    pub fn receipt(&self) -> &Receipt {
        &self.receipt
    }

    /// The state of the task now.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn state(&self) -> Result<State, GetError> {
        self.client.state(self.id()).await
    }

    /// Whether the task is over and has succeeded. Celery's `successful`.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn successful(&self) -> Result<bool, GetError> {
        Ok(self.state().await? == State::Success)
    }

    /// The record of the task, if the task is over and its record was kept.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn result(&self) -> Result<Option<TaskResult>, GetError> {
        self.client.result(self.id()).await
    }

    /// The last state that the task reported before its end (STARTED, RETRY, or one of the application's such as
    /// PROGRESS), with its data. This program itself may know of a later state: see [`state`](Self::state).
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn tracked(&self) -> Result<Option<TrackedState>, GetError> {
        self.client.tracked(self.id()).await
    }

    /// The data that belongs to the state: the last report of a task that is not over, the value of a task that
    /// succeeded, or the errors of a task that failed. Celery's `info`.
    ///
    /// # Errors
    /// The store could not be read, or the value does not decode.
    pub async fn info(&self) -> Result<Option<Json>, GetError> {
        self.untyped().info().await
    }

    /// Makes the same result without the type of the task.
    pub fn untyped(&self) -> UntypedResult {
        UntypedResult::new(self.id().clone(), Arc::clone(&self.client))
    }

    /// Waits up to `timeout` for the value.
    ///
    /// # Errors
    /// The task was not over in time, ended without a value, or is unknown; see [`GetError`].
    pub async fn get(&self, timeout: Duration) -> Result<T::Output, GetError> {
        let id = self.id();
        if self.ignored {
            return Err(GetError::NotKept(id.clone()));
        }
        self.untyped().get(timeout).await
    }

    /// Takes the task out of its queue. If the task runs already, `terminate` tells the run to end; without `terminate`
    /// the run may go on, but is not tried again. Answers whether there was anything to revoke, when the end of a task
    /// that waited is kept.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn revoke(&self, terminate: bool) -> Result<bool, GetError> {
        self.client.revoke(self.id(), terminate).await
    }

    /// Deletes the record. Answers whether there was one.
    ///
    /// # Errors
    /// The store could not be written.
    pub async fn forget(&self) -> Result<bool, GetError> {
        self.client.forget(self.id()).await
    }
}

impl<T: Task> Clone for AsyncResult<T> {
    fn clone(&self) -> Self {
        Self::new(self.receipt.clone(), self.ignored, Arc::clone(&self.client))
    }
}

impl<T: Task> fmt::Debug for AsyncResult<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncResult").field("task", &T::NAME).field("receipt", &self.receipt).finish()
    }
}
