//! The limits on the length of ids, names and keys.
//!
//! The database of the embedded store takes keys of at most 65,535 bytes, and AMQP names and ids of at most 255. A
//! longer one is refused where it comes in: nothing may find that out while it writes what was promised.

use super::BrokerError;
use crate::task::{LaneName, Message, TaskId, UniqueKey};

/// The most bytes in the id of a task and in the name of a queue.
pub(crate) const LONGEST_NAME: usize = 255;
/// The most bytes in the key of a lane or of a unique window, in the id of a group, and in the name of a note.
pub(crate) const LONGEST_KEY: usize = 1024;
/// The most bytes in the key of a row of the embedded store.
pub(crate) const LONGEST_ROW_KEY: usize = u16::MAX as usize;

/// Checks that a message can be written, wherever it is to wait.
///
/// # Errors
/// An id, a queue or a key of it is empty or too long.
pub(crate) fn check(message: &Message) -> Result<(), BrokerError> {
    let task = &message.task;
    name("the id", message.id.as_str(), task)?;
    name("the queue", &message.queue, task)?;
    keys(message, LONGEST_KEY)
}

/// As [`check`], for a message that was taken before: an earlier version took longer keys, and so did its
/// database.
pub(crate) fn check_again(message: &Message) -> Result<(), BrokerError> {
    keys(message, LONGEST_ROW_KEY - LONGEST_KEY)
}

fn keys(message: &Message, most: usize) -> Result<(), BrokerError> {
    let task = &message.task;
    if let Some(lane) = message.lane() {
        lane_within(lane, task, most)?;
    }
    if let Some(unique) = &message.unique {
        unique_within(&unique.key, task, most)?;
    }
    match message.workflow.as_deref().and_then(|workflow| workflow.group.as_deref()) {
        Some(id) => within("the id of the group", id.len(), task, 0, most),
        None => Ok(()),
    }
}

fn lane_within(lane: &LaneName, task: &str, most: usize) -> Result<(), BrokerError> {
    within("the serial key", lane.scope().len() + lane.key().len(), task, 0, most)
}

fn unique_within(key: &UniqueKey, task: &str, most: usize) -> Result<(), BrokerError> {
    within("the unique key", key.scope().len() + key.key().len(), task, 0, most)
}

/// Checks the name of a lane that a caller asks for.
pub(crate) fn lane(lane: &LaneName) -> Result<(), BrokerError> {
    within("the serial key", lane.scope().len() + lane.key().len(), "", 0, LONGEST_ROW_KEY - LONGEST_KEY)
}

/// Checks the name of a queue.
pub(crate) fn queue(queue: &str) -> Result<(), BrokerError> {
    name("the name of a queue", queue, "")
}

/// Checks the id of a task's record. It may be longer than a task's id, so that a caller who waits for such a task
/// learns why it never ran.
pub(crate) fn record(id: &TaskId, task: &str) -> Result<(), BrokerError> {
    within("the id", id.as_str().len(), task, 1, LONGEST_ROW_KEY - LONGEST_KEY)
}

/// Checks the id of a group.
pub(crate) fn group(id: &str) -> Result<(), BrokerError> {
    within("the id of a group", id.len(), "", 1, LONGEST_KEY)
}

/// Checks the name of a note.
pub(crate) fn note(name: &str) -> Result<(), BrokerError> {
    within("the name of a note", name.len(), "", 1, LONGEST_KEY)
}

fn name(what: &str, text: &str, task: &str) -> Result<(), BrokerError> {
    within(what, text.len(), task, 1, LONGEST_NAME)
}

fn within(what: &str, bytes: usize, task: &str, least: usize, most: usize) -> Result<(), BrokerError> {
    if (least..=most).contains(&bytes) {
        return Ok(());
    }
    // The name of a task is text from outside as well, so it is cut.
    let shown: String = task.chars().take(LONGEST_NAME).collect();
    let whose = if shown.is_empty() { String::new() } else { format!(" of task `{shown}`") };
    Err(BrokerError::Invalid(format!("{what}{whose} has {bytes} bytes; give it {least} to {most}")))
}
