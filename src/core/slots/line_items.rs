//! The tasks of a line in their order.
//!
//! Invariants:
//! - The higher priority goes first, then the order of arrival.
//! - A task that comes last, and the one that goes first, are put in and taken out in O(1) and mostly without an allocation. Between
//!   others it costs O(n) in those of its priority.

use std::cmp::Reverse;
use std::collections::VecDeque;

use super::line::{Item, LineKey};

/// The most tasks for which a line without tasks has memory.
const SMALL: usize = 64;

/// The tasks of a line, by priority, the higher one first. Most lines have tasks of one priority, so the first priority is
/// kept without an allocation of its own.
#[derive(Clone, Debug, Default)]
pub(super) struct LineItems {
    first: PriorityItems,
    /// Each has tasks. Where there are any, the first one has tasks, too.
    others: Vec<PriorityItems>,
}

/// The tasks of one priority, each with the number of its arrival.
#[derive(Clone, Debug, Default)]
struct PriorityItems {
    priority: Reverse<u8>,
    tasks: VecDeque<(u64, Item)>,
}

impl PriorityItems {
    /// Puts a task in at its place, which is the answer.
    fn insert(&mut self, arrival: u64, item: Item) -> usize {
        let place = match self.tasks.back() {
            Some((last, _)) if *last > arrival => self.tasks.partition_point(|(other, _)| *other < arrival),
            _ => self.tasks.len(),
        };
        self.tasks.insert(place, (arrival, item));
        place
    }

    fn remove(&mut self, arrival: u64) -> Option<Item> {
        let is_first = self.tasks.front().is_some_and(|(first, _)| *first == arrival);
        let place =
            if is_first { 0 } else { self.tasks.binary_search_by_key(&arrival, |(other, _)| *other).ok()? };
        self.tasks.remove(place).map(|(_, item)| item)
    }
}

impl LineItems {
    /// Puts a task in. Returns whether it is the first one now.
    pub(super) fn insert(&mut self, (priority, arrival): LineKey, item: Item) -> bool {
        if self.first.tasks.is_empty() {
            self.first.priority = priority;
        } else if priority < self.first.priority {
            let first = PriorityItems { priority, tasks: VecDeque::new() };
            self.others.insert(0, std::mem::replace(&mut self.first, first));
        }
        if priority == self.first.priority {
            return self.first.insert(arrival, item) == 0;
        }
        let found = self.others.binary_search_by_key(&priority, |level| level.priority);
        let at = found.unwrap_or_else(|at| {
            self.others.insert(at, PriorityItems { priority, tasks: VecDeque::new() });
            at
        });
        self.others[at].insert(arrival, item);
        false
    }

    /// Takes a task out. `None`: it is not here.
    pub(super) fn remove(&mut self, (priority, arrival): LineKey) -> Option<Item> {
        if priority == self.first.priority {
            let item = self.first.remove(arrival)?;
            if self.first.tasks.is_empty() && !self.others.is_empty() {
                self.first = self.others.remove(0);
            }
            return Some(item);
        }
        let at = self.others.binary_search_by_key(&priority, |level| level.priority).ok()?;
        let item = self.others[at].remove(arrival)?;
        if self.others[at].tasks.is_empty() {
            self.others.remove(at);
        }
        Some(item)
    }

    /// The first task.
    pub(super) fn first(&self) -> Option<(LineKey, &Item)> {
        self.first.tasks.front().map(|(arrival, item)| ((self.first.priority, *arrival), item))
    }

    /// The last task.
    pub(super) fn last(&self) -> Option<(LineKey, &Item)> {
        let level = self.others.last().unwrap_or(&self.first);
        level.tasks.back().map(|(arrival, item)| ((level.priority, *arrival), item))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.tasks.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.levels().map(|level| level.tasks.len()).sum()
    }

