//! One run of one task, from the delivery in hand to its settlement. The queue puts the [`Run`] together and a
//! worker executes it, as a future of its own beside the actor.
//!
//! Invariants:
//! - Nothing that a body does can hurt an actor: it is never polled inside an actor's poll.
//! - A run ends in exactly one settlement. The run owns the delivery: it settles the delivery, or, if the run
//!   itself is dropped, the delivery goes back to the broker.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use futures_util::future::OptionFuture;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::Runtime;
use super::body::{CpuBody, IoBody, StartIo, Stuck, guard, is_lost, is_panic, start_io};
use super::conclusion::conclude;
use super::hooks::{after_return, before_start};
use super::own_process::own_pid;
use super::process::{ChildProcess, run_in_child};
use super::task_levers::TimeLimits;
use crate::broker::{Activity, Delivery, Settle};
use crate::catalogue::Pool;
use crate::core::Timestamp;
use crate::core::accounts::Ended;
use crate::core::time::deadline;
use crate::protocol::result::Exception;
use crate::task::clock::now;
use crate::task::{
    Body, Context, Ending, EventGroup, EventKind, Hooks, Interrupt, Judge, Next, State, TaskDefinition,
    TaskResult, Until, Verdict,
};

/// The pause before a task is tried again whose permit was handed over to it and has another holder by now.
const PERMIT_PAUSE: Duration = Duration::from_secs(1);

/// A run and all that it needs.
pub(crate) struct Run {
    pub(crate) definition: &'static TaskDefinition,
    pub(crate) context: Context,
    pub(crate) pool: Pool,
    /// The worker's child process, in the process pool.
    pub(crate) child: Option<Arc<ChildProcess>>,
    /// Cancelled when a shutdown loses its patience or the worker dies: the run ends at once and its task is handed
    /// back.
    pub(crate) force: Arc<CancellationToken>,
    pub(crate) stuck: Arc<Stuck>,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) started_at: Timestamp,
    pub(crate) time_limits: TimeLimits,
    /// The run's place in its lane, if the task is serial.
    pub(crate) place: Option<LanePlace>,
}

/// The place of a run in its lane. When this is dropped, the lane is told that the run is over.
pub(crate) struct LanePlace(Option<Box<dyn FnOnce() + Send>>);

impl LanePlace {
    /// `leave` tells the lane; it is called when this is dropped.
    pub(crate) fn new(leave: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(leave)))
    }
}

impl Drop for LanePlace {
    fn drop(&mut self) {
        if let Some(leave) = self.0.take() {
            leave();
        }
    }
}

/// What becomes of a worker after a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterRun {
    /// The worker runs the next task.
    Stays,
    /// The worker is replaced because of the run: its body has panicked, or its child process is gone.
    Replaced,
    /// The worker is replaced because its child process is used up.
    Recycled,
    /// The worker's child process had ended before the run could begin.
    Died,
}

/// How a run ended, for the counters and the accounts of its queue.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// The state of the task, if the task is over.
    pub(crate) over: Option<State>,
    /// Why the task waits for another run, if it does. If it neither is over nor waits, it was handed back.
    pub(crate) again: Option<Next>,
    /// The class of the error of a task that is over without success.
    error: Option<Box<str>>,
    /// Whether the task was rejected, by itself or because it cannot be run.
    rejected: bool,
    /// How long the run took that ended the task, or failed.
    run_time: Option<Duration>,
    /// When the run ended, if its verdict says it.
    pub(crate) ended_at: Option<Timestamp>,
    /// Whether the body panicked.
    pub(crate) panicked: bool,
    /// Whether the hard time limit passed.
    pub(crate) timed_out: bool,
    /// Whether the child process that ran the body has ended by itself.
    pub(crate) lost: bool,
    /// What becomes of the worker.
    pub(crate) worker: AfterRun,
}

impl Report {
    /// The report of a run that never began, or was lost on its way.
    pub(crate) const HANDED_BACK: Self = Self {
        over: None,
        again: None,
        error: None,
        rejected: false,
        run_time: None,
        ended_at: None,
        panicked: false,
        timed_out: false,
        lost: false,
        worker: AfterRun::Stays,
    };

