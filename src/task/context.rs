//! What a body can learn of its run and ask of it.

mod checkpoint;
mod interruption;
mod log;
mod trace;
mod update_state_error;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::Notify;

pub(crate) use self::checkpoint::{LentSlot, SlotOwner};
use self::interruption::{NONE, OPEN};
use self::update_state_error::MOST_META;
pub use self::update_state_error::UpdateStateError;
use super::canvas::{IntoCanvas, Launching, json_len};
use super::download::Exposed;
use super::permit::{HandedOver, HeldPermit, RunPermits};
use super::progress::ProgressCell;
use super::run_log::RunLog;
use super::{
    Arguments, Data, Durability, Headers, Json, Limits, Lineage, Message, Permit, PermitKeeper, Sinks, State,
    TaskError, TaskId, TaskOptions, TrackedState, Want,
};
use crate::core::Timestamp;
use crate::core::text::bounded_errors;

/// The run of a task as its body sees it: which task it is, which attempt, and whether it is to end. Celery's
/// `self.request`.
///
/// A task takes a context as its first parameter, by value or by reference. A context is cheap to clone, and may go to
/// other threads.
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
    run: Arc<RunState>,
}

/// What is known of a run before it begins.
pub(crate) struct RunSetup {
    pub(crate) message: Arc<Message>,
    pub(crate) worker: Arc<str>,
    /// All runs of a program share them.
    pub(crate) sinks: Arc<Sinks>,
    /// The fencing token of the start.
    pub(crate) fence: Option<u64>,
    /// Whether the broker has delivered the message before.
    pub(crate) again: bool,
    /// The keeper of permits.
    pub(crate) keeper: Option<Arc<dyn PermitKeeper>>,
}

pub(crate) struct RunState {
    sinks: Arc<Sinks>,
    /// The progress bar of the run. It is opened with the first report of progress.
    progress: OnceLock<Option<Arc<ProgressCell>>>,
    /// What runs of the task in other processes have shown.
    shown_elsewhere: OnceLock<Box<TrackedState>>,
    /// The errors that the body has failed with. They count whatever the body does after that.
    failure: OnceLock<Vec<String>>,
    pub(super) exposed: Exposed,
    keeper: Option<Arc<dyn PermitKeeper>>,
    /// The permits of the run. Few runs have any, so the room for them is made when it is needed.
    permits: OnceLock<Box<RunPermits>>,
    /// Whether the run has reported a state.
    reported: AtomicBool,
    /// Whether the run has ended with an error that was expected.
    expected: AtomicBool,
    /// The place in the source of the panic that the run has ended with.
    panic_place: OnceLock<Box<str>>,
    /// The number of members that the run has added to its chord.
    added: AtomicU32,
    /// The last lines that the body has logged, if they are kept.
    log: OnceLock<Arc<RunLog>>,
    /// The span of the run, until its end is known.
    #[cfg(feature = "otel")]
    span: parking_lot::Mutex<Option<tracing::Span>>,
    /// The headers of the run's span, for what follows from the run.
    trace: OnceLock<Box<Headers>>,
    message: Arc<Message>,
    /// Whether the broker has delivered the message before.
    again: bool,
    worker: Arc<str>,
    fence: Option<u64>,
    /// The time at which the body began, if it had to wait for a thread.
    began: OnceLock<Timestamp>,
    interrupt: AtomicU8,
    revocation: AtomicU8,
    told: Notify,
    /// The slot that the run has of a pool whose queues share slots.
    slot: OnceLock<LentSlot>,
    /// Whether the body is to end at its next checkpoint.
    gives_way: AtomicBool,
}

impl Context {
    pub(crate) fn new(message: Arc<Message>, worker: Arc<str>, sinks: Sinks) -> Self {
        let sinks = Arc::new(sinks);
        Self::of_run(RunSetup { message, worker, sinks, fence: None, again: false, keeper: None })
    }

    /// The context of this run.
    pub(crate) fn of_run(setup: RunSetup) -> Self {
        let RunSetup { message, worker, sinks, fence, again, keeper } = setup;
        let run = RunState {
            sinks,
            progress: OnceLock::new(),
            shown_elsewhere: OnceLock::new(),
            failure: OnceLock::new(),
            exposed: Exposed::default(),
            keeper,
            permits: OnceLock::new(),
            reported: AtomicBool::new(false),
            expected: AtomicBool::new(false),
            panic_place: OnceLock::new(),
            added: AtomicU32::new(0),
            log: OnceLock::new(),
            #[cfg(feature = "otel")]
            span: parking_lot::Mutex::default(),
            trace: OnceLock::new(),
            message,
            again,
            worker,
            fence,
            began: OnceLock::new(),
            interrupt: AtomicU8::new(NONE),
            revocation: AtomicU8::new(OPEN),
            told: Notify::new(),
            slot: OnceLock::new(),
            gives_way: AtomicBool::new(false),
        };
        Self { run: Arc::new(run) }
    }

