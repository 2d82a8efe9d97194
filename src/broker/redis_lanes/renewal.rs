//! Renews the lease of this process on the starts that it holds, and gives these starts up when the lease is over.
//!
//! [`leases`](super::leases) keeps the starts. The command `renew` of `lanes.lua` writes the lease in Redis.
//! [`RedisOptions::lane_lease`](crate::store::RedisOptions::lane_lease) is the length of the lease.

use std::sync::Arc;
use std::time::Instant;

use super::RedisLanesInner;

/// The part of a lease after which this process renews it. One renewal may fail; after the second one in a row the starts are
/// given up, a little before Redis gives them to others.
const RENEWED_AFTER: f64 = 0.3;

impl RedisLanesInner {
    /// Renews the lease for as long as this process holds any start.
    pub(super) async fn renew(self: Arc<Self>) {
        let period = self.lanes.lease().mul_f64(RENEWED_AFTER);
        loop {
            let Some(stops_at) = self.leases.stops_at() else {
                self.holding.notified().await;
                continue;
            };
            let next = (Instant::now() + period).min(stops_at);
            tokio::time::sleep_until(next.into()).await;
            self.look_for_lost(None);
            let process = self.leases.process();
            let Some(stops_at) = self.leases.stops_at() else { continue };
            let asked_at = Instant::now();
            let renewed = self.lanes.renew(&process);
            match tokio::time::timeout_at(stops_at.into(), renewed).await {
                Ok(Ok(true)) => self.leases.renewed(&process, asked_at),
                Ok(Ok(false)) => self.look_for_lost(Some(&process)),
                Ok(Err(error)) => tracing::warn!(%error, "the lease on lanes cannot be renewed yet"),
                Err(_) => {}
            }
            self.look_for_lost(None);
        }
    }

    /// Gives up the starts whose lease is over, and tells their bodies.
    pub(super) fn look_for_lost(&self, given_up: Option<&str>) {
        let lost = self.leases.lose(given_up);
        if lost.is_empty() {
            return;
        }
        tracing::warn!(
            tasks = lost.len(),
            "the lease on lanes was not renewed in time; the serial tasks that run here are interrupted"
        );
        if let Some(listener) = self.listener.get() {
            listener.lost(lost);
        }
    }

    /// Waits until this process holds no start.
    pub(super) async fn quiet(&self) {
        loop {
            let ended = self.ended.notified();
            if self.leases.len() == 0 {
                return;
            }
            ended.await;
        }
    }
}
