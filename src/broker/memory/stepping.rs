//! The broker in memory for tests: it has no consumers, and no thread watches the time. The test takes messages
//! out one by one, and only then it is looked at what is due.

use std::sync::Arc;

use super::{Delivery, Heard, MemoryBroker, MemorySettler, MemoryState, Settler};
use crate::core::Timestamp;
use crate::store::MemoryStore;
use crate::task::clock::now;

impl MemoryBroker {
    /// Makes a broker without a timer. `heard` is told of each message that waits in it, each time that it does.
    pub(crate) fn stepped(store: Arc<MemoryStore>, heard: Heard) -> Self {
        let broker = Self::new(store);
        if let Ok(mut state) = broker.shared.lock() {
            state.timer_runs = true;
            state.heard = Some(heard);
        }
        broker
    }

    /// The message that has been ready for longest, among those that are first in their queue.
    pub(crate) fn take_next(&self) -> Option<Delivery> {
        let mut state = self.shared.lock().ok()?;
        state.give_up_waiting(now());
        state.promote_all();
        state.stirred.clear();
        let heads = state.queues.iter().filter_map(|(name, line)| Some((line.ready.first()?.0.1, name)));
        let (_, queue) = heads.min()?;
        let queue = queue.clone();
        let shared = Arc::downgrade(&self.shared);
        let settler: Arc<dyn Settler> = Arc::new(MemorySettler { shared, queue: queue.clone() });
        let taken = state.queues.get_mut(&queue)?.ready.deliver_first()?;
        state.delivered(&queue, taken, &settler)
    }

    /// When the next scheduled message is due.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        let state = self.shared.lock().ok()?;
        state.queues.values().filter_map(|line| Some(line.scheduled.first_key_value()?.0.0)).min()
    }

    /// When the next run that waits in a lane has waited long enough.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.shared.lock().ok()?.lanes.next_deadline()
    }
}

impl MemoryState {
    /// Moves the messages that have come due into their lines, the earliest first, in all queues.
    fn promote_all(&mut self) {
        let now = now();
        let mut due: Vec<_> = Vec::new();
        for line in self.queues.values_mut() {
            while let Some(first) = line.scheduled.first_entry().filter(|first| first.key().0 <= now) {
                due.push(first.remove_entry());
            }
        }
        due.sort_unstable_by_key(|(appointment, _)| *appointment);
        for (_, message) in due {
            self.enter(message, false);
        }
    }
}
