//! How deliveries end. The messages that follow from a run are published and confirmed before the delivery is
//! acknowledged. If the process or the connection is lost in between, RabbitMQ delivers the task again, and nothing is
//! lost.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{try_join, try_join_all};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::super::AmqpInner;
use super::super::outgoing;
use super::super::post::OutgoingMessage;
use super::deletion::QueueDoubt;
use super::in_flight::DeliveryLocation;
use super::{ConsumerCommand, Done, QueueConsumer};
use crate::broker::dead_letter::{crash_reason, crash_result, unsendable_result};
use crate::broker::{BrokerError, Settle};
use crate::task::Message;
use crate::task::clock::now;

/// How long a task stays here before it goes back, if the messages that follow from it could not be published.
const RETURNS_AFTER: Duration = Duration::from_secs(30);

/// The number of bytes, and the number of messages, that one run may have on their way at a time.
const ROOM: usize = 4 << 20;
const IN_FLIGHT: usize = 256;

impl QueueConsumer {
    /// Gives back the deliveries that have stayed here long enough, each with a crash counted. A task that comes to the
    /// same end in each of its runs would go back for ever, so the delivery limit has to end it.
    pub(super) fn return_the_rested(&mut self) {
        let now = tokio::time::Instant::now();
        while let Some((_, tag)) = self.returning.pop_front_if(|(at, _)| *at <= now) {
            let Some(in_flight) = self.in_flight.get_mut(&tag) else { continue };
            in_flight.posting = false;
            if in_flight.place == DeliveryLocation::Lost {
                // RabbitMQ delivers the message again by itself. The crash is counted when the message comes.
                in_flight.ended = Some(Box::new(Settle::Return { crashed: true }));
            } else {
                self.settle(tag, Settle::Return { crashed: true }, None);
            }
        }
    }

    /// Ends a delivery.
    pub(super) fn settle(&mut self, tag: u64, settle: Settle, done: Option<Done>) {
        let Some(in_flight) = self.in_flight.get_mut(&tag).filter(|h| !h.posting && h.ended.is_none()) else {
            answer(done, Err(BrokerError::Stale));
            return;
        };
        if in_flight.place == DeliveryLocation::Lost {
            // RabbitMQ has the message back. If the run is over, its end takes effect when the message comes again,
            // provided that it comes to this process. A task that is acknowledged early has not run yet, so it may run
            // wherever the message comes again. One that was not started is given back to a queue that may be gone.
            let takes_effect = match settle {
                Settle::Return { .. } => self.doubt == Some(QueueDoubt::Cancelled),
                _ => in_flight.message.acks_late,
            };
            if takes_effect {
                in_flight.ended = Some(Box::new(settle));
            } else {
                self.let_go(tag);
            }
            return answer(done, Err(BrokerError::Stale));
        }
        // From here on a message of this task may be one that follows from this run.
        if in_flight.place == DeliveryLocation::Gone {
            self.lost.remove(&in_flight.message.id);
        }
        match settle {
            // This case is by far the most frequent one.
            Settle::Ack { follow_ups: None, .. } => self.posted(tag, Ok(()), done),
            Settle::Ack { follow_ups, .. } => {
                let messages = follow_ups.map(|follow_ups| follow_ups.messages).unwrap_or_default();
                self.post(tag, messages, None, done);
            }
            Settle::Fail { failed, follow_ups, .. } => {
                let messages = follow_ups.map(|follow_ups| follow_ups.messages).unwrap_or_default();
                // There is no queue to which the task of a broadcast could go back.
                let kept = self.own_queue.is_none().then(|| outgoing::failed(&failed));
                self.post(tag, messages, kept, done);
            }
            Settle::Requeue { mut message, due } => {
                message.eta = due.or(message.eta);
                self.send_back(tag, *message, done);
            }
            Settle::Return { crashed: true } => self.crashed(tag, done),
            Settle::Return { crashed: false } => self.hand_back(tag, done),
            Settle::DeadLetter { reason, follow_ups, .. } => {
                let messages = follow_ups.map(|follow_ups| follow_ups.messages).unwrap_or_default();
                let letter = self.letter_of(tag, &reason);
                self.post(tag, messages, letter, done);
            }
        }
    }

    /// Makes a dead letter of a delivery because the broker itself decides so, and tells the runtime that the task is
    /// over.
    pub(super) fn bury(&mut self, tag: u64, reason: &str, done: Option<Done>) {
        let Some(in_flight) = self.in_flight.get(&tag) else { return };
        self.shared.over(crash_result(&in_flight.message), Some(&in_flight.message));
        let letter = self.letter_of(tag, reason);
        self.post(tag, Vec::new(), letter, done);
    }

