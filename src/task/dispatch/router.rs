//! Who finds the queue of a call, and what it answers.

use super::super::{Arguments, EnqueueError};

/// Finds the queue of a call: the one that the call asks for, or else the task's own.
pub(crate) trait Router: Send + Sync {
    /// The physical queue of a call.
    fn queue(&self, task: &str, wanted: Option<&str>, arguments: &Arguments) -> Result<String, EnqueueError>;

    /// The same of a call on behalf of this tenant, whose tasks may take longer than those of others.
    fn queue_for(
        &self,
        _tenant: Option<&str>,
        task: &str,
        wanted: Option<&str>,
        arguments: &Arguments,
    ) -> Result<RoutedQueue, EnqueueError> {
        Ok(RoutedQueue { name: self.queue(task, wanted, arguments)?, instead_of: None })
    }

    /// The queue of a call that must not fail, because the end that it follows from has happened. It is the best queue
    /// that exists.
    fn queue_of_last_resort(&self, task: &str, wanted: Option<&str>) -> String;

    /// Whether each task in this physical queue is run by every process that serves it.
    fn is_broadcast(&self, _queue: &str) -> bool {
        false
    }
}

/// The queue to which a call goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RoutedQueue {
    /// The physical name.
    pub(crate) name: String,
    /// The queue that the call was for, if its tenant sends more than that one takes from one.
    pub(crate) instead_of: Option<String>,
}

/// A router for tests, which sends each task to the queue `q`.
#[cfg(test)]
pub(crate) struct OneQueue;

#[cfg(test)]
impl Router for OneQueue {
    fn queue(&self, _: &str, _: Option<&str>, _: &Arguments) -> Result<String, EnqueueError> {
        Ok("q".to_owned())
    }

    fn queue_of_last_resort(&self, _: &str, _: Option<&str>) -> String {
        "q".to_owned()
    }
}
