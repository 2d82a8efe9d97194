//! An act on many tasks as it is noted: what it is about, how far it is, and whether it can be undone.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::Timestamp;
use crate::core::brake::BrakeRule;
use crate::store::{Notes, StoreError, set_note};
use crate::task::clock::now;

/// The beginning of the names of the notes, and of the elections of who carries an act out.
pub(super) const PREFIX: &str = "bulk/";
/// The beginning of the names of the notes by which somebody asks that an act ends. They are notes of their own, because
/// whoever carries an act out writes the note of the act all the time.
const CANCEL_PREFIX: &str = "bulk_cancel/";
/// How long an act that is over is remembered.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long after its end an act can be undone.
const UNDO_FOR: Duration = Duration::from_secs(10 * 60);
/// The most tasks that an act may move beyond twice those that were found, because some come back by themselves, such as retries.
const SPARE: u64 = 1_024;
/// The most tasks for which what undoes their change is kept at a time, of all acts together.
pub const MOST_UNDOABLE: u64 = 100_000;

/// The action that an act carries out on each task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BulkAction {
    /// Revokes tasks that wait: each is over with the state REVOKED.
    Revoke,
    /// Puts tasks that have failed for good back into their queues.
    Retry,
    /// Puts tasks that wait into another queue.
    Move,
    /// Deletes tasks that wait, without a record.
    Purge,
}

impl BulkAction {
    /// The word for it: `revoke`, `retry`, `move`, `purge`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revoke => "revoke",
            Self::Retry => "retry",
            Self::Move => "move",
            Self::Purge => "purge",
        }
    }

    /// Why no act of this kind can be undone.
    fn lasts(self) -> Option<&'static str> {
        match self {
            Self::Retry => {
                Some("what is tried again may run at once; what of it waits can be revoked or purged")
            }
            Self::Revoke | Self::Move | Self::Purge => None,
        }
    }
}

/// An act on all tasks that match a rule, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BulkAct {
    /// The id of the act.
    pub id: String,
    /// The action that is done to each task.
    pub action: BulkAction,
    /// The rule that says which tasks are meant.
    pub rule: BrakeRule,
    /// The physical name of the queue to which tasks are moved.
    #[serde(default)]
    pub to: Option<String>,
    /// The [operator](crate::Celeriac::as_operator) who has begun it.
    #[serde(default)]
    pub by: Option<String>,
    /// The time at which the act began, or at which its tasks were counted before. The act is about the tasks that were there
    /// then.
    pub begun_at: Timestamp,
    /// The number of tasks that matched when the act began, or when they were counted before.
    pub found: u64,
    /// The number of tasks that are done. A process that was killed may have done up to a thousand more than it had noted.
    pub done: u64,
    /// The number of tasks that could not be done.
    pub failed: u64,
    /// The time at which it was over; `None`: it goes on.
    pub ended_at: Option<Timestamp>,
    /// Why it has ended before all was done.
    pub error: Option<String>,
    /// The operator who has cancelled the act, and the time. The act ends as soon as whoever carries it out has read of it, with
    /// what was done by then.
    #[serde(default)]
    pub cancel: Option<BulkCancel>,
    /// Whether what undoes the act is kept.
    #[serde(default)]
    pub is_undoable: bool,
    /// The progress of the undo; `None`: nobody has asked for it.
    #[serde(default)]
    pub undo: Option<BulkUndo>,
}

/// The cancellation of an act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BulkCancel {
    /// The time at which it was asked for.
    pub at: Timestamp,
    /// The [operator](crate::Celeriac::as_operator) who has asked for it.
    #[serde(default)]
    pub by: Option<String>,
}

/// The progress of the undo of an act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BulkUndo {
    /// The time at which the act began.
    pub begun_at: Timestamp,
    /// The number of tasks that are where they were before. A process that was killed may have brought back up to a thousand more
    /// than it had noted.
    pub back: u64,
    /// The number of tasks that are left as they are, because they have run or were changed again.
    pub left: u64,
    /// The time at which it was over; `None`: it goes on.
    pub ended_at: Option<Timestamp>,
    /// Why it has ended before all was done.
    pub error: Option<String>,
}

impl BulkAct {
    /// Until when the act can be undone; `None`: it cannot be, is not over, or was undone.
    pub fn undoable_until(&self) -> Option<Timestamp> {
        let keeps = self.is_undoable && !self.is_undone();
        self.ended_at.filter(|_| keeps).map(|at| at + UNDO_FOR)
    }

