//! How long runs of tasks took, as a program asks for it. The [keeper](crate::runtime::run_times) has it, and
//! [`[[route]]`](crate::catalogue::RouteRow) rows look at it.

use std::time::Duration;

use tokio::time::timeout;

use super::handle::{Celeriac, CeleriacInner};
use super::history::ALONE;
use crate::core::durations::{RunTimeFigures, RunTimeKey};
use crate::runtime::Runtime;

/// How long the last write may take.
const LAST_WRITE: Duration = Duration::from_millis(500);

/// A question about how long runs of a task took, which [`figures`](Self::figures) answers. [`Celeriac::durations`] makes it.
#[derive(Clone)]
#[must_use = "nothing is asked until `.figures()`"]
pub struct DurationQuery<'a> {
    celeriac: &'a Celeriac,
    task: String,
    tenant: Option<String>,
    argument: Option<(String, String)>,
}

impl DurationQuery<'_> {
    /// Asks about the runs for this tenant.
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// Asks about the runs with this value of an argument, among those for the tenant if one is asked for, else among those
    /// that have none. Such run times are kept of arguments that a `[[route]]` with `longer_than` or `shorter_than` names;
    /// `argument` is its name or its position there. The value of a text is what is in its quotes, and any other value is JSON.
    pub fn argument(mut self, argument: impl Into<String>, value: impl Into<String>) -> Self {
        self.argument = Some((argument.into(), value.into()));
        self
    }

    /// What is known: what this process has measured, and what it has read of others. `None`: no such run is known.
    pub fn figures(self) -> Option<RunTimeFigures> {
        let Self { celeriac, task, tenant, argument } = self;
        let key = match (&tenant, &argument) {
            (tenant, Some((argument, value))) => {
                RunTimeKey::of_value(&task, tenant.as_deref(), argument, value)
            }
            (Some(tenant), None) => RunTimeKey::of_tenant(&task, tenant),
            (None, None) => RunTimeKey::of_task(&task),
        };
        celeriac.runtime().run_times.figures_of(key)
    }
}

impl Celeriac {
    /// Asks how long runs of a task took: all of them, those for a tenant, or those with a value of an argument. Rows of the
    /// catalogue with `longer_than` and `shorter_than` look at the same figures.
    ///
    /// Runs that succeeded count, and runs that a time limit has ended. The figures outlast the program, and where several
    /// processes keep their results in one Redis, they are those of all of them, about two minutes old. The last 1,000 tasks,
    /// 10,000 pairs of a task and a tenant, and 10,000 values of arguments are known.
    ///
    /// ```no_run
    /// # fn demo(celeriac: &celeriac::Celeriac) {
    /// if let Some(figures) = celeriac.durations("app::export").tenant("acme").figures() {
    ///     println!("{} runs, the last one took {:?}, p95 {:?}", figures.count, figures.last, figures.p95);
    /// }
    /// # }
    /// ```
    pub fn durations(&self, task: impl Into<String>) -> DurationQuery<'_> {
        DurationQuery { celeriac: self, task: task.into(), tenant: None, argument: None }
    }
}

/// Reads how long runs took before.
pub(super) async fn begin(runtime: &Runtime) {
    let node = runtime.broker.events().and_then(|events| events.node());
    runtime.begin_run_times(node.as_deref().unwrap_or(ALONE)).await;
}

impl CeleriacInner {
    /// Writes how long runs took for the last time.
    pub(super) async fn end_run_times(&self) {
        match timeout(LAST_WRITE, self.runtime.write_run_times()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(target: "celeriac", %error, "how long the last runs took is not written")
            }
            Err(_) => {
                tracing::warn!(target: "celeriac", "how long the last runs took is not written: the store does not answer");
            }
        }
    }
}
