//! The lanes of the broker in memory: each lane that is not idle, with its line.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::entries::{Entries, EntryIndex};
use super::queue::QueueIndex;
use super::rank::Rank;
use super::{MemorySpot, MemoryState};
use crate::broker::lane::{self, LaneFacts, LaneLever, SHOWN, Waiting};
use crate::core::Timestamp;
use crate::core::lane::{Admission, Lane, Newcomer};
use crate::task::clock::now;
use crate::task::{LaneName, Message, Refusal, TaskId};

/// All lanes that are not idle.
#[derive(Default)]
pub(super) struct MemoryLanes {
    lanes: BTreeMap<LaneName, WaitingEntry>,
    /// When each waiting run gives up, by ticket. A run that was let in by then is not in the line any more.
    deadlines: BTreeSet<(Timestamp, u64, LaneName)>,
    /// Whether a deadline was added since the timer looked, so that it may have to ring earlier.
    pub(super) has_new_deadline: bool,
}

struct WaitingEntry {
    lane: Lane<TaskId>,
    /// The runs that wait, by ticket.
    line: BTreeMap<u64, EntryIndex>,
}

impl MemoryLanes {
    fn open(&mut self, name: &LaneName) -> &mut WaitingEntry {
        let idle = || WaitingEntry { lane: Lane::new(0), line: BTreeMap::new() };
        self.lanes.entry(name.clone()).or_insert_with(idle)
    }

    fn forget_idle(&mut self, name: &LaneName) {
        if self.lanes.get(name).is_some_and(|kept| kept.lane.is_idle()) {
            self.lanes.remove(name);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(at, ..)| *at)
    }

    pub(super) fn facts(&self, name: &LaneName, entries: &Entries) -> Option<LaneFacts> {
        let kept = self.lanes.get(name)?;
        let next = kept.line.values().take(SHOWN).filter_map(|at| entries.get(*at));
        let next = next.map(|entry| Waiting::of(&entry.message)).collect();
        Some(LaneFacts::of(name.clone(), &kept.lane, next))
    }

    pub(super) fn all(&self, limit: usize) -> Vec<LaneFacts> {
        let all = self.lanes.iter().take(limit);
        all.map(|(name, kept)| LaneFacts::of(name.clone(), &kept.lane, Vec::new())).collect()
    }
}

impl MemoryState {
    /// Takes in a message whose time has come to its queue: it becomes ready, or passes its lane first. If it is `new`,
    /// its task's policy for a busy lane applies; otherwise it was promised to wait. Answers with the task that it
    /// joins, if it is left out.
    pub(super) fn enter(&mut self, message: Arc<Message>, queue: QueueIndex, new: bool) -> Option<TaskId> {
        let (Some(serial), Some(name)) = (&message.serial, message.lane()) else {
            self.line_up(message, queue);
            return None;
        };
        let newcomer = match serial.newcomer {
            Newcomer::Skip | Newcomer::Replace if !new => Newcomer::Wait,
            stated => stated,
        };
        let kept = self.lanes.open(name);
        let entry = kept.lane.arrive(&message.id, serial.concurrency, newcomer, now());
        match entry {
            Admission::Enter => self.line_up(message, queue),
            Admission::Refuse => self.refuse(&message, queue, Refusal::CouldNotAcquireLock),
            Admission::Skip => {
                let (_, last) = kept.line.last_key_value()?;
                return self.entries.get(*last).map(|last| last.message.id.clone());
            }
            Admission::Wait { .. } | Admission::Replace => {
                let replaced = if entry == Admission::Replace { kept.line.pop_last() } else { None };
                self.next_seq += 1;
                let (ticket, name) = (self.next_seq, name.clone());
                if let Admission::Wait { until: Some(until) } = entry {
                    self.lanes.deadlines.insert((until, ticket, name.clone()));
                    self.lanes.has_new_deadline = true;
                }
                if let Some((_, old)) = replaced {
                    self.refuse_waiting(old, Refusal::Replaced { by: message.id.clone() });
                }
                let at = self.put(message, queue, MemorySpot::InLine(ticket));
                self.lanes.open(&name).line.insert(ticket, at);
            }
        }
        None
    }

    fn line_up(&mut self, message: Arc<Message>, queue: QueueIndex) {
        self.next_seq += 1;
        let rank = Rank::new(message.priority, self.next_seq);
        self.put(message, queue, MemorySpot::Ready(rank));
    }

