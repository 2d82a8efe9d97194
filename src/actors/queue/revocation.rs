//! Whether a delivery was revoked before it came, or is a copy of another one that has its id.
//!
//! A broker that others use cannot take out what waits in it, and whoever revokes a task may be another process, or this one
//! in an earlier life. So the store is asked about every delivery before it is lined up: one question at a time, about all
//! that has come meanwhile. A revocation that is told while the question is out finds the delivery here. Of tasks that may have
//! been published more than once ([`ONCE`](crate::task::ONCE)) it is asked for each copy whether it is the one that may start.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use actix::{AsyncContext, Context, Handler, Message};

use super::Queue;
use crate::broker::{Delivery, Settle};
use crate::store::{Claim, Store, StoreError};
use crate::task::clock::now;
use crate::task::{Judge, TaskId};

/// The longest pause between two questions to a store that does not answer. Nothing starts meanwhile: its result could not
/// be kept either.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Deliveries of which it is not known yet whether they are revoked.
#[derive(Default)]
pub(super) struct Unchecked {
    deliveries: Vec<Delivery>,
    /// The question is out about these.
    asked: HashSet<u64>,
}

impl Unchecked {
    pub(super) fn len(&self) -> usize {
        self.deliveries.len()
    }

    pub(super) fn clear(&mut self) {
        self.deliveries.clear();
    }

    pub(super) fn find(&self, id: &TaskId) -> Option<&Delivery> {
        self.deliveries.iter().find(|delivery| delivery.message().id == *id)
    }

    pub(super) fn remove(&mut self, id: &TaskId) -> Option<Delivery> {
        let at = self.deliveries.iter().position(|delivery| delivery.message().id == *id)?;
        Some(self.deliveries.remove(at))
    }
}

impl Queue {
    /// Lines these up as soon as it is known that they are not revoked.
    pub(super) fn check_revocations(&mut self, deliveries: Vec<Delivery>, ctx: &mut Context<Self>) {
        self.unchecked.deliveries.extend(deliveries);
        if !self.unchecked.asked.is_empty() || self.unchecked.deliveries.is_empty() {
            return;
        }
        self.unchecked.asked = self.unchecked.deliveries.iter().map(Delivery::tag).collect();
        let ids: Vec<TaskId> = self.unchecked.deliveries.iter().map(|d| d.message().id.clone()).collect();
        let claim = |delivery: &Delivery| Some((delivery.tag(), Claim::of(delivery.message(), now())?));
        let claims: Vec<_> = self.unchecked.deliveries.iter().filter_map(claim).collect();
        let (store, queue) = (Arc::clone(&self.runtime.store), ctx.address());
        actix_rt::spawn(async move {
            let revoked = answer(|| store.revoked(&ids, now())).await;
            let revoked: HashSet<TaskId> = revoked.into_iter().collect();
            let copies = copies(&*store, claims, &revoked).await;
            queue.do_send(Checked { revoked, copies });
        });
    }
}

/// Those of the claims that are refused, by the tags of their deliveries.
async fn copies(store: &dyn Store, claims: Vec<(u64, Claim)>, revoked: &HashSet<TaskId>) -> HashSet<u64> {
    let claims = claims.into_iter().filter(|(_, claim)| !revoked.contains(&claim.id));
    let (tags, claims): (Vec<u64>, Vec<Claim>) = claims.unzip();
    if claims.is_empty() {
        return HashSet::new();
    }
    let granted = answer(|| store.claim(&claims)).await;
    tags.into_iter().zip(granted).filter_map(|(tag, granted)| (!granted).then_some(tag)).collect()
}

/// Asks until there is an answer.
async fn answer<T, F: Future<Output = Result<T, StoreError>>>(ask: impl Fn() -> F) -> T {
    let mut pause = Duration::from_millis(50);
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => {
                tracing::warn!(%error, "the store does not say what may start; nothing does until it says so");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Of those that were asked about, these are revoked, and those are copies of something else that has their ids.
#[derive(Message)]
#[rtype(result = "()")]
struct Checked {
    revoked: HashSet<TaskId>,
    copies: HashSet<u64>,
}

impl Handler<Checked> for Queue {
    type Result = ();

    fn handle(&mut self, Checked { revoked, copies }: Checked, ctx: &mut Self::Context) {
        let asked = std::mem::take(&mut self.unchecked.asked);
        let all = std::mem::take(&mut self.unchecked.deliveries);
        let (checked, later): (Vec<_>, Vec<_>) = all.into_iter().partition(|d| asked.contains(&d.tag()));
        let (revoked, clear): (Vec<_>, Vec<_>) =
            checked.into_iter().partition(|delivery| revoked.contains(&delivery.message().id));
        for delivery in revoked {
            let message = Arc::clone(delivery.message());
            self.end_unstarted(delivery.tag(), delivery, Judge::unstarted(&message, now()).revoked_waiting());
        }
        let (copies, clear): (Vec<_>, Vec<_>) =
            clear.into_iter().partition(|delivery| copies.contains(&delivery.tag()));
        for copy in copies {
            tracing::info!(id = %copy.message().id, task = copy.message().task, "dropped: another copy of it has started");
            copy.settle(Settle::Ack { result: None, sequel: None });
        }
        self.line_up_all(clear);
        self.check_revocations(later, ctx);
        self.pump();
    }
}
