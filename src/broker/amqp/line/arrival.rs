//! What comes from RabbitMQ: read, and handed over, or sent where it belongs.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use serde_json::Value;

use super::super::outgoing::{self, COPY, KEPT, SOON};
use super::super::table::{self, Came};
use super::channel::{Arrived, KEEPER};
use super::holding::{Holding, Place};
use super::{BATCH, Line};
use crate::broker::dead_letter::crash_reason;
use crate::core::Timestamp;
use crate::protocol::{DecodeError, WireMessage};
use crate::task::clock::now;
use crate::task::{Lineage, Message, State, TaskId, TaskResult};

/// How long it is remembered that a message was refused: Celery's `result_expires`.
const RECORD_EXPIRES: Duration = Duration::from_secs(24 * 3600);

impl Line {
    /// Takes in what has come, and all that is there by now.
    pub(super) fn take_in(&mut self, first: Arrived) {
        let mut came = Vec::with_capacity(first.deliveries.len());
        let mut ends = Vec::new();
        let mut next = Some(first);
        while let Some(arrived) = next {
            let Arrived { consumer, deliveries, end } = arrived;
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
        // What has come from several consumers of a channel, as the channel had it.
        came.sort_by_key(|(_, delivery): &(u64, lapin::message::Delivery)| delivery.delivery_tag);
        let now = now();
        let mut deliveries = Vec::with_capacity(came.len());
        for (consumer, delivery) in came {
            if let Some(tag) = self.receive(consumer, delivery, now) {
                deliveries.extend(self.delivery(tag));
            }
        }
        self.hand_over(deliveries);
        for (consumer, error) in ends {
            self.ended(consumer, error);
        }
    }

    /// Reads one message; its tag, if it is for the consumer now.
    fn receive(&mut self, consumer: u64, delivery: lapin::message::Delivery, now: Timestamp) -> Option<u64> {
        let delivery_tag = delivery.delivery_tag;
        let place = Place::Queue { consumer, delivery_tag };
        let flow = self.flow.as_mut()?;
        flow.window.deliver(delivery_tag);
        self.ration.deliver(consumer);
        if self.consumer.is_none() {
            self.give_back(place);
            return None;
        }
        let came = Came(delivery.properties.headers().as_ref());
        // Only what was in the keeping of a process that is gone still says so.
        let suspect = came.has(KEPT) || delivery.redelivered;
        let copy = came.has(COPY);
        let properties = table::properties(&delivery.properties);
        let message = match self.shared.decode(&properties, &came, &delivery.data, &self.queue, now) {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!(queue = self.queue, %error, "a message was refused; it is in the dead letters");
                let letter = error.recognised.id.clone().unwrap_or_else(TaskId::new);
                let post =
                    outgoing::dead(unmarked(delivery), &self.queue, &error.to_string(), letter.as_str(), now);
                if let Some(record) = refused_result(&error, &self.queue, now) {
                    self.shared.over(record, None);
                }
                self.shared.refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let tag = self.hold(Holding::new(placeholder(&self.queue, letter, now), place, suspect));
                self.post(tag, vec![post], None);
                return None;
            }
        };
        if suspect && let Some(tag) = self.lost.get(&message.id).copied() {
            if self.holdings.get(&tag).is_some_and(|held| held.is_same(&message)) {
                self.found(tag, place);
                return None;
            }
            self.let_go(tag);
        }
        if message.crashes >= self.shared.options.delivery_limit {
            let reason = crash_reason(message.crashes);
            tracing::error!(queue = self.queue, id = %message.id, reason, "REJECTED");
            let tag = self.hold(Holding::new(message, place, suspect));
            self.bury(tag, &reason, None);
            return None;
        }
        let eta = message.eta.filter(|eta| *eta > now);
        let tag = self.hold(Holding { copy, ..Holding::new(message, place, suspect) });
        match eta {
            Some(eta) if eta.since(now) >= SOON => self.park(tag, unmarked(delivery), eta, now),
            Some(eta) => drop(self.early.insert((eta, tag))),
            None => return Some(tag),
        }
        None
    }

    /// What has come early waits in RabbitMQ, where it keeps no place from others.
    fn park(&mut self, tag: u64, wire: WireMessage, eta: Timestamp, now: Timestamp) {
        match outgoing::wire(wire, &self.queue, Some(eta), now) {
            Ok(post) => self.post(tag, vec![post], None),
            Err(error) => {
                tracing::warn!(queue = self.queue, %error, "a message cannot be delayed by RabbitMQ and waits here");
                self.early.insert((eta, tag));
            }
        }
    }

    pub(super) fn hold(&mut self, holding: Holding) -> u64 {
        let tag = self.shared.next_tag();
        self.holdings.insert(tag, holding);
        tag
    }

    /// A copy has come into the keeping of this process.
    fn kept(&mut self, delivery: lapin::message::Delivery) {
        let delivery_tag = delivery.delivery_tag;
        if let Some(keeping) = self.flow.as_mut().and_then(|flow| flow.keeping.as_mut()) {
            keeping.window.deliver(delivery_tag);
        }
        let headers = delivery.properties.headers().as_ref().map(table::to_map).unwrap_or_default();
        let tag = headers.get(KEPT).and_then(Value::as_u64);
        let new = Place::Keeping { delivery_tag };
        match tag.and_then(|tag| self.holdings.get_mut(&tag)) {
            Some(holding) if holding.place != Place::Lost => {
                holding.since = tokio::time::Instant::now();
                holding.handing_over = false;
                let old = std::mem::replace(&mut holding.place, new);
                self.acknowledge(old);
            }
            // It was settled while its copy was on the way.
            _ => self.acknowledge(new),
        }
    }
}

/// A message as it was sent, without what was noted on it here.
fn unmarked(delivery: lapin::message::Delivery) -> WireMessage {
    let mut wire = table::to_wire(&delivery.properties, delivery.data);
    wire.headers.retain(|name, _| name != KEPT && name != COPY);
    wire
}

/// The record of a message that was refused, if it can be told whose it is.
fn refused_result(error: &DecodeError, queue: &str, now: Timestamp) -> Option<TaskResult> {
    let recognised = &error.recognised;
    let lineage = Lineage { reply_to: recognised.reply_to.clone(), ..Lineage::default() };
    Some(TaskResult {
        id: recognised.id.clone()?,
        task: recognised.task.clone().unwrap_or_default(),
        queue: queue.to_owned(),
        state: State::Failure,
        result: None,
        errors: vec![error.to_string()],
        error_type: Some("InvalidMessage".to_owned()),
        error_module: None,
        traceback: None,
        attempts: 0,
        enqueued_at: now,
        started_at: None,
        finished_at: now,
        worker: None,
        expires_at: now + RECORD_EXPIRES,
        lineage: Some(Box::new(lineage)),
        download: None,
    })
}

/// What stands for a message that could not be read while it is on its way to the dead letters.
fn placeholder(queue: &str, id: TaskId, now: Timestamp) -> Message {
    super::super::letters::unread(queue, id, String::new(), Arc::from(""), now)
}