    /// Sends a message on with its refusal; the consumer of its queue tells the task that its lane did not take
    /// it.
    fn refuse(&mut self, message: &Message, queue: QueueIndex, refusal: Refusal) {
        self.stir(queue);
        self.line_up(Arc::new(lane::refused(message.clone(), refusal)), queue);
    }

    /// As [`refuse`](Self::refuse), for a run that is not in its lane's line any more.
    fn refuse_waiting(&mut self, at: EntryIndex, refusal: Refusal) {
        let Some(queue) = self.entries.get(at).map(|entry| entry.queue) else { return };
        self.no_longer_in_line(queue);
        if let Some(message) = self.forget(at) {
            self.refuse(&message, queue, refusal);
        }
    }

    fn no_longer_in_line(&mut self, queue: QueueIndex) {
        if let Some(line) = self.queues.get_mut(queue) {
            line.in_line = line.in_line.saturating_sub(1);
        }
    }

    /// Takes a run out of its lane that has ended. If it held the lane, the next one is let in.
    pub(super) fn leave_lane(&mut self, message: &Message, block: Option<String>) {
        let Some(name) = message.lane() else { return };
        let Some(kept) = self.lanes.lanes.get_mut(name) else { return };
        if !kept.lane.release(&message.id, block, now()) {
            return;
        }
        if kept.lane.has_room() {
            self.let_in(name);
        } else if kept.lane.is_idle() {
            self.lanes.lanes.remove(name);
        }
    }

    /// Takes a waiting run out of the line of its lane.
    pub(super) fn leave_line(&mut self, at: EntryIndex, ticket: u64) {
        let Some(entry) = self.entries.get(at) else { return };
        let Some(name) = entry.message.lane() else { return };
        if let Some(kept) = self.lanes.lanes.get_mut(name)
            && kept.line.remove(&ticket).is_some()
        {
            kept.lane.leave();
            self.lanes.forget_idle(name);
            let queue = entry.queue;
            self.no_longer_in_line(queue);
        }
    }

    /// Has a task that waits in its lane's line wait there for another queue, as this message.
    pub(super) fn move_in_line(&mut self, at: EntryIndex, ticket: u64, moved: Arc<Message>) {
        let Some(entry) = self.entries.get(at) else { return };
        let (Some(name), from) = (entry.message.lane().cloned(), entry.queue) else { return };
        if !self.lanes.lanes.get(&name).is_some_and(|kept| kept.line.contains_key(&ticket)) {
            return;
        }
        self.no_longer_in_line(from);
        self.forget(at);
        let to = self.queue(&moved.queue);
        let at = self.put(moved, to, MemorySpot::InLine(ticket));
        self.lanes.open(&name).line.insert(ticket, at);
    }

    pub(super) fn steer_lane(&mut self, name: &LaneName, lever: LaneLever) -> bool {
        let moved = lever.pull(&mut self.lanes.open(name).lane);
        self.let_in(name);
        moved
    }

    /// Lets waiting runs in as long as there is room, and forgets a lane that is idle.
    fn let_in(&mut self, name: &LaneName) {
        while let Some(kept) = self.lanes.lanes.get_mut(name).filter(|kept| kept.lane.has_room()) {
            let Some((ticket, at)) = kept.line.pop_first() else {
                kept.lane.nobody_waits();
                continue;
            };
            let Some(waiting) = self.entries.get(at) else { continue };
            let (now, queue) = (now(), waiting.queue);
            kept.lane.let_in(&waiting.message.id, ticket, now);
            let message = Arc::new(lane::let_in(Message::clone(&waiting.message), now));
            self.forget(at);
            self.no_longer_in_line(queue);
            self.stir(queue);
            self.line_up(message, queue);
        }
        self.lanes.forget_idle(name);
    }

    /// Makes the runs leave their lines that have waited long enough.
    pub(super) fn give_up_waiting(&mut self, now: Timestamp) {
        while self.lanes.next_deadline().is_some_and(|at| at <= now)
            && let Some((_, ticket, name)) = self.lanes.deadlines.pop_first()
        {
            let at = self.lanes.lanes.get(&name).and_then(|kept| kept.line.get(&ticket)).copied();
            let Some(queue) = at.and_then(|at| self.entries.get(at)).map(|entry| entry.queue) else {
                continue;
            };
            if let Some(message) = at.and_then(|at| self.withdraw(at)) {
                self.refuse(&message, queue, Refusal::CouldNotAcquireLock);
            }
        }
    }
}
