//! Keeps messages in this process's memory: fast, and gone with the process.
//!
//! A queue has a line of ready messages for each tenant, and an agenda of scheduled ones; each is a sorted map. Whoever
//! changes the queue takes out what the consumer may have, and hands it over when the lock is free. Only one thread at a
//! time does so for a queue, so that the consumer gets the messages in the order of the lines.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::dead_letter::requeued;
use super::{
    Backlog, Broker, BrokerError, BrokerFacts, BrokerNotes, BulkChanges, CasOutcome, Condition, Consumer,
    DeadLetter, DeadLetterQueue, Delivery, Events, FailedTasks, Inspect, Publishing, QueueCounts, Results,
    Settler, Sink, TenantBacklog, UniqueWindows, call_sink,
};
use crate::core::Timestamp;
use crate::store::{CompareAndSet, MemoryStore};
use crate::task::clock::now;
use crate::task::{Durability, Message, Receipt, TaskId};
use argument_index::MemoryArgumentIndex;
use bulk::KeptChanges;
use consumer::MemoryConsumer;
use failed::MemoryFailed;
use lanes::MemoryLanes;
use ready_lines::ReadyLines;
use settler::MemorySettler;
use unique_windows::MemoryUniqueWindows;

mod abilities;
mod argument_index;
mod backlog;
mod bulk;
mod consumer;
mod failed;
mod follow_ups;
mod lanes;
mod ready_lines;
mod settler;
#[cfg(feature = "testing")]
mod stepping;
mod timer;
mod unique_windows;

/// The most dead letters that are kept; the oldest are dropped first.
const DEAD_LETTERS: usize = 10_000;

/// The broker whose messages live as long as the process.
pub struct MemoryBroker {
    shared: Arc<MemoryInner>,
}

struct MemoryInner {
    state: Mutex<MemoryState>,
    /// Wakes the timer thread when an earlier ETA arrives.
    timer: Condvar,
    store: Arc<MemoryStore>,
    /// The number of runs of one message that may end with their worker; at that number it is a dead letter.
    delivery_limit: u32,
}

#[derive(Default)]
struct MemoryState {
    queues: HashMap<String, MemoryQueue>,
    ids: HashMap<TaskId, (Arc<Message>, MemorySpot)>,
    arguments: MemoryArgumentIndex,
    dead: VecDeque<DeadLetter>,
    failed: MemoryFailed,
    lanes: MemoryLanes,
    windows: MemoryUniqueWindows,
    kept: KeptChanges,
    /// The queues that got something to deliver while another queue was changed.
    stirred: Vec<String>,
    next_seq: u64,
    next_tag: u64,
    next_consumer: u64,
    timer_runs: bool,
    closed: bool,
    /// Is told of each message that waits here; tests set it.
    heard: Option<Heard>,
}

/// A function that is told of messages. It is called while the lock is held.
type Heard = Arc<dyn Fn(&Arc<Message>) + Send + Sync>;

/// The place of a ready message: by priority, high first, and then by arrival.
type Rank = (Reverse<u8>, u64);
/// The place of a scheduled message: by due time, and then by arrival.
type Appointment = (Timestamp, u64);

/// The place of a message.
#[derive(Clone, Copy)]
enum MemorySpot {
    Ready(Rank),
    Scheduled(Appointment),
    /// The message is in its lane's line, under this ticket.
    InLine(u64),
    Delivered,
}

/// The messages of one queue.
#[derive(Default)]
struct MemoryQueue {
    ready: ReadyLines,
    scheduled: BTreeMap<Appointment, Arc<Message>>,
    /// The number of messages that wait for their lane.
    in_line: u64,
    /// The delivered messages by tag, each with the rank to which it goes back.
    unsettled: HashMap<u64, (Rank, Arc<Message>)>,
    prefetch: usize,
    consumer: Option<(u64, Sink)>,
    /// The deliveries that were taken out for the consumer and are not handed over yet.
    outbox: Vec<Delivery>,
    /// Whether a thread is handing deliveries over.
    handing_over: bool,
}

impl MemoryBroker {
    /// Makes a broker whose settled tasks leave their records in `store`.
    pub fn new(store: Arc<MemoryStore>) -> Self {
        let state = MemoryState { next_tag: 1 << 63, ..MemoryState::default() }; // apart from the tags of an embedded broker
        Self {
            shared: Arc::new(MemoryInner {
                state: Mutex::new(state),
                timer: Condvar::new(),
                store,
                delivery_limit: super::embedded::DEFAULT_DELIVERY_LIMIT,
            }),
        }
    }

    /// Takes all of these messages or none. `beside`: the group of a chord that gets one more member.
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

