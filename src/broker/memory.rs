//! Messages in this process's memory: fast, and gone with the process.
//!
//! A queue is a line of ready messages and an agenda of scheduled ones, each a sorted map; whoever changes it takes
//! out what the consumer may have, and hands it over when the lock is free. One at a time does so for a queue, so that
//! the consumer sees the order of the line.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::dead_letter::revived;
use super::{
    Broker, BrokerError, Consumer, Counts, DeadLetter, Delivery, LaneFacts, LaneLever, Noted, Place,
    RecordFn, Remains, Removal, Settler, Sink, call_sink,
};
use crate::core::Timestamp;
use crate::store::{MemoryStore, NoteChange, Notes};
use crate::task::clock::now;
use crate::task::{Durability, LaneName, Message, Receipt, TaskId, UniqueKey};
use consumer::MemoryConsumer;
use lanes::Lanes;
use settler::MemorySettler;
use windows::Windows;

mod consumer;
mod lanes;
mod sequel;
mod settler;
#[cfg(feature = "testing")]
mod stepping;
mod timer;
mod windows;

/// How many dead letters are kept; the oldest go first.
const DEAD_LETTERS: usize = 10_000;

/// The broker whose messages live as long as the process.
pub struct MemoryBroker {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Wakes the timer thread when an earlier ETA arrives.
    timer: Condvar,
    store: Arc<MemoryStore>,
    /// Runs of one message that may end with their worker before it is a dead letter.
    delivery_limit: u32,
}

#[derive(Default)]
struct State {
    queues: HashMap<String, Line>,
    ids: HashMap<TaskId, (Arc<Message>, Spot)>,
    dead: VecDeque<DeadLetter>,
    lanes: Lanes,
    windows: Windows,
    /// Queues that got something to deliver by the way.
    stirred: Vec<String>,
    next_seq: u64,
    next_tag: u64,
    next_consumer: u64,
    timer_runs: bool,
    closed: bool,
    /// Hears of each message that waits here.
    heard: Option<Heard>,
}

/// Hears of messages; called under the lock.
type Heard = Arc<dyn Fn(&Arc<Message>) + Send + Sync>;

/// The place of a ready message: by priority, high first, then by arrival.
type Rank = (Reverse<u8>, u64);
/// The place of a scheduled message: by due time, then by arrival.
type Appointment = (Timestamp, u64);

/// Where a message is.
#[derive(Clone, Copy)]
enum Spot {
    Ready(Rank),
    Scheduled(Appointment),
    /// In its lane's line, by ticket.
    InLine(u64),
    Delivered,
}

/// One queue.
#[derive(Default)]
struct Line {
    ready: BTreeMap<Rank, Arc<Message>>,
    scheduled: BTreeMap<Appointment, Arc<Message>>,
    /// How many wait for their lane.
    in_line: u64,
    /// Delivered, by tag, with the rank to go back to.
    unsettled: HashMap<u64, (Rank, Arc<Message>)>,
    prefetch: usize,
    consumer: Option<(u64, Sink)>,
    /// Taken out for the consumer, not handed over yet.
    outbox: Vec<Delivery>,
    /// Somebody is handing over.
    handing_over: bool,
}

