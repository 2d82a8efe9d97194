//! What the broker in memory guards by its lock: the messages, each in its place, and what is kept beside them.
//!
//! Invariant: an entry is in one place, and its spot says in which one. Whoever takes it out of there has it forgotten, or
//! puts its message into another place, in a new entry.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Weak};

use super::argument_index::MemoryArgumentIndex;
use super::bulk::KeptChanges;
use super::entries::{Entries, EntryIndex};
use super::failed::MemoryFailed;
use super::lanes::MemoryLanes;
use super::queue::{MemoryQueues, QueueIndex};
use super::rank::Rank;
use super::settler::MemorySettler;
use super::unique_windows::MemoryUniqueWindows;
use super::{MemoryInner, MemorySpot, MessageObserver};
use crate::broker::{DeadLetter, Delivery};
use crate::core::Timestamp;
use crate::task::Message;
use crate::task::clock::now;

/// The most dead letters that are kept; the oldest are dropped first.
const DEAD_LETTERS: usize = 10_000;

#[derive(Default)]
pub(super) struct MemoryState {
    pub(super) queues: MemoryQueues,
    pub(super) entries: Entries,
    pub(super) arguments: MemoryArgumentIndex,
    pub(super) dead: VecDeque<DeadLetter>,
    pub(super) failed: MemoryFailed,
    pub(super) lanes: MemoryLanes,
    pub(super) windows: MemoryUniqueWindows,
    pub(super) kept: KeptChanges,
    /// The queues that may have got something to deliver, and that nobody has looked at since.
    pub(super) stirred: BTreeSet<QueueIndex>,
    /// When the timer looks at which queues.
    pub(super) agenda: BTreeSet<(Timestamp, QueueIndex)>,
    pub(super) next_seq: u64,
    pub(super) next_tag: u64,
    pub(super) next_consumer: u64,
    pub(super) timer_runs: bool,
    pub(super) closed: bool,
    /// Is told of each message that waits here; tests set it.
    pub(super) on_waiting: Option<MessageObserver>,
    /// The lock that guards this state, with what wakes its timer.
    pub(super) guarded_by: Weak<MemoryInner>,
}

impl MemoryState {
    /// The queue of this name, which is made if it is not there.
    pub(super) fn queue(&mut self, name: &str) -> QueueIndex {
        let shared = &self.guarded_by;
        self.queues.open(name, |queue| Arc::new(MemorySettler { shared: Weak::clone(shared), queue }))
    }

    /// Notes that a queue may have got something to deliver. Whoever has changed that looks at it before it lets go of the
    /// state: see [`hand_over`](MemoryInner::hand_over).
    pub(super) fn stir(&mut self, queue: QueueIndex) {
        self.stirred.insert(queue);
    }

    /// Puts a message into its place in a queue, which is the one that it names. A message in a lane's line is put there by
    /// the caller.
    pub(super) fn put(&mut self, message: Arc<Message>, queue: QueueIndex, spot: MemorySpot) -> EntryIndex {
        if let Some(on_waiting) = &self.on_waiting {
            on_waiting(&message);
        }
        let (at, replaced) = self.entries.insert(Arc::clone(&message), spot, queue);
        if let Some(replaced) = replaced {
            self.arguments.remove(&replaced);
        }
        self.arguments.add(&message);
        if let Some(line) = self.queues.get_mut(queue) {
            match spot {
                MemorySpot::Ready(rank) => line.ready.insert(rank, at, &message),
                MemorySpot::Scheduled(appointment) => {
                    line.scheduled.insert(appointment, at);
                }
                MemorySpot::InLine(_) => line.in_line += 1,
                MemorySpot::Delivered => {}
            }
        }
        if let MemorySpot::Scheduled(_) = spot {
            self.note_agenda(queue);
        }
        at
    }

    /// Forgets a message that is out of its place.
    pub(super) fn forget(&mut self, at: EntryIndex) -> Option<Arc<Message>> {
        let entry = self.entries.remove(at)?;
        if entry.is_known {
            self.arguments.remove(&entry.message);
        }
        Some(entry.message)
    }

    /// Takes a message that waits out of its place, and forgets it. A delivered one stays.
    pub(super) fn withdraw(&mut self, at: EntryIndex) -> Option<Arc<Message>> {
        let entry = self.entries.get(at)?;
        let (spot, queue) = (entry.spot, entry.queue);
        match spot {
            MemorySpot::Ready(rank) => {
                self.queues.get_mut(queue)?.ready.remove(rank, &entry.message);
            }
            MemorySpot::Scheduled(appointment) => {
                self.queues.get_mut(queue)?.scheduled.remove(&appointment);
            }
            MemorySpot::InLine(ticket) => self.leave_line(at, ticket),
            MemorySpot::Delivered => return None,
        }
        self.forget(at)
    }

    /// Moves the messages of a queue that have come due into the line, and then takes out what the consumer may have.
    pub(super) fn release(&mut self, queue: QueueIndex) {
        let Some(line) = self.queues.get(queue) else { return };
        let room = line.prefetch;
        if line.consumer.is_none() {
            return;
        }
        if !line.scheduled.is_empty() {
            self.promote(queue, now());
        }
        while let Some(taken) = self.queues.get_mut(queue).and_then(|line| line.ready.deliver(room)) {
            let delivery = self.deliver(queue, taken);
            if let Some(line) = self.queues.get_mut(queue) {
                line.outbox.extend(delivery);
            }
        }
    }

    /// Moves the messages of a queue that have come due into the line.
    fn promote(&mut self, queue: QueueIndex, now: Timestamp) {
        let Some(line) = self.queues.get_mut(queue) else { return };
        let mut due = Vec::new();
        while let Some(first) = line.scheduled.first_entry().filter(|e| e.key().0 <= now) {
            due.push(first.remove());
        }
        for at in due {
            if let Some(message) = self.forget(at) {
                self.enter(message, queue, false);
            }
        }
    }

    /// Makes a delivery of a message that was taken out of the ready ones.
    pub(super) fn deliver(&mut self, queue: QueueIndex, (rank, at): (Rank, EntryIndex)) -> Option<Delivery> {
        let line = self.queues.get_mut(queue)?;
        let entry = self.entries.get_mut(at)?;
        entry.spot = MemorySpot::Delivered;
        self.next_tag += 1;
        let tag = self.next_tag;
        line.unsettled.insert(tag, (rank, at));
        let delivery = Delivery::new(tag, Arc::clone(&entry.message), Arc::clone(&line.settler));
        Some(if entry.message.serial.is_some() { delivery.fenced(tag) } else { delivery })
    }

    /// Notes that the consumer of a queue has been called, and that it is gone if it has not `taken` what it was given. Says
    /// whether the queue still has this consumer.
    pub(super) fn handed_over(&mut self, queue: QueueIndex, consumer: u64, taken: bool) -> bool {
        let Some(line) = self.queues.get_mut(queue) else { return false };
        line.handing_over = false;
        let is_current = line.consumer.as_ref().is_some_and(|(epoch, _)| *epoch == consumer);
        if is_current && !taken {
            line.consumer = None; // the caller has the sink too, and drops it when the state is not locked
        }
        is_current && taken
    }

    pub(super) fn bury(&mut self, message: &Message, reason: String) {
        tracing::warn!(id = %message.id, task = %message.task, queue = %message.queue, %reason, "dead letter");
        if self.dead.len() >= DEAD_LETTERS {
            self.dead.pop_front();
        }
        self.dead.push_back(DeadLetter { message: message.clone(), reason, died_at: now() });
    }
}
