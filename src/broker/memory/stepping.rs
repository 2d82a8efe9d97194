//! The broker in memory for tests: it has no consumers, and no thread watches the time. The test takes messages
//! out one by one, and only then it is looked at what is due.

use std::sync::Arc;

use super::{MemoryBroker, MemoryState, MessageObserver};
use crate::broker::Delivery;
use crate::core::Timestamp;
use crate::store::MemoryStore;
use crate::task::clock::now;

impl MemoryBroker {
    /// Makes a broker without a timer. `on_waiting` is told of each message that waits in it, each time that it does.
    pub(crate) fn stepped(store: Arc<MemoryStore>, on_waiting: MessageObserver) -> Self {
        let broker = Self::new(store);
        if let Ok(mut state) = broker.shared.lock() {
            state.timer_runs = true;
            state.on_waiting = Some(on_waiting);
        }
        broker
    }

    /// The message that has been ready for longest, among those that are first in their queue.
    pub(crate) fn take_next(&self) -> Option<Delivery> {
        let mut state = self.shared.lock().ok()?;
        state.give_up_waiting(now());
        state.promote_all();
        state.stirred.clear();
        let heads = state.queues.iter();
        let heads = heads.filter_map(|(queue, line)| Some((line.ready.first()?.0.sequence(), queue)));
        let (_, queue) = heads.min()?;
        let taken = state.queues.get_mut(queue)?.ready.deliver_first()?;
        state.deliver(queue, taken)
    }

    /// When the next scheduled message is due.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        let state = self.shared.lock().ok()?;
        state.queues.iter().filter_map(|(_, line)| Some(line.scheduled.first_key_value()?.0.0)).min()
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
        for (queue, line) in self.queues.iter_mut() {
            while let Some(first) = line.scheduled.first_entry().filter(|first| first.key().0 <= now) {
                let (appointment, at) = first.remove_entry();
                due.push((appointment, queue, at));
            }
        }
        due.sort_unstable_by_key(|(appointment, ..)| *appointment);
        for (_, queue, at) in due {
            if let Some(message) = self.forget(at) {
                self.enter(message, queue, false);
            }
        }
    }
}
