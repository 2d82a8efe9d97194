//! What a body can ask of its run.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::Notify;

use super::canvas::{IntoCanvas, Launching};
use super::download::{DownloadSink, Exposed};
use super::permit::{HandedOver, Held, RunPermits};
use super::progress::{ProgressCell, ProgressSink};
use super::{
    Arguments, Client, Durability, Headers, Interrupt, Limits, Lineage, Message, Permit, PermitKeeper, State,
    TaskError, TaskId, TrackedState, Want,
};
use crate::core::{RetryPolicy, Timestamp};

/// The run of a task, seen from inside: who it is, which attempt, and whether it is to end. Celery's `self.request`.
///
/// A task takes it as its first parameter, by value or by reference. It is cheap to clone, and may go to other
/// threads.
///
/// ```
/// use celeriac::{Context, task};
/// use celeriac::task::TaskError;
///
/// #[task(soft_time_limit = "30s")]
/// fn rebuild(ctx: &Context, rows: u64) -> Result<u64, TaskError> {
///     for row in 0..rows {
///         ctx.check()?; // ends the run when it should end
///         let _ = row;
///     }
///     Ok(rows)
/// }
/// # fn main() { assert_eq!(rebuild(&Context::detached(), 3).unwrap(), 3); }
/// ```
#[derive(Clone)]
pub struct Context {
    run: Arc<Run>,
}

/// Why a state was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateStateError {
    /// It would end the task.
    #[error("`{0}` is how a task ends: return from the body instead, or use `TaskError::fail`")]
    Final(String),
    /// It is not usable as a name.
    #[error("a state has a name of 1 to 100 bytes, such as PROGRESS; this one has {0}")]
    Name(usize),
    /// What goes with it has no form in JSON.
    #[error("what goes with state `{state}` has no form in JSON: {error}")]
    Meta {
        /// The state.
        state: String,
        /// What serde said.
        error: String,
    },
}

/// Takes the states that bodies report to where others can see them. It must not block.
pub(crate) trait StateSink: Send + Sync {
    fn update(&self, state: TrackedState);
}

/// Where what a body tells goes, and who sends for it. A [detached](Context::detached) context tells nobody.
#[derive(Clone, Default)]
pub(crate) struct Sinks {
    pub(crate) states: Option<Arc<dyn StateSink>>,
    pub(crate) progress: Option<Arc<dyn ProgressSink>>,
    pub(crate) downloads: Option<Arc<dyn DownloadSink>>,
    /// Of the runtime that runs it; `None`: the one that `delay` uses.
    pub(crate) client: Option<Weak<dyn Client>>,
}

pub(crate) struct Run {
    sinks: Sinks,
    /// Its bar, as soon as it tells how far it is.
    progress: OnceLock<Option<Arc<ProgressCell>>>,
    /// What the body has failed with, whatever it does next.
    failure: OnceLock<Vec<String>>,
    pub(super) exposed: Exposed,
    keeper: Option<Arc<dyn PermitKeeper>>,
    /// Of the few runs that have any.
    permits: OnceLock<Box<RunPermits>>,
    /// A state was reported.
    reported: AtomicBool,
    /// How many members it has added to its chord.
    added: AtomicU32,
    message: Arc<Message>,
    /// The broker has delivered it before.
    again: bool,
    worker: Arc<str>,
    fence: Option<u64>,
    interrupt: AtomicU8,
    revocation: AtomicU8,
    told: Notify,
}

// Reasons to end, the stronger one higher: a shutdown may still be followed by a revocation, never the reverse.
const NONE: u8 = 0;
const SOFT: u8 = 1;
const SHUTDOWN: u8 = 2;
const REVOKED: u8 = 3;
const LANE_LOST: u8 = 4;

// Whether the task was revoked while it ran. One place for both, so that a revocation either counts or is told that it
// came too late.
const OPEN: u8 = 0;
const WAS_REVOKED: u8 = 1;
const DECIDED: u8 = 2;

impl Context {
    pub(crate) fn new(message: Arc<Message>, worker: Arc<str>, sinks: Sinks) -> Self {
        Self::fenced(message, worker, sinks, None)
    }

