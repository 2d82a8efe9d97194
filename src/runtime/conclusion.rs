//! The conclusion of a run: its verdict is carried out step by step, and the log, the hooks and the watchers are
//! told. `run.rs` calls it for runs, and the queue for deliveries that end without a run.
//!
//! Invariants:
//! - The verdict goes to the broker once, as the [`Settle`] of the delivery. What must not be told too early waits
//!   until the broker says that this is safe.
//! - If the future is dropped on its way, the delivery is dropped with it and goes back to the broker.

use std::future::Future;
use std::pin::Pin;

use tokio::sync::oneshot;

use super::Runtime;
use super::events::{tell_sent, traceback};
use super::follow_ups::instead;
use super::hooks::{event_of, tell, tell_ready, waits_for_end};
use super::run::Report;
#[cfg(feature = "otel")]
use super::run_span::end_span;
use crate::broker::{Delivery, Settle};
use crate::core::text::{ERROR, logged_errors, shortened};
use crate::protocol::result::Exception;
use crate::task::{
    AfterFailure, Context, DownloadFacts, EventGroup, Hooks, Json, Message, Next, State, TaskResult,
    TrackedState, Verdict,
};

/// Carries a verdict out. `delivery` is `None` if the task was acknowledged before it ran, and `hooks` is `None` if neither
/// the task nor the program has any that are called around runs. Who asks by `kept` is told whether the end is as safe as
/// the broker makes it, once that is known. Returns the report for the queue's counters.
pub(crate) async fn conclude(
    mut verdict: Verdict,
    delivery: Option<Delivery>,
    context: &Context,
    hooks: Option<&Hooks>,
    runtime: &Runtime,
    kept: Option<oneshot::Sender<bool>>,
) -> Report {
    // First the fence: if the run has lost its lane, another run may be under way, and only that one's end counts.
    if let Some(delivery) = delivery.as_ref().filter(|delivery| delivery.fence().is_some())
        && !delivery.is_still_ours().await
    {
        let id = &context.message().id;
        tracing::warn!(%id, task = context.task(), "a run has lost its lane; its end does not count");
        return Report::HANDED_BACK; // the dropped delivery has no effect any more
    }
    let report = Report::of(&verdict);
    #[cfg(feature = "otel")]
    end_span(context, &verdict);
    // Permits are given back before the record is stored, so that whoever sees that the task is over finds them
    // free. A task that runs again may keep the permit that was handed over to it.
    context.end_permits(matches!(verdict, Verdict::Again { .. } | Verdict::HandBack));
    log(context, &verdict);
    // The file comes to its final place before a record names it.
    let ready = promote(&mut verdict, context);
    // The bar closes before the last states are written, so that no state is newer than the end.
    context.close_bar(!report.is_over());
    // The hooks' event is taken from the verdict before the settlement consumes it.
    let event = hooks.and_then(|hooks| event_of(&verdict, hooks, &runtime.hooks));
    let is_heard = runtime.events.is_heard(EventGroup::Run);
    let ends = is_heard.then(|| runtime.ends(&verdict, context));
    // All states are stored before the record, which replaces them.
    if context.has_reported() {
        Box::pin(runtime.states.flush(context.id())).await;
    }
    context.forget_bar();
    // Whoever asks for a task that runs again or is replaced must be told before anybody can start what comes next.
    if let Some(state) = goes_on(&verdict, context, runtime)
        && let Err(error) = runtime.store.track(state).await
    {
        tracing::warn!(id = %context.id(), %error, "the state of a task that goes on is not stored");
    }
    // The settlement is waited for only where something hangs on it: a download is kept until it is known whether
    // the record names it, a bar is shown until the record is there, and a hook, or somebody who asks, must hear of
    // nothing that may not have happened.
    let told =
        event.is_some() || kept.is_some() || hooks.is_some_and(|hooks| waits_for_end(hooks, &runtime.hooks));
    let wait = told || context.has_exposed() || (report.is_over() && context.has_reported());
    let is_settled = match settle(settle_of(verdict, context, runtime), delivery, context, runtime, wait) {
        Some(settled) => settled.await,
        None => true,
    };
    // From here on the end has happened, and may be told.
    if let Some(kept) = kept {
        let _ = kept.send(is_settled); // who has asked may be gone
    }
    if let Some(ends) = ends.filter(|_| is_settled) {
        runtime.tell_ends(context.message_arc(), ends);
    }
    if context.has_exposed() {
        context.release_download(ready.is_some());
    }
    runtime.progress_hub.changed(context.id());
    if report.is_over() && context.has_reported() {
        Box::pin(forget_states(context, runtime)).await;
    }
    if let (Some(hooks), Some(event)) = (hooks, event) {
        tell(hooks, &runtime.hooks, context, &event);
    }
    if let Some(facts) = ready.filter(|_| is_settled) {
        tell_ready(&runtime.hooks, context, &facts);
    }
    report
}