    /// Asks for a permit of this name. At most `limit` of them are held at a time in the whole cluster, for example "8
    /// connections to this gateway". [`key_of`](crate::task::key_of) joins several parts to a name in such a way that
    /// no two things share one.
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

    /// Asks for a lock: a permit with a [limit](Self::limit) of one.
    pub fn lock(&self, name: impl Into<String>) -> Limits {
        self.limit(name, 1)
    }

    /// Asks for several locks, all or none. A task that holds one never waits for another, so no two tasks wait for
    /// each other.
    pub fn locks<N: Into<String>>(&self, names: impl IntoIterator<Item = N>) -> Limits {
        let wants = names.into_iter().map(|name| Want { name: name.into(), limit: 1 }).collect();
        Limits::new(self.clone(), self.run.keeper.clone(), wants)
    }

    /// Takes the permit that came with the task ([`Signature::hand_over`](crate::task::Signature::hand_over)). The run
    /// holds that permit from its start to its end; a body that takes it may give it back earlier, or hand it on.
    pub fn take_permit(&self) -> Option<Permit> {
        self.run.permits.get()?.take()
    }

    /// Notes a permit that is given back at the end of the run, however the run ends.
    pub(super) fn holds(&self, held: &Arc<HeldPermit>) {
        self.run.permits.get_or_init(Box::default).hold(held);
    }

    /// Whether a permit came with the task.
    pub(crate) fn comes_with_permit(&self) -> bool {
        HandedOver::of(self.message()).is_some()
    }

    /// Acquires the permit that came with the task. If the answer is `false`, the permit cannot be had and the run must
    /// not begin.
    pub(crate) async fn adopt_permit(&self) -> bool {
        match HandedOver::of(self.message()) {
            Some(handed) => {
                let permits = self.run.permits.get_or_init(Box::default);
                permits.adopt(self, self.run.keeper.clone(), handed).await
            }
            None => true,
        }
    }

    /// Gives back the permits at the end of the run. With `again`, the message waits for another run, which will find
    /// the permit that was handed over.
    pub(crate) fn end_permits(&self, again: bool) {
        // A permit that was handed over travels in the headers.
        let has_headers = !self.message().headers.0.is_empty();
        let handed = if has_headers { HandedOver::of(self.message()) } else { None };
        if handed.is_some() || self.run.permits.get().is_some() {
            let permits = self.run.permits.get_or_init(Box::default);
            permits.end(handed, again, self.run.keeper.as_ref());
        }
    }

    /// A context without a queue, for calling a body directly.
    pub fn detached() -> Self {
        let options = TaskOptions {
            autoretry: false,
            ignore_result: true,
            result_expires: std::time::Duration::ZERO,
            durability: Durability::Memory,
            ..TaskOptions::default()
        };
        let message = Message::new(TaskId::new(), "", Arguments::default(), "", options, Timestamp::ZERO);
        Self::new(Arc::new(message), "".into(), Sinks::default())
    }

