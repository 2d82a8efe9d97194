//! What runs next in one queue.
//!
//! Something that arrives is *ready* or, with a due time ahead, *scheduled*; a release makes it *running*, a
//! finish ends it. The same machine serves the `Queue` actor (items are deliveries, the limit is the number of
//! workers) and the in-memory broker (items are messages, the limit is the prefetch count).
//!
//! Invariants:
//! - A tag is held at most once: waiting (ready or scheduled) or running, never both.
//! - A release never takes the running above the limit. A smaller limit does not stop what runs already.
//! - Ready ones leave by priority, the higher number first, as in RabbitMQ's priority queues (not as in Celery's
//!   Redis transport, where the lower number wins), then in the order in which they became ready. A scheduled one
//!   becomes ready at its due time, however late somebody looks; a tie goes to the one that was there first.
//! - The order of becoming ready is counted, not read off the clock, so a wall clock that steps back reorders
//!   nothing that is ready.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::Timestamp;

/// What waits and what runs in one queue. Each call costs O(log n) unless it says otherwise.
#[derive(Debug)]
pub struct Queue<T> {
    /// What waits, by tag. Maps in order throughout, not hashed ones: they give memory back when a backlog drains.
    waiting: BTreeMap<u64, Waiting<T>>,
    /// Tags of the ready ones in the order in which they leave.
    line: BTreeMap<(Reverse<u8>, u64), u64>,
    /// Since when each ready one is ready, by rank: priorities aside, the first entry is the oldest.
    ready_since: BTreeMap<u64, Timestamp>,
    /// Tags of the scheduled ones by due time.
    agenda: BTreeMap<(Timestamp, u64), u64>,
    running: BTreeSet<u64>,
    limit: usize,
    paused: bool,
    next_rank: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    item: T,
    priority: u8,
    place: Place,
}

/// Where a waiting one is indexed. Ranks are handed out in the order of asking, so they break every tie.
#[derive(Clone, Copy, Debug)]
enum Place {
    Ready { rank: u64 },
    Scheduled { due: Timestamp, rank: u64 },
}

impl<T> Queue<T> {
    /// An empty queue that lets at most `limit` run at a time; 0 lets nothing run.
    pub fn new(limit: usize) -> Self {
        Self {
            waiting: BTreeMap::new(),
            line: BTreeMap::new(),
            ready_since: BTreeMap::new(),
            agenda: BTreeMap::new(),
            running: BTreeSet::new(),
            limit,
            paused: false,
            next_rank: 0,
        }
    }

    /// Takes an item in: scheduled if `due` is after `now`, else ready at once.
    ///
    /// Tags are chosen by the caller, unique and never reused. Says false and drops the item if the tag is held
    /// already, waiting or running, as when a broker delivers twice.
    pub fn arrive(
        &mut self,
        tag: u64,
        item: T,
        priority: u8,
        due: Option<Timestamp>,
        now: Timestamp,
    ) -> bool {
        // Those that came due before this arrival are ahead of it, even if nobody has released anything since.
        self.promote(now);
        if self.running.contains(&tag) || self.waiting.contains_key(&tag) {
            return false;
        }
        let rank = self.take_rank();
        let place = match due {
            Some(due) if due > now => {
                self.agenda.insert((due, rank), tag);
                Place::Scheduled { due, rank }
            }
            _ => {
                self.line_up(tag, priority, rank, now);
                Place::Ready { rank }
            }
        };
        self.waiting.insert(tag, Waiting { item, priority, place });
        true
    }

    /// Lets the best ready one run, if there is one, the queue is not paused and a place is free. Call it until it
    /// says `None`. What has come due by `now` becomes ready first, even when nothing can be released.
    pub fn release(&mut self, now: Timestamp) -> Option<(u64, T)> {
        self.promote(now);
        if self.paused || self.running.len() >= self.limit {
            return None;
        }
        let ((_, rank), tag) = self.line.pop_first()?;
        self.ready_since.remove(&rank);
        let waiting = self.waiting.remove(&tag)?;
        self.running.insert(tag);
        Some((tag, waiting.item))
    }

