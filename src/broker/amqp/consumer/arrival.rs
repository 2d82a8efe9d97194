//! Takes in the messages that come from RabbitMQ. It reads each message, and hands it to the consumer or sends it to
//! the place where it belongs.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use serde_json::Value;

use super::super::AmqpInner;
use super::super::outgoing::{self, COPY, KEPT, Label, RECEIVED, SOON};
use super::super::reading::{ReadMessage, is_heavy};
use super::super::table::{self, IncomingHeaders};
use super::channel::{ConsumedBatch, KEEPER};
use super::in_flight::{DeliveryLocation, InFlight};
use super::{BATCH, QueueConsumer};
use crate::broker::DeliveryInfo;
use crate::broker::dead_letter::crash_reason;
use crate::core::Timestamp;
use crate::protocol::{DecodeError, Field, Table, WireMessage};
use crate::rabbitmq::frame_guard::Unread;
use crate::task::clock::now;
use crate::task::{Lineage, Message, State, TaskId, TaskResult};

/// How long the record of a refused message is kept. It is Celery's `result_expires`.
const RECORD_EXPIRES: Duration = Duration::from_secs(24 * 3600);

impl QueueConsumer {
    /// Takes in the first arrivals, and everything else that has arrived by now.
    pub(super) async fn take_in(&mut self, first: ConsumedBatch) {
        let mut came = Vec::with_capacity(first.deliveries.len());
        let mut ends = Vec::new();
        let mut next = Some(first);
        while let Some(arrived) = next {
            let ConsumedBatch { consumer, deliveries, end } = arrived;
            if consumer == KEEPER {
                deliveries.into_iter().for_each(|delivery| self.kept(delivery));
            } else {
                came.extend(deliveries.into_iter().map(|delivery| (consumer, delivery)));
            }
            ends.extend(end.map(|error| (consumer, error)));
            if came.len() >= BATCH {
                break;
            }
            next = self.streams.next().now_or_never().flatten();
        }
        // Several consumers share the channel. Their deliveries are sorted into the order that they had on the channel.
        let tag = |(_, delivery): &(u64, lapin::message::Delivery)| delivery.delivery_tag;
        if !came.is_sorted_by_key(tag) {
            came.sort_by_key(tag);
        }
        let now = now();
        let mut deliveries = Vec::with_capacity(came.len());
        for (consumer, delivery) in came {
            let Some(unread) = self.note(consumer, &delivery) else { continue };
            let read = if is_heavy(&delivery) {
                // The messages that came before this one do not wait for it. The messages that come after it wait, to
                // keep their order.
                self.hand_over(std::mem::take(&mut deliveries));
                AmqpInner::read_beside(&self.shared, delivery, &self.queue, unread, now).await
            } else {
                self.shared.read(delivery, &self.queue, unread, now)
            };
            if let Some(tag) = self.receive(consumer, read, now) {
                deliveries.extend(self.delivery(tag));
            }
        }
        self.hand_over(deliveries);
        self.note_cancellations(ends.iter().map(|(consumer, _)| *consumer));
        for (consumer, error) in ends {
            self.ended(consumer, error);
        }
    }

    /// Notes that a message has come, and whether its properties could not be read. Returns `None` if there is no
    /// consumer; the message was then given back.
    fn note(&mut self, consumer: u64, delivery: &lapin::message::Delivery) -> Option<Option<Unread>> {
        let delivery_tag = delivery.delivery_tag;
        let flow = self.flow.as_mut()?;
        flow.window.deliver(delivery_tag);
        let unread = flow.unread.take(delivery_tag);
        self.plan.deliver(consumer);
        if self.consumer.is_none() {
            self.give_back(DeliveryLocation::Queue { consumer, delivery_tag });
            return None;
        }
        Some(unread)
    }

