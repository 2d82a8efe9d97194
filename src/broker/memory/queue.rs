//! The queues of the broker in memory. A name is looked up where it comes in; from there on its queue has a number, which
//! stays the same as long as the broker is open.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::Appointment;
use super::entries::EntryIndex;
use super::rank::Rank;
use super::ready_lines::ReadyLines;
use crate::broker::{Delivery, Settler, Sink};
use crate::core::Timestamp;

/// The number of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct QueueIndex(usize);

/// The messages of one queue.
pub(super) struct MemoryQueue {
    pub(super) name: String,
    pub(super) ready: ReadyLines,
    pub(super) scheduled: BTreeMap<Appointment, EntryIndex>,
    /// When the timer looks at the queue, as its agenda has it.
    pub(super) noted: Option<Timestamp>,
    /// The number of messages that wait for their lane.
    pub(super) in_line: u64,
    /// The delivered messages by tag, each with the rank to which it goes back.
    pub(super) unsettled: HashMap<u64, (Rank, EntryIndex), RandomState>,
    pub(super) prefetch: usize,
    pub(super) consumer: Option<(u64, Sink)>,
    /// The deliveries that were taken out for the consumer and are not handed over yet.
    pub(super) outbox: Vec<Delivery>,
    /// Whether a thread is handing deliveries over.
    pub(super) handing_over: bool,
    /// What all deliveries of the queue are settled by.
    pub(super) settler: Arc<dyn Settler>,
}

impl MemoryQueue {
    fn new(name: String, settler: Arc<dyn Settler>) -> Self {
        Self {
            name,
            ready: ReadyLines::default(),
            scheduled: BTreeMap::new(),
            noted: None,
            in_line: 0,
            unsettled: HashMap::default(),
            prefetch: 0,
            consumer: None,
            outbox: Vec::new(),
            handing_over: false,
            settler,
        }
    }

    /// When the first scheduled message is due. `None`: there is none, or nobody consumes the queue.
    pub(super) fn first_due(&self) -> Option<Timestamp> {
        self.consumer.as_ref()?;
        self.scheduled.first_key_value().map(|((due, _), _)| *due)
    }
}

/// All queues, by number and by name.
#[derive(Default)]
pub(super) struct MemoryQueues {
    queues: Vec<MemoryQueue>,
    names: HashMap<String, QueueIndex, RandomState>,
}

impl MemoryQueues {
    /// The number of the queue of this name, which is made if it is not there. `settler` makes what its deliveries are
    /// settled by.
    pub(super) fn open(
        &mut self,
        name: &str,
        settler: impl FnOnce(QueueIndex) -> Arc<dyn Settler>,
    ) -> QueueIndex {
        if let Some(index) = self.names.get(name) {
            return *index;
        }
        let index = QueueIndex(self.queues.len());
        self.queues.push(MemoryQueue::new(name.to_owned(), settler(index)));
        self.names.insert(name.to_owned(), index);
        index
    }

    /// The queue of this name, if it is there.
    pub(super) fn named(&self, name: &str) -> Option<&MemoryQueue> {
        self.get(*self.names.get(name)?)
    }

    /// The number of the queue of this name, if it is there.
    pub(super) fn index_of(&self, name: &str) -> Option<QueueIndex> {
        self.names.get(name).copied()
    }

    pub(super) fn get(&self, index: QueueIndex) -> Option<&MemoryQueue> {
        self.queues.get(index.0)
    }

    pub(super) fn get_mut(&mut self, index: QueueIndex) -> Option<&mut MemoryQueue> {
        self.queues.get_mut(index.0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (QueueIndex, &MemoryQueue)> {
        self.queues.iter().enumerate().map(|(index, queue)| (QueueIndex(index), queue))
    }

    /// As [`iter`](Self::iter), of queues that can be changed.
    #[cfg(feature = "testing")]
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (QueueIndex, &mut MemoryQueue)> {
        self.queues.iter_mut().enumerate().map(|(index, queue)| (QueueIndex(index), queue))
    }
}
