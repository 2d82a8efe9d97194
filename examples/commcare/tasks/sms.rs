//! SMS, sent through a gateway.

use celeriac::task;

use super::outgoing::{Undelivered, deliver, is_transient};

/// Sends one queued message. HQ cannot tell which are urgent; whoever enqueues can, with `.priority(..)`.
#[task(queue = "sms_queue", max_retries = 5, default_retry_delay = "500ms", retry_if = is_transient)]
pub async fn process_sms(sms: String) -> Result<(), Undelivered> {
    deliver("sms", "sms", &sms).await
}
