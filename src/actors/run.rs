//! One run of one task, from the delivery in hand to its settlement.
//!
//! A run happens beside its worker, not inside an actor's own poll, so nothing a body does can hurt an actor. It ends
//! in exactly one settlement: the delivery is moved in, and settled or (should the run itself be dropped) handed back.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use futures_util::future::OptionFuture;
use tokio_util::sync::CancellationToken;

use super::body::{BodyOutcome, CpuBody, IoBody, Stuck, guard, is_panic, start_io};
use super::runtime::Runtime;
use super::sequel::instead;
use crate::app::catalogue::Pool;
use crate::broker::{Delivery, Sequel, Settle};
use crate::core::Timestamp;
use crate::task::clock::now;
use crate::task::{
    AfterFailure, Body, Context, Ending, HookEvent, Hooks, Interrupt, Judge, Message, Next, State,
    TaskDefinition, TaskResult, Until, Verdict,
};

/// A run whose permit was handed over to it, and is another one's by now, tries again after this long.
const PERMIT_PAUSE: Duration = Duration::from_secs(1);

/// What a run needs.
pub(crate) struct Run {
    pub(crate) definition: &'static TaskDefinition,
    pub(crate) context: Context,
    pub(crate) pool: Pool,
    /// Shutdown has lost its patience: end now and hand back.
    pub(crate) force: CancellationToken,
    pub(crate) stuck: Arc<Stuck>,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) started_at: Timestamp,
}

/// How a run ended, for the queue's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Over(State),
    Again(Next),
    HandedBack,
}

impl Ended {
    pub(super) fn of(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Over(record) | Verdict::Dead { record, .. } => Self::Over(record.state),
            Verdict::Again { next, .. } => Self::Again(*next),
            Verdict::Replaced(_) => Self::Again(Next::Replace),
            Verdict::HandBack => Self::HandedBack,
        }
    }
}

/// What the queue is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    pub(super) ended: Ended,
    pub(super) panicked: bool,
    pub(super) timed_out: bool,
}

impl Report {
    /// Of a run that never began, or was lost on its way.
    pub(super) const HANDED_BACK: Self = Self { ended: Ended::HandedBack, panicked: false, timed_out: false };
}

/// Which way a body stopped being waited for.
pub(crate) enum Stop {
    Outcome(BodyOutcome),
    HardLimit(Duration),
    Terminated(Interrupt),
    Forced,
}

impl Stop {
    fn is_panic(&self) -> bool {
        matches!(self, Self::Outcome(outcome) if is_panic(outcome))
    }
}

/// A body of either kind.
enum Running {
    Io(IoBody),
    Cpu(CpuBody),
}

impl Future for Running {
    type Output = BodyOutcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<BodyOutcome> {
        match &mut *self {
            Self::Io(body) => Pin::new(body).poll(cx),
            Self::Cpu(body) => Pin::new(body).poll(cx),
        }
    }
}

impl Run {
    /// Runs the task and settles it.
    pub(super) async fn execute(self, delivery: Delivery) -> Report {
        let hooks = self.hooks();
        let delivery = match self.begin(delivery).await {
            Ok(delivery) => delivery,
            Err(report) => return report,
        };
        let stop = self.body(&hooks).await;
        let (panicked, timed_out) = (stop.is_panic(), matches!(&stop, Stop::HardLimit(_)));
        let verdict = self.verdict(stop, rand::random());
        let ended = conclude(verdict, delivery, &self.context, &hooks, &self.runtime).await;
        Report { ended, panicked, timed_out }
    }

    /// The task's hooks.
    pub(crate) fn hooks(&self) -> Hooks {
        guard(self.definition.hooks).unwrap_or_default()
    }

    /// Notes that it starts. The delivery is gone if it was settled by that; an error is what came of it instead of a start.
    pub(crate) async fn begin(&self, delivery: Delivery) -> Result<Option<Delivery>, Report> {
        let message = self.context.message();
        let mut delivery = Some(delivery);
        if !message.settles_late() {
            Box::pin(self.runtime.window_at_end(message)).await;
            // At most once: gone from the broker before the body starts, or the body does not start.
            if let Some(delivery) = delivery.take()
                && let Err(error) = delivery.settle_and_wait(Settle::Ack { result: None, sequel: None }).await
            {
                tracing::warn!(id = %message.id, %error, "not started, because it could not be acknowledged first");
                return Err(Report::HANDED_BACK);
            }
        }
        if !Box::pin(self.context.adopt_permit()).await {
            let judge = Judge::unstarted(message, now());
            let again = Ending::Postpone { until: Until::In(PERMIT_PAUSE) };
            let verdict = judge.judge(Err(again));
            let ended = conclude(verdict, delivery, &self.context, &Hooks::default(), &self.runtime).await;
            return Err(Report { ended, panicked: false, timed_out: false });
        }
        if message.unique.is_some() {
            let ended = self.force.run_until_cancelled(self.runtime.window_at_start(message));
            if Box::pin(ended).await.is_none() {
                return Err(Report::HANDED_BACK); // the delivery goes back
            }
        }
        if let Some(delivery) = &mut delivery {
            delivery.started();
        }
        self.runtime.begin(&self.context, self.definition).await;
        Ok(delivery)
    }

