//! The least of many keys that change often: a heap from which a key is not taken out when it goes out of force, but when it comes
//! to the top. So a change is one push, which mostly costs O(1) and allocates nothing.
//!
//! Invariant: the heap holds each key that is in force, and at most about twice as many in all: the caller [tidies](LazyHeap::tidy)
//! after it has pushed. Who is asked which keys are in force is the owner of what they stand for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The number of keys out of force below which they are no burden.
const SLACK: usize = 32;

/// Keys of which some are in force.
#[derive(Clone, Debug)]
pub(super) struct LazyHeap<K> {
    keys: BinaryHeap<Reverse<K>>,
}

impl<K: Ord> Default for LazyHeap<K> {
    fn default() -> Self {
        Self { keys: BinaryHeap::new() }
    }
}

impl<K: Ord + Copy> LazyHeap<K> {
    /// Adds a key that is in force now.
    pub(super) fn push(&mut self, key: K) {
        self.keys.push(Reverse(key));
    }

    /// The least key of all, whether it is in force or not.
    pub(super) fn peek(&self) -> Option<K> {
        self.keys.peek().map(|Reverse(key)| *key)
    }

    /// Takes the least key of all out, whether it is in force or not.
    pub(super) fn pop(&mut self) -> Option<K> {
        self.keys.pop().map(|Reverse(key)| key)
    }

    /// The least key that is in force. Those before it are forgotten.
    pub(super) fn first(&mut self, is_in_force: impl Fn(&K) -> bool) -> Option<K> {
        while let Some(Reverse(key)) = self.keys.peek() {
            if is_in_force(key) {
                return Some(*key);
            }
            self.keys.pop();
        }
        None
    }

    /// The heap has no keys after this.
    pub(super) fn clear(&mut self) {
        self.keys.clear();
    }

    /// Forgets what is out of force, if that is more than the `live` keys in force.
    pub(super) fn tidy(&mut self, live: usize, is_in_force: impl Fn(&K) -> bool) {
        if self.keys.len() <= live.saturating_mul(2).saturating_add(SLACK) {
            return;
        }
        let mut keys = std::mem::take(&mut self.keys).into_vec();
        keys.retain(|Reverse(key)| is_in_force(key));
        keys.sort_unstable();
        keys.dedup();
        self.keys = keys.into();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever changes, the heap says what a search through all says, and stays small.
        #[test]
        fn the_first_is_the_least_in_force(changes in prop::collection::vec((0..20_usize, prop::option::of(0..9_u8)), 0..400)) {
            let mut heap = LazyHeap::default();
            let mut all = BTreeMap::new();
            for (owner, key) in changes {
                match key {
                    Some(key) => {
                        all.insert(owner, key);
                        heap.push((key, owner));
                    }
                    None => drop(all.remove(&owner)),
                }
                heap.tidy(all.len(), |(key, owner)| all.get(owner) == Some(key));
                prop_assert!(heap.keys.len() <= 2 * all.len() + SLACK);
                let least = all.iter().map(|(owner, key)| (*key, *owner)).min();
                prop_assert_eq!(heap.first(|(key, owner)| all.get(owner) == Some(key)), least);
                prop_assert_eq!(heap.peek(), least);
            }
        }
    }
}
