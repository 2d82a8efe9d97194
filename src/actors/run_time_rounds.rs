//! Once a minute, writes how long runs took into the notes of the store, and reads what others have written. It runs on the root's
//! own thread, where no task body can block it.

use std::sync::Arc;
use std::time::Duration;

use crate::runtime::Runtime;

/// How often the notes are written and read.
const ROUND: Duration = Duration::from_secs(60);

/// Goes on until the event loop of the caller ends.
pub(super) fn begin(runtime: Arc<Runtime>) {
    actix_rt::spawn(async move {
        let mut is_away = false;
        loop {
            tokio::time::sleep(ROUND).await;
            match runtime.exchange_run_times().await {
                Ok(()) => is_away = false,
                Err(error) if !is_away => {
                    is_away = true;
                    tracing::warn!(%error, "how long runs took cannot be written or read now; it is tried again each minute");
                }
                Err(_) => {}
            }
        }
    });
}