    /// The report of a run with this verdict.
    pub(crate) fn of(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Over(record) => Self::of_end(record),
            Verdict::Dead { record, .. } => {
                let rejected = record.error_type.as_deref() == Some("Reject");
                Self { rejected, ..Self::of_end(record) }
            }
            Verdict::Again { next, failed, .. } => {
                let run_time = failed.as_deref().and_then(run_time);
                Self { again: Some(*next), run_time, ..Self::HANDED_BACK }
            }
            Verdict::Replaced(_) => Self { again: Some(Next::Replace), ..Self::HANDED_BACK },
            Verdict::HandBack => Self::HANDED_BACK,
        }
    }

    fn of_end(record: &TaskResult) -> Self {
        let is_success = matches!(record.state, State::Success | State::Ignored);
        let error = (!is_success).then(|| Exception::class(record).into());
        Self { over: Some(record.state), error, run_time: run_time(record), ..Self::HANDED_BACK }
    }

    /// How the run counts in the accounts. `None`: the task goes on, or wants to be ignored.
    pub(crate) fn ended(&self) -> Option<Ended<'_>> {
        let error = self.error.as_deref().unwrap_or_default();
        match (self.over, self.again) {
            (Some(State::Success), _) => Some(Ended::Succeeded),
            (Some(State::Ignored), _) => None,
            (Some(State::Revoked), _) => Some(Ended::Revoked),
            (Some(_), _) if self.rejected => Some(Ended::Rejected(error)),
            (Some(_), _) => Some(Ended::Failed(error)),
            (None, Some(Next::Retry)) => Some(Ended::Retried),
            (None, Some(Next::Requeue)) => Some(Ended::PutBack),
            (None, _) => None,
        }
    }

    /// How long the run took, with the state that it left its task in. `None`: there was no run, or the task goes on after it
    /// without having failed.
    pub(crate) fn ran(&self) -> Option<(State, Duration)> {
        let state = self.over.or_else(|| (self.again == Some(Next::Retry)).then_some(State::Retry));
        state.zip(self.run_time)
    }

    /// Whether the task is over.
    pub(crate) fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// Whether the task was handed back: it neither is over nor waits by a decision of its own.
    pub(crate) fn is_handed_back(&self) -> bool {
        self.over.is_none() && self.again.is_none()
    }
}

/// How long the run of a record took; `None`: the task did not come to its run.
fn run_time(record: &TaskResult) -> Option<Duration> {
    record.started_at.map(|started_at| record.finished_at.since(started_at))
}

/// When the run with this verdict ended, if it says it.
fn ended_at(verdict: &Verdict) -> Option<Timestamp> {
    match verdict {
        Verdict::Over(record) | Verdict::Dead { record, .. } => Some(record.finished_at),
        Verdict::Again { failed, .. } => failed.as_ref().map(|record| record.finished_at),
        Verdict::Replaced(_) | Verdict::HandBack => None,
    }
}

/// Counts the bodies that run.
#[derive(Default)]
pub(crate) struct ActivityMeter {
    active: AtomicU64,
    processed: AtomicU64,
}

impl ActivityMeter {
    pub(crate) fn read(&self) -> Activity {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Activity { active: read(&self.active), processed: read(&self.processed) }
    }

    /// A body starts; it counts as active until the guard is dropped.
    fn begin(&self) -> ActiveBody<'_> {
        self.active.fetch_add(1, Ordering::Relaxed);
        self.processed.fetch_add(1, Ordering::Relaxed);
        ActiveBody(self)
    }
}

/// A body that runs.
struct ActiveBody<'a>(&'a ActivityMeter);

impl Drop for ActiveBody<'_> {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A running body of either kind.
enum RunningBody {
    Io(IoBody),
    Cpu(CpuBody),
}

impl Future for RunningBody {
    type Output = Result<String, Ending>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Io(body) => Pin::new(body).poll(cx),
            Self::Cpu(body) => Pin::new(body).poll(cx),
        }
    }
}

