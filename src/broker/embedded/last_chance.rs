//! Who is to blame when the process dies.
//!
//! A crash is counted for everything that ran, for nobody knows which task caused it. One that takes its process down
//! each time would so take its neighbours along into the dead letters, as they start beside it each time. Therefore,
//! of the tasks that one more crash would end, only one is out at a time: the crash that ends a task is its own. The
//! rest wait; a task that never crashed, or has crashes left, is not held up.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::engine::Engine;
use super::rows::ReadyKey;
use crate::broker::Delivery;
use crate::task::Message;

/// The one that is out, and those that wait for its end.
#[derive(Default)]
pub(super) struct LastChance {
    out: Option<u64>,
    waiting: BTreeSet<(usize, ReadyKey)>,
}

impl Engine {
    /// Makes a delivery of a row, unless it has to wait for its last chance.
    pub(super) fn hand_out_in_turn(
        &mut self,
        queue: usize,
        key: ReadyKey,
        message: Arc<Message>,
    ) -> Option<Delivery> {
        let is_last = message.crashes > 0 && message.crashes + 1 >= self.options.delivery_limit;
        if is_last && self.last_chance.out.is_some() {
            self.last_chance.waiting.insert((queue, key));
            return None;
        }
        let delivery = self.hand_out(queue, key, message);
        if is_last {
            tracing::warn!(id = %delivery.message().id, task = %delivery.message().task, "the last chance of a task that crashed; of such tasks one runs at a time");
            self.last_chance.out = Some(delivery.tag());
        }
        Some(delivery)
    }

    /// A delivery has ended: if it was the one, the next may go when this end is on disk.
    pub(super) fn last_chance_over(&mut self, tag: u64) {
        if self.last_chance.out != Some(tag) {
            return;
        }
        self.last_chance.out = None;
        for (queue, key) in std::mem::take(&mut self.last_chance.waiting) {
            self.windows[queue].waits(&key);
        }
    }
}
