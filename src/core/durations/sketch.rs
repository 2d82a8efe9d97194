//! A sketch of durations: how many lay in each of the buckets that are a fifth wider one after the other. A quantile that is
//! read from it is right to a tenth, and it takes some bytes where a histogram with fixed edges takes hundreds.

/// The most buckets of a sketch. Beyond that, the two lowest ones become one, which moves no high quantile of durations that lie
/// within a factor of fifty.
const MOST_BUCKETS: usize = 24;
/// The lower edges of the four buckets between a power of two and the next one, with the highest bit standing for the power:
/// 2⁶³ times the fourth roots of 1, 2, 4 and 8.
const EDGES: [u64; 4] =
    [0x8000_0000_0000_0000, 0x9837_f051_8db8_a96f, 0xb504_f333_f9de_6484, 0xd744_fcca_d69d_6af4];

/// The buckets that have something in them, the lowest first, each with its number and its count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DurationSketch(Vec<(u8, u16)>);

impl DurationSketch {
    /// A sketch of these buckets, which may come from anywhere.
    pub(super) fn of(buckets: &[(u8, u16)]) -> Self {
        let mut sketch = Self::default();
        for (bucket, count) in buckets.iter().filter(|(_, count)| *count > 0) {
            sketch.add(*bucket, *count);
        }
        sketch
    }

    pub(super) fn buckets(&self) -> &[(u8, u16)] {
        &self.0
    }

    /// Records a number of microseconds.
    pub(super) fn record(&mut self, micros: u64) {
        self.add(bucket_of(micros), 1);
    }

    /// Adds another sketch.
    pub(super) fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.0 {
            self.add(*bucket, *count);
        }
    }

    /// How many durations are counted.
    pub(super) fn weight(&self) -> u64 {
        self.0.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    /// Counts half of what there is, so that what comes weighs more.
    pub(super) fn halve(&mut self) {
        self.0.iter_mut().for_each(|(_, count)| *count /= 2);
        self.0.retain(|(_, count)| *count > 0);
    }

    /// The number of microseconds that so many of a hundred durations do not exceed; zero if there are none.
    pub(super) fn quantile(&self, percent: u64) -> u64 {
        let rank = (self.weight() * percent).div_ceil(100);
        let mut below = 0;
        for (bucket, count) in &self.0 {
            below += u64::from(*count);
            if below >= rank {
                return middle_of(*bucket);
            }
        }
        0
    }

    fn add(&mut self, bucket: u8, count: u16) {
        match self.0.binary_search_by_key(&bucket, |(known, _)| *known) {
            Ok(at) => self.0[at].1 = self.0[at].1.saturating_add(count),
            Err(at) => self.0.insert(at, (bucket, count)),
        }
        if self.0.len() > MOST_BUCKETS {
            let (_, lowest) = self.0.remove(0);
            self.0[0].1 = self.0[0].1.saturating_add(lowest);
        }
    }
}

/// The bucket of a number of microseconds: four for each power of two, so that all numbers have one.
fn bucket_of(micros: u64) -> u8 {
    let micros = micros.max(1);
    let power = micros.ilog2();
    let mantissa = micros << (63 - power);
    let step = EDGES.iter().rposition(|edge| *edge <= mantissa).unwrap_or_default();
    u8::try_from(power as usize * 4 + step).unwrap_or(u8::MAX)
}

fn lower_edge(bucket: u8) -> u64 {
    EDGES[usize::from(bucket % 4)] >> (63 - u32::from(bucket / 4))
}

fn middle_of(bucket: u8) -> u64 {
    lower_edge(bucket).midpoint(bucket.checked_add(1).map_or(u64::MAX, lower_edge))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_cover_all_numbers_in_order() {
        assert_eq!((bucket_of(0), bucket_of(1), bucket_of(u64::MAX)), (0, 0, u8::MAX));
        for bucket in 40..=u8::MAX {
            let edge = lower_edge(bucket);
            // The edge itself is rounded down, so the next number is in the bucket for sure.
            assert_eq!(bucket_of(edge + 1), bucket, "{edge}");
            assert!(lower_edge(bucket - 1) < edge);
        }
    }

    #[test]
    fn nothing_has_no_quantile() {
        assert_eq!(DurationSketch::default().quantile(95), 0);
    }

    proptest! {
        /// Durations that lie within a factor of fifty have all their buckets, and a quantile is right to a tenth.
        #[test]
        fn a_quantile_is_right_to_a_tenth(
            least in 1_000u64..1_000_000_000,
            factors in prop::collection::vec(100u64..5_000, 1..200),
            percent in 1u64..=100,
        ) {
            let mut all: Vec<u64> = factors.iter().map(|factor| least * factor / 100).collect();
            let mut sketch = DurationSketch::default();
            all.iter().for_each(|micros| sketch.record(*micros));
            all.sort_unstable();
            let rank = (all.len() as u64 * percent).div_ceil(100).max(1);
            let exact = all[usize::try_from(rank).unwrap() - 1];
            let told = sketch.quantile(percent);
            prop_assert!(told * 10 >= exact * 9 && told * 10 <= exact * 11, "{told} for {exact}");
            prop_assert_eq!(sketch.weight(), all.len() as u64);
        }

        /// Whatever comes, a sketch is bounded and counts all.
        #[test]
        fn a_sketch_is_bounded(all in prop::collection::vec(any::<u64>(), 0..300)) {
            let (mut one, mut other) = (DurationSketch::default(), DurationSketch::default());
            for (at, micros) in all.iter().enumerate() {
                if at % 2 == 0 { one.record(*micros) } else { other.record(*micros) }
            }
            one.merge(&other);
            prop_assert!(one.0.len() <= MOST_BUCKETS && one.0.is_sorted_by(|a, b| a.0 < b.0));
            prop_assert_eq!(one.weight(), all.len() as u64);
            prop_assert_eq!(DurationSketch::of(one.buckets()), one);
        }
    }
}