    /// Of a start that bears a token.
    pub(crate) fn fenced(message: Arc<Message>, worker: Arc<str>, sinks: Sinks, fence: Option<u64>) -> Self {
        let run = Run {
            sinks,
            progress: OnceLock::new(),
            failure: OnceLock::new(),
            exposed: Exposed::default(),
            keeper: None,
            permits: OnceLock::new(),
            reported: AtomicBool::new(false),
            added: AtomicU32::new(0),
            message,
            again: false,
            worker,
            fence,
            interrupt: AtomicU8::new(NONE),
            revocation: AtomicU8::new(OPEN),
            told: Notify::new(),
        };
        Self { run: Arc::new(run) }
    }

    /// Says that the broker has delivered the message before, if it has. Right after it was made.
    pub(crate) fn again(mut self, again: bool) -> Self {
        if let Some(run) = Arc::get_mut(&mut self.run) {
            run.again = again;
        }
        self
    }

    /// With who keeps permits. Right after it was made.
    pub(crate) fn permits_of(mut self, keeper: Option<Arc<dyn PermitKeeper>>) -> Self {
        if let Some(run) = Arc::get_mut(&mut self.run) {
            run.keeper = keeper;
        }
        self
    }

    /// A permit of this name, of which `limit` may be held at a time in the whole cluster: "8 connections to this gateway".
    ///
    /// ```
    /// # use celeriac::{Context, TaskError};
    /// # use std::time::Duration;
    /// async fn send(ctx: Context, sms: u64) -> Result<(), TaskError> {
    ///     let _permit = ctx.limit("sms-gateway", 8).or_postpone(Duration::from_secs(2)).await?;
    ///     println!("sending {sms}");
    ///     Ok(())
    /// }
    /// ```
    pub fn limit(&self, name: impl Into<String>, limit: u32) -> Limits {
        Limits::new(self.clone(), self.run.keeper.clone(), vec![Want { name: name.into(), limit }])
    }

    /// A lock: a [limit](Self::limit) of one.
    pub fn lock(&self, name: impl Into<String>) -> Limits {
        self.limit(name, 1)
    }

    /// Several locks, all or none: who holds one never waits for another, so nobody waits for ever.
    pub fn locks<N: Into<String>>(&self, names: impl IntoIterator<Item = N>) -> Limits {
        let wants = names.into_iter().map(|name| Want { name: name.into(), limit: 1 }).collect();
        Limits::new(self.clone(), self.run.keeper.clone(), wants)
    }

    /// The permit that came with the task ([`Signature::hand_over`](crate::task::Signature::hand_over)). The run holds it
    /// from its start to its end; who takes it may give it back earlier, or hand it on.
    pub fn take_permit(&self) -> Option<Permit> {
        self.run.permits.get()?.take()
    }

    /// A permit is to be given back at the end of the run, whatever becomes of it.
    pub(super) fn holds(&self, held: &Arc<Held>) {
        self.run.permits.get_or_init(Box::default).hold(held);
    }

    /// Takes the permit that came with the task; `false`: it is not to be had, so the run is not to begin.
    pub(crate) async fn adopt_permit(&self) -> bool {
        match HandedOver::of(self.message()) {
            Some(handed) => {
                let permits = self.run.permits.get_or_init(Box::default);
                permits.adopt(self, self.run.keeper.clone(), handed).await
            }
            None => true,
        }
    }

    /// The run has ended; `again`: its message waits for another one.
    pub(crate) fn end_permits(&self, again: bool) {
        let handed = HandedOver::of(self.message());
        if handed.is_some() || self.run.permits.get().is_some() {
            let permits = self.run.permits.get_or_init(Box::default);
            permits.end(handed, again, self.run.keeper.as_ref());
        }
    }

