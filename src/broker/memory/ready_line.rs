//! The ready messages of one tenant, or of all that have none, in the order of their ranks.
//!
//! Nearly every message comes behind all others of its line and goes from the front, so the line is a queue. What comes
//! before the end of it stands apart, in a sorted map: a message that goes back to its old place, and one that is more
//! urgent than the last. The first of the two is next.

use std::collections::{BTreeMap, VecDeque};

use super::entries::EntryIndex;
use super::rank::Rank;

/// A queue that takes no more than so many places keeps them when it runs empty.
const KEPT: usize = 1024;

/// A queue with fewer gaps than this is not put together.
const FEW_GAPS: usize = 64;

/// A line of ready messages, each with its rank.
#[derive(Default)]
pub(super) struct ReadyLine {
    /// What came in the order of the ranks. A message that was taken out of the middle leaves a gap, whose entry is
    /// [`EntryIndex::NONE`]. Neither the first place nor the last one is a gap.
    queue: VecDeque<(Rank, EntryIndex)>,
    gaps: usize,
    /// What came with a lower rank than the last one of the queue then had.
    overtaking: BTreeMap<Rank, EntryIndex>,
}

fn is_gap((_, at): &(Rank, EntryIndex)) -> bool {
    *at == EntryIndex::NONE
}

impl ReadyLine {
    pub(super) fn len(&self) -> usize {
        self.queue.len() - self.gaps + self.overtaking.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.overtaking.is_empty()
    }

    /// Takes a message in, whose rank no other message of the line has.
    pub(super) fn insert(&mut self, rank: Rank, at: EntryIndex) {
        if self.queue.back().is_none_or(|(last, _)| *last < rank) {
            self.queue.push_back((rank, at));
        } else {
            self.overtaking.insert(rank, at);
        }
    }

    /// The message of the lowest rank.
    pub(super) fn first(&self) -> Option<(Rank, EntryIndex)> {
        let queued = self.queue.front().copied();
        if self.overtaking.is_empty() {
            return queued;
        }
        let overtaking = self.overtaking.first_key_value().map(|(rank, at)| (*rank, *at));
        queued.into_iter().chain(overtaking).min()
    }

    /// Takes the message of the lowest rank out.
    pub(super) fn pop_first(&mut self) -> Option<(Rank, EntryIndex)> {
        let (rank, at) = self.first()?;
        if self.queue.front().is_some_and(|(first, _)| *first == rank) {
            self.queue.pop_front();
            self.trim();
        } else {
            self.overtaking.remove(&rank);
        }
        Some((rank, at))
    }

    /// Takes the message of this rank out.
    pub(super) fn remove(&mut self, rank: Rank) -> Option<EntryIndex> {
        if let Some(at) = self.overtaking.remove(&rank) {
            return Some(at);
        }
        let place = self.queue.binary_search_by_key(&rank, |(rank, _)| *rank).ok()?;
        let place = self.queue.get_mut(place).filter(|place| !is_gap(place))?;
        let at = std::mem::replace(&mut place.1, EntryIndex::NONE);
        self.gaps += 1;
        self.trim();
        if self.gaps >= FEW_GAPS && self.gaps * 4 >= self.queue.len() {
            self.queue.retain(|place| !is_gap(place));
            self.gaps = 0;
        }
        Some(at)
    }

    /// The number of messages of a lower rank, up to `limit`.
    pub(super) fn before(&self, rank: Rank, limit: usize) -> usize {
        let queued = self.queue.partition_point(|(other, _)| *other < rank);
        let queued = match self.gaps {
            0 => queued.min(limit),
            _ => self.queue.iter().take(queued).filter(|place| !is_gap(place)).take(limit).count(),
        };
        let overtaking = self.overtaking.range(..rank).take(limit).count();
        queued.saturating_add(overtaking).min(limit)
    }

    /// The first message of each priority, the highest priority first.
    pub(super) fn firsts(&self) -> impl Iterator<Item = EntryIndex> {
        let mut below = Some(u8::MAX);
        std::iter::from_fn(move || {
            let (rank, at) = self.first_from(Rank::new(below?, 0))?;
            below = rank.priority().checked_sub(1);
            Some(at)
        })
    }

    /// The message of the lowest rank that is at least this one.
    fn first_from(&self, from: Rank) -> Option<(Rank, EntryIndex)> {
        let begin = self.queue.partition_point(|(rank, _)| *rank < from);
        let queued = self.queue.range(begin..).find(|place| !is_gap(place)).copied();
        let overtaking = self.overtaking.range(from..).next().map(|(rank, at)| (*rank, *at));
        queued.into_iter().chain(overtaking).min()
    }

