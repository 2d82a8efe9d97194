//! Where the dead letter of a delivery goes: to the exchange that its queue has for its letters, or else to the letters of
//! all queues.
//!
//! A message that lies in such a queue is rejected, and RabbitMQ makes the letter, whole and with its own headers. If it
//! lies elsewhere by now (in the guard queue, or nowhere), or if the queue may have no such exchange after all, a
//! rejection would lose it. Then the letter is published to the exchange.

use lapin::options::BasicRejectOptions;

use super::super::outgoing;
use super::super::post::OutgoingMessage;
use super::channel::sent;
use super::in_flight::{DeliveryLocation, InFlight};
use super::settlement::answer;
use super::{Done, QueueConsumer};
use crate::broker::Settle;
use crate::task::clock::now;

impl QueueConsumer {
    /// The dead letter that is to be published of a delivery. `None`: RabbitMQ makes it when the delivery ends, or
    /// there is none.
    pub(super) fn letter_of(&mut self, tag: u64, reason: &str) -> Option<OutgoingMessage> {
        if self.is_rejected(tag, reason) {
            return None;
        }
        let in_flight = self.in_flight.get(&tag)?;
        self.own_letter(outgoing::letter(&in_flight.message, reason))
    }

    /// Whether a delivery ends by a rejection, of which RabbitMQ makes the dead letter.
    pub(super) fn is_rejected(&mut self, tag: u64, reason: &str) -> bool {
        // Of a line, either all queues have the exchange or none is trusted to.
        let mut queues = std::iter::once(&self.queue).chain(&self.partitions);
        let makes_letters = queues.all(|queue| self.shared.topology.makes_dead_letters(queue));
        match self.in_flight.get_mut(&tag) {
            Some(in_flight) if makes_letters && in_flight.lies_in_queue() => {
                in_flight.rejected = Some(reason.to_owned());
                true
            }
            _ => false,
        }
    }

    /// This letter on the way to the queue's own exchange for them, if it has one. That of a broadcast is dropped: there
    /// is no queue to which it could go back.
    pub(super) fn own_letter(&self, letter: OutgoingMessage) -> Option<OutgoingMessage> {
        if self.own_queue.is_some() {
            return None;
        }
        let Some((exchange, key)) = self.shared.options.dead_letter_exchange(&self.queue) else {
            return Some(letter);
        };
        let key = key.as_deref().unwrap_or(&self.queue);
        Some(outgoing::letter_to(letter, &self.queue, &exchange, key, now()))
    }

    /// Rejects a delivery whose follow-ups are published.
    pub(super) fn reject(&mut self, tag: u64, mut in_flight: InFlight, reason: String, done: Option<Done>) {
        match in_flight.place {
            DeliveryLocation::Queue { consumer, delivery_tag } => {
                let Some(flow) = &mut self.flow else { return answer(done, Ok(())) };
                flow.window.forget(delivery_tag);
                self.plan.settle(consumer);
                sent(flow.channel.basic_reject(delivery_tag, BasicRejectOptions { requeue: false }));
                self.flushed.extend(done);
            }
            // It is rejected when it comes again, if it comes here.
            DeliveryLocation::Lost => {
                in_flight.posting = false;
                let end = Settle::DeadLetter { reason, result: None, follow_ups: None };
                in_flight.ended = Some(Box::new(end));
                self.in_flight.insert(tag, in_flight);
                answer(done, Ok(()));
            }
            DeliveryLocation::GuardQueue { .. } | DeliveryLocation::Gone => {
                let letter = self.own_letter(outgoing::letter(&in_flight.message, &reason));
                self.in_flight.insert(tag, in_flight);
                self.post(tag, Vec::new(), letter, done);
            }
        }
    }
}
