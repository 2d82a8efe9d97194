//! Acts on all tasks that match a rule: they are counted, and then revoked, moved, purged or tried again in the background,
//! thousands or millions of them. How far an act is stands in a note, so it goes on after a restart, also after a `kill -9`.
//!
//! Invariants:
//! - An act is about tasks that were there when it began; what comes later is left alone.
//! - Each step can be done twice: a task that is done is not found any more. So an act that was cut off begins to look from
//!   the beginning, and does what is left.
//! - What undoes a change is written in the step that makes it ([`BulkChanges`]), for so many tasks and for so long as
//!   [`BulkAct`] says. Whether an act can be undone is said before it begins.
//! - Of several processes that share their notes one carries an act out at a time.

mod act;
mod run;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::handle::{Celeriac, ControlError};
use crate::broker::{BulkChanges, TaskFilter};
use crate::core::Timestamp;
use crate::core::brake::BrakeRule;
use crate::runtime::brakes::fits;
use crate::runtime::rule_count::{CountProgress, RuleCount, count_unfinished};
use crate::task::clock::now;
use crate::task::{Message, TaskId};
use act::{act_in, forget_cancel, keep_cancel};
use run::BulkRun;

pub use act::{BulkAct, BulkAction, BulkCancel, BulkUndo, MOST_UNDOABLE};
pub(crate) use act::{BulkOrder, acts_in, begin_in, why_not_undoable};

/// How often a process looks whether another one has left an act behind.
const LOOK: Duration = Duration::from_secs(15);

/// Acts on all tasks that match a rule. [`Celeriac::bulk`] makes it.
///
/// ```no_run
/// use celeriac::core::brake::BrakeRule;
/// # async fn demo(celeriac: celeriac::Celeriac) -> Result<(), celeriac::app::ControlError> {
/// let rule = BrakeRule::new().tenant("acme").task("exports.*");
/// let act = celeriac.bulk().move_to(&rule, "bulk").await?;
/// println!("{} tasks will move", act.found);
/// let done = celeriac.bulk().wait(&act.id).await?;
/// println!("{} have", done.done);
/// celeriac.undo_bulk(&act.id).await?; // within ten minutes
/// # Ok(()) }
/// ```
pub struct BulkHandle<'a> {
    celeriac: &'a Celeriac,
}

/// The answer to a dry run: what an act would be about now, and whether it could be undone: see [`BulkHandle::dry_run`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct BulkForecast {
    /// The number of tasks that the act would be about.
    pub found: u64,
    /// The same number by queue and name, and some ids, if the act is about tasks that wait.
    pub waiting: Option<RuleCount>,
    /// The number of those that are part of a canvas, so that something may follow from their revocation, which is then not
    /// undone.
    pub in_canvas: u64,
    /// Why the act could not be undone; `None`: it could be, for ten minutes after its end, as far as nothing has run.
    pub not_undoable: Option<String>,
}

/// What a runtime has of acts.
pub(super) struct BulkState {
    /// Where they are carried out: on the event loop that has started the runtime.
    handle: Handle,
    /// The ids of those that are carried out here.
    running: Mutex<HashSet<String>>,
    /// The ids of those of which what undoes them is forgotten here when its time is over.
    kept: Mutex<HashSet<String>>,
    /// Changes when an act has come further.
    progress: watch::Sender<()>,
}

impl BulkState {
    /// # Panics
    /// The thread is in no tokio runtime.
    pub(super) fn new() -> Self {
        let (running, kept) = (Mutex::default(), Mutex::default());
        Self { handle: Handle::current(), running, kept, progress: watch::Sender::new(()) }
    }

    /// The event loop that has started the runtime.
    #[cfg(unix)]
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Celeriac {
    /// Acts on all tasks that match a rule: to revoke, move or purge what waits, and to try again what has failed.
    pub fn bulk(&self) -> BulkHandle<'_> {
        BulkHandle { celeriac: self }
    }

