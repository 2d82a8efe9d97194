//! Rows of a commit table that the broker could not take: each rests before it is tried again, and meanwhile those behind it
//! are forwarded, but for those that stand in the same lane.
//!
//! The rests of one row double up to the longest. A row that is put to rest while an earlier one of its lane rests, rests as
//! long as that one, so no row of a lane overtakes another. How many rows may rest is bounded, because each look reads past
//! them. The caller tells the time, and puts the rows of a lane to rest in their order.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use super::{Backoff, Timestamp};

/// The most rows that rest at a time.
pub const MOST: usize = 1024;
/// The first rest of a row, and its longest.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// The rows that rest, each until when and with the rests that come after this one. `K` names a row, and `L` a lane.
#[derive(Debug)]
pub struct RestingRows<K, L> {
    rows: HashMap<K, RowRest<L>>,
    /// The row of each lane for which the others wait.
    first: HashMap<L, K>,
}

#[derive(Debug)]
struct RowRest<L> {
    until: Timestamp,
    rests: Backoff,
    lane: Option<L>,
}

impl<K, L> Default for RestingRows<K, L> {
    fn default() -> Self {
        Self { rows: HashMap::new(), first: HashMap::new() }
    }
}

impl<K: Clone + Eq + Hash, L: Clone + Eq + Hash> RestingRows<K, L> {
    /// The number of rows that rest, or whose rest has just ended.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Says whether no row rests.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Says whether this row rests at this time.
    pub fn contains(&self, row: &K, now: Timestamp) -> bool {
        self.rows.get(row).is_some_and(|rest| rest.until > now)
    }

    /// Whether a row of this lane rests, so that a later one may not go.
    pub fn holds_up(&self, lane: &L, now: Timestamp) -> bool {
        self.first.get(lane).is_some_and(|first| self.contains(first, now))
    }

    /// Records that the broker could not take a row, or that the lane of a row is held up. `false`: so many rest that this
    /// one does not.
    pub fn put(&mut self, row: K, lane: Option<L>, now: Timestamp) -> bool {
        if self.rows.len() >= MOST && !self.rows.contains_key(&row) {
            return false;
        }
        let before = lane.as_ref().and_then(|lane| self.first.get(lane)).filter(|first| **first != row);
        let before = before.and_then(|first| self.rows.get(first)).map(|rest| rest.until);
        let behind = before.filter(|until| *until > now);
        if let (Some(lane), None) = (&lane, behind) {
            self.first.insert(lane.clone(), row.clone());
        }
        let rest = self.rows.entry(row).or_insert_with(|| RowRest {
            until: now,
            rests: Backoff::new(SHORTEST, LONGEST),
            lane,
        });
        rest.until = behind.unwrap_or_else(|| now + rest.rests.pause());
        true
    }

    /// Records that a row is over.
    pub fn over(&mut self, row: &K) {
        if let Some(RowRest { lane: Some(lane), .. }) = self.rows.remove(row)
            && self.first.get(&lane) == Some(row)
        {
            self.first.remove(&lane);
        }
    }

    /// Forgets the rows that nobody has tried again though their rest ended long ago, because they are gone.
    pub fn forget_old(&mut self, now: Timestamp) {
        let rows = &mut self.rows;
        rows.retain(|_, rest| rest.until + LONGEST > now);
        self.first.retain(|_, first| rows.contains_key(first));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    /// Rows that stand in no lane.
    type Rows<K> = RestingRows<K, ()>;

    #[test]
    fn the_rests_of_a_row_double_until_it_is_over() {
        let (mut rows, mut now) = (Rows::default(), NOW);
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            assert!(rows.put("a", None, now) && rows.contains(&"a", now) && !rows.contains(&"b", now));
            let end = now + Duration::from_secs(seconds);
            assert!(rows.contains(&"a", end - Duration::from_millis(1)) && !rows.contains(&"a", end));
            rows.forget_old(end);
            now = end;
        }
        rows.over(&"a");
        assert!(rows.is_empty() && rows.put("a", None, now));
        assert!(!rows.contains(&"a", now + SHORTEST), "it begins anew");
    }

