//! The bounds of what is sent at once, by one canvas or by the end of one task. They bound memory, which would
//! otherwise grow with the size of a value times the number of a group's members.

use super::SignatureError;
use super::node::{Node, NodeKind};
use crate::task::{Json, JsonMap, Message};

/// What a node, a positional argument and an entry of a map take in memory beside their text, in bytes, about. A message may
/// be made of nothing else.
const NODE: usize = 256;
const ARGUMENT: usize = size_of::<Json>();
const ENTRY: usize = 96;

/// The bounds of what is sent at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CanvasLimits {
    /// The largest number of messages that are sent at once.
    pub(crate) tasks: usize,
    /// The largest size of all of these messages together, as JSON, in bytes.
    pub(crate) bytes: usize,
}

impl Default for CanvasLimits {
    fn default() -> Self {
        Self { tasks: 10_000, bytes: 64 << 20 }
    }
}

impl CanvasLimits {
    /// Checks the number of messages.
    ///
    /// # Errors
    /// There are more messages than the limit allows.
    pub(crate) fn check_tasks(self, tasks: usize) -> Result<(), SignatureError> {
        if tasks <= self.tasks {
            return Ok(());
        }
        Err(SignatureError(format!(
            "it would send {tasks} tasks at once, the limit is {}: let a task do several of the items (larger chunks), or send them as several groups; the builder's `max_canvas_tasks` changes the limit",
            self.tasks
        )))
    }

    /// What is left when so much of it is taken.
    pub(crate) fn less(self, tasks: usize, bytes: usize) -> Self {
        Self { tasks: self.tasks.saturating_sub(tasks), bytes: self.bytes.saturating_sub(bytes) }
    }

    /// # Errors
    /// The messages have more bytes than the limit allows.
    pub(crate) fn check_bytes(self, tasks: usize, bytes: usize) -> Result<(), SignatureError> {
        if bytes <= self.bytes {
            return Ok(());
        }
        Err(SignatureError(format!(
            "the {tasks} messages that it would send at once take {bytes} bytes or more, the limit is {}: each of them has a copy of the value that it is given, and of what comes after it, so store what is large, and pass its id; the builder's `max_canvas_size` changes the limit",
            self.bytes
        )))
    }
}

impl Node {
    /// The number of tasks in the node, without those that are called by links.
    pub(super) fn tasks(&self) -> usize {
        match &self.kind {
            NodeKind::Task { .. } => 1,
            NodeKind::Chain(nodes) | NodeKind::Group(nodes) => nodes.iter().map(Self::tasks).sum(),
            NodeKind::Chord(chord) => chord.header.tasks() + chord.body.tasks(),
        }
    }

    /// Checks the size of the copies that sending makes. The options, arguments and errbacks of a composite are copied
    /// to each of its parts.
    ///
    /// # Errors
    /// The copies have more bytes than the limit allows.
    pub(super) fn check_copies(&self, limits: CanvasLimits) -> Result<(), SignatureError> {
        limits.check_bytes(self.tasks(), self.copies())
    }

    /// The size of these copies in bytes.
    fn copies(&self) -> usize {
        let within = self.inner().chain(self.others()).map(Self::copies).fold(0, usize::saturating_add);
        if matches!(self.kind, NodeKind::Task { .. }) {
            return within;
        }
        let errbacks: usize = self.options.link_error.iter().map(Self::bytes).sum();
        let own = map_bytes(&self.options.plain) + list_bytes(&self.args) + errbacks;
        own.saturating_mul(self.tasks()).saturating_add(within)
    }

    /// The approximate length of the node as JSON, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let own = match &self.kind {
            NodeKind::Task { name, kwargs, .. } => name.len() + map_bytes(kwargs),
            _ => 0,
        };
        let others: usize = self.inner().chain(self.others()).map(Self::bytes).sum();
        NODE + own + list_bytes(&self.args) + map_bytes(&self.options.plain) + others
    }
}

/// About how much arguments take.
pub(super) fn list_bytes(list: &[Json]) -> usize {
    list.iter().map(|item| item.text().len() + ARGUMENT).sum()
}

/// About how much the entries of a map take.
pub(super) fn map_bytes(map: &JsonMap) -> usize {
    map.iter().map(|(name, value)| name.len() + value.text().len() + ENTRY).sum()
}

/// What each message that follows from this one inherits of it, in bytes: the stamps, and the headers of its trace.
pub(super) fn inherited(message: &Message) -> usize {
    let trace = message.headers.trace().inherited_bytes();
    let Some(workflow) = message.workflow.as_deref() else { return trace };
    trace + json_len(&workflow.stamps.0) + json_len(&workflow.stamped_headers)
}

/// How long a value is as JSON, without making the text.
pub(crate) fn json_len(value: &impl serde::Serialize) -> usize {
    struct ByteCounter(usize);
    impl std::io::Write for ByteCounter {
        fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
            self.0 += buffer.len();
            Ok(buffer.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counter = ByteCounter(0);
    // A value without a form in JSON is refused where it is written.
    let _ = serde_json::to_writer(&mut counter, value);
    counter.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_said_with_what_to_do() {
        let limits = CanvasLimits { tasks: 10, bytes: 100 };
        assert_eq!((limits.check_tasks(10), limits.check_bytes(10, 100)), (Ok(()), Ok(())));
        let refused = limits.check_tasks(11).unwrap_err().to_string();
        assert!(refused.contains("11 tasks") && refused.contains("larger chunks"), "{refused}");
        let refused = limits.check_bytes(1, 101).unwrap_err().to_string();
        assert!(refused.contains("101 bytes") && refused.contains("pass its id"), "{refused}");
        assert_eq!(json_len(&serde_json::json!({"a": ["ä", 1.5]})), r#"{"a":["ä",1.5]}"#.len());
    }
}