    /// A context of no queue, for calling a body directly.
    pub fn detached() -> Self {
        let message = Message {
            id: TaskId::new(),
            task: String::new(),
            arguments: Arguments::default(),
            queue: String::new(),
            priority: 0,
            eta: None,
            expires: None,
            enqueued_at: Timestamp::ZERO,
            first_started_at: None,
            retries: 0,
            crashes: 0,
            continuations: 0,
            retry: RetryPolicy::default(),
            autoretry: false,
            soft_time_limit: None,
            time_limit: None,
            acks_late: true,
            ignore_result: true,
            result_expires: std::time::Duration::ZERO,
            durability: Durability::Memory,
            headers: Headers::default(),
            last_errors: Vec::new(),
            workflow: None,
            serial: None,
            unique: None,
        };
        Self::new(Arc::new(message), "".into(), Sinks::default())
    }

    pub(super) fn downgrade(&self) -> Weak<Run> {
        Arc::downgrade(&self.run)
    }

    pub(super) fn upgrade(run: &Weak<Run>) -> Option<Self> {
        run.upgrade().map(|run| Self { run })
    }

    /// The task's id.
    pub fn id(&self) -> &TaskId {
        &self.run.message.id
    }

    /// The task's name.
    pub fn task(&self) -> &str {
        &self.run.message.task
    }

    /// The queue it came through.
    pub fn queue(&self) -> &str {
        &self.run.message.queue
    }

    /// The worker that runs it, `queue#slot`.
    pub fn worker(&self) -> &str {
        &self.run.worker
    }

    /// Which attempt this is, from 1. Retries and crashes burn attempts; postponing, continuing and shutdown do not.
    pub fn attempt(&self) -> u32 {
        1 + self.run.message.retries + self.run.message.crashes
    }

    /// How often it was tried again so far; Celery's `request.retries`.
    pub fn retries(&self) -> u32 {
        self.run.message.retries
    }

    /// Whether an earlier run may have ended with its worker or its process: this one may find half of the work done. RabbitMQ
    /// does not know what had started; so there each task that was delivered before says so. Celery's
    /// `delivery_info['redelivered']`.
    pub fn is_redelivered(&self) -> bool {
        self.run.again || self.run.message.crashes > 0
    }

    /// Of a serial task: a number that grows with each start in its lane. Hand it on to what the run writes to, and
    /// have it refuse a number lower than the highest that it has seen, and even a run that was given up for dead and
    /// still goes on (a thread that nobody could stop) cannot write behind its successor.
    pub fn fencing_token(&self) -> Option<u64> {
        self.run.fence
    }

    /// A header of the call.
    pub fn header(&self, name: &str) -> Option<&Value> {
        self.run.message.headers.0.get(name)
    }

    pub(crate) fn message_arc(&self) -> &Arc<Message> {
        &self.run.message
    }

    /// The whole message.
    pub fn message(&self) -> &Message {
        &self.run.message
    }

    /// Tells those who look at the task what it is at: a state of the application's such as `PROGRESS`, and what goes with
    /// it. Celery's `self.update_state`; both sides of a mixed fleet read it as the task's state and `info`.
    ///
    /// It does not wait: states are written behind, in order, and of several that come faster than the store takes
    /// them the last one is. The end of the run comes after all of them. Whatever the store does, the run goes on.
    ///
    /// ```
    /// # use celeriac::Context;
    /// # fn demo(ctx: &Context) -> Result<(), celeriac::TaskError> {
    /// ctx.update_state("PROGRESS", serde_json::json!({"done": 5, "total": 10}))?;
    /// # Ok(()) }
    /// # demo(&Context::detached()).unwrap();
    /// ```
    ///
    /// # Errors
    /// The state is one that ends a task, has no usable name, or its `meta` has no form in JSON.
    pub fn update_state(&self, state: &str, meta: impl Serialize) -> Result<(), UpdateStateError> {
        if !(1..=100).contains(&state.len()) {
            return Err(UpdateStateError::Name(state.len()));
        }
        let ends = |end: &State| end.as_str() == state;
        if [State::Success, State::Failure, State::Revoked, State::Rejected, State::Ignored].iter().any(ends)
        {
            return Err(UpdateStateError::Final(state.to_owned()));
        }
        let meta = serde_json::to_value(meta)
            .map_err(|error| UpdateStateError::Meta { state: state.to_owned(), error: error.to_string() })?;
        self.report(state, meta);
        Ok(())
    }

