//! Changes of many waiting tasks in one commit, and what undoes them.
//!
//! What undoes a change is a row of the table `meta` for each task: the key is `undo/`, the act, `/` and the
//! [number](bulk::number) of the task, so that the rows of an act lie in the order in which its tasks stood. The row is
//! written in the commit of the change, and goes in the commit of the undo.
//!
//! All that may fail is done before anything is staged, because what a commit does to the counts of queues is noted as its rows
//! are taken out.

use std::collections::{BTreeSet, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::EmbeddedBroker;
use super::argument_index;
use super::command::EngineCommand;
use super::commit::RowKey;
use super::engine::Engine;
use super::lanes::LaneBatch;
use super::ready_key::ReadyKey;
use super::rows::{TaskRow, decode, due_of, encode, scheduled_key, task_key};
use super::tables::{TableName, Tables, Writes};
use crate::broker::bulk::{self, RunMarks, in_queue};
use crate::broker::{
    BrokerError, BulkChange, BulkChanges, BulkOutcome, BulkPick, Inspect, KeptTask, Remains, UndoOutcome,
    limits,
};
use crate::core::Timestamp;
use crate::task::{Message, TaskId, TaskResult};

const PREFIX: &[u8] = b"undo/";

#[async_trait]
impl BulkChanges for EmbeddedBroker {
    async fn change_all(
        &self,
        act: Option<&str>,
        change: &BulkChange,
        picks: Vec<BulkPick>,
    ) -> Result<BulkOutcome, BrokerError> {
        act.map_or(Ok(()), limits::note)?;
        let (mut in_memory, mut on_disk) = (Vec::new(), Vec::new());
        for pick in picks {
            match self.inner.volatile.find(&pick.id).await? {
                Some(_) => in_memory.push(pick),
                None => on_disk.push(pick),
            }
        }
        let mut outcome = BulkOutcome::default();
        if !on_disk.is_empty() {
            let (act, change) = (act.map(str::to_owned), change.clone());
            let ask = |reply| EngineCommand::ChangeAll { act, change, picks: on_disk, reply };
            outcome = self.ask(ask).await?;
        }
        if !in_memory.is_empty() {
            let changed = self.inner.volatile.change_all(act, change, in_memory).await?;
            outcome.done.extend(changed.done);
            outcome.busy.extend(changed.busy);
        }
        Ok(outcome)
    }

    async fn kept_for(&self, act: &str, limit: usize) -> Result<Vec<KeptTask>, BrokerError> {
        let first = kept_by(act);
        let mut kept = self.on_disk(move |tables| kept_in(tables, &first, limit)).await??;
        kept.extend(self.inner.volatile.kept_for(act, limit.saturating_sub(kept.len())).await?);
        Ok(kept)
    }

    async fn undo(
        &self,
        act: &str,
        picks: Vec<(KeptTask, Option<u64>)>,
        is_last: bool,
    ) -> Result<UndoOutcome, BrokerError> {
        // What is not kept in one of the two places is left out there.
        let (name, on_disk) = (act.to_owned(), picks.clone());
        let ask = |reply| EngineCommand::Undo { act: name, picks: on_disk, is_last, reply };
        let mut outcome = self.ask(ask).await?;
        let in_memory = self.inner.volatile.undo(act, picks, is_last).await?;
        outcome.back.extend(in_memory.back);
        outcome.left.extend(in_memory.left);
        outcome.busy.extend(in_memory.busy);
        Ok(outcome)
    }

    async fn forget_kept(&self, act: &str) -> Result<(), BrokerError> {
        self.inner.volatile.forget_kept(act).await?;
        while self.ask(|reply| EngineCommand::ForgetKept { act: act.to_owned(), reply }).await? {}
        Ok(())
    }
}

/// What is kept of a task that was changed.
#[derive(Serialize, Deserialize)]
pub(super) struct KeptRow {
    pub(super) id: TaskId,
    pub(super) place: KeptPlace,
    pub(super) change: KeptChange,
}

/// Where a task stood.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) enum KeptPlace {
    Ready { seq: u64 },
    Scheduled { due: Timestamp, seq: u64 },
    InLine,
}

/// What was done to a task.
#[derive(Serialize, Deserialize)]
pub(super) enum KeptChange {
    Moved { from: String, to: String, runs: RunMarks },
    Ended(Box<Message>),
}