    /// The value of this type that the program has given to the runtime with [`Builder::data`](crate::Builder::data). `None`:
    /// it gave none. A task that cannot do without the value takes it as a parameter instead: see [`Data`].
    pub fn data<T: Send + Sync + 'static>(&self) -> Option<Data<T>> {
        self.run.sinks.data.get()
    }

    /// Notes that the body begins now, on the thread that it had to wait for.
    pub(crate) fn note_beginning(&self, now: Timestamp) {
        let _ = self.run.began.set(now);
    }

    /// The time at which the body began, for a run that was started at `started_at`. The time for which the body waited for
    /// a thread is no part of its run.
    pub(crate) fn began_at(&self, started_at: Timestamp) -> Timestamp {
        self.run.began.get().map_or(started_at, |began| started_at.max(*began))
    }

    /// Whether both are of the same run.
    pub(crate) fn is_of_run(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.run, &other.run)
    }

    pub(super) fn sinks(&self) -> &Sinks {
        &self.run.sinks
    }

    pub(super) fn downgrade(&self) -> Weak<RunState> {
        Arc::downgrade(&self.run)
    }

    pub(super) fn upgrade(run: &Weak<RunState>) -> Option<Self> {
        run.upgrade().map(|run| Self { run })
    }

    /// Returns the id of the task that runs.
    pub fn id(&self) -> &TaskId {
        &self.run.message.id
    }

    /// Returns the name of the task that runs.
    pub fn task(&self) -> &str {
        &self.run.message.task
    }

    /// The queue that the task came through.
    pub fn queue(&self) -> &str {
        &self.run.message.queue
    }

    /// The worker that runs the task, as `queue#slot`.
    pub fn worker(&self) -> &str {
        &self.run.worker
    }

    pub(crate) fn worker_arc(&self) -> &Arc<str> {
        &self.run.worker
    }

    /// The number of this attempt, from 1. Retries and crashes burn attempts; postponing, continuing and shutdown do
    /// not.
    pub fn attempt(&self) -> u32 {
        self.run.message.tries().saturating_add(1)
    }

    /// The number of times that the task was tried again so far: Celery's `request.retries`.
    pub fn retries(&self) -> u32 {
        self.run.message.retries
    }

    /// Whether an earlier run may have ended with its worker or its process, or has put the task back into its queue
    /// ([`TaskError::reject_and_requeue`]). Then this run may find half of the work done. RabbitMQ does not know which
    /// deliveries had started, so over RabbitMQ the answer is true for each task that was delivered before. Celery's
    /// `delivery_info['redelivered']`.
    pub fn is_redelivered(&self) -> bool {
        let message = &self.run.message;
        self.run.again || message.crashes > 0 || message.requeues() > 0
    }

    /// Whether the broker has delivered the message before.
    pub(crate) fn is_again(&self) -> bool {
        self.run.again
    }

    /// The keeper of the run's permits.
    pub(super) fn keeper(&self) -> Option<&Arc<dyn PermitKeeper>> {
        self.run.keeper.as_ref()
    }

    /// The permits of the run.
    pub(super) fn permits(&self) -> &RunPermits {
        self.run.permits.get_or_init(Box::default)
    }

    /// The fencing token of a serial task: a number that grows with each start in its lane. Pass it on to the storage
    /// that the run writes to, and let that storage refuse any number lower than the highest that it has seen. Then
    /// even a run that was given up for dead and still goes on, such as a thread that nobody could stop, cannot write
    /// after its successor has.
    pub fn fencing_token(&self) -> Option<u64> {
        self.run.fence
    }

    /// A header of the call, by its name.
    pub fn header(&self, name: &str) -> Option<&Value> {
        self.run.message.headers.0.get(name)
    }

    pub(crate) fn message_arc(&self) -> &Arc<Message> {
        &self.run.message
    }

    /// The whole message of the task.
    pub fn message(&self) -> &Message {
        &self.run.message
    }

    /// Reports a state of the application's such as `PROGRESS`, with its data. Celery's `self.update_state`; Celeriac's
    /// and Python's programs read it as the task's state and `info`.
    ///
    /// The call does not wait. The runtime writes states in the background and in order; if they come faster than the
    /// store takes them, it skips to the last one. It writes the end of the run after all of them. The run goes on even
    /// if the store fails.
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
    /// The state is one that ends a task, its name is not usable, or `meta` has no form in JSON (NaN and infinity have
    /// none) or takes more than 64 KiB of it.
    pub fn update_state(&self, state: &str, meta: impl Serialize) -> Result<(), UpdateStateError> {
        if !(1..=100).contains(&state.len()) {
            return Err(UpdateStateError::Name(state.len()));
        }
        let ends = |end: &State| end.as_str() == state;
        if [State::Success, State::Failure, State::Revoked, State::Rejected, State::Ignored].iter().any(ends)
        {
            return Err(UpdateStateError::Final(state.to_owned()));
        }
        // It is counted before it is written.
        let size = json_len(&meta);
        if size > MOST_META {
            return Err(UpdateStateError::TooLarge { state: state.to_owned(), size });
        }
        let meta = Json::encode(&meta)
            .map_err(|error| UpdateStateError::Meta { state: state.to_owned(), error: error.to_string() })?;
        self.report(state, meta);
        Ok(())
    }

    /// Adds one more member to the chord that this task is a member of. The chord's body waits for the new member too,
    /// and gets its result beside this task's, in the order of the header; several results at one place are ordered by
    /// id. The new member runs at once, beside this run. Celery's `self.add_to_chord(sig)`. Await the answer, or
    /// [wait](super::canvas::Launching::wait) for it.
    ///
    /// A task may run again, because its worker died or because it is retried. If it then adds the same members in the
    /// same order, each counts once. A member that an earlier run added stays one even if this run does not add it
    /// again.
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
    /// When awaited: this task is no member of a chord; the result backend cannot count members (rpc); the chord is
    /// over, because this run was given up for dead; or the new member was not accepted. Return such an error, so that
    /// the task is tried again: with a result backend apart from the broker, the member may have been counted before it
    /// was to be sent.
    pub fn add_to_chord<N: IntoCanvas>(&self, member: N) -> Launching<N::Output> {
        let nth = self.run.added.fetch_add(1, Ordering::Relaxed);
        let client = self.run.sinks.client.as_ref().and_then(Weak::upgrade);
        member.into_canvas().into_member_of(Arc::clone(self.message_arc()), nth, client)
    }

    /// Fails the task with these errors: it ends as FAILURE whatever the body does next, and its value and later
    /// reports are ignored. It is the first of Soil's two ways to fail, in Celery `update_state(FAILURE, {"errors":
    /// …})` and `raise Ignore()`; the second is to return an error. Only the first call counts. The record has at most 1,000
    /// errors, and 1 MiB of them; the last one says how many more there were.
    ///
    /// The call answers with an error, which a body returns to end at once.
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
        let errors = bounded_errors(errors.into_iter().map(Into::into));
        let mut is_first = false;
        let failure = self.run.failure.get_or_init(|| {
            is_first = true;
            errors
        });
        if let Some(states) = self.run.sinks.states.as_ref().filter(|_| is_first) {
            states.failed(failure);
        }
        TaskError::fail(failure.clone())
    }

    /// The errors that the body has [failed](Self::fail) with.
    pub(crate) fn failure(&self) -> Option<&[String]> {
        self.run.failure.get().map(Vec::as_slice)
    }

    /// The progress bar of this run, which the first call opens.
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
            let before = self.shown_before();
            let cell = Arc::new(ProgressCell::new(self, before.as_ref()));
            sink.opened(&cell);
            Some(cell)
        };
        self.run.progress.get_or_init(open).as_ref()
    }

    /// What earlier runs of the task have shown. A bar of this run goes on from there.
    pub(crate) fn shown_before(&self) -> Option<TrackedState> {
        let elsewhere = self.run.shown_elsewhere.get().map(|state| TrackedState::clone(state));
        elsewhere.or_else(|| self.run.sinks.progress.as_ref()?.shown_before(self.id()))
    }

    /// Runs of the task in other processes have shown this, and the bar of this run goes on from there. The runtime says so
    /// before the body starts.
    pub(crate) fn resume_bar(&self, shown: TrackedState) {
        let _ = self.run.shown_elsewhere.set(Box::new(shown));
    }

    /// The bar of the run, if the run has opened one.
    pub(crate) fn open_cell(&self) -> Option<&Arc<ProgressCell>> {
        self.run.progress.get()?.as_ref()
    }

    /// Closes the bar at the end of the run, so that later reports are ignored. With `tell` the task is not over, and
    /// its last progress is reported.
    pub(crate) fn close_bar(&self, tell: bool) {
        // A bar that was not opened by now stays closed, even if a body that nobody could stop reports something.
        if let Some(cell) = self.run.progress.get_or_init(|| None) {
            cell.close(tell);
        }
    }

    /// Removes the bar from those that this process shows, once its last report is stored.
    pub(crate) fn forget_bar(&self) {
        if let (Some(Some(_)), Some(sink)) = (self.run.progress.get(), &self.run.sinks.progress) {
            sink.closed(self.id());
        }
    }

    pub(super) fn download_sink(&self) -> Option<&Arc<dyn super::DownloadSink>> {
        self.run.sinks.downloads.as_ref()
    }

    pub(super) fn exposed(&self) -> &Exposed {
        &self.run.exposed
    }

    /// Reports a state with its data.
    pub(crate) fn report(&self, state: &str, meta: impl Into<Json>) {
        self.tell(TrackedState {
            id: self.id().clone(),
            state: state.to_owned(),
            meta: meta.into(),
            traceback: None,
            lineage: Lineage::of(self.message()),
        });
    }

    fn tell(&self, state: TrackedState) {
        if let Some(states) = self.sink_of_report() {
            states.update(state);
        }
    }

    /// Reports the state of the run's bar.
    pub(super) fn tell_bar(&self, state: TrackedState) {
        if let Some(states) = self.sink_of_report() {
            states.update_bar(state);
        }
    }

    /// Where a report goes, which is noted. There is no such place for a body that has failed: what it reports later is
    /// ignored.
    fn sink_of_report(&self) -> Option<&Arc<dyn super::StateSink>> {
        let states = self.run.sinks.states.as_ref().filter(|_| self.failure().is_none())?;
        self.run.reported.store(true, Ordering::Release);
        Some(states)
    }

    /// Whether the run has reported any state.
    pub(crate) fn has_reported(&self) -> bool {
        self.run.reported.load(Ordering::Acquire)
    }

    /// Notes that the run has ended with an error that was expected.
    pub(crate) fn note_expected(&self) {
        self.run.expected.store(true, Ordering::Release);
    }

    /// Whether the run has ended with an error that was expected.
    pub(crate) fn is_expected(&self) -> bool {
        self.run.expected.load(Ordering::Acquire)
    }

    /// Notes where the panic was that the run has ended with.
    pub(crate) fn note_panic_place(&self, place: &str) {
        self.run.panic_place.get_or_init(|| place.into());
    }

    /// The place in the source of the panic that the run has ended with, if that is known.
    pub(crate) fn panic_place(&self) -> Option<&str> {
        self.run.panic_place.get().map(|place| &**place)
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
