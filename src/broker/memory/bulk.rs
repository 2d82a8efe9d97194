//! Changes of many waiting tasks in memory, each under the lock, and what undoes them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;

use super::entries::EntryIndex;
use super::queue::QueueIndex;
use super::rank::Rank;
use super::{MemoryBroker, MemoryInner, MemorySpot, MemoryState};
use crate::broker::bulk::{RunMarks, in_queue, is_ended_so, number, waiting_again};
use crate::broker::{
    BrokerError, BulkChange, BulkChanges, BulkOutcome, BulkPick, KeptTask, Remains, RemainsFn, UndoOutcome,
};
use crate::core::Timestamp;
use crate::task::{Message, TaskId};

/// What is kept of the tasks that were changed: by act and by the number of the task.
#[derive(Default)]
pub(super) struct KeptChanges(HashMap<String, BTreeMap<u64, TaskUndo>>);

/// What undoes the change of a task.
#[derive(Clone)]
struct TaskUndo {
    id: TaskId,
    spot: MemorySpot,
    was: Was,
}

/// What was done to a task.
#[derive(Clone)]
enum Was {
    Moved { from: String, to: String, runs: RunMarks },
    Ended(Arc<Message>),
}

impl KeptChanges {
    fn keep(&mut self, act: Option<&str>, message: &Message, spot: MemorySpot, was: Was) {
        let Some(act) = act else { return };
        let nth = match spot {
            MemorySpot::Ready(rank) => number(false, rank.sequence()),
            MemorySpot::Scheduled((_, sequence)) => number(false, sequence),
            MemorySpot::InLine(ticket) => number(true, ticket),
            MemorySpot::Delivered => return, // a delivered task has the spot to which it would go back
        };
        let kept = TaskUndo { id: message.id.clone(), spot, was };
        self.0.entry(act.to_owned()).or_default().insert(nth, kept);
    }

    fn of(&self, act: &str, kept: &KeptTask) -> Option<TaskUndo> {
        self.0.get(act)?.get(&kept.nth).filter(|change| change.id == kept.id).cloned()
    }

    fn take(&mut self, act: &str, nth: u64) {
        if let Some(kept) = self.0.get_mut(act) {
            kept.remove(&nth);
            if kept.is_empty() {
                self.0.remove(act);
            }
        }
    }
}

/// A task that waits, or that the caller has.
struct WaitingMessage {
    at: EntryIndex,
    message: Arc<Message>,
    /// Where the task stands, or where it would go back to.
    spot: MemorySpot,
    /// The tag of its delivery.
    tag: Option<u64>,
}

/// The outcome of a search for a waiting task.
enum WaitingSearch {
    Here(WaitingMessage),
    Busy,
    Gone,
}

#[async_trait]
impl BulkChanges for MemoryBroker {
    async fn change_all(
        &self,
        act: Option<&str>,
        change: &BulkChange,
        picks: Vec<BulkPick>,
    ) -> Result<BulkOutcome, BrokerError> {
        let mut state = self.shared.lock()?;
        let (mut found, mut outcome, mut known) = (Vec::new(), BulkOutcome::default(), HashSet::new());
        for BulkPick { id, tag } in picks {
            match state.seek(&id, tag) {
                WaitingSearch::Here(waiting) if known.insert(id.clone()) => found.push(waiting),
                WaitingSearch::Busy => outcome.busy.push(id),
                WaitingSearch::Here(_) | WaitingSearch::Gone => {}
            }
        }
        if !outcome.busy.is_empty() {
            return Ok(outcome);
        }
        if let BulkChange::End { .. } = change {
            // Who has a lane is ended after those who wait for it, so that none of them is let in.
            found.sort_by_key(|waiting| !matches!(waiting.spot, MemorySpot::InLine(_)));
        }
        let mut queues = BTreeSet::new();
        for waiting in found {
            if !state.is_there(&waiting) {
                continue; // the end of another one has changed it
            }
            let message = Arc::clone(&waiting.message);
            match change {
                BulkChange::Move { to } if *to == message.queue => continue,
                BulkChange::Move { to } => {
                    let (from, runs) = (message.queue.clone(), RunMarks::of(&message));
                    let was = Was::Moved { from, to: to.clone(), runs };
                    state.kept.keep(act, &message, waiting.spot, was);
                    queues.insert(state.move_to(&waiting, Arc::new(in_queue(&message, to)), None));
                }
                BulkChange::End { remains } => {
                    self.shared.end_waiting(&mut state, act, &waiting, remains);
                }
            }
            queues.insert(state.queue(&message.queue));
            outcome.done.push(message);
        }
        self.shared.ring(&mut state, &queues);
        self.shared.hand_over_stirred(state);
        Ok(outcome)
    }