    /// Takes in one message that was read. Returns its tag if the message is for the consumer now.
    fn receive(&mut self, consumer: u64, read: ReadMessage, now: Timestamp) -> Option<u64> {
        let ReadMessage { delivery, message, unread } = read;
        let place = DeliveryLocation::Queue { consumer, delivery_tag: delivery.delivery_tag };
        let came = IncomingHeaders(delivery.properties.headers().as_ref());
        // A message has this header only if it was in the guard queue of a process that is gone.
        let suspect = came.has(KEPT) || delivery.redelivered;
        let copy = came.has(COPY);
        let message = match message {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!(queue = self.queue, %error, "a message was refused; it is a dead letter");
                let letter = error.recognised.id.clone().unwrap_or_else(TaskId::new);
                let reason = error.to_string();
                let queue = self.queue.as_str();
                let label = Label { queue, reason: &reason, letter: letter.as_str(), now, expires_at: None };
                let unread = unread.map(|unread| unread.properties);
                let post = outgoing::dead_as_it_came(&delivery.properties, delivery.data, unread, label);
                if let Some(record) = refused_result(&error, &self.queue, now) {
                    self.shared.over(record, None);
                }
                self.shared.refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let tag = self.hold(InFlight::new(placeholder(&self.queue, letter, now), place, suspect));
                let post = if self.is_rejected(tag, &reason) { None } else { self.own_letter(post) };
                self.post(tag, Vec::new(), post, None);
                return None;
            } // A message that this process still runs, since before a channel was lost, must not start a second time.
        };
        if suspect && let Some(tag) = self.lost.get(&message.id).copied() {
            if self.in_flight.get(&tag).is_some_and(|held| held.is_same(&message)) {
                self.found(tag, place);
                return None;
            }
            self.let_go(tag);
        }
        // The consumer does not get a poison task once more.
        if message.crashes >= self.shared.options.delivery_limit {
            let reason = crash_reason(message.crashes);
            tracing::error!(queue = self.queue, id = %message.id, reason, "REJECTED");
            let tag = self.hold(InFlight::new(message, place, suspect));
            self.bury(tag, &reason, None);
            return None;
        }
        // A message whose ETA is ahead takes no place of a worker.
        let eta = message.eta.filter(|eta| *eta > now);
        let announced = announced_as(message.retries, came.get(RECEIVED));
        let info = Some(self.info_of(&delivery));
        let tag = self.hold(InFlight { copy, info, announced, ..InFlight::new(message, place, suspect) });
        match eta {
            // By way of the delays it would come to every process.
            Some(eta) if self.own_queue.is_some() => {
                if !announced {
                    drop(self.announce(tag));
                }
                self.wait_here(tag, eta);
            }
            Some(eta) if eta.since(now) >= SOON => {
                let mut wire = unmarked(delivery);
                if !announced && let Some(told) = self.announce(tag) {
                    wire.headers.insert(RECEIVED.to_owned(), told.into());
                }
                self.park(tag, wire, eta, now);
            }
            Some(eta) => drop(self.early.insert((eta, tag))),
            None => return Some(tag),
        }
        None
    }

    /// Tells the listeners to events that a message has come early. Returns the note of this for the message's header.
    fn announce(&mut self, tag: u64) -> Option<String> {
        let in_flight = self.in_flight.get_mut(&tag)?;
        in_flight.announced = self.shared.listener.get()?.parked(&in_flight.message);
        in_flight.announced.then(|| format!("{} {}", in_flight.message.retries, self.shared.node()))
    }

    /// Sends a message that has come early back through the delay queues, so that it takes no place of the prefetch.
    fn park(&mut self, tag: u64, wire: WireMessage, eta: Timestamp, now: Timestamp) {
        let partition = self.in_flight.get(&tag).and_then(|h| self.shared.partitions.choose(&h.message));
        let delayed = outgoing::wire(wire, &self.queue, Some(eta), now);
        match delayed.and_then(|post| post.into_partition(partition)) {
            Ok(post) => {
                if let Some(held) = self.in_flight.get(&tag) {
                    self.shared.parked.add(eta, &held.message, held.info.clone(), now);
                }
                self.post(tag, Vec::new(), Some(post), None);
            }
            Err(error) => {
                tracing::warn!(queue = self.queue, %error, "a message cannot be delayed by RabbitMQ and waits here");
                self.early.insert((eta, tag));
            }
        }
    }

    /// How a delivery came.
    fn info_of(&mut self, delivery: &lapin::message::Delivery) -> Arc<DeliveryInfo> {
        let exchange = delivery.exchange.as_str();
        // What came by way of a partition was sent to the queue, as far as anybody else is concerned.
        let routing_key = match delivery.routing_key.as_str() {
            key if self.partitions.iter().any(|partition| partition == key) => self.queue.as_str(),
            key => key,
        };
        let (priority, redelivered) = (*delivery.properties.priority(), delivery.redelivered);
        if let Some(last) = &self.last_info
            && last.exchange == exchange
            && last.routing_key == routing_key
            && (last.priority, last.redelivered) == (priority, redelivered)
        {
            return Arc::clone(last);
        }
        let (exchange, routing_key) = (exchange.to_owned(), routing_key.to_owned());
        let info = Arc::new(DeliveryInfo { exchange, routing_key, priority, redelivered });
        self.last_info = Some(Arc::clone(&info));
        info
    }

    pub(super) fn hold(&mut self, mut in_flight: InFlight) -> u64 {
        if let DeliveryLocation::Queue { consumer, .. } = in_flight.place {
            in_flight.source = self.plan.source_of(consumer);
        }
        let tag = self.shared.next_tag();
        self.in_flight.insert(tag, in_flight);
        tag
    }

    /// Notes that a copy has come into the guard queue of this process, and acknowledges the original.
    fn kept(&mut self, delivery: lapin::message::Delivery) {
        let delivery_tag = delivery.delivery_tag;
        if let Some(guard_queue) = self.flow.as_mut().and_then(|flow| flow.guard_queue.as_mut()) {
            guard_queue.window.deliver(delivery_tag);
        }
        let headers = delivery.properties.headers().as_ref().map(table::to_map).unwrap_or_default();
        let tag = headers.get(KEPT).and_then(Value::as_u64);
        let new = DeliveryLocation::GuardQueue { delivery_tag };
        match tag.and_then(|tag| self.in_flight.get_mut(&tag)) {
            Some(in_flight) if in_flight.place != DeliveryLocation::Lost => {
                in_flight.since = tokio::time::Instant::now();
                in_flight.handing_over = false;
                // That is where RabbitMQ puts the copy if this process dies.
                in_flight.source = 0;
                let old = std::mem::replace(&mut in_flight.place, new);
                if old == DeliveryLocation::Gone {
                    self.lost.remove(&in_flight.message.id);
                }
                self.acknowledge(old);
            }
            // The delivery was settled while its copy was on the way.
            _ => self.acknowledge(new),
        }
    }
}

