//! The hooks that a program sets for all of its tasks, its downloads and its workers.

use super::builder::Builder;
use crate::task::{Context, DownloadFacts, HookEvent, Message};

/// Hooks for all tasks, where Celery has signals. The runtime calls them on the queue's event loop, also for blocking
/// bodies, so they must be short and must not block. If one panics, the runtime logs it and the outcome stands; only a
/// panic of `before_start` fails the attempt. A second hook for the same event replaces the first.
impl Builder {
    /// Called before each body starts. If it panics, the attempt has failed. Celery's signal `task_prerun`.
    pub fn before_start(mut self, hook: impl Fn(&Context, &HookEvent) + Send + Sync + 'static) -> Self {
        self.hooks.before_start = Some(Box::new(hook));
        self
    }

    /// Called for every task that succeeds, with its value. Celery's signal `task_success`.
    pub fn on_success(mut self, hook: impl Fn(&Context, &HookEvent) + Send + Sync + 'static) -> Self {
        self.hooks.on_success = Some(Box::new(hook));
        self
    }

    /// Called for every attempt that failed and that another one follows. Celery's signal `task_retry`.
    pub fn on_retry(mut self, hook: impl Fn(&Context, &HookEvent) + Send + Sync + 'static) -> Self {
        self.hooks.on_retry = Some(Box::new(hook));
        self
    }

    /// Called for every task that fails for good, is rejected, or is unknown here. Celery's signals `task_failure` and
    /// `task_unknown`.
    pub fn on_failure(mut self, hook: impl Fn(&Context, &HookEvent) + Send + Sync + 'static) -> Self {
        self.hooks.on_failure = Some(Box::new(hook));
        self
    }

    /// Called for every task that ends as REVOKED, because it was revoked or has expired. Celery's signal
    /// `task_revoked`.
    pub fn on_revoked(mut self, hook: impl Fn(&Context, &HookEvent) + Send + Sync + 'static) -> Self {
        self.hooks.on_revoked = Some(Box::new(hook));
        self
    }

    /// Called after each run, whatever came of it, also if the task goes on: the counterpart of
    /// [`before_start`](Self::before_start), and the last of the hooks. Celery's signal `task_postrun`. It is not
    /// called for a run whose process dies.
    pub fn after_return(mut self, hook: impl Fn(&Context, &HookEvent) + Send + Sync + 'static) -> Self {
        self.hooks.after_return = Some(Box::new(hook));
        self
    }

    /// Sets a hook for each download that is ready. It is called on the queue's event loop, after the record is
    /// safe, and must not block. If the process dies at that moment, the hook is not called: what must happen for
    /// sure is a task that is linked to the export.
    pub fn on_ready(mut self, hook: impl Fn(&Context, &DownloadFacts) + Send + Sync + 'static) -> Self {
        self.hooks.on_ready = Some(Box::new(hook));
        self
    }

    /// Sets a hook for each worker that starts, with its queue and slot. It must not block. If it panics, the
    /// worker has died, and the queue's restart intensity decides what is done. In the process pool it is called in the
    /// worker's child process.
    pub fn on_worker_start(mut self, hook: impl Fn(&str, usize) + Send + Sync + 'static) -> Self {
        self.hooks.on_worker_start = Some(Box::new(hook));
        self
    }

    /// Asks the program about each task that has expired and is about to start: if the hook answers `true`, the task
    /// runs all the same. CommCare HQ drops an export that is stale by the time of its turn, unless somebody has asked
    /// for an e-mail meanwhile. The hook is called on the queue's event loop, so it must be short and must not block. If
    /// it panics, the task is revoked.
    ///
    /// Over RabbitMQ, a task that keeps no result and that nothing follows from may be dropped by RabbitMQ itself when
    /// it expires; nobody is asked about it.
    ///
    /// ```
    /// use celeriac::Celeriac;
    /// let builder = Celeriac::builder().exempt_from_expiry(|message| message.headers.0.contains_key("email_when_done"));
    /// # let _ = builder;
    /// ```
    pub fn exempt_from_expiry(mut self, hook: impl Fn(&Message) -> bool + Send + Sync + 'static) -> Self {
        self.hooks.exempt_from_expiry = Some(Box::new(hook));
        self
    }
}
