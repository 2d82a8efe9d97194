//! How long the forwarder of a commit table waits between two looks into the table.
//!
//! A row becomes visible when its transaction commits, and not every database says when that is. So the forwarder looks
//! - at once again while it finds rows,
//! - soon after this process has written a row, and again after pauses that double, because the commit is about to come,
//! - once a second at any rate, for rows that other processes have written,
//! - after growing pauses while looking fails.
//!
//! The caller measures the pauses.

use std::time::Duration;

use super::Backoff;

/// The longest pause while all is well.
pub const POLL: Duration = Duration::from_secs(1);
/// The first pause after this process has written a row. The commit of a short transaction is there by then.
const SOON: Duration = Duration::from_millis(1);
/// The first pause after a failure, and the longest.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// The pauses of one forwarder.
#[derive(Clone, Debug)]
pub struct LookPauses {
    /// The pauses after looks that find nothing.
    empty: Backoff,
    failures: Backoff,
}

impl Default for LookPauses {
    fn default() -> Self {
        Self {
            empty: Backoff::new(SOON, POLL).after(u32::MAX),
            failures: Backoff::new(AFTER_FAILURE, LONGEST),
        }
    }
}

impl LookPauses {
    /// Records that this process has written a row in a transaction that is open. Returns how long to wait for its commit.
    pub fn written(&mut self) -> Duration {
        self.empty.reset();
        self.empty.peek()
    }

    /// Records that a look has found so many rows. Returns how long to wait before the next one.
    pub fn looked(&mut self, found: usize) -> Duration {
        self.failures.reset();
        if found > 0 { Duration::ZERO } else { self.empty.pause() }
    }

    /// Records that a look, or what it was for, has failed. Returns how long to wait before the next one.
    pub fn failed(&mut self) -> Duration {
        self.failures.pause()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_commit_is_looked_for_soon_and_then_ever_more_rarely() {
        let mut pauses = LookPauses::default();
        assert_eq!(pauses.looked(0), POLL, "nobody has written");
        assert_eq!(pauses.written(), SOON);
        let looks: Vec<u128> = (0..12).map(|_| pauses.looked(0).as_millis()).collect();
        assert_eq!(looks, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 1000]);
        pauses.written();
        assert_eq!(pauses.looked(3), Duration::ZERO, "there may be more");
        assert_eq!(pauses.looked(0), SOON);
    }

    #[test]
    fn failures_double_the_pause_up_to_the_longest() {
        let mut pauses = LookPauses::default();
        let failed: Vec<u64> = (0..7).map(|_| pauses.failed().as_secs()).collect();
        assert_eq!(failed, [1, 2, 4, 8, 16, 30, 30]);
        pauses.looked(0);
        assert_eq!(pauses.failed(), AFTER_FAILURE);
    }

    proptest! {
        /// Whatever happens, the forwarder looks at least once a second while all is well, and a write that is rolled
        /// back costs a handful of looks.
        #[test]
        fn no_pause_is_too_long_and_no_write_costs_many_looks(events in prop::collection::vec(0..3_u8, 0..200)) {
            let mut pauses = LookPauses::default();
            for event in events {
                match event {
                    0 => prop_assert!(pauses.looked(0) <= POLL),
                    1 => prop_assert!(pauses.failed() <= LONGEST),
                    _ => {
                        pauses.written();
                    }
                }
            }
            pauses.written();
            let looks = (0..).take_while(|_| pauses.looked(0) < POLL).count();
            prop_assert!(looks <= 10, "{looks}");
        }
    }
}