    /// Puts one dead letter back.
    fn revive_one(&self, id: &TaskId) -> Result<bool, BrokerError> {
        let mut state = self.shared.lock()?;
        let Some(at) = state.dead.iter().position(|d| d.message.id == *id) else { return Ok(false) };
        let Some(letter) = state.dead.remove(at) else { return Ok(false) };
        let message = requeued(letter.message, now());
        let queue = message.queue.clone();
        self.shared.store.remove(id);
        self.shared.arrive(&mut state, Arc::new(message), None, false);
        drop(state);
        self.shared.hand_over(&queue);
        Ok(true)
    }

    /// Publishes a message, without anything to wait for.
    pub(crate) fn publish_now(&self, message: Arc<Message>, unique: bool) -> Result<Receipt, BrokerError> {
        let mut state = self.shared.lock()?;
        if unique && self.shared.is_taken(&state, &message.id) {
            return Err(BrokerError::DuplicateId(message.id.clone()));
        }
        let receipt = Receipt::new(message.id.clone(), message.queue.clone(), Durability::Memory);
        if let Some(holder) = state.windows.holder(&message) {
            return Ok(receipt.joining(holder));
        }
        let due = message.eta;
        let is_new = !message.is_in_canvas();
        let joined = self.shared.arrive(&mut state, Arc::clone(&message), due, is_new);
        if joined.is_none() {
            state.windows.acquire(&message);
        }
        drop(state);
        self.shared.hand_over(&receipt.queue);
        Ok(match joined {
            Some(id) => receipt.joining(id),
            None => receipt,
        })
    }

    /// Publishes a message and changes a note, both or neither.
    fn publish_with_note(&self, message: Message, change: &CompareAndSet) -> Result<CasOutcome, BrokerError> {
        let store = Arc::clone(&self.shared.store);
        let mut notes = store.lock_notes();
        if notes.get(&change.key) != change.expected.as_ref() {
            return Ok(CasOutcome::Outdated);
        }
        let noted = match self.publish_now(Arc::new(message), true) {
            Ok(receipt) => CasOutcome::Taken(receipt),
            Err(BrokerError::DuplicateId(_)) => CasOutcome::Changed,
            Err(error) => return Err(error),
        };
        CompareAndSet::apply_all(std::slice::from_ref(change), None, &mut notes);
        Ok(noted)
    }

    /// Whether a task of this id waits, runs or has its result kept.
    pub(crate) fn knows(&self, id: &TaskId) -> Result<bool, BrokerError> {
        let state = self.shared.lock()?;
        Ok(self.shared.is_taken(&state, id))
    }

    fn shut(&self, state: &mut MemoryState) -> HashMap<String, MemoryQueue> {
        state.closed = true;
        self.shared.timer.notify_all();
        std::mem::take(&mut state.queues)
    }
}

impl Drop for MemoryBroker {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        let queues = self.shut(&mut state);
        drop(state);
        drop(queues); // outside of the lock: sinks may own deliveries
    }
}