    /// Whether something is to be done for it: the act itself, or its undo.
    pub fn goes_on(&self) -> bool {
        self.ended_at.is_none() || self.undo.as_ref().is_some_and(|undo| undo.ended_at.is_none())
    }

    /// Whether somebody has undone it, or does so now. An undo that has broken off can be asked for again.
    pub(super) fn is_undone(&self) -> bool {
        self.undo.as_ref().is_some_and(|undo| undo.error.is_none())
    }

    /// Begins the undo, unless it was begun before. One that has broken off goes on.
    ///
    /// # Errors
    /// The act cannot be undone; the text says why.
    pub(crate) fn begin_undo(&mut self, now: Timestamp) -> Result<(), String> {
        if self.is_undone() {
            return Ok(());
        }
        let ended_at = self.ended_at.ok_or("it goes on: wait for its end")?;
        if let Some(why) = self.action.lasts() {
            return Err(why.to_owned());
        }
        if ended_at + UNDO_FOR <= now {
            return Err(format!("it was over at {ended_at}, and can be undone for ten minutes"));
        }
        if !self.is_undoable {
            return Err(format!(
                "what undoes an act is kept for at most {MOST_UNDOABLE} tasks at a time, and it was about more, or this broker keeps nothing of the kind"
            ));
        }
        let (back, left) = self.undo.as_ref().map_or((0, 0), |undo| (undo.back, undo.left));
        self.undo = Some(BulkUndo { begun_at: now, back, left, ended_at: None, error: None });
        Ok(())
    }

    /// Says that it is cancelled, unless somebody has said so before. Whoever carries it out ends it.
    ///
    /// # Errors
    /// It is over; the text says since when.
    pub(crate) fn begin_cancel(&mut self, now: Timestamp, by: Option<String>) -> Result<&BulkCancel, String> {
        match self.ended_at {
            Some(at) => Err(format!("it was over at {at}, with {} of {} tasks done", self.done, self.found)),
            None => Ok(self.cancel.get_or_insert(BulkCancel { at: now, by })),
        }
    }

    /// Whether it has moved so many tasks that somebody moves them back: a brake that diverts, or an act against this one.
    pub(super) fn is_in_vain(&self) -> bool {
        self.action == BulkAction::Move && self.done > self.found.saturating_mul(2).saturating_add(SPARE)
    }

    /// How many tasks it may have kept.
    fn keeps(&self) -> u64 {
        let is_over = self.is_undone() && !self.goes_on();
        if self.is_undoable && !is_over { self.found.max(self.done) } else { 0 }
    }

    fn is_forgotten(&self, now: Timestamp) -> bool {
        !self.goes_on() && self.ended_at.is_some_and(|at| now.since(at) > REMEMBERED)
    }

    /// Keeps how far the act is. That an act which is over was cancelled stands in the act itself, so what asked for that goes.
    ///
    /// # Errors
    /// It is not known whether it is kept.
    pub(crate) async fn keep(&self, notes: &dyn Notes) -> Result<(), StoreError> {
        let text = serde_json::to_string(self).ok(); // it has texts and numbers, so it has a form in JSON
        set_note(notes, format!("{PREFIX}{}", self.id), text).await?;
        if self.ended_at.is_some() { forget_cancel(notes, &self.id).await } else { Ok(()) }
    }
}

/// Why an act on so many tasks could not be undone; `None`: it could be. `keeps`: the broker keeps what undoes it.
pub(crate) fn why_not_undoable(
    action: BulkAction,
    keeps: bool,
    acts: &[BulkAct],
    found: u64,
) -> Option<String> {
    if let Some(why) = action.lasts() {
        return Some(why.to_owned());
    }
    if !keeps {
        return Some("this broker keeps nothing that would undo it".to_owned());
    }
    let kept: u64 = acts.iter().map(BulkAct::keeps).sum();
    let room = MOST_UNDOABLE.saturating_sub(kept);
    (found > room).then(|| {
        format!("what undoes an act is kept for {MOST_UNDOABLE} tasks at a time, and there is room for {room}; a narrower rule can be undone")
    })
}

