//! Publishing a call, together with the permit that was handed over to it, and counting and telling that it was sent. If the
//! call is not taken, the permit is given back, because no task will come for it.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::Runtime;
use crate::store::sent_marks::{marks_of, write_marks};
use crate::task::{
    Durability, EnqueueError, EventGroup, EventKind, HandedOver, Headers, Message, NewTask, PermitKeeper,
    Receipt, SenderCount, TaskEvent,
};

/// How many of the calls that are made together wait for their confirmations at a time.
const IN_FLIGHT: usize = 1024;

/// A call that is about to be published: how it is counted, and its message if anybody listens.
pub(crate) struct CallToTell {
    count: Arc<SenderCount>,
    heard: Option<Arc<Message>>,
}

impl Runtime {
    /// Makes the message of a call, for [`send`](Self::send). This waits for nothing, so that neither the call nor the message
    /// lies in the future of an enqueue that waits for its receipt.
    pub(crate) fn prepare(&self, call: NewTask) -> Result<(Arc<Message>, Unsent), EnqueueError> {
        let unsent = self.unsent(&call.headers);
        Ok((Arc::new(self.dispatcher.message(call)?), unsent))
    }

    /// Publishes a message that is made already. With `unique`, its id must be new to the broker.
    pub(crate) async fn publish(&self, message: Message, unique: bool) -> Result<Receipt, EnqueueError> {
        let unsent = self.unsent(&message.headers);
        self.send(Arc::new(message), unique, unsent).await
    }

    /// Makes the messages of these calls and publishes them together; the receipts are in the order of the calls.
    pub(crate) async fn enqueue_many(&self, calls: Vec<NewTask>) -> Result<Vec<Receipt>, EnqueueError> {
        let unique = calls.iter().any(|call| call.id.is_some());
        let unsent: Vec<Unsent> = calls.iter().map(|call| self.unsent(&call.headers)).collect();
        // All messages are made before any is sent, so that a call which is refused here sends nothing.
        let made: Result<Vec<Message>, EnqueueError> =
            calls.into_iter().map(|call| self.dispatcher.message(call)).collect();
        let messages = made?;
        if unique {
            all_differ(&messages)?;
        }
        // All marks come before the first message, so that the publishes begin in the order of the calls.
        if self.marks_sent {
            for some in messages.chunks(IN_FLIGHT) {
                write_marks(&*self.store, marks_of(some)).await;
            }
        }
        // A broker elsewhere answers for each message by itself, and may leave one to the outbox.
        if !self.broker.facts().knows_all || !messages.iter().all(goes_with_others) {
            let sends = stream::iter(messages.into_iter().zip(unsent));
            // Each future sends when it is polled first, so that the order stays.
            let sends = sends.map(|(message, unsent)| self.send_marked(Arc::new(message), unique, unsent));
            return sends.buffered(IN_FLIGHT).try_collect().await;
        }
        let receipts = messages.iter().map(|m| Receipt::new(m.id.clone(), m.queue.clone(), m.durability));
        let receipts: Vec<Receipt> = receipts.collect();
        let sent = self.to_tell(&messages);
        self.broker.publish_all(messages, unique).await?;
        self.tell_sent(sent);
        unsent.into_iter().for_each(Unsent::sent);
        Ok(receipts)
    }

    /// Publishes a message. With `unique`, its id must be new to the broker. `unsent` is the permit that goes along.
    pub(crate) async fn send(
        &self,
        message: Arc<Message>,
        unique: bool,
        unsent: Unsent,
    ) -> Result<Receipt, EnqueueError> {
        if self.marks_sent {
            // It is boxed, because each enqueue would have room for it, and few programs keep marks.
            Box::pin(write_marks(&*self.store, marks_of([&*message]))).await;
        }
        self.send_marked(message, unique, unsent).await
    }

    /// Publishes a message of which the store knows that it is sent, if the store is told of that at all.
    async fn send_marked(
        &self,
        message: Arc<Message>,
        unique: bool,
        unsent: Unsent,
    ) -> Result<Receipt, EnqueueError> {
        let sent = self.call_to_tell(&message, || Arc::clone(&message));
        let receipt = self.broker.begin_publish(message, unique).await?;
        if !receipt.joined {
            self.tell_sent([sent]);
        }
        unsent.taken(&receipt);
        Ok(receipt)
    }

    /// The call that [`tell_sent`](Self::tell_sent) will count and tell of, when it is published. `shared` makes the message
    /// that the event holds.
    fn call_to_tell(&self, message: &Message, shared: impl FnOnce() -> Arc<Message>) -> CallToTell {
        let count = self.events.counts().of(&message.task, &message.queue);
        CallToTell { count, heard: self.events.is_heard(EventGroup::Sent).then(shared) }
    }