    /// Counts a crash. The message goes back into its queue with the new count, or to the dead letters.
    fn crashed(&mut self, tag: u64, done: Option<Done>) {
        let Some(in_flight) = self.in_flight.get_mut(&tag) else { return };
        let mut message = Message::clone(&in_flight.message);
        message.crashes = message.crashes.saturating_add(1);
        // The count stays with the delivery. If the message cannot be published either, the next return counts on from
        // it.
        in_flight.message = Arc::new(message.clone());
        if message.crashes >= self.shared.options.delivery_limit {
            self.bury(tag, &crash_reason(message.crashes), done);
        } else {
            self.send_back(tag, message, done);
        }
    }

    /// Gives back a delivery whose task did not run.
    fn hand_back(&mut self, tag: u64, done: Option<Done>) {
        let Some(in_flight) = self.in_flight.get(&tag) else { return };
        match in_flight.place {
            // The copy in the guard queue says that the task runs, which it does not, and it would wait for its time to
            // live. If the message is gone, there is nothing to give back. So it is published anew.
            DeliveryLocation::GuardQueue { .. } | DeliveryLocation::Gone if self.own_queue.is_some() => {
                self.keep_or_drop(tag, done);
            }
            DeliveryLocation::GuardQueue { .. } | DeliveryLocation::Gone => {
                let message = Message::clone(&in_flight.message);
                self.post(tag, vec![message], None, done);
            }
            place => {
                self.in_flight.remove(&tag);
                self.give_back(place);
                self.flushed.extend(done);
            }
        }
    }

    /// Publishes `messages` and the message that is `written` already, then acknowledges. It writes a batch at a time,
    /// so that a message that waits for its turn is in memory once only.
    pub(super) fn post(
        &mut self,
        tag: u64,
        messages: Vec<Message>,
        written: Option<OutgoingMessage>,
        done: Option<Done>,
    ) {
        if messages.is_empty() && written.is_none() {
            return self.posted(tag, Ok(()), done);
        }
        let Some(in_flight) = self.in_flight.get_mut(&tag) else { return };
        in_flight.posting = true;
        let (shared, own) = (Arc::clone(&self.shared), self.own.clone());
        self.shared.runtime.spawn(async move {
            let waits = || drop(own.send(ConsumerCommand::Waits(tag)));
            let room = Semaphore::new(ROOM);
            let all = try_join_all(messages.into_iter().map(|message| send(message, &shared, &room, &waits)));
            let written = async {
                match &written {
                    Some(post) => shared.deliver(post, &waits).await,
                    None => Ok(()),
                }
            };
            let result = try_join(all, written).await.map(|_| ());
            let _ = own.send(ConsumerCommand::Posted { tag, result, done });
        });
    }

    /// Ends a delivery whose follow-ups are published, or can never be published.
    pub(super) fn posted(&mut self, tag: u64, result: Result<(), BrokerError>, done: Option<Done>) {
        // Mostly none waits, and then there is nothing to look up.
        if !self.waiting.is_empty() && self.waiting.remove(&tag) && self.waiting.is_empty() {
            self.make_room();
        }
        let Some(mut in_flight) = self.in_flight.remove(&tag) else { return answer(done, result) };
        let rejected = in_flight.rejected.take();
        if let (Ok(()), Some(reason)) = (&result, rejected) {
            return self.reject(tag, in_flight, reason, done);
        }
        match result {
            Ok(()) if in_flight.place == DeliveryLocation::Lost => {
                // The message comes again although its task is over. If it comes to this process, it is acknowledged
                // then.
                in_flight.posting = false;
                in_flight.ended = Some(Box::new(Settle::Ack { result: None, follow_ups: None }));
                self.in_flight.insert(tag, in_flight);
                answer(done, Ok(()));
            }
            Ok(()) if in_flight.place == DeliveryLocation::Gone => answer(done, Ok(())),
            Ok(()) => {
                self.acknowledge(in_flight.place);
                self.flushed.extend(done);
            }
            // RabbitMQ refuses for good to delay the message, so the message waits here. If it went back, it would come
            // again at once.
            Err(error) if error.is_permanent() && in_flight.message.eta.is_some_and(|eta| eta > now()) => {
                tracing::warn!(queue = self.queue, id = %in_flight.message.id, %error, "a message cannot be delayed by RabbitMQ and waits here");
                in_flight.posting = false;
                self.early.extend(in_flight.message.eta.map(|eta| (eta, tag)));
                self.in_flight.insert(tag, in_flight);
                answer(done, Err(error));
            }
            Err(BrokerError::Closed) => {
                self.lost.remove(&in_flight.message.id);
                self.give_back(in_flight.place);
                answer(done, Err(BrokerError::Closed));
            }
            // The follow-ups could not be published now, and they could not be published if the task ran again at once
            // either.
            Err(error) => {
                tracing::error!(queue = self.queue, id = %in_flight.message.id, %error, pause = ?RETURNS_AFTER,
                    "what follows from a run cannot be published; the task goes back after a pause, as after a crash");
                in_flight.posting = true; // nothing else may end the delivery meanwhile
                self.in_flight.insert(tag, in_flight);
                self.returning.push_back((tokio::time::Instant::now() + RETURNS_AFTER, tag));
                answer(done, Err(error));
            }
        }
    }

