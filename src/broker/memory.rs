//! Messages in this process's memory: fast, and gone with the process.
//!
//! The order of things is decided by the same [`core::Queue`](crate::core::Queue) that the Queue actor uses, with
//! the consumer's prefetch for a limit.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::{
    Broker, BrokerError, Consumer, Counts, DeadLetter, Delivery, Place, RecordFn, Removal, Settle, Settler, Sink,
};
use crate::core::{Queue, Timestamp};
use crate::store::MemoryStore;
use crate::task::clock::now;
use crate::task::{Durability, Message, Receipt, TaskId};

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
    queues: HashMap<String, MemoryQueue>,
    ids: HashMap<TaskId, (String, u64)>,
    dead: VecDeque<DeadLetter>,
    next_tag: u64,
    next_consumer: u64,
    timer_runs: bool,
    closed: bool,
}

struct MemoryQueue {
    backlog: Queue<Arc<Message>>,
    unsettled: HashMap<u64, Arc<Message>>,
    consumer: Option<(u64, Sink)>,
}

/// Deliveries to make once the lock is free.
type Outbox = Vec<(Sink, Vec<Delivery>)>;

impl MemoryBroker {
    /// A broker whose settled tasks leave their records in `store`.
    pub fn new(store: Arc<MemoryStore>) -> Self {
        let state = State { next_tag: 1 << 63, ..State::default() };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                timer: Condvar::new(),
                store,
                delivery_limit: super::embedded::DEFAULT_DELIVERY_LIMIT,
            }),
        }
    }

    /// Publishes without waiting for anything.
    pub(crate) fn publish_now(&self, message: Message, unique: bool) -> Result<Receipt, BrokerError> {
        let mut state = self.shared.lock()?;
        if unique && (state.ids.contains_key(&message.id) || self.shared.store.contains(&message.id)) {
            return Err(BrokerError::DuplicateId(message.id));
        }
        let receipt = Receipt::new(message.id.clone(), message.queue.clone(), Durability::Memory);
        let due = message.eta;
        let outbox = self.shared.arrive(&mut state, Arc::new(message), due);
        drop(state);
        deliver(outbox);
        Ok(receipt)
    }
}

fn deliver(outbox: Outbox) {
    for (sink, deliveries) in outbox {
        sink(deliveries);
    }
}

impl Shared {
    fn lock(&self) -> Result<MutexGuard<'_, State>, BrokerError> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.closed { Err(BrokerError::Closed) } else { Ok(state) }
    }

    /// A message comes in; says what may go out.
    fn arrive(self: &Arc<Self>, state: &mut State, message: Arc<Message>, due: Option<Timestamp>) -> Outbox {
        let now = now();
        state.next_tag += 1;
        let tag = state.next_tag;
        let name = message.queue.clone();
        state.ids.insert(message.id.clone(), (name.clone(), tag));
        let queue = state.queue(&name);
        queue.backlog.arrive(tag, Arc::clone(&message), message.priority, due, now);
        if due.is_some_and(|due| due > now) {
            self.wake_timer(state);
        }
        self.release(state, &name)
    }

    /// Takes what the consumer of a queue may have.
    fn release(self: &Arc<Self>, state: &mut State, name: &str) -> Outbox {
        let Some(queue) = state.queues.get_mut(name) else { return Outbox::new() };
        let Some((_, sink)) = &queue.consumer else { return Outbox::new() };
        let settler: Arc<dyn Settler> =
            Arc::new(MemorySettler { shared: Arc::downgrade(self), queue: name.to_owned() });
        let now = now();
        let mut deliveries = Vec::new();
        while let Some((tag, message)) = queue.backlog.release(now) {
            queue.unsettled.insert(tag, Arc::clone(&message));
            deliveries.push(Delivery::new(tag, message, Arc::clone(&settler)));
        }
        if deliveries.is_empty() { Outbox::new() } else { vec![(Arc::clone(sink), deliveries)] }
    }

    /// One thread for all ETAs, started with the first.
    fn wake_timer(self: &Arc<Self>, state: &mut State) {
        if !state.timer_runs {
            let shared = Arc::downgrade(self);
            let thread = std::thread::Builder::new().name("celeriac-eta".to_owned());
            state.timer_runs = thread.spawn(move || run_timer(&shared)).is_ok();
        }
        self.timer.notify_one();
    }
}

