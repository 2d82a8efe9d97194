//! The least of many keys that change often: a heap from which a key is not taken out when it goes out of force, but when it comes
//! to the top. So a change is one push, which mostly costs O(1) and allocates nothing.
//!
//! Invariant: the heap holds each key that is in force, and at most about twice as many in all: the caller [tidies](LazyHeap::tidy)
//! after it has pushed. Who is asked which keys are in force is the owner of what they stand for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

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

    /// As [`first`](Self::first), where keys rise without being pushed anew. `now` says what has become of a key: it is the
    /// same, it is larger, or it is out of force.
    pub(super) fn first_risen(&mut self, mut now: impl FnMut(&K) -> Option<K>) -> Option<K> {
        while let Some(mut top) = self.keys.peek_mut() {
            match now(&top.0) {
                Some(key) if key > top.0 => *top = Reverse(key), // it sinks to its place, and another one is on top
                Some(key) => return Some(key),
                None => {
                    PeekMut::pop(top);
                }
            }
        }
        None
    }

    /// Changes the least key of all, whether it is in force or not.
    pub(super) fn replace_first(&mut self, key: K) {
        if let Some(mut first) = self.keys.peek_mut() {
            *first = Reverse(key);
        }
    }

    /// The heap has no keys after this.
    pub(super) fn clear(&mut self) {
        self.keys.clear();
    }

    /// Forgets what is out of force, if that is more than the `live` keys in force.
    pub(super) fn tidy(&mut self, live: usize, mut is_in_force: impl FnMut(&K) -> bool) {
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

        /// A key that rises stays where it is until it is the first one, and one that falls is pushed anew.
        #[test]
        fn the_first_of_keys_that_rise_is_the_least(
            changes in prop::collection::vec((0..10_usize, prop::option::of(0..50_u8)), 0..400),
        ) {
            let mut heap = LazyHeap::default();
            let (mut all, mut keys) = (BTreeMap::new(), BTreeMap::new());
            for (owner, key) in changes {
                match key {
                    Some(key) => {
                        all.insert(owner, key);
                        if keys.get(&owner).is_none_or(|known| key < *known) {
                            keys.insert(owner, key);
                            heap.push((key, owner));
                        }
                    }
                    None => drop(all.remove(&owner)),
                }
                let first = heap.first_risen(|(key, owner)| {
                    if keys.get(owner) != Some(key) {
                        return None;
                    }
                    let Some(now) = all.get(owner) else {
                        keys.remove(owner);
                        return None;
                    };
                    keys.insert(*owner, *now);
                    Some((*now, *owner))
                });
                prop_assert_eq!(first, all.iter().map(|(owner, key)| (*key, *owner)).min());
            }
        }

        #[test]
        fn the_first_can_be_replaced(keys in prop::collection::vec(0..9_u8, 1..20), key in 0..9_u8) {
            let mut heap = LazyHeap::default();
            keys.iter().for_each(|key| heap.push(*key));
            heap.replace_first(key);
            let mut others = keys;
            others.sort_unstable();
            others[0] = key;
            others.sort_unstable();
            let popped: Vec<u8> = std::iter::from_fn(|| heap.pop()).collect();
            prop_assert_eq!(popped, others);
        }
    }
}
