//! Which item of a queue runs next.
//!
//! An item that arrives is *ready* or, with a due time ahead, *scheduled*. A release makes it *running*, and a finish
//! ends it. A ready item that something keeps from starting is *held*: it is set aside with others of its group, so that it
//! stands in nobody's way, and keeps its place for when it is brought back. The machine serves the `Queue` actor: items are
//! deliveries, and the limit is the number of workers.
//!
//! Invariants:
//! - The queue holds a tag at most once: waiting (ready, held or scheduled) or running, never both.
//! - A release never raises the number of running items above the limit. A smaller limit does not stop running items.
//! - Ready items leave by priority, the higher number first, as in RabbitMQ's priority queues (not as in Celery's
//!   Redis transport, where the lower number wins), then in the order in which they became ready. A scheduled item
//!   becomes ready at its due time, however late somebody looks. Of two that become ready at the same time, the one
//!   that arrived first leaves first.
//! - The queue counts the order of becoming ready and does not read it off the clock, so a wall clock that steps back
//!   reorders no ready item.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use self::held::{HeldItems, UsedTurn};
use super::Timestamp;
use super::number_map::{TagMap, take};

mod held;

/// The items that wait and the items that run in one queue. Each call costs O(log n) unless it says otherwise.
#[derive(Debug)]
pub struct RunQueue<T> {
    /// The items that wait, by tag. It gives memory back when a backlog drains, and so do the sorted maps.
    waiting: TagMap<WaitingItem<T>>,
    /// The tags of the ready items in the order in which they leave.
    line: BTreeMap<(Reverse<u8>, u64), u64>,
    /// When each ready item became ready, with its rank. The first entry is the oldest.
    ready_since: BTreeSet<(Timestamp, u64)>,
    /// The tags of the scheduled items by due time.
    agenda: BTreeMap<(Timestamp, u64), u64>,
    /// The held items, by group and line.
    held: HeldItems,
    /// Since when each held item is held, with its rank. The first entry is the oldest.
    held_since: BTreeSet<(Timestamp, u64)>,
    /// The tags of the items that run.
    running: TagMap<()>,
    limit: usize,
    paused: bool,
    next_rank: u64,
}

#[derive(Debug)]
struct WaitingItem<T> {
    item: T,
    priority: u8,
    place: WaitIndex,
    /// Says since when something keeps it from starting, if it was ever held.
    held_since: Option<Timestamp>,
    /// The turn in which it came back, if it was held and is ready again.
    used_turn: Option<UsedTurn>,
}

/// Where a waiting item is indexed. Each item takes the next rank, so ranks break every tie.
#[derive(Clone, Copy, Debug)]
enum WaitIndex {
    Ready {
        rank: u64,
        since: Timestamp,
    },
    Scheduled {
        due: Timestamp,
        rank: u64,
    },
    /// `since` is since when it is held, and `place` says with which others: its group, and its line there.
    Held {
        rank: u64,
        since: Timestamp,
        place: (u64, u64),
    },
}

impl<T> RunQueue<T> {
    /// An empty queue that lets at most `limit` run at a time; 0 lets nothing run.
    pub fn new(limit: usize) -> Self {
        Self {
            waiting: TagMap::default(),
            line: BTreeMap::new(),
            ready_since: BTreeSet::new(),
            agenda: BTreeMap::new(),
            held: HeldItems::default(),
            held_since: BTreeSet::new(),
            running: TagMap::default(),
            limit,
            paused: false,
            next_rank: 0,
        }
    }

    /// Takes an item in: scheduled if `due` is after `now`, else ready at once.
    ///
    /// The caller chooses tags that are unique and never reused. Returns false and drops the item if the queue holds
    /// the tag already, waiting or running, as when a broker delivers twice.
    pub fn arrive(
        &mut self,
        tag: u64,
        item: T,
        priority: u8,
        due: Option<Timestamp>,
        now: Timestamp,
    ) -> bool {
        // Items that came due before this arrival are ahead of it, even if nobody has released anything since.
        self.promote(now);
        if self.holds(tag) {
            return false;
        }
        let rank = self.take_rank();
        let place = match due {
            Some(due) if due > now => {
                self.agenda.insert((due, rank), tag);
                WaitIndex::Scheduled { due, rank }
            }
            _ => {
                self.line_up(tag, priority, rank, now);
                WaitIndex::Ready { rank, since: now }
            }
        };
        self.waiting.insert(tag, WaitingItem { item, priority, place, held_since: None, used_turn: None });
        true
    }

    /// Takes in an item that has been ready since `since` in another place. The item lines up behind the items that
    /// are here, as any item that arrives now; only its age differs. Returns false and drops the item if the queue
    /// holds the tag already.
    pub fn arrive_ready(
        &mut self,
        tag: u64,
        item: T,
        priority: u8,
        since: Timestamp,
        now: Timestamp,
    ) -> bool {
        self.promote(now);
        if self.holds(tag) {
            return false;
        }
        let (rank, since) = (self.take_rank(), since.min(now));
        self.line_up(tag, priority, rank, since);
        let place = WaitIndex::Ready { rank, since };
        self.waiting.insert(tag, WaitingItem { item, priority, place, held_since: None, used_turn: None });
        true
    }

