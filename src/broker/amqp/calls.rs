//! How the broker publishes the calls of the program.
//!
//! A call is written on the thread of its caller, so that the calls of a program are written on all threads from which it calls.
//! The broker's thread is left out unless something has to be declared or opened first.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use futures_util::future;

use super::AmqpBroker;
use super::post::OutgoingMessage;
use super::publisher::Attempt;
use crate::broker::BrokerError;
use crate::task::{Durability, Message, Receipt};

/// A call that is written for its way.
pub(super) struct PreparedCall {
    post: OutgoingMessage,
    /// The partition of its queue that it goes to.
    partition: Option<u8>,
}

impl AmqpBroker {
    /// Writes a call.
    ///
    /// # Errors
    /// The broker is closed, or RabbitMQ cannot carry the call.
    pub(super) fn prepare(&self, message: &Message) -> Result<PreparedCall, BrokerError> {
        self.still_open()?;
        self.shared.vain_priorities.look(message, &self.shared.options);
        let partition = self.shared.partitions.choose(message);
        Ok(PreparedCall { post: self.shared.write_call(message, partition)?, partition })
    }

    /// Publishes a call that is written.
    ///
    /// # Errors
    /// RabbitMQ has refused the call, or it is not known whether RabbitMQ has it.
    pub(super) async fn send(
        &self,
        message: Arc<Message>,
        call: PreparedCall,
    ) -> Result<Receipt, BrokerError> {
        let PreparedCall { post, partition } = call;
        let mut durability = if post.confirm { Durability::Disk } else { Durability::Memory };
        let mut attempt = Attempt::new(self.shared.options.publish_timeout);
        if !self.shared.publisher.publish_at_once(post, &mut attempt).await? {
            // It is boxed, because each publish would have room for it, and few need it.
            Box::pin(self.go_on(&message, partition, attempt)).await?;
            durability = Durability::Disk;
        }
        Ok(Receipt::new(message.id.clone(), message.queue.clone(), durability))
    }

    /// Publishes a call for which something has to be done first, or that has to be sent again.
    async fn go_on(
        &self,
        message: &Message,
        partition: Option<u8>,
        mut attempt: Attempt,
    ) -> Result<(), BrokerError> {
        let post = self.shared.write_call(message, partition)?;
        let publisher = Arc::clone(&self.shared.publisher);
        // The publish counts from here on, not from when the broker's thread comes to it, so that no later
        // publish overtakes it.
        let announced = Arc::clone(&publisher).announce();
        self.there(async move {
            let mut going = pin!(publisher.go_on(&post, &mut attempt));
            // After the first poll the publish itself stands at the gate, and need not be announced any more.
            let first = future::poll_fn(|cx| Poll::Ready(going.as_mut().poll(cx))).await;
            drop(announced);
            match first {
                Poll::Ready(published) => published,
                Poll::Pending => going.await,
            }
        })
        .await
    }
}