impl MemoryBroker {
    /// A broker whose settled tasks leave their records in `store`.
    pub fn new(store: Arc<MemoryStore>) -> Self {
        let state = State { next_tag: 1 << 63, ..State::default() }; // apart from those of an embedded broker
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                timer: Condvar::new(),
                store,
                delivery_limit: super::embedded::DEFAULT_DELIVERY_LIMIT,
            }),
        }
    }

    /// All of these, or none; `beside`: a chord that gets one more member by it.
    fn publish_together(
        &self,
        messages: Vec<Message>,
        sizes: &[(String, u64)],
        beside: Option<&str>,
        unique: bool,
    ) -> Result<(), BrokerError> {
        let mut state = self.shared.lock()?;
        if unique && let Some(taken) = messages.iter().find(|m| self.shared.is_taken(&state, &m.id)) {
            return Err(BrokerError::DuplicateId(taken.id.clone()));
        }
        if let (Some(group), Some(first)) = (beside, messages.first())
            && !self.shared.store.extend(group, &first.id)
        {
            return Err(BrokerError::NoChord(group.to_owned()));
        }
        sizes.iter().for_each(|(group, size)| self.shared.store.open(group, *size));
        let mut queues: Vec<String> = messages.iter().map(|message| message.queue.clone()).collect();
        for message in messages {
            let due = message.eta;
            self.shared.arrive(&mut state, Arc::new(message), due, false);
        }
        drop(state);
        queues.sort_unstable();
        queues.dedup();
        queues.iter().for_each(|queue| self.shared.hand_over(queue));
        Ok(())
    }

    /// Publishes without waiting for anything.
    pub(crate) fn publish_now(&self, message: Message, unique: bool) -> Result<Receipt, BrokerError> {
        let mut state = self.shared.lock()?;
        if unique && self.shared.is_taken(&state, &message.id) {
            return Err(BrokerError::DuplicateId(message.id));
        }
        let receipt = Receipt::new(message.id.clone(), message.queue.clone(), Durability::Memory);
        if let Some(holder) = state.windows.holder(&message) {
            return Ok(receipt.joining(holder));
        }
        let due = message.eta;
        let is_new = !message.is_in_canvas();
        let message = Arc::new(message);
        let joined = self.shared.arrive(&mut state, Arc::clone(&message), due, is_new);
        if joined.is_none() {
            state.windows.hold(&message);
        }
        drop(state);
        self.shared.hand_over(&receipt.queue);
        Ok(match joined {
            Some(id) => receipt.joining(id),
            None => receipt,
        })
    }

    /// Publishes and changes a note, both or neither.
    fn publish_with_note(&self, message: Message, change: &NoteChange) -> Result<Noted, BrokerError> {
        let store = Arc::clone(&self.shared.store);
        let mut notes = store.lock_notes();
        if notes.get(&change.key) != change.expected.as_ref() {
            return Ok(Noted::Outdated);
        }
        let noted = match self.publish_now(message, true) {
            Ok(receipt) => Noted::Taken(receipt),
            Err(BrokerError::DuplicateId(_)) => Noted::Changed,
            Err(error) => return Err(error),
        };
        NoteChange::apply_all(std::slice::from_ref(change), None, &mut notes);
        Ok(noted)
    }

    /// Whether a task of this id waits, runs or has its result kept.
    pub(crate) fn knows(&self, id: &TaskId) -> Result<bool, BrokerError> {
        let state = self.shared.lock()?;
        Ok(self.shared.is_taken(&state, id))
    }

    fn shut(&self, state: &mut State) -> HashMap<String, Line> {
        state.closed = true;
        self.shared.timer.notify_all();
        std::mem::take(&mut state.queues)
    }
}

impl Drop for MemoryBroker {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let queues = self.shut(&mut state);
        drop(state);
        drop(queues); // outside of the lock: sinks may own deliveries
    }
}

impl Shared {
    fn lock(&self) -> Result<MutexGuard<'_, State>, BrokerError> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.closed { Err(BrokerError::Closed) } else { Ok(state) }
    }

    fn is_taken(&self, state: &State, id: &TaskId) -> bool {
        state.ids.contains_key(id) || self.store.keeps(id, now())
    }

    /// A message comes in; if it is `new`, its lane's policy applies to it. Says whom it joins, if it is left out.
    fn arrive(
        self: &Arc<Self>,
        state: &mut State,
        message: Arc<Message>,
        due: Option<Timestamp>,
        new: bool,
    ) -> Option<TaskId> {
        let Some(due) = due.filter(|due| *due > now()) else {
            let joined = state.enter(message, new);
            self.watch_deadlines(state);
            return joined;
        };
        state.next_seq += 1;
        let spot = Spot::Scheduled((due, state.next_seq));
        state.put(message, spot);
        self.wake_timer(state);
        None
    }

    /// Gives the consumer of a queue what it may have, and those of the queues that were stirred. Call it after each
    /// change, without the lock.
    fn hand_over(self: &Arc<Self>, name: &str) {
        self.hand_over_in(name);
        while let Ok(mut state) = self.lock()
            && let Some(name) = state.stirred.pop()
        {
            drop(state);
            self.hand_over_in(&name);
        }
    }

    fn hand_over_in(self: &Arc<Self>, name: &str) {
        loop {
            let Ok(mut state) = self.lock() else { return };
            state.release(self, name);
            self.watch_deadlines(&mut state);
            let Some(line) = state.queues.get_mut(name) else { return };
            if line.handing_over || line.outbox.is_empty() {
                return; // whoever does it looks again
            }
            let deliveries = std::mem::take(&mut line.outbox);
            let Some((consumer, sink)) = line.consumer.clone() else {
                drop(state);
                drop(deliveries); // the consumer is gone: they go back
                continue;
            };
            line.handing_over = true;
            drop(state);
            let taken = call_sink(&sink, deliveries);
            let Ok(mut state) = self.lock() else { return };
            let Some(line) = state.queues.get_mut(name) else { return };
            line.handing_over = false;
            if !taken {
                line.consumer.take_if(|(epoch, _)| *epoch == consumer);
            }
        }
    }
}

impl State {
    fn line(&mut self, name: &str) -> &mut Line {
        if !self.queues.contains_key(name) {
            self.queues.insert(name.to_owned(), Line::default());
        }
        self.queues.entry(name.to_owned()).or_default()
    }