impl Run {
    /// Runs the task and settles its delivery. Dropping the returned future hands the delivery back to the broker.
    pub(crate) async fn execute(mut self: Box<Self>, delivery: Delivery) -> Report {
        let hooks = self.hooks();
        // If a process died after the record and before the acknowledgement, the task is over: the follow-ups are sent
        // by the record, and the body does not run once more.
        if self.runtime.broker.facts().is_shared
            && self.runtime.may_be_over(&delivery)
            && let Some(record) = Box::pin(self.runtime.recorded(&delivery)).await
        {
            tracing::info!(id = %record.id, task = record.task, state = %record.state, "a task that is over came again; what follows from it is sent, and its body does not run");
            let verdict = Verdict::Over(Box::new(record));
            let end = conclude(verdict, Some(delivery), &self.context, hooks.as_ref(), &self.runtime, None);
            return Box::pin(end).await;
        }
        let delivery = match self.begin(delivery).await {
            Ok(delivery) => delivery,
            Err(report) => return report,
        };
        // The place is a local value of this future, so it goes before the delivery does, even if the future is
        // dropped: as long as this run is here, its lane lets no other one in.
        let place = self.place.take();
        let outcome = self.body(hooks.as_ref()).await;
        drop(place);
        let (panicked, timed_out) = (is_panic(&outcome), matches!(outcome, Err(Ending::TimeLimit(_))));
        let lost = is_lost(&outcome);
        // Only a body that has not succeeded may be tried again.
        let entropy = if outcome.is_err() { rand::random() } else { 0 };
        let verdict = self.verdict(outcome, entropy);
        let ended_at = ended_at(&verdict);
        let report = conclude(verdict, delivery, &self.context, hooks.as_ref(), &self.runtime, None).await;
        self.after_return(hooks.as_ref(), &report);
        // Whether a child process goes on is for its worker to say.
        let worker = if panicked && self.child.is_none() { AfterRun::Replaced } else { AfterRun::Stays };
        Report { ended_at, panicked, timed_out, lost, worker, ..report }
    }

    /// What starts the body on the event loop; `None`: the body runs on a thread. A plain `fn` does so even in a queue
    /// whose pool is `io`.
    fn start_on_loop(&self) -> Option<StartIo> {
        match (self.definition.body, self.pool) {
            (Body::Io(start), Pool::Io) => Some(start),
            _ => None,
        }
    }

    /// The pool that the body runs in.
    pub(crate) fn pool_of_body(&self) -> Pool {
        match self.pool {
            Pool::Process => Pool::Process,
            Pool::Io if self.start_on_loop().is_some() => Pool::Io,
            Pool::Io | Pool::Cpu => Pool::Cpu,
        }
    }

    /// The process that the body runs in.
    fn pid(&self) -> u32 {
        self.child.as_ref().map_or_else(own_pid, |child| child.pid())
    }

    /// The hooks of the task, beside which the program's are called; `None`: neither has any. A task has none if making them
    /// panics.
    pub(crate) fn hooks(&self) -> Option<Hooks> {
        let own = guard(self.definition.hooks).unwrap_or_default();
        (self.runtime.has_run_hooks || !own.is_empty()).then_some(own)
    }

