//! What a caller holds: the way to a running runtime, receipts, and the results to come.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;

use super::canvas::Promise;
use super::{
    Arguments, Durability, Headers, Message, RawSignature, Serial, State, Task, TaskId, TaskOptions,
    TaskResult, TrackedState, Unique, UntypedResult,
};
use crate::core::Timestamp;

/// A call as the caller asked for it, before the runtime fills in the rest.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewTask {
    /// The task's name.
    pub task: String,
    /// Encoded arguments.
    pub arguments: Arguments,
    /// The task's options, with the call's own on top.
    pub options: TaskOptions,
    /// The caller's id.
    pub id: Option<TaskId>,
    /// Not before this long from now.
    pub countdown: Option<Duration>,
    /// Not before this time; wins over `countdown`.
    pub eta: Option<Timestamp>,
    /// Not after this time; wins over `options.expires`.
    pub expires_at: Option<Timestamp>,
    /// The application's headers.
    pub headers: Headers,
    /// The lane that it is to stand in. `None`: what its task says, if that is known here.
    pub serial: Option<Box<Serial>>,
    /// Its dedupe window; one of length 0 is none. `None`: what its task says, if that is known here.
    pub unique: Option<Box<Unique>>,
}

impl NewTask {
    /// A call of the named task, without arguments yet.
    pub fn new(task: impl Into<String>, options: TaskOptions) -> Self {
        Self {
            task: task.into(),
            arguments: Arguments::default(),
            options,
            id: None,
            countdown: None,
            eta: None,
            expires_at: None,
            headers: Headers::default(),
            serial: None,
            unique: None,
        }
    }
}

/// Proof that a task was accepted, and what that means.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The task's id.
    pub id: TaskId,
    /// The queue that holds it (the physical one).
    pub queue: String,
    /// `Disk`: it is synced to disk by now. `Memory`: it lives as long as the process.
    pub durability: Durability,
    /// Who has it by now.
    pub keeper: Keeper,
    /// `true`: the call was left out, because the task of this id does its work: it is the same by its dedupe window
    /// (`unique_for`), or waits in its lane already (`newcomer = "skip"`).
    pub joined: bool,
}

/// Who has taken a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Keeper {
    /// The broker: workers can see it.
    #[default]
    Broker,
    /// The outbox of this process, because the broker is away: it is forwarded when the broker is back.
    Outbox,
}

impl Receipt {
    /// A receipt; for those who write a [`Client`].
    pub fn new(id: TaskId, queue: String, durability: Durability) -> Self {
        Self { id, queue, durability, keeper: Keeper::Broker, joined: false }
    }

    /// The same, taken by `keeper`.
    #[must_use]
    pub fn kept_by(mut self, keeper: Keeper) -> Self {
        self.keeper = keeper;
        self
    }

    /// The same for a call that was left out, because the task of this id will do its work.
    #[must_use]
    pub fn joining(mut self, id: TaskId) -> Self {
        (self.id, self.joined) = (id, true);
        self
    }
}

