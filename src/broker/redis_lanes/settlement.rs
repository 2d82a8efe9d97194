//! How the starts of serial tasks end.
//!
//! An end has three steps. First the messages that follow from the run are published. Then the run's lane is released.
//! Then the broker's delivery is acknowledged. If the process dies after the first step, the task runs again, and the
//! messages that follow are sent again under the same ids. If it dies after the second step, the broker delivers the
//! message again, Redis recognises it as the message of a task that is over, and a sweep of any process sends the next
//! runs.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::sync::oneshot;

use super::RedisLanesInner;
use super::lanes::{ReportReply, StartReport};
use super::leases::{EndingStart, Right};
use crate::broker::dead_letter::{crash_reason, crash_result};
use crate::broker::{BrokerError, Delivery, Settle, Settler, lane};
use crate::core::Backoff;
use crate::task::Message;
use crate::task::clock::now;

/// The first pause before a failed publish is tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest pause before a failed publish is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Settles the deliveries of serial tasks.
pub(super) struct LaneSettler {
    shared: Weak<RedisLanesInner>,
}

impl LaneSettler {
    pub(super) fn new(shared: &Arc<RedisLanesInner>) -> Self {
        Self { shared: Arc::downgrade(shared) }
    }
}

impl Settler for LaneSettler {
    fn note_started(&self, tag: u64) {
        let Some(shared) = self.shared.upgrade() else { return };
        let Some((id, token, crashes)) = shared.leases.begin(tag) else { return };
        shared.clone().runtime.spawn(async move {
            if let Err(error) = shared.lanes.note(&id, token, crashes).await {
                tracing::warn!(%id, %error, "a start is not noted; should it end its process, that is not counted");
            }
        });
    }

    fn write_starts(&self) {}

    fn check_fence(&self, tag: u64) -> Option<oneshot::Receiver<bool>> {
        let shared = self.shared.upgrade();
        let right = shared.as_ref().map_or(Right::Gone, |shared| shared.leases.right(tag));
        if matches!(right, Right::Sure) {
            return None;
        }
        let (answer, asked) = oneshot::channel();
        if let (Right::Ask(id, token), Some(shared)) = (right, shared) {
            shared.clone().runtime.spawn(async move {
                let affirmed = shared
                    .insist("whose a run is cannot be asked yet", || shared.lanes.check_fence(&id, token));
                let _ = answer.send(affirmed.await == Ok(true));
            });
        }
        Some(asked)
    }

    fn settle(&self, tag: u64, settle: Settle, done: Option<oneshot::Sender<Result<(), BrokerError>>>) {
        let Some(shared) = self.shared.upgrade() else { return };
        let Some(claim) = shared.leases.take(tag) else {
            done.map(|done| done.send(Err(BrokerError::Stale)));
            return;
        };
        shared.clone().runtime.spawn(async move {
            let ended = shared.end(claim, settle).await;
            shared.leases.ended(tag);
            shared.ended.notify_waiters();
            done.map(|done| done.send(ended));
        });
    }
}

impl RedisLanesInner {
    async fn end(self: &Arc<Self>, claim: EndingStart, settle: Settle) -> Result<(), BrokerError> {
        let block = lane::block_of(&claim.message, &settle);
        match settle {
            Settle::Ack { follow_ups, .. } => {
                if let Some(follow_ups) = follow_ups {
                    self.publish_what_follows(follow_ups.messages).await?;
                }
                self.leave(claim, &StartReport::Release(block)).await
            }
            Settle::Requeue { mut message, due } => {
                message.eta = due.or(message.eta);
                let due = due.unwrap_or_else(now);
                self.leave(claim, &StartReport::Requeue { message: &message, due, crashed: false }).await
            }
            Settle::Return { .. } if claim.message.crashes >= self.delivery_limit => {
                self.give_up(claim).await // a process that is gone counted the crashes
            }
            Settle::Return { crashed: false } => self.leave(claim, &StartReport::Back).await,
            Settle::Return { crashed: true } => {
                let mut message = Message::clone(&claim.message);
                message.crashes = message.crashes.saturating_add(1);
                if message.crashes >= self.delivery_limit {
                    return self.give_up(EndingStart { message: Arc::new(message), ..claim }).await;
                }
                self.leave(claim, &StartReport::Requeue { message: &message, due: now(), crashed: true })
                    .await
            }
            Settle::Fail { failed, follow_ups, .. } => {
                if let Some(follow_ups) = follow_ups {
                    self.publish_what_follows(follow_ups.messages).await?;
                }
                let kept = Settle::Fail { failed, result: None, follow_ups: None };
                self.keep(claim, kept, block).await
            }
            Settle::DeadLetter { reason, follow_ups, .. } => {
                if let Some(follow_ups) = follow_ups {
                    self.publish_what_follows(follow_ups.messages).await?;
                }
                self.bury(claim, reason, block).await
            }
        }
    }

    /// Hands back a start that was granted under an old name of this process.
    pub(super) async fn hand_back(self: &Arc<Self>, claim: EndingStart) {
        if let Err(error) = self.leave(claim, &StartReport::Back).await {
            tracing::debug!(%error, "a start that was granted too late goes back by itself");
        }
    }