/// All acts that are kept in these notes, the oldest first. Those that go on and are cancelled say so.
///
/// # Errors
/// The notes cannot be read.
pub(crate) async fn acts_in(notes: &dyn Notes) -> Result<Vec<BulkAct>, StoreError> {
    let texts = notes.notes(PREFIX).await?;
    let mut acts: Vec<BulkAct> =
        texts.iter().filter_map(|(_, text)| serde_json::from_str(text).ok()).collect();
    for act in acts.iter_mut().filter(|act| act.ended_at.is_none()) {
        act.cancel = cancel_in(notes, &act.id).await?;
    }
    acts.sort_by_key(|act| act.begun_at);
    Ok(acts)
}

/// The act of this id that is kept in these notes, if there is one. One that goes on and is cancelled says so.
///
/// # Errors
/// The notes cannot be read.
pub(super) async fn act_in(notes: &dyn Notes, id: &str) -> Result<Option<BulkAct>, StoreError> {
    let text = notes.note(&format!("{PREFIX}{id}")).await?;
    let Some(mut act) = text.and_then(|text| serde_json::from_str::<BulkAct>(&text).ok()) else {
        return Ok(None);
    };
    if act.ended_at.is_none() {
        act.cancel = cancel_in(notes, id).await?;
    }
    Ok(Some(act))
}

/// Who has asked that the act of this id ends, if somebody has and it goes on.
///
/// # Errors
/// The notes cannot be read.
pub(super) async fn cancel_in(notes: &dyn Notes, id: &str) -> Result<Option<BulkCancel>, StoreError> {
    let text = notes.note(&format!("{CANCEL_PREFIX}{id}")).await?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}

/// Keeps that the act of this id is to end, so that whoever carries it out reads of it, also after a restart.
///
/// # Errors
/// It is not known whether it is kept.
pub(super) async fn keep_cancel(notes: &dyn Notes, id: &str, cancel: &BulkCancel) -> Result<(), StoreError> {
    let text = serde_json::to_string(cancel).ok(); // it has a text and a number, so it has a form in JSON
    set_note(notes, format!("{CANCEL_PREFIX}{id}"), text).await
}

/// Forgets that somebody has asked for the end of an act.
///
/// # Errors
/// It is not known whether it is forgotten.
pub(super) async fn forget_cancel(notes: &dyn Notes, id: &str) -> Result<(), StoreError> {
    set_note(notes, format!("{CANCEL_PREFIX}{id}"), None).await
}

/// What an act is to do. The queues are physical ones.
pub(crate) struct BulkOrder {
    pub(crate) action: BulkAction,
    pub(crate) rule: BrakeRule,
    pub(crate) to: Option<String>,
    pub(crate) by: Option<String>,
    /// The time at which its tasks were counted. What comes later is left alone.
    pub(crate) then: Timestamp,
    /// Whether the broker keeps what undoes it.
    pub(crate) keeps: bool,
}

