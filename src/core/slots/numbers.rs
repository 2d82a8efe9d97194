//! Maps by numbers that the pool gives out itself: of its runs and its tenants.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map by numbers. Its order is of no meaning, and the same for the same history.
pub(super) type NumberMap<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// Spreads numbers by a multiplication. Nobody outside chooses the numbers, so nobody can make them collide.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_a_row_are_spread() {
        let mut map = NumberMap::<usize, usize>::default();
        (0..10_000).for_each(|number| assert_eq!(map.insert(number, 2 * number), None));
        assert!((0..10_000).all(|number| map.get(&number) == Some(&(2 * number))));
        let hash = |number: u64| {
            let mut hasher = NumberHasher::default();
            hasher.write_u64(number);
            hasher.finish()
        };
        let mut low: Vec<u64> = (0..1_024).map(|number| hash(number) % 1_024).collect();
        low.sort_unstable();
        assert!(low.into_iter().eq(0..1_024), "no two of a row share a place");
        let high: std::collections::BTreeSet<u64> = (0..1_024).map(|number| hash(number) >> 57).collect();
        assert_eq!(high.len(), 128);
    }
}
