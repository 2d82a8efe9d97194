//! Rows of a commit table that the broker could not take: each rests before it is tried again, and meanwhile those behind it
//! are forwarded.
//!
//! The rests of one row double up to the longest. How many rows may rest is bounded, because each look reads past them. The
//! caller tells the time.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use super::{Backoff, Timestamp};

/// The most rows that rest at a time.
pub const MOST: usize = 1024;
/// The first rest of a row, and its longest.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// The rows that rest, each until when and with the rests that come after this one. `K` names a row.
#[derive(Debug)]
pub struct RestingRows<K>(HashMap<K, (Timestamp, Backoff)>);

impl<K> Default for RestingRows<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> RestingRows<K> {
    /// The number of rows that rest, or whose rest has just ended.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no row rests.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this row rests.
    pub fn contains(&self, row: &K, now: Timestamp) -> bool {
        self.0.get(row).is_some_and(|(until, _)| *until > now)
    }

    /// Records that the broker could not take a row. `false`: so many rest that this one does not.
    pub fn put(&mut self, row: K, now: Timestamp) -> bool {
        if self.0.len() >= MOST && !self.0.contains_key(&row) {
            return false;
        }
        let (until, rests) = self.0.entry(row).or_insert((now, Backoff::new(SHORTEST, LONGEST)));
        *until = now + rests.pause();
        true
    }

    /// Records that a row is over.
    pub fn over(&mut self, row: &K) {
        self.0.remove(row);
    }

    /// Forgets the rows that nobody has tried again though their rest ended long ago, because they are gone.
    pub fn forget_old(&mut self, now: Timestamp) {
        self.0.retain(|_, (until, _)| *until + LONGEST > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    #[test]
    fn the_rests_of_a_row_double_until_it_is_over() {
        let (mut rows, mut now) = (RestingRows::default(), NOW);
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            assert!(rows.put("a", now) && rows.contains(&"a", now) && !rows.contains(&"b", now));
            let end = now + Duration::from_secs(seconds);
            assert!(rows.contains(&"a", end - Duration::from_millis(1)) && !rows.contains(&"a", end));
            rows.forget_old(end);
            now = end;
        }
        rows.over(&"a");
        assert!(rows.is_empty() && rows.put("a", now));
        assert!(!rows.contains(&"a", now + SHORTEST), "it begins anew");
    }

    #[test]
    fn no_more_rest_than_a_look_can_read_past_and_those_that_are_gone_are_forgotten() {
        let mut rows = RestingRows::default();
        assert!((0..MOST).all(|row| rows.put(row, NOW)));
        assert!(!rows.put(MOST, NOW) && rows.put(0, NOW), "one that rests already rests again");
        assert_eq!(rows.len(), MOST);
        rows.forget_old(NOW + SHORTEST + LONGEST);
        assert_eq!(rows.len(), 1);
        assert!(rows.put(MOST, NOW));
    }
}
