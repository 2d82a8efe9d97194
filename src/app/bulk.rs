//! Acts on all tasks that match a rule: they are counted, and then revoked or tried again in the background, thousands or
//! millions of them. How far an act is stands in a note, so it goes on after a restart, also after a `kill -9`.
//!
//! Invariants:
//! - An act is about tasks that were there when it began; what comes later is left alone.
//! - Each step can be done twice: a task that is revoked or tried again is not found any more. So an act that was cut off
//!   begins to look from the beginning, and does what is left.
//! - Of several processes that share their notes one carries an act out at a time.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::handle::{Celeriac, ControlError};
use crate::broker::{Retried, TaskFilter};
use crate::core::Timestamp;
use crate::core::brake::BrakeRule;
use crate::runtime::brakes::fits;
use crate::runtime::rule_count::{RuleCount, count_unfinished};
use crate::store::{Leadership, Notes, StoreError, set_note};
use crate::task::clock::now;
use crate::task::{Message, TaskId};

/// The beginning of the names of the notes, and of the elections of who carries an act out.
const PREFIX: &str = "bulk/";
/// How many ids are in memory at a time.
const LISTED: usize = 50_000;
/// How many revocations are on their way at a time.
const AT_ONCE: usize = 32;
/// How many tasks are done between two notes of the progress.
const NOTED: usize = 1_024;
/// After so many looks in a row that have revoked nothing, with a pause after each, a revocation is over.
const BARREN: u32 = 100;
const PAUSE: Duration = Duration::from_millis(50);
/// How long a process that carries an act out may be silent before another one goes on with it.
const LEASE: Duration = Duration::from_secs(30);
/// How often a process looks whether another one has left an act behind.
const LOOK: Duration = Duration::from_secs(15);
/// How long an act that is over is remembered.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);

/// Acts on all tasks that match a rule. [`Celeriac::bulk`] makes it.
///
/// ```no_run
/// use celeriac::core::brake::BrakeRule;
/// # async fn demo(celeriac: celeriac::Celeriac) -> Result<(), celeriac::app::ControlError> {
/// let rule = BrakeRule::new().tenant("acme").task("exports.*");
/// let act = celeriac.bulk().revoke(&rule).await?;
/// println!("{} tasks will be revoked", act.found);
/// let done = celeriac.bulk().wait(&act.id).await?;
/// println!("{} are", done.done);
/// # Ok(()) }
/// ```
pub struct BulkHandle<'a> {
    celeriac: &'a Celeriac,
}

/// What an act does to each task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BulkAction {
    /// Revokes tasks that wait.
    Revoke,
    /// Puts tasks that have failed for good back into their queues.
    Retry,
}

/// An act on all tasks that match a rule, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BulkAct {
    /// The id of the act.
    pub id: String,
    /// What it does.
    pub action: BulkAction,
    /// Which tasks are meant.
    pub rule: BrakeRule,
    /// When it began. It is about the tasks that were there then.
    pub begun_at: Timestamp,
    /// How many tasks matched when it began.
    pub found: u64,
    /// How many tasks are done. A process that was killed may have done up to a thousand more than it had noted.
    pub done: u64,
    /// How many tasks could not be done.
    pub failed: u64,
    /// When it was over; `None`: it goes on.
    pub ended_at: Option<Timestamp>,
    /// Why it has ended before all was done.
    pub error: Option<String>,
}

/// What a runtime has of acts.
pub(super) struct BulkState {
    /// Where they are carried out: on the event loop that has started the runtime.
    handle: Handle,
    /// The ids of those that are carried out here.
    running: Mutex<HashSet<String>>,
    /// Changes when an act has come further.
    progress: watch::Sender<()>,
}

impl BulkState {
    /// # Panics
    /// The thread is in no tokio runtime.
    pub(super) fn new() -> Self {
        Self { handle: Handle::current(), running: Mutex::default(), progress: watch::Sender::new(()) }
    }
}

