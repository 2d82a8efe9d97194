//! Finds since when the oldest message of a queue has been ready.

use async_trait::async_trait;

use super::MemoryBroker;
use crate::broker::{Backlog, BrokerError};
use crate::core::Timestamp;

#[async_trait]
impl Backlog for MemoryBroker {
    async fn oldest_ready(&self, queue: &str) -> Result<Option<Timestamp>, BrokerError> {
        Ok(self.shared.lock()?.queues.get(queue).and_then(|line| line.ready.oldest()))
    }
}