    /// Takes the steps before the body. `Ok(None)`: the delivery was acknowledged already. `Err`: the body must not
    /// start, and this is the report instead.
    pub(crate) async fn begin(&self, delivery: Delivery) -> Result<Option<Delivery>, Report> {
        let message = self.context.message();
        let mut delivery = Some(delivery);
        if !message.settles_late() {
            // Acknowledged early means at most once: the task has left the broker before its body starts, or the
            // body does not start.
            let ack = Settle::Ack { result: None, follow_ups: None };
            if let Some(delivery) = delivery.take()
                && let Err(error) = Box::pin(delivery.settle_and_wait(ack)).await
            {
                tracing::warn!(id = %message.id, %error, "a task is not started: it could not be acknowledged first");
                return Err(Report::HANDED_BACK);
            }
        }
        // A permit that came with the call must be held before the body starts. If it cannot be had, the task waits
        // a moment without an attempt being counted.
        if self.context.comes_with_permit() && !Box::pin(self.context.adopt_permit()).await {
            let judge = Judge::unstarted(message, now());
            let again = Ending::Postpone { until: Until::In(PERMIT_PAUSE) };
            let verdict = judge.judge(Err(again));
            let hooks = self.runtime.hooks_without_run();
            let end = conclude(verdict, delivery, &self.context, hooks.as_ref(), &self.runtime, None);
            return Err(Box::pin(end).await);
        }
        // A window that ends with the start ends before the body: what the body has not read yet is then a matter
        // for the next call.
        if message.unique.is_some() {
            let ended = self.force.run_until_cancelled(self.runtime.window_at_start(message));
            if Box::pin(ended).await.is_none() {
                return Err(Report::HANDED_BACK); // dropped here, the delivery goes back to the broker
            }
        }
        // From here on a death of the process counts as a crash of the task.
        if let Some(delivery) = &mut delivery {
            delivery.started();
        }
        if self.runtime.events.is_heard(EventGroup::Run) {
            let worker = Arc::clone(self.context.worker_arc());
            self.runtime.tell_event(self.context.message_arc(), EventKind::Started { worker });
        }
        self.runtime.begin(&self.context, self.definition, || self.pid()).await;
        Ok(delivery)
    }

    /// Runs the body until it ends, reaches a limit, or must be handed back.
    pub(crate) async fn body(&self, hooks: Option<&Hooks>) -> Result<String, Ending> {
        let _active = self.runtime.activity.begin();
        // Without the feature nobody sees what bodies log.
        if cfg!(feature = "log-lines") {
            self.context.open_log(|| (self.definition.options)().keep_log);
        }
        wait(self, hooks).await
    }

    /// Calls the hooks that are called after each run.
    pub(crate) fn after_return(&self, hooks: Option<&Hooks>, report: &Report) {
        if let Some(hooks) = hooks {
            after_return(hooks, &self.runtime.hooks, &self.context, report);
        }
    }

    /// Judges the outcome of the body. `entropy` is the random number that spreads the pauses of retries.
    pub(crate) fn verdict(&self, outcome: Result<String, Ending>, entropy: u64) -> Verdict {
        if outcome.as_ref().is_err_and(Ending::is_expected) {
            self.context.note_expected();
        }
        if let Some(place) = outcome.as_ref().err().and_then(Ending::place) {
            self.context.note_panic_place(place);
        }
        let timed_out =
            matches!(outcome, Err(Ending::TimeLimit(_) | Ending::Interrupted(Interrupt::SoftTimeLimit)));
        let judge = Judge {
            message: self.context.message(),
            now: now(),
            started_at: Some(self.context.began_at(self.started_at)),
            worker: Some(self.context.worker()),
            entropy,
            revoked: self.context.decide(),
            terminated: self.context.interrupt() == Some(Interrupt::Revoked),
            limits: self.runtime.dispatcher.limits,
            max_message_size: self.runtime.dispatcher.max_message_size,
        };
        // A body that has declared its failure has failed, whatever it returned afterwards.
        if let Some(errors) = self.context.failure() {
            return judge.failed(errors);
        }
        let most = self.runtime.max_result_size;
        let mut verdict = judge.judge(
            outcome
                .and_then(|value| if value.len() > most { Err(too_large(&value, most)) } else { Ok(value) }),
        );
        // What the body of a failed attempt has logged goes along with it.
        if let Verdict::Again { message, next: Next::Retry, .. } = &mut verdict {
            message.note_log(self.context.take_log());
        }
        if let Some((took, at)) = work_time(&verdict, timed_out) {
            let message = self.context.message();
            self.runtime.run_times.record(message, self.definition.params, took, at);
        }
        verdict
    }
}