    /// Tells Redis how a start ends, and then settles the broker's delivery.
    async fn leave(self: &Arc<Self>, claim: EndingStart, end: &StartReport<'_>) -> Result<(), BrokerError> {
        let EndingStart { token, delivery, message } = claim;
        let told = self.insist("the end of a serial task cannot be told yet", || {
            self.lanes.end(&message.id, token, end)
        });
        let (ended, due) = told.await?;
        self.send_soon(due);
        if let StartReport::Requeue { due, .. } = end
            && *due > now()
        {
            self.earlier.notify_one();
        }
        match (ended, end) {
            (ReportReply::Done, StartReport::Back) => {
                // Any process may start the run next, so the broker must deliver the message again.
                delivery.settle_and_wait(Settle::Return { crashed: false }).await
            }
            (ReportReply::Forgotten, StartReport::Back) if !delivery.has_lapsed() => {
                // The message comes to its lane anew when the broker delivers it again.
                delivery.settle_and_wait(Settle::Return { crashed: false }).await
            }
            (ReportReply::Done | ReportReply::Anew, _) => {
                // If the acknowledgement is lost, the message comes again and Redis recognises it.
                let _ = delivery.settle_and_wait(Settle::Ack { result: None, follow_ups: None }).await;
                Ok(())
            }
            (ReportReply::Forgotten, StartReport::Release(_)) => {
                delivery.settle(Settle::Ack { result: None, follow_ups: None });
                Ok(())
            }
            (ReportReply::Forgotten, end) => {
                let message =
                    if let StartReport::Requeue { message, .. } = end { message } else { &*message };
                self.begin_anew(Message::clone(message), delivery).await;
                Ok(())
            }
            (ReportReply::Stale, _) => {
                tracing::warn!(id = %message.id, task = message.task, "a run of a serial task has lost its lane; how it ended is not kept");
                delivery.settle(Settle::Ack { result: None, follow_ups: None });
                Err(BrokerError::Stale)
            }
        }
    }

    /// Brings a message to its lane once more, because Redis has lost its memory and RabbitMQ may have no message for
    /// the next run.
    async fn begin_anew(self: &Arc<Self>, message: Message, delivery: Delivery) {
        tracing::warn!(id = %message.id, task = message.task, "Redis has forgotten this run of a serial task; it comes to its lane anew");
        let settle = match self.take_in(message.clone(), false, false).await {
            Ok(_) => Settle::Ack { result: None, follow_ups: None },
            Err(error) if error.is_permanent() => match self.refuse(&message, &error).await {
                Ok(()) => Settle::Ack { result: None, follow_ups: None },
                Err(_) => Settle::Return { crashed: false }, // the next process comes to this point again
            },
            Err(error) => {
                tracing::warn!(%error, "it cannot come yet");
                Settle::Return { crashed: false } // the message comes to its lane when it is delivered again
            }
        };
        delivery.settle(settle);
    }

    /// Makes a dead letter of a run.
    async fn bury(
        self: &Arc<Self>,
        claim: EndingStart,
        reason: String,
        block: Option<String>,
    ) -> Result<(), BrokerError> {
        let letter = Settle::DeadLetter { reason, result: None, follow_ups: None };
        self.keep(claim, letter, block).await
    }

    /// Ends a run with an end of the delivery by which the broker keeps the message. The broker has it before the lane is
    /// released. If the process dies in between, the task runs once more, but is not lost.
    async fn keep(
        self: &Arc<Self>,
        claim: EndingStart,
        end: Settle,
        block: Option<String>,
    ) -> Result<(), BrokerError> {
        let EndingStart { token, delivery, message } = claim;
        let told = || self.lanes.check_fence(&message.id, token);
        if !self.insist("whose a run is cannot be asked yet", told).await? {
            self.leave(EndingStart { token, delivery, message }, &StartReport::Back).await?;
            return Err(BrokerError::Stale);
        }
        let kept = delivery.settle_and_wait(end).await;
        let end = match &kept {
            Ok(()) => StartReport::Release(block),
            // The broker has the message again. The process that gets the message from the broker decides once more.
            Err(_) => StartReport::Requeue { message: &message, due: now(), crashed: false },
        };
        let told = self.insist("the end of a serial task cannot be told yet", || {
            self.lanes.end(&message.id, token, &end)
        });
        let (_, due) = told.await?;
        self.send_soon(due);
        kept
    }

    /// Makes a dead letter of a task whose runs kept ending with their process.
    async fn give_up(self: &Arc<Self>, claim: EndingStart) -> Result<(), BrokerError> {
        let record = crash_result(&claim.message);
        let reason = crash_reason(claim.message.crashes);
        tracing::error!(id = %claim.message.id, reason, "REJECTED");
        let block = lane::blocks(&claim.message, Some(&record));
        if let Some(listener) = self.listener.get() {
            listener.over(record, Some(&claim.message));
        }
        self.bury(claim, reason, block).await
    }

    /// Publishes the messages that follow from a run, however long each of them takes. If the broker refuses a message
    /// for good, the task of this message fails and holds up no lane.
    async fn publish_what_follows(self: &Arc<Self>, messages: Vec<Message>) -> Result<(), BrokerError> {
        try_join_all(messages.into_iter().map(|message| self.publish_follower(message))).await.map(drop)
    }

    async fn publish_follower(self: &Arc<Self>, message: Message) -> Result<(), BrokerError> {
        let mut backoff = Backoff::new(PAUSE, LONGEST_PAUSE);
        loop {
            match self.inner.publish_all(vec![message.clone()], false).await {
                Ok(()) | Err(BrokerError::DuplicateId(_)) => return Ok(()),
                Err(BrokerError::Closed) => return Err(BrokerError::Closed),
                Err(error) if error.is_permanent() => return self.refuse(&message, &error).await,
                Err(error) => {
                    tracing::warn!(id = %message.id, %error, "what follows from a serial task cannot be published yet");
                }
            }
            let paused = self.closing.run_until_cancelled(tokio::time::sleep(backoff.pause())).await;
            paused.ok_or(BrokerError::Closed)?;
        }
    }
}
