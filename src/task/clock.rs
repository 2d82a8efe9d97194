//! The one place that reads the wall clock.

use std::time::SystemTime;

use crate::core::Timestamp;

/// The time now, to the microsecond; inside of a test that has a clock of its own, what that one says.
pub fn now() -> Timestamp {
    #[cfg(feature = "testing")]
    if let Some(scope) = super::scope::here() {
        return scope.clock.now();
    }
    SystemTime::now().into()
}