    /// Ends a running one and frees its place. False if it is not running: a finish that comes late, after the
    /// item was finished by somebody else, is refused here.
    pub fn finish(&mut self, tag: u64) -> bool {
        self.running.remove(&tag)
    }

    /// Takes a waiting one out, as when it is revoked. `None` if it is running or unknown.
    pub fn remove(&mut self, tag: u64) -> Option<T> {
        let waiting = self.waiting.remove(&tag)?;
        match waiting.place {
            Place::Ready { rank } => {
                self.line.remove(&(Reverse(waiting.priority), rank));
                self.ready_since.remove(&rank);
            }
            Place::Scheduled { due, rank } => {
                self.agenda.remove(&(due, rank));
            }
        }
        Some(waiting.item)
    }

    /// Takes out all that waits, the ready ones in their order and then the scheduled ones by due time, so that
    /// a drain or a shutdown can hand them back. What runs goes on, and the limit and a pause stay. O(n log n).
    pub fn clear(&mut self) -> Vec<(u64, T)> {
        self.ready_since.clear();
        let line = std::mem::take(&mut self.line);
        let agenda = std::mem::take(&mut self.agenda);
        let mut waiting = std::mem::take(&mut self.waiting);
        let tags = line.into_values().chain(agenda.into_values());
        tags.filter_map(|tag| Some((tag, waiting.remove(&tag)?.item))).collect()
    }

    /// All that waits, in the order of [`clear`](Self::clear). O(log n) for each step.
    pub fn waiting(&self) -> impl Iterator<Item = (u64, &T)> {
        let tags = self.line.values().chain(self.agenda.values());
        tags.filter_map(|tag| Some((*tag, &self.waiting.get(tag)?.item)))
    }

    /// The tag of the first waiting one, in the order of [`waiting`](Self::waiting), that answers to `wanted`.
    /// Looks at each in turn.
    pub fn find(&self, wanted: impl Fn(&T) -> bool) -> Option<u64> {
        self.waiting().find(|(_, item)| wanted(item)).map(|(tag, _)| tag)
    }

    /// Changes how many may run at a time. If more run already, nothing is released until enough have finished.
    pub fn resize(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// How many may run at a time.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Releases nothing until [`resume`](Self::resume). Arrivals still line up and what runs goes on.
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// Ends a pause.
    pub fn resume(&mut self) {
        self.paused = false;
    }

    /// Whether the queue is paused.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Whether this one was released and has not finished.
    pub fn is_running(&self, tag: u64) -> bool {
        self.running.contains(&tag)
    }

    /// How many could run if there were places. What came due since the last arrival or release still counts
    /// as scheduled.
    pub fn ready(&self) -> usize {
        self.line.len()
    }

    /// How many wait for their due time.
    pub fn scheduled(&self) -> usize {
        self.agenda.len()
    }

    /// How many run; above the limit only after a [`resize`](Self::resize).
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// When the next scheduled one comes due: the time to call [`release`](Self::release) again.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.agenda.first_key_value().map(|((due, _), _)| *due)
    }

    /// Since when the oldest ready one, of whatever priority, is ready. Measures how long a queue is blocked, see
    /// [`blockage`](super::blockage).
    pub fn oldest_ready_since(&self) -> Option<Timestamp> {
        self.ready_since.first_key_value().map(|(_, since)| *since)
    }

    /// Moves everything due by `now` into the line, in the order of due times.
    fn promote(&mut self, now: Timestamp) {
        while let Some(first) = self.agenda.first_entry()
            && first.key().0 <= now
        {
            let ((due, _), tag) = first.remove_entry();
            let rank = self.take_rank();
            if let Some(waiting) = self.waiting.get_mut(&tag) {
                waiting.place = Place::Ready { rank };
                let priority = waiting.priority;
                self.line_up(tag, priority, rank, due);
            }
        }
    }

    fn line_up(&mut self, tag: u64, priority: u8, rank: u64, since: Timestamp) {
        self.line.insert((Reverse(priority), rank), tag);
        self.ready_since.insert(rank, since);
    }

    fn take_rank(&mut self) -> u64 {
        let rank = self.next_rank;
        self.next_rank += 1;
        rank
    }
}

#[cfg(test)]
mod tests;
