//! How the starts of serial tasks end.
//!
//! What follows from one is published first, then its lane is released, then the broker's delivery is acknowledged. Should the
//! process go after the first, the task runs again and what follows is sent again, under the same ids; after the second, the
//! delivery that comes again is recognised as one of a task that is over, and the next ones are sent by whoever sweeps.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Shared;
use super::claims::{Claim, Right};
use crate::broker::dead_letter::{crash_reason, crash_result};
use crate::broker::{BrokerError, Delivery, Settle, Settler, lane};
use crate::store::redis::lanes::{End, Ended};
use crate::task::Message;
use crate::task::clock::now;

/// How long it is waited before what could not be published is tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// Settles the deliveries of serial tasks.
pub(super) struct LaneSettler {
    shared: Weak<Shared>,
}

impl LaneSettler {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::downgrade(shared) }
    }
}

impl Settler for LaneSettler {
    fn started(&self, tags: &[u64]) {
        let Some(shared) = self.shared.upgrade() else { return };
        for (id, token, crashes) in tags.iter().filter_map(|tag| shared.claims.begin(*tag)) {
            let noting = Arc::clone(&shared);
            shared.runtime.spawn(async move {
                if let Err(error) = noting.lanes.note(&id, token, crashes).await {
                    tracing::warn!(%id, %error, "a start is not noted; should it end its process, that is not counted");
                }
            });
        }
    }

    fn affirm(&self, tag: u64) -> Option<oneshot::Receiver<bool>> {
        let shared = self.shared.upgrade();
        let right = shared.as_ref().map_or(Right::Gone, |shared| shared.claims.right(tag));
        if matches!(right, Right::Sure) {
            return None;
        }
        let (answer, asked) = oneshot::channel();
        if let (Right::Ask(id, token), Some(shared)) = (right, shared) {
            shared.clone().runtime.spawn(async move {
                let affirmed =
                    shared.insist("whose a run is cannot be asked yet", || shared.lanes.affirm(&id, token));
                let _ = answer.send(affirmed.await == Ok(true));
            });
        }
        Some(asked)
    }

    fn settle(&self, tag: u64, settle: Settle, done: Option<oneshot::Sender<Result<(), BrokerError>>>) {
        let Some(shared) = self.shared.upgrade() else { return };
        let Some(claim) = shared.claims.take(tag) else {
            done.map(|done| done.send(Err(BrokerError::Stale)));
            return;
        };
        shared.clone().runtime.spawn(async move {
            let ended = shared.end(claim, settle).await;
            shared.claims.ended(tag);
            shared.ended.notify_waiters();
            done.map(|done| done.send(ended));
        });
    }
}

impl Shared {
    async fn end(self: &Arc<Self>, claim: Claim, settle: Settle) -> Result<(), BrokerError> {
        let block = lane::block_of(&claim.message, &settle);
        match settle {
            Settle::Ack { sequel, .. } => {
                if let Some(sequel) = sequel {
                    self.publish_what_follows(sequel.messages).await?;
                }
                self.leave(claim, &End::Release(block)).await
            }
            Settle::Requeue { mut message, due } => {
                message.eta = due.or(message.eta);
                let due = due.unwrap_or_else(now);
                self.leave(claim, &End::Requeue { message: &message, due, crashed: false }).await
            }
            Settle::Return { .. } if claim.message.crashes >= self.delivery_limit => {
                self.give_up(claim).await // it has come from a process that is gone
            }
            Settle::Return { crashed: false } => self.leave(claim, &End::Back).await,
            Settle::Return { crashed: true } => {
                let mut message = Message::clone(&claim.message);
                message.crashes += 1;
                if message.crashes >= self.delivery_limit {
                    return self.give_up(Claim { message: Arc::new(message), ..claim }).await;
                }
                self.leave(claim, &End::Requeue { message: &message, due: now(), crashed: true }).await
            }
            Settle::DeadLetter { reason, sequel, .. } => {
                if let Some(sequel) = sequel {
                    self.publish_what_follows(sequel.messages).await?;
                }
                self.bury(claim, reason, block).await
            }
        }
    }

    /// A start whose process is another one by now goes back.
    pub(super) async fn hand_back(self: &Arc<Self>, claim: Claim) {
        if let Err(error) = self.leave(claim, &End::Back).await {
            tracing::debug!(%error, "a start that was granted too late goes back by itself");
        }
    }