    /// Runs the body.
    pub(crate) async fn body(&self, hooks: &Hooks) -> Stop {
        wait(self, hooks).await
    }

    /// What follows from it.
    pub(crate) fn verdict(&self, stop: Stop, entropy: u64) -> Verdict {
        let judge = Judge {
            message: self.context.message(),
            now: now(),
            started_at: Some(self.started_at),
            worker: Some(self.context.worker()),
            entropy,
            revoked: self.context.decide(),
        };
        match stop {
            // Whatever it did after it had said so.
            _ if self.context.failure().is_some() => judge.failed(self.context.failure().unwrap_or_default()),
            Stop::Outcome(outcome) => judge.judge(outcome),
            Stop::HardLimit(limit) => judge.time_limit(limit),
            Stop::Terminated(interrupt) => judge.judge(Err(Ending::Interrupted(interrupt))),
            Stop::Forced => judge.judge(Err(Ending::Interrupted(Interrupt::Shutdown))),
        }
    }
}

/// Carries a verdict out, and tells the log and the hooks.
pub(crate) async fn conclude(
    mut verdict: Verdict,
    delivery: Option<Delivery>,
    context: &Context,
    hooks: &Hooks,
    runtime: &Runtime,
) -> Ended {
    if let Some(delivery) = delivery.as_ref().filter(|delivery| delivery.fence().is_some())
        && !delivery.is_still_ours().await
    {
        let id = &context.message().id;
        tracing::warn!(%id, task = context.task(), "a run has lost its lane; how it ended does not count");
        return Ended::HandedBack; // dropped, the delivery is done with
    }
    let ended = Ended::of(&verdict);
    context.end_permits(matches!(verdict, Verdict::Again { .. } | Verdict::HandBack));
    log(context.message(), &verdict);
    if let Verdict::Over(record) = &mut verdict {
        context.promote_download(record);
    }
    let ready = match &verdict {
        Verdict::Over(record) => record.download.as_deref().map(|download| download.facts.clone()),
        _ => None,
    };
    context.close_bar(!matches!(ended, Ended::Over(_)));
    let event = event_of(&verdict, hooks, runtime);
    if context.has_reported() {
        Box::pin(runtime.states.flush(context.id())).await;
    }
    context.forget_bar();
    if let Verdict::Again { failed: Some(failed), .. } = &verdict
        && runtime.store.is_shared()
        && !context.message().ignore_result
    {
        Box::pin(runtime.track_retry(context, TaskResult::clone(failed))).await;
    }
    // What was exposed is held until it is known that the record names it, and a bar is shown until its record is there.
    let tells = matches!(ended, Ended::Over(_)) && context.has_reported();
    let wait = event.is_some() || context.has_exposed() || tells;
    let is_settled = settle(verdict, delivery, context.message(), runtime, wait).await;
    context.release_download(ready.is_some());
    runtime.board.changed(context.id());
    if context.has_reported() && matches!(ended, Ended::Over(_)) {
        Box::pin(runtime.untrack(context.id())).await;
    }
    if let Some(event) = event {
        tell(hooks, runtime, context, &event);
    }
    if let (Some(facts), Some(hook), true) = (ready, runtime.on_ready.as_deref(), is_settled)
        && let Err(Ending::Failure { messages, .. }) = guard(|| hook(context, &facts))
    {
        let panic = messages.join(": ");
        tracing::error!(id = %context.id(), task = context.task(), panic, "a hook panicked; the download is ready");
    }
    ended
}

