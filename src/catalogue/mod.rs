//! The queue catalogue: one file, `celeriac.toml`, that says what every queue is for and what it promises.
//!
//! A row holds the facts that people want to know about a queue (is it I/O bound, how soon must a task start, how
//! long does a typical task take, what is the queue for) beside those that the runtime needs (pool, workers,
//! prefetch, restart limits). The runtime, `celeriac check` and `celeriac queues` read the same rows, and the screens
//! of a program get them from `Celeriac::catalogue`, so that the promise and the configuration cannot drift apart.
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
//! [defaults]                           # of all tasks that do not say it themselves
//! soft_time_limit = "2d"
//!
//! [rate_limits]                        # task -> starts in each process
//! "shop.send_email" = "100/m"
//!
//! [[limit]]                            # by a key; see the manual's page on limits
//! task = "shop.send_sms"
//! key = "gateway"
//! rate = "8/s"
//!
//! [pool.io]                            # its queues share these slots; see the manual's page on pools
//! slots = 40
//!
//! [tenants.tasks]                      # task -> the argument that names its tenant
//! "shop.send_email" = "shop"
//!
//! [tenants.weights]                    # tenant -> how much of the slots it gets beside others
//! "malawi" = 2.0
//!
//! [[brake]]                            # what does not start, or only so fast; see the manual's page on brakes
//! task = "shop.reports.*"
//! action = "slow"
//! rate = "6/m"
//!
//! [environment.production.queue.email_queue]
//! workers = 500
//!
//! [environment.staging]
//! beat = false                         # no periodic task fires there
//! ```
//!
//! Invariants of a catalogue that came from [`Catalogue::parse`] or passed [`Catalogue::validate`]: the names of
//! queues are unique and fit AMQP, every alias ends at a queue, and every route leads to one, also under every
//! environment of the file. The errors name all breaches at once, each with its line.

mod brake_row;
mod check;
mod columns;
mod defaults;
mod environment;
mod error;
mod explain;
mod limit_row;
mod limits;
mod load_file;
mod names;
mod parse;
mod periodic;
mod pool_row;
mod queue_index;
mod queue_row;
mod queue_setup;
mod rate_limits;
mod route_row;
mod routes;
mod row_array;
mod row_relations;
mod section;
mod size;
mod slot_plan;
mod span_of_time;
mod spelling;
mod tenant_weights;
mod tenants;
mod warning;

use std::collections::BTreeMap;
use std::path::Path;

pub use brake_row::BrakeRow;
pub use error::{CatalogueError, CatalogueErrors, Position, Problem};
pub use limit_row::{LimitRow, TENANT_KEY};
pub use load_file::{load_written, parse_written};
pub use pool_row::PoolRow;
pub use queue_row::{KEEP_FAILED, Pool, QueueRow, TargetClass};
pub use queue_setup::{QueueSetup, QueueType};
pub use route_row::{Argument, ArgumentPattern, RouteRow, TaskPattern};
pub use size::format_size;
pub use span_of_time::{format_span, parse_span};
pub use warning::{MANY_CHILDREN, MANY_CPU_WORKERS, Warning, WarningKind};

pub(crate) use explain::one_line;
pub(crate) use route_row::{RouteRule, argument_value};

use crate::core::calendar::Zone;
use crate::core::token_bucket::RateLimit;
use crate::task::{Periodic, TaskDefaults};

use environment::Environment;
use queue_index::RowPlaces;

/// The queue of tasks that name no queue, unless the file says otherwise. Celery has the same default.
pub const DEFAULT_QUEUE: &str = "celery";