    /// Cuts the gaps off at both ends, and gives the memory of a long queue back that has run empty.
    fn trim(&mut self) {
        while self.gaps > 0 && self.queue.front().is_some_and(is_gap) {
            self.queue.pop_front();
            self.gaps -= 1;
        }
        while self.gaps > 0 && self.queue.back().is_some_and(is_gap) {
            self.queue.pop_back();
            self.gaps -= 1;
        }
        if self.queue.is_empty() && self.queue.capacity() > KEPT {
            self.queue = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::broker::memory::MemorySpot;
    use crate::broker::memory::entries::Entries;
    use crate::broker::memory::queue::QueueIndex;
    use crate::task::{Context, Message};

    /// The numbers of so many entries.
    fn numbers(count: usize) -> Vec<EntryIndex> {
        let mut entries: Entries = Entries::default();
        let message = Arc::new(Message { id: "one".into(), ..Context::detached().message().clone() });
        let insert = |_| entries.insert(Arc::clone(&message), MemorySpot::Delivered, QueueIndex::default()).0;
        (0..count).map(insert).collect()
    }

    #[derive(Clone, Debug)]
    enum Event {
        /// A message of this priority comes.
        Come(u8),
        Pop,
        /// One of those that are there is taken out.
        Remove(prop::sample::Index),
        /// One of those that have gone comes back to its place.
        Back(prop::sample::Index),
    }

    fn event(most: u8) -> impl Strategy<Value = Event> {
        prop_oneof![
            6 => (0..most).prop_map(Event::Come),
            3 => Just(Event::Pop),
            2 => any::<prop::sample::Index>().prop_map(Event::Remove),
            1 => any::<prop::sample::Index>().prop_map(Event::Back),
        ]
    }

    /// Does the same to a line and to a sorted map, and compares what they say.
    fn run(events: Vec<Event>) -> Result<(), TestCaseError> {
        let numbers = numbers(events.len());
        let (mut line, mut model) = (ReadyLine::default(), BTreeMap::new());
        let mut gone: Vec<(Rank, EntryIndex)> = Vec::new();
        for (nth, event) in events.into_iter().enumerate() {
            match event {
                Event::Come(priority) => {
                    let rank = Rank::new(priority, nth as u64 + 1);
                    line.insert(rank, numbers[nth]);
                    model.insert(rank, numbers[nth]);
                }
                Event::Pop => {
                    let popped = line.pop_first();
                    prop_assert_eq!(popped, model.pop_first());
                    gone.extend(popped);
                }
                Event::Remove(which) if !model.is_empty() => {
                    let rank = *which.get(&model.keys().copied().collect::<Vec<_>>());
                    let removed = line.remove(rank);
                    prop_assert_eq!(removed, model.remove(&rank));
                    prop_assert_eq!(line.remove(rank), None, "it goes once");
                    gone.extend(removed.map(|at| (rank, at)));
                }
                Event::Back(which) if !gone.is_empty() => {
                    let (rank, at) = gone.remove(which.index(gone.len()));
                    line.insert(rank, at);
                    model.insert(rank, at);
                }
                Event::Remove(_) | Event::Back(_) => {}
            }
            prop_assert_eq!((line.len(), line.is_empty()), (model.len(), model.is_empty()));
            prop_assert_eq!(line.first(), model.first_key_value().map(|(rank, at)| (*rank, *at)));
            prop_assert!(!line.queue.front().is_some_and(is_gap) && !line.queue.back().is_some_and(is_gap));
            prop_assert_eq!(line.gaps, line.queue.iter().filter(|place| is_gap(place)).count());
            for limit in [0, 2, usize::MAX] {
                for rank in model.keys().chain([&Rank::new(1, 0)]) {
                    let before = model.range(..*rank).take(limit).count();
                    prop_assert_eq!(line.before(*rank, limit), before);
                }
            }
            let firsts = (0..=u8::MAX).rev().filter_map(|priority| {
                let of_it = model.range(Rank::new(priority, 0)..).next()?;
                (of_it.0.priority() == priority).then_some(*of_it.1)
            });
            prop_assert_eq!(line.firsts().collect::<Vec<_>>(), firsts.collect::<Vec<_>>());
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn a_line_is_sorted_whatever_comes_and_goes(events in prop::collection::vec(event(4), 1..80)) {
            run(events)?;
        }

        #[test]
        fn a_line_of_one_priority_is_sorted_too(events in prop::collection::vec(event(1), 1..80)) {
            run(events)?;
        }
    }

    #[test]
    fn the_gaps_of_a_line_and_its_memory_do_not_stay() {
        let count = 4 * KEPT;
        let numbers = numbers(count);
        let rank = |n: usize| Rank::new(0, n as u64 + 1);
        let mut line = ReadyLine::default();
        (0..count).for_each(|n| line.insert(rank(n), numbers[n]));
        for n in (0..count).filter(|n| n % 2 == 1) {
            assert_eq!(line.remove(rank(n)), Some(numbers[n]));
            assert!(line.gaps < FEW_GAPS || line.gaps * 4 < line.queue.len(), "{} gaps", line.gaps);
        }
        assert_eq!((line.len(), line.before(rank(count), usize::MAX)), (count / 2, count / 2));
        for n in (0..count).filter(|n| n % 2 == 0) {
            assert_eq!(line.pop_first(), Some((rank(n), numbers[n])));
        }
        assert!(line.is_empty() && line.queue.capacity() <= KEPT);
    }
}