    /// Puts a message to where it waits.
    fn put(&mut self, message: Arc<Message>, spot: Spot) {
        if let Some(heard) = &self.heard {
            heard(&message);
        }
        self.ids.insert(message.id.clone(), (Arc::clone(&message), spot));
        let line = self.line(&message.queue);
        match spot {
            Spot::Ready(rank) => drop(line.ready.insert(rank, message)),
            Spot::Scheduled(appointment) => drop(line.scheduled.insert(appointment, message)),
            Spot::InLine(_) => line.in_line += 1,
            Spot::Delivered => {}
        }
    }

    /// Moves what has come due into the line, then takes out what the consumer may have.
    fn release(&mut self, shared: &Arc<Shared>, name: &str) {
        let now = now();
        let Some(line) = self.queues.get_mut(name) else { return };
        if line.consumer.is_none() {
            return;
        }
        let mut due = Vec::new();
        while let Some(first) = line.scheduled.first_entry().filter(|e| e.key().0 <= now) {
            due.push(first.remove());
        }
        for message in due {
            self.enter(message, false);
        }
        let Some(line) = self.queues.get_mut(name) else { return };
        if line.ready.is_empty() || line.unsettled.len() >= line.prefetch {
            return;
        }
        let settler: Arc<dyn Settler> =
            Arc::new(MemorySettler { shared: Arc::downgrade(shared), queue: name.to_owned() });
        while self.queues.get(name).is_some_and(|line| line.unsettled.len() < line.prefetch)
            && let Some(delivery) = self.deliver_first(name, &settler)
        {
            self.line(name).outbox.push(delivery);
        }
    }

    /// Hands out the first of the ready messages of a queue.
    fn deliver_first(&mut self, queue: &str, settler: &Arc<dyn Settler>) -> Option<Delivery> {
        let line = self.queues.get_mut(queue)?;
        let (rank, message) = line.ready.pop_first()?;
        self.next_tag += 1;
        if let Some((_, spot)) = self.ids.get_mut(&message.id) {
            *spot = Spot::Delivered;
        }
        line.unsettled.insert(self.next_tag, (rank, Arc::clone(&message)));
        let is_serial = message.serial.is_some();
        let delivery = Delivery::new(self.next_tag, message, Arc::clone(settler));
        Some(if is_serial { delivery.fenced(self.next_tag) } else { delivery })
    }