/// Keeps an act that begins now, so that a program which reads these notes carries it out, and forgets those that were over
/// long ago.
///
/// # Errors
/// The notes cannot be read, or it is not known whether the act is kept.
pub(crate) async fn begin_in(notes: &dyn Notes, order: BulkOrder, found: u64) -> Result<BulkAct, StoreError> {
    let (now, acts) = (now(), acts_in(notes).await?);
    for old in acts.iter().filter(|act| act.is_forgotten(now)) {
        set_note(notes, format!("{PREFIX}{}", old.id), None).await?;
        forget_cancel(notes, &old.id).await?;
    }
    let BulkOrder { action, rule, to, by, then, keeps } = order;
    let act = BulkAct {
        id: format!("{:08x}", rand::random::<u32>()),
        is_undoable: why_not_undoable(action, keeps, &acts, found).is_none(),
        action,
        rule,
        to,
        by,
        begun_at: then,
        found,
        done: 0,
        failed: 0,
        ended_at: None,
        error: None,
        cancel: None,
        undo: None,
    };
    act.keep(notes).await?;
    Ok(act)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn act(action: BulkAction, found: u64) -> BulkAct {
        BulkAct {
            id: "a".to_owned(),
            action,
            rule: BrakeRule::all(),
            to: None,
            by: None,
            begun_at: Timestamp::from_millis(1_000),
            found,
            done: found,
            failed: 0,
            ended_at: None,
            error: None,
            cancel: None,
            is_undoable: true,
            undo: None,
        }
    }

    #[test]
    fn an_act_can_be_undone_for_ten_minutes_after_its_end() {
        let at = Timestamp::from_millis;
        let mut act = act(BulkAction::Purge, 7);
        assert_eq!(act.undoable_until(), None);
        assert!(act.begin_undo(at(2_000)).unwrap_err().contains("wait for its end"));
        act.ended_at = Some(at(2_000));
        assert_eq!(act.undoable_until(), Some(at(602_000)));
        assert!(act.clone().begin_undo(at(602_000)).unwrap_err().contains("ten minutes"));
        let kept = BulkAct { is_undoable: false, ..act.clone() };
        assert!(kept.clone().begin_undo(at(3_000)).unwrap_err().contains("100000"));
        let retried = BulkAct { action: BulkAction::Retry, ..act.clone() };
        assert!(retried.clone().begin_undo(at(3_000)).unwrap_err().contains("tried again"));
        act.begin_undo(at(601_000)).unwrap();
        assert!(act.goes_on() && act.undoable_until().is_none());
        let begun = act.undo.clone();
        act.begin_undo(at(700_000)).unwrap();
        assert_eq!(act.undo, begun, "an undo that was begun goes on");
        let (ended_at, error) = (Some(at(601_500)), Some("the disk is full".to_owned()));
        act.undo = begun.map(|undo| BulkUndo { back: 3, ended_at, error, ..undo });
        assert!(!act.goes_on() && act.undoable_until().is_some());
        act.begin_undo(at(601_900)).unwrap();
        let undo = act.undo.clone().unwrap();
        assert_eq!(
            (act.goes_on(), undo.back, undo.error),
            (true, 3, None),
            "one that has broken off goes on"
        );
    }

    #[test]
    fn a_move_that_somebody_takes_back_all_the_time_has_an_end() {
        let moved = |done| BulkAct { done, ..act(BulkAction::Move, 100) };
        assert!(!moved(200 + SPARE).is_in_vain() && moved(201 + SPARE).is_in_vain());
        assert!(
            !BulkAct { action: BulkAction::Revoke, ..moved(u64::MAX) }.is_in_vain(),
            "what is over stays over"
        );
        assert!(!BulkAct { found: u64::MAX, ..moved(u64::MAX) }.is_in_vain());
    }

    #[test]
    fn what_is_kept_for_all_acts_together_is_bounded() {
        let first = act(BulkAction::Move, 60_000);
        let acts = [first.clone(), BulkAct { is_undoable: false, ..first.clone() }];
        let why = |found| why_not_undoable(BulkAction::Revoke, true, &acts, found);
        assert_eq!(why(40_000), None);
        assert!(why(40_001).unwrap().contains("room for 40000"));
        assert!(why_not_undoable(BulkAction::Revoke, false, &[], 1).is_some());
        assert!(why_not_undoable(BulkAction::Retry, true, &[], 1).is_some());
    }

    #[test]
    fn an_act_of_an_earlier_version_is_read() {
        let text = r#"{"id":"a","action":"retry","rule":{"all":true},"begun_at":1000,"found":1,"done":0,"failed":0,"ended_at":null,"error":null}"#;
        let read: BulkAct = serde_json::from_str(text).unwrap();
        assert_eq!((read.is_undoable, read.to, read.undo, read.cancel), (false, None, None, None));
    }

    #[tokio::test]
    async fn what_was_cancelled_stays_cancelled_by_whoever_was_first() {
        let (notes, at) = (crate::store::MemoryStore::default(), Timestamp::from_millis);
        let mut begun = act(BulkAction::Purge, 7);
        begun.keep(&notes).await.unwrap();
        let cancel = begun.clone().begin_cancel(at(5), Some("amina".to_owned())).unwrap().clone();
        keep_cancel(&notes, "a", &cancel).await.unwrap();
        // Whoever carries the act out does not know of it yet, and writes how far the act is.
        begun.done = 3;
        begun.keep(&notes).await.unwrap();
        let mut read = act_in(&notes, "a").await.unwrap().unwrap();
        assert_eq!((read.done, read.cancel.as_ref()), (3, Some(&cancel)));
        assert_eq!(acts_in(&notes).await.unwrap(), [read.clone()]);
        assert_eq!(read.begin_cancel(at(9), None), Ok(&cancel), "it is cancelled once");
        read.ended_at = Some(at(6));
        read.keep(&notes).await.unwrap();
        assert_eq!(cancel_in(&notes, "a").await, Ok(None), "it stands in the act");
        assert_eq!(act_in(&notes, "a").await, Ok(Some(read.clone())));
        assert!(read.begin_cancel(at(9), None).unwrap_err().contains("with 3 of 7 tasks done"));
        assert!(read.begin_undo(at(10)).is_ok(), "what was done can be undone");
    }
}
