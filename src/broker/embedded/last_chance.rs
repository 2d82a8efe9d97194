//! Finds out which task is to blame when the process dies.
//!
//! Nobody knows which task caused a crash, so a crash is counted for every task that ran. Without this module, a task
//! that takes its process down each time would take the tasks beside it into the dead letters. Some tasks are on their
//! last chance: one more crash would end them. The broker delivers only one of them at a time, so the crash that ends a
//! task is the task's own. The other tasks on their last chance wait. A task that never crashed, or that has crashes
//! left, does not wait.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::engine::Engine;
use super::ready_key::ReadyKey;
use crate::broker::Delivery;
use crate::task::Message;

/// The delivery of the one task on its last chance, and the rows that wait for the end of it.
#[derive(Default)]
pub(super) struct LastChance {
    out: Option<u64>,
    waiting: BTreeSet<(usize, ReadyKey)>,
}

impl Engine {
    /// Makes a delivery of a row whose task has crashed before. Returns `None` if the row has to wait for its last
    /// chance.
    pub(super) fn hand_out_in_turn(
        &mut self,
        queue: usize,
        key: ReadyKey,
        message: Arc<Message>,
    ) -> Option<Delivery> {
        let is_last = message.crashes.saturating_add(1) >= self.options.delivery_limit;
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

    /// Notes that the delivery of a task that had crashed before has ended. If it was the task on its last chance, the
    /// rows that waited for it may be delivered.
    pub(super) fn last_chance_over(&mut self, tag: u64) {
        if self.last_chance.out != Some(tag) {
            return;
        }
        self.last_chance.out = None;
        for (queue, key) in std::mem::take(&mut self.last_chance.waiting) {
            self.cursors[queue].waits(&key);
        }
    }
}