    async fn kept_for(&self, act: &str, limit: usize) -> Result<Vec<KeptTask>, BrokerError> {
        let state = self.shared.lock()?;
        let kept = state.kept.0.get(act).into_iter().flatten();
        Ok(kept.take(limit).map(|(nth, change)| KeptTask { nth: *nth, id: change.id.clone() }).collect())
    }

    async fn undo(
        &self,
        act: &str,
        picks: Vec<(KeptTask, Option<u64>)>,
        is_last: bool,
    ) -> Result<UndoOutcome, BrokerError> {
        let mut state = self.shared.lock()?;
        let (mut outcome, mut queues) = (UndoOutcome::default(), BTreeSet::new());
        for (kept, tag) in picks {
            let Some(change) = state.kept.of(act, &kept) else { continue };
            match self.shared.undo_one(&mut state, change, tag) {
                Undone::Back(touched) => {
                    queues.extend(touched);
                    outcome.back.push(kept.id);
                }
                Undone::Busy if !is_last => {
                    outcome.busy.push(kept);
                    continue;
                }
                Undone::Busy | Undone::Left => outcome.left.push(kept.id),
            }
            state.kept.take(act, kept.nth);
        }
        self.shared.ring(&mut state, &queues);
        self.shared.hand_over_stirred(state);
        Ok(outcome)
    }

    async fn forget_kept(&self, act: &str) -> Result<(), BrokerError> {
        self.shared.lock()?.kept.0.remove(act);
        Ok(())
    }
}

/// What came of the undo of one task.
enum Undone {
    /// It is back; these queues have changed.
    Back([QueueIndex; 2]),
    Busy,
    Left,
}

impl MemoryInner {
    /// Stirs these queues, and has the timer look at them, which may have got what is due earlier.
    fn ring(self: &Arc<Self>, state: &mut MemoryState, queues: &BTreeSet<QueueIndex>) {
        queues.iter().for_each(|queue| state.stir(*queue));
        let is_scheduled =
            |queue: &QueueIndex| state.queues.get(*queue).is_some_and(|q| !q.scheduled.is_empty());
        if queues.iter().any(is_scheduled) {
            self.wake_timer(state);
        }
        self.watch_deadlines(state);
    }

    /// Ends a task. The queues that have got something from that are stirred.
    fn end_waiting(
        self: &Arc<Self>,
        state: &mut MemoryState,
        act: Option<&str>,
        waiting: &WaitingMessage,
        remains: &RemainsFn,
    ) {
        let WaitingMessage { message, spot, .. } = waiting;
        let Remains { record, follow_ups } = remains(message);
        if follow_ups.is_none() {
            state.kept.keep(act, message, *spot, Was::Ended(Arc::clone(message)));
        }
        state.take_out(waiting);
        state.leave_lane(message, None);
        state.windows.release(message);
        if let Some(record) = record {
            self.store.insert(record);
        }
        self.follow(state, follow_ups.map(|follow_ups| *follow_ups));
    }

    fn undo_one(
        self: &Arc<Self>,
        state: &mut MemoryState,
        TaskUndo { id, spot, was }: TaskUndo,
        tag: Option<u64>,
    ) -> Undone {
        match was {
            Was::Moved { from, to, runs } => match state.seek(&id, tag) {
                WaitingSearch::Busy => Undone::Busy,
                WaitingSearch::Here(now) if now.message.queue == to && RunMarks::of(&now.message) == runs => {
                    let message = Arc::new(in_queue(&now.message, &from));
                    let back = state.move_to(&now, message, Some(spot));
                    Undone::Back([back, state.queue(&to)])
                }
                WaitingSearch::Here(_) | WaitingSearch::Gone => Undone::Left,
            },
            Was::Ended(message) => {
                let is_there = state.entries.knows(&id);
                let is_over = is_ended_so(self.store.record(&id).as_ref());
                if is_there || !is_over || state.windows.holder(&message).is_some() {
                    return Undone::Left;
                }
                self.store.remove(&id);
                let message = Arc::new(waiting_again(Message::clone(&message)));
                let queue = state.queue(&message.queue);
                state.windows.acquire(&message);
                let due = match spot {
                    MemorySpot::Scheduled((due, _)) => Some(due),
                    _ => None,
                };
                let is_let_in = message.serial.as_ref().is_none_or(|serial| serial.refusal.is_some());
                if due.is_some() || is_let_in {
                    let spot = state.spot_of(&message, due, Some(spot));
                    state.put(message, queue, spot);
                } else {
                    state.enter(message, queue, false);
                }
                Undone::Back([queue, queue])
            }
        }
    }
}

