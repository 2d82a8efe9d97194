//! Brakes as an operator sets them: by rules, for the whole fleet, while programs run. The runtime has those that are in
//! force, and the queues obey them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::handle::{Celeriac, ControlError};
use crate::actors::queue::Steer;
use crate::catalogue::Catalogue;
use crate::core::brake::{Brake, BrakeAction, BrakeError, BrakeRule, STANDING};
use crate::core::did_you_mean;
use crate::core::history::Mark;
use crate::runtime::brakes::fits;
use crate::runtime::rule_count::{CountProgress, RuleCount, count_unfinished};
use crate::task::clock::now;
use crate::task::{Message, TaskId};

/// How long a queue may take to say what runs in it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Brakes: rules that pause, slow, divert or end the tasks that match, before they start. [`Celeriac::brakes`] makes it.
///
/// ```no_run
/// use celeriac::core::brake::{Brake, BrakeAction, BrakeRule};
/// # async fn demo(celeriac: celeriac::Celeriac) -> Result<(), celeriac::app::ControlError> {
/// let rule = BrakeRule::new().tenant("acme").task("reports.*");
/// let found = celeriac.brakes().dry_run(&rule).await?;
/// println!("{} wait, {} have started within the hour", found.waiting.tasks, found.started);
/// let brake = Brake::new(rule, BrakeAction::Pause).owner("amina").reason("their export floods us");
/// let brake = celeriac.brakes().set(brake).await?;
/// // ...
/// celeriac.brakes().remove(&brake.id).await?;
/// # Ok(()) }
/// ```
pub struct BrakeHandle<'a> {
    celeriac: &'a Celeriac,
}

/// For whom a brake holds, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BrakeScope {
    /// For this process, until it ends: nothing here keeps notes that others see, or that outlast it.
    Process,
    /// For all processes that keep their notes in the same place, within a second, and after a restart.
    Fleet,
}

/// The answer to a dry run: what a rule is about now, and what it would have been about: see [`BrakeHandle::dry_run`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DryRun {
    /// The tasks that wait and match, of all that the broker can look at: ready, scheduled, in a lane, or delivered to a queue
    /// that has not started them.
    pub waiting: RuleCount,
    /// The number of tasks that match and run in this process. A brake leaves them alone.
    pub running: u64,
    /// The queues whose messages the broker cannot look at, each with the number of those that are ready in it. Tasks that
    /// wait there for their time are not counted. Empty: all was looked at.
    pub unseen: BTreeMap<String, u64>,
    /// The number of tasks that match and have started in this process within the last hour, whatever their arguments were.
    pub started: u64,
    /// Whether `started` is exact. It is not if the rule looks at arguments, which are not remembered, or if tasks of too many
    /// names and tenants have started.
    pub started_is_exact: bool,
    /// The queues that have not said what runs in them. What runs there is counted with what waits.
    pub missing: Vec<String>,
}

impl Celeriac {
    /// The brakes: rules that pause, slow, divert or end the tasks that match, before they start.
    pub fn brakes(&self) -> BrakeHandle<'_> {
        BrakeHandle { celeriac: self }
    }

    /// The messages of the tasks that run in this process, and the queues that have not said what runs in them.
    pub(super) async fn held_running(&self) -> (Vec<Arc<Message>>, Vec<String>) {
        let queues = &self.inner.queues;
        let held = queues.held(None, usize::MAX, PATIENCE).await;
        let told: HashSet<String> = held.iter().map(|held| held.queue.clone()).collect();
        let mut missing = queues.names();
        missing.retain(|name| !told.contains(name));
        let running = held.into_iter().flat_map(|held| held.running);
        (running.map(|task| task.message).collect(), missing)
    }
}