    fn levels(&self) -> impl Iterator<Item = &PriorityItems> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// All tasks in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (LineKey, &Item)> {
        self.levels().flat_map(|level| {
            level.tasks.iter().map(move |(arrival, item)| ((level.priority, *arrival), item))
        })
    }

    /// As [`iter`](Self::iter), to change them.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Item> {
        let levels = std::iter::once(&mut self.first).chain(&mut self.others);
        levels.flat_map(|level| level.tasks.iter_mut().map(|(_, item)| item))
    }

    /// Forgets the tasks behind the first `most`. Returns how many these were.
    pub(super) fn truncate(&mut self, most: usize) -> usize {
        let before = self.len();
        let mut room = most;
        for level in std::iter::once(&mut self.first).chain(&mut self.others) {
            level.tasks.truncate(room);
            room -= level.tasks.len();
        }
        self.others.retain(|level| !level.tasks.is_empty());
        before - self.len()
    }

    /// Whether it has little memory, so that it may be kept for a line to come.
    pub(super) fn is_small(&self) -> bool {
        self.levels().all(|level| level.tasks.capacity() <= SMALL)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::core::Timestamp;

    #[derive(Clone, Debug)]
    enum Change {
        /// A task of this priority comes.
        Come(u8),
        /// The one at this place goes; it may come back.
        Go(usize),
        /// One that has gone comes back.
        Back(usize),
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            3 => (0..3_u8).prop_map(Change::Come),
            2 => prop_oneof![Just(0_usize), 0..40_usize].prop_map(Change::Go),
            1 => (0..40_usize).prop_map(Change::Back),
        ]
    }

    proptest! {
        /// The order is that of a sorted map, whatever comes, goes and comes back.
        #[test]
        fn the_order_is_priority_then_arrival(changes in prop::collection::vec(change(), 0..200), most in 0..60_usize) {
            let (mut items, mut all, mut gone) = (LineItems::default(), BTreeMap::new(), Vec::new());
            for (tag, change) in (0_u64..).zip(changes) {
                match change {
                    Change::Come(priority) => {
                        let (key, item) = ((Reverse(priority), tag), Item { tag, since: Timestamp::ZERO, task: 0 });
                        all.insert(key, tag);
                        prop_assert_eq!(items.insert(key, item), all.first_key_value() == Some((&key, &tag)));
                    }
                    Change::Go(at) => {
                        if let Some((key, tag)) = all.iter().nth(at).map(|(key, tag)| (*key, *tag)) {
                            all.remove(&key);
                            let item = items.remove(key);
                            prop_assert_eq!(item.map(|item| item.tag), Some(tag));
                            gone.extend(item.map(|item| (key, item)));
                            prop_assert!(items.remove(key).is_none());
                        }
                    }
                    Change::Back(at) if at < gone.len() => {
                        let (key, item) = gone.swap_remove(at);
                        all.insert(key, item.tag);
                        prop_assert_eq!(items.insert(key, item), all.first_key_value() == Some((&key, &item.tag)));
                    }
                    Change::Back(_) => {}
                }
                prop_assert_eq!((items.len(), items.is_empty()), (all.len(), all.is_empty()));
                let tags: Vec<u64> = items.iter().map(|(_, item)| item.tag).collect();
                prop_assert_eq!(&tags, &all.values().copied().collect::<Vec<_>>());
                prop_assert_eq!(items.first().map(|(key, _)| key), all.keys().next().copied());
                prop_assert_eq!(items.last().map(|(key, _)| key), all.keys().next_back().copied());
            }
            prop_assert_eq!(items.truncate(most), all.len().saturating_sub(most));
            let tags: Vec<u64> = items.iter_mut().map(|item| item.tag).collect();
            prop_assert_eq!(tags, all.values().copied().take(most).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_line_that_was_long_keeps_no_memory_for_others() {
        let mut items = LineItems::default();
        let item = |tag| Item { tag, since: Timestamp::ZERO, task: 0 };
        assert!(items.insert((Reverse(1), 1), item(1)) && items.is_small());
        (2..10_000).for_each(|tag| assert!(!items.insert((Reverse(1), tag), item(tag))));
        (1..10_000).for_each(|tag| assert!(items.remove((Reverse(1), tag)).is_some()));
        assert!(items.is_empty() && !items.is_small());
        assert!(items.insert((Reverse(0), 7), item(7)), "of another priority, in the place of the first");
        assert_eq!(items.len(), 1);
    }
}
