//! The consuming end of a queue in memory.

use std::sync::Weak;

use super::MemoryInner;
use super::queue::QueueIndex;
use crate::broker::Consumer;

pub(super) struct MemoryConsumer {
    pub(super) shared: Weak<MemoryInner>,
    pub(super) queue: QueueIndex,
    pub(super) consumer: u64,
}

impl Consumer for MemoryConsumer {
    fn set_prefetch(&self, prefetch: usize) {
        let Some(shared) = self.shared.upgrade() else { return };
        let Ok(mut state) = shared.lock() else { return };
        let Some(line) = state.queues.get_mut(self.queue) else { return };
        if line.consumer.as_ref().is_none_or(|(epoch, _)| *epoch != self.consumer) {
            return; // another consumer has replaced this one
        }
        line.prefetch = prefetch;
        shared.hand_over(state, self.queue);
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let Ok(mut state) = shared.lock() else { return };
        let line = state.queues.get_mut(self.queue);
        let old = line.and_then(|line| line.consumer.take_if(|(epoch, _)| *epoch == self.consumer));
        drop(state);
        drop(old); // outside of the lock: the sink may own deliveries
    }
}