/// Sleeps until the earliest ETA of all queues, again and again; ends with the broker.
fn run_timer(shared: &Weak<Shared>) {
    while let Some(shared) = shared.upgrade() {
        let Ok(mut state) = shared.lock() else { return };
        let names: Vec<String> = state.queues.keys().cloned().collect();
        let outbox: Outbox = names.iter().flat_map(|name| shared.release(&mut state, name)).collect();
        let due = state.queues.values().filter(|q| q.consumer.is_some()).filter_map(|q| q.backlog.next_due()).min();
        if outbox.is_empty() {
            // An hour, so that a broker that nobody holds any more is noticed some day.
            let wait = due.map_or(std::time::Duration::from_secs(3600), |due| due.since(now()));
            drop(shared.timer.wait_timeout(state, wait));
        } else {
            drop(state);
            deliver(outbox);
        }
    }
}

impl State {
    fn queue(&mut self, name: &str) -> &mut MemoryQueue {
        self.queues.entry(name.to_owned()).or_insert_with(|| MemoryQueue {
            backlog: Queue::new(0),
            unsettled: HashMap::new(),
            consumer: None,
        })
    }

    fn bury(&mut self, message: &Message, reason: String) {
        if self.dead.len() >= DEAD_LETTERS {
            self.dead.pop_front();
        }
        self.dead.push_back(DeadLetter { message: message.clone(), reason, died_at: now() });
    }
}

struct MemorySettler {
    shared: Weak<Shared>,
    queue: String,
}

impl Settler for MemorySettler {
    fn started(&self, _tags: &[u64]) {} // nothing outlives the process that could count

    fn settle(&self, tag: u64, settle: Settle, done: Option<oneshot::Sender<Result<(), BrokerError>>>) {
        let verdict = match self.shared.upgrade() {
            Some(shared) => self.settle_in(&shared, tag, settle),
            None => Err(BrokerError::Closed),
        };
        if let Some(done) = done {
            let _ = done.send(verdict);
        }
    }
}

impl MemorySettler {
    fn settle_in(&self, shared: &Arc<Shared>, tag: u64, settle: Settle) -> Result<(), BrokerError> {
        let mut state = shared.lock()?;
        let queue = state.queue(&self.queue);
        let message = queue.unsettled.remove(&tag).ok_or(BrokerError::Stale)?;
        queue.backlog.finish(tag);
        state.ids.remove(&message.id);
        let mut outbox = Outbox::new();
        let mut record = None;
        match settle {
            Settle::Ack { result } => record = result,
            Settle::Requeue { message, due } => outbox = shared.arrive(&mut state, Arc::new(*message), due),
            Settle::Return { crashed: false } => outbox = shared.arrive(&mut state, message, None),
            Settle::Return { crashed: true } => {
                let mut message = Message::clone(&message);
                message.crashes += 1;
                if message.crashes >= shared.delivery_limit {
                    state.bury(&message, super::embedded::crash_reason(message.crashes));
                } else {
                    outbox = shared.arrive(&mut state, Arc::new(message), None);
                }
            }
            Settle::DeadLetter { reason, result } => {
                state.bury(&message, reason);
                record = result;
            }
        }
        outbox.extend(shared.release(&mut state, &self.queue));
        drop(state);
        if let Some(record) = record {
            shared.store.insert(record);
        }
        deliver(outbox);
        Ok(())
    }
}

struct MemoryConsumer {
    shared: Weak<Shared>,
    queue: String,
    consumer: u64,
}

