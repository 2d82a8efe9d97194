//! How many deliveries the consumers of one queue may hold, when that number changes while they hold some.
//!
//! Quorum queues and RabbitMQ 4 limit each consumer by itself, once and for all when it begins. So a larger prefetch begins
//! one more consumer with the difference, and a smaller one ends consumers; what an ended one still holds counts until it
//! is settled. The sum of the live ones' limits and of what the ended ones hold never exceeds the prefetch, except right
//! after it was made smaller.

use std::collections::BTreeMap;

/// The consumers of one queue.
#[derive(Debug, Default)]
pub(super) struct Ration {
    prefetch: usize,
    /// The limit of each live consumer.
    live: BTreeMap<u64, usize>,
    /// What each consumer holds, the ended ones too.
    held: BTreeMap<u64, usize>,
    last: u64,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Begin a consumer of this number with this limit.
    Begin(u64, usize),
    /// End this one.
    End(u64),
}

impl Ration {
    /// Changes the prefetch; 0 ends all consumers.
    pub(super) fn set(&mut self, prefetch: usize) {
        self.prefetch = prefetch;
    }

    /// A delivery to this consumer.
    pub(super) fn deliver(&mut self, consumer: u64) {
        *self.held.entry(consumer).or_default() += 1;
    }

    /// A delivery to this consumer was settled.
    pub(super) fn settle(&mut self, consumer: u64) {
        if let Some(held) = self.held.get_mut(&consumer) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&consumer);
            }
        }
    }

    /// The channel is gone, and all consumers and deliveries with it.
    pub(super) fn clear(&mut self) {
        self.live.clear();
        self.held.clear();
    }

    /// Whether this consumer is live.
    pub(super) fn is_live(&self, consumer: u64) -> bool {
        self.live.contains_key(&consumer)
    }

    /// The next thing to do, if there is one; ask until there is none.
    pub(super) fn next(&mut self) -> Option<Change> {
        let limits: usize = self.live.values().sum();
        let orphaned: usize =
            self.held.iter().filter(|(c, _)| !self.live.contains_key(c)).map(|(_, n)| n).sum();
        // While nothing is out, one consumer with all of it is had for nothing.
        let joined = self.held.is_empty() && limits != self.prefetch;
        if limits > 0 && (limits + orphaned > self.prefetch || joined) {
            let (consumer, _) = self.live.pop_last()?;
            return Some(Change::End(consumer));
        }
        let free = self.prefetch.saturating_sub(limits + orphaned);
        // Not one consumer for each orphan that is settled: twice as much each time, or the rest.
        if free > 0 && (orphaned == 0 || free >= limits.max(1)) {
            self.last += 1;
            self.live.insert(self.last, free);
            return Some(Change::Begin(self.last, free));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(ration: &mut Ration) -> Vec<Change> {
        std::iter::from_fn(|| ration.next()).collect()
    }

    #[test]
    fn more_begins_a_second_one_and_less_waits_for_what_is_out() {
        let mut ration = Ration::default();
        ration.set(2);
        assert_eq!(all(&mut ration), [Change::Begin(1, 2)]);
        (0..2).for_each(|_| ration.deliver(1));
        ration.set(5);
        assert_eq!(all(&mut ration), [Change::Begin(2, 3)]);
        (0..3).for_each(|_| ration.deliver(2));
        ration.set(3);
        assert_eq!(all(&mut ration), [Change::End(2), Change::End(1)]);
        ration.settle(1);
        ration.settle(2);
        assert_eq!(all(&mut ration), []);
        ration.settle(2);
        assert_eq!(all(&mut ration), [Change::Begin(3, 1)]);
        ration.deliver(3);
        ration.settle(1);
        assert_eq!(all(&mut ration), [Change::Begin(4, 1)], "one is with the last orphan");
        ration.settle(2);
        ration.settle(3);
        assert_eq!(all(&mut ration), [Change::End(4), Change::End(3), Change::Begin(5, 3)], "joined");
    }

    #[test]
    fn what_nothing_is_out_of_is_made_anew() {
        let mut ration = Ration::default();
        ration.set(2);
        all(&mut ration);
        ration.set(5);
        assert_eq!(all(&mut ration), [Change::End(1), Change::Begin(2, 5)]);
        ration.set(3);
        assert_eq!(all(&mut ration), [Change::End(2), Change::Begin(3, 3)]);
    }

    #[test]
    fn none_at_all_is_a_prefetch_too() {
        let mut ration = Ration::default();
        ration.set(3);
        all(&mut ration);
        ration.set(0);
        assert_eq!(all(&mut ration), [Change::End(1)]);
        assert!(!ration.is_live(1));
        ration.set(4);
        assert_eq!(all(&mut ration), [Change::Begin(2, 4)]);
        ration.deliver(2);
        ration.clear();
        assert_eq!(all(&mut ration), [Change::Begin(3, 4)], "the channel was lost");
    }
}