impl Celeriac {
    /// Acts on all tasks that match a rule: to revoke what waits, and to try again what has failed.
    pub fn bulk(&self) -> BulkHandle<'_> {
        BulkHandle { celeriac: self }
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
                for act in acts.into_iter().filter(|act| act.ended_at.is_none()) {
                    self.carry_out(act);
                }
            }
            Err(error) => tracing::warn!(%error, "acts on many tasks that were cut off cannot be read"),
        }
    }

    /// Carries an act out in the background, unless that is done here already.
    fn carry_out(&self, act: BulkAct) {
        if !self.inner.bulk.running.lock().insert(act.id.clone()) {
            return;
        }
        let (inner, ending) = (Arc::clone(&self.inner), self.inner.ending.clone());
        self.inner.bulk.handle.spawn(async move {
            let id = act.id.clone();
            let mut run = BulkRun {
                celeriac: Self { inner: Arc::clone(&inner), who: None },
                candidate: TaskId::new().to_string(),
                act,
            };
            // What a shutdown cuts off goes on after the restart.
            ending.run_until_cancelled(run.carry_out()).await;
            inner.bulk.running.lock().remove(&id);
        });
    }
}

impl BulkHandle<'_> {
    /// How many tasks [`revoke`](Self::revoke) would be about now.
    ///
    /// # Errors
    /// The rule has a mistake, or the broker does not answer or cannot look at all that waits.
    pub async fn count_waiting(&self, rule: &BrakeRule) -> Result<RuleCount, ControlError> {
        self.knows_all()?;
        let rule = self.celeriac.brakes().with_queue(rule.clone())?;
        let is_meant = self.celeriac.meant_by(&rule, now()).await?;
        Ok(count_unfinished(self.celeriac.inspector()?, is_meant).await?)
    }

    /// How many tasks [`retry`](Self::retry) would be about now.
    ///
    /// # Errors
    /// The rule has a mistake, or the broker does not answer or keeps no failed tasks.
    pub async fn count_failed(&self, rule: &BrakeRule) -> Result<u64, ControlError> {
        let rule = self.celeriac.brakes().with_queue(rule.clone())?;
        let filter = self.celeriac.failed_by(&rule, now())?;
        Ok(self.celeriac.keeper()?.failed_ids(&filter).await?.len() as u64)
    }

    /// Revokes all tasks that wait now and match: each is over with the state REVOKED, and what was to follow from it follows.
    /// What runs is left alone. A [brake](Celeriac::brakes) that pauses them first keeps them from starting meanwhile.
    ///
    /// # Errors
    /// As [`count_waiting`](Self::count_waiting), or the act cannot be noted. Then nothing is revoked.
    pub async fn revoke(&self, rule: &BrakeRule) -> Result<BulkAct, ControlError> {
        let found = self.count_waiting(rule).await?.tasks;
        self.begin(BulkAction::Revoke, rule, found).await
    }

    /// Puts all tasks that have failed for good by now and match back into their queues, with their attempts counted anew.
    ///
    /// # Errors
    /// As [`count_failed`](Self::count_failed), or the act cannot be noted. Then nothing is tried again.
    pub async fn retry(&self, rule: &BrakeRule) -> Result<BulkAct, ControlError> {
        let found = self.count_failed(rule).await?;
        self.begin(BulkAction::Retry, rule, found).await
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
        let text = self.celeriac.runtime().notes().note(&format!("{PREFIX}{id}")).await?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Waits for the end of an act, whoever carries it out.
    ///
    /// # Errors
    /// There is no act of this id, or the store does not answer.
    pub async fn wait(&self, id: &str) -> Result<BulkAct, ControlError> {
        let mut progress = self.celeriac.inner.bulk.progress.subscribe();
        loop {
            match self.act(id).await? {
                None => return Err(ControlError::UnknownAct(id.to_owned())),
                Some(act) if act.ended_at.is_some() => return Ok(act),
                // Another process may carry it out, so that nothing is heard of it here.
                Some(_) => {
                    let _ = tokio::time::timeout(Duration::from_secs(1), progress.changed()).await;
                }
            }
        }
    }

    async fn begin(&self, action: BulkAction, rule: &BrakeRule, found: u64) -> Result<BulkAct, ControlError> {
        let rule = self.celeriac.brakes().with_queue(rule.clone())?;
        let act = begin_in(self.celeriac.runtime().notes(), action, rule, found).await?;
        self.celeriac.inner.bulk.progress.send_replace(());
        tracing::info!(target: "celeriac", id = act.id, ?action, rule = %act.rule, found, "an act on many tasks begins");
        self.celeriac.carry_out(act.clone());
        Ok(act)
    }

    fn knows_all(&self) -> Result<(), ControlError> {
        let broker = &self.celeriac.runtime().broker;
        match broker.facts().knows_all {
            true => Ok(()),
            false => Err(ControlError::NoAbility {
                broker: broker.name(),
                what: "look at the tasks that wait in it: a brake that expires them ends each as it comes",
            }),
        }
    }
}