/// Moves the download of a task that has succeeded to its final place and names it in the record. Returns its facts.
fn promote(verdict: &mut Verdict, context: &Context) -> Option<DownloadFacts> {
    let Verdict::Over(record) = verdict else { return None };
    if context.has_exposed() {
        context.promote_download(record);
    }
    record.download.as_deref().map(|download| download.facts.clone())
}

/// Makes the settlement from the verdict, with all that follows from the task's end. If the failure of a serial
/// task blocks its lane, the broker does that, so it gets the record even if the task's result is not kept.
fn settle_of(verdict: Verdict, context: &Context, runtime: &Runtime) -> Settle {
    let message = context.message();
    let (mut record, rejected) = match verdict {
        Verdict::Over(record) => (record, None),
        Verdict::Dead { reason, record } => (record, Some(reason)),
        Verdict::Again { message, due, next, .. } => {
            // In Celery a retry is a call like any other.
            if next == Next::Retry {
                tell_sent(&runtime.events, &message);
            }
            return Settle::Requeue { message, due };
        }
        Verdict::Replaced(launch) => {
            return Settle::Ack {
                result: None,
                follow_ups: Some(instead(&runtime.dispatcher, &runtime.events, &context.origin(), *launch)),
            };
        }
        Verdict::HandBack => return Settle::Return { crashed: false },
    };
    // Programs in Python print the traceback of what failed, and expect text.
    if record.traceback.is_none() && is_run_that_failed(&record) && runtime.store.is_shared() {
        record.traceback = Some(traceback(&Exception::of(&record), &record));
    }
    // Nothing follows from a task without a workflow.
    let follow_ups =
        message.workflow.as_ref().and_then(|_| runtime.follow_ups(&context.origin(), &mut record));
    if let Some(reason) = rejected {
        return Settle::DeadLetter { reason, result: Some(*record), follow_ups };
    }
    // A serial task that was refused before its start does not do to its lane what a failed run does.
    let serial = message.serial.as_deref().filter(|serial| serial.refusal.is_none());
    let after_failure = serial.filter(|_| record.state == State::Failure).map(|serial| serial.after_failure);
    let is_kept = runtime.keeps(message, record.state)
        || after_failure == Some(AfterFailure::Block)
        || record.download.is_some();
    let reason = match after_failure {
        Some(AfterFailure::Park) => Some("parked"),
        _ if is_run_that_failed(&record) && is_dead_if_failed(message, runtime) => Some("failed"),
        _ => None,
    };
    let reason = reason.map(|why| format!("{why}: {}", record.errors.join(": ")));
    let is_failed = reason.is_none() && record.state == State::Failure;
    let failed = if is_failed { runtime.failed_task(context, &record) } else { None };
    let result = is_kept.then_some(*record);
    match (reason, failed) {
        (Some(reason), _) => Settle::DeadLetter { reason, result, follow_ups },
        (None, Some(failed)) => Settle::Fail { failed: Box::new(failed), result, follow_ups },
        (None, None) => Settle::Ack { result, follow_ups },
    }
}

impl Runtime {
    /// Whether the store is told of a task that comes to this state.
    pub(crate) fn keeps(&self, message: &Message, state: State) -> bool {
        let is_error = matches!(state, State::Retry | State::Failure | State::Revoked | State::Rejected);
        let keeps_errors = || {
            self.dispatcher
                .registry
                .get(&message.task)
                .is_some_and(|task| (task.options)().store_errors_even_if_ignored)
        };
        !message.ignore_result || (is_error && keeps_errors())
    }
}

/// Whether this is the record of a run, and not of a task that did not come to its start.
fn is_run_that_failed(record: &TaskResult) -> bool {
    record.state == State::Failure && record.worker.is_some()
}

/// Whether a task that fails becomes a dead letter: it says `acks_on_failure_or_timeout = false`, which holds for tasks
/// that are settled after their run.
fn is_dead_if_failed(message: &Message, runtime: &Runtime) -> bool {
    let definition = runtime.dispatcher.registry.get(&message.task);
    message.settles_late() && definition.is_some_and(|task| !(task.options)().acks_on_failure_or_timeout)
}

