//! SMS, sent through a gateway.

use actix_web::rt::task::spawn_blocking;
use celeriac::task;

use super::outgoing::{Undelivered, deliver, is_transient};
use crate::hq::{hq, now_ms};

/// Sends one queued message. HQ cannot tell which are urgent; whoever enqueues can, with `.priority(..)`.
#[task(queue = "sms_queue", max_retries = 5, default_retry_delay = "500ms", retry_if = is_transient)]
pub async fn process_sms(sms: String) -> Result<(), Undelivered> {
    deliver("sms", "sms", &sms).await
}

/// Sends one that waited for its time, found by `run_sms_queue`. Delivered or refused for good, it is not due any more.
#[task(queue = "sms_queue", max_retries = 5, default_retry_delay = "500ms", retry_if = is_transient, ignore_result)]
pub async fn process_queued_sms(sms: String) -> Result<(), Undelivered> {
    let sent = deliver("sms", "sms", &sms).await;
    if !sent.as_ref().is_err_and(is_transient) {
        spawn_blocking(move || {
            hq().db.write(|tx| {
                tx.execute("UPDATE queued_sms SET processed_at = ? WHERE id = ?", (now_ms(), sms))?;
                Ok::<_, rusqlite::Error>(())
            })
        })
        .await??;
    }
    sent
}
