//! Source pollers, which enqueue a task for each row of the application's own tables that is due.
//!
//! The table is the truth. A loop asks its [`Source`] again and again for the rows that are due, and enqueues a task
//! for each with a unique window. So a row that is still due because its task has not run yet is not enqueued twice.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{
    Arguments, LONGEST_TENANT, NewTask, Signature, TENANT, Task, TaskError, Unique, UniqueKey, UniqueUntil,
};
use crate::core::poll_schedule::Rule;

/// The source of a source poller. It finds the rows that are due.
///
/// The loop calls it on an event loop, so it must not block. A source that asks a database with a blocking driver does
/// so in `tokio::task::spawn_blocking`.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// The rows that are due now, the most urgent first, at most `limit` of them.
    ///
    /// The call only looks. The loop may leave out some of the rows: those of a tenant that is [skipped](Self::skips),
    /// and the rest of a batch in which an enqueue failed. So a source that counts attempts, or puts a row off, does
    /// that in [`enqueued`](Self::enqueued), and a row that is left out burns no attempt.
    ///
    /// # Errors
    /// The source may return any error. The loop logs and counts it and asks again later. It treats a panic in the same
    /// way.
    async fn due(&self, limit: usize) -> Result<Vec<Due>, TaskError>;

    /// The rows that are due now of tenants other than these, the most urgent first, at most `limit` of them.
    ///
    /// The loop asks for them when a batch was full, with the tenants of that batch: one tenant with many rows would
    /// otherwise hide those of all others, from batch to batch. Then tenants take turns in what the loop enqueues, and the
    /// rows that do not fit are left out. A source that cannot leave tenants out gives none, which is the default.
    ///
    /// # Errors
    /// As for [`due`](Self::due).
    async fn due_of_others(&self, _tenants: &[String], _limit: usize) -> Result<Vec<Due>, TaskError> {
        Ok(Vec::new())
    }

    /// Whether the loop should enqueue nothing for this tenant now, for example because the tenant is being migrated.
    /// The loop asks once for each tenant of a batch, before it enqueues anything of the batch. Rows of such a tenant
    /// take up places in the batch all the same, so a source that can leave them out itself should do so.
    async fn skips(&self, _tenant: &str) -> bool {
        false
    }

    /// Tells the source that the rows of these keys now have a task, and had none before. Here a source notes that they
    /// were tried. The loop calls it once after each batch that has such rows, even if a later enqueue of the batch
    /// failed.
    ///
    /// A process that dies just before the call leaves a task without its note. While that task waits or runs, the row
    /// joins it and is not reported here again. After that, the row counts as not tried.
    ///
    /// # Errors
    /// The source may return any error. The loop logs it, counts it as a failure, and asks again later. The tasks run
    /// nevertheless.
    async fn enqueued(&self, _keys: &[String]) -> Result<(), TaskError> {
        Ok(())
    }
}

/// A row that is due.
#[derive(Clone, Debug)]
pub struct Due {
    pub(crate) tenant: String,
    pub(crate) key: String,
    /// The key of the row's unique window, if the source has stated one.
    unique_key: Option<String>,
    pub(crate) call: Result<NewTask, String>,
    pub(crate) task: &'static str,
}

impl Due {
    /// The row of this key and the call to make for it. The key has to hold everything that makes the row a new piece
    /// of work, such as its id and the time at which it is due; then a row that is rescheduled can be enqueued again at
    /// once. [`key_of`](crate::task::key_of) joins several texts to a key.
    ///
    /// The row's key is the key of its unique window too, unless the task or its call has a unique key of its own
    /// (`unique_for`, `unique_key`). Then that one is the key, so the row and a `delay` of the same work elsewhere join
    /// each other.
    pub fn new<T: Task>(key: impl fmt::Display, call: Signature<T>) -> Self {
        let (call, arguments) = call.into_parts();
        let call = arguments.map(|arguments| NewTask { arguments, ..call });
        Self { tenant: String::new(), key: key.to_string(), unique_key: None, call, task: T::NAME }
    }

    /// Sets the key of the row's unique window, whatever unique key the task has. Calls of the task with the same
    /// `unique_key` join the row's task, and the row joins theirs.
    #[must_use]
    pub fn unique_key(mut self, key: impl fmt::Display) -> Self {
        self.unique_key = Some(key.to_string());
        self
    }

    /// Sets the tenant of the row. Tenants take turns within a batch, and the row's task runs on behalf of the tenant, unless
    /// its call states another one.
    #[must_use]
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = tenant.into();
        self
    }
}

/// A source poller: a name, a source, and the rules that say how often and for how many rows the loop asks.
#[derive(Clone)]
#[must_use = "it does nothing until it is given to `Builder::poller`"]
pub struct SourcePoller {
    pub(crate) name: String,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) rule: Rule,
    pub(crate) window: Duration,
    pub(crate) until: UniqueUntil,
    pub(crate) queue: Option<String>,
}

impl SourcePoller {
    /// A loop with the defaults. It looks every 10 s for up to 1000 rows. It does not enqueue a row again for an hour
    /// or until the row's task is over. It stops while 10,000 tasks wait in the queue.
    pub fn new(name: impl Into<String>, source: impl Source) -> Self {
        let rule = Rule {
            interval: Duration::from_secs(10),
            batch: 1000,
            max_backlog: Some(10_000),
            max_age: None,
            longest_pause: Duration::from_secs(300),
        };
        Self {
            name: name.into(),
            source: Arc::new(source),
            rule,
            window: Duration::from_secs(3600),
            until: UniqueUntil::Done,
            queue: None,
        }
    }

