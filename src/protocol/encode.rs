//! A task becomes a message of Celery's protocol 2.

use super::{EncodeError, WireMessage};
use crate::task::Message;

/// Writes a task as Python would, with all headers.
///
/// # Errors
/// Its arguments are no JSON.
pub fn encode(message: &Message) -> Result<WireMessage, EncodeError> {
    let _ = message;
    Err(EncodeError::Json { task: String::new(), what: "arguments", error: String::new() })
}
