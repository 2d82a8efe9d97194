//! The prefetch of one queue. It is shared out among consumers, so that it can change while deliveries are unsettled.
//!
//! Quorum queues and RabbitMQ 4 limit each consumer by itself, and take the limit only when the consumer begins. A
//! larger prefetch therefore begins one more consumer with the difference, and a smaller prefetch ends consumers. The
//! deliveries that an ended consumer still holds count until they are settled. The limits of the live consumers and the
//! deliveries of the ended ones never add up to more than the prefetch, except right after the prefetch became smaller.

use std::collections::BTreeMap;

/// The consumers of one queue.
#[derive(Debug, Default)]
pub(super) struct PrefetchPlan {
    prefetch: usize,
    /// The limit of each live consumer.
    live: BTreeMap<u64, usize>,
    /// The number of deliveries that each consumer holds, ended consumers included.
    held: BTreeMap<u64, usize>,
    last: u64,
}

/// The prefetch of all queues that one line takes from: that of the line's name, and its partitions.
///
/// The first one may have the whole prefetch, because everything may wait in it, and each partition half of it, because the
/// tasks of one tenant wait in two of them. So a tenant that is alone has as many deliveries as without partitions, and
/// another one has room that no flood takes away.
#[derive(Debug)]
pub(super) struct SourcePlans {
    /// The plan of each source. The consumer `n` of a source counts as `n * sources + source` outside, so that all differ.
    plans: Vec<PrefetchPlan>,
}

impl SourcePlans {
    pub(super) fn new(partitions: usize) -> Self {
        Self { plans: std::iter::repeat_with(PrefetchPlan::default).take(1 + partitions).collect() }
    }

    /// Changes the prefetch; 0 ends all consumers.
    pub(super) fn set(&mut self, prefetch: usize) {
        for (source, plan) in self.plans.iter_mut().enumerate() {
            plan.set(if source == 0 { prefetch } else { prefetch.div_ceil(2) });
        }
    }

    /// The source of a consumer: 0 is the queue of the line's name, and the partitions follow.
    pub(super) fn source_of(&self, consumer: u64) -> usize {
        usize::try_from(consumer % self.count()).unwrap_or_default()
    }

    /// Notes a delivery to this consumer.
    pub(super) fn deliver(&mut self, consumer: u64) {
        if let Some((plan, consumer)) = self.plan_of(consumer) {
            plan.deliver(consumer);
        }
    }

    /// Notes that a delivery to this consumer was settled.
    pub(super) fn settle(&mut self, consumer: u64) {
        if let Some((plan, consumer)) = self.plan_of(consumer) {
            plan.settle(consumer);
        }
    }

    /// Forgets all consumers and deliveries, because the channel is gone.
    pub(super) fn clear(&mut self) {
        self.plans.iter_mut().for_each(PrefetchPlan::clear);
    }

    /// Whether this consumer is live.
    pub(super) fn is_live(&self, consumer: u64) -> bool {
        self.plans.get(self.source_of(consumer)).is_some_and(|plan| plan.is_live(consumer / self.count()))
    }

    /// Returns the next change that must be made, if there is one. The caller asks until there is none.
    pub(super) fn next(&mut self) -> Option<PrefetchChange> {
        let count = self.count();
        let outside =
            |consumer: u64, source: usize| consumer * count + u64::try_from(source).unwrap_or_default();
        self.plans.iter_mut().enumerate().find_map(|(source, plan)| {
            Some(match plan.next()? {
                PrefetchChange::Begin(consumer, limit) => {
                    PrefetchChange::Begin(outside(consumer, source), limit)
                }
                PrefetchChange::End(consumer) => PrefetchChange::End(outside(consumer, source)),
            })
        })
    }

    /// Whether no change must be made.
    pub(super) fn is_settled(&self) -> bool {
        self.plans.iter().all(|plan| plan.due().is_none())
    }

    fn plan_of(&mut self, consumer: u64) -> Option<(&mut PrefetchPlan, u64)> {
        let (source, inside) = (self.source_of(consumer), consumer / self.count());
        Some((self.plans.get_mut(source)?, inside))
    }

