//! What brakes send away: a delivery that a brake diverts or ends does not wait in the backlog for a free worker. It is
//! looked at when it comes, and when brakes have changed.

use super::Queue;
use crate::broker::Delivery;

impl Queue {
    /// The delivery, unless a brake sends it away.
    pub(super) fn past_brakes(&mut self, delivery: Delivery) -> Option<Delivery> {
        match self.runtime.sent_away(delivery.message()) {
            None => Some(delivery),
            Some(verdict) => {
                self.end_unstarted(delivery.tag(), delivery, verdict);
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
                self.end_unstarted(tag, delivery, verdict);
            }
        }
    }
}