    /// Lets the first ready item run. Returns `None` if there is none, the queue is paused or the limit is reached;
    /// call it until then. Items that have come due by `now` become ready first, even when nothing can be released.
    pub fn release(&mut self, now: Timestamp) -> Option<(u64, T)> {
        self.promote(now);
        if self.paused || self.running.len() >= self.limit {
            return None;
        }
        let (_, tag) = self.line.pop_first()?;
        let waiting = take(&mut self.waiting, tag)?;
        if let WaitIndex::Ready { rank, since } = waiting.place {
            self.ready_since.remove(&(since, rank));
        }
        self.running.insert(tag, ());
        Some((tag, waiting.item))
    }

    /// The first ready item, which [`release`](Self::release) would let run.
    pub fn first(&mut self, now: Timestamp) -> Option<(u64, &T)> {
        self.promote(now);
        if self.paused || self.running.len() >= self.limit {
            return None;
        }
        let tag = *self.line.first_key_value()?.1;
        Some((tag, &self.waiting.get(&tag)?.item))
    }

    /// Sets a ready item aside, with the others of its group. The lines of a group take turns when its items are brought back.
    /// `since` is since when something keeps it from starting; for an item that was held before and brought back, the first
    /// such time counts. Returns false if the item is not ready.
    pub fn hold(&mut self, tag: u64, group: u64, line: u64, since: Timestamp) -> bool {
        let Some(waiting) = self.waiting.get_mut(&tag) else { return false };
        let WaitIndex::Ready { rank, since: ready_since } = waiting.place else { return false };
        let since = *waiting.held_since.get_or_insert(since);
        let place = (group, line);
        waiting.place = WaitIndex::Held { rank, since, place };
        let used = waiting.used_turn.take();
        self.line.remove(&(Reverse(waiting.priority), rank));
        self.ready_since.remove(&(ready_since, rank));
        self.held.insert(place, (Reverse(waiting.priority), rank), tag, used);
        self.held_since.insert((since, rank));
        true
    }

    /// Makes a held item of a group ready again, at its old place: the first one of the line whose turn it is. It counts as
    /// ready since `since`, when nothing kept it any more. Returns its tag.
    pub fn bring_back(&mut self, group: u64, since: Timestamp) -> Option<u64> {
        let (tag, used) = self.held.take_next(group)?;
        let waiting = self.waiting.get_mut(&tag)?;
        let WaitIndex::Held { rank, since: held_since, .. } = waiting.place else { return None };
        (waiting.place, waiting.used_turn) = (WaitIndex::Ready { rank, since }, Some(used));
        let priority = waiting.priority;
        self.held_since.remove(&(held_since, rank));
        self.line_up(tag, priority, rank, since);
        Some(tag)
    }

    /// Makes all held items ready again, since `since`. O(n log n).
    pub fn bring_all_back(&mut self, since: Timestamp) {
        while let Some(group) = self.held.first_group() {
            if self.bring_back(group, since).is_none() {
                return;
            }
        }
    }

    /// The held item of a group that can best wait elsewhere: the last one of its longest line.
    pub fn last_held(&self, group: u64) -> Option<u64> {
        self.held.last(group)
    }

    /// Says since when something keeps this waiting item from starting, if it was ever held.
    pub fn held_since(&self, tag: u64) -> Option<Timestamp> {
        self.waiting.get(&tag)?.held_since
    }

    /// Says since when an item is ready. `None`: it is not, because it is held, scheduled, runs, or is unknown.
    pub fn ready_since(&self, tag: u64) -> Option<Timestamp> {
        match self.waiting.get(&tag)?.place {
            WaitIndex::Ready { since, .. } => Some(since),
            _ => None,
        }
    }

    /// Lets this ready item run. Returns `None` if it is not ready, the queue is paused or the limit is reached.
    pub fn release_tag(&mut self, tag: u64) -> Option<T> {
        if self.paused || self.running.len() >= self.limit || self.ready_since(tag).is_none() {
            return None;
        }
        let item = self.remove(tag)?;
        self.running.insert(tag, ());
        Some(item)
    }

    /// Ends a running item and frees its place. Returns false if the item is not running, which refuses a late finish
    /// of an item that somebody else has finished.
    pub fn finish(&mut self, tag: u64) -> bool {
        take(&mut self.running, tag).is_some()
    }

    /// Takes a waiting item out, as when its task is revoked. `None` if the item is running or unknown.
    pub fn remove(&mut self, tag: u64) -> Option<T> {
        let waiting = take(&mut self.waiting, tag)?;
        match waiting.place {
            WaitIndex::Ready { rank, since } => {
                self.line.remove(&(Reverse(waiting.priority), rank));
                self.ready_since.remove(&(since, rank));
            }
            WaitIndex::Scheduled { due, rank } => {
                self.agenda.remove(&(due, rank));
            }
            WaitIndex::Held { rank, since, place } => {
                self.held.remove(place, (Reverse(waiting.priority), rank));
                self.held_since.remove(&(since, rank));
            }
        }
        Some(waiting.item)
    }

