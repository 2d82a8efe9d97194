//! The hooks around a run: the task's own, and the program's for all of its tasks.
//!
//! Invariants:
//! - A hook is told of an end only when that end is as safe as the broker makes it.
//! - The panic of a hook is logged and changes nothing, but for one before the body: that fails the attempt.

use std::sync::Arc;

use super::Runtime;
use super::body::guard;
use super::run::Report;
use crate::core::text::logged_errors;
use crate::task::{
    Context, DownloadFacts, Ending, HookEvent, Hooks, Message, Next, Sinks, State, TaskResult, Verdict,
};

/// A hook that is called for all tasks of a program. Celery has signals for that, and `CELERY_TASK_ANNOTATIONS['*']`;
/// CommCare HQ hangs its error tracker there.
pub type ProgramHook = dyn Fn(&Context, &HookEvent) + Send + Sync;

/// A hook that is called when the download of a task is ready: on the queue's event loop, after the record that
/// says so is safe. It must not block. If the process dies in between, the hook is not called again; what must
/// happen for sure belongs into a task that follows from this one (`link`). CommCare HQ sends its mail "Export
/// Complete" at this point.
pub type ReadyHook = dyn Fn(&Context, &DownloadFacts) + Send + Sync;

/// A hook that is called on the queue's event loop when a worker starts, with the queue's name and the worker's
/// slot. If it panics, the worker has not started. In the process pool it is called in the worker's child process.
/// Celery's `worker_process_init`.
pub type WorkerHook = dyn Fn(&str, usize) + Send + Sync;

/// A hook that is asked whether a task that has expired is to run all the same.
pub type ExpiryHook = dyn Fn(&Message) -> bool + Send + Sync;

/// The program's own hooks.
#[derive(Default)]
pub(crate) struct ProgramHooks {
    pub(crate) before_start: Option<Box<ProgramHook>>,
    pub(crate) on_success: Option<Box<ProgramHook>>,
    pub(crate) on_retry: Option<Box<ProgramHook>>,
    pub(crate) on_failure: Option<Box<ProgramHook>>,
    pub(crate) on_revoked: Option<Box<ProgramHook>>,
    pub(crate) after_return: Option<Box<ProgramHook>>,
    pub(crate) on_ready: Option<Box<ReadyHook>>,
    pub(crate) on_worker_start: Option<Box<WorkerHook>>,
    pub(crate) exempt_from_expiry: Option<Box<ExpiryHook>>,
}

impl ProgramHooks {
    /// Whether the program has hooks that are called around runs. The others are about workers and expired tasks.
    pub(crate) fn has_any_of_runs(&self) -> bool {
        let of_runs = [
            &self.before_start,
            &self.on_success,
            &self.on_retry,
            &self.on_failure,
            &self.on_revoked,
            &self.after_return,
        ];
        self.on_ready.is_some() || of_runs.iter().any(|hook| hook.is_some())
    }

    /// The hook for this event, if the program has one.
    fn of(&self, event: &HookEvent) -> Option<&ProgramHook> {
        let hook = match event {
            HookEvent::BeforeStart => &self.before_start,
            HookEvent::Success(_) => &self.on_success,
            HookEvent::Retry(_) => &self.on_retry,
            HookEvent::Failure(_) => &self.on_failure,
            HookEvent::Revoked(_) => &self.on_revoked,
            HookEvent::AfterReturn(_) => &self.after_return,
        };
        hook.as_deref()
    }

    /// Whether a task that has expired is to run all the same. A hook that panics exempts nothing.
    pub(crate) fn exempts(&self, message: &Message) -> bool {
        let Some(hook) = &self.exempt_from_expiry else { return false };
        guard(|| hook(message)).unwrap_or_else(|_| {
            tracing::error!(id = %message.id, task = message.task, "the hook for expired tasks panicked; the task is revoked");
            false
        })
    }
}

/// Calls the hooks before a body: the program's, then the task's, as Celery does.
///
/// # Errors
/// A hook has panicked, and the attempt has failed.
pub(super) fn before_start(hooks: &Hooks, program: &ProgramHooks, context: &Context) -> Result<(), Ending> {
    if let Some(hook) = &program.before_start {
        guard(|| hook(context, &HookEvent::BeforeStart))?;
    }
    if let Some(hook) = hooks.before_start {
        guard(|| hook(context, &HookEvent::BeforeStart))?;
    }
    Ok(())
}