/// All queues of an application, with the aliases and routes that lead to them.
///
/// Read it from a file with [`Catalogue::load`], or build it in code from [`Catalogue::new`] and
/// [`Catalogue::with_queue`] and call [`Catalogue::validate`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Catalogue {
    /// The queue (or alias) for tasks that name no queue.
    pub default_queue: String,
    /// The rows of the queues, one for each, in the order of the file.
    pub queues: Vec<QueueRow>,
    /// The aliases: from the logical name of a queue to the name that it stands for, which may be an alias too.
    pub aliases: BTreeMap<String, String>,
    /// The routes: from the exact name of a task to the queue (or alias) that it goes to.
    pub routes: BTreeMap<String, String>,
    /// The routes by patterns, in the order of the file. The first that matches wins, and also wins over
    /// [`routes`](Self::routes).
    pub route_rows: Vec<RouteRow>,
    /// The periodic entries: which tasks beat sends at which times.
    pub periodic: Vec<Periodic>,
    /// Whether beat sends any periodic tasks; `None` counts as true.
    pub beat: Option<bool>,
    /// The options of all tasks that do not state them.
    pub defaults: TaskDefaults,
    /// The zone whose clocks count for periodic entries that state none; `None` counts as UTC.
    pub zone: Option<Zone>,
    /// The rate limits of tasks, by their exact names. They win over what the tasks say; `None`: no limit.
    pub rate_limits: BTreeMap<String, Option<RateLimit>>,
    /// The limits of tasks by patterns and keys, in the order of the file. A start has to be within all that match.
    pub limits: Vec<LimitRow>,
    /// The brakes that stand while the program runs.
    pub brakes: Vec<BrakeRow>,
    /// The arguments that name the tenants of tasks, by the exact names of the tasks. They win over what the tasks say; an
    /// empty text: the task has no tenants. [`defaults`](Self::defaults) has one for all other tasks.
    pub tenants: BTreeMap<String, String>,
    /// The pools whose queues share slots. The queues of the others have their workers to themselves.
    pub pools: BTreeMap<Pool, PoolRow>,
    /// How much of the slots tenants get beside others, by their names: 1 unless stated.
    pub tenant_weights: BTreeMap<String, f64>,
    /// The changes that each environment makes, by its name.
    environments: BTreeMap<String, Environment>,
    /// The name of the file in errors and warnings.
    file: String,
    /// The position of each row in the file, by the name of the queue.
    positions: BTreeMap<String, Position>,
    /// Where the rows are among [`queues`](Self::queues), if a program goes by this catalogue.
    index: RowPlaces,
}

impl Default for Catalogue {
    fn default() -> Self {
        Self::new()
    }
}

impl Catalogue {
    /// A catalogue without any queues.
    pub fn new() -> Self {
        Self {
            default_queue: DEFAULT_QUEUE.to_owned(),
            queues: Vec::new(),
            aliases: BTreeMap::new(),
            routes: BTreeMap::new(),
            route_rows: Vec::new(),
            periodic: Vec::new(),
            beat: None,
            defaults: TaskDefaults::default(),
            zone: None,
            rate_limits: BTreeMap::new(),
            limits: Vec::new(),
            brakes: Vec::new(),
            tenants: BTreeMap::new(),
            pools: BTreeMap::new(),
            tenant_weights: BTreeMap::new(),
            environments: BTreeMap::new(),
            file: "catalogue".to_owned(),
            positions: BTreeMap::new(),
            index: RowPlaces::default(),
        }
    }