    #[test]
    fn no_more_rest_than_a_look_can_read_past_and_those_that_are_gone_are_forgotten() {
        let mut rows = Rows::default();
        assert!((0..MOST).all(|row| rows.put(row, None, NOW)));
        assert!(!rows.put(MOST, None, NOW) && rows.put(0, None, NOW), "one that rests already rests again");
        assert_eq!(rows.len(), MOST);
        rows.forget_old(NOW + SHORTEST + LONGEST);
        assert_eq!(rows.len(), 1);
        assert!(rows.put(MOST, None, NOW));
    }

    #[test]
    fn a_row_rests_as_long_as_the_one_before_it_in_its_lane() {
        let mut rows = RestingRows::default();
        assert!(rows.put(1, Some("a"), NOW) && rows.put(2, Some("a"), NOW) && rows.put(3, Some("b"), NOW));
        assert!(rows.holds_up(&"a", NOW) && rows.holds_up(&"b", NOW) && !rows.holds_up(&"c", NOW));
        let second = NOW + SHORTEST;
        assert!([1, 2].iter().all(|row| !rows.contains(row, second)) && !rows.holds_up(&"a", second));
        // The first one is refused again, and the second one was not tried.
        assert!(rows.put(1, Some("a"), second) && rows.put(2, Some("a"), second));
        let fourth = second + 2 * SHORTEST;
        assert!([1, 2].iter().all(|row| rows.contains(row, fourth - Duration::from_millis(1))));
        assert!([1, 2].iter().all(|row| !rows.contains(row, fourth)));
        // It is over, and now the second one is refused itself: its rests begin.
        rows.over(&1);
        assert!(
            !rows.holds_up(&"a", fourth) && rows.put(2, Some("a"), fourth) && rows.holds_up(&"a", fourth)
        );
        assert!(!rows.contains(&2, fourth + SHORTEST));
    }

    /// One that is gone from its table holds up its lane no longer than its rest.
    #[test]
    fn a_lane_whose_first_row_is_gone_goes_on() {
        let mut rows = RestingRows::default();
        assert!(rows.put(1, Some("a"), NOW) && rows.put(2, Some("a"), NOW));
        let later = NOW + SHORTEST;
        assert!(!rows.holds_up(&"a", later) && rows.put(2, Some("a"), later));
        assert!(
            rows.holds_up(&"a", later) && rows.contains(&2, later),
            "it rests itself, and not in the past"
        );
        rows.forget_old(NOW + SHORTEST + LONGEST);
        assert!(rows.holds_up(&"a", later), "the other one was forgotten");
    }

    proptest! {
        /// Looks at times of any distance, at rows of two lanes of which the broker refuses any: none goes before another
        /// one of its lane, and none that is refused is tried again at once.
        #[test]
        fn no_row_overtakes_another_of_its_lane(
            lanes in prop::collection::vec(0..2_u8, 1..12),
            looks in prop::collection::vec((0..3_000_u64, any::<u16>()), 1..60),
        ) {
            let (mut resting, mut now) = (RestingRows::default(), NOW);
            let mut left: Vec<(usize, u8)> = lanes.into_iter().enumerate().collect();
            for (pause, refused) in looks {
                now = now + Duration::from_millis(pause);
                resting.forget_old(now);
                let mut held = Vec::new();
                for (row, lane) in left.clone() {
                    if resting.contains(&row, now) {
                        held.push(lane);
                        continue;
                    }
                    let is_held = resting.holds_up(&lane, now);
                    prop_assert!(is_held || !held.contains(&lane), "row {} of lane {}", row, lane);
                    if is_held || refused & (1 << row) != 0 {
                        prop_assert!(resting.put(row, Some(lane), now) && resting.contains(&row, now));
                        held.push(lane);
                    } else {
                        resting.over(&row);
                        left.retain(|(other, _)| *other != row);
                    }
                }
            }
        }
    }
}
