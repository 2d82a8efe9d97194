//! The consuming end of a queue in memory.

use std::sync::Weak;

use super::MemoryInner;
use crate::broker::Consumer;

pub(super) struct MemoryConsumer {
    pub(super) shared: Weak<MemoryInner>,
    pub(super) queue: String,
    pub(super) consumer: u64,
}

impl Consumer for MemoryConsumer {
    fn set_prefetch(&self, prefetch: usize) {
        let Some(shared) = self.shared.upgrade() else { return };
        let Ok(mut state) = shared.lock() else { return };
        let line = state.line(&self.queue);
        if line.consumer.as_ref().is_none_or(|(epoch, _)| *epoch != self.consumer) {
            return; // another consumer has replaced this one
        }
        line.prefetch = prefetch;
        drop(state);
        shared.hand_over(&self.queue);
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let Ok(mut state) = shared.lock() else { return };
        let old = state.line(&self.queue).consumer.take_if(|(epoch, _)| *epoch == self.consumer);
        drop(state);
        drop(old); // outside of the lock: the sink may own deliveries
    }
}
