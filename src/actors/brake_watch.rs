//! Looks at the note of brakes again and again, where other processes may change it, and tells the queues when it says
//! something new. So a brake that anybody sets is in force in the whole fleet within a second.

use std::sync::Arc;
use std::time::Duration;

use super::queue::Steer;
use super::queues::Queues;
use crate::runtime::Runtime;

/// How often the note is read. It is one small question to the store.
const LOOK: Duration = Duration::from_millis(500);

/// Watches the note until the event loop of the caller ends. Where nobody else changes the note, there is nothing to watch.
pub(super) fn watch(runtime: Arc<Runtime>, queues: Queues) {
    if !runtime.others_change_notes() {
        return;
    }
    actix_rt::spawn(async move {
        let mut is_away = false;
        loop {
            tokio::time::sleep(LOOK).await;
            match runtime.read_brakes().await {
                Ok(is_new) => {
                    is_away = false;
                    if is_new {
                        queues.tell_all(|| Steer::Look);
                    }
                }
                Err(error) if !is_away => {
                    is_away = true;
                    tracing::warn!(%error, "the note of brakes cannot be read; those that held before go on");
                }
                Err(_) => {}
            }
        }
    });
}
