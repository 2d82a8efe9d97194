//! The timer of the broker in memory: ETAs, and the end of the patience of runs that wait for a lane. One thread
//! serves all queues, by an agenda, so that it need not search them.
//!
//! Invariant: the agenda has each queue that has a consumer and scheduled messages, at the time of the first of them or
//! earlier. What it has too early, the timer puts right when it comes to it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::queue::{MemoryQueue, QueueIndex};
use super::{MemoryInner, MemoryState};
use crate::core::Timestamp;
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

impl MemoryState {
    /// Notes in the agenda when the first scheduled message of a queue is due. It is called when a message is
    /// scheduled, and when a consumer comes.
    pub(super) fn note_agenda(&mut self, queue: QueueIndex) {
        let Some(line) = self.queues.get_mut(queue) else { return };
        let Some(due) = line.first_due().filter(|due| line.noted.is_none_or(|noted| *due < noted)) else {
            return;
        };
        if let Some(noted) = line.noted.replace(due) {
            self.agenda.remove(&(noted, queue));
        }
        self.agenda.insert((due, queue));
    }

    /// Of the queues that have consumers, the one whose scheduled messages are due first, with that time.
    fn next_appointment(&mut self) -> Option<(Timestamp, QueueIndex)> {
        while let Some((noted, queue)) = self.agenda.first().copied() {
            if self.queues.get(queue).and_then(MemoryQueue::first_due) == Some(noted) {
                return Some((noted, queue));
            }
            // That message is gone, or the consumer is.
            self.agenda.pop_first();
            if let Some(line) = self.queues.get_mut(queue) {
                line.noted = None;
            }
            self.note_agenda(queue);
        }
        None
    }
}

/// The timer thread: it sleeps until the earliest time of all queues, again and again, and ends with the broker.
fn run_timer(shared: &Weak<MemoryInner>) {
    while let Some(shared) = shared.upgrade() {
        let Ok(mut state) = shared.lock() else { return };
        let now = now();
        state.give_up_waiting(now);
        if let Some(queue) = state.stirred.pop_first() {
            shared.hand_over(state, queue);
            continue;
        }
        let deadline = state.lanes.next_deadline();
        match state.next_appointment() {
            Some((due, queue)) if due <= now => shared.hand_over(state, queue),
            next => {
                let next = next.map(|(due, _)| due).into_iter().chain(deadline).min();
                let wait = next.map_or(Duration::from_secs(3600), |due| due.since(now));
                shared.timer.wait_for(&mut state, wait);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::broker::Broker;
    use crate::broker::memory::{MemoryBroker, MemorySpot};
    use crate::store::MemoryStore;
    use crate::task::{Context, Message};

    const QUEUES: usize = 4;

    #[derive(Clone, Debug)]
    enum TimerEvent {
        Schedule(usize, u64),
        /// The first scheduled message of a queue goes.
        Go(usize),
        Consume(usize),
        Leave(usize),
    }

    fn event() -> impl Strategy<Value = TimerEvent> {
        prop_oneof![
            5 => (0..QUEUES, 0_u64..50).prop_map(|(queue, due)| TimerEvent::Schedule(queue, due)),
            3 => (0..QUEUES).prop_map(TimerEvent::Go),
            2 => (0..QUEUES).prop_map(TimerEvent::Consume),
            2 => (0..QUEUES).prop_map(TimerEvent::Leave),
        ]
    }

    /// When something is due first, as a search through all queues finds it.
    fn searched(state: &MemoryState) -> Option<Timestamp> {
        let consumed = state.queues.iter().filter(|(_, line)| line.consumer.is_some());
        consumed.filter_map(|(_, line)| Some(line.scheduled.first_key_value()?.0.0)).min()
    }

    proptest! {
        #[test]
        fn the_agenda_finds_what_a_search_through_all_queues_finds(
            events in prop::collection::vec(event(), 1..100),
        ) {
            let broker = MemoryBroker::new(Arc::new(MemoryStore::default()));
            broker.shared.state.lock().timer_runs = true; // no thread: nothing is due for years
            let later = now() + Duration::from_secs(1_000_000_000);
            let mut consumers: Vec<Option<_>> = (0..QUEUES).map(|_| None).collect();
            for (seq, event) in (0..).zip(events) {
                match event {
                    TimerEvent::Schedule(queue, due) => {
                        let mut state = broker.shared.state.lock();
                        let queue = state.queue(&queue.to_string());
                        let id = seq.to_string().as_str().into();
                        let message = Message { id, ..Context::detached().message().clone() };
                        let place = (later + Duration::from_secs(due), seq);
                        state.put(Arc::new(message), queue, MemorySpot::Scheduled(place));
                    }
                    TimerEvent::Go(queue) => {
                        let mut state = broker.shared.state.lock();
                        let queue = state.queue(&queue.to_string());
                        let line = state.queues.get(queue).expect("it is there");
                        if let Some(at) = line.scheduled.first_key_value().map(|(_, at)| *at) {
                            prop_assert!(state.withdraw(at).is_some());
                        }
                    }
                    TimerEvent::Consume(queue) => {
                        let consumer = broker.consume(&queue.to_string(), 1, Arc::new(|_| {}));
                        consumers[queue] = Some(consumer.expect("it is open"));
                    }
                    TimerEvent::Leave(queue) => consumers[queue] = None,
                }
                let mut state = broker.shared.state.lock();
                let expected = searched(&state);
                let found = state.next_appointment();
                prop_assert_eq!(found.map(|(due, _)| due), expected);
                prop_assert!(state.agenda.len() <= QUEUES);
            }
        }
    }
}
