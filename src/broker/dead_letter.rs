//! Messages that will not be run unless somebody says so.

use crate::core::Timestamp;
use crate::task::clock::now;
use crate::task::{Message, State, TaskResult};

/// A message that will not be run unless somebody says so.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct DeadLetter {
    /// The message as it was last.
    pub message: Message,
    /// Why it is here.
    pub reason: String,
    /// Since when.
    pub died_at: Timestamp,
}

/// Why a message lies in the dead letters when its runs kept ending with their worker.
pub(super) fn crash_reason(times: u32) -> String {
    format!("WorkerLost: its worker or process ended {times} times while it ran")
}

/// The record of such a task.
pub(super) fn crash_result(message: &Message) -> TaskResult {
    let now = now();
    TaskResult {
        id: message.id.clone(),
        task: message.task.clone(),
        queue: message.queue.clone(),
        state: State::Failure,
        result: None,
        errors: vec![crash_reason(message.crashes)],
        error_type: Some("WorkerLost".to_owned()),
        error_module: None,
        traceback: None,
        attempts: message.retries + message.crashes,
        enqueued_at: message.enqueued_at,
        started_at: message.first_started_at,
        finished_at: now,
        worker: None,
        expires_at: now + message.result_expires,
        lineage: None,
        download: None,
    }
}

/// A dead letter on its way back: its attempts are counted anew.
pub(super) fn revived(mut message: Message, now: Timestamp) -> Message {
    message.retries = 0;
    message.crashes = 0;
    message.eta = None;
    message.expires = None;
    message.enqueued_at = now;
    message.first_started_at = None;
    if let Some(serial) = &mut message.serial {
        serial.refusal = None;
        serial.let_in_at = None;
        serial.pass = None;
    }
    message
}
