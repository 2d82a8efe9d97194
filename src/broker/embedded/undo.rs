//! Undoes the changes of many tasks: what was moved goes back to its place, and what was ended waits again.
//!
//! As with the [changes](super::bulk), all that may fail is done before anything is staged.

use std::collections::{BTreeSet, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use super::bulk::{KeptChange, KeptPlace, KeptRow, Sought, WaitingRow, kept_by, kept_key, nth_of};
use super::engine::Engine;
use super::lanes::LaneBatch;
use super::rows::{TaskRow, decode, encode};
use super::tables::{TableName, Tables, Writes};
use crate::broker::bulk::{RunMarks, in_queue, is_ended_so, waiting_again};
use crate::broker::{BrokerError, KeptTask, UndoOutcome};
use crate::task::Message;

/// How many rows one commit forgets.
const FORGOTTEN: usize = 4096;

/// A task on its way back. `from`: where it waits; `None`: it was ended.
struct UndoStep {
    from: Option<WaitingRow>,
    message: Arc<Message>,
    row: Vec<u8>,
    queue: usize,
    place: KeptPlace,
}

/// What is to become of a task that was changed.
enum UndoPlan {
    Back(UndoStep),
    Busy,
    Left,
}

impl Engine {
    /// Undoes the changes of these tasks in one commit.
    pub(super) fn undo(
        &mut self,
        act: &str,
        picks: Vec<(KeptTask, Option<u64>)>,
        is_last: bool,
    ) -> Result<UndoOutcome, BrokerError> {
        let tables = self.open_tables()?;
        let (mut batch, mut outcome) = (LaneBatch::default(), UndoOutcome::default());
        let (mut steps, mut over, mut known) = (Vec::new(), BTreeSet::new(), HashSet::new());
        for (kept, tag) in picks {
            let key = kept_key(act, kept.nth);
            let row = tables.get(TableName::Meta, &key)?;
            let Some(row) = row.as_deref().map(decode::<KeptRow>).transpose()? else { continue };
            if row.id != kept.id || over.contains(&key) {
                continue;
            }
            match self.plan_undo(&mut batch, &tables, row, tag)? {
                UndoPlan::Back(step) if known.insert(kept.id.clone()) => {
                    outcome.back.push(kept.id);
                    steps.push(step);
                }
                UndoPlan::Busy if !is_last => {
                    outcome.busy.push(kept);
                    continue;
                }
                // An act changes a task twice if somebody has changed it back meanwhile. It comes back to its first place.
                UndoPlan::Back(_) | UndoPlan::Busy | UndoPlan::Left => outcome.left.push(kept.id),
            }
            over.insert(key);
        }
        if over.is_empty() {
            return Ok(outcome);
        }
        let (mut writes, mut queues) = (Writes::default(), BTreeSet::new());
        over.iter().for_each(|key| writes.delete(TableName::Meta, key));
        for step in steps {
            queues.insert(step.queue);
            queues.extend(step.from.as_ref().map(|from| from.queue));
            self.stage_undo(&mut writes, &mut batch, &tables, step)?;
        }
        let queues: Vec<usize> = queues.into_iter().collect();
        self.commit_follow_ups(batch, &queues, writes)?;
        Ok(outcome)
    }

    /// Forgets some of what is kept for an act. Says whether there is more.
    pub(super) fn forget_kept(&mut self, act: &str) -> Result<bool, BrokerError> {
        let (tables, first) = (self.open_tables()?, kept_by(act));
        let (mut writes, mut rows) = (Writes::default(), 0);
        for row in tables.range(TableName::Meta, &first, Bound::Unbounded)? {
            let (key, _) = row?;
            if rows == FORGOTTEN || !key.starts_with(&first) {
                break;
            }
            if nth_of(&key, &first).is_some() {
                writes.delete(TableName::Meta, &key);
                rows += 1;
            }
        }
        if rows > 0 {
            self.commit_now(&[], &writes)?;
        }
        Ok(rows == FORGOTTEN)
    }

    /// Finds out what becomes of a task that was changed.
    fn plan_undo(
        &mut self,
        batch: &mut LaneBatch,
        tables: &Tables,
        KeptRow { id, place, change }: KeptRow,
        tag: Option<u64>,
    ) -> Result<UndoPlan, BrokerError> {
        let (from, message) = match change {
            KeptChange::Moved { from, to, runs } => match self.seek(tables, &id, tag)? {
                Sought::Busy => return Ok(UndoPlan::Busy),
                Sought::Here(now) if now.message.queue == to && RunMarks::of(&now.message) == runs => {
                    let message = in_queue(&now.message, &from);
                    (Some(now), message)
                }
                Sought::Here(_) | Sought::Gone => return Ok(UndoPlan::Left),
            },
            KeptChange::Ended(message) => {
                let is_over = match self.row(&id)? {
                    None => is_ended_so(None),
                    Some(TaskRow::Over(record)) => is_ended_so(Some(&record)),
                    Some(TaskRow::At(_) | TaskRow::InLine(_)) => false,
                };
                if !is_over {
                    return Ok(UndoPlan::Left);
                }
                if let Some(unique) = &message.unique
                    && batch.unique_windows.holder(tables, &unique.key)?.is_some()
                {
                    return Ok(UndoPlan::Left);
                }
                if let Some(name) = message.lane() {
                    batch.open(&self.known_lanes, tables, name, self.seq)?;
                }
                (None, waiting_again(*message))
            }
        };
        let (queue, row) = (self.queue(&message.queue)?, encode(&message)?);
        Ok(UndoPlan::Back(UndoStep { from, message: Arc::new(message), row, queue, place }))
    }

    /// Stages that a task waits where it did.
    fn stage_undo(
        &mut self,
        writes: &mut Writes,
        batch: &mut LaneBatch,
        tables: &Tables,
        step: UndoStep,
    ) -> Result<(), BrokerError> {
        let UndoStep { from, message, row, queue, place } = step;
        if let Some(from) = from {
            self.stage_move(writes, &from, (queue, message), &row, Some((tables, place)));
            return Ok(());
        }
        if let Some(unique) = &message.unique {
            batch.unique_windows.hold(tables, unique, &message.id)?;
        }
        let due = match place {
            KeptPlace::Scheduled { due, .. } => Some(due),
            KeptPlace::Ready { .. } | KeptPlace::InLine => None,
        };
        let is_let_in = message.serial.as_ref().is_none_or(|serial| serial.refusal.is_some());
        if due.is_some() || is_let_in {
            self.put_at(writes, (queue, message), &row, due, Some((tables, place)));
        } else {
            self.pass_lane(batch, tables, queue, &message, &row, false)?;
        }
        Ok(())
    }
}
