//! How a queue has kept its promise over some time, as its history tells it.

use std::time::Duration;

use serde::Serialize;

use super::WaitSpread;

/// The share of the first starts that may come too late while a promise counts as kept: one in a hundred.
const MAY_BE_LATE: f64 = 0.01;

/// How many of the tasks that started for the first time had waited no longer than their queue promises.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct KeptPromise {
    /// The number of first starts.
    pub starts: u64,
    /// So many of them at least kept the promise.
    pub kept_at_least: u64,
    /// So many of them at most kept the promise. It is more than [`kept_at_least`](Self::kept_at_least) if tasks waited for about as
    /// long as the promise is.
    pub kept_at_most: u64,
    /// The part that is left, at least, of the late starts that there may be: one in a hundred. 0 if it is used up.
    pub budget_left: f64,
}

impl KeptPromise {
    /// Compares these waits with the target that they are held against. `None`: nobody has waited, so nothing was kept or broken.
    pub fn of(waits: &WaitSpread, target: Duration) -> Option<Self> {
        let starts = waits.count();
        let (kept_at_least, kept_at_most) = waits.within(target);
        let late = starts.saturating_sub(kept_at_least) as f64;
        let budget_left = (1.0 - late / (starts as f64 * MAY_BE_LATE)).max(0.0);
        (starts > 0).then_some(Self { starts, kept_at_least, kept_at_most, budget_left })
    }

    /// The share of the starts that kept the promise, at least, from 0 to 1.
    pub fn share(&self) -> f64 {
        self.kept_at_least as f64 / self.starts.max(1) as f64
    }

    /// Whether it is known of each start whether it kept the promise.
    pub fn is_exact(&self) -> bool {
        self.kept_at_least == self.kept_at_most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn waits(of: &[(u64, u64)]) -> WaitSpread {
        let mut waits = WaitSpread::default();
        for (seconds, count) in of {
            (0..*count).for_each(|_| waits.record(Duration::from_secs(*seconds)));
        }
        waits
    }

    #[test]
    fn what_may_be_late_is_one_in_a_hundred() {
        assert_eq!(KeptPromise::of(&waits(&[]), MINUTE), None);
        let kept = |late: u64| KeptPromise::of(&waits(&[(1, 1_000 - late), (600, late)]), MINUTE).unwrap();
        let none = kept(0);
        assert_eq!((none.starts, none.kept_at_least, none.is_exact()), (1_000, 1_000, true));
        assert!((none.budget_left - 1.0).abs() < 1e-9 && (none.share() - 1.0).abs() < 1e-9);
        let some = kept(4);
        assert!((some.budget_left - 0.6).abs() < 1e-9 && (some.share() - 0.996).abs() < 1e-9, "{some:?}");
        assert!(kept(10).budget_left < 1e-9 && kept(999).budget_left == 0.0);
    }

    /// What is not known counts as late, so that nobody is told more than is there.
    #[test]
    fn what_is_not_known_is_not_called_kept() {
        let kept = KeptPromise::of(&waits(&[(1, 998), (61, 1), (59, 1)]), MINUTE).unwrap();
        assert_eq!((kept.kept_at_least, kept.kept_at_most, kept.is_exact()), (998, 1_000, false));
        assert!((kept.budget_left - 0.8).abs() < 1e-9, "{kept:?}");
    }
}
