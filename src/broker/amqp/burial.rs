//! What becomes of a message that follows from a run and that RabbitMQ refuses for good: it goes to the dead letters,
//! and its task fails with the reason.
//!
//! The letter comes first. Whoever reads that the task has failed finds its letter. If the process goes before RabbitMQ
//! has confirmed the letter, the delivery that all this follows from is not acknowledged, so it comes to the same end
//! again.

use std::time::Duration;

use super::post::{Aim, OutgoingMessage};
use super::{AmqpInner, outgoing};
use crate::broker::{BrokerError, refusal_reason, refused_result};
use crate::task::Message;

/// The pause before a dead letter that RabbitMQ has refused for good is tried again.
const LETTER_PAUSE: Duration = Duration::from_secs(60);

impl AmqpInner {
    /// Publishes what follows from a delivery, however long that takes; `full` is called if the target queue is
    /// full. A task that RabbitMQ refuses for good is given up, which settles the matter. A dead letter is never
    /// given up.
    pub(super) async fn deliver(&self, post: &OutgoingMessage, full: impl Fn()) -> Result<(), BrokerError> {
        if post.aim == Aim::Failed {
            return self.keep_failed(post).await;
        }
        match (self.publisher.insist(post, &full).await, &post.task) {
            (Err(error), Some(message)) if error.is_permanent() => self.give_up(message, &error, &full).await,
            (Err(refused), None) if refused.is_permanent() && post.aim == Aim::Dead => {
                full();
                self.insist_on_letter(post).await
            }
            // The queue's own exchange for its letters does not take the letter.
            (Err(error), None) if error.is_permanent() && matches!(post.aim, Aim::Exchange { .. }) => {
                tracing::warn!(%error, "a dead letter is kept with those of other queues");
                let letter = post.clone().into_dead();
                match self.publisher.insist(&letter, &full).await {
                    Err(refused) if refused.is_permanent() => self.insist_on_letter(&letter).await,
                    done => done,
                }
            }
            (done, _) => done,
        }
    }

    /// Publishes a dead letter that RabbitMQ has refused. The delivery is kept until somebody has removed the
    /// reason, because no other process has the task.
    async fn insist_on_letter(&self, post: &OutgoingMessage) -> Result<(), BrokerError> {
        let plain = outgoing::plain(post);
        loop {
            match self.publisher.insist(&plain, || {}).await {
                Err(error) if error.is_permanent() => {
                    tracing::error!(%error, "a dead letter is refused; it is kept, and tried again in a minute");
                }
                done => return done,
            }
            tokio::time::sleep(LETTER_PAUSE).await;
        }
    }

    /// Gives up a task that was promised to run and that RabbitMQ refuses for good: its message becomes a dead letter,
    /// however long that takes, and then the task fails with the reason, and so does what was to follow from it.
    ///
    /// # Errors
    /// The broker is closed before the letter is there.
    async fn give_up(
        &self,
        message: &Message,
        error: &BrokerError,
        full: impl FnOnce(),
    ) -> Result<(), BrokerError> {
        let reason = refusal_reason(error);
        tracing::error!(id = %message.id, task = message.task, queue = message.queue, reason, "FAILURE");
        let letter = outgoing::letter(message, &reason);
        let mut buried = self.publisher.insist(&letter, full).await;
        if buried.as_ref().is_err_and(BrokerError::is_permanent) {
            buried = self.publisher.insist(&outgoing::plain(&letter), || {}).await;
        }
        match buried {
            Ok(()) => {}
            // A letter that is as large as a message that is too large is refused like the message. Unlike the letter
            // of a delivery it is not tried for ever, because its delivery would never end.
            Err(error) if error.is_permanent() => {
                tracing::error!(id = %message.id, task = message.task, %error, "it is in no dead letters");
            }
            Err(error) => return Err(error),
        }
        if let Some(listener) = self.listener.get() {
            listener.end(refused_result(message, reason), Some(message)).await;
        }
        Ok(())
    }

    /// Makes a dead letter of a message, as long as a caller of this broker waits for a publish.
    pub(super) async fn bury(&self, message: &Message, reason: &str) -> Result<(), BrokerError> {
        let (letter, patience) = (outgoing::letter(message, reason), self.options.publish_timeout);
        match self.publisher.publish(&letter, patience).await {
            Err(error) if error.is_permanent() => {
                self.publisher.publish(&outgoing::plain(&letter), patience).await
            }
            done => done,
        }
    }
}
