//! Finds since when the oldest message of a queue has been ready.

use std::cmp::Reverse;

use async_trait::async_trait;

use super::{MemoryBroker, MemoryQueue};
use crate::broker::{Backlog, BrokerError};
use crate::core::Timestamp;

#[async_trait]
impl Backlog for MemoryBroker {
    async fn oldest_ready(&self, queue: &str) -> Result<Option<Timestamp>, BrokerError> {
        Ok(self.shared.lock()?.queues.get(queue).and_then(MemoryQueue::oldest_ready))
    }
}

impl MemoryQueue {
    /// Since when the oldest ready message has been ready. The first message of each priority is the oldest of it.
    fn oldest_ready(&self) -> Option<Timestamp> {
        let mut oldest = None;
        let mut below = Some(u8::MAX);
        while let Some(priority) = below
            && let Some(((Reverse(found), _), message)) = self.ready.range((Reverse(priority), 0)..).next()
        {
            oldest = Some(oldest.map_or(message.due(), |oldest: Timestamp| oldest.min(message.due())));
            below = found.checked_sub(1);
        }
        oldest
    }
}
