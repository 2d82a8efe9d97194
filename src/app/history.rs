//! The history of a program: what happened in the last seven days, and who did what. The [historian](crate::actors::historian)
//! writes it; this reads it, and puts the marks of operators into it.

use std::sync::Arc;
use std::time::Duration;

use super::builder::Builder;
use super::handle::{Celeriac, CeleriacInner, ControlError};
use crate::actors::PATIENCE;
use crate::actors::historian::HistorianParts;
use crate::actors::queue::Steer;
use crate::core::Timestamp;
use crate::core::history::{HistoryBy, HistoryFilter, Mark};
use crate::store::history::{History, read_history};
use crate::task::clock::now;

/// The name of a process that has none, because its broker has no others.
pub(super) const ALONE: &str = "here";
/// The range of a query that states none.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What the program has said about its history.
#[derive(Clone, Debug)]
pub(super) struct HistorySettings {
    is_kept: bool,
    version: Option<String>,
}

impl Default for HistorySettings {
    fn default() -> Self {
        Self { is_kept: true, version: None }
    }
}

impl Builder {
    /// Whether this program writes what happens in it into the history, and its last runs for
    /// [simulations](crate::core::simulation). It takes two writes to the store in each minute in which something happened, and at
    /// most 16 MiB and 4 MiB there. Default `true`.
    pub fn keep_history(mut self, on: bool) -> Self {
        self.history.is_kept = on;
        self
    }

    /// The version of the program, as the mark of its start in the history shows it: `env!("CARGO_PKG_VERSION")`, or the hash
    /// of a commit. So a deploy can be seen beside what changed with it.
    pub fn program_version(mut self, version: impl Into<String>) -> Self {
        self.history.version = Some(version.into());
        self
    }
}

/// A question to the history, which [`read`](Self::read) asks. [`Celeriac::history`] makes it.
#[must_use = "nothing is read until `.read().await`"]
pub struct HistoryQuery<'a> {
    celeriac: &'a Celeriac,
    filter: HistoryFilter,
}

impl HistoryQuery<'_> {
    /// The beginning of the range. Default: a day ago.
    pub fn from(mut self, from: impl Into<Timestamp>) -> Self {
        self.filter.from = from.into();
        self
    }

    /// The end of the range, which does not belong to it. Default: now.
    pub fn until(mut self, until: impl Into<Timestamp>) -> Self {
        self.filter.until = until.into();
        self
    }

    /// The length of a step in whole minutes; a shorter one is a minute. Steps begin at multiples of their length after 1970, in
    /// UTC. Default: an hour.
    pub fn step(mut self, step: Duration) -> Self {
        self.filter.step = step;
        self
    }

    /// What the rows tell apart. Default: nothing.
    pub fn by(mut self, by: HistoryBy) -> Self {
        self.filter.by = by;
        self
    }

    /// Counts only what happened in this queue.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.filter.queue = Some(queue.into());
        self
    }

    /// Has rows only for the task, the tenant or the queue of this name, as the rows tell them apart.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.filter.name = Some(name.into());
        self
    }

    /// Reads the history: what is kept, and what this process has counted since. Other processes write once a minute, so what
    /// they have counted may be missing for so long. A queue here that does not answer within a second is missing too.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn read(self) -> Result<History, ControlError> {
        let Self { celeriac, mut filter } = self;
        let named = |name: String| celeriac.catalogue().queue(&name).map_or(name, |row| row.name.clone());
        filter.queue = filter.queue.map(named);
        let notes = celeriac.runtime().notes();
        let Some(historian) = celeriac.inner.historian.get() else {
            return Ok(read_history(notes, filter, now(), None).await?);
        };
        // While this is held, nothing is written that would be counted twice.
        let mut hours = historian.collect(PATIENCE).await;
        let unwritten = (historian.node(), historian.unwritten(&mut hours).await);
        Ok(read_history(notes, filter, now(), Some(unwritten)).await?)
    }
}