impl Consumer for MemoryConsumer {
    fn set_prefetch(&self, prefetch: usize) {
        let Some(shared) = self.shared.upgrade() else { return };
        let Ok(mut state) = shared.lock() else { return };
        state.queue(&self.queue).backlog.resize(prefetch);
        let outbox = shared.release(&mut state, &self.queue);
        drop(state);
        deliver(outbox);
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let Ok(mut state) = shared.lock() else { return };
        let queue = state.queue(&self.queue);
        if queue.consumer.as_ref().is_some_and(|(epoch, _)| *epoch == self.consumer) {
            queue.consumer = None;
        }
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn settles_results(&self) -> bool {
        true
    }

    async fn declare(&self, queue: &str) -> Result<(), BrokerError> {
        self.shared.lock()?.queue(queue);
        Ok(())
    }

    async fn publish(&self, message: Message, unique: bool) -> Result<Receipt, BrokerError> {
        self.publish_now(message, unique)
    }

    fn consume(&self, queue: &str, prefetch: usize, sink: Sink) -> Result<Box<dyn Consumer>, BrokerError> {
        let mut state = self.shared.lock()?;
        state.next_consumer += 1;
        let consumer = state.next_consumer;
        let entry = state.queue(queue);
        entry.consumer = Some((consumer, sink));
        entry.backlog.resize(prefetch);
        if entry.backlog.next_due().is_some() {
            self.shared.wake_timer(&mut state);
        }
        let outbox = self.shared.release(&mut state, queue);
        drop(state);
        deliver(outbox);
        let shared = Arc::downgrade(&self.shared);
        Ok(Box::new(MemoryConsumer { shared, queue: queue.to_owned(), consumer }))
    }

    async fn counts(&self, queue: &str) -> Result<Counts, BrokerError> {
        let mut state = self.shared.lock()?;
        let dead = state.dead.iter().filter(|d| d.message.queue == queue).count() as u64;
        let queue = state.queue(queue);
        Ok(Counts {
            ready: queue.backlog.ready() as u64,
            scheduled: queue.backlog.scheduled() as u64,
            unsettled: queue.unsettled.len() as u64,
            dead,
        })
    }

    async fn find(&self, id: &TaskId) -> Result<Option<Place>, BrokerError> {
        let state = self.shared.lock()?;
        let Some((name, tag)) = state.ids.get(id) else { return Ok(None) };
        let queue = &state.queues[name];
        if queue.unsettled.contains_key(tag) {
            return Ok(Some(Place::Delivered { queue: name.clone() }));
        }
        let waiting = queue.backlog.waiting().find(|(t, _)| t == tag);
        Ok(waiting.map(|(_, message)| Place::Waiting(Box::new(Message::clone(message)))))
    }

    async fn remove(&self, id: &TaskId, record: RecordFn) -> Result<Removal, BrokerError> {
        let mut state = self.shared.lock()?;
        let Some((name, tag)) = state.ids.get(id).cloned() else { return Ok(Removal::Unknown) };
        let Some(message) = state.queue(&name).backlog.remove(tag) else {
            return Ok(Removal::Delivered { queue: name });
        };
        state.ids.remove(id);
        drop(state);
        if let Some(record) = record(&message) {
            self.shared.store.insert(record);
        }
        Ok(Removal::Removed)
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        Ok(self.shared.lock()?.dead.iter().take(limit).cloned().collect())
    }

    async fn revive(&self, id: &TaskId) -> Result<bool, BrokerError> {
        let mut state = self.shared.lock()?;
        let Some(at) = state.dead.iter().position(|d| d.message.id == *id) else { return Ok(false) };
        let Some(letter) = state.dead.remove(at) else { return Ok(false) };
        let message = super::embedded::revived(letter.message, now());
        self.shared.store.remove(id);
        let outbox = self.shared.arrive(&mut state, Arc::new(message), None);
        drop(state);
        deliver(outbox);
        Ok(true)
    }

    async fn close(&self) -> Result<(), BrokerError> {
        let mut state = self.shared.lock()?;
        state.closed = true;
        let queues = std::mem::take(&mut state.queues);
        drop(state);
        drop(queues); // outside of the lock: sinks may own deliveries
        self.shared.timer.notify_all();
        Ok(())
    }
}

impl Drop for MemoryBroker {
    fn drop(&mut self) {
        self.shared.timer.notify_all();
    }
}