    /// Undoes an act on many tasks, in the background: what it has revoked or purged waits again, and what it has moved goes
    /// back, each task to its place. What has run meanwhile, or was changed by somebody else, is left as it is. It can be
    /// asked for within ten minutes of the act's end, and goes on after a restart. An undo that was begun before goes on.
    ///
    /// # Errors
    /// There is no act of this id, it cannot be undone, or it is not known whether the undo is noted.
    pub async fn undo_bulk(&self, id: &str) -> Result<BulkAct, ControlError> {
        let mut act = self.bulk().act(id).await?.ok_or_else(|| ControlError::UnknownAct(id.to_owned()))?;
        let cannot = |why: String| ControlError::CannotUndo(id.to_owned(), why);
        if self.bulk_changes().is_none() {
            return Err(cannot(format!(
                "the broker `{}` keeps nothing that would undo it",
                self.broker_name()
            )));
        }
        let before = act.undo.clone();
        act.begin_undo(now()).map_err(cannot)?;
        if act.undo != before {
            act.note(self).await?;
            tracing::info!(target: "celeriac", id, by = ?self.who(), "the undo of an act on many tasks begins");
        }
        if act.goes_on() {
            self.carry_out(act.clone());
        }
        Ok(act)
    }

    /// Cancels an act on many tasks that goes on: what was done by now stays done, is told with its number, and can be undone as
    /// always; the rest is left alone. The act ends in the background, at the next of its steps of a thousand tasks, whichever
    /// process carries it out, and does not begin again after a restart. Answers with the act as it is now;
    /// [`wait`](BulkHandle::wait) comes back when it has ended. An act that was cancelled before stays so.
    ///
    /// # Errors
    /// There is no act of this id, it is over, or it is not known whether this is noted.
    pub async fn cancel_bulk(&self, id: &str) -> Result<BulkAct, ControlError> {
        let unknown = || ControlError::UnknownAct(id.to_owned());
        let mut act = self.bulk().act(id).await?.ok_or_else(unknown)?;
        let by = self.who().map(str::to_owned);
        let cannot = |why| ControlError::CannotCancel(id.to_owned(), why);
        let cancel = act.begin_cancel(now(), by).map_err(cannot)?.clone();
        let notes = self.runtime().notes();
        keep_cancel(notes, id, &cancel).await?;
        // It may have ended in between, and then nobody reads of it any more.
        let act = self.bulk().act(id).await?.ok_or_else(unknown)?;
        if act.ended_at.is_some() {
            forget_cancel(notes, id).await?;
        }
        tracing::info!(target: "celeriac", id, by = ?cancel.by, done = act.done, found = act.found, "an act on many tasks is cancelled");
        self.inner.bulk.progress.send_replace(());
        Ok(act)
    }

    fn bulk_changes(&self) -> Option<&dyn BulkChanges> {
        self.runtime().broker.bulk_changes()
    }

