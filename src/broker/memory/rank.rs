//! The place of a ready message in its line: by priority, high first, and then by arrival.

/// How many bits the arrival takes.
const ARRIVAL_BITS: u32 = 56;

/// A place in a line of ready messages. The lower one is delivered first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Rank(u64);

impl Rank {
    /// The place of a message of this priority that was the `sequence`th to arrive.
    pub(super) fn new(priority: u8, sequence: u64) -> Self {
        let urgency = u64::from(u8::MAX - priority);
        Self((urgency << ARRIVAL_BITS) | (sequence & ((1 << ARRIVAL_BITS) - 1)))
    }

    pub(super) fn priority(self) -> u8 {
        u8::MAX - (self.0 >> ARRIVAL_BITS) as u8
    }

    /// The number of the arrival, as it was given to [`new`](Self::new).
    pub(super) fn sequence(self) -> u64 {
        self.0 & ((1 << ARRIVAL_BITS) - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranks_go_by_priority_and_then_by_arrival(a in (any::<u8>(), 0..1_u64 << 56), b in (any::<u8>(), 0..1_u64 << 56)) {
            let rank = |(priority, sequence)| Rank::new(priority, sequence);
            let expected = (Reverse(a.0), a.1).cmp(&(Reverse(b.0), b.1));
            prop_assert_eq!(rank(a).cmp(&rank(b)), expected);
            prop_assert_eq!((rank(a).priority(), rank(a).sequence()), a);
        }
    }
}
