//! The only place that reads the wall clock.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime};

use crate::core::Timestamp;
use crate::core::time::Steady;

/// The time now, to the microsecond. Inside a test with a clock of its own, that clock tells the time.
pub fn now() -> Timestamp {
    #[cfg(feature = "testing")]
    if let Some(scope) = super::scope::here() {
        return scope.clock.now();
    }
    SystemTime::now().into()
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
    CLOCK.at(Instant::now())
}
