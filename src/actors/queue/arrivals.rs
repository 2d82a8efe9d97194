//! What a queue tells, counts and forecasts when a delivery comes: the account of its task, and when the tasks that wait will
//! start. What the queue sees of its arrivals, starts and ends goes into [`core::forecast`](crate::core::forecast).
//!
//! Now and then an arrival is sampled: the queue notes when it forecasts its start, and so learns how good its forecasts
//! are. A sample costs up to a thousandth of a second, so there is one a second at most; who starts at once is never one. A queue
//! that gets its slots from a pool asks for the [turn](super::turns) of the task instead.

use std::sync::Arc;

use super::Queue;
use crate::broker::Delivery;
use crate::core::Timestamp;
use crate::core::accounts::TaskPlace;
use crate::core::forecast::{LineView, StartForecast};
use crate::task::EventGroup;

impl Queue {
    /// Finds the account of a task of this program. `None`: the program has no such task.
    pub(super) fn own_account(&mut self, task: &str) -> Option<TaskPlace> {
        let accounts = &mut self.stats.accounts;
        accounts.find(task).or_else(|| {
            self.runtime.dispatcher.registry.get(task)?;
            Some(accounts.place(task))
        })
    }

    /// Tells and counts that a task has come. As in Celery, what is not going to run is not received.
    pub(super) fn note_received(&mut self, delivery: &Delivery, now: Timestamp) {
        if self.runtime.events.is_heard(EventGroup::Run) {
            self.runtime.tell_received(delivery);
        }
        let message = delivery.message();
        let will_run = message.expires.is_none_or(|at| at > now);
        if will_run && let Some(account) = self.own_account(&message.task) {
            self.stats.received(account, message, now);
        }
    }

    /// Notes that a delivery has come into the backlog, and samples when it is forecast to start.
    pub(super) fn note_arrival(&mut self, tag: u64, priority: u8, now: Timestamp) {
        self.stats.forecasts.arrived(priority, now);
        let starts_at_once = self.backlog.ready() <= self.idle.len();
        // In a pool a worker may be free, and a slot not.
        let starts_at_once = starts_at_once && (self.pool.is_none() || self.busy_pool().is_none());
        if starts_at_once || !self.may_start() || !self.stats.forecasts.wants_sample(now) {
            return;
        }
        let (Some(delivery), Some(ahead)) = (self.backlog.get(tag), self.backlog.ahead_of(tag)) else {
            return;
        };
        // What a gate holds starts when the gate opens, and nobody forecasts that.
        if !self.runtime.look(delivery.message()).is_empty() {
            return;
        }
        if self.pool.is_some() {
            let message = Arc::clone(delivery.message());
            return self.sample_turn(tag, &message, now);
        }
        let line = self.line(ahead as u64, priority);
        let runs = self.runs.values();
        let runs = runs.map(|run| (run.account.index(), now.since(run.started_at)));
        self.stats.forecasts.sample(tag, line, runs, now);
    }

    /// Forecasts when a task starts that has this many before it, in a queue without a pool.
    pub(super) fn forecast(&mut self, ahead: u64, priority: u8, now: Timestamp) -> StartForecast {
        let line = self.line(ahead, priority);
        let runs = self.runs.values();
        let runs = runs.map(|run| (run.account.index(), now.since(run.started_at)));
        self.stats.forecasts.forecast(line, runs, now)
    }

    fn line(&self, ahead: u64, priority: u8) -> LineView {
        LineView { slots: self.row.workers, busy: self.runs.len(), ahead, priority }
    }
}
