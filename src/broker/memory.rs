//! Keeps messages in this process's memory: fast, and gone with the process.
//!
//! Each message is in an entry (`entries.rs`), and its place holds the number of the entry: the line of the ready messages of
//! its tenant, the agenda of its queue, the line of its lane, or the map of what is delivered. Whoever changes a queue takes
//! out what the consumer may have, and hands it over without the lock. Only one thread at a time does so for a queue, so
//! that the consumer gets the messages in the order of the lines.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::dead_letter::requeued;
use super::{
    Backlog, Broker, BrokerError, BrokerFacts, BrokerNotes, BulkChanges, CasOutcome, Condition, Consumer,
    DeadLetter, DeadLetterQueue, Events, FailedTasks, Inspect, PublishFuture, QueueCounts, Results, Sink,
    TenantBacklog, UniqueWindows, call_sink,
};
use crate::core::Timestamp;
use crate::store::{CompareAndSet, MemoryStore};
use crate::task::clock::now;
use crate::task::{Durability, Message, Receipt, TaskId};
use consumer::MemoryConsumer;
use queue::{MemoryQueues, QueueIndex};
use rank::Rank;
use state::MemoryState;

mod abilities;
mod argument_index;
mod backlog;
mod bulk;
mod consumer;
mod entries;
mod failed;
mod follow_ups;
mod lanes;
mod queue;
mod rank;
mod ready_line;
mod ready_lines;
mod settler;
mod state;
#[cfg(feature = "testing")]
mod stepping;
mod timer;
mod unique_windows;

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

/// A function that is told of messages. It is called while the lock is held.
type MessageObserver = Arc<dyn Fn(&Arc<Message>) + Send + Sync>;

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

impl MemoryBroker {
    /// Makes a broker whose settled tasks leave their records in `store`.
    pub fn new(store: Arc<MemoryStore>) -> Self {
        let shared = Arc::new_cyclic(|shared| {
            let next_tag = 1 << 63; // apart from the tags of an embedded broker
            let guarded_by = Weak::clone(shared);
            MemoryInner {
                state: Mutex::new(MemoryState { next_tag, guarded_by, ..MemoryState::default() }),
                timer: Condvar::new(),
                store,
                delivery_limit: super::embedded::DEFAULT_DELIVERY_LIMIT,
            }
        });
        Self { shared }
    }

    /// Takes all of these messages or none. `extended_chord`: the group of a chord that gets one more member.
    fn publish_together(
        &self,
        messages: Vec<Message>,
        sizes: &[(String, u64)],
        extended_chord: Option<&str>,
        unique: bool,
    ) -> Result<(), BrokerError> {
        let mut state = self.shared.lock()?;
        if unique && let Some(taken) = messages.iter().find(|m| self.shared.is_taken(&state, &m.id)) {
            return Err(BrokerError::DuplicateId(taken.id.clone()));
        }
        if let (Some(group), Some(first)) = (extended_chord, messages.first())
            && !self.shared.store.extend(group, &first.id)
        {
            return Err(BrokerError::NoChord(group.to_owned()));
        }
        sizes.iter().for_each(|(group, size)| self.shared.store.open(group, *size));
        for message in messages {
            let queue = state.queue(&message.queue);
            state.stir(queue);
            let due = message.eta;
            self.shared.arrive(&mut state, Arc::new(message), queue, due, false);
        }
        self.shared.hand_over_stirred(state);
        Ok(())
    }

    /// Puts one dead letter back.
    fn revive_one(&self, id: &TaskId) -> Result<bool, BrokerError> {
        let mut state = self.shared.lock()?;
        let Some(at) = state.dead.iter().position(|d| d.message.id == *id) else { return Ok(false) };
        let Some(letter) = state.dead.remove(at) else { return Ok(false) };
        let message = requeued(letter.message, now());
        let queue = state.queue(&message.queue);
        self.shared.store.remove(id);
        self.shared.arrive(&mut state, Arc::new(message), queue, None, false);
        self.shared.hand_over(state, queue);
        Ok(true)
    }