/// Settles the delivery. `None`: it is done, and nobody waits for more. With `wait`, and for a task without a delivery, there is
/// something to await, which is apart so that other runs need no room for it: see [`settle_and_wait`].
fn settle(
    settle: Settle,
    delivery: Option<Delivery>,
    context: &Context,
    runtime: &Runtime,
    wait: bool,
) -> Option<Pin<Box<impl Future<Output = bool>>>> {
    match delivery {
        Some(delivery) if !wait => {
            delivery.settle(settle);
            None
        }
        delivery => Some(Box::pin(settle_and_wait(settle, delivery, context, runtime))),
    }
}

/// Settles the delivery, or ends a task that has none, and completes when the broker says that this is safe. Returns whether it
/// is.
async fn settle_and_wait(
    settle: Settle,
    delivery: Option<Delivery>,
    context: &Context,
    runtime: &Runtime,
) -> bool {
    let Some(delivery) = delivery else {
        runtime.end_undelivered(context.message(), settle).await;
        return true;
    };
    let settled = delivery.settle_and_wait(settle).await;
    if let Err(error) = &settled {
        tracing::error!(id = %context.id(), %error, "the end of a run may not be kept; the task may run again");
    }
    settled.is_ok()
}

/// The state that the store gets for a task that goes on: RETRY after a failed attempt, if other processes read the
/// store; PENDING for a task that is replaced, because it has no message for a while. `None`: the store is told
/// nothing.
fn goes_on(verdict: &Verdict, context: &Context, runtime: &Runtime) -> Option<TrackedState> {
    match verdict {
        Verdict::Again { failed: Some(failed), .. }
            if runtime.store.is_shared() && runtime.keeps(context.message(), State::Retry) =>
        {
            Some(runtime.state_of_retry(context, TaskResult::clone(failed)))
        }
        // A broker that does not know all tasks answers PENDING for every unknown id anyway, so only the other kind
        // needs this.
        Verdict::Replaced(_) if runtime.broker.facts().knows_all => {
            let (id, state) = (context.id().clone(), State::Pending.as_str().to_owned());
            Some(TrackedState { id, state, meta: Json::default(), traceback: None, lineage: None })
        }
        _ => None,
    }
}

/// Deletes the last reported state of a task that is over.
async fn forget_states(context: &Context, runtime: &Runtime) {
    if let Err(error) = runtime.store.untrack(context.id()).await {
        tracing::debug!(id = %context.id(), %error, "the last state of a task that is over stays for a while");
    }
}

/// Logs what becomes of a task. An error that was expected is information.
fn log(context: &Context, verdict: &Verdict) {
    let (id, task, is_expected) = (context.id(), context.task(), context.is_expected());
    match verdict {
        Verdict::Over(r) if r.state == State::Failure && is_expected => {
            tracing::info!(%id, task, errors = ?r.errors, error_type = ?r.error_type, attempts = r.attempts, "FAILURE, as expected");
        }
        Verdict::Again { message: m, due, next: Next::Retry, .. } if is_expected => {
            tracing::info!(%id, task, errors = ?m.last_errors, retries = m.retries, due = ?due.map(|d| d.to_string()), "RETRY");
        }
        Verdict::Dead { reason, .. } if is_expected => {
            tracing::info!(%id, task, reason, "REJECTED, as expected");
        }
        Verdict::Over(r) if r.state == State::Failure => {
            let place = context.panic_place();
            tracing::error!(%id, task, errors = ?logged_errors(&r.errors), error_type = ?r.error_type, place, attempts = r.attempts, "FAILURE");
        }
        Verdict::Over(r) => tracing::debug!(%id, task, state = %r.state, "over"),
        Verdict::Again { message: m, due, next: Next::Retry, .. } => {
            let place = context.panic_place();
            tracing::warn!(%id, task, errors = ?logged_errors(&m.last_errors), place, retries = m.retries, due = ?due.map(|d| d.to_string()), "RETRY");
        }
        Verdict::Again { message: m, due, next: Next::Requeue, .. } => {
            let due = due.map(|due| due.to_string());
            tracing::warn!(%id, task, reason = ?m.last_errors, times = m.requeues(), ?due, "rejected, and put back");
        }
        Verdict::Again { next, .. } => tracing::debug!(%id, task, ?next, "waits again"),
        Verdict::Replaced(launch) => {
            let by: Vec<_> = launch.calls.iter().map(|call| call.task.as_str()).collect();
            tracing::debug!(%id, task, ?by, "replaced");
        }
        Verdict::HandBack => tracing::info!(%id, task, "handed back to its queue"),
        Verdict::Dead { reason, .. } => {
            tracing::error!(%id, task, reason = shortened(reason, ERROR).as_ref(), "REJECTED");
        }
    }
}
