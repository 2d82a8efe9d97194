//! What a program says in code for all of its tasks and periodic entries that do not say it themselves. It wins over the
//! `[defaults]` of the catalogue.

use super::builder::Builder;
use super::start_error::StartError;
use crate::catalogue::{Catalogue, TaskPattern};
use crate::core::calendar::Zone;
use crate::task::registry::Registry;
use crate::task::{TaskDefaults, TenantRules};

impl Builder {
    /// Whether tasks that do not say it themselves are settled after their run. Celery's `task_acks_late`. Default
    /// `true`. Serial tasks and tasks with a unique window always are.
    pub fn acks_late(mut self, late: bool) -> Self {
        self.defaults.acks_late = Some(late);
        self
    }

    /// Whether errors of tasks that do not say it themselves are tried again. Default `true`. Celery says it for all
    /// tasks with `task_annotations`.
    pub fn autoretry(mut self, on: bool) -> Self {
        self.defaults.autoretry = Some(on);
        self
    }

    /// Options of all tasks that do not state them: time limits, retries, expiry, how long results are kept. What the
    /// catalogue says in `[defaults]` holds where `defaults` says nothing, and so does an earlier call of this.
    ///
    /// ```
    /// use celeriac::Celeriac;
    /// use celeriac::task::TaskDefaults;
    /// use std::time::Duration;
    ///
    /// let mut defaults = TaskDefaults::default();
    /// defaults.soft_time_limit = Some(Duration::from_secs(2 * 24 * 3600));
    /// let builder = Celeriac::builder().defaults(defaults);
    /// # let _ = builder;
    /// ```
    pub fn defaults(mut self, defaults: TaskDefaults) -> Self {
        self.defaults = defaults.over(self.defaults);
        self
    }

    /// The zone whose clocks count for periodic entries that state none: those of `#[periodic_task]`, of the catalogue,
    /// and [entries in code](crate::Periodic::in_default_zone) that ask for it. Default: the catalogue's, else UTC.
    /// Celery's `timezone`.
    pub fn zone(mut self, zone: Zone) -> Self {
        self.zone = Some(zone);
        self
    }
}

/// Warns of rows about a task that is probably mistyped. This is no error, because another program that reads the same
/// catalogue may have the task.
pub(super) fn warn_of_unknown_tasks(catalogue: &Catalogue, registry: &Registry) {
    let limits = catalogue.limits.iter().filter_map(|row| match &row.task {
        TaskPattern::Glob(name) if !name.contains(['*', '?', '[']) => Some(("limit", name)),
        _ => None,
    });
    let rate_limits = catalogue.rate_limits.keys().map(|task| ("rate_limits", task));
    let tenants = catalogue.tenants.keys().map(|task| ("tenants.tasks", task));
    let named = rate_limits.chain(tenants).chain(limits);
    for (table, task) in named.filter(|(_, task)| registry.get(task).is_none()) {
        if let Some(nearest) = registry.nearest(task) {
            tracing::warn!(
                table,
                task,
                nearest,
                "a row is about a task that this program does not have; did you mean the nearest one?"
            );
        }
    }
}

/// Which arguments name the tenants of tasks, according to the catalogue.
///
/// # Errors
/// A row names an argument that its task does not have.
pub(super) fn tenants(catalogue: &Catalogue, registry: &Registry) -> Result<TenantRules, StartError> {
    let rules = TenantRules { argument: catalogue.defaults.tenant.clone(), tasks: catalogue.tenants.clone() };
    let fault = rules.faults(|task| registry.get(task).map(|task| task.params)).next();
    match fault {
        Some((task, argument, params)) => Err(StartError::tenant_argument(task, argument, params)),
        None => Ok(rules),
    }
}