    fn broker_name(&self) -> &'static str {
        self.runtime().broker.name()
    }

    /// Goes on with acts that were cut off: those of an earlier life of this process now, and those of others that share the
    /// notes when they are silent.
    pub(super) fn resume_bulk(&self) {
        let (inner, ending) = (Arc::downgrade(&self.inner), self.inner.ending.clone());
        let others = self.runtime().others_change_notes();
        self.inner.bulk.handle.spawn(async move {
            let look = async {
                while let Some(inner) = Weak::upgrade(&inner) {
                    Self { inner, who: None }.carry_on().await;
                    if !others {
                        return;
                    }
                    tokio::time::sleep(LOOK).await;
                }
            };
            ending.run_until_cancelled(look).await;
        });
    }

    async fn carry_on(&self) {
        match self.bulk().acts().await {
            Ok(acts) => {
                for act in acts {
                    if act.goes_on() {
                        self.carry_out(act);
                    } else if act.is_undoable {
                        self.forget_later(act);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "acts on many tasks that were cut off cannot be read"),
        }
    }

    /// Carries an act or its undo out in the background, unless that is done here already.
    fn carry_out(&self, act: BulkAct) {
        if !self.inner.bulk.running.lock().insert(act.id.clone()) {
            return;
        }
        let (inner, ending) = (Arc::clone(&self.inner), self.inner.ending.clone());
        self.inner.bulk.handle.spawn(async move {
            let id = act.id.clone();
            let celeriac = Self { inner: Arc::clone(&inner), who: None };
            let mut run = BulkRun { celeriac, candidate: TaskId::new().to_string(), act };
            // What a shutdown cuts off goes on after the restart.
            while ending.run_until_cancelled(run.carry_out()).await.is_some() {
                inner.bulk.running.lock().remove(&id);
                // Its undo may have been asked for when its end was noted and not known here yet.
                let noted = run.celeriac.bulk().act(&id).await.ok().flatten();
                let undone = noted.filter(|act| act.undo.is_some() && run.act.undo.is_none());
                let Some(act) = undone.filter(BulkAct::goes_on) else { break };
                if !inner.bulk.running.lock().insert(id.clone()) {
                    break;
                }
                run.act = act;
            }
            if run.act.undoable_until().is_some() {
                run.celeriac.forget_later(run.act);
            }
        });
    }

    /// Forgets what undoes an act when it cannot be undone any more.
    fn forget_later(&self, act: BulkAct) {
        let Some(until) = act.undoable_until() else { return };
        if !self.inner.bulk.kept.lock().insert(act.id.clone()) {
            return;
        }
        let (inner, ending) = (Arc::downgrade(&self.inner), self.inner.ending.clone());
        self.inner.bulk.handle.spawn(async move {
            let forget = async {
                tokio::time::sleep(until.since(now())).await;
                if let Some(inner) = Weak::upgrade(&inner) {
                    let celeriac = Self { inner, who: None };
                    if let Err(error) = celeriac.forget_kept(&act.id).await {
                        tracing::warn!(id = act.id, %error, "what would undo an act on many tasks is kept until the next start");
                    }
                    celeriac.inner.bulk.kept.lock().remove(&act.id);
                }
            };
            ending.run_until_cancelled(forget).await;
        });
    }

    /// Forgets what undoes an act, unless somebody undoes it.
    async fn forget_kept(&self, id: &str) -> Result<(), ControlError> {
        let Some(mut act) = self.bulk().act(id).await?.filter(|act| !act.is_undone()) else {
            return Ok(());
        };
        if let Some(changes) = self.bulk_changes() {
            changes.forget_kept(id).await?;
        }
        act.is_undoable = false;
        act.note(self).await
    }
}

impl BulkHandle<'_> {
    /// Counts the tasks that [`revoke`](Self::revoke), [`move_to`](Self::move_to) and [`purge`](Self::purge) would be about now.
    ///
    /// # Errors
    /// The rule has a mistake, or the broker does not answer or cannot look at all that waits.
    pub async fn count_waiting(&self, rule: &BrakeRule) -> Result<RuleCount, ControlError> {
        Ok(self.count(rule, None, now(), &Arc::default()).await?.0)
    }

    /// Counts the tasks that [`retry`](Self::retry) would be about now.
    ///
    /// # Errors
    /// The rule has a mistake, or the broker does not answer or keeps no failed tasks.
    pub async fn count_failed(&self, rule: &BrakeRule) -> Result<u64, ControlError> {
        self.count_failed_by(rule, now(), &CountProgress::default()).await
    }

    /// Says what an act would be about now, exactly, and whether it could be undone. It changes nothing. `to` is the queue of
    /// [`move_to`](Self::move_to), or an alias; tasks that wait there already do not count.
    ///
    /// # Errors
    /// As those of the act.
    pub async fn dry_run(
        &self,
        action: BulkAction,
        rule: &BrakeRule,
        to: Option<&str>,
    ) -> Result<BulkForecast, ControlError> {
        self.forecast(action, rule, to, now(), &Arc::default()).await
    }

    /// As [`dry_run`](Self::dry_run), of the tasks that were there by `then`. `progress` tells how far it is.
    ///
    /// # Errors
    /// As those of the act.
    pub(crate) async fn forecast(
        &self,
        action: BulkAction,
        rule: &BrakeRule,
        to: Option<&str>,
        then: Timestamp,
        progress: &Arc<CountProgress>,
    ) -> Result<BulkForecast, ControlError> {
        let (found, waiting, in_canvas) = match action {
            BulkAction::Retry => (self.count_failed_by(rule, then, progress).await?, None, 0),
            BulkAction::Revoke | BulkAction::Move | BulkAction::Purge => {
                let to = self.target(action, to)?;
                let (count, in_canvas) = self.count(rule, to.as_deref(), then, progress).await?;
                (count.tasks, Some(count), in_canvas)
            }
        };
        let acts = acts_in(self.celeriac.runtime().notes()).await?;
        let keeps = self.celeriac.bulk_changes().is_some();
        let not_undoable = why_not_undoable(action, keeps, &acts, found);
        Ok(BulkForecast { found, waiting, in_canvas, not_undoable })
    }

    /// Revokes all tasks that wait now and match: each is over with the state REVOKED, and what was to follow from it follows.
    /// What runs is left alone. A [brake](Celeriac::brakes) that pauses them first keeps them from starting meanwhile.
    ///
    /// # Errors
    /// As [`count_waiting`](Self::count_waiting), or the act cannot be noted. Then nothing is revoked.
    pub async fn revoke(&self, rule: &BrakeRule) -> Result<BulkAct, ControlError> {
        self.begin(BulkAction::Revoke, rule, None, now(), None).await
    }

    /// Puts all tasks that have failed for good by now and match back into their queues, with their attempts counted anew.
    ///
    /// # Errors
    /// As [`count_failed`](Self::count_failed), or the act cannot be noted. Then nothing is tried again.
    pub async fn retry(&self, rule: &BrakeRule) -> Result<BulkAct, ControlError> {
        self.begin(BulkAction::Retry, rule, None, now(), None).await
    }

    /// Puts all tasks that wait now and match to the end of another queue, in their order. They keep their ids, times,
    /// priorities, tenants, unique windows and places in lanes. What runs is left alone.
    ///
    /// # Arguments
    /// `queue` is the name of the other queue, or an alias.
    ///
    /// # Errors
    /// As [`count_waiting`](Self::count_waiting), there is no such queue, the broker cannot move what waits, or the act cannot
    /// be noted. Then nothing is moved.
    pub async fn move_to(&self, rule: &BrakeRule, queue: &str) -> Result<BulkAct, ControlError> {
        self.begin(BulkAction::Move, rule, Some(queue), now(), None).await
    }

    /// Deletes all tasks that wait now and match, as Celery's `purge` does with all of a queue: no record is left of them,
    /// nothing follows from them, no hook is called, and whoever waits for their results waits in vain. Their places in lanes
    /// and their unique windows are free. What runs is left alone.
    ///
    /// # Errors
    /// As [`count_waiting`](Self::count_waiting), the broker cannot delete what waits, or the act cannot be noted. Then nothing
    /// is deleted.
    pub async fn purge(&self, rule: &BrakeRule) -> Result<BulkAct, ControlError> {
        self.begin(BulkAction::Purge, rule, None, now(), None).await
    }

    /// All acts of the last week, the oldest first.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn acts(&self) -> Result<Vec<BulkAct>, ControlError> {
        Ok(acts_in(self.celeriac.runtime().notes()).await?)
    }

    /// One act; `None`: there is none of this id.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn act(&self, id: &str) -> Result<Option<BulkAct>, ControlError> {
        Ok(act_in(self.celeriac.runtime().notes(), id).await?)
    }

    /// Waits for the end of an act, and of its undo if that has begun, whoever carries them out.
    ///
    /// # Errors
    /// There is no act of this id, or the store does not answer.
    pub async fn wait(&self, id: &str) -> Result<BulkAct, ControlError> {
        let mut progress = self.celeriac.inner.bulk.progress.subscribe();
        loop {
            match self.act(id).await? {
                None => return Err(ControlError::UnknownAct(id.to_owned())),
                Some(act) if !act.goes_on() => return Ok(act),
                // Another process may carry it out, so that nothing is heard of it here.
                Some(_) => {
                    let _ = tokio::time::timeout(Duration::from_secs(1), progress.changed()).await;
                }
            }
        }
    }

    /// Begins an act on the tasks that were there by `then`. `counted`: how many those are, if they were counted before.
    ///
    /// # Errors
    /// As those of the act.
    pub(crate) async fn begin(
        &self,
        action: BulkAction,
        rule: &BrakeRule,
        to: Option<&str>,
        then: Timestamp,
        counted: Option<u64>,
    ) -> Result<BulkAct, ControlError> {
        let to = self.target(action, to)?;
        let found = match (counted, action) {
            (Some(counted), _) => counted,
            (None, BulkAction::Retry) => self.count_failed_by(rule, then, &CountProgress::default()).await?,
            (None, BulkAction::Revoke | BulkAction::Move | BulkAction::Purge) => {
                self.count(rule, to.as_deref(), then, &Arc::default()).await?.0.tasks
            }
        };
        let rule = self.celeriac.brakes().with_queue(rule.clone())?;
        let (by, keeps) = (self.celeriac.who().map(str::to_owned), self.celeriac.bulk_changes().is_some());
        let order = BulkOrder { action, rule, to, by, then, keeps };
        let act = begin_in(self.celeriac.runtime().notes(), order, found).await?;
        self.celeriac.inner.bulk.progress.send_replace(());
        tracing::info!(target: "celeriac", id = act.id, ?action, rule = %act.rule, to = ?act.to, by = ?act.by, found, "an act on many tasks begins");
        self.celeriac.carry_out(act.clone());
        Ok(act)
    }

    /// The physical name of the queue to which an act moves tasks, if it moves any.
    fn target(&self, action: BulkAction, to: Option<&str>) -> Result<Option<String>, ControlError> {
        if matches!(action, BulkAction::Move | BulkAction::Purge) && self.celeriac.bulk_changes().is_none() {
            let what = "move or delete the tasks that wait in it: a brake that diverts moves each as it comes, and `purge` empties a queue";
            return Err(ControlError::NoAbility { broker: self.celeriac.broker_name(), what });
        }
        if action != BulkAction::Move {
            return Ok(None);
        }
        let (queue, catalogue) = (to.unwrap_or_default(), self.celeriac.catalogue());
        let Ok(to) = self.celeriac.brakes().physical("to", queue) else {
            let known: Vec<&str> = catalogue.queues.iter().map(|row| row.name.as_str()).collect();
            return Err(ControlError::UnknownQueue { queue: queue.to_owned(), known: known.join(", ") });
        };
        Ok(Some(to))
    }

    /// Counts the tasks that wait and match, without those in the queue `to`; the second number is that of those which are
    /// part of a canvas.
    async fn count(
        &self,
        rule: &BrakeRule,
        to: Option<&str>,
        then: Timestamp,
        progress: &Arc<CountProgress>,
    ) -> Result<(RuleCount, u64), ControlError> {
        self.knows_all()?;
        let rule = self.celeriac.brakes().with_queue(rule.clone())?;
        let is_meant = self.celeriac.meant_by(&rule, then, to).await?;
        let in_canvas = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&in_canvas);
        let is_counted = move |message: &Message| {
            let is_meant = is_meant(message);
            if is_meant && message.is_in_canvas() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
            is_meant
        };
        let (inspect, queue) = (self.celeriac.inspector()?, rule.queue.as_deref());
        progress.begin(&*self.celeriac.runtime().broker, queue).await;
        let count = count_unfinished(inspect, queue, progress, is_counted).await?;
        Ok((count, in_canvas.load(Ordering::Relaxed)))
    }

    async fn count_failed_by(
        &self,
        rule: &BrakeRule,
        then: Timestamp,
        progress: &CountProgress,
    ) -> Result<u64, ControlError> {
        let rule = self.celeriac.brakes().with_queue(rule.clone())?;
        let filter = progress.noted_by(self.celeriac.failed_by(&rule, then)?);
        Ok(self.celeriac.keeper()?.failed_ids(&filter).await?.len() as u64)
    }

    fn knows_all(&self) -> Result<(), ControlError> {
        match self.celeriac.runtime().broker.facts().knows_all {
            true => Ok(()),
            false => Err(ControlError::NoAbility {
                broker: self.celeriac.broker_name(),
                what: "look at the tasks that wait in it: a brake that expires them ends each as it comes",
            }),
        }
    }
}

