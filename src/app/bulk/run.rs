//! Carries an act out, a thousand tasks at a time, and its undo.
//!
//! What waits in the broker is changed there. What is delivered to a queue of this process and has not started is first taken
//! over from the queue, so that it cannot start meanwhile, and then changed as if it waited.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::act::{BulkAct, BulkAction, PREFIX, cancel_in};
use crate::actors::queue::Surrendered;
use crate::app::client::{release_handed_over, remains_of_revoked, tell_hooks_of_revoked};
use crate::app::handle::{Celeriac, ControlError};
use crate::broker::{
    BulkChange, BulkChanges, BulkPick, Delivery, KeptTask, Remains, Retried, TaskFilter, TaskPage,
};
use crate::store::Leadership;
use crate::task::clock::now;
use crate::task::{GetError, Message, TaskId};

/// The most ids that are in memory at a time.
const LISTED: usize = 50_000;
/// How many revocations are on their way at a time, where a broker changes one task after the other.
const AT_ONCE: usize = 32;
/// How many tasks are done between two notes of the progress.
const NOTED: usize = 1_024;
/// After so many looks in a row that have done nothing, with a pause after each, an act on what waits is over.
const BARREN: u32 = 100;
const PAUSE: Duration = Duration::from_millis(50);
/// How often it is asked for tasks that are on their way to a queue before the others are done without them.
const TRIES: u32 = 40;
const SHORT_PAUSE: Duration = Duration::from_millis(5);
/// How long a process that carries an act out may be silent before another one goes on with it.
const LEASE: Duration = Duration::from_secs(30);

/// An act that is carried out here.
pub(super) struct BulkRun {
    pub(super) celeriac: Celeriac,
    /// The name of this process in the election.
    pub(super) candidate: String,
    pub(super) act: BulkAct,
}

/// How a look through what waits has ended.
enum BulkLook {
    /// All was looked at, and so many tasks were meant.
    Whole(u64),
    /// The act is over.
    Ended,
    /// Another process goes on with it.
    Elsewhere,
}

/// What could not be done in one look.
#[derive(Default)]
struct Failures {
    count: u64,
    last: Option<GetError>,
}