/// Why a task was not accepted. Nothing was enqueued, unless the text says that it is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnqueueError {
    /// No runtime.
    #[error(
        "no Celeriac runs in this program: call `Celeriac::builder()...start().await` first, or use `.send(&handle)`"
    )]
    NotRunning,
    /// It is shutting down.
    #[error("the runtime is shutting down and takes no new tasks")]
    ShuttingDown,
    /// An argument has no form in JSON.
    #[error("the arguments of `{task}` have no form in JSON: {error}")]
    Arguments {
        /// The task.
        task: String,
        /// What serde said.
        error: String,
    },
    /// Too large.
    #[error(
        "the arguments of `{task}` take {size} bytes, the limit is {limit}: store the object, pass its id, and let the task fetch it"
    )]
    TooLarge {
        /// The task.
        task: String,
        /// How large they are, in bytes.
        size: usize,
        /// `max_message_size`, in bytes.
        limit: usize,
    },
    /// No such queue.
    #[error("`{task}` goes to queue `{queue}`, which is not in the catalogue{hint}")]
    UnknownQueue {
        /// The task.
        task: String,
        /// The queue asked for.
        queue: String,
        /// "; did you mean ..." or nothing.
        hint: String,
    },
    /// An id that is not usable.
    #[error("the task id has {len} bytes; an id has 1 to 255")]
    BadId {
        /// Its length.
        len: usize,
    },
    /// The id is taken.
    #[error(
        "a task of id `{id}` waits, runs or has its result kept; take another id, or forget that result first"
    )]
    DuplicateId {
        /// The id.
        id: TaskId,
    },
    /// The disk is full.
    #[error(
        "the store takes no new tasks: {reason}; nothing was enqueued. It goes on by itself when there is room"
    )]
    StorageFull {
        /// How much is left, where.
        reason: String,
    },
    /// The key of a serial task, or of a dedupe window, could not be made.
    #[error("`{task}` has a key, and it cannot be made: {error}")]
    NoKey {
        /// The task.
        task: String,
        /// What is wrong with the arguments.
        error: String,
    },
    /// The broker has no lanes.
    #[error(
        "`{task}` is serial, and the broker `{broker}` keeps no lanes: its runs could overlap. Give the program a result backend in Redis, where they are kept for RabbitMQ, or keep the task on the embedded broker"
    )]
    NoLanes {
        /// The task.
        task: String,
        /// The broker.
        broker: &'static str,
    },
    /// Nobody keeps dedupe windows.
    #[error(
        "`{task}` has a dedupe window (`unique_for`), and neither the broker `{broker}` nor the result store can say who came first: keep results in Redis, with `.result_backend(\"redis://…\")`, or take the embedded broker"
    )]
    NoWindows {
        /// The task.
        task: String,
        /// The broker.
        broker: &'static str,
    },
    /// Whether it is a duplicate is not known.
    #[error("whether `{task}` is a duplicate is not known, and nothing was enqueued: {error}")]
    Window {
        /// The task.
        task: String,
        /// What the store said.
        error: String,
    },
    /// A canvas that cannot be sent.
    #[error("the canvas cannot be sent: {0}")]
    Canvas(String),
    /// The broker failed.
    #[error("the broker could not take the task: {0}")]
    Broker(String),
    /// Only in eager mode (the feature `testing`): it was accepted and run at once, and came to no good end.
    #[error("`{task}` was run at once and is {state}: {}", .errors.join("; "))]
    Ran {
        /// The task.
        task: String,
        /// Its id; its record says more.
        id: TaskId,
        /// How it ended.
        state: State,
        /// Why.
        errors: Vec<String>,
    },
}

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GetError {
    /// Still not over.
    #[error("task {id} was not over after {waited:?}")]
    Timeout {
        /// Whose.
        id: TaskId,
        /// How long was waited.
        waited: Duration,
    },
    /// Nobody knows the id: it was never accepted here, or its result was not kept, forgotten or has expired.
    #[error(
        "no task of id `{0}` waits, runs or left a result: it was never accepted here, or its result was not kept, was forgotten, or has expired"
    )]
    Unknown(TaskId),
    /// The task keeps no result (`ignore_result`), so there is nothing to wait for.
    #[error("task {0} keeps no result: it, or its call, says `ignore_result`")]
    NotKept(TaskId),
    /// It ended without a value; the record says how.
    #[error("task {} ended as {}: {}", .0.id, .0.state, .0.errors.join(": "))]
    Ended(Box<TaskResult>),
    /// The value is not of the task's return type.
    #[error("the result of task {id} does not decode: {error}")]
    Decode {
        /// Whose.
        id: TaskId,
        /// What serde said.
        error: String,
    },
    /// The runtime has shut down before the task was over.
    #[error(
        "the runtime has shut down before task {0} was over; a durable task goes on when it is started again"
    )]
    ShutDown(TaskId),
    /// The store failed.
    #[error("the store could not be read: {0}")]
    Store(String),
    /// Only in a test with a clock of its own (the feature `testing`): nothing is left to run, and the task is not over.
    #[error("task {id} is {state}, and nothing is due: {next}")]
    Idle {
        /// Whose.
        id: TaskId,
        /// Its state.
        state: State,
        /// What would happen next.
        next: String,
    },
}

/// What a runtime does for callers. [`Celeriac`](crate::Celeriac) implements it; the testing kit and other
/// runtimes may as well.
#[async_trait]
pub trait Client: Send + Sync + 'static {
    /// Accepts a task.
    async fn enqueue(&self, call: NewTask) -> Result<Receipt, EnqueueError>;
    /// Sends a canvas: gives ids to its tasks, sends what runs first, and says where the result will be.
    async fn launch(&self, _canvas: RawSignature) -> Result<Promise, EnqueueError> {
        Err(EnqueueError::Canvas("this client knows single tasks only".to_owned()))
    }
    /// Sends a canvas as one more member, the `nth` that this run adds, of the chord that `member` is in.
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
    /// The record of a task that is over, if it is and was kept.
    async fn result(&self, id: &TaskId) -> Result<Option<TaskResult>, GetError>;
    /// The last state that a task which is not over was said to be in, with what goes with it.
    async fn tracked(&self, _id: &TaskId) -> Result<Option<TrackedState>, GetError> {
        Ok(None)
    }
    /// Waits until a task is over, without polling. An id that nobody knows is an error at once.
    async fn wait(&self, id: &TaskId) -> Result<TaskResult, GetError>;
    /// Waits until a task is over that may not have been sent yet, because it follows from another one.
    async fn expect(&self, id: &TaskId) -> Result<TaskResult, GetError> {
        self.wait(id).await
    }
    /// Takes a task out of its queue; with `terminate`, ends it if it runs.
    async fn revoke(&self, id: &TaskId, terminate: bool) -> Result<bool, GetError>;
    /// Deletes the record of a task that is over; says whether there was one.
    async fn forget(&self, id: &TaskId) -> Result<bool, GetError>;
    /// Keeps who the members of a group are, for so long, or as long as results are kept.
    async fn save_group(&self, _group: &Promise, _lifetime: Option<Duration>) -> Result<(), GetError> {
        Err(GetError::Store("this client keeps no groups".to_owned()))
    }
}

