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
        let state = self.shared.lock()?;
        Ok(state.queues.named(queue).and_then(|line| line.ready.oldest(&state.entries)))
    }

    async fn hasten(&self, queue: &str, from: AgendaPlace, limit: usize) -> Result<Hastened, BrokerError> {
        let mut hastened = Hastened::default();
        let mut state = self.shared.lock()?;
        let now = now();
        let Some(queue) = state.queues.index_of(queue) else { return Ok(hastened) };
        let Some(line) = state.queues.get(queue) else { return Ok(hastened) };
        let mut early = Vec::new();
        for (looked, (place, at)) in line.scheduled.range(from..).enumerate() {
            if looked == limit.max(1) {
                hastened.next = Some(*place);
                break;
            }
            let message = state.entries.get(*at).and_then(|entry| entry.message.hastened(now));
            early.extend(message.map(|message| (*at, message)));
        }
        hastened.made_due = early.len();
        for (at, message) in early {
            state.withdraw(at);
            state.next_seq += 1;
            let place = (now, state.next_seq);
            state.put(Arc::new(message), queue, MemorySpot::Scheduled(place));
        }
        self.shared.hand_over(state, queue);
        Ok(hastened)
    }
}