/// How long the work of a task takes, as far as a run with this verdict says it, and when the run ended. A success says it,
/// and so does a run that a time limit has ended, which would have taken still longer. A run that has failed by an error or was
/// told to end does not.
fn work_time(verdict: &Verdict, timed_out: bool) -> Option<(Duration, Timestamp)> {
    let record = match verdict {
        Verdict::Over(record) if timed_out || record.state == State::Success => record,
        Verdict::Dead { record, .. } | Verdict::Again { failed: Some(record), .. } if timed_out => record,
        _ => return None,
    };
    Some((run_time(record)?, record.finished_at))
}

/// The ending of a body whose value is too large. It is a failure without a retry, because another attempt would
/// return the same.
pub(super) fn too_large(value: &str, most: usize) -> Ending {
    let error = format!(
        "the result takes {} bytes, the limit is {most}: store the object, and return its id, or hand it out as a download; the builder's `max_result_size` changes the limit",
        value.len(),
    );
    Ending::Fail { errors: vec![error], name: "ResultTooLarge".into() }
}

/// Runs the body until it ends or is not waited for any longer.
async fn wait(run: &Run, hooks: Option<&Hooks>) -> Result<String, Ending> {
    let ((soft, hard), context) = (run.time_limits, &run.context);
    if let Some(hooks) = hooks {
        before_start(hooks, &run.runtime.hooks, context)?;
    }
    if run.pool == Pool::Process {
        return match &run.child {
            Some(child) => Box::pin(run_in_child(run, child)).await,
            // Its worker has lost its child, and goes.
            None => Err(Ending::Interrupted(Interrupt::Shutdown)),
        };
    }
    let mut body = match run.start_on_loop() {
        Some(start) => RunningBody::Io(start_io(start, context.clone(), &run.runtime.layers)?),
        None => RunningBody::Cpu(CpuBody::start(
            run.definition,
            context.clone(),
            run.started_at,
            Arc::clone(&run.stuck),
            Arc::clone(&run.runtime.layers),
        )),
    };
    let io = matches!(body, RunningBody::Io(_));
    let began = match &mut body {
        RunningBody::Cpu(body) => body.take_beginning(),
        RunningBody::Io(_) => None,
    };
    // The timers are large and most runs have none, so they are boxed only where there are limits, and a run stays
    // small.
    let limited = soft.is_some() || hard.is_some();
    let limits = limited.then(|| Box::pin(limits(began, soft, hard, context)));
    let mut limits = pin!(OptionFuture::from(limits));
    tokio::select! {
        // The body comes first, so that one which is ready at its limit counts as ended.
        biased;
        outcome = &mut body => outcome,
        Some(limit) = &mut limits, if limited => Err(Ending::TimeLimit(limit)),
        // A blocking body cannot be stopped from outside: it is told to end, and its return is waited for.
        interrupt = context.terminated(), if io => Err(Ending::Interrupted(interrupt)),
        () = run.force.cancelled() => Err(Ending::Interrupted(Interrupt::Shutdown)),
    }
}

/// Interrupts the body at the soft limit. Completes at the hard limit with that limit, or never if there is none. Both
/// count from the beginning of the body: a body that waits for a thread does not run.
pub(super) async fn limits(
    began: Option<oneshot::Receiver<()>>,
    soft: Option<Duration>,
    hard: Option<Duration>,
    context: &Context,
) -> Duration {
    if let Some(began) = began {
        let _ = began.await;
    }
    let start = tokio::time::Instant::now();
    if let Some(soft) = soft.filter(|soft| hard.is_none_or(|hard| *soft < hard)) {
        tokio::time::sleep_until(deadline(start, soft)).await;
        context.interrupt_with(Interrupt::SoftTimeLimit);
    }
    match hard {
        Some(hard) => {
            tokio::time::sleep_until(deadline(start, hard)).await;
            hard
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_active_until_its_guard_goes() {
        let meter = ActivityMeter::default();
        let first = meter.begin();
        let second = meter.begin();
        assert_eq!(meter.read(), Activity { active: 2, processed: 2 });
        drop((first, second));
        assert_eq!(meter.read(), Activity { active: 0, processed: 2 });
    }
}