/// Calls the hooks after a run, whatever came of it.
pub(super) fn after_return(hooks: &Hooks, program: &ProgramHooks, context: &Context, report: &Report) {
    if waits_for_end(hooks, program) {
        let state = match (report.over, report.again) {
            (Some(state), _) => state,
            (None, Some(Next::Retry)) => State::Retry,
            (None, _) => State::Pending,
        };
        tell(hooks, program, context, &HookEvent::AfterReturn(state));
    }
}

/// Whether somebody is to be told when a run is over, so that its settlement is waited for.
pub(super) fn waits_for_end(hooks: &Hooks, program: &ProgramHooks) -> bool {
    hooks.after_return.is_some() || program.after_return.is_some()
}

/// What the hooks will be told of a verdict; `None`: there is no hook for it.
pub(super) fn event_of(verdict: &Verdict, hooks: &Hooks, program: &ProgramHooks) -> Option<HookEvent> {
    match verdict {
        Verdict::Over(record) => event_of_end(record, hooks, program),
        Verdict::Dead { reason, .. } if hooks.on_failure.is_some() || program.on_failure.is_some() => {
            Some(HookEvent::Failure(vec![reason.clone()]))
        }
        Verdict::Again { message, next: Next::Retry, .. }
            if hooks.on_retry.is_some() || program.on_retry.is_some() =>
        {
            Some(HookEvent::Retry(message.last_errors.clone()))
        }
        _ => None,
    }
}

fn event_of_end(record: &TaskResult, hooks: &Hooks, program: &ProgramHooks) -> Option<HookEvent> {
    match record.state {
        State::Success if hooks.on_success.is_some() || program.on_success.is_some() => {
            Some(HookEvent::Success(record.result.clone().unwrap_or_default()))
        }
        State::Failure | State::Rejected if hooks.on_failure.is_some() || program.on_failure.is_some() => {
            Some(HookEvent::Failure(record.errors.clone()))
        }
        State::Revoked if program.on_revoked.is_some() => Some(HookEvent::Revoked(record.errors.clone())),
        _ => None,
    }
}

/// Calls the task's hook and the program's.
pub(super) fn tell(hooks: &Hooks, program: &ProgramHooks, context: &Context, event: &HookEvent) {
    let own = match event {
        HookEvent::Success(_) => hooks.on_success,
        HookEvent::Retry(_) => hooks.on_retry,
        HookEvent::Failure(_) => hooks.on_failure,
        HookEvent::AfterReturn(_) => hooks.after_return,
        HookEvent::BeforeStart | HookEvent::Revoked(_) => None,
    };
    let own = guard(|| own.map_or((), |hook| hook(context, event)));
    let everybodys = guard(|| program.of(event).map_or((), |hook| hook(context, event)));
    for told in [own, everybodys] {
        if let Err(Ending::Failure { messages, .. }) = told {
            let panic = logged_errors(&messages).join(": ");
            tracing::error!(id = %context.id(), task = context.task(), panic, "a hook panicked; the outcome stands");
        }
    }
}

/// Calls the program's hook for a download that is ready.
pub(super) fn tell_ready(program: &ProgramHooks, context: &Context, facts: &DownloadFacts) {
    if let Some(hook) = program.on_ready.as_deref()
        && let Err(Ending::Failure { messages, .. }) = guard(|| hook(context, facts))
    {
        let panic = logged_errors(&messages).join(": ");
        tracing::error!(id = %context.id(), task = context.task(), panic, "a hook panicked; the download is ready");
    }
}

impl Runtime {
    /// The hooks for a task that ends without a run: those of the program alone. `None`: it has none that are called around
    /// runs.
    pub(crate) fn hooks_without_run(&self) -> Option<Hooks> {
        self.has_run_hooks.then(Hooks::default)
    }

    /// What the program's hooks will be told of a task that is over although no queue here had it. `None`: nothing.
    pub(crate) fn end_for_hooks(
        &self,
        message: &Message,
        record: &TaskResult,
    ) -> Option<(Context, HookEvent)> {
        let event = event_of_end(record, &Hooks::default(), &self.hooks)?;
        Some((Context::new(Arc::new(message.clone()), "".into(), Sinks::default()), event))
    }

    /// Calls the program's hook with what was made by [`end_for_hooks`](Self::end_for_hooks).
    pub(crate) fn tell_hooks(&self, told: Option<(Context, HookEvent)>) {
        if let Some((context, event)) = told {
            tell(&Hooks::default(), &self.hooks, &context, &event);
        }
    }
}