    fn count(&self) -> u64 {
        u64::try_from(self.plans.len()).unwrap_or(1).max(1)
    }
}

/// A change that must be made on the channel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PrefetchChange {
    /// Begin a consumer of this number with this limit.
    Begin(u64, usize),
    /// End the consumer of this number.
    End(u64),
}

impl PrefetchPlan {
    /// Changes the prefetch; 0 ends all consumers.
    pub(super) fn set(&mut self, prefetch: usize) {
        self.prefetch = prefetch;
    }

    /// Notes a delivery to this consumer.
    pub(super) fn deliver(&mut self, consumer: u64) {
        *self.held.entry(consumer).or_default() += 1;
    }

    /// Notes that a delivery to this consumer was settled.
    pub(super) fn settle(&mut self, consumer: u64) {
        if let Some(held) = self.held.get_mut(&consumer) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&consumer);
            }
        }
    }

    /// Forgets all consumers and deliveries, because the channel is gone.
    pub(super) fn clear(&mut self) {
        self.live.clear();
        self.held.clear();
    }

    /// Whether this consumer is live.
    pub(super) fn is_live(&self, consumer: u64) -> bool {
        self.live.contains_key(&consumer)
    }

    /// Returns the next change that must be made, if there is one. The caller asks until there is none.
    pub(super) fn next(&mut self) -> Option<PrefetchChange> {
        let change = self.due()?;
        match change {
            PrefetchChange::Begin(consumer, limit) => {
                self.last = consumer;
                self.live.insert(consumer, limit);
            }
            PrefetchChange::End(consumer) => {
                self.live.remove(&consumer);
            }
        }
        Some(change)
    }

    /// The change that comes next, if there is one.
    fn due(&self) -> Option<PrefetchChange> {
        let limits: usize = self.live.values().sum();
        let orphaned: usize =
            self.held.iter().filter(|(c, _)| !self.live.contains_key(c)).map(|(_, n)| n).sum();
        // While no delivery is unsettled, one consumer can replace all others at the cost of no redelivery.
        let joined = self.held.is_empty() && limits != self.prefetch;
        if limits > 0 && (limits + orphaned > self.prefetch || joined) {
            let (consumer, _) = self.live.last_key_value()?;
            return Some(PrefetchChange::End(*consumer));
        }
        let free = self.prefetch.saturating_sub(limits + orphaned);
        // A new consumer does not begin for each settled delivery of an ended consumer. It begins only when it doubles
        // the limits or takes the rest of the prefetch.
        let begins = free > 0 && (orphaned == 0 || free >= limits.max(1));
        begins.then_some(PrefetchChange::Begin(self.last + 1, free))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(plan: &mut PrefetchPlan) -> Vec<PrefetchChange> {
        std::iter::from_fn(|| plan.next()).collect()
    }

    #[test]
    fn more_begins_a_second_one_and_less_waits_for_what_is_out() {
        let mut plan = PrefetchPlan::default();
        plan.set(2);
        assert_eq!(all(&mut plan), [PrefetchChange::Begin(1, 2)]);
        (0..2).for_each(|_| plan.deliver(1));
        plan.set(5);
        assert_eq!(all(&mut plan), [PrefetchChange::Begin(2, 3)]);
        (0..3).for_each(|_| plan.deliver(2));
        plan.set(3);
        assert_eq!(all(&mut plan), [PrefetchChange::End(2), PrefetchChange::End(1)]);
        plan.settle(1);
        plan.settle(2);
        assert_eq!(all(&mut plan), []);
        plan.settle(2);
        assert_eq!(all(&mut plan), [PrefetchChange::Begin(3, 1)]);
        plan.deliver(3);
        plan.settle(1);
        assert_eq!(all(&mut plan), [PrefetchChange::Begin(4, 1)], "one is with the last orphan");
        plan.settle(2);
        plan.settle(3);
        assert_eq!(
            all(&mut plan),
            [PrefetchChange::End(4), PrefetchChange::End(3), PrefetchChange::Begin(5, 3)],
            "joined"
        );
    }

    #[test]
    fn a_partition_has_half_the_prefetch_and_a_consumer_of_its_own() {
        let mut plans = SourcePlans::new(2);
        plans.set(5);
        let begun: Vec<PrefetchChange> = std::iter::from_fn(|| plans.next()).collect();
        assert_eq!(
            begun,
            [PrefetchChange::Begin(3, 5), PrefetchChange::Begin(4, 3), PrefetchChange::Begin(5, 3)]
        );
        assert_eq!([3, 4, 5].map(|consumer| plans.source_of(consumer)), [0, 1, 2]);
        plans.deliver(4);
        plans.set(0);
        let ended: Vec<PrefetchChange> = std::iter::from_fn(|| plans.next()).collect();
        assert_eq!(ended, [PrefetchChange::End(3), PrefetchChange::End(4), PrefetchChange::End(5)]);
        assert!(!plans.is_live(4));
        plans.set(2);
        let again: Vec<PrefetchChange> = std::iter::from_fn(|| plans.next()).collect();
        assert_eq!(
            again,
            [PrefetchChange::Begin(6, 2), PrefetchChange::Begin(8, 1)],
            "the other one has its delivery out"
        );
        plans.settle(4);
        assert_eq!(plans.next(), Some(PrefetchChange::Begin(7, 1)));
        assert!(plans.is_live(7) && plans.is_live(8));
        plans.clear();
        assert!(!plans.is_live(7));
    }

    #[test]
    fn a_queue_without_partitions_has_the_numbers_of_its_plan() {
        let mut plans = SourcePlans::new(0);
        plans.set(2);
        assert_eq!((plans.next(), plans.next()), (Some(PrefetchChange::Begin(1, 2)), None));
        assert_eq!(plans.source_of(1), 0);
    }

    #[test]
    fn what_nothing_is_out_of_is_made_anew() {
        let mut plan = PrefetchPlan::default();
        plan.set(2);
        all(&mut plan);
        plan.set(5);
        assert_eq!(all(&mut plan), [PrefetchChange::End(1), PrefetchChange::Begin(2, 5)]);
        plan.set(3);
        assert_eq!(all(&mut plan), [PrefetchChange::End(2), PrefetchChange::Begin(3, 3)]);
    }

    #[test]
    fn none_at_all_is_a_prefetch_too() {
        let mut plan = PrefetchPlan::default();
        plan.set(3);
        all(&mut plan);
        plan.set(0);
        assert_eq!(all(&mut plan), [PrefetchChange::End(1)]);
        assert!(!plan.is_live(1));
        plan.set(4);
        assert_eq!(all(&mut plan), [PrefetchChange::Begin(2, 4)]);
        plan.deliver(2);
        plan.clear();
        assert_eq!(all(&mut plan), [PrefetchChange::Begin(3, 4)], "the channel was lost");
    }

    proptest! {
        /// The line asks for changes only where a plan is not settled.
        #[test]
        fn a_plan_is_settled_when_no_change_is_next(
            partitions in 0..3_usize,
            steps in prop::collection::vec((0..4_u8, 0..20_usize), 0..40),
        ) {
            let mut plans = SourcePlans::new(partitions);
            let (mut out, mut begun): (Vec<u64>, Vec<u64>) = (Vec::new(), Vec::new());
            for (step, number) in steps {
                match step {
                    0 => plans.set(number),
                    1 if !begun.is_empty() => {
                        let consumer = begun[number % begun.len()];
                        plans.deliver(consumer);
                        out.push(consumer);
                    }
                    2 if !out.is_empty() => plans.settle(out.swap_remove(number % out.len())),
                    _ => {
                        let settled = plans.is_settled();
                        let next = plans.next();
                        prop_assert_eq!(settled, next.is_none());
                        if let Some(PrefetchChange::Begin(consumer, _)) = next {
                            begun.push(consumer);
                        }
                    }
                }
            }
            while plans.next().is_some() {}
            prop_assert!(plans.is_settled());
        }
    }
}