impl BulkRun {
    /// Carries the act out, or its undo if the act is over, and notes the end.
    pub(super) async fn carry_out(&mut self) {
        let is_undo = self.act.ended_at.is_some();
        if !is_undo {
            (self.act.failed, self.act.error) = (0, None);
        }
        let done = match self.leads().await {
            Ok(false) => return, // another process is at it
            Ok(true) if is_undo => self.undo().await,
            Ok(true) => match self.act.action {
                BulkAction::Revoke | BulkAction::Move | BulkAction::Purge => self.change().await,
                BulkAction::Retry => self.retry().await,
            },
            Err(error) => Err(error),
        };
        let error = match done {
            Ok(true) => None,
            Ok(false) => return,
            Err(error) => Some(error.to_string()),
        };
        match &mut self.act.undo {
            Some(undo) if is_undo => {
                let (id, back, left) = (&self.act.id, undo.back, undo.left);
                tracing::info!(target: "celeriac", id, back, left, ?error, "the undo of an act on many tasks is over");
                (undo.error, undo.ended_at) = (error, Some(now()));
            }
            _ => {
                self.act.error = error.or(self.act.error.take());
                let BulkAct { id, found, done, failed, error, cancel, .. } = &self.act;
                let is_cancelled = cancel.is_some();
                tracing::info!(target: "celeriac", id, found, done, failed, ?error, is_cancelled, "an act on many tasks is over");
                self.act.ended_at = Some(now());
            }
        }
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

    /// Whether somebody has cancelled the act.
    async fn is_cancelled(&mut self) -> Result<bool, ControlError> {
        self.act.cancel = cancel_in(self.celeriac.runtime().notes(), &self.act.id).await?;
        Ok(self.act.cancel.is_some())
    }

    /// Does to what waits what the act says, until nothing is left or it is cancelled. `false`: another process goes on with it.
    async fn change(&mut self) -> Result<bool, ControlError> {
        let mut barren = 0_u32;
        loop {
            let (done, mut failures) = (self.act.done, Failures::default());
            let look = self.look_through(&mut failures).await?;
            self.act.failed = failures.count;
            let found = match look {
                BulkLook::Whole(0) | BulkLook::Ended => return Ok(true),
                BulkLook::Whole(found) => found,
                BulkLook::Elsewhere => return Ok(false),
            };
            // What is on its way, or could not be done, is found once more.
            barren = if self.act.done > done { 0 } else { barren + 1 };
            if barren == BARREN {
                let why = || "they are on their way, and do not arrive".to_owned();
                let why = failures.last.map_or_else(why, |error| error.to_string());
                self.act.error = Some(format!("{found} tasks could not be done: {why}"));
                return Ok(true);
            }
            if barren > 0 {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Looks through what waits once, page by page, those in lanes first and the others in the order in which they stand, and
    /// does what is found. So each look reads every task once, however many of them are meant.
    async fn look_through(&mut self, failures: &mut Failures) -> Result<BulkLook, ControlError> {
        let filter = self.filter().await?;
        let (mut found, mut after, mut noted) = (0, None::<String>, Instant::now());
        loop {
            if self.is_cancelled().await? {
                return Ok(BulkLook::Ended);
            }
            let page = self.celeriac.inspector()?.page_unfinished_ids(&filter, after.as_deref(), LISTED);
            let TaskPage { tasks: ids, next, looked_at, .. } = page.await?;
            found += ids.len() as u64;
            for (nth, ids) in ids.chunks(NOTED).enumerate() {
                if nth > 0 && self.is_cancelled().await? {
                    return Ok(BulkLook::Ended);
                }
                let one_by_one =
                    self.act.action == BulkAction::Revoke && self.celeriac.bulk_changes().is_none();
                match one_by_one {
                    true => self.revoke_some(ids, failures).await,
                    false => self.change_some(ids.to_vec()).await?,
                }
                if !self.go_on().await? {
                    return Ok(BulkLook::Elsewhere);
                }
                noted = Instant::now();
                if self.act.is_in_vain() {
                    let BulkAct { done, found, .. } = &self.act;
                    self.act.error = Some(format!(
                        "it has moved {done} times, and found {found} tasks: a brake or another act moves them back; take that away, and begin anew"
                    ));
                    return Ok(BulkLook::Ended);
                }
            }
            // Who finds nothing for long is still at it.
            if noted.elapsed() > LEASE / 3 {
                if !self.go_on().await? {
                    return Ok(BulkLook::Elsewhere);
                }
                noted = Instant::now();
            }
            // A page that was cut out of a whole list says nothing of where the rest stands now: the next look finds it.
            after = next.filter(|_| looked_at.is_some());
            if after.is_none() {
                return Ok(BulkLook::Whole(found));
            }
        }
    }

    /// Chooses what waits and is meant.
    async fn filter(&self) -> Result<TaskFilter, ControlError> {
        let BulkAct { rule, begun_at, to, .. } = &self.act;
        let is_meant = self.celeriac.meant_by(rule, *begun_at, to.as_deref()).await?;
        let filter =
            rule.queue.as_deref().map_or_else(TaskFilter::new, |queue| TaskFilter::new().queue(queue));
        Ok(filter.matching(is_meant))
    }

    /// Revokes these tasks one by one.
    async fn revoke_some(&mut self, ids: &[TaskId], failures: &mut Failures) {
        let client = self.celeriac.client();
        for ids in ids.chunks(AT_ONCE) {
            for answer in join_all(ids.iter().map(|id| client.revoke(id, false))).await {
                match answer {
                    Ok(is_revoked) => self.act.done += u64::from(is_revoked),
                    Err(error) => {
                        failures.count += 1;
                        failures.last = Some(error);
                    }
                }
            }
        }
    }

    /// Changes those of these tasks that do not run, in their order.
    async fn change_some(&mut self, mut ids: Vec<TaskId>) -> Result<(), ControlError> {
        let change = self.change_of_each();
        let act = self.act.is_undoable.then(|| self.act.id.clone());
        let (mut held, mut tries) = (Vec::new(), 0_u32);
        while !ids.is_empty() {
            let running = self.take_over(&ids, &mut held).await;
            ids.retain(|id| !running.contains(id));
            let tags = tags_of(&held);
            let pick = |id: &TaskId| BulkPick { id: id.clone(), tag: tags.get(id).copied() };
            let picks = ids.iter().map(pick).collect();
            let outcome = self.changes()?.change_all(act.as_deref(), &change, picks).await?;
            outcome.done.iter().for_each(|message| self.tell_changed(message));
            self.act.done += outcome.done.len() as u64;
            if outcome.busy.is_empty() {
                break; // those that are not done are gone
            }
            let done: HashSet<&TaskId> = outcome.done.iter().map(|message| &message.id).collect();
            ids.retain(|id| !done.contains(id));
            tries += 1;
            if tries > TRIES {
                ids.retain(|id| !outcome.busy.contains(id)); // the next look finds them again
            } else {
                tokio::time::sleep(SHORT_PAUSE).await;
            }
        }
        Ok(()) // what was taken over and not changed goes back
    }

    /// What the act does to each task.
    fn change_of_each(&self) -> BulkChange {
        match (&self.act.to, self.act.action) {
            (Some(to), BulkAction::Move) => BulkChange::Move { to: to.clone() },
            (_, BulkAction::Revoke) => {
                let runtime = Arc::clone(&self.celeriac.inner.runtime);
                let remains = move |message: &Message| remains_of_revoked(&runtime, message);
                BulkChange::End { remains: Arc::new(remains) }
            }
            _ => BulkChange::End { remains: Arc::new(|_: &Message| Remains::default()) },
        }
    }

    /// Tells those who hear of it that a task was changed.
    fn tell_changed(&self, message: &Message) {
        let runtime = self.celeriac.runtime();
        if self.act.action != BulkAction::Move {
            release_handed_over(runtime, message);
        }
        if self.act.action == BulkAction::Revoke {
            runtime.tell_taken_out(message);
            tell_hooks_of_revoked(runtime, message);
        }
    }

    /// Takes those of these tasks over that are delivered here and have not started. Returns those that run here.
    async fn take_over(&self, ids: &[TaskId], held: &mut Vec<Delivery>) -> HashSet<TaskId> {
        let ids = ids.iter().cloned().collect();
        let Surrendered { deliveries, running } = self.celeriac.inner.queues.surrender(ids).await;
        held.extend(deliveries);
        running
    }

    fn changes(&self) -> Result<&dyn BulkChanges, ControlError> {
        self.celeriac.bulk_changes().ok_or_else(|| ControlError::NoAbility {
            broker: self.celeriac.broker_name(),
            what: "change many tasks in one step",
        })
    }

    /// Brings back what the act has changed. `false`: another process goes on with it.
    async fn undo(&mut self) -> Result<bool, ControlError> {
        loop {
            let kept = self.changes()?.kept_for(&self.act.id, NOTED).await?;
            if kept.is_empty() {
                self.changes()?.forget_kept(&self.act.id).await?;
                return Ok(true);
            }
            self.undo_some(kept).await?;
            if !self.go_on().await? {
                return Ok(false);
            }
        }
    }

    async fn undo_some(&mut self, mut kept: Vec<KeptTask>) -> Result<(), ControlError> {
        let (mut held, mut tries) = (Vec::new(), 0_u32);
        while !kept.is_empty() {
            let ids: Vec<TaskId> = kept.iter().map(|kept| kept.id.clone()).collect();
            let running = self.take_over(&ids, &mut held).await;
            let is_last = tries >= TRIES || ids.iter().all(|id| running.contains(id));
            let tags = tags_of(&held);
            let tagged = |kept: KeptTask| {
                let tag = tags.get(&kept.id).copied();
                (kept, tag)
            };
            let picks = kept.into_iter().map(tagged).collect();
            let outcome = self.changes()?.undo(&self.act.id, picks, is_last).await?;
            if let Some(undo) = &mut self.act.undo {
                undo.back += outcome.back.len() as u64;
                undo.left += outcome.left.len() as u64;
            }
            kept = outcome.busy;
            tries += 1;
            if !kept.is_empty() {
                tokio::time::sleep(SHORT_PAUSE).await;
            }
        }
        Ok(()) // what was taken over and is not back goes back to its queue
    }

    /// Tries again what has failed, until it is cancelled. `false`: another process goes on with it.
    async fn retry(&mut self) -> Result<bool, ControlError> {
        let filter = self.celeriac.failed_by(&self.act.rule, self.act.begun_at)?;
        let ids = self.celeriac.keeper()?.failed_ids(&filter).await?;
        for ids in ids.chunks(NOTED) {
            if self.is_cancelled().await? {
                return Ok(true);
            }
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

/// The tags of these deliveries, by task.
fn tags_of(held: &[Delivery]) -> HashMap<TaskId, u64> {
    held.iter().map(|delivery| (delivery.message().id.clone(), delivery.tag())).collect()
}
