//! How a queue gets slots: from the pool whose slots it shares with other queues, or, as soon as its tasks name tenants, from a
//! pool of its own, in which its tenants share its workers. A queue that does neither starts by its backlog alone.
//!
//! Invariants:
//! - What is ready in the backlog waits in the pool too, or has a grant there; and what is held in the one is held in the
//!   other. What comes is told with the pump that follows it.
//! - No slot is kept from one pump to the next: each pump begins what was granted, or gives it back.

use std::sync::Arc;
use std::time::Instant;

use actix::{Context, Handler, Message};

use super::super::slot_pool::SlotPermit;
use super::Queue;
use crate::broker::Delivery;
use crate::core::Timestamp;
use crate::core::hold::{Hold, HoldReason};
use crate::runtime::gates::{Bell, GateAdmission};
use crate::task::TaskId;
use crate::task::clock::now;

/// A delivery that may start.
pub(super) struct Released {
    pub(super) tag: u64,
    pub(super) delivery: Delivery,
    /// The counts that the gates have made for it.
    pub(super) admission: GateAdmission,
    /// Its slot, if the queue gets its slots from a pool.
    pub(super) permit: Option<SlotPermit>,
}

impl Queue {
    /// Makes a pool for the queue, in which all waits that is in the backlog.
    pub(super) fn make_own_pool(&mut self) {
        let Some(own) = self.own_address.clone() else { return };
        self.ask_all_again(); // the pool knows of nothing that gates hold already
        self.pool = Some(self.pools.own(&self.row).join(&self.row, own));
        let waiting = self.backlog.waiting();
        self.batch.arrived = waiting.map(|(tag, delivery)| (tag, Arc::clone(delivery.message()))).collect();
    }

    /// Tells the pool what has come and ended, how many workers have no task, and whether the queue may start anything.
    pub(super) fn report_to_pool(&mut self, now: Timestamp) {
        let (free, is_open) = self.readiness();
        if let Some(pool) = &self.pool {
            pool.tell(&mut self.batch, free, is_open, now);
        }
    }

    /// As [`report_to_pool`](Self::report_to_pool), and takes what the pool grants. `false`: nothing.
    fn take_grants(&mut self, now: Timestamp) -> bool {
        let (free, is_open) = self.readiness();
        let Some(pool) = &self.pool else { return false };
        let look = pool.next_tasks(&mut self.batch, free, is_open, now);
        if let Some(look) = look {
            self.wake_at(Instant::now() + look);
        }
        !self.batch.granted.is_empty()
    }

    /// The number of workers that can be given a task, and whether the queue may start anything.
    fn readiness(&self) -> (usize, bool) {
        let room = self.backlog.limit().saturating_sub(self.backlog.running());
        (self.idle.len().min(room), self.may_start())
    }

    /// Whether the queue may start anything: it is not paused, has not stopped itself, and does not shut down.
    pub(super) fn may_start(&self) -> bool {
        !self.backlog.is_paused() && self.halted.is_none() && self.closing.is_none()
    }

    /// As [`release`](Self::release), in the order in which the pool gives its slots away. A gate has the last word: what it holds
    /// is set aside, and the next of its line may start. `bell`: the gates are asked.
    pub(super) fn release_by_pool(&mut self, bell: Option<&Arc<Bell>>, now: Timestamp) -> Option<Released> {
        loop {
            if self.batch.granted.is_empty() && !self.take_grants(now) {
                return None;
            }
            let (tag, permit) = self.batch.granted.pop_front()?;
            let Some(delivery) = self.backlog.get(tag) else { continue }; // it is gone, and its slot is free
            let message = Arc::clone(delivery.message());
            let admitted = match bell {
                Some(bell) => self.ask_gates(bell, &message, now),
                None => Ok(GateAdmission::default()),
            };
            match admitted {
                Ok(admission) => return self.let_go(tag, &message, admission, Some(permit), now),
                Err(hold) => {
                    self.pool.as_ref()?.hold(permit);
                    self.hold(tag, &message, hold, now);
                }
            }
        }
    }

    /// A gate is asked anew about this task.
    pub(super) fn bring_back_in_pool(&self, tag: u64, free_since: Timestamp) {
        if let Some(pool) = &self.pool {
            pool.bring_back(tag, free_since);
        }
    }

    /// The gates are asked anew about all tasks that they hold.
    pub(super) fn bring_all_back_in_pool(&self, free_since: Timestamp) {
        if let Some(pool) = &self.pool {
            pool.bring_all_back(free_since);
        }
    }

    /// The task of this tag was taken out of the backlog.
    pub(super) fn remove_from_pool(&self, tag: u64) {
        if let Some(pool) = &self.pool {
            pool.remove(tag);
        }
    }

    /// All was taken out of the backlog.
    pub(super) fn clear_in_pool(&self) {
        if let Some(pool) = &self.pool {
            pool.clear();
        }
    }

    /// What keeps slots from a task that waits here, although others may have them.
    pub(super) fn slot_hold(&self, id: &TaskId) -> Option<Hold> {
        let pool = self.pool.as_ref()?;
        let tag = self.backlog.find(|delivery| delivery.message().id == *id)?;
        let why = pool.kept_for_others(tag)?;
        Some(Hold { reason: HoldReason::Slots { why }, wait: None })
    }

    /// The slots of the pool that the queue shares with others, if all of them are taken.
    pub(super) fn busy_pool(&self) -> Option<usize> {
        self.pools.of_row(&self.row)?.all_taken()
    }

    /// The queue has another number of workers.
    pub(super) fn resize_in_pool(&self) {
        if let Some(pool) = self.pool.as_ref().filter(|_| self.pools.of_row(&self.row).is_none()) {
            pool.resize(self.row.workers);
        }
    }
}

/// The pool has slots for tasks of this queue.
#[derive(Message)]
#[rtype(result = "()")]
pub(in super::super) struct Granted;

impl Handler<Granted> for Queue {
    type Result = ();

    fn handle(&mut self, _: Granted, _: &mut Context<Self>) {
        self.pump(now());
    }
}