/// What the keys begin with that are kept for an act.
pub(super) fn kept_by(act: &str) -> Vec<u8> {
    [PREFIX, act.as_bytes(), b"/"].concat()
}

pub(super) fn kept_key(act: &str, nth: u64) -> Vec<u8> {
    [&kept_by(act)[..], &nth.to_be_bytes()].concat()
}

/// The number at the end of such a key. `None`: it is kept for another act.
pub(super) fn nth_of(key: &[u8], first: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.strip_prefix(first)?.try_into().ok()?))
}

fn kept_in(tables: &Tables, first: &[u8], limit: usize) -> Result<Vec<KeptTask>, BrokerError> {
    let mut kept = Vec::new();
    for row in tables.range(TableName::Meta, first, Bound::Unbounded)? {
        let (key, value) = row?;
        if kept.len() == limit || !key.starts_with(first) {
            break;
        }
        let Some(nth) = nth_of(&key, first) else { continue };
        match decode::<KeptRow>(&value) {
            Ok(row) => kept.push(KeptTask { nth, id: row.id }),
            Err(error) => tracing::error!(nth, %error, "the change of a task cannot be undone"),
        }
    }
    Ok(kept)
}

/// The place of a row.
pub(super) enum RowPlace {
    Ready(ReadyKey),
    Scheduled(Vec<u8>),
    InLine(Vec<u8>),
}

impl RowPlace {
    fn key(&self) -> &[u8] {
        match self {
            Self::Ready(key) => key,
            Self::Scheduled(key) | Self::InLine(key) => key,
        }
    }

    /// The number at the end of the key.
    fn sequence(&self) -> u64 {
        self.key().last_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }

    fn number(&self) -> u64 {
        bulk::number(matches!(self, Self::InLine(_)), self.sequence())
    }

    /// The time before which the row is not ready, if it has one.
    fn due(&self) -> Option<Timestamp> {
        match self {
            Self::Scheduled(key) => due_of(key),
            Self::Ready(_) | Self::InLine(_) => None,
        }
    }

    fn kept(&self) -> KeptPlace {
        let seq = self.sequence();
        match (self, self.due()) {
            (Self::InLine(_), _) => KeptPlace::InLine,
            (_, Some(due)) => KeptPlace::Scheduled { due, seq },
            (_, None) => KeptPlace::Ready { seq },
        }
    }
}

/// A task that waits, or that the caller has.
pub(super) struct WaitingRow {
    pub(super) message: Arc<Message>,
    pub(super) queue: usize,
    place: RowPlace,
    tag: Option<u64>,
}

/// The outcome of a search for the row of a task.
pub(super) enum Sought {
    Here(WaitingRow),
    Busy,
    Gone,
}

/// What a change does to a row.
enum RowChange {
    Moves { message: Arc<Message>, row: Vec<u8> },
    Ends(Box<Remains>),
}

/// A row that is to be changed, and what is kept of it: the key and the bytes.
struct BulkStep {
    waiting: WaitingRow,
    change: RowChange,
    kept: Option<(Vec<u8>, Vec<u8>)>,
}