/// Those that were installed and not uninstalled, in that order.
static INSTALLED: RwLock<Vec<Arc<dyn Client>>> = RwLock::new(Vec::new());

/// The runtime that `delay` uses: the one that was started last and still runs; inside of a test, its own.
pub fn current() -> Option<Arc<dyn Client>> {
    #[cfg(feature = "testing")]
    if let Some(client) = super::scope::here().and_then(|scope| scope.client.upgrade()) {
        return Some(client);
    }
    INSTALLED.read().unwrap_or_else(PoisonError::into_inner).last().cloned()
}

/// Makes `client` the one that `delay` uses, until it is [uninstalled](uninstall) or another is installed.
pub fn install(client: Arc<dyn Client>) {
    INSTALLED.write().unwrap_or_else(PoisonError::into_inner).push(client);
}

/// Takes `client` out of those that `delay` may use; the one before it is used again.
pub fn uninstall(client: &Arc<dyn Client>) {
    INSTALLED.write().unwrap_or_else(PoisonError::into_inner).retain(|other| !Arc::ptr_eq(other, client));
}

/// A task that was enqueued: its receipt and, in time, its result. Celery's `AsyncResult`.
pub struct AsyncResult<T: Task> {
    receipt: Receipt,
    /// The call said `ignore_result`: there is nothing to wait for.
    ignored: bool,
    client: Arc<dyn Client>,
    task: PhantomData<fn() -> T>,
}

impl<T: Task> AsyncResult<T> {
    pub(crate) fn new(receipt: Receipt, ignored: bool, client: Arc<dyn Client>) -> Self {
        Self { receipt, ignored, client, task: PhantomData }
    }

    /// The task's id.
    pub fn id(&self) -> &TaskId {
        &self.receipt.id
    }

    /// What the enqueue was promised.
    pub fn receipt(&self) -> &Receipt {
        &self.receipt
    }

    /// The state now.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn state(&self) -> Result<State, GetError> {
        self.client.state(self.id()).await
    }

    /// Whether it is over and has gone well. Celery's `successful`.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn successful(&self) -> Result<bool, GetError> {
        Ok(self.state().await? == State::Success)
    }

    /// The record of the task, if it is over and was kept.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn result(&self) -> Result<Option<TaskResult>, GetError> {
        self.client.result(self.id()).await
    }

    /// The last state that the task, not being over, said it is in (STARTED, RETRY, or one of the application's
    /// such as PROGRESS), with what goes with it. This program itself may know of a later state: see [`state`](Self::state).
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn tracked(&self) -> Result<Option<TrackedState>, GetError> {
        self.client.tracked(self.id()).await
    }

    /// What goes with the state: of a task that is not over what it said last, of one that succeeded its value, of one
    /// that failed its errors. Celery's `info`.
    ///
    /// # Errors
    /// The store could not be read, or the value does not decode.
    pub async fn info(&self) -> Result<Option<serde_json::Value>, GetError> {
        self.untyped().info().await
    }

    /// The same result without the task's type.
    pub fn untyped(&self) -> UntypedResult {
        UntypedResult::new(self.id().clone(), Arc::clone(&self.client))
    }

    /// The value, waiting up to `timeout` for it.
    ///
    /// # Errors
    /// Not over in time, ended without a value, unknown; see [`GetError`].
    pub async fn get(&self, timeout: Duration) -> Result<T::Output, GetError> {
        let id = self.id();
        if self.ignored {
            return Err(GetError::NotKept(id.clone()));
        }
        self.untyped().get(timeout).await
    }

    /// Takes the task out of its queue; if it runs already it is told so with `terminate`, else it may end, but is
    /// not tried again. Says whether there was anything to revoke.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn revoke(&self, terminate: bool) -> Result<bool, GetError> {
        self.client.revoke(self.id(), terminate).await
    }

    /// Deletes the record; says whether there was one.
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