    /// The calls that [`tell_sent`](Self::tell_sent) will count and tell of, when they are published.
    pub(crate) fn to_tell(&self, messages: &[Message]) -> Vec<CallToTell> {
        messages.iter().map(|message| self.call_to_tell(message, || Arc::new(message.clone()))).collect()
    }

    /// Counts and tells that these calls were published.
    pub(crate) fn tell_sent(&self, calls: impl IntoIterator<Item = CallToTell>) {
        for CallToTell { count, heard } in calls {
            count.sent();
            if let Some(message) = heard {
                self.events.emit(EventGroup::Sent, || Some(TaskEvent::now(message, EventKind::Sent)));
            }
        }
    }

    /// The permit that travels with these headers. It is given back when the result is dropped, unless the call was
    /// taken.
    pub(crate) fn unsent(&self, headers: &Headers) -> Unsent {
        if headers.0.is_empty() {
            return Unsent(None); // a permit travels in the headers
        }
        Unsent(self.handed_over(headers).map(Box::new))
    }

    fn handed_over(&self, headers: &Headers) -> Option<(HandedOver, Arc<dyn PermitKeeper>)> {
        let handed = HandedOver::of_headers(headers)?;
        Some((handed, self.permits.clone()?))
    }
}

/// Finds an id that two of the messages have. A broker that takes messages together compares their ids only with those that it
/// knows.
///
/// # Errors
/// Two messages have one id.
fn all_differ(messages: &[Message]) -> Result<(), EnqueueError> {
    let mut ids = HashSet::with_capacity(messages.len());
    match messages.iter().find(|message| !ids.insert(&message.id)) {
        Some(message) => Err(EnqueueError::DuplicateId { id: message.id.clone() }),
        None => Ok(()),
    }
}

/// Whether a broker may take this message in one step with others. One that may join an earlier call needs an answer of
/// its own, and so does a newcomer in a lane. What waits in memory does not go to the disk with others.
fn goes_with_others(message: &Message) -> bool {
    message.unique.is_none() && message.serial.is_none() && message.durability == Durability::Disk
}

/// The permit that was handed over to a call which is not taken yet. Dropping this gives it back. If the broker has
/// taken the message all the same, its task asks for the permit anew.
pub(crate) struct Unsent(Option<Box<(HandedOver, Arc<dyn PermitKeeper>)>>);

impl Unsent {
    /// Keeps the permit for the call, unless the call has joined another task.
    pub(crate) fn taken(self, receipt: &Receipt) {
        if !receipt.joined {
            self.sent();
        }
    }

    /// Keeps the permit for the call.
    pub(crate) fn sent(mut self) {
        self.0 = None;
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        if let Some(unsent) = self.0.take() {
            let (handed, keeper) = *unsent;
            handed.release(&*keeper);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::MemoryBroker;
    use crate::store::MemoryStore;
    use crate::task::canvas::CanvasLimits;
    use crate::task::registry::Registry;
    use crate::task::{Dispatcher, OneQueue, TaskOptions};

    fn runtime() -> Runtime {
        let dispatcher = Dispatcher {
            registry: Registry::from_definitions(std::iter::empty()).unwrap(),
            route: Box::new(OneQueue),
            max_message_size: 1 << 16,
            limits: CanvasLimits::default(),
            reply_to: None,
            without_lanes: None,
            without_windows: None,
            without_exchanges: None,
            indexes_arguments: false,
        };
        let store = Arc::new(MemoryStore::default());
        let broker = Arc::new(MemoryBroker::new(Arc::clone(&store)));
        Runtime::new(broker, store, Arc::new(dispatcher))
    }

    /// Hundreds of enqueues wait for one commit, and each of them has this future.
    #[tokio::test]
    async fn what_waits_for_a_receipt_holds_no_message() {
        let runtime = runtime();
        let (message, unsent) = runtime.prepare(NewTask::new("t", TaskOptions::default())).unwrap();
        let id = message.id.clone();
        let again = Arc::clone(&message);
        let sending = runtime.send(message, true, unsent);
        let size = size_of_val(&sending);
        assert!(size <= 384, "{size} bytes");
        let receipt = sending.await.unwrap();
        assert_eq!((receipt.queue.as_str(), &receipt.id), ("q", &id));
        let twice = runtime.send(again, true, Unsent(None)).await;
        assert_eq!(twice, Err(EnqueueError::DuplicateId { id }));
    }
}
