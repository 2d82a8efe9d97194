//! What is different in the line of a broadcast. Its queue is this process's alone and goes with the connection, so nothing
//! that belongs to this process may leave it: sent to the exchange, a retry would be run by every process.
//!
//! So a task that is to run again waits here, and takes no place of the prefetch. It has no dead letter: there is no
//! queue to which that could go back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lapin::types::ShortString;

use super::in_flight::{DeliveryLocation, InFlight};
use super::settlement::answer;
use super::{Done, QueueConsumer};
use crate::broker::BrokerError;
use crate::core::Timestamp;
use crate::task::Message;
use crate::task::clock::now;

/// How long a task rests that was given back while it could not lie in its queue.
const REST: Duration = Duration::from_secs(1);

impl QueueConsumer {
    /// The name of the queue in RabbitMQ that this line takes from, beside the partitions.
    pub(super) fn source(&self) -> &str {
        self.own_queue.as_ref().map_or(self.queue.as_str(), ShortString::as_str)
    }

    /// The names of all queues in RabbitMQ that this line takes from.
    pub(super) fn sources(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.source()).chain(self.partitions.iter().map(String::as_str))
    }

    /// The name of a queue in RabbitMQ that this line takes from, by its number.
    pub(super) fn source_at(&self, source: usize) -> &str {
        let partition = source.checked_sub(1).and_then(|index| self.partitions.get(index));
        partition.map_or(self.source(), String::as_str)
    }

    /// Takes from this queue of the process's own from now on. What came from another one, which went with its
    /// connection, comes nowhere again.
    pub(super) fn take_from(&mut self, own: ShortString) {
        if self.own_queue.replace(own.clone()).is_some_and(|before| before != own) {
            self.all_gone(0);
        }
    }

    /// Notes that no lost delivery of this source will come again. One that does all the same while its task runs here is
    /// recognised.
    pub(super) fn all_gone(&mut self, source: usize) -> usize {
        let is_of = |tag: &u64| self.in_flight.get(tag).is_some_and(|h| h.source == source);
        let tags: Vec<u64> = self.lost.values().copied().filter(is_of).collect();
        let count = tags.len();
        for tag in tags {
            self.gone(tag);
        }
        count
    }

    /// Has the message of a delivery run again: a retry, a continuation, a run that has crashed.
    pub(super) fn send_back(&mut self, tag: u64, message: Message, done: Option<Done>) {
        if self.own_queue.is_none() {
            return self.post(tag, vec![message], None, done);
        }
        let due = message.eta;
        self.rerun(tag, message, due, done);
    }

    /// Keeps a delivery that was given back until it can be handed out again, as long as there is somebody to take it.
    pub(super) fn keep_or_drop(&mut self, tag: u64, done: Option<Done>) {
        let Some(in_flight) = self.in_flight.get(&tag) else { return };
        if self.consumer.is_none() || self.closing.is_some() {
            return self.posted(tag, Ok(()), done);
        }
        let message = Message::clone(&in_flight.message);
        self.rerun(tag, message, Some(now() + REST), done);
    }

    fn rerun(&mut self, tag: u64, message: Message, due: Option<Timestamp>, done: Option<Done>) {
        let Some(mut in_flight) = self.in_flight.remove(&tag) else {
            return answer(done, Err(BrokerError::Stale));
        };
        in_flight.message = Arc::new(message);
        (in_flight.started, in_flight.announced) = (false, false);
        // A copy that is on its way to the guard queue stands for the run that is over.
        in_flight.handing_over = false;
        let tag = self.hold(in_flight);
        self.wait_here(tag, due.unwrap_or_else(now));
        answer(done, Ok(()));
    }

    /// Keeps a delivery here until it is due. It takes no place from others meanwhile.
    pub(super) fn wait_here(&mut self, tag: u64, due: Timestamp) {
        self.early.insert((due, tag));
        self.waiting.insert(tag);
        self.make_room();
    }

    /// Forgets the deliveries of this source, or of all, that wait here and simply come again, now that the channel is lost.
    /// Those that are gone do not, and those of a broadcast may not.
    pub(super) fn forget_early(&mut self, source: Option<usize>) {
        if self.own_queue.is_some() {
            return;
        }
        let comes_again = |h: &InFlight| {
            h.place != DeliveryLocation::Gone && source.is_none_or(|source| h.source == source)
        };
        let early = std::mem::take(&mut self.early);
        let (forgotten, kept): (BTreeSet<_>, BTreeSet<_>) =
            early.into_iter().partition(|(_, tag)| self.in_flight.get(tag).is_none_or(comes_again));
        self.early = kept;
        for (_, tag) in forgotten {
            self.let_go(tag);
        }
    }
}
