//! The Lamport clock of this process, which all that it sends by remote control or as an event bears.
//!
//! Celery's tools put events of several workers into an order by it. It counts from zero; what is heard of another
//! process's clock moves it forward.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

static CLOCK: AtomicU64 = AtomicU64::new(0);

/// The highest time that is believed. No honest process counts as far, and JavaScript reads no larger number exactly.
const HIGHEST: u64 = 1 << 53;

/// The next time of the clock.
pub(super) fn tick() -> u64 {
    CLOCK.fetch_add(1, Ordering::Relaxed) + 1
}

/// Takes note of the header `clock` of a message that has come. A missing time counts as zero.
pub(super) fn hear(time: Option<&Value>) {
    let time = time.and_then(Value::as_u64).filter(|time| *time < HIGHEST).unwrap_or(0);
    CLOCK.fetch_max(time, Ordering::Relaxed);
    tick();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Other tests of this process move the clock, too: it is compared with what it was.
    #[test]
    fn the_clock_goes_on_from_the_later_of_two_times() {
        let start = tick();
        assert!(tick() > start);
        hear(Some(&json!(start + 1_000_000)));
        let heard = tick();
        assert!(heard > start + 1_000_000);
        for nothing in [None, Some(json!(null)), Some(json!("7")), Some(json!(-1)), Some(json!(HIGHEST))] {
            hear(nothing.as_ref());
        }
        assert!((heard + 5..HIGHEST).contains(&tick()));
    }
}
