//! The facts about a task that Celery has no word for, in the header `celeriac`.
//!
//! The header is JSON text rather than a table, so that it passes unharmed through every broker and every retry of a
//! Python worker. A message with this header is Celeriac's own, or a copy of one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::text::first_errors;
use crate::core::{RetryPolicy, Timestamp};
use crate::task::{Message, Pass, SerialHeader, Unique};

/// The name of the header.
pub(super) const HEADER: &str = "celeriac";

/// The content of the header. A missing field is zero or unknown, and fields that a later version adds are ignored.
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
    /// The unique window of the task. The runtime that ends the task ends the window too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unique: Option<Box<Unique>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    serial: Option<Box<SerialHeader>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pass: Option<Pass>,
    /// Whether the application gave the text of `argsrepr`, which was not made from the arguments then.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) argsrepr: bool,
    /// Whether the application gave the text of `kwargsrepr`.
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
    /// The header of a message that is to be sent.
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
            last_errors: first_errors(&message.last_errors),
            unique: message.unique.clone(),
            serial: message.serial.clone(),
            pass: message.serial.as_ref().and_then(|serial| serial.pass),
            argsrepr: false,
            kwargsrepr: false,
        }
    }

    /// Copies all fields into a message that was received.
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