impl Engine {
    /// Changes these tasks in one commit, or none of them if one is delivered to somebody else.
    pub(super) fn change_all(
        &mut self,
        act: Option<&str>,
        change: &BulkChange,
        picks: Vec<BulkPick>,
    ) -> Result<BulkOutcome, BrokerError> {
        let tables = self.open_tables()?;
        let (mut found, mut outcome, mut known) = (Vec::new(), BulkOutcome::default(), HashSet::new());
        for BulkPick { id, tag } in picks {
            match self.seek(&tables, &id, tag)? {
                Sought::Here(waiting) if known.insert(id.clone()) => found.push(waiting),
                Sought::Busy => outcome.busy.push(id),
                Sought::Here(_) | Sought::Gone => {}
            }
        }
        if !outcome.busy.is_empty() {
            return Ok(outcome);
        }
        let to = match change {
            BulkChange::Move { to } => self.queue(to)?,
            BulkChange::End { .. } => 0,
        };
        let (mut batch, mut steps) = (LaneBatch::default(), Vec::with_capacity(found.len()));
        for waiting in found {
            if let (RowPlace::InLine(_), Some(name), BulkChange::End { .. }) =
                (&waiting.place, waiting.message.lane(), change)
            {
                batch.open(&self.known_lanes, &tables, name, self.seq)?;
            }
            steps.extend(plan_change(act, change, waiting)?);
        }
        if steps.is_empty() {
            return Ok(outcome);
        }
        let (mut writes, mut queues, mut records) = (Writes::default(), BTreeSet::new(), Vec::new());
        for BulkStep { waiting, change, kept } in steps {
            queues.insert(waiting.queue);
            outcome.done.push(Arc::clone(&waiting.message));
            if let Some((key, row)) = kept {
                writes.put(TableName::Meta, &key, &row);
            }
            match change {
                RowChange::Moves { message, row } => {
                    self.stage_move(&mut writes, &waiting, (to, message), &row, None);
                }
                RowChange::Ends(remains) => {
                    records.extend(self.stage_end(&mut writes, &mut batch, &tables, &waiting, *remains)?);
                }
            }
        }
        let queues: Vec<usize> = queues.into_iter().collect();
        self.commit_follow_ups(batch, &queues, writes)?;
        records.iter().for_each(|record| self.shared.waiters.wake(record));
        Ok(outcome)
    }

    /// Finds a task that waits, or that is delivered under this tag.
    pub(super) fn seek(
        &mut self,
        tables: &Tables,
        id: &TaskId,
        tag: Option<u64>,
    ) -> Result<Sought, BrokerError> {
        let (place, row) = match self.row(id)? {
            Some(TaskRow::At(key)) => {
                let is_held_as = |tag: u64, key: &[u8]| {
                    self.holder(key)
                        .is_some_and(|cursor| cursor.held.get(&tag).is_some_and(|held| held.key[..] == *key))
                };
                if self.holder(&key).is_some() && tag.is_none_or(|tag| !is_held_as(tag, &key)) {
                    return Ok(Sought::Busy);
                }
                let row = tables.get(TableName::Messages, &key)?;
                let place = ReadyKey::of(&key).map_or_else(|| RowPlace::Scheduled(key), RowPlace::Ready);
                (place, row)
            }
            Some(TaskRow::InLine(key)) => {
                let row = tables.get(TableName::Lanes, &key)?;
                (RowPlace::InLine(key), row)
            }
            _ => return Ok(Sought::Gone),
        };
        let Some(row) = row else { return Ok(Sought::Gone) };
        let message: Message = decode(&row)?;
        let queue = self.queue(&message.queue)?;
        Ok(Sought::Here(WaitingRow { message: Arc::new(message), queue, place, tag }))
    }

    /// Stages that a row leaves its queue, and ends its delivery if the caller has that.
    fn take_out(&mut self, writes: &mut Writes, waiting: &WaitingRow) {
        let (cursor, key) = (&mut self.cursors[waiting.queue], waiting.place.key());
        writes.delete(TableName::Messages, key);
        cursor.left_at(key);
        let is_held = |tag: &u64| cursor.held.get(tag).is_some_and(|held| held.key[..] == *key);
        let Some(tag) = waiting.tag.filter(is_held) else { return };
        if let Some(held) = cursor.release(tag) {
            self.shared.start_log.forget(std::iter::once(held.key));
            if held.message.crashes > 0 {
                self.last_chance_over(tag);
            }
        }
    }

    /// Stages that a row goes into another queue: to its old place there, if it has one that is free, or to the end.
    pub(super) fn stage_move(
        &mut self,
        writes: &mut Writes,
        waiting: &WaitingRow,
        (to, message): (usize, Arc<Message>),
        row: &[u8],
        old: Option<(&Tables, KeptPlace)>,
    ) {
        if let RowPlace::InLine(key) = &waiting.place {
            writes.put(TableName::Lanes, key, row);
            let from = &mut self.cursors[waiting.queue];
            from.in_line = from.in_line.saturating_sub(1);
            self.cursors[to].in_line += 1;
            self.commit.queues.insert(to);
            return;
        }
        self.take_out(writes, waiting);
        self.put_at(writes, (to, message), row, waiting.place.due(), old);
    }