    /// Publishes a message, without anything to wait for.
    pub(crate) fn publish_now(&self, message: Arc<Message>, unique: bool) -> Result<Receipt, BrokerError> {
        let receipt = Receipt::new(message.id.clone(), message.queue.clone(), Durability::Memory);
        let (due, is_new) = (message.eta, !message.is_in_canvas());
        let holder = message.unique.is_some().then(|| Arc::clone(&message));
        let mut state = self.shared.lock()?;
        if unique && self.shared.is_taken(&state, &receipt.id) {
            return Err(BrokerError::DuplicateId(receipt.id));
        }
        if let Some(holder) = state.windows.holder(&message) {
            return Ok(receipt.joining(holder));
        }
        let queue = state.queue(&receipt.queue);
        let joined = self.shared.arrive(&mut state, message, queue, due, is_new);
        if let (Some(holder), None) = (&holder, &joined) {
            state.windows.acquire(holder);
        }
        self.shared.hand_over(state, queue);
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

    fn shut(&self, state: &mut MemoryState) -> MemoryQueues {
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
        state.entries.knows(id) || self.store.keeps(id, now)
    }

    /// Takes a message in for the queue that it names. If it is `new`, its task's policy for a busy lane applies. Answers
    /// with the task that it joins, if it is left out.
    fn arrive(
        self: &Arc<Self>,
        state: &mut MemoryState,
        message: Arc<Message>,
        queue: QueueIndex,
        due: Option<Timestamp>,
        new: bool,
    ) -> Option<TaskId> {
        let Some(due) = due.filter(|due| *due > now()) else {
            let joined = state.enter(message, queue, new);
            self.watch_deadlines(state);
            return joined;
        };
        state.next_seq += 1;
        let spot = MemorySpot::Scheduled((due, state.next_seq));
        state.put(message, queue, spot);
        self.wake_timer(state);
        None
    }

    /// Gives the consumer of a queue what it may have, and the consumers of the queues that were stirred. Whoever has changed
    /// something calls it, and lets go of the state by that.
    fn hand_over(self: &Arc<Self>, mut state: MutexGuard<'_, MemoryState>, queue: QueueIndex) {
        let mut next = Some(queue);
        while let Some(queue) = next.filter(|_| !state.closed) {
            self.hand_over_in(&mut state, queue);
            next = state.stirred.pop_first();
        }
    }

    /// As [`hand_over`](Self::hand_over), for the queues that were stirred.
    fn hand_over_stirred(self: &Arc<Self>, mut state: MutexGuard<'_, MemoryState>) {
        self.watch_deadlines(&mut state);
        if let Some(queue) = state.stirred.pop_first() {
            self.hand_over(state, queue);
        }
    }

    /// Gives the consumer of a queue what it may have. While the consumer is called, the state is not locked.
    fn hand_over_in(self: &Arc<Self>, state: &mut MutexGuard<'_, MemoryState>, queue: QueueIndex) {
        while !state.closed {
            state.release(queue);
            self.watch_deadlines(state);
            let Some(line) = state.queues.get_mut(queue) else { return };
            if line.handing_over || line.outbox.is_empty() {
                return; // the thread that hands over looks again
            }
            let deliveries = std::mem::take(&mut line.outbox);
            let Some((consumer, sink)) = line.consumer.clone() else {
                MutexGuard::unlocked(state, || drop(deliveries)); // the consumer is gone, so they go back
                continue;
            };
            line.handing_over = true;
            let taken = MutexGuard::unlocked(state, || call_sink(&sink, deliveries));
            if !state.handed_over(queue, consumer, taken) {
                // Nobody else may have the sink by now, and sinks may own deliveries.
                MutexGuard::unlocked(state, || drop(sink));
            }
        }
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
        self.shared.lock()?.queue(queue);
        Ok(())
    }

    async fn queues(&self) -> Result<Vec<String>, BrokerError> {
        Ok(self.shared.lock()?.queues.iter().map(|(_, line)| line.name.clone()).collect())
    }

    async fn publish(&self, message: Message, unique: bool) -> Result<Receipt, BrokerError> {
        self.publish_now(Arc::new(message), unique)
    }

    fn begin_publish(&self, message: Arc<Message>, unique: bool) -> PublishFuture<'_> {
        PublishFuture::answered(self.publish_now(message, unique))
    }

    async fn publish_all(&self, messages: Vec<Message>, unique: bool) -> Result<(), BrokerError> {
        self.publish_together(messages, &[], None, unique)
    }

    fn consume(&self, queue: &str, prefetch: usize, sink: Sink) -> Result<Box<dyn Consumer>, BrokerError> {
        let mut state = self.shared.lock()?;
        state.next_consumer += 1;
        let consumer = state.next_consumer;
        let queue = state.queue(queue);
        let Some(line) = state.queues.get_mut(queue) else { return Err(BrokerError::Closed) };
        let old = line.consumer.replace((consumer, sink));
        line.prefetch = prefetch;
        if !line.scheduled.is_empty() {
            state.note_agenda(queue);
            self.shared.wake_timer(&mut state);
        }
        MutexGuard::unlocked(&mut state, || drop(old)); // its sink may own deliveries
        self.shared.hand_over(state, queue);
        let shared = Arc::downgrade(&self.shared);
        Ok(Box::new(MemoryConsumer { shared, queue, consumer }))
    }

    async fn counts(&self, queue: &str) -> Result<QueueCounts, BrokerError> {
        let state = self.shared.lock()?;
        let dead = state.dead.iter().filter(|d| d.message.queue == queue).count() as u64;
        let Some(line) = state.queues.named(queue) else {
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