    /// Tells Redis how a start ends, and then the broker.
    async fn leave(self: &Arc<Self>, claim: Claim, end: &End<'_>) -> Result<(), BrokerError> {
        let Claim { token, delivery, message } = claim;
        let told = self.insist("the end of a serial task cannot be told yet", || {
            self.lanes.end(&message.id, token, end)
        });
        let (ended, due) = told.await?;
        self.send_soon(due);
        if let End::Requeue { due, .. } = end
            && *due > now()
        {
            self.earlier.notify_one();
        }
        match (ended, end) {
            (Ended::Done, End::Back) => {
                // Whoever has it is who gets it next: the broker hands it out again.
                delivery.settle_and_wait(Settle::Return { crashed: false }).await
            }
            (Ended::Forgotten, End::Back) if !delivery.has_lapsed() => {
                // It comes to its lane anew when it is handed out.
                delivery.settle_and_wait(Settle::Return { crashed: false }).await
            }
            (Ended::Done | Ended::Anew, _) => {
                // If this gets lost, it comes again and is recognised.
                let _ = delivery.settle_and_wait(Settle::Ack { result: None, sequel: None }).await;
                Ok(())
            }
            (Ended::Forgotten, End::Release(_)) => {
                delivery.settle(Settle::Ack { result: None, sequel: None });
                Ok(())
            }
            (Ended::Forgotten, end) => {
                let message = if let End::Requeue { message, .. } = end { message } else { &*message };
                self.begin_anew(Message::clone(message), delivery).await;
                Ok(())
            }
            (Ended::Stale, _) => {
                tracing::warn!(id = %message.id, task = message.task, "a run of a serial task has lost its lane; how it ended is not kept");
                delivery.settle(Settle::Ack { result: None, sequel: None });
                Err(BrokerError::Stale)
            }
        }
    }

    /// Redis has lost its memory, and RabbitMQ may have nothing that is to follow: it comes to its lane once more.
    async fn begin_anew(self: &Arc<Self>, message: Message, delivery: Delivery) {
        tracing::warn!(id = %message.id, task = message.task, "Redis has forgotten this run of a serial task; it comes to its lane anew");
        let settle = match self.take_in(message, false, false).await {
            Ok(_) => Settle::Ack { result: None, sequel: None },
            Err(error) => {
                tracing::warn!(%error, "it cannot come yet");
                Settle::Return { crashed: false } // and does so when it is fetched
            }
        };
        delivery.settle(settle);
    }

    /// To the dead letters first: should the process go in between, the task runs once more, but is not lost.
    async fn bury(
        self: &Arc<Self>,
        claim: Claim,
        reason: String,
        block: Option<String>,
    ) -> Result<(), BrokerError> {
        let Claim { token, delivery, message } = claim;
        let told = || self.lanes.affirm(&message.id, token);
        if !self.insist("whose a run is cannot be asked yet", told).await? {
            self.leave(Claim { token, delivery, message }, &End::Back).await?;
            return Err(BrokerError::Stale);
        }
        let buried =
            delivery.settle_and_wait(Settle::DeadLetter { reason, result: None, sequel: None }).await;
        let end = match &buried {
            Ok(()) => End::Release(block),
            // The broker has it again, and whoever gets it from there decides once more.
            Err(_) => End::Requeue { message: &message, due: now(), crashed: false },
        };
        let told = self.insist("the end of a serial task cannot be told yet", || {
            self.lanes.end(&message.id, token, &end)
        });
        let (_, due) = told.await?;
        self.send_soon(due);
        buried
    }

    /// Its runs kept ending with their process.
    async fn give_up(self: &Arc<Self>, claim: Claim) -> Result<(), BrokerError> {
        let record = crash_result(&claim.message);
        let reason = crash_reason(claim.message.crashes);
        tracing::error!(id = %claim.message.id, reason, "REJECTED");
        let block = lane::blocks(&claim.message, Some(&record));
        if let Some(attendant) = self.attendant.get() {
            attendant.over(record, Some(&claim.message));
        }
        self.bury(claim, reason, block).await
    }

    async fn publish_what_follows(&self, messages: Vec<Message>) -> Result<(), BrokerError> {
        while !messages.is_empty() {
            match self.inner.publish_all(messages.clone(), Vec::new(), false).await {
                Ok(()) => break,
                Err(BrokerError::Closed) => return Err(BrokerError::Closed),
                Err(error) => {
                    tracing::warn!(%error, "what follows from a serial task cannot be published yet")
                }
            }
            let paused = self.closing.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
            paused.ok_or(BrokerError::Closed)?;
        }
        Ok(())
    }
}
