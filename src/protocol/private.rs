//! What we know of a task and Celery has no word for: the header `celeriac`.
//!
//! It is JSON text rather than a table, so that it passes through every broker and every Python worker's retry unharmed. A
//! message that has it is our own, or a copy of one of our own.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::{RetryPolicy, Timestamp};
use crate::task::{Message, Pass, Serial, Unique};

/// The header's name.
pub(super) const HEADER: &str = "celeriac";

/// The header. What it leaves out is zero, or unknown; what a later version adds is no matter.
#[derive(Serialize, Deserialize)]
pub(super) struct Private {
    enqueued_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "is_zero")]
    crashes: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    continuations: u32,
    retry: RetryPolicy,
    autoretry: bool,
    acks_late: bool,
    result_expires: Duration,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    last_errors: Vec<String>,
    /// Whoever ends it is to end its dedupe window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unique: Option<Box<Unique>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    serial: Option<Box<Serial>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pass: Option<Pass>,
    /// The text of `argsrepr` or `kwargsrepr` was given by the application, and not made from the arguments.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) argsrepr: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) kwargsrepr: bool,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn is_false(yes: &bool) -> bool {
    !yes
}

impl Private {
    /// Of a message that goes out.
    pub(super) fn of(message: &Message) -> Self {
        Self {
            enqueued_at: message.enqueued_at,
            first_started_at: message.first_started_at,
            crashes: message.crashes,
            continuations: message.continuations,
            retry: message.retry.clone(),
            autoretry: message.autoretry,
            acks_late: message.acks_late,
            result_expires: message.result_expires,
            last_errors: message.last_errors.clone(),
            unique: message.unique.clone(),
            serial: message.serial.clone(),
            pass: message.serial.as_ref().and_then(|serial| serial.pass),
            argsrepr: false,
            kwargsrepr: false,
        }
    }

    /// Puts it all into a message that came in.
    pub(super) fn apply(self, message: &mut Message) {
        message.enqueued_at = self.enqueued_at;
        message.first_started_at = self.first_started_at;
        message.crashes = self.crashes;
        message.continuations = self.continuations;
        message.retry = self.retry;
        message.autoretry = self.autoretry;
        message.acks_late = self.acks_late;
        message.result_expires = self.result_expires;
        message.last_errors = self.last_errors;
        message.unique = self.unique;
        message.serial = self.serial;
        if let Some(serial) = &mut message.serial {
            serial.pass = self.pass;
        }
    }
}