    /// Adds one more member to the chord that this task is a member of: the body waits for it too, and gets its result beside this
    /// one's, in the order of the header; of those at one place, by id. Celery's `self.add_to_chord(sig)`. It runs at once,
    /// beside this run. Await it, or [wait](super::canvas::Launching::wait) for it.
    ///
    /// If this task runs again (its worker died, or it is tried again) and adds the same in the same order, that counts once;
    /// what it added before and does not add again stays a member.
    ///
    /// ```
    /// # use celeriac::{Context, TaskError, task};
    /// /// Reads a page, and the next one beside it.
    /// #[task]
    /// async fn page(ctx: Context, number: u64) -> Result<u64, TaskError> {
    ///     if number < 10 {
    ///         ctx.add_to_chord(page::s(number + 1)).await?;
    ///     }
    ///     Ok(number)
    /// }
    /// ```
    ///
    /// # Errors
    /// As awaited: this task is no member of a chord, the result backend cannot count any (rpc), the chord is over, because
    /// this run was given up for dead; or the new member was not accepted. Return such an error, so that the task is tried again:
    /// where the backend is apart from the broker, the member may be counted before it is sent.
    pub fn add_to_chord<N: IntoCanvas>(&self, member: N) -> Launching<N::Output> {
        let nth = self.run.added.fetch_add(1, Ordering::Relaxed);
        let client = self.run.sinks.client.as_ref().and_then(Weak::upgrade);
        member.into_canvas().beside(Arc::clone(self.message_arc()), nth, client)
    }

