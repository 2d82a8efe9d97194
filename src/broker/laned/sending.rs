//! What is let in goes to the broker; what happens by itself happens here: leases are renewed, and what is due is done.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::mpsc;

use super::{Shared, broken};
use crate::broker::BrokerError;
use crate::store::StoreError;
use crate::store::redis::lanes::Due;
use crate::task::{Pass, TaskId};

/// So many confirmations are told at a time.
const CONFIRMED: usize = 256;
/// What is due may have been told to another process: it is looked for at least so often.
const LOOK: Duration = Duration::from_secs(1);
/// How long it is waited before a call to Redis is tried again that has taken its patience.
const PAUSE: Duration = Duration::from_millis(100);

impl Shared {
    /// Publishes these, in order. What cannot be published is due again after a lease.
    pub(super) async fn send(&self, due: Due) {
        let posts = due.messages().map(|message| async move {
            let pass = message.serial.as_ref().and_then(|serial| serial.pass);
            let id = message.id.clone();
            match self.inner.publish(message, false).await {
                Ok(_) => drop(self.confirmed.send((id, pass))),
                Err(error) => tracing::warn!(%id, %error, "what a lane let in cannot be sent yet"),
            }
        });
        join_all(posts).await;
    }

    /// Publishes these, and does not wait for it.
    pub(super) fn send_soon(self: &Arc<Self>, due: Due) {
        if !due.is_empty() {
            let shared = Arc::clone(self);
            self.runtime.spawn(async move { shared.send(due).await });
        }
    }

    /// Asks Redis until it answers.
    ///
    /// # Errors
    /// It refuses, or this is closed.
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

    /// Tells Redis what the broker has.
    pub(super) async fn confirm(self: Arc<Self>, mut sent: mpsc::UnboundedReceiver<(TaskId, Option<Pass>)>) {
        let mut batch = Vec::with_capacity(CONFIRMED);
        while sent.recv_many(&mut batch, CONFIRMED).await > 0 {
            // If it is not told, they are sent again, and the second ones are recognised.
            if let Err(error) = self.lanes.confirm(&batch).await {
                tracing::warn!(%error, "what was sent into lanes may be sent again");
            }
            batch.clear();
        }
    }

    /// Does what is due, whoever it was that should have.
    pub(super) async fn sweep(self: Arc<Self>) {
        let look = LOOK.min(self.lanes.lease() / 8);
        let mut wait = Duration::ZERO;
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait.clamp(Duration::from_millis(1), look)) => {}
                () = self.earlier.notified() => {}
            }
            wait = look;
            // What it cannot take would only be sent again.
            if self.inner.is_away() {
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

    /// Renews the lease for as long as anything is held.
    pub(super) async fn renew(self: Arc<Self>) {
        let period = self.lanes.lease() * 3 / 10;
        loop {
            let Some(stops_at) = self.claims.stops_at() else {
                self.holding.notified().await;
                continue;
            };
            let next = (Instant::now() + period).min(stops_at);
            tokio::time::sleep_until(next.into()).await;
            self.look_for_lost(None);
            let process = self.claims.process();
            let Some(stops_at) = self.claims.stops_at() else { continue };
            let asked_at = Instant::now();
            let renewed = self.lanes.renew(&process);
            match tokio::time::timeout_at(stops_at.into(), renewed).await {
                Ok(Ok(true)) => self.claims.renewed(&process, asked_at),
                Ok(Ok(false)) => self.look_for_lost(Some(&process)),
                Ok(Err(error)) => tracing::warn!(%error, "the lease on lanes cannot be renewed yet"),
                Err(_) => {}
            }
            self.look_for_lost(None);
        }
    }

    /// Tells the bodies whose lanes are not sure to be theirs any more.
    pub(super) fn look_for_lost(&self, given_up: Option<&str>) {
        let lost = self.claims.lose(given_up);
        if lost.is_empty() {
            return;
        }
        tracing::warn!(
            tasks = lost.len(),
            "the lease on lanes was not renewed in time; the serial tasks that run here are interrupted"
        );
        if let Some(attendant) = self.attendant.get() {
            attendant.lost(lost);
        }
    }

    /// Comes back when nothing is held.
    pub(super) async fn quiet(&self) {
        loop {
            let ended = self.ended.notified();
            if self.claims.len() == 0 {
                return;
            }
            ended.await;
        }
    }
}
