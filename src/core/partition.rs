//! Which of the partitions of a queue a task goes to: the shorter one of two that the name of its tenant chooses.
//!
//! A broker that delivers in the order of its queue cannot let tenants take turns. If the queue is several queues there, and
//! each tenant uses two of them, the flood of one tenant stands before others in two of them only. Two choices instead of one
//! keep the partitions even: a tenant whose first partition another one has flooded goes to its second one.
//!
//! Invariants:
//! - The tasks of one tenant go to two partitions at most, and to the same two whoever sends them.
//! - What must keep its order has a key, and of the two always goes to the one that the key chooses, however long that is. So many
//!   keys of one tenant use both.
//! - Lengths that nobody has counted are those that this sender has made, and count half with each count that fails.

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::Timestamp;

/// The fewest partitions that a queue can have. With one, it would be what it is without any.
pub const LEAST_PARTITIONS: u8 = 2;

/// The most partitions that a queue can have. Each of them is a queue with a consumer.
pub const MOST_PARTITIONS: u8 = 64;

/// How long a count of the lengths is used before the next one.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// The name of a partition: that of its queue, a point, and its index, as in `celery.0`.
pub fn name(queue: &str, index: u8) -> String {
    format!("{queue}.{index}")
}

/// The queue and the index in the name of a partition. Whether the queue has such a partition, its row says.
pub fn split(name: &str) -> Option<(&str, u8)> {
    let (queue, number) = name.rsplit_once('.')?;
    let index: u8 = number.parse().ok()?;
    // No partition is called `celery.03` or `celery.+3`.
    (!queue.is_empty() && index.to_string() == number).then_some((queue, index))
}

/// The two partitions of a tenant, counted from 0. They differ if there are two or more.
pub fn choices(tenant: &str, partitions: u8) -> [u8; 2] {
    let count = u64::from(partitions.max(1));
    let hash = xxh3_64(tenant.as_bytes());
    let first = hash % count;
    // The upper half chooses among the others. It says nothing of the lower half, which chose the first one.
    let second = (first + 1 + (hash >> 32) % count.saturating_sub(1).max(1)) % count;
    [first, second].map(|index| u8::try_from(index).unwrap_or_default())
}

/// What a sender knows of the lengths of the partitions of one queue.
#[derive(Debug)]
pub struct PartitionLengths {
    lengths: Vec<Length>,
    /// When the last count began.
    counted_at: Option<Timestamp>,
    /// Whether a count has begun and not ended.
    counting: bool,
}

/// What is known of one partition.
#[derive(Clone, Copy, Debug, Default)]
struct Length {
    /// The number of messages at the last count.
    counted: u64,
    /// The number of messages that this sender sent after the last count began.
    sent: u64,
    /// The number that it sent between the count before and the one that has begun and not ended.
    sent_before: u64,
}

impl Length {
    fn estimate(self) -> u64 {
        self.counted.saturating_add(self.sent_before).saturating_add(self.sent)
    }
}

impl PartitionLengths {
    /// Partitions of which nothing is known.
    pub fn new(partitions: u8) -> Self {
        let lengths = vec![Length::default(); usize::from(partitions.max(1))];
        Self { lengths, counted_at: None, counting: false }
    }

    /// The partition for a task of this tenant that is about to be sent, which counts from now on. With a `key` it is always the
    /// same one of the tenant's two, so that of one key what is sent first stands first.
    pub fn choose(&mut self, tenant: &str, key: Option<&str>) -> u8 {
        let [first, second] = choices(tenant, u8::try_from(self.lengths.len()).unwrap_or(u8::MAX));
        let estimate =
            |index: u8| self.lengths.get(usize::from(index)).map_or(u64::MAX, |length| length.estimate());
        let is_second = match key {
            Some(key) => xxh3_64(key.as_bytes()) % 2 == 1,
            None => estimate(second) < estimate(first),
        };
        let chosen = if is_second { second } else { first };
        if let Some(length) = self.lengths.get_mut(usize::from(chosen)) {
            length.sent = length.sent.saturating_add(1);
        }
        chosen
    }

    /// Whether the caller is to count the lengths now, and to say the outcome to [`counted`](Self::counted). It is asked to
    /// once a second at most, and never while a count has not ended.
    pub fn begin_count(&mut self, now: Timestamp) -> bool {
        if self.counting || self.counted_at.is_some_and(|at| now.since(at) < COUNT_EVERY) {
            return false;
        }
        (self.counting, self.counted_at) = (true, Some(now));
        for length in &mut self.lengths {
            length.sent_before = length.sent_before.saturating_add(std::mem::take(&mut length.sent));
        }
        true
    }