    /// Takes out all waiting items, the ready ones in their order, then the held ones, and then the scheduled ones by due
    /// time, so that a drain or a shutdown can hand them back. Running items, the limit and a pause stay. O(n log n).
    pub fn clear(&mut self) -> Vec<(u64, T)> {
        self.ready_since.clear();
        self.held_since.clear();
        let line = std::mem::take(&mut self.line);
        let held = std::mem::take(&mut self.held);
        let agenda = std::mem::take(&mut self.agenda);
        let mut waiting = std::mem::take(&mut self.waiting);
        let tags = line.into_values().chain(held.tags().copied()).chain(agenda.into_values());
        tags.filter_map(|tag| Some((tag, waiting.remove(&tag)?.item))).collect()
    }

    /// All waiting items, in the order of [`clear`](Self::clear). O(log n) for each step.
    pub fn waiting(&self) -> impl Iterator<Item = (u64, &T)> {
        let tags = self.line.values().chain(self.held.tags()).chain(self.agenda.values());
        tags.filter_map(|tag| Some((*tag, &self.waiting.get(tag)?.item)))
    }

    /// The tag of the first waiting item, in the order of [`waiting`](Self::waiting), for which `wanted` returns
    /// true. O(n log n), as it looks at one item after the other.
    pub fn find(&self, wanted: impl Fn(&T) -> bool) -> Option<u64> {
        self.waiting().find(|(_, item)| wanted(item)).map(|(tag, _)| tag)
    }

    /// The waiting item with this tag.
    pub fn get(&self, tag: u64) -> Option<&T> {
        self.waiting.get(&tag).map(|waiting| &waiting.item)
    }

    /// Counts the ready items that leave before this ready one. `None`: it is not ready. O(n), as it counts them.
    pub fn ahead_of(&self, tag: u64) -> Option<usize> {
        let WaitingItem { priority, place: WaitIndex::Ready { rank, .. }, .. } = self.waiting.get(&tag)?
        else {
            return None;
        };
        Some(self.line.range(..(Reverse(*priority), *rank)).count())
    }

    /// Changes how many items may run at a time. If more run already, nothing is released until enough have finished.
    pub fn resize(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Returns the number of items that may run at a time.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Releases nothing until [`resume`](Self::resume). Arrivals still line up, and running items go on.
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// Ends a pause, so that items are released again.
    pub fn resume(&mut self) {
        self.paused = false;
    }

    /// Whether the queue is paused.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Whether the item was released and has not finished.
    pub fn is_running(&self, tag: u64) -> bool {
        self.running.contains_key(&tag)
    }

    /// Returns the number of items that are ready. Items that came due since the last arrival or release still count as
    /// scheduled.
    pub fn ready(&self) -> usize {
        self.line.len()
    }

    /// Returns the number of items that wait for their due time.
    pub fn scheduled(&self) -> usize {
        self.agenda.len()
    }

    /// Returns the number of items that are held.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Returns the number of items of a group that are held. It costs O(n) in the number of its lines.
    pub fn held_in(&self, group: u64) -> usize {
        self.held.len_of(group)
    }

    /// Says since when the oldest held item is held.
    pub fn oldest_held_since(&self) -> Option<Timestamp> {
        self.held_since.first().map(|(since, _)| *since)
    }

    /// Returns the number of items that run; more than the limit only after a [`resize`](Self::resize).
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Says when the next scheduled item comes due: the time to call [`release`](Self::release) again.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.agenda.first_key_value().map(|((due, _), _)| *due)
    }

    /// Says when the oldest ready item of any priority became ready. Held items do not count, and one that was held counts from
    /// when it was brought back. It measures how long a queue is blocked, see [`blockage`](super::blockage).
    pub fn oldest_ready_since(&self) -> Option<Timestamp> {
        self.ready_since.first().map(|(since, _)| *since)
    }

    /// Whether the item waits here or runs.
    fn holds(&self, tag: u64) -> bool {
        self.running.contains_key(&tag) || self.waiting.contains_key(&tag)
    }

    /// Makes all items ready that are due by `now`, in the order of their due times.
    fn promote(&mut self, now: Timestamp) {
        while let Some(first) = self.agenda.first_entry()
            && first.key().0 <= now
        {
            let ((due, _), tag) = first.remove_entry();
            let rank = self.take_rank();
            if let Some(waiting) = self.waiting.get_mut(&tag) {
                waiting.place = WaitIndex::Ready { rank, since: due };
                let priority = waiting.priority;
                self.line_up(tag, priority, rank, due);
            }
        }
    }

    fn line_up(&mut self, tag: u64, priority: u8, rank: u64, since: Timestamp) {
        self.line.insert((Reverse(priority), rank), tag);
        self.ready_since.insert((since, rank));
    }

    fn take_rank(&mut self) -> u64 {
        let rank = self.next_rank;
        self.next_rank += 1;
        rank
    }
}

#[cfg(test)]
mod tests;
