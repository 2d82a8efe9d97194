//! The lanes of the broker in memory: each lane that is not idle, with its line.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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
    line: BTreeMap<u64, Arc<Message>>,
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

    pub(super) fn facts(&self, name: &LaneName) -> Option<LaneFacts> {
        let kept = self.lanes.get(name)?;
        let next = kept.line.values().take(SHOWN).map(|message| Waiting::of(message)).collect();
        Some(LaneFacts::of(name.clone(), &kept.lane, next))
    }

    pub(super) fn all(&self, limit: usize) -> Vec<LaneFacts> {
        let all = self.lanes.iter().take(limit);
        all.map(|(name, kept)| LaneFacts::of(name.clone(), &kept.lane, Vec::new())).collect()
    }
}

impl MemoryState {
    /// Takes in a message whose time has come: it becomes ready, or passes its lane first. If it is `new`, its
    /// task's policy for a busy lane applies; otherwise it was promised to wait. Answers with the task that it
    /// joins, if it is left out.
    pub(super) fn enter(&mut self, message: Arc<Message>, new: bool) -> Option<TaskId> {
        let (Some(serial), Some(name)) = (&message.serial, message.lane()) else {
            self.line_up(message);
            return None;
        };
        let newcomer = match serial.newcomer {
            Newcomer::Skip | Newcomer::Replace if !new => Newcomer::Wait,
            stated => stated,
        };
        let kept = self.lanes.open(name);
        let entry = kept.lane.arrive(&message.id, serial.concurrency, newcomer, now());
        match entry {
            Admission::Enter => self.line_up(message),
            Admission::Refuse => self.refuse(&message, Refusal::CouldNotAcquireLock),
            Admission::Skip => return kept.line.last_key_value().map(|(_, last)| last.id.clone()),
            Admission::Wait { .. } | Admission::Replace => {
                let replaced = if entry == Admission::Replace { kept.line.pop_last() } else { None };
                self.next_seq += 1;
                let ticket = self.next_seq;
                kept.line.insert(ticket, Arc::clone(&message));
                if let Admission::Wait { until: Some(until) } = entry {
                    self.lanes.deadlines.insert((until, ticket, name.clone()));
                    self.lanes.has_new_deadline = true;
                }
                if let Some((_, old)) = replaced {
                    self.no_longer_in_line(&old);
                    self.refuse(&old, Refusal::Replaced { by: message.id.clone() });
                }
                self.put(message, MemorySpot::InLine(ticket));
            }
        }
        None
    }

    fn line_up(&mut self, message: Arc<Message>) {
        self.next_seq += 1;
        let rank = (Reverse(message.priority), self.next_seq);
        self.put(message, MemorySpot::Ready(rank));
    }

    /// Sends a message on with its refusal; the consumer of its queue tells the task that its lane did not take
    /// it.
    fn refuse(&mut self, message: &Message, refusal: Refusal) {
        self.stirred.push(message.queue.clone());
        self.line_up(Arc::new(lane::refused(message.clone(), refusal)));
    }

    fn no_longer_in_line(&mut self, message: &Message) {
        let line = self.line(&message.queue);
        line.in_line = line.in_line.saturating_sub(1);
    }

    /// Takes a run out of its lane that has ended. If it held the lane, the next one is let in.
    pub(super) fn leave_lane(&mut self, message: &Message, block: Option<String>) {
        let Some(name) = message.lane() else { return };
        if self.lanes.lanes.get_mut(name).is_some_and(|kept| kept.lane.release(&message.id, block, now())) {
            self.let_in(name);
        }
    }

    /// Takes a waiting run out of the line.
    pub(super) fn leave_line(&mut self, message: &Message, ticket: u64) {
        let Some(name) = message.lane() else { return };
        if let Some(kept) = self.lanes.lanes.get_mut(name)
            && kept.line.remove(&ticket).is_some()
        {
            kept.lane.leave();
            self.no_longer_in_line(message);
            self.lanes.forget_idle(name);
        }
    }

    /// Has a task that waits in its lane's line wait there for another queue.
    pub(super) fn move_in_line(&mut self, old: &Message, ticket: u64, moved: Arc<Message>) {
        let Some(name) = old.lane() else { return };
        let kept = self.lanes.lanes.get_mut(name);
        if let Some(place) = kept.and_then(|kept| kept.line.get_mut(&ticket)) {
            *place = Arc::clone(&moved);
            self.no_longer_in_line(old);
            self.put(moved, MemorySpot::InLine(ticket));
        }
    }

    pub(super) fn steer_lane(&mut self, name: &LaneName, lever: LaneLever) -> bool {
        let moved = lever.pull(&mut self.lanes.open(name).lane);
        self.let_in(name);
        moved
    }

    /// Lets waiting runs in as long as there is room, and forgets a lane that is idle.
    fn let_in(&mut self, name: &LaneName) {
        while let Some(kept) = self.lanes.lanes.get_mut(name).filter(|kept| kept.lane.has_room()) {
            match kept.line.pop_first() {
                Some((ticket, message)) => {
                    let now = now();
                    kept.lane.let_in(&message.id, ticket, now);
                    let message = Arc::new(lane::let_in(Message::clone(&message), now));
                    self.no_longer_in_line(&message);
                    self.stirred.push(message.queue.clone());
                    self.line_up(message);
                }
                None => kept.lane.nobody_waits(),
            }
        }
        self.lanes.forget_idle(name);
    }

    /// Makes the runs leave their lines that have waited long enough.
    pub(super) fn give_up_waiting(&mut self, now: Timestamp) {
        while self.lanes.next_deadline().is_some_and(|at| at <= now)
            && let Some((_, ticket, name)) = self.lanes.deadlines.pop_first()
        {
            let message = self.lanes.lanes.get(&name).and_then(|kept| kept.line.get(&ticket)).cloned();
            if let Some(message) = message {
                self.leave_line(&message, ticket);
                self.refuse(&message, Refusal::CouldNotAcquireLock);
            }
        }
    }
}