    fn bury(&mut self, message: &Message, reason: String) {
        tracing::warn!(id = %message.id, task = %message.task, queue = %message.queue, %reason, "dead letter");
        if self.dead.len() >= DEAD_LETTERS {
            self.dead.pop_front();
        }
        self.dead.push_back(DeadLetter { message: message.clone(), reason, died_at: now() });
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn settles_results(&self) -> bool {
        true
    }

    fn keeps_lanes(&self) -> bool {
        true
    }

    async fn lane(&self, name: &LaneName) -> Result<Option<LaneFacts>, BrokerError> {
        Ok(self.shared.lock()?.lanes.facts(name))
    }

    async fn lanes(&self, limit: usize) -> Result<Vec<LaneFacts>, BrokerError> {
        Ok(self.shared.lock()?.lanes.all(limit))
    }

    async fn steer_lane(&self, name: &LaneName, lever: LaneLever) -> Result<bool, BrokerError> {
        let moved = self.shared.lock()?.steer_lane(name, lever);
        self.shared.hand_over("");
        Ok(moved)
    }

    fn keeps_windows(&self) -> bool {
        true
    }

    async fn holder(&self, key: &UniqueKey) -> Result<Option<TaskId>, BrokerError> {
        Ok(self.shared.lock()?.windows.holder_of(key))
    }

    fn let_go(&self, message: &Message) {
        if let Ok(mut state) = self.shared.lock() {
            state.windows.let_go(message);
        }
    }

    fn delivery_limit(&self) -> Option<u32> {
        Some(self.shared.delivery_limit)
    }

    async fn declare(&self, queue: &str) -> Result<(), BrokerError> {
        self.shared.lock()?.line(queue);
        Ok(())
    }

    async fn queues(&self) -> Result<Vec<String>, BrokerError> {
        Ok(self.shared.lock()?.queues.keys().cloned().collect())
    }

    async fn publish(&self, message: Message, unique: bool) -> Result<Receipt, BrokerError> {
        self.publish_now(message, unique)
    }

    fn notes(&self) -> Option<&dyn Notes> {
        Some(&*self.shared.store)
    }

    async fn publish_noted(&self, message: Message, change: NoteChange) -> Result<Noted, BrokerError> {
        self.publish_with_note(message, &change)
    }

    async fn publish_all(
        &self,
        messages: Vec<Message>,
        sizes: Vec<(String, u64)>,
        unique: bool,
    ) -> Result<(), BrokerError> {
        self.publish_together(messages, &sizes, None, unique)
    }

    async fn publish_beside(
        &self,
        messages: Vec<Message>,
        sizes: Vec<(String, u64)>,
        group: &str,
    ) -> Result<(), BrokerError> {
        self.publish_together(messages, &sizes, Some(group), true)
    }

    fn consume(&self, queue: &str, prefetch: usize, sink: Sink) -> Result<Box<dyn Consumer>, BrokerError> {
        let mut state = self.shared.lock()?;
        state.next_consumer += 1;
        let consumer = state.next_consumer;
        let line = state.line(queue);
        let old = line.consumer.replace((consumer, sink));
        line.prefetch = prefetch;
        if !line.scheduled.is_empty() {
            self.shared.wake_timer(&mut state);
        }
        drop(state);
        drop(old);
        self.shared.hand_over(queue);
        let shared = Arc::downgrade(&self.shared);
        Ok(Box::new(MemoryConsumer { shared, queue: queue.to_owned(), consumer }))
    }

    async fn counts(&self, queue: &str) -> Result<Counts, BrokerError> {
        let state = self.shared.lock()?;
        let dead = state.dead.iter().filter(|d| d.message.queue == queue).count() as u64;
        let Some(line) = state.queues.get(queue) else { return Ok(Counts { dead, ..Counts::default() }) };
        Ok(Counts {
            ready: line.ready.len() as u64,
            scheduled: line.scheduled.len() as u64,
            unsettled: line.unsettled.len() as u64,
            dead,
            in_line: line.in_line,
        })
    }

    async fn ahead(&self, id: &TaskId, limit: usize) -> Result<Option<usize>, BrokerError> {
        let state = self.shared.lock()?;
        let Some((message, Spot::Ready(rank))) = state.ids.get(id) else { return Ok(None) };
        let Some(line) = state.queues.get(&message.queue) else { return Ok(None) };
        Ok(Some((line.unsettled.len() + line.ready.range(..rank).take(limit).count()).min(limit)))
    }

    async fn find(&self, id: &TaskId) -> Result<Option<Place>, BrokerError> {
        let state = self.shared.lock()?;
        Ok(state.ids.get(id).map(|(message, spot)| match spot {
            Spot::Delivered => Place::Delivered { queue: message.queue.clone() },
            Spot::Ready(_) | Spot::Scheduled(_) | Spot::InLine(_) => {
                Place::Waiting(Box::new(Message::clone(message)))
            }
        }))
    }

    async fn remove(&self, id: &TaskId, record: RecordFn) -> Result<Removal, BrokerError> {
        let mut state = self.shared.lock()?;
        let Some((message, spot)) = state.ids.get(id).cloned() else { return Ok(Removal::Unknown) };
        let line = state.line(&message.queue);
        match spot {
            Spot::Delivered => return Ok(Removal::Delivered { queue: message.queue.clone() }),
            Spot::Ready(rank) => drop(line.ready.remove(&rank)),
            Spot::Scheduled(appointment) => drop(line.scheduled.remove(&appointment)),
            Spot::InLine(ticket) => state.leave_line(&message, ticket),
        }
        state.ids.remove(id);
        state.leave_lane(&message, None);
        state.windows.let_go(&message);
        let Remains { record, sequel } = record(&message);
        if let Some(record) = record {
            self.shared.store.insert(record);
        }
        let queues = self.shared.follow(&mut state, sequel.map(|sequel| *sequel));
        drop(state);
        self.shared.hand_over(&message.queue);
        queues.iter().for_each(|queue| self.shared.hand_over(queue));
        Ok(Removal::Removed)
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        Ok(self.shared.lock()?.dead.iter().take(limit).cloned().collect())
    }

    async fn revive(&self, id: &TaskId) -> Result<bool, BrokerError> {
        let mut state = self.shared.lock()?;
        let Some(at) = state.dead.iter().position(|d| d.message.id == *id) else { return Ok(false) };
        let Some(letter) = state.dead.remove(at) else { return Ok(false) };
        let message = revived(letter.message, now());
        let queue = message.queue.clone();
        self.shared.store.remove(id);
        self.shared.arrive(&mut state, Arc::new(message), None, false);
        drop(state);
        self.shared.hand_over(&queue);
        Ok(true)
    }

    async fn close(&self) -> Result<(), BrokerError> {
        let queues = {
            let mut state = self.shared.lock()?;
            self.shut(&mut state)
        };
        drop(queues); // outside of the lock: sinks may own deliveries
        Ok(())
    }
}
