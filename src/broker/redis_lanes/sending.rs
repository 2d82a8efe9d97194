//! Sends the runs that were let in to the broker, and sweeps everything that is due.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::mpsc;

use super::lanes::DueSend;
use super::{RedisLanesInner, broken};
use crate::broker::dead_letter::bury_for_sure;
use crate::broker::{BrokerError, lane, refusal_reason, refused_result};
use crate::store::StoreError;
use crate::task::{Message, Pass, TaskId};

/// The most confirmations that are sent to Redis at a time.
const CONFIRMED: usize = 256;
/// The longest pause between two sweeps. Redis may have announced something due to another process.
const LOOK: Duration = Duration::from_secs(1);
/// The pause before a failed call to Redis is tried again. Such a call has failed for as long as the store tries.
const PAUSE: Duration = Duration::from_millis(100);

impl RedisLanesInner {
    /// Publishes these messages in order. A message that cannot be published is due again after a lease.
    pub(super) async fn send(self: &Arc<Self>, due: DueSend) {
        let posts = due.messages().map(|message| async move {
            let pass = message.serial.as_ref().and_then(|serial| serial.pass);
            let id = message.id.clone();
            match self.inner.publish(message.clone(), false).await {
                Ok(_) => drop(self.confirmed.send((id, pass))),
                // If the broker is closed before its letter is there, the message is due again after a lease.
                Err(error) if error.is_permanent() => drop(self.refuse(&message, &error).await),
                Err(error) => tracing::warn!(%id, %error, "what a lane let in cannot be sent yet"),
            }
        });
        join_all(posts).await;
    }

    /// Fails a task that was promised to run and that the broker refuses for good, and gives it the reason. Takes the
    /// task out of its lane, because it would hold the lane for ever. The task's dead letter comes first, however long
    /// that takes.
    ///
    /// # Errors
    /// The broker is closed before the letter is there. Then the task has not failed yet, and keeps its lane.
    pub(super) async fn refuse(
        self: &Arc<Self>,
        message: &Message,
        error: &BrokerError,
    ) -> Result<(), BrokerError> {
        let (id, reason) = (&message.id, refusal_reason(error));
        tracing::error!(%id, task = message.task, reason, "FAILURE");
        if let Some(letters) = self.inner.dead_letter_queue() {
            let buried = self.closing.run_until_cancelled(bury_for_sure(letters, message, &reason)).await;
            buried.unwrap_or(Err(BrokerError::Closed))?;
        }
        let record = refused_result(message, reason);
        let block = lane::blocks(message, Some(&record));
        if let Some(listener) = self.listener.get() {
            listener.end(record, Some(message)).await;
        }
        if let Some(pass) = message.serial.as_ref().and_then(|serial| serial.pass) {
            let left = self.insist("a lane cannot be left yet", || self.lanes.bury(id, pass, block.clone()));
            if let Ok(due) = left.await {
                self.send_soon(due);
            }
        }
        Ok(())
    }

    /// Publishes these messages, and does not wait for the publishes.
    pub(super) fn send_soon(self: &Arc<Self>, due: DueSend) {
        if !due.is_empty() {
            let shared = Arc::clone(self);
            self.runtime.spawn(async move { shared.send(due).await });
        }
    }

    /// Asks Redis until it answers.
    ///
    /// # Errors
    /// Redis refuses, or the broker is closed.
    pub(super) async fn insist<T, F>(&self, what: &str, ask: impl Fn() -> F) -> Result<T, BrokerError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        loop {
            match ask().await {
                Ok(answer) => return Ok(answer),
                Err(error @ StoreError::Io(_)) => tracing::warn!(%error, "{what}"),
                Err(error) => return Err(broken(error)),
            }
            let paused = self.closing.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
            paused.ok_or(BrokerError::Closed)?;
        }
    }

    /// Tells Redis which messages the broker has.
    pub(super) async fn confirm(self: Arc<Self>, mut sent: mpsc::UnboundedReceiver<(TaskId, Option<Pass>)>) {
        let mut batch = Vec::with_capacity(CONFIRMED);
        while sent.recv_many(&mut batch, CONFIRMED).await > 0 {
            // If Redis does not hear of it, any process sends the messages again, and each second copy is recognised.
            if let Err(error) = self.lanes.confirm(&batch).await {
                tracing::warn!(%error, "what was sent into lanes may be sent again");
            }
            batch.clear();
        }
    }

    /// Does the work that is due, whichever process should have done it.
    pub(super) async fn sweep(self: Arc<Self>) {
        let look = LOOK.min(self.lanes.lease() / 8);
        let mut wait = Duration::ZERO;
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait.clamp(Duration::from_millis(1), look)) => {}
                () = self.earlier.notified() => {}
            }
            wait = look;
            // A broker that is away could not take the messages, so they would only have to be sent again.
            if self.inner.condition().is_unavailable {
                continue;
            }
            match self.lanes.sweep().await {
                Ok((due, next)) => {
                    wait = next;
                    self.send_soon(due);
                }
                Err(error) => tracing::warn!(%error, "what is due in lanes cannot be done yet"),
            }
        }
    }
}
