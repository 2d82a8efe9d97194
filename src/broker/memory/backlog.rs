//! Finds since when the oldest message of a queue has been ready, and makes those due that were put back.

use std::sync::Arc;

use async_trait::async_trait;

use super::{MemoryBroker, MemorySpot};
use crate::broker::{AgendaPlace, Backlog, BrokerError, Hastened};
use crate::core::Timestamp;
use crate::task::clock::now;

#[async_trait]
impl Backlog for MemoryBroker {
    async fn oldest_ready(&self, queue: &str) -> Result<Option<Timestamp>, BrokerError> {
        Ok(self.shared.lock()?.queues.get(queue).and_then(|line| line.ready.oldest()))
    }

    async fn hasten(&self, queue: &str, from: AgendaPlace, limit: usize) -> Result<Hastened, BrokerError> {
        let mut hastened = Hastened::default();
        let mut state = self.shared.lock()?;
        let now = now();
        let Some(line) = state.queues.get_mut(queue) else { return Ok(hastened) };
        let mut early = Vec::new();
        for (looked, (place, message)) in line.scheduled.range(from..).enumerate() {
            if looked == limit.max(1) {
                hastened.next = Some(*place);
                break;
            }
            early.extend(message.hastened(now).map(|message| (*place, message)));
        }
        hastened.made_due = early.len();
        for (place, _) in &early {
            line.scheduled.remove(place);
        }
        for (_, message) in early {
            state.next_seq += 1;
            let place = (now, state.next_seq);
            state.put(Arc::new(message), MemorySpot::Scheduled(place));
        }
        drop(state);
        self.shared.hand_over(queue);
        Ok(hastened)
    }
}