    /// FAILURE with these errors, whatever the body does next: what it returns, and what it tells after this, is ignored.
    /// Soil's first way to fail, in Celery `update_state(FAILURE, {"errors": …})` and `raise Ignore()`; the second is to
    /// return an error. Only the first call counts.
    ///
    /// It answers with an error to return, for those who want to end at once.
    ///
    /// ```
    /// use celeriac::{Context, TaskError, task};
    ///
    /// #[task]
    /// fn import(ctx: &Context, rows: Vec<i64>) -> Result<usize, TaskError> {
    ///     let wrong: Vec<_> =
    ///         rows.iter().filter(|row| **row < 0).map(|row| format!("{row} is negative")).collect();
    ///     if !wrong.is_empty() {
    ///         return Err(ctx.fail(wrong));
    ///     }
    ///     Ok(rows.len())
    /// }
    /// # fn main() { assert!(import(&Context::detached(), vec![-1]).is_err()); }
    /// ```
    pub fn fail<I>(&self, errors: I) -> TaskError
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let errors: Vec<String> = errors.into_iter().map(Into::into).collect();
        TaskError::fail(self.run.failure.get_or_init(|| errors).clone())
    }

    /// What the body has [failed](Self::fail) with.
    pub(crate) fn failure(&self) -> Option<&[String]> {
        self.run.failure.get().map(Vec::as_slice)
    }

    /// The bar of this run, opened by the first call.
    #[inline]
    pub(super) fn cell(&self) -> Option<&Arc<ProgressCell>> {
        match self.run.progress.get() {
            Some(cell) => cell.as_ref(),
            None => self.open_bar(),
        }
    }

    #[cold]
    fn open_bar(&self) -> Option<&Arc<ProgressCell>> {
        let open = || {
            let sink = self.run.sinks.progress.as_ref()?;
            let cell = Arc::new(ProgressCell::new(self, sink.shown_before(self.id()).as_ref()));
            sink.opened(&cell);
            Some(cell)
        };
        self.run.progress.get_or_init(open).as_ref()
    }

    /// The run has ended: its bar says nothing more. `tell`: the task is not over, so the last of it is told.
    pub(crate) fn close_bar(&self, tell: bool) {
        // One that was not opened by now stays closed, whatever a body that nobody could stop still says.
        if let Some(cell) = self.run.progress.get_or_init(|| None) {
            cell.close(tell);
        }
    }

    /// What it told last is stored, and its bar is not shown from here any more.
    pub(crate) fn forget_bar(&self) {
        if let (Some(Some(_)), Some(sink)) = (self.run.progress.get(), &self.run.sinks.progress) {
            sink.closed(self.id());
        }
    }

    pub(super) fn download_sink(&self) -> Option<&Arc<dyn DownloadSink>> {
        self.run.sinks.downloads.as_ref()
    }

    pub(super) fn exposed(&self) -> &Exposed {
        &self.run.exposed
    }

    /// Tells a state.
    pub(crate) fn report(&self, state: &str, meta: Value) {
        self.tell(TrackedState {
            id: self.id().clone(),
            state: state.to_owned(),
            meta,
            traceback: None,
            lineage: Lineage::of(self.message()),
        });
    }

    pub(super) fn tell(&self, state: TrackedState) {
        let Some(states) = &self.run.sinks.states else { return };
        if self.failure().is_some() {
            return; // a later state, which is ignored
        }
        self.run.reported.store(true, Ordering::Release);
        states.update(state);
    }

    /// Whether any state was reported.
    pub(crate) fn has_reported(&self) -> bool {
        self.run.reported.load(Ordering::Acquire)
    }

    /// Whether, and why, the run should end now.
    pub fn interrupt(&self) -> Option<Interrupt> {
        match self.run.interrupt.load(Ordering::Acquire) {
            SOFT => Some(Interrupt::SoftTimeLimit),
            REVOKED => Some(Interrupt::Revoked),
            SHUTDOWN => Some(Interrupt::Shutdown),
            LANE_LOST => Some(Interrupt::LaneLost),
            _ => None,
        }
    }

    /// For loops: `ctx.check()?` ends the run when it should end (soft time limit, revoked, shutdown).
    ///
    /// # Errors
    /// The reason to end.
    pub fn check(&self) -> Result<(), Interrupt> {
        self.interrupt().map_or(Ok(()), Err)
    }

    /// Completes when the run should end, with the reason; for `select!`.
    pub async fn interrupted(&self) -> Interrupt {
        self.told(|_| true).await
    }

    /// Completes when the body is not to go on, told to end before that or not: the task was revoked with `terminate`, or its
    /// lane is lost.
    pub(crate) async fn terminated(&self) -> Interrupt {
        self.told(|interrupt| matches!(interrupt, Interrupt::Revoked | Interrupt::LaneLost)).await
    }

    async fn told(&self, wanted: fn(Interrupt) -> bool) -> Interrupt {
        loop {
            // Asked for before the look, so that no telling falls between the two.
            let told = self.run.told.notified();
            if let Some(interrupt) = self.interrupt().filter(|interrupt| wanted(*interrupt)) {
                return interrupt;
            }
            told.await;
        }
    }

    /// The task was revoked: it is not tried again, and with `terminate` the body is told to end. `false`: too late,
    /// what becomes of the task is decided.
    pub(crate) fn revoke(&self, terminate: bool) -> bool {
        let before =
            self.run.revocation.compare_exchange(OPEN, WAS_REVOKED, Ordering::AcqRel, Ordering::Acquire);
        if before == Err(DECIDED) {
            return false;
        }
        if terminate {
            self.interrupt_with(Interrupt::Revoked);
        }
        true
    }

    /// The run has ended and is judged: whether the task was revoked before that. From here on it cannot be.
    pub(crate) fn decide(&self) -> bool {
        self.run.revocation.swap(DECIDED, Ordering::AcqRel) == WAS_REVOKED
    }

    /// Tells the body to end. The strongest reason stays: its lane is lost, revoked, then shutdown, then the soft limit.
    pub(crate) fn interrupt_with(&self, interrupt: Interrupt) {
        let code = match interrupt {
            Interrupt::SoftTimeLimit => SOFT,
            Interrupt::Revoked => REVOKED,
            Interrupt::Shutdown => SHUTDOWN,
            Interrupt::LaneLost => LANE_LOST,
        };
        self.run.interrupt.fetch_max(code, Ordering::AcqRel);
        self.run.told.notify_waiters();
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("task", &self.task())
            .field("id", self.id())
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