impl BulkAct {
    fn is_forgotten(&self, now: Timestamp) -> bool {
        self.ended_at.is_some_and(|at| now.since(at) > REMEMBERED)
    }

    /// Keeps how far the act is, and tells those who wait for it here.
    async fn note(&self, celeriac: &Celeriac) -> Result<(), ControlError> {
        self.keep(celeriac.runtime().notes()).await?;
        celeriac.inner.bulk.progress.send_replace(());
        Ok(())
    }

    /// Keeps how far the act is.
    ///
    /// # Errors
    /// It is not known whether it is kept.
    pub(crate) async fn keep(&self, notes: &dyn Notes) -> Result<(), StoreError> {
        let text = serde_json::to_string(self).ok(); // it has texts and numbers, so it has a form in JSON
        set_note(notes, format!("{PREFIX}{}", self.id), text).await
    }
}

/// All acts that are kept in these notes, the oldest first.
///
/// # Errors
/// The notes cannot be read.
pub(crate) async fn acts_in(notes: &dyn Notes) -> Result<Vec<BulkAct>, StoreError> {
    let notes = notes.notes(PREFIX).await?;
    let mut acts: Vec<BulkAct> =
        notes.iter().filter_map(|(_, text)| serde_json::from_str(text).ok()).collect();
    acts.sort_by_key(|act| act.begun_at);
    Ok(acts)
}

/// Keeps an act that begins now, so that a program which reads these notes carries it out, and forgets those that were over
/// long ago. The queue of the rule is a physical one.
///
/// # Errors
/// The notes cannot be read, or it is not known whether the act is kept.
pub(crate) async fn begin_in(
    notes: &dyn Notes,
    action: BulkAction,
    rule: BrakeRule,
    found: u64,
) -> Result<BulkAct, StoreError> {
    let now = now();
    for old in acts_in(notes).await?.iter().filter(|act| act.is_forgotten(now)) {
        set_note(notes, format!("{PREFIX}{}", old.id), None).await?;
    }
    let act = BulkAct {
        id: format!("{:08x}", rand::random::<u32>()),
        action,
        rule,
        begun_at: now,
        found,
        done: 0,
        failed: 0,
        ended_at: None,
        error: None,
    };
    act.keep(notes).await?;
    Ok(act)
}

/// Says of a message whether an act is about it.
type IsMeant = Box<dyn Fn(&Message) -> bool + Send + Sync>;

