//! The timer of the broker in memory: ETAs, and the end of the patience of runs that wait for a lane. One thread
//! serves all queues.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{MemoryInner, MemoryState};
use crate::task::clock::now;

impl MemoryInner {
    pub(super) fn watch_deadlines(self: &Arc<Self>, state: &mut MemoryState) {
        if std::mem::take(&mut state.lanes.has_new_deadline) {
            self.wake_timer(state);
        }
    }

    /// Wakes the timer thread, which is started with the first ETA.
    pub(super) fn wake_timer(self: &Arc<Self>, state: &mut MemoryState) {
        if !state.timer_runs {
            let shared = Arc::downgrade(self);
            let thread = std::thread::Builder::new().name("celeriac-eta".to_owned());
            state.timer_runs = thread.spawn(move || run_timer(&shared)).is_ok();
        }
        self.timer.notify_one();
    }
}

/// The timer thread: it sleeps until the earliest time of all queues, again and again, and ends with the broker.
fn run_timer(shared: &Weak<MemoryInner>) {
    while let Some(shared) = shared.upgrade() {
        let Ok(mut state) = shared.lock() else { return };
        let now = now();
        state.give_up_waiting(now);
        if let Some(queue) = state.stirred.pop() {
            shared.hand_over(state, queue);
            continue;
        }
        let deadline = state.lanes.next_deadline();
        let agenda = state.queues.iter().filter(|(_, line)| line.consumer.is_some());
        let agenda = agenda.filter_map(|(queue, line)| Some((line.scheduled.first_key_value()?.0.0, queue)));
        match agenda.min() {
            Some((due, queue)) if due <= now => shared.hand_over(state, queue),
            next => {
                let next = next.map(|(due, _)| due).into_iter().chain(deadline).min();
                let wait = next.map_or(Duration::from_secs(3600), |due| due.since(now));
                shared.timer.wait_for(&mut state, wait);
            }
        }
    }
}
