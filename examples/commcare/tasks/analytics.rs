//! HubSpot and its like: user actions, reported to an external server.

use celeriac::task;

use super::outgoing::{Undelivered, deliver, is_transient};

/// HQ's `analytics_task`: what comes back as 400 is "our fault" and fails at once, anything else is tried again.
#[task(queue = "analytics_queue", max_retries = 5, default_retry_delay = "500ms", retry_if = is_transient)]
pub async fn track_event(event: String) -> Result<(), Undelivered> {
    deliver("analytics", "analytics", &event).await
}
