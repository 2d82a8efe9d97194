//! Retry policy.
use std::time::Duration;
use serde::{Deserialize, Serialize};
/// When a failed attempt is tried again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// How often.
    pub max_retries: u32,
    /// First delay.
    pub delay: Duration,
    /// Double the delay each time.
    pub backoff: bool,
    /// Cap.
    pub max_delay: Duration,
    /// Spread.
    pub jitter: bool,
}
impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_retries: 3, delay: Duration::from_secs(10), backoff: true, max_delay: Duration::from_secs(600), jitter: true }
    }
}