    /// Stages that a message waits: at its old place, if it has one that is free, or at the end of its queue.
    pub(super) fn put_at(
        &mut self,
        writes: &mut Writes,
        (queue, message): (usize, Arc<Message>),
        row: &[u8],
        due: Option<Timestamp>,
        old: Option<(&Tables, KeptPlace)>,
    ) {
        let place = old.and_then(|(tables, place)| self.free_place(tables, queue, &message, place, due));
        let arrival = match place {
            Some(place) => self.place_back(writes, queue, place, message, row),
            None => self.place(writes, queue, message, row, due),
        };
        self.commit.arrivals.push(arrival);
    }

    /// The place where a task stood, if it is free and the task is due as it was then.
    fn free_place(
        &mut self,
        tables: &Tables,
        queue: usize,
        message: &Message,
        place: KeptPlace,
        due: Option<Timestamp>,
    ) -> Option<RowKey> {
        let cursor = &mut self.cursors[queue];
        let place = match (place, due) {
            (KeptPlace::Ready { seq }, None) => RowKey::Ready(cursor.ready_key(message, seq)),
            (KeptPlace::Scheduled { seq, .. }, Some(due)) => {
                RowKey::Scheduled(due, scheduled_key(cursor.number, due, seq))
            }
            _ => return None,
        };
        matches!(tables.get(TableName::Messages, place.key()), Ok(None)).then_some(place)
    }

    /// Stages that a task is over. Returns its record.
    fn stage_end(
        &mut self,
        writes: &mut Writes,
        batch: &mut LaneBatch,
        tables: &Tables,
        waiting: &WaitingRow,
        Remains { record, follow_ups }: Remains,
    ) -> Result<Option<TaskResult>, BrokerError> {
        let message = &waiting.message;
        if let RowPlace::InLine(key) = &waiting.place {
            self.leave_line(batch, tables, key, message)?;
        } else {
            self.take_out(writes, waiting);
            self.leaves_lane(message, None);
            self.lets_go(message);
        }
        self.leave_record(writes, &task_key(&message.id), record.as_ref(), None);
        argument_index::delete_waiting(writes, message, None);
        if let Some(follow_ups) = follow_ups {
            self.follow(writes, &message.id, *follow_ups);
        }
        Ok(record)
    }
}

/// Makes the step that changes a task. `None`: it is in the queue to which it is to move.
fn plan_change(
    act: Option<&str>,
    change: &BulkChange,
    waiting: WaitingRow,
) -> Result<Option<BulkStep>, BrokerError> {
    let message = &waiting.message;
    let (change, kept) = match change {
        BulkChange::Move { to } if *to == message.queue => return Ok(None),
        BulkChange::Move { to } => {
            let moved = in_queue(message, to);
            let row = encode(&moved)?;
            let (from, runs) = (message.queue.clone(), RunMarks::of(message));
            let kept = KeptChange::Moved { from, to: to.clone(), runs };
            (RowChange::Moves { message: Arc::new(moved), row }, Some(kept))
        }
        BulkChange::End { remains } => {
            let remains = remains(message);
            let ended = || KeptChange::Ended(Box::new(Message::clone(message)));
            let kept = remains.follow_ups.is_none().then(ended);
            (RowChange::Ends(Box::new(remains)), kept)
        }
    };
    let kept = match (act, kept) {
        (Some(act), Some(change)) => {
            let row = KeptRow { id: message.id.clone(), place: waiting.place.kept(), change };
            Some((kept_key(act, waiting.place.number()), encode(&row)?))
        }
        _ => None,
    };
    Ok(Some(BulkStep { waiting, change, kept }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_of_an_act_lie_in_the_order_of_their_tasks_and_apart_from_those_of_others() {
        let ready = bulk::number(false, 7);
        let in_line = bulk::number(true, 3);
        let keys = [kept_key("a", ready), kept_key("a", ready + 1), kept_key("a", in_line), kept_key("b", 0)];
        assert!(keys.is_sorted(), "{keys:?}");
        assert_eq!(nth_of(&keys[2], &kept_by("a")), Some(in_line));
        assert_eq!(nth_of(&keys[3], &kept_by("a")), None);
        assert_eq!(
            nth_of(&kept_key("a/b", 1), &kept_by("a")),
            None,
            "the name of another act begins with it"
        );
    }
}