    /// Sets the time from one look to the next, at least a millisecond. After a full batch the loop looks again at
    /// once.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.rule.interval = interval.max(Duration::from_millis(1));
        self
    }

    /// Sets the number of rows to ask for at a time, at least one.
    pub fn batch(mut self, rows: usize) -> Self {
        self.rule.batch = rows.max(1);
        self
    }

    /// Sets for how long a row is not enqueued again, unless its task is over before. A row whose task was lost, or
    /// whose task ended and left the row due, is tried again after this time.
    pub fn unique_for(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets when a row may be enqueued again. With `Start`, it may be as soon as its task has started.
    pub fn unique_until(mut self, until: UniqueUntil) -> Self {
        self.until = until;
        self
    }

    /// Sets the queue whose backlog and age the loop watches. By default it watches the queues that the last batch went
    /// to.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = Some(queue.into());
        self
    }

    /// Sets how many tasks may wait in the queue; the loop asks for no more rows than fit. With `None` there is no such
    /// limit.
    pub fn max_backlog(mut self, tasks: Option<u64>) -> Self {
        self.rule.max_backlog = tasks;
        self
    }

    /// Lets the loop pause while the queue has been blocked for longer than this: its oldest task waits, and nothing
    /// starts.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.rule.max_age = Some(age);
        self
    }

    /// Sets the longest pause after failures. The first pause is a second, and each further one is twice as long.
    pub fn longest_pause(mut self, pause: Duration) -> Self {
        self.rule.longest_pause = pause.max(Duration::from_millis(1));
        self
    }

    /// The call of a row, with its unique window. The window is as long as the poller says, and its key is the one that
    /// the source states for the row, or else that of the task, or else the row's own.
    pub(crate) fn call(&self, due: Due) -> Result<NewTask, String> {
        let mut call = due.call?;
        // A name that is too long for a tenant only keeps the rows apart.
        if (1..=LONGEST_TENANT).contains(&due.tenant.len()) {
            call.headers.0.entry(TENANT.to_owned()).or_insert_with(|| due.tenant.into());
        }
        let key = match due.unique_key {
            Some(key) => UniqueKey::new(due.task, key),
            None => own_key(&call).unwrap_or_else(|| UniqueKey::new(due.task, due.key)),
        };
        let unique = Unique::new(key, self.window).until(self.until);
        Ok(NewTask { unique: Some(Box::new(unique)), ..call })
    }
}

impl fmt::Debug for SourcePoller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourcePoller")
            .field("name", &self.name)
            .field("rule", &self.rule)
            .finish_non_exhaustive()
    }
}

/// The unique key that a call has by itself. A call that its caller has made not unique (`unique_for` of zero) has none;
/// then its key is that of its arguments.
fn own_key(call: &NewTask) -> Option<UniqueKey> {
    let unique = call.unique.as_deref()?;
    let of_arguments = |arguments: &Arguments| UniqueKey::of_arguments(&call.task, arguments);
    let stated = !unique.window.is_zero() || unique.key != of_arguments(&call.arguments);
    stated.then(|| unique.key.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task;

    #[task]
    fn plain(user: u64) {
        let _ = user;
    }

    #[task(unique_for = "5m", unique_key = "{user}")]
    fn mail(user: u64, subject: String) {
        let _ = (user, subject);
    }

    struct Nothing;

    #[async_trait]
    impl Source for Nothing {
        async fn due(&self, _: usize) -> Result<Vec<Due>, TaskError> {
            Ok(Vec::new())
        }
    }

    /// The unique window that the poller gives to a row.
    fn window(due: Due) -> Unique {
        let poller = SourcePoller::new("rows", Nothing).unique_for(Duration::from_secs(7));
        *poller.call(due).unwrap().unique.unwrap()
    }

    #[test]
    fn a_row_has_the_tenant_of_its_source_unless_its_call_states_one() {
        let poller = SourcePoller::new("rows", Nothing);
        let tenant = |due: Due| poller.call(due).unwrap().headers.0.get(TENANT).cloned();
        let row = || Due::new("row 3", plain::s(42));
        assert_eq!(tenant(row()), None);
        assert_eq!(tenant(row().tenant("acme")), Some("acme".into()));
        assert_eq!(tenant(Due::new("row 3", plain::s(42).tenant("zoo")).tenant("acme")), Some("zoo".into()));
        assert_eq!(tenant(row().tenant("x".repeat(257))), None);
    }

    #[test]
    fn a_row_has_the_unique_key_of_its_task_unless_told_otherwise() {
        let key = |due: Due| window(due).key.key().to_owned();
        let to = |user| mail::s(user, "hello".into());
        assert_eq!(key(Due::new("row 3", plain::s(42))), "row 3");
        assert_eq!(key(Due::new("row 3", to(42))), "42", "as that of `mail::delay`");
        assert_eq!(key(Due::new("row 3", to(42)).unique_key("row 3")), "row 3");
        assert_eq!(key(Due::new("row 3", to(42).unique_key("x"))), "x");
        assert_eq!(key(Due::new("row 3", plain::s(42).unique_key("x"))), "x");
        let always = Duration::ZERO;
        assert_eq!(key(Due::new("row 3", plain::s(42).unique_for(always))), "row 3");
        let own = UniqueKey::of_args(plain::Task::NAME, &(42,));
        assert_eq!(window(Due::new("row 3", plain::s(42).unique_for(Duration::from_secs(1)))).key, own);
        assert_eq!(window(Due::new("row 3", to(42))).window, Duration::from_secs(7), "the poller's");
    }
}