impl MemoryInner {
    fn lock(&self) -> Result<MutexGuard<'_, MemoryState>, BrokerError> {
        let state = self.state.lock();
        if state.closed { Err(BrokerError::Closed) } else { Ok(state) }
    }

    fn is_taken(&self, state: &MemoryState, id: &TaskId) -> bool {
        state.ids.contains_key(id) || self.store.keeps(id, now())
    }

    /// Takes a message in. If it is `new`, its task's policy for a busy lane applies. Answers with the task that
    /// it joins, if it is left out.
    fn arrive(
        self: &Arc<Self>,
        state: &mut MemoryState,
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
        let spot = MemorySpot::Scheduled((due, state.next_seq));
        state.put(message, spot);
        self.wake_timer(state);
        None
    }

    /// Gives the consumer of a queue what it may have, and the consumers of the queues that were stirred. It is
    /// called after each change, without the lock.
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
                return; // the thread that hands over looks again
            }
            let deliveries = std::mem::take(&mut line.outbox);
            let Some((consumer, sink)) = line.consumer.clone() else {
                drop(state);
                drop(deliveries); // the consumer is gone, so they go back
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

impl MemoryState {
    fn line(&mut self, name: &str) -> &mut MemoryQueue {
        if !self.queues.contains_key(name) {
            self.queues.insert(name.to_owned(), MemoryQueue::default());
        }
        self.queues.entry(name.to_owned()).or_default()
    }

    /// Puts a message into its place.
    fn put(&mut self, message: Arc<Message>, spot: MemorySpot) {
        if let Some(heard) = &self.heard {
            heard(&message);
        }
        if let Some((before, _)) = self.ids.insert(message.id.clone(), (Arc::clone(&message), spot)) {
            self.arguments.remove(&before);
        }
        self.arguments.add(&message);
        let line = self.line(&message.queue);
        match spot {
            MemorySpot::Ready(rank) => line.ready.insert(rank, message),
            MemorySpot::Scheduled(appointment) => drop(line.scheduled.insert(appointment, message)),
            MemorySpot::InLine(_) => line.in_line += 1,
            MemorySpot::Delivered => {}
        }
    }

    /// Forgets the message of this id, which is out of its place.
    fn forget(&mut self, id: &TaskId) {
        if let Some((message, _)) = self.ids.remove(id) {
            self.arguments.remove(&message);
        }
    }

    /// Moves the messages that have come due into the line, and then takes out what the consumer may have.
    fn release(&mut self, shared: &Arc<MemoryInner>, name: &str) {
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
        let room = line.prefetch;
        if line.ready.next(room).is_none() {
            return;
        }
        let settler: Arc<dyn Settler> =
            Arc::new(MemorySettler { shared: Arc::downgrade(shared), queue: name.to_owned() });
        while let Some(delivery) = self.deliver_next(name, room, &settler) {
            self.line(name).outbox.push(delivery);
        }
    }

    /// Delivers the next ready message of a queue, if at most `room` may be out.
    fn deliver_next(&mut self, queue: &str, room: usize, settler: &Arc<dyn Settler>) -> Option<Delivery> {
        let taken = self.queues.get_mut(queue)?.ready.deliver(room)?;
        self.delivered(queue, taken, settler)
    }

    /// Makes a delivery of a message that was taken out of the ready ones.
    fn delivered(
        &mut self,
        queue: &str,
        (rank, message): (Rank, Arc<Message>),
        settler: &Arc<dyn Settler>,
    ) -> Option<Delivery> {
        let line = self.queues.get_mut(queue)?;
        self.next_tag += 1;
        if let Some((_, spot)) = self.ids.get_mut(&message.id) {
            *spot = MemorySpot::Delivered;
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

    fn facts(&self) -> BrokerFacts {
        let delivery_limit = Some(self.shared.delivery_limit);
        BrokerFacts { is_shared: false, knows_all: true, delivery_limit }
    }

    fn condition(&self) -> Condition {
        Condition::default()
    }

    async fn declare(&self, queue: &str) -> Result<(), BrokerError> {
        self.shared.lock()?.line(queue);
        Ok(())
    }

    async fn queues(&self) -> Result<Vec<String>, BrokerError> {
        Ok(self.shared.lock()?.queues.keys().cloned().collect())
    }

    async fn publish(&self, message: Message, unique: bool) -> Result<Receipt, BrokerError> {
        self.publish_now(Arc::new(message), unique)
    }

    fn begin_publish(&self, message: Arc<Message>, unique: bool) -> Publishing<'_> {
        Publishing::answered(self.publish_now(message, unique))
    }

    async fn publish_all(&self, messages: Vec<Message>, unique: bool) -> Result<(), BrokerError> {
        self.publish_together(messages, &[], None, unique)
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

    async fn counts(&self, queue: &str) -> Result<QueueCounts, BrokerError> {
        let state = self.shared.lock()?;
        let dead = state.dead.iter().filter(|d| d.message.queue == queue).count() as u64;
        let Some(line) = state.queues.get(queue) else {
            return Ok(QueueCounts { dead, ..QueueCounts::default() });
        };
        Ok(QueueCounts {
            ready: line.ready.len() as u64,
            scheduled: line.scheduled.len() as u64,
            unsettled: line.unsettled.len() as u64,
            dead,
            in_line: line.in_line,
        })
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        Ok(self.shared.lock()?.dead.iter().take(limit).cloned().collect())
    }

    async fn requeue_dead_letters(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
        let mut requeued = Vec::new();
        for id in ids {
            if self.revive_one(id)? {
                requeued.push(id.clone());
            }
        }
        Ok(requeued)
    }

    async fn close(&self) -> Result<(), BrokerError> {
        let queues = {
            let mut state = self.shared.lock()?;
            self.shut(&mut state)
        };
        drop(queues); // outside of the lock: sinks may own deliveries
        Ok(())
    }

    fn results(&self) -> Option<&dyn Results> {
        Some(self)
    }

    fn lanes(&self) -> Option<&dyn super::Lanes> {
        Some(self)
    }

    fn unique_windows(&self) -> Option<&dyn UniqueWindows> {
        Some(self)
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        Some(self)
    }

    fn notes(&self) -> Option<&dyn BrokerNotes> {
        Some(self)
    }

    fn backlog(&self) -> Option<&dyn Backlog> {
        Some(self)
    }

    fn events(&self) -> Option<&dyn Events> {
        None // no other program uses this broker, and it refuses nothing for good
    }

    fn dead_letter_queue(&self) -> Option<&dyn DeadLetterQueue> {
        None
    }

    fn failed_tasks(&self) -> Option<&dyn FailedTasks> {
        Some(self)
    }

    fn tenant_backlog(&self) -> Option<&dyn TenantBacklog> {
        Some(self)
    }

    fn bulk_changes(&self) -> Option<&dyn BulkChanges> {
        Some(self)
    }
}
