//! When the tasks that wait in this queue will start: what the queue sees of its arrivals, starts and ends goes into
//! [`core::forecast`](crate::core::forecast).
//!
//! Now and then an arrival is sampled: the queue notes when it forecasts its start, and so learns how good its forecasts
//! are. A sample costs up to a thousandth of a second, so there is one a second at most; who starts at once is never one. A queue
//! that gets its slots from a pool asks for the [turn](super::turns) of the task instead.

use std::sync::Arc;

use super::Queue;
use crate::core::Timestamp;
use crate::core::forecast::{LineView, StartForecast};

impl Queue {
    /// A delivery has come into the backlog.
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

    /// When a task starts that has so many before it, in a queue without a pool.
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
