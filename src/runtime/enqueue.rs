//! Publishing a call, together with the permit that was handed over to it. If the call is not taken, the permit is
//! given back, because no task will come for it.

use std::sync::Arc;

use super::Runtime;
use crate::store::sent_marks::{marks_of, write_marks};
use crate::task::{EnqueueError, HandedOver, Headers, Message, NewTask, PermitKeeper, Receipt};

impl Runtime {
    /// Makes the message of a call and publishes it. With `unique`, its id must be new to the broker.
    pub(crate) async fn enqueue(&self, call: NewTask, unique: bool) -> Result<Receipt, EnqueueError> {
        let unsent = self.unsent(&call.headers);
        let message = self.dispatcher.message(call)?;
        self.send(message, unique, unsent).await
    }

    /// As [`enqueue`](Self::enqueue), for a message that is made already.
    pub(crate) async fn publish(&self, message: Message, unique: bool) -> Result<Receipt, EnqueueError> {
        let unsent = self.unsent(&message.headers);
        self.send(message, unique, unsent).await
    }

    async fn send(&self, message: Message, unique: bool, unsent: Unsent) -> Result<Receipt, EnqueueError> {
        let sent = self.to_tell([&message]);
        if self.marks_sent {
            write_marks(&*self.store, marks_of([&message])).await;
        }
        let receipt = self.broker.publish(message, unique).await?;
        if !receipt.joined {
            self.tell_sent(sent);
        }
        unsent.taken(&receipt);
        Ok(receipt)
    }

    /// The permit that travels with these headers. It is given back when the result is dropped, unless the call was
    /// taken.
    pub(crate) fn unsent(&self, headers: &Headers) -> Unsent {
        Unsent(HandedOver::of_headers(headers).zip(self.permits.clone()))
    }
}

/// The permit that was handed over to a call which is not taken yet. Dropping this gives it back. If the broker has
/// taken the message all the same, its task asks for the permit anew.
pub(crate) struct Unsent(Option<(HandedOver, Arc<dyn PermitKeeper>)>);

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
        if let Some((handed, keeper)) = self.0.take() {
            handed.release(&*keeper);
        }
    }
}
