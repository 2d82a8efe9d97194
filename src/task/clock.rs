//! The only place that reads the wall clock.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use crate::core::Timestamp;
use crate::core::time::Steady;

/// The time now, to the microsecond. Inside a test with a clock of its own, that clock tells the time.
pub fn now() -> Timestamp {
    #[cfg(feature = "testing")]
    if let Some(scope) = super::scope::here() {
        return scope.clock.now();
    }
    Timestamp::from(SystemTime::now()) + jumps().0
}

/// The time by a clock that is set when it is first read and has gone on evenly since. It measures how long a promise
/// lasts. It stands still while the machine sleeps, so that a promise lasts longer and never shorter. Inside a test
/// with a clock of its own, that clock tells the time.
pub(crate) fn steady() -> Timestamp {
    #[cfg(feature = "testing")]
    if let Some(scope) = super::scope::here() {
        return scope.clock.now();
    }
    static CLOCK: LazyLock<Steady> = LazyLock::new(|| Steady::set(SystemTime::now().into(), Instant::now()));
    CLOCK.at(Instant::now()) + jumps().1
}

/// How far the wall clock and the steady clock are ahead: only in tests they are.
#[cfg(not(test))]
const fn jumps() -> (Duration, Duration) {
    (Duration::ZERO, Duration::ZERO)
}

#[cfg(test)]
fn jumps() -> (Duration, Duration) {
    JUMPS.get()
}

#[cfg(test)]
thread_local! {
    static JUMPS: std::cell::Cell<(Duration, Duration)> =
        const { std::cell::Cell::new((Duration::ZERO, Duration::ZERO)) };
}

/// Moves the clocks of this thread in a test, until it is dropped.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct Jump(());

#[cfg(test)]
impl Jump {
    /// Somebody puts the wall clock forward.
    pub(crate) fn wall(&mut self, by: Duration) {
        let (wall, steady) = JUMPS.get();
        JUMPS.set((wall + by, steady));
    }

    /// Time passes, by both clocks.
    pub(crate) fn pass(&mut self, time: Duration) {
        let (wall, steady) = JUMPS.get();
        JUMPS.set((wall + time, steady + time));
    }
}

#[cfg(test)]
impl Drop for Jump {
    fn drop(&mut self) {
        JUMPS.set(Default::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_wall_clock_can_be_put_forward() {
        let (wall, even) = (now(), steady());
        let hour = Duration::from_secs(3_600);
        let mut clock = Jump::default();
        clock.wall(hour);
        assert!(now() >= wall + hour && steady() < even + hour);
        clock.pass(hour);
        assert!(now() >= wall + 2 * hour && steady() >= even + hour);
        drop(clock);
        assert!(now() < wall + hour && steady() < even + hour);
    }
}