impl Celeriac {
    /// Asks what happened in the last seven days: how many tasks came, started and ended in which way, how long they waited and
    /// ran, by the minute or by any longer step, by queue, task or tenant. It outlasts the program, and where several processes
    /// keep their results in one Redis, it is summed over them.
    ///
    /// Of each queue, the twenty tasks and the twenty tenants with the most to do in an hour are told apart in it; the others
    /// are counted together as `other`.
    ///
    /// ```no_run
    /// use celeriac::app::HistoryBy;
    /// use std::time::Duration;
    /// # async fn demo(celeriac: celeriac::Celeriac) -> Result<(), celeriac::app::ControlError> {
    /// let minutes = celeriac.history().step(Duration::from_secs(300)).by(HistoryBy::Queue).read().await?;
    /// for row in minutes.rows {
    ///     println!("{} {}: {} started, waited {:?}", row.at, row.name, row.counts.started, row.counts.waits.mean());
    /// }
    /// # Ok(()) }
    /// ```
    pub fn history(&self) -> HistoryQuery<'_> {
        let now = now();
        // What happens while this is asked belongs to the answer.
        let filter = HistoryFilter::between(now - A_DAY, now + A_DAY);
        HistoryQuery { celeriac: self, filter }
    }

    /// The same runtime for an operator of this name: what this handle [pauses](Self::pause), [resumes](Self::resume),
    /// [resizes](Self::resize) or lets [follow the load](Self::autoscale) has the name in its mark in the history.
    pub fn as_operator(&self, who: impl Into<String>) -> Self {
        Self { inner: Arc::clone(&self.inner), who: Some(who.into().into()) }
    }

    /// Puts a mark of the program's own into the history, such as the switch of a feature. `what` is one word. Charts show it
    /// beside what changed then.
    ///
    /// ```no_run
    /// # fn demo(celeriac: &celeriac::Celeriac) {
    /// celeriac.as_operator("anna").mark("feature", "the new export is on");
    /// # }
    /// ```
    pub fn mark(&self, what: &str, detail: &str) {
        self.inner.runtime.history.mark(Mark::new(now(), what).detail(detail).by(self.who()));
    }

    /// The name of the operator who has this handle.
    pub(super) fn who(&self) -> Option<&str> {
        self.who.as_deref()
    }
}

impl CeleriacInner {
    /// Starts to write the history, unless the program does not want one.
    pub(super) fn start_history(&self, node: Option<String>) {
        if !self.history.is_kept {
            return;
        }
        let (runtime, queues) = (Arc::clone(&self.runtime), self.queues.clone());
        let parts = HistorianParts::new(runtime, queues, node.unwrap_or_else(|| ALONE.to_owned()));
        let parts = Arc::clone(self.historian.get_or_init(|| Arc::new(parts)));
        self.runtime.history.mark(self.history.mark("start"));
        self.runtime.recorded.open();
        self.with_tree(|tree| tree.start_historian(parts));
    }

    /// Writes the history for the last time.
    pub(super) async fn end_history(&self) {
        if let Some(historian) = self.historian.get() {
            historian.end(self.history.mark("stop")).await;
        }
    }

    /// Marks what somebody did to a queue.
    pub(super) fn mark_act(&self, act: &Steer, queue: &str, who: Option<&str>) {
        let (what, detail) = match act {
            Steer::Pause => ("pause", None),
            Steer::Resume => ("resume", None),
            Steer::Resize(workers) | Steer::AsStated { workers, .. } => {
                ("resize", Some(format!("to {workers} workers")))
            }
            Steer::Grow(workers) => ("resize", Some(format!("by {workers:+} workers"))),
            Steer::Range(range) => {
                ("autoscale", Some(format!("from {} to {} workers", range.min(), range.max())))
            }
            Steer::CancelConsumer => ("cancel_consumer", None),
            Steer::AddConsumer => ("add_consumer", None),
            // A look changes nothing that an operator would ask about.
            Steer::Look => return,
        };
        let mark = Mark::new(now(), what).of(queue).by(who);
        let mark = match detail {
            Some(detail) => mark.detail(&detail),
            None => mark,
        };
        self.runtime.history.mark(mark);
    }
}

impl HistorySettings {
    fn mark(&self, what: &str) -> Mark {
        let mark = Mark::new(now(), what);
        match &self.version {
            Some(version) => mark.detail(version),
            None => mark,
        }
    }
}
