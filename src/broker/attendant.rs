//! Who runs what a broker delivers, as a broker sees it that hears of more than deliveries.

use crate::task::{Message, TaskId, TaskOptions, TaskResult};

/// The runtime, to a broker that others use too. It is called from the broker's threads and must not block.
pub trait Attendant: Send + Sync {
    /// The options of a task of this program: what a foreign message does not state is taken from there.
    fn options(&self, task: &str) -> Option<TaskOptions>;

    /// A task is over without ever having been delivered: its message was refused, or it was given up because its runs kept
    /// ending with their worker. It is a dead letter; this is its record, and its message, if it could be read: what was to
    /// follow from it fails.
    fn over(&self, record: TaskResult, message: Option<&Message>);

    /// The lanes of the serial tasks of these deliveries are not sure to be this process's any more: their runs are to end.
    fn lost(&self, _tags: Vec<u64>) {}

    /// Somebody, in whatever process, has revoked these tasks.
    fn revoked(&self, ids: Vec<TaskId>, terminate: bool);
}
