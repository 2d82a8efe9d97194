//! The one place that reads the wall clock.

use std::time::SystemTime;

use crate::core::Timestamp;

/// The time now, to the microsecond.
pub fn now() -> Timestamp {
    SystemTime::now().into()
}