impl BulkAct {
    /// Keeps how far the act is, and tells those who wait for it here.
    async fn note(&self, celeriac: &Celeriac) -> Result<(), ControlError> {
        self.keep(celeriac.runtime().notes()).await?;
        celeriac.inner.bulk.progress.send_replace(());
        Ok(())
    }
}

/// Says of a message whether an act is about it.
type IsMeant = Box<dyn Fn(&Message) -> bool + Send + Sync>;

impl Celeriac {
    /// Chooses the tasks of a rule that were enqueued by `then`, do not run, and are not in the queue `to`.
    async fn meant_by(
        &self,
        rule: &BrakeRule,
        then: Timestamp,
        to: Option<&str>,
    ) -> Result<IsMeant, ControlError> {
        let (matcher, params, to) = (rule.compile()?, self.params(), to.map(str::to_owned));
        let (running, _) = self.held_running().await;
        let running: HashSet<TaskId> = running.iter().map(|message| message.id.clone()).collect();
        Ok(Box::new(move |message| {
            message.enqueued_at <= then
                && to.as_ref() != Some(&message.queue)
                && fits(&matcher, message, params(&message.task))
                && !running.contains(&message.id)
        }))
    }

    /// Chooses the failed tasks of a rule that had failed by `then`.
    fn failed_by(&self, rule: &BrakeRule, then: Timestamp) -> Result<TaskFilter, ControlError> {
        let (matcher, params) = (rule.compile()?, self.params());
        Ok(TaskFilter::new()
            .until(then)
            .matching(move |message| fits(&matcher, message, params(&message.task))))
    }
}