/// Runs the body until it ends or is not waited for any longer.
async fn wait(run: &Run, hooks: &Hooks) -> Stop {
    let (message, context) = (run.context.message(), &run.context);
    if let Some(hook) = hooks.before_start
        && let Err(panic) = guard(|| hook(context, &HookEvent::BeforeStart))
    {
        return Stop::Outcome(Err(panic));
    }
    let mut body = match (run.definition.body, run.pool) {
        (Body::Io(start), Pool::Io) => match start_io(start, context.clone()) {
            Ok(body) => Running::Io(body),
            Err(ending) => return Stop::Outcome(Err(ending)),
        },
        _ => Running::Cpu(CpuBody::start(run.definition, context.clone(), Arc::clone(&run.stuck))),
    };
    let io = matches!(body, Running::Io(_));
    // Timers are large and most runs have none. What is rare in a run is boxed, so that a run is small.
    let limited = message.soft_time_limit.is_some() || message.time_limit.is_some();
    let limits = limited.then(|| Box::pin(limits(message.soft_time_limit, message.time_limit, context)));
    let mut limits = pin!(OptionFuture::from(limits));
    tokio::select! {
        biased;
        outcome = &mut body => Stop::Outcome(outcome),
        Some(limit) = &mut limits, if limited => Stop::HardLimit(limit),
        // A blocking body cannot be stopped from outside: it is told, and its return is waited for.
        interrupt = context.terminated(), if io => Stop::Terminated(interrupt),
        () = run.force.cancelled() => Stop::Forced,
    }
}

/// Tells the body about the soft limit; ends at the hard one, if there is one.
async fn limits(soft: Option<Duration>, hard: Option<Duration>, context: &Context) -> Duration {
    let start = tokio::time::Instant::now();
    if let Some(soft) = soft.filter(|soft| hard.is_none_or(|hard| *soft < hard)) {
        tokio::time::sleep_until(start + soft).await;
        context.interrupt_with(Interrupt::SoftTimeLimit);
    }
    match hard {
        Some(hard) => {
            tokio::time::sleep_until(start + hard).await;
            hard
        }
        None => std::future::pending().await,
    }
}

fn log(message: &Message, verdict: &Verdict) {
    let (id, task) = (&message.id, &message.task);
    match verdict {
        Verdict::Over(r) if r.state == State::Failure => {
            tracing::error!(%id, task, errors = ?r.errors, error_type = ?r.error_type, attempts = r.attempts, "FAILURE");
        }
        Verdict::Over(r) => tracing::debug!(%id, task, state = %r.state, "over"),
        Verdict::Again { message: m, due, next: Next::Retry, .. } => {
            tracing::warn!(%id, task, errors = ?m.last_errors, retries = m.retries, due = ?due.map(|d| d.to_string()), "RETRY");
        }
        Verdict::Again { next, .. } => tracing::debug!(%id, task, ?next, "waits again"),
        Verdict::Replaced(launch) => {
            let by: Vec<_> = launch.calls.iter().map(|call| call.task.as_str()).collect();
            tracing::debug!(%id, task, ?by, "replaced");
        }
        Verdict::HandBack => tracing::info!(%id, task, "handed back to its queue"),
        Verdict::Dead { reason, .. } => tracing::error!(%id, task, reason, "REJECTED"),
    }
}

/// What the hooks are to be told, if there are any for it.
fn event_of(verdict: &Verdict, hooks: &Hooks, runtime: &Runtime) -> Option<HookEvent> {
    let on_failure = hooks.on_failure.is_some() || runtime.on_failure.is_some();
    match verdict {
        Verdict::Over(r) if r.state == State::Success && hooks.on_success.is_some() => {
            Some(HookEvent::Success(r.result.clone().unwrap_or_default()))
        }
        Verdict::Over(r) if r.state == State::Failure && on_failure => {
            Some(HookEvent::Failure(r.errors.clone()))
        }
        Verdict::Dead { reason, .. } if on_failure => Some(HookEvent::Failure(vec![reason.clone()])),
        Verdict::Again { message, next: Next::Retry, .. } if hooks.on_retry.is_some() => {
            Some(HookEvent::Retry(message.last_errors.clone()))
        }
        _ => None,
    }
}

/// Tells the task's hook and the program's; their panics change nothing any more.
fn tell(hooks: &Hooks, runtime: &Runtime, context: &Context, event: &HookEvent) {
    let own = match event {
        HookEvent::Success(_) => hooks.on_success,
        HookEvent::Retry(_) => hooks.on_retry,
        HookEvent::Failure(_) => hooks.on_failure,
        HookEvent::BeforeStart => None,
    };
    let failed = matches!(event, HookEvent::Failure(_));
    let everybodys = if failed { runtime.on_failure.as_deref() } else { None };
    let own = guard(|| own.map_or((), |hook| hook(context, event)));
    let everybodys = guard(|| everybodys.map_or((), |hook| hook(context, event)));
    for told in [own, everybodys] {
        if let Err(Ending::Failure { messages, .. }) = told {
            let panic = messages.join(": ");
            tracing::error!(id = %context.id(), task = context.task(), panic, "a hook panicked; the outcome stands");
        }
    }
}