    /// Reads the text of a catalogue. `file_name` is the name of the file in errors.
    ///
    /// # Errors
    /// All mistakes of the text at once. Only a text that is not TOML gives just its first mistake.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, CatalogueErrors> {
        parse::parse(text, file_name)
    }

    /// Reads the catalogue from the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, is not UTF-8, or has a mistake, see [`Catalogue::parse`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, CatalogueErrors> {
        let (name, text) = read_text(path.as_ref())?;
        Self::parse(&text, &name)
    }

    /// The row of a queue, by its name or by one of its aliases.
    pub fn queue(&self, name: &str) -> Option<&QueueRow> {
        // A chain of aliases without a circle is no longer than the number of aliases.
        let mut name = name;
        for _ in 0..=self.aliases.len() {
            if let Some(row) = self.row(name) {
                return Some(row);
            }
            name = self.aliases.get(name)?;
        }
        None
    }

    /// The physical queue that `logical` stands for; `None` if the catalogue has neither a queue nor an alias of that
    /// name.
    pub fn resolve(&self, logical: &str) -> Option<&str> {
        self.queue(logical).map(|row| row.name.as_str())
    }

    /// The physical queue of the exact route for `task`, if there is one.
    pub fn route(&self, task: &str) -> Option<&str> {
        self.resolve(self.routes.get(task)?)
    }

    /// Checks a catalogue that was built or changed in code, by the rules that a file must obey.
    ///
    /// # Errors
    /// All mistakes of the catalogue at once.
    pub fn validate(&self) -> Result<(), CatalogueErrors> {
        let errors = check::check(self, &check::SubjectPositions::default());
        if errors.is_empty() { Ok(()) } else { Err(CatalogueErrors::new(&self.file, errors)) }
    }

    /// The parts of the catalogue that are allowed and probably not meant; see [`WarningKind`].
    pub fn warnings(&self) -> Vec<Warning> {
        warning::warnings(self)
    }

    /// Adds the row of a queue.
    #[must_use]
    pub fn with_queue(mut self, row: QueueRow) -> Self {
        self.index.add(&row.name, self.queues.len());
        self.queues.push(row);
        self
    }

    /// Adds an alias: `logical` stands for the queue `physical`.
    #[must_use]
    pub fn with_alias(mut self, logical: impl Into<String>, physical: impl Into<String>) -> Self {
        self.aliases.insert(logical.into(), physical.into());
        self
    }

    /// Adds a route: tasks of the exact name `task` go to `queue`.
    #[must_use]
    pub fn with_route(mut self, task: impl Into<String>, queue: impl Into<String>) -> Self {
        self.routes.insert(task.into(), queue.into());
        self
    }

    /// Adds a periodic entry to the schedule.
    #[must_use]
    pub fn with_periodic(mut self, entry: Periodic) -> Self {
        self.periodic.push(entry);
        self
    }

    /// Adds a route by patterns behind the existing ones.
    #[must_use]
    pub fn with_route_row(mut self, row: RouteRow) -> Self {
        self.route_rows.push(row);
        self
    }

    /// Sets a rate limit: so many runs of tasks of the exact name `task` start in each process.
    #[must_use]
    pub fn with_rate_limit(mut self, task: impl Into<String>, limit: Option<RateLimit>) -> Self {
        self.rate_limits.insert(task.into(), limit);
        self
    }

    /// Adds the row of a limit.
    #[must_use]
    pub fn with_limit(mut self, row: LimitRow) -> Self {
        self.limits.push(row);
        self
    }

    /// Adds a brake that stands while the program runs.
    #[must_use]
    pub fn with_brake(mut self, row: BrakeRow) -> Self {
        self.brakes.push(row);
        self
    }

    /// States which argument names the tenant of calls of tasks of the exact name `task`.
    #[must_use]
    pub fn with_tenant(mut self, task: impl Into<String>, argument: impl Into<String>) -> Self {
        self.tenants.insert(task.into(), argument.into());
        self
    }

    /// Has the queues of a pool share slots.
    #[must_use]
    pub fn with_pool(mut self, pool: Pool, row: PoolRow) -> Self {
        self.pools.insert(pool, row);
        self
    }

    /// Sets how much of the slots a tenant gets beside others, from 0.001 to 1,000,000: with 2, twice as much as one that is not
    /// listed.
    #[must_use]
    pub fn with_tenant_weight(mut self, tenant: impl Into<String>, weight: f64) -> Self {
        self.tenant_weights.insert(tenant.into(), weight);
        self
    }

    /// The slots that a queue shares with others; `None`: it has its workers to itself.
    pub fn pool_of(&self, row: &QueueRow) -> Option<&PoolRow> {
        self.pools.get(&row.pool).filter(|_| row.shared)
    }

    /// Sets the options of all tasks that do not state them. What was set before holds where `defaults` says nothing.
    #[must_use]
    pub fn with_defaults(mut self, defaults: TaskDefaults) -> Self {
        self.defaults = defaults.over(self.defaults);
        self
    }

    /// Sets the zone whose clocks count for periodic entries that state none.
    #[must_use]
    pub fn with_zone(mut self, zone: Zone) -> Self {
        self.zone = Some(zone);
        self
    }

    /// Sets the queue for tasks that name no queue.
    #[must_use]
    pub fn with_default_queue(mut self, queue: impl Into<String>) -> Self {
        self.default_queue = queue.into();
        self
    }
}

/// The name of the file at `path` in errors, and its text.
///
/// # Errors
/// The file cannot be read, or is not UTF-8.
fn read_text(path: &Path) -> Result<(String, String), CatalogueErrors> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|error| {
        CatalogueErrors::one(&name, None, Problem::Unreadable { reason: error.to_string() })
    })?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok((name, text.to_owned())),
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