/// Whether the listeners to events were told that this attempt of a task was received.
fn announced_as(retries: u32, header: Option<Field<'_>>) -> bool {
    let told = header.and_then(Field::into_text);
    told.and_then(|told| told.split(' ').next()?.parse().ok()).is_some_and(|told: u32| told == retries)
}

/// The message as its sender sent it, without the headers that this process wrote on it.
fn unmarked(delivery: lapin::message::Delivery) -> WireMessage {
    let mut wire = table::to_wire(&delivery.properties, delivery.data);
    wire.headers.retain(|name, _| name != KEPT && name != COPY);
    wire
}

/// The record of a message that was refused, if its id could be read.
fn refused_result(error: &DecodeError, queue: &str, now: Timestamp) -> Option<TaskResult> {
    let recognised = &error.recognised;
    let id = recognised.id.clone()?;
    let task = recognised.task.clone().unwrap_or_default();
    let lineage = Lineage { reply_to: recognised.reply_to.clone(), ..Lineage::default() };
    Some(TaskResult {
        queue: queue.to_owned(),
        errors: vec![error.to_string()],
        error_type: Some("InvalidMessage".to_owned()),
        lineage: Some(Box::new(lineage)),
        ..TaskResult::new(id, task, State::Failure, now, now + RECORD_EXPIRES)
    })
}

/// Makes a task that stands for an unreadable message while this message is on its way to the dead letters.
fn placeholder(queue: &str, id: TaskId, now: Timestamp) -> Message {
    super::super::dead_letters::unread(queue, id, String::new(), Arc::from(""), now)
}
