//! Exponential backoff: the one curve that retries of tasks, restarts of workers and all that asks again share.

use std::time::Duration;

/// `first` doubled `doublings` times, but never more than `cap`. The result is exact to the nanosecond. A product
/// that would overflow is `cap`.
pub(super) fn doubled(first: Duration, doublings: u32, cap: Duration) -> Duration {
    let factor = 1u128.checked_shl(doublings).unwrap_or(u128::MAX);
    let nanos = first.as_nanos().saturating_mul(factor);
    // The number fits a Duration, because it is below `cap`, which is a Duration.
    if nanos < cap.as_nanos() { Duration::from_nanos_u128(nanos) } else { cap }
}

/// The pauses between attempts of which one after the other fails: the first pause, and then each twice as long as the
/// one before it, up to the longest.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from `first` to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// The pauses that come after `times` others.
    #[must_use]
    pub fn after(mut self, times: u32) -> Self {
        self.next = doubled(self.first, times, self.longest);
        self
    }

    /// The pause to take now. The pause after it is twice as long.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = doubled(pause, 1, self.longest);
        pause
    }

    /// The pause that [`pause`](Self::pause) would answer with.
    pub const fn peek(&self) -> Duration {
        self.next
    }

    /// Begins with the first pause again, because an attempt succeeded.
    pub const fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn doubles_until_the_cap() {
        let waits: Vec<u64> = (0..8).map(|n| doubled(Duration::from_secs(1), n, MINUTE).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(doubled(2 * MINUTE, 0, MINUTE), MINUTE);
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(7), MINUTE);
        let pauses = [(); 5].map(|()| backoff.pause().as_secs());
        assert_eq!((pauses, backoff.peek()), ([7, 14, 28, 56, 60], MINUTE));
        backoff.reset();
        assert_eq!(
            (backoff.peek().as_secs(), backoff.pause().as_secs(), backoff.pause().as_secs()),
            (7, 7, 14)
        );
    }

    #[test]
    fn no_input_overflows() {
        for doublings in [0, 1, 31, 32, 63, 64, 127, 128, u32::MAX] {
            assert_eq!(doubled(Duration::ZERO, doublings, MINUTE), Duration::ZERO);
            assert_eq!(doubled(Duration::MAX, doublings, Duration::MAX), Duration::MAX);
            assert!(doubled(Duration::from_nanos(1), doublings, Duration::MAX) >= Duration::from_nanos(1));
        }
        assert!((6..200).all(|doublings| doubled(Duration::from_secs(1), doublings, MINUTE) == MINUTE));
        assert_eq!(doubled(Duration::from_nanos(1), 40, Duration::MAX).as_nanos(), 1 << 40);
    }

    #[test]
    fn pauses_go_on_after_others() {
        let pauses = Backoff::new(Duration::from_secs(1), MINUTE);
        let nth: Vec<u64> = (0..8).map(|n| pauses.clone().after(n).peek().as_secs()).collect();
        assert_eq!(nth, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pauses.after(u32::MAX).peek(), MINUTE);
    }
}
