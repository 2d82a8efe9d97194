//! The queue catalogue: one file, `celeriac.toml`, that says what every queue is for and what it promises.
//!
//! A row holds what people want to know about a queue (is it I/O bound, how soon must a task start, how long does a
//! typical one take, what is it for) beside what the runtime needs (pool, workers, prefetch, restart limits). Every
//! screen, metric and check reads the same rows, so the promise and the configuration cannot drift apart.
//!
//! ```toml
//! default_queue = "celery"             # where tasks without a queue go; "celery" when left out
//!
//! [[queue]]
//! name = "celery"
//!
//! [[queue]]
//! name = "email_queue"
//! io_bound = true
//! target_class = "seconds"             # hours | minutes | seconds
//! target = "30s"                       # the promise: a task starts at most this long after it became due
//! workers = 50
//!
//! [aliases]                            # logical queue -> physical queue
//! registration_mail = "email_queue"
//!
//! [routes]                             # task -> queue
//! "shop.send_email" = "email_queue"
//!
//! [[route]]                            # by a pattern of names, and by what is called with; before [routes]
//! task = "shop.reports.*"
//! argument = "shop"
//! matches = ["big-"]
//! queue = "celery"
//!
//! [[periodic]]                         # see the manual's page on periodic tasks
//! name = "monthly invoices"
//! task = "shop.send_invoices"
//! crontab = "0 5 1 * *"
//! zone = "America/New_York"
//!
//! [environment.production.queue.email_queue]
//! workers = 500
//!
//! [environment.staging]
//! beat = false                         # no periodic task fires there
//! ```
//!
//! Invariants of a catalogue that came out of [`Catalogue::parse`] or passed [`Catalogue::validate`]: names of queues
//! are unique and fit AMQP, every alias ends at a queue, every route leads to one, and so it stays under every
//! environment of the file. Whatever breaks them is reported at once, each with its line, never one at a time.

mod check;
mod columns;
mod error;
mod explain;
mod parse;
mod periodic;
mod queue_row;
mod route_row;
mod section;
mod span_of_time;
mod spelling;
mod warning;

use std::collections::BTreeMap;
use std::path::Path;

pub use error::{CatalogueError, CatalogueErrors, Position, Problem};
pub use queue_row::{Pool, QueueRow, TargetClass};
pub use route_row::{Argument, ArgumentPattern, RouteRow, TaskPattern};
pub use span_of_time::{format_span, parse_span};
pub use warning::{MANY_CPU_WORKERS, Warning, WarningKind};

pub(crate) use explain::one_line;
pub(crate) use route_row::Route;

use crate::task::Periodic;

use columns::Columns;

/// The queue for tasks that name none, unless the file says otherwise. It is Celery's own default.
pub const DEFAULT_QUEUE: &str = "celery";

/// All queues of an application, with the names that lead to them.
///
/// Read it from a file with [`Catalogue::load`], or build it in code from [`Catalogue::new`] and
/// [`Catalogue::with_queue`] and call [`Catalogue::validate`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Catalogue {
    /// Where tasks without a queue of their own go.
    pub default_queue: String,
    /// One row a queue, in the order of the file.
    pub queues: Vec<QueueRow>,
    /// Logical name of a queue to the name it stands for, which may be an alias again.
    pub aliases: BTreeMap<String, String>,
    /// Exact name of a task to the queue (or alias) that it goes to.
    pub routes: BTreeMap<String, String>,
    /// Routes by patterns, in the order of the file: the first that fits counts, before [`routes`](Self::routes).
    pub route_rows: Vec<RouteRow>,
    /// Which tasks are called when.
    pub periodic: Vec<Periodic>,
    /// Whether periodic tasks fire at all; `None`: they do.
    pub beat: Option<bool>,
    /// What each environment changes.
    environments: BTreeMap<String, Environment>,
    /// What errors and warnings call the file.
    file: String,
    /// Where the rows came from, by queue.
    positions: BTreeMap<String, Position>,
}

/// What one environment changes: columns of rows, aliases, and whether periodic tasks fire.
#[derive(Debug, Clone, Default, PartialEq)]
struct Environment {
    rows: BTreeMap<String, Columns>,
    aliases: BTreeMap<String, String>,
    beat: Option<bool>,
}

impl Default for Catalogue {
    fn default() -> Self {
        Self::new()
    }
}

impl Catalogue {
    /// A catalogue without queues.
    pub fn new() -> Self {
        Self {
            default_queue: DEFAULT_QUEUE.to_owned(),
            queues: Vec::new(),
            aliases: BTreeMap::new(),
            routes: BTreeMap::new(),
            route_rows: Vec::new(),
            periodic: Vec::new(),
            beat: None,
            environments: BTreeMap::new(),
            file: "catalogue".to_owned(),
            positions: BTreeMap::new(),
        }
    }

