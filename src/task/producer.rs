//! Producer loops: rows of the application's own tables that are due, made into tasks.
//!
//! The table is the truth. A loop asks its [`Source`] for what is due, again and again, and enqueues a task for each row, with
//! a dedupe window, so that a row that is still due because its task has not run yet is not enqueued twice.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{NewTask, Signature, Task, TaskError, Unique, UniqueKey, UniqueUntil};
use crate::core::producer::Rule;

/// Finds what is due.
///
/// It is called on an event loop and must not block: what asks a database with a blocking driver does so in
/// `tokio::task::spawn_blocking`.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// What is due now, the most urgent first, at most `limit`.
    ///
    /// # Errors
    /// Any: the loop says so, counts it, and asks again later. The same goes for a panic.
    async fn due(&self, limit: usize) -> Result<Vec<Due>, TaskError>;

    /// Whether nothing is to be enqueued for this tenant now, for example because it is being migrated. Asked once a tenant
    /// and batch.
    async fn skips(&self, _tenant: &str) -> bool {
        false
    }
}

/// A row that is due.
#[derive(Clone, Debug)]
pub struct Due {
    pub(crate) tenant: String,
    pub(crate) key: String,
    pub(crate) call: Result<NewTask, String>,
    pub(crate) task: &'static str,
}

impl Due {
    /// The row of this key, and the call that is to be made for it. The key holds what makes the row another piece of work,
    /// such as its id and the time at which it is due: once it is rescheduled, it may be enqueued again at once. A call that is
    /// made elsewhere joins it, if it has the same `unique_key`.
    pub fn new<T: Task>(key: impl fmt::Display, call: Signature<T>) -> Self {
        let (call, arguments) = call.into_parts();
        let call = arguments.map(|arguments| NewTask { arguments, ..call });
        Self { tenant: String::new(), key: key.to_string(), call, task: T::NAME }
    }

    /// Whose it is. Tenants take turns within a batch.
    #[must_use]
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = tenant.into();
        self
    }
}

/// A producer loop: a name, a source, and how often and how far it is asked.
#[derive(Clone)]
#[must_use = "it does nothing until it is given to `Builder::producer`"]
pub struct Producer {
    pub(crate) name: String,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) rule: Rule,
    pub(crate) window: Duration,
    pub(crate) until: UniqueUntil,
    pub(crate) queue: Option<String>,
}

impl Producer {
    /// A loop that looks every 10 s for up to 1000 rows, keeps each from being enqueued again for an hour or until its task is
    /// over, and stops while 10,000 wait in the queue.
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

    /// From one look to the next; after a full batch it looks again at once. At least a millisecond.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.rule.interval = interval.max(Duration::from_millis(1));
        self
    }

    /// How many rows are asked for at a time; at least one.
    pub fn batch(mut self, rows: usize) -> Self {
        self.rule.batch = rows.max(1);
        self
    }

    /// For how long a row is not enqueued again, unless its task is over before. It is the time after which a row is tried again
    /// whose task was lost, or ended and left the row due.
    pub fn unique_for(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// With `Start`, a row may be enqueued again while its task runs.
    pub fn unique_until(mut self, until: UniqueUntil) -> Self {
        self.until = until;
        self
    }

    /// The queue whose backlog and age are looked at. By default those that the last batch went to.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = Some(queue.into());
        self
    }

    /// Asks for no more than fits, if so many may wait in the queue. `None`: for as many as there are.
    pub fn max_backlog(mut self, tasks: Option<u64>) -> Self {
        self.rule.max_backlog = tasks;
        self
    }

    /// Asks for nothing while the queue is blocked for longer than this: its oldest task waits, and nothing starts.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.rule.max_age = Some(age);
        self
    }

    /// The longest pause after failures; the first is a second, and it doubles.
    pub fn longest_pause(mut self, pause: Duration) -> Self {
        self.rule.longest_pause = pause.max(Duration::from_millis(1));
        self
    }

    /// The call of a row, with its window.
    pub(crate) fn call(&self, due: Due) -> Result<NewTask, String> {
        let unique = Unique::new(UniqueKey::new(due.task, due.key), self.window).until(self.until);
        Ok(NewTask { unique: Some(Box::new(unique)), ..due.call? })
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("name", &self.name).field("rule", &self.rule).finish_non_exhaustive()
    }
}
