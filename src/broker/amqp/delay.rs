//! Celery's native delayed delivery, as names and numbers.
//!
//! It is a ladder of 28 queues, one for each binary digit of a delay in seconds. A message falls through the
//! levels and waits in the queue of each level whose digit is 1, for as long as that digit is worth. In the end it
//! comes out of one exchange, to which each task queue is bound.

use std::time::Duration;

use serde_json::{Map, Value, json};

/// The number of binary digits that a delay has: eight and a half years in seconds.
pub(super) const LEVELS: usize = 28;
/// The exchange out of which delayed messages come.
pub(super) const DELIVERY: &str = "celery_delayed_delivery";

/// The name of the exchange and of the queue of one level.
pub(super) fn level(n: usize) -> String {
    format!("celery_delayed_{n}")
}

/// The exchange into which delayed messages go.
pub(super) fn entry() -> String {
    level(LEVELS - 1)
}

/// The exchange to which a level's messages go on.
pub(super) fn below(n: usize) -> String {
    if n == 0 { DELIVERY.to_owned() } else { level(n - 1) }
}

/// The key by which a level's exchange recognises messages with this digit.
pub(super) fn digit_key(n: usize, digit: u8) -> String {
    format!("{}{digit}.#", "*.".repeat(LEVELS - 1 - n))
}

/// The key by which a task queue is bound to [`DELIVERY`]: a word for each digit, and the queue's name. kombu's
/// key is `#.<queue>`. That one also takes messages for a queue whose name ends in `.<queue>`, so delayed tasks of
/// `orders.email` come to `email` as well and run twice.
pub(super) fn delivery_key(queue: &str) -> String {
    format!("{}{queue}", "*.".repeat(LEVELS))
}

/// The arguments of a level's queue, equal to kombu's.
pub(super) fn arguments(n: usize, queue_type: &str) -> Map<String, Value> {
    let mut arguments = Map::new();
    arguments.insert("x-queue-type".into(), queue_type.into());
    arguments.insert("x-overflow".into(), "reject-publish".into());
    arguments.insert("x-message-ttl".into(), json!((1_u64 << n) * 1000));
    arguments.insert("x-dead-letter-exchange".into(), below(n).into());
    if queue_type == "quorum" {
        arguments.insert("x-dead-letter-strategy".into(), "at-least-once".into());
    }
    arguments
}

/// The whole seconds of a delay, cut to what the ladder can hold. The rest, less than a second, is waited for
/// elsewhere.
pub(super) fn seconds(delay: Duration) -> u64 {
    delay.as_secs().min((1 << LEVELS) - 1)
}

/// The routing key of a message that is to be delayed by `seconds`.
pub(super) fn routing_key(seconds: u64, queue: &str) -> String {
    let mut key = String::with_capacity(2 * LEVELS + queue.len());
    for n in (0..LEVELS).rev() {
        key.push(if seconds >> n & 1 == 1 { '1' } else { '0' });
        key.push('.');
    }
    key.push_str(queue);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_kombu() {
        let five = "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.1.qcelery";
        assert_eq!(routing_key(5, "qcelery"), five);
        assert_eq!(digit_key(27, 1), "1.#");
        assert_eq!(delivery_key("email"), format!("{}email", "*.".repeat(28)));
        assert_eq!(digit_key(0, 0), format!("{}0.#", "*.".repeat(27)));
        assert_eq!(
            (entry().as_str(), below(0).as_str(), below(3).as_str()),
            ("celery_delayed_27", DELIVERY, "celery_delayed_2")
        );
    }

    #[test]
    fn a_delay_beyond_the_ladder_is_as_long_as_the_ladder() {
        assert_eq!(seconds(Duration::from_millis(1999)), 1);
        assert_eq!(seconds(Duration::MAX), 268_435_455);
        assert!(routing_key(seconds(Duration::MAX), "q").starts_with("1.1."));
    }
}
