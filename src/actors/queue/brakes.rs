//! What brakes send away: a delivery that a brake diverts or ends does not wait in the backlog for a free worker. It is
//! looked at when it comes, and when brakes have changed.

use std::sync::Arc;

use parking_lot::Mutex;

use super::Queue;
use crate::broker::Delivery;
use crate::core::Timestamp;
use crate::core::brake::StartHistory;
use crate::task::Message;

/// The starts of the tasks of one queue name.
pub(super) struct StartsOfQueue {
    queue: String,
    starts: Arc<Mutex<StartHistory>>,
}

impl Queue {
    /// Notes a start for whoever asks what a brake would have held in the last hour.
    pub(super) fn note_start(&mut self, message: &Message, now: Timestamp) {
        let known = self.starts.take().filter(|known| known.queue == message.queue);
        let known = known.unwrap_or_else(|| StartsOfQueue {
            queue: message.queue.clone(),
            starts: self.runtime.brakes.starts_of(&message.queue),
        });
        known.starts.lock().started(&message.task, message.tenant(), now);
        self.starts = Some(known);
    }

    /// The delivery, unless a brake sends it away.
    pub(super) fn past_brakes(&mut self, delivery: Delivery) -> Option<Delivery> {
        match self.runtime.sent_away(delivery.message()) {
            None => Some(delivery),
            Some(verdict) => {
                self.end_unstarted(delivery, verdict);
                None
            }
        }
    }

    /// Sends away what a new brake diverts or ends, of all that waits here.
    pub(super) fn sweep_brakes(&mut self) {
        if !self.runtime.brakes.send_away() || self.closing.is_some() {
            return;
        }
        let runtime = &self.runtime;
        let sent_away = self.backlog.waiting().filter_map(|(tag, delivery)| {
            runtime.sent_away(delivery.message()).map(|verdict| (tag, verdict))
        });
        let sent_away: Vec<_> = sent_away.collect();
        for (tag, verdict) in sent_away {
            if let Some(delivery) = self.backlog.remove(tag) {
                self.let_next_come(tag);
                self.remove_from_pool(tag);
                self.end_unstarted(delivery, verdict);
            }
        }
    }
}