impl MemoryState {
    /// Finds a task that waits, or that is delivered under this tag.
    fn seek(&self, id: &TaskId, tag: Option<u64>) -> WaitingSearch {
        let Some((at, entry)) = self.entries.find(id) else { return WaitingSearch::Gone };
        let message = Arc::clone(&entry.message);
        match entry.spot {
            MemorySpot::Delivered => {
                let unsettled = self.queues.get(entry.queue).map(|line| &line.unsettled);
                let held = unsettled.zip(tag).and_then(|(unsettled, tag)| unsettled.get(&tag));
                match held.filter(|(_, held)| *held == at) {
                    Some((rank, _)) => WaitingSearch::Here(WaitingMessage {
                        at,
                        message,
                        spot: MemorySpot::Ready(*rank),
                        tag,
                    }),
                    None => WaitingSearch::Busy,
                }
            }
            spot => WaitingSearch::Here(WaitingMessage { at, message, spot, tag: None }),
        }
    }

    /// Whether a task is still as it was found.
    fn is_there(&self, waiting: &WaitingMessage) -> bool {
        self.entries.get(waiting.at).is_some_and(|entry| Arc::ptr_eq(&entry.message, &waiting.message))
    }

    /// Takes a task out of its place, or ends its delivery, and forgets it.
    fn take_out(&mut self, WaitingMessage { at, message, tag, .. }: &WaitingMessage) {
        let Some(tag) = tag else {
            self.withdraw(*at);
            return;
        };
        let queue = self.entries.get(*at).map(|entry| entry.queue);
        if let Some(line) = queue.and_then(|queue| self.queues.get_mut(queue))
            && line.unsettled.remove(tag).is_some()
        {
            line.ready.ended(message);
        }
        self.forget(*at);
    }

    /// Has a task wait in the queue that `moved` names, whose number is the answer: at its old spot there, if it has one,
    /// or at the end.
    fn move_to(
        &mut self,
        waiting: &WaitingMessage,
        moved: Arc<Message>,
        old: Option<MemorySpot>,
    ) -> QueueIndex {
        let queue = self.queue(&moved.queue);
        let due = match waiting.spot {
            MemorySpot::InLine(ticket) => {
                self.move_in_line(waiting.at, ticket, moved);
                return queue;
            }
            MemorySpot::Scheduled((due, _)) => Some(due),
            MemorySpot::Ready(_) | MemorySpot::Delivered => None,
        };
        self.take_out(waiting);
        let spot = self.spot_of(&moved, due, old);
        self.put(moved, queue, spot);
        queue
    }

    /// The spot of a task that is due then: its old one, if it stood there in the same way, or the last one.
    fn spot_of(&mut self, message: &Message, due: Option<Timestamp>, old: Option<MemorySpot>) -> MemorySpot {
        let sequence = match (old, due) {
            (Some(MemorySpot::Ready(rank)), None) => rank.sequence(),
            (Some(MemorySpot::Scheduled((_, sequence))), Some(_)) => sequence,
            _ => {
                self.next_seq += 1;
                self.next_seq
            }
        };
        match due {
            Some(due) => MemorySpot::Scheduled((due, sequence)),
            None => MemorySpot::Ready(Rank::new(message.priority, sequence)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::broker::Broker;
    use crate::store::MemoryStore;
    use crate::task::{Context, SEARCH};

    #[tokio::test]
    async fn the_index_of_arguments_has_what_waits_and_nothing_else() {
        let broker = MemoryBroker::new(Arc::new(MemoryStore::default()));
        for id in ["moved", "ended"] {
            let mut message = Context::detached().message().clone();
            (message.id, message.queue) = (id.into(), "q".to_owned());
            message.arguments.args = "[17]".to_owned();
            message.headers.0.insert(SEARCH.to_owned(), json!({ "form_id": 0 }));
            broker.publish(message, true).await.unwrap();
        }
        let found = || {
            let state = broker.shared.state.lock();
            let mut ids: Vec<String> =
                state.arguments.find(("form_id", "17")).map(ToString::to_string).collect();
            ids.sort();
            ids
        };
        let pick = |id: &str| vec![BulkPick { id: id.into(), tag: None }];
        let to_other = BulkChange::Move { to: "other".to_owned() };
        broker.change_all(Some("act"), &to_other, pick("moved")).await.unwrap();
        assert_eq!(found(), ["ended", "moved"]);
        let end = BulkChange::End { remains: Arc::new(|_: &Message| Remains::default()) };
        broker.change_all(Some("act"), &end, pick("ended")).await.unwrap();
        assert_eq!(found(), ["moved"]);
        let kept = broker.kept_for("act", 10).await.unwrap();
        let picks = kept.into_iter().map(|kept| (kept, None)).collect();
        assert_eq!(broker.undo("act", picks, false).await.unwrap().back.len(), 2);
        assert_eq!(found(), ["ended", "moved"]);
    }
}