/// How a task that is over leaves the broker. What a failure does to its lane is the broker's to do, so it gets the record
/// of a serial task that blocks its lane even if none is kept.
fn end_of(record: TaskResult, sequel: Option<Box<Sequel>>, message: &Message) -> Settle {
    let serial = message.serial.as_deref().filter(|serial| serial.refusal.is_none());
    let after_failure = serial.filter(|_| record.state == State::Failure).map(|serial| serial.after_failure);
    let kept =
        !message.ignore_result || after_failure == Some(AfterFailure::Block) || record.download.is_some();
    match after_failure {
        Some(AfterFailure::Park) => {
            let reason = format!("parked: {}", record.errors.join(": "));
            Settle::DeadLetter { reason, result: kept.then_some(record), sequel }
        }
        _ => Settle::Ack { result: kept.then_some(record), sequel },
    }
}

/// Settles. `wait`: come back only when that is safe, because somebody is told next; says whether it is, as far as that was
/// waited for.
async fn settle(
    verdict: Verdict,
    delivery: Option<Delivery>,
    message: &Message,
    runtime: &Runtime,
    wait: bool,
) -> bool {
    let settle = match verdict {
        Verdict::Over(mut record) => {
            let sequel = runtime.sequel(message, &mut record);
            end_of(*record, sequel, message)
        }
        Verdict::Again { message, due, .. } => Settle::Requeue { message, due },
        Verdict::Replaced(launch) => {
            runtime.expect_later(&message.id).await;
            Settle::Ack { result: None, sequel: Some(instead(&runtime.dispatcher, message, *launch)) }
        }
        Verdict::HandBack => Settle::Return { crashed: false },
        Verdict::Dead { reason, mut record } => {
            let sequel = runtime.sequel(message, &mut record);
            Settle::DeadLetter { reason, result: Some(*record), sequel }
        }
    };
    if delivery.is_some() && message.unique.is_some() && is_end(&settle) {
        Box::pin(runtime.window_at_end(message)).await;
    }
    let Some(delivery) = delivery else {
        Box::pin(runtime.settle_early_acked(settle, message)).await;
        return true;
    };
    if !runtime.settles_results {
        return Box::pin(settle_elsewhere(settle, delivery, message, runtime, wait)).await;
    }
    end(delivery, settle, message, wait).await
}

/// Whether the task is over with it.
fn is_end(settle: &Settle) -> bool {
    matches!(settle, Settle::Ack { .. } | Settle::DeadLetter { .. })
}

async fn end(delivery: Delivery, settle: Settle, message: &Message, wait: bool) -> bool {
    if !wait {
        delivery.settle(settle);
        return true;
    }
    let settled = delivery.settle_and_wait(settle).await;
    if let Err(error) = &settled {
        tracing::error!(id = %message.id, %error, "the end of a run may not be kept; the task may run again");
    }
    settled.is_ok()
}

/// Settles with a broker that keeps no results: they, and the chords, are the store's. What is to pass a lane goes by the
/// front door.
async fn settle_elsewhere(
    mut settle: Settle,
    delivery: Delivery,
    message: &Message,
    runtime: &Runtime,
    wait: bool,
) -> bool {
    let mut completed = Vec::new();
    match &mut settle {
        Settle::Ack { result, sequel } | Settle::DeadLetter { result, sequel, .. } => {
            match result.take() {
                None => {}
                // Its lane is to know how it ended, and may have been the only one to be told.
                Some(record) if message.serial.is_some() => {
                    if !message.ignore_result {
                        runtime.put_result(record.clone()).await;
                    }
                    *result = Some(record);
                }
                Some(record) => runtime.put_result(record).await,
            }
            if let Some(sequel) = sequel {
                let messages;
                (messages, completed) = runtime.bring_to_store(std::mem::take(&mut **sequel)).await;
                let (serial, plain) = messages.into_iter().partition(|message| message.serial.is_some());
                runtime.line_up(serial).await;
                sequel.messages = plain;
            }
        }
        // It came without a lane, and is to stand in one.
        Settle::Requeue { message: next, .. } if message.serial.is_none() && next.serial.is_some() => {
            runtime.line_up(vec![Message::clone(next)]).await;
            settle = Settle::Ack { result: None, sequel: None };
        }
        Settle::Requeue { .. } | Settle::Return { .. } => {}
    }
    let wait = wait || !completed.is_empty();
    let is_settled = end(delivery, settle, message, wait).await;
    if is_settled {
        runtime.close_chords(completed).await;
    }
    is_settled
}