impl Celeriac {
    /// Chooses the tasks of a rule that were enqueued by `then` and do not run.
    async fn meant_by(&self, rule: &BrakeRule, then: Timestamp) -> Result<IsMeant, ControlError> {
        let (matcher, params) = (rule.compile()?, self.params());
        let (running, _) = self.held_running().await;
        let running: HashSet<TaskId> = running.iter().map(|message| message.id.clone()).collect();
        Ok(Box::new(move |message| {
            message.enqueued_at <= then
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

/// An act that is carried out here.
struct BulkRun {
    celeriac: Celeriac,
    /// The name of this process in the election.
    candidate: String,
    act: BulkAct,
}

impl BulkRun {
    async fn carry_out(&mut self) {
        (self.act.failed, self.act.error) = (0, None);
        let done = match self.leads().await {
            Ok(false) => return, // another process is at it
            Ok(true) => match self.act.action {
                BulkAction::Revoke => self.revoke().await,
                BulkAction::Retry => self.retry().await,
            },
            Err(error) => Err(error),
        };
        let error = match done {
            Ok(true) => self.act.error.take(),
            Ok(false) => return,
            Err(error) => Some(error.to_string()),
        };
        let BulkAct { id, found, done, failed, .. } = &self.act;
        tracing::info!(target: "celeriac", id, found, done, failed, ?error, "an act on many tasks is over");
        self.act.error = error;
        self.act.ended_at = Some(now());
        if let Err(error) = self.act.note(&self.celeriac).await {
            tracing::error!(id = self.act.id, %error, "that an act on many tasks is over is not noted; it is looked for once more");
        }
    }

    /// Whether this process carries the act out. Where nobody else could, it does.
    async fn leads(&self) -> Result<bool, ControlError> {
        let runtime = self.celeriac.runtime();
        if !runtime.others_change_notes() {
            return Ok(true);
        }
        let election = format!("{PREFIX}{}", self.act.id);
        let answer = runtime.notes().lead(&election, &self.candidate, LEASE, now()).await?;
        Ok(matches!(answer, Leadership::Leader { .. }))
    }

    /// Notes how far the act is. `false`: another process has taken it over.
    async fn go_on(&self) -> Result<bool, ControlError> {
        let leads = self.leads().await?;
        if leads {
            self.act.note(&self.celeriac).await?;
        }
        Ok(leads)
    }

    /// Revokes what waits. `false`: another process goes on with it.
    async fn revoke(&mut self) -> Result<bool, ControlError> {
        let client = self.celeriac.client();
        let mut barren = 0_u32;
        loop {
            let ids = self.waiting_ids().await?;
            if ids.is_empty() {
                return Ok(true);
            }
            let (done, mut failed, mut last) = (self.act.done, 0, None);
            for (nth, ids) in (1_usize..).zip(ids.chunks(AT_ONCE)) {
                for answer in join_all(ids.iter().map(|id| client.revoke(id, false))).await {
                    match answer {
                        Ok(is_revoked) => self.act.done += u64::from(is_revoked),
                        Err(error) => {
                            failed += 1;
                            last = Some(error);
                        }
                    }
                }
                if (nth * AT_ONCE).is_multiple_of(NOTED) && !self.go_on().await? {
                    return Ok(false);
                }
            }
            self.act.failed = failed;
            // What is on its way, or could not be revoked, is found once more.
            barren = if self.act.done > done { 0 } else { barren + 1 };
            if barren == BARREN {
                let why = || "they are on their way, and do not arrive".to_owned();
                let why = last.map_or_else(why, |error| error.to_string());
                self.act.error = Some(format!("{} tasks could not be revoked: {why}", ids.len()));
                return Ok(true);
            }
            if barren > 0 {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Some of the tasks that wait, those in lanes first.
    async fn waiting_ids(&self) -> Result<Vec<TaskId>, ControlError> {
        let is_meant = self.celeriac.meant_by(&self.act.rule, self.act.begun_at).await?;
        let room = AtomicUsize::new(LISTED);
        let take = move |left: usize| left.checked_sub(1);
        let filter = TaskFilter::new().matching(move |message| {
            is_meant(message) && room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
        });
        Ok(self.celeriac.inspector()?.unfinished_ids(&filter).await?)
    }

    /// Tries again what has failed. `false`: another process goes on with it.
    async fn retry(&mut self) -> Result<bool, ControlError> {
        let filter = self.celeriac.failed_by(&self.act.rule, self.act.begun_at)?;
        let ids = self.celeriac.keeper()?.failed_ids(&filter).await?;
        for ids in ids.chunks(NOTED) {
            let Retried { ids, refused } = self.celeriac.keeper()?.retry_failed(ids, None).await?;
            self.act.done += ids.len() as u64;
            self.act.failed += refused.len() as u64;
            if !self.go_on().await? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