    /// Notes that the channel of a delivery is gone.
    pub(super) fn lost(&mut self, tag: u64) {
        let Some(in_flight) = self.in_flight.get_mut(&tag) else { return };
        if !matches!(in_flight.place, DeliveryLocation::Lost | DeliveryLocation::Gone) {
            in_flight.place = DeliveryLocation::Lost;
            in_flight.handing_over = false;
            in_flight.since = tokio::time::Instant::now();
            self.lost.insert(in_flight.message.id.clone(), tag);
        }
    }

    /// Notes that a lost delivery will not come again, because its queue was deleted. This process publishes the messages
    /// that follow from the run at its end, or now if it has ended.
    pub(super) fn gone(&mut self, tag: u64) {
        let Some(in_flight) = self.in_flight.get_mut(&tag) else { return };
        in_flight.place = DeliveryLocation::Gone;
        if let Some(settle) = in_flight.ended.take() {
            self.settle(tag, *settle, None);
        }
    }

    /// Takes up a lost delivery that has come again. Its run goes on, or the delivery ends as its run has ended
    /// already.
    pub(super) fn found(&mut self, tag: u64, place: DeliveryLocation) {
        let Some(in_flight) = self.in_flight.get_mut(&tag) else { return };
        tracing::debug!(queue = self.queue, id = %in_flight.message.id, "a task that goes on here came again and is recognised");
        in_flight.place = place;
        if let DeliveryLocation::Queue { consumer, .. } = place {
            in_flight.source = self.plan.source_of(consumer);
        }
        in_flight.since = tokio::time::Instant::now();
        in_flight.suspect = true;
        self.lost.remove(&in_flight.message.id);
        if let Some(settle) = in_flight.ended.take() {
            self.settle(tag, *settle, None);
        }
    }

    /// Forgets a delivery, because it belongs to another process by now.
    pub(super) fn let_go(&mut self, tag: u64) {
        if let Some(in_flight) = self.in_flight.remove(&tag)
            && self.lost.get(&in_flight.message.id) == Some(&tag)
        {
            self.lost.remove(&in_flight.message.id);
        }
    }
}

/// Publishes a message when there is room for it. A message that waits because its queue is full takes no room from the
/// others.
async fn send(
    message: Message,
    shared: &Arc<AmqpInner>,
    room: &Semaphore,
    waits: &impl Fn(),
) -> Result<(), BrokerError> {
    let size = message.arguments.len().clamp(ROOM / IN_FLIGHT, ROOM);
    let size = u32::try_from(size).unwrap_or(u32::MAX);
    let taken = Mutex::new(room.acquire_many(size).await.ok());
    let post = post_of(Arc::new(message), shared);
    let full = || {
        *taken.lock() = None;
        waits();
    };
    shared.deliver(&post, full).await
}

/// Writes a message for its way. A message that cannot be written goes to the dead letters, and its task has failed. If
/// the run that it follows from went back instead, the run would come to the same end again, for ever.
fn post_of(message: Arc<Message>, shared: &AmqpInner) -> OutgoingMessage {
    // The runtime is told which task it was, should RabbitMQ refuse it.
    let follower = shared.write(&message, shared.partitions.choose(&message));
    let follower = follower.map(|post| OutgoingMessage { task: Some(Arc::clone(&message)), ..post });
    follower.unwrap_or_else(|error| {
        let reason = format!("it cannot be sent: {error}");
        tracing::error!(queue = message.queue, id = %message.id, %error, "a task cannot be sent; it is in the dead letters");
        shared.over(unsendable_result(&message, &reason), Some(&message));
        outgoing::letter(&message, &reason)
    })
}

pub(super) fn answer(done: Option<Done>, verdict: Result<(), BrokerError>) {
    if let Some(done) = done {
        let _ = done.send(verdict);
    }
}

#[cfg(test)]
mod tests;
