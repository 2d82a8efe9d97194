//! Logs of phones, forwarded to Sumo Logic. Not essential: this may get behind by hours.

use celeriac::task;

use super::outgoing::{Undelivered, deliver, is_transient};

/// Forwards one submitted device log.
#[task(queue = "sumologic_logs_queue", max_retries = 5, default_retry_delay = "500ms", retry_if = is_transient)]
pub async fn send_device_logs(log: String) -> Result<(), Undelivered> {
    deliver("sumologic", "sumologic", &log).await
}