impl BrakeHandle<'_> {
    /// For whom the brakes that are set here hold.
    pub fn scope(&self) -> BrakeScope {
        match self.celeriac.runtime().shares_notes() && !self.celeriac.inner.forgets {
            true => BrakeScope::Fleet,
            false => BrakeScope::Process,
        }
    }

    /// Sets a brake, in the place of one of the same id. It holds in this process when this returns, and elsewhere as the
    /// [scope](Self::scope) says. Answers with the brake as it is kept: a brake without an id has one by now, and names of
    /// queues are physical names. A brake without an owner has the [operator](Celeriac::as_operator) of this handle.
    ///
    /// # Errors
    /// The brake has a mistake, there are too many, or it is not known whether it is kept.
    pub async fn set(&self, brake: Brake) -> Result<Brake, ControlError> {
        let mut brake = self.with_queues(brake)?;
        if brake.id.is_empty() {
            brake.id = format!("{:08x}", rand::random::<u32>());
        }
        brake.owner = brake.owner.take().or_else(|| self.celeriac.who().map(str::to_owned));
        if brake.is_standing() {
            return Err(BrakeError::Standing(brake.id).into());
        }
        let now = now();
        brake.since = now;
        brake.check()?;
        if let Some(until) = brake.until.filter(|until| *until <= now) {
            return Err(BrakeError::Over { until }.into());
        }
        let runtime = self.celeriac.runtime();
        runtime.change_brakes(|note| Ok((note.with(&brake, now)?, ()))).await??;
        tracing::info!(target: "celeriac", %brake, owner = ?brake.owner, reason = ?brake.reason, "a brake is set");
        self.mark("brake", &brake, brake.owner.as_deref());
        self.tell_queues();
        Ok(brake)
    }

    /// Takes a brake away. What it has held starts at once; of very many tasks, those that a queue has put back into the broker
    /// for want of room come back in their time, within a minute or at a thousand a second. Answers with the brake; `None`:
    /// there is none of this id.
    ///
    /// # Errors
    /// The brake stands in the catalogue, or it is not known whether it is gone.
    pub async fn remove(&self, id: &str) -> Result<Option<Brake>, ControlError> {
        if id.starts_with(STANDING) {
            return Err(BrakeError::Standing(id.to_owned()).into());
        }
        let now = now();
        let runtime = self.celeriac.runtime();
        let removed = runtime.change_brakes(|note| Ok(note.without(id, now))).await??;
        if let Some(brake) = &removed {
            tracing::info!(target: "celeriac", %brake, "a brake is taken away");
            self.mark("unbrake", brake, self.celeriac.who());
        }
        self.tell_queues();
        Ok(removed)
    }

    /// The brakes that are in force here, the oldest first, with those of the catalogue.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn list(&self) -> Result<Vec<Brake>, ControlError> {
        if self.celeriac.runtime().read_brakes().await? {
            self.tell_queues();
        }
        Ok(self.celeriac.runtime().brakes.list())
    }

    /// Says what a brake with this rule would be about now: how many tasks wait that match, exactly, where the broker can look,
    /// and how many have started within the last hour. It looks at all that waits, one after the other, and changes nothing.
    ///
    /// # Errors
    /// The rule has a mistake, or the broker does not answer or cannot list tasks.
    pub async fn dry_run(&self, rule: &BrakeRule) -> Result<DryRun, ControlError> {
        self.dry_run_of(rule, |_| true, &Arc::default()).await
    }

    /// As [`dry_run`](Self::dry_run), of the tasks that `is_counted` chooses. `progress` tells how far it is.
    ///
    /// # Errors
    /// As [`dry_run`](Self::dry_run).
    pub(crate) async fn dry_run_of(
        &self,
        rule: &BrakeRule,
        is_counted: impl Fn(&Message) -> bool + Send + Sync + 'static,
        progress: &Arc<CountProgress>,
    ) -> Result<DryRun, ControlError> {
        let rule = self.with_queue(rule.clone())?;
        let matcher = Arc::new(rule.compile()?);
        let params = self.celeriac.params();
        let wanted = Arc::clone(&matcher);
        let is_meant =
            move |message: &Message| fits(&wanted, message, params(&message.task)) && is_counted(message);

        let (running, missing) = self.celeriac.held_running().await;
        let ids: HashSet<TaskId> = running.iter().map(|message| message.id.clone()).collect();
        let running = running.iter().filter(|message| is_meant(message)).count() as u64;

        let waits = move |message: &Message| !ids.contains(&message.id) && is_meant(message);
        let (inspect, queue) = (self.celeriac.inspector()?, rule.queue.as_deref());
        progress.begin(&*self.celeriac.runtime().broker, queue).await;
        let waiting = count_unfinished(inspect, queue, progress, waits).await?;
        let count = self.celeriac.runtime().brakes.count_starts(&matcher);
        Ok(DryRun {
            waiting,
            running,
            unseen: self.unseen(&rule).await?,
            started: count.starts,
            started_is_exact: count.unknown == 0 && !matcher.looks_at_arguments(),
            missing,
        })
    }

    /// How many messages are ready in the queues of the rule, if the broker cannot look at them.
    async fn unseen(&self, rule: &BrakeRule) -> Result<BTreeMap<String, u64>, ControlError> {
        let broker = &self.celeriac.runtime().broker;
        let mut unseen = BTreeMap::new();
        if broker.facts().knows_all {
            return Ok(unseen);
        }
        for row in &self.celeriac.catalogue().queues {
            if rule.queue.as_ref().is_none_or(|queue| *queue == row.name) {
                let ready = broker.counts(&row.name).await?.ready;
                if ready > 0 {
                    unseen.insert(row.name.clone(), ready);
                }
            }
        }
        Ok(unseen)
    }

    /// The brake with the physical names of its queues.
    fn with_queues(&self, mut brake: Brake) -> Result<Brake, BrakeError> {
        brake.rule = self.with_queue(brake.rule)?;
        if let BrakeAction::Divert { divert_to } = &mut brake.action {
            *divert_to = self.physical("divert_to", divert_to)?;
            let row = self.celeriac.catalogue().queue(divert_to);
            if row.is_some_and(|row| row.setup.broadcast) {
                let advice = "every process runs each of its tasks: name another queue";
                return Err(BrakeError::field("divert_to", divert_to, advice));
            }
        }
        Ok(brake)
    }

    pub(super) fn with_queue(&self, mut rule: BrakeRule) -> Result<BrakeRule, BrakeError> {
        if let Some(queue) = &mut rule.queue {
            *queue = self.physical("queue", queue)?;
        }
        Ok(rule)
    }

    pub(super) fn physical(&self, field: &'static str, queue: &str) -> Result<String, BrakeError> {
        let catalogue = self.celeriac.catalogue();
        match catalogue.resolve(queue) {
            Some(name) => Ok(name.to_owned()),
            // One that was added while the program runs.
            None if self.celeriac.inner.queues.has(queue) => Ok(queue.to_owned()),
            None => {
                let names = catalogue.queues.iter().map(|row| row.name.as_str());
                let names = names.chain(catalogue.aliases.keys().map(String::as_str));
                let hint = did_you_mean::hint(queue, names);
                Err(BrakeError::UnknownQueue { field, queue: queue.to_owned(), hint })
            }
        }
    }

    /// Puts a mark into the history, which says why less has started since.
    fn mark(&self, what: &str, brake: &Brake, who: Option<&str>) {
        let mark = Mark::new(now(), what).detail(&brake.to_string()).by(who);
        self.celeriac.runtime().history.mark(mark);
    }

    /// Has the queues of this process look at what they hold.
    fn tell_queues(&self) {
        self.celeriac.inner.queues.tell_all(|| Steer::Look);
    }
}

/// The brakes of a catalogue.
pub(super) fn standing(catalogue: &Catalogue) -> Vec<Brake> {
    let physical = |queue: &str| catalogue.resolve(queue).unwrap_or(queue).to_owned();
    let brakes = catalogue.brakes.iter().enumerate().map(|(index, row)| {
        let mut brake =
            Brake::new(row.rule.clone(), row.action.clone()).id(format!("{STANDING}{}", index + 1));
        brake.rule.queue = brake.rule.queue.as_deref().map(physical);
        if let BrakeAction::Divert { divert_to } = &mut brake.action {
            *divert_to = physical(divert_to.as_str());
        }
        brake.owner = Some("the catalogue".to_owned());
        brake.reason.clone_from(&row.reason);
        brake
    });
    brakes.collect()
}