    /// Ends a count. `counts` has the number of messages in each partition; `None`, or a number that is missing: nobody could
    /// say it.
    pub fn counted(&mut self, counts: &[Option<u64>]) {
        self.counting = false;
        for (index, length) in self.lengths.iter_mut().enumerate() {
            length.counted = match counts.get(index).copied().flatten() {
                Some(count) => count,
                None => length.counted.saturating_add(length.sent_before) / 2,
            };
            length.sent_before = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn a_name_says_which_partition_of_what_it_is() {
        assert_eq!(split(&name("orders.email", 63)), Some(("orders.email", 63)));
        for other in ["celery", "celery.", "celery.03", "celery.+3", "celery.300", ".3", "celery.x"] {
            assert_eq!(split(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn the_choices_are_two_partitions_that_there_are(tenant in ".{0,40}", partitions in 2_u8..=64) {
            let [first, second] = choices(&tenant, partitions);
            prop_assert!(first < partitions && second < partitions && first != second);
            prop_assert_eq!(choices(&tenant, partitions), [first, second]);
        }

        /// Whatever others send and whatever is counted, a flood stays in its two partitions.
        #[test]
        fn a_flood_fills_two_partitions(
            partitions in 2_u8..=64,
            steps in proptest::collection::vec((0_u8..20, any::<bool>(), 0_u64..1000), 1..200),
        ) {
            let mut lengths = PartitionLengths::new(partitions);
            let mut used = BTreeSet::new();
            for (n, (tenant, counts, length)) in steps.into_iter().enumerate() {
                let chosen = lengths.choose(&tenant.to_string(), None);
                prop_assert!(chosen < partitions);
                if tenant == 0 {
                    used.insert(chosen);
                }
                if counts && lengths.begin_count(at(n as u64)) {
                    lengths.counted(&[Some(length), None, Some(0)]);
                }
            }
            let [first, second] = choices("0", partitions);
            prop_assert!(used.is_subset(&BTreeSet::from([first, second])));
        }

        /// Whoever sends it and however long that partition is.
        #[test]
        fn what_has_one_key_goes_to_one_partition(
            tenant in "[a-z]{1,8}", key in ".{0,12}", partitions in 2_u8..=64, others in 0_u8..20,
        ) {
            let chosen = PartitionLengths::new(partitions).choose(&tenant, Some(&key));
            let mut lengths = PartitionLengths::new(partitions);
            for n in 0..others {
                lengths.choose(&n.to_string(), None);
                prop_assert_eq!(lengths.choose(&tenant, Some(&key)), chosen);
            }
            prop_assert!(choices(&tenant, partitions).contains(&chosen));
        }

        /// Without any count, a sender keeps the two partitions of a tenant even by what it has sent itself.
        #[test]
        fn a_sender_that_cannot_count_keeps_its_own_even(sent in 1_usize..100) {
            let mut lengths = PartitionLengths::new(8);
            let [first, _] = choices("acme", 8);
            let of_first = (0..sent).filter(|_| lengths.choose("acme", None) == first).count();
            prop_assert_eq!(of_first, sent.div_ceil(2));
        }
    }

    #[test]
    fn the_shorter_one_is_chosen_and_what_was_sent_since_the_count_counts() {
        let mut lengths = PartitionLengths::new(2);
        let [first, second] = choices("acme", 2);
        let counts = |of_first: u64, of_second: u64| {
            let mut counts = [Some(of_second); 2];
            counts[usize::from(first)] = Some(of_first);
            counts
        };
        assert!(lengths.begin_count(at(0)));
        assert!(!lengths.begin_count(at(9)), "the first count has not ended");
        lengths.counted(&counts(3, 0));
        let chosen: Vec<u8> = (0..4).map(|_| lengths.choose("acme", None)).collect();
        assert_eq!(chosen, [second, second, second, first]);
        assert!(lengths.begin_count(at(10)) && !lengths.begin_count(at(11)));
        // It was sent while RabbitMQ counted, so that the count may be without it.
        assert_eq!(lengths.choose("acme", None), second);
        lengths.counted(&counts(1, 0));
        assert_eq!(lengths.choose("acme", None), first, "both have one");
    }

    #[test]
    fn what_nobody_counts_is_forgotten_by_halves() {
        let mut lengths = PartitionLengths::new(2);
        let [first, second] = choices("acme", 2);
        let mut keys = (0_u8..).map(|n| n.to_string());
        let key = keys.find(|key| PartitionLengths::new(2).choose("acme", Some(key)) == first);
        for _ in 0..8 {
            lengths.choose("acme", key.as_deref());
        }
        for (second_of_time, left) in [(0, 4), (1, 2), (2, 1), (3, 0)] {
            assert!(lengths.begin_count(at(second_of_time)));
            lengths.counted(&[]);
            assert_eq!(lengths.lengths[usize::from(first)].estimate(), left);
        }
        assert_eq!(lengths.lengths[usize::from(second)].estimate(), 0);
    }

    /// Or else half of the workers would have nothing to do, because a partition has half of the prefetch.
    #[test]
    fn many_keys_of_one_tenant_use_both_partitions() {
        let mut lengths = PartitionLengths::new(8);
        let [first, _] = choices("acme", 8);
        let of_first = (0..1000).filter(|n| lengths.choose("acme", Some(&format!("case-{n}"))) == first);
        assert!((400..600).contains(&of_first.count()));
    }

    #[test]
    fn tenants_are_spread_over_all_partitions() {
        let mut firsts = [0; 8];
        for n in 0..8000 {
            let [first, _] = choices(&format!("tenant-{n}"), 8);
            firsts[usize::from(first)] += 1;
        }
        assert!(firsts.iter().all(|count| (800..1200).contains(count)), "{firsts:?}");
    }
}