    /// Reads the text of a catalogue. `file_name` is what errors call it.
    ///
    /// # Errors
    /// All mistakes of the text at once. Only a text that is not TOML stops at its first mistake.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, CatalogueErrors> {
        parse::parse(text, file_name)
    }

    /// Reads the catalogue at `path`.
    ///
    /// # Errors
    /// The file cannot be read, or see [`Catalogue::parse`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, CatalogueErrors> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|error| {
            CatalogueErrors::one(&name, None, Problem::Unreadable { reason: error.to_string() })
        })?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Self::parse(text, &name),
            Err(error) => {
                let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
                let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
                let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
                let byte = bytes.get(error.valid_up_to()).copied().unwrap_or_default();
                let at = Position { line, column };
                Err(CatalogueErrors::one(&name, Some(at), Problem::NotUtf8 { byte }))
            }
        }
    }

    /// This catalogue as `name` has it: the overrides of that environment laid over the rows and the aliases.
    ///
    /// # Errors
    /// The file has no such environment.
    pub fn for_environment(&self, name: &str) -> Result<Self, CatalogueErrors> {
        if !self.environments.contains_key(name) && self.names_environment(name) {
            return Ok(self.clone());
        }
        let Some(environment) = self.environments.get(name) else {
            let advice = spelling::advice(name, self.environments(), || match self.environments.len() {
                0 => "the file has no [environment...] at all".to_owned(),
                _ => format!(
                    "the file has {}",
                    self.environments().map(one_line).collect::<Vec<_>>().join(", ")
                ),
            });
            let problem = Problem::UnknownEnvironment { name: name.to_owned(), advice };
            return Err(CatalogueErrors::one(&self.file, None, problem));
        };
        let mut catalogue = self.clone();
        for row in &mut catalogue.queues {
            if let Some(columns) = environment.rows.get(&row.name) {
                *row = columns.apply(row.clone());
            }
        }
        catalogue.aliases.extend(environment.aliases.clone());
        catalogue.beat = environment.beat.or(catalogue.beat);
        Ok(catalogue)
    }

    /// Whether a periodic entry names this environment, which then exists also without changes of its own.
    fn names_environment(&self, name: &str) -> bool {
        self.periodic.iter().any(|entry| entry.environments.iter().any(|environment| environment == name))
    }

    /// The names of the environments that the file knows, in alphabetical order.
    pub fn environments(&self) -> impl Iterator<Item = &str> {
        self.environments.keys().map(String::as_str)
    }

    /// The row of a queue, by its name or by an alias of it.
    pub fn queue(&self, name: &str) -> Option<&QueueRow> {
        // A chain without a circle is no longer than there are aliases.
        let mut name = name;
        for _ in 0..=self.aliases.len() {
            if let Some(row) = self.queues.iter().find(|row| row.name == name) {
                return Some(row);
            }
            name = self.aliases.get(name)?;
        }
        None
    }

    /// The physical queue that `logical` stands for; `None` when nothing of that name is in the catalogue.
    pub fn resolve(&self, logical: &str) -> Option<&str> {
        self.queue(logical).map(|row| row.name.as_str())
    }

    /// The physical queue for `task` by the exact routes, when there is one for it.
    pub fn route(&self, task: &str) -> Option<&str> {
        self.resolve(self.routes.get(task)?)
    }

    /// Checks a catalogue that was built or changed in code by the rules that a file is checked by.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn validate(&self) -> Result<(), CatalogueErrors> {
        let errors = check::check(self, &check::Places::default());
        if errors.is_empty() { Ok(()) } else { Err(CatalogueErrors::new(&self.file, errors)) }
    }

    /// What is allowed and probably not meant; see [`WarningKind`].
    pub fn warnings(&self) -> Vec<Warning> {
        warning::warnings(self)
    }

    /// Adds a queue.
    #[must_use]
    pub fn with_queue(mut self, row: QueueRow) -> Self {
        self.queues.push(row);
        self
    }

    /// Lets `logical` stand for the queue `physical`.
    #[must_use]
    pub fn with_alias(mut self, logical: impl Into<String>, physical: impl Into<String>) -> Self {
        self.aliases.insert(logical.into(), physical.into());
        self
    }

    /// Sends tasks named `task` to `queue`.
    #[must_use]
    pub fn with_route(mut self, task: impl Into<String>, queue: impl Into<String>) -> Self {
        self.routes.insert(task.into(), queue.into());
        self
    }

    /// Adds a periodic entry.
    #[must_use]
    pub fn with_periodic(mut self, entry: Periodic) -> Self {
        self.periodic.push(entry);
        self
    }

    /// Adds a route by patterns, behind those that are there.
    #[must_use]
    pub fn with_route_row(mut self, row: RouteRow) -> Self {
        self.route_rows.push(row);
        self
    }

    /// Sets where tasks without a queue go.
    #[must_use]
    pub fn with_default_queue(mut self, queue: impl Into<String>) -> Self {
        self.default_queue = queue.into();
        self
    }
}
