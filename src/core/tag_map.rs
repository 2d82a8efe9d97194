//! A map by the tags of deliveries, which are numbers that the broker's side of this process counts up.
//!
//! Nobody outside of the process chooses a tag, so a multiplication spreads them well enough, and a look-up costs a fraction of
//! what the hasher of the standard library takes.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Values by the tags of deliveries.
pub type TagMap<T> = HashMap<u64, T, BuildHasherDefault<TagHasher>>;

/// A map that is smaller than this keeps its memory when it drains.
const SMALL: usize = 1_024;

/// Spreads tags, and other numbers that nobody outside chooses.
#[derive(Clone, Copy, Debug, Default)]
pub struct TagHasher(u64);

impl Hasher for TagHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        // The golden ratio in 64 bits. Both halves of the product together have each bit of the number in the low bits and in
        // the high ones, which are those that a map looks at.
        let product = u128::from(self.0 ^ number) * 0x9E37_79B9_7F4A_7C15;
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }
}

/// Removes a value, and gives memory back when the map has become small for the room that it has.
pub(crate) fn take<T>(map: &mut TagMap<T>, tag: u64) -> Option<T> {
    let taken = map.remove(&tag)?;
    if map.capacity() > SMALL && map.len() < map.capacity() / 8 {
        map.shrink_to(2 * map.len());
    }
    Some(taken)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn tags_in_a_row_spread_over_the_low_bits_and_the_high_ones() {
        let hash = |tag: u64| BuildHasherDefault::<TagHasher>::default().hash_one(tag);
        for stride in [1, 2, 64, 1 << 20, 1 << 40] {
            let low: HashSet<u64> = (0..1_024).map(|n| hash(n * stride) & 1_023).collect();
            let high: HashSet<u64> = (0..1_024).map(|n| hash(n * stride) >> 57).collect();
            assert!(low.len() > 256 && high.len() > 100, "{stride}: {} and {}", low.len(), high.len());
        }
    }

    #[test]
    fn a_map_that_drains_gives_memory_back_and_keeps_the_rest() {
        let mut map: TagMap<u64> = TagMap::default();
        map.extend((0..20_000).map(|tag| (tag, tag)));
        let before = map.capacity();
        for tag in 0..19_990 {
            assert_eq!(take(&mut map, tag), Some(tag));
        }
        assert_eq!(take(&mut map, 7), None);
        assert!(map.capacity() < before / 8, "{} of {before}", map.capacity());
        assert_eq!(map.len(), 10);
        assert!((19_990..20_000).all(|tag| map.get(&tag) == Some(&tag)));
    }
}
