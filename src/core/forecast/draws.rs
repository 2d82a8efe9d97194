//! The numbers of forward runs, and of simulated loads: they look random, and the same seed gives the same ones.
//!
//! The generator is SplitMix64: one addition and five steps of mixing for a number. It is good enough to draw durations
//! with, and for nothing that has to be secret.

/// A source of numbers that is wholly decided by its seed.
#[derive(Clone, Debug)]
pub(in crate::core) struct Draws(u64);

impl Draws {
    pub(in crate::core) const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, of which all are equally likely.
    pub(in crate::core) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to 1, without 1.
    pub(in crate::core) fn share(&mut self) -> f64 {
        // A float has 53 bits for its digits.
        (self.number() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A whole number below `bound`, which is above 0.
    pub(in crate::core) fn below(&mut self, bound: usize) -> usize {
        let drawn = (self.share() * bound as f64) as usize;
        drawn.min(bound.saturating_sub(1))
    }

    /// A number with the exponential distribution of mean 1: how long it takes until something happens that happens once
    /// in each unit of time on average.
    pub(in crate::core) fn exponential(&mut self) -> f64 {
        -(1.0 - self.share()).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_all_numbers_and_their_means_are_right() {
        let (mut one, mut same, mut other) = (Draws::seeded(7), Draws::seeded(7), Draws::seeded(8));
        let drawn: Vec<u64> = (0..100).map(|_| one.number()).collect();
        assert!(drawn.iter().all(|number| *number == same.number()));
        assert!(drawn.iter().any(|number| *number != other.number()));
        let mean = |draw: &mut dyn FnMut() -> f64| (0..20_000).map(|_| draw()).sum::<f64>() / 20_000.0;
        assert!((mean(&mut || one.share()) - 0.5).abs() < 0.02);
        assert!((mean(&mut || one.exponential()) - 1.0).abs() < 0.05);
        assert!((0..1_000).all(|_| one.below(3) < 3) && one.below(1) == 0);
    }
}
