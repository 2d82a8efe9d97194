//! Asks the store about each delivery before it is lined up: was its task revoked, or is it a copy of another
//! message with the same id?
//!
//! A broker that other programs use cannot take out what waits in it, and the revocation may come from another
//! process or from an earlier life of this one. A store that hears of revocations mostly
//! [knows the answer at once](Store::is_known_revoked), and the deliveries are lined up where they come. Otherwise the
//! queue holds each delivery in [`Unchecked`] until the store has answered, and what comes after it waits behind it, so
//! that the order stays. It asks one question at a time, about all deliveries that have come meanwhile. A revocation
//! that comes while a question is out finds the delivery here. A message that may have been published more than once
//! carries a [mark](crate::task::RUN_ONCE_HEADER); of its copies the store grants one the start.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use actix::{AsyncContext, Context, Handler, Message};

use super::Queue;
use crate::broker::{Delivery, Settle};
use crate::core::Backoff;
use crate::core::Timestamp;
use crate::store::{DuplicateClaim, Store, StoreError};
use crate::task::clock::now;
use crate::task::{Judge, TaskId};

/// The longest pause between two questions to a store that does not answer. Nothing starts until it does; its
/// result could not be kept either.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Deliveries that wait for the store's answer.
#[derive(Default)]
pub(super) struct Unchecked {
    deliveries: Vec<Delivery>,
    /// The tags of the deliveries that the question under way is about; empty: no question is under way.
    asked: HashSet<u64>,
}

impl Unchecked {
    pub(super) fn len(&self) -> usize {
        self.deliveries.len()
    }

    /// When the oldest of these tasks could have started.
    pub(super) fn oldest_due(&self) -> Option<Timestamp> {
        self.deliveries.iter().map(|delivery| delivery.message().due()).min()
    }

    pub(super) fn clear(&mut self) {
        self.deliveries.clear();
    }

    /// The unchecked delivery of this task.
    pub(super) fn find(&self, id: &TaskId) -> Option<&Delivery> {
        self.deliveries.iter().find(|delivery| delivery.message().id == *id)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Delivery> {
        self.deliveries.iter()
    }

    /// Takes the delivery of this task out, because it is revoked.
    pub(super) fn remove(&mut self, id: &TaskId) -> Option<Delivery> {
        let at = self.deliveries.iter().position(|delivery| delivery.message().id == *id)?;
        Some(self.deliveries.remove(at))
    }
}

impl Queue {
    /// Lines these deliveries up when it is sure that they may start: at once if this process knows it, or when the store
    /// has said it.
    pub(super) fn check_revocations(&mut self, deliveries: Vec<Delivery>, ctx: &mut Context<Self>) {
        self.unchecked.deliveries.extend(deliveries);
        if !self.unchecked.asked.is_empty() || self.unchecked.deliveries.is_empty() {
            return;
        }
        let (store, at) = (Arc::clone(&self.runtime.store), now());
        let (mut revoked, mut unknown, mut claims) = (HashSet::new(), Vec::new(), Vec::new());
        for delivery in &self.unchecked.deliveries {
            let message = delivery.message();
            match store.is_known_revoked(&message.id, at) {
                Some(true) => drop(revoked.insert(message.id.clone())),
                Some(false) => {}
                None => unknown.push(message.id.clone()),
            }
            claims.extend(DuplicateClaim::of(message, at).map(|claim| (delivery.tag(), claim)));
        }
        if unknown.is_empty() && claims.is_empty() {
            let checked = std::mem::take(&mut self.unchecked.deliveries);
            self.line_up_checked(checked, &revoked, &HashSet::new());
            return self.pump(now());
        }
        self.unchecked.asked = self.unchecked.deliveries.iter().map(Delivery::tag).collect();
        let queue = ctx.address();
        actix_rt::spawn(async move {
            if !unknown.is_empty() {
                revoked.extend(answer(|| store.revoked(&unknown, now())).await);
            }
            let copies = copies(&*store, claims, &revoked).await;
            queue.do_send(Checked { revoked, copies });
        });
    }

    /// Lines up the deliveries that may start, and ends the tasks that are revoked and the copies that another one has
    /// come before.
    fn line_up_checked(&mut self, checked: Vec<Delivery>, revoked: &HashSet<TaskId>, copies: &HashSet<u64>) {
        if revoked.is_empty() && copies.is_empty() {
            return self.line_up_all(checked, now());
        }
        let (ended, clear): (Vec<_>, Vec<_>) =
            checked.into_iter().partition(|delivery| revoked.contains(&delivery.message().id));
        for delivery in ended {
            let verdict = Judge::unstarted(delivery.message(), now()).revoked_waiting();
            self.end_unstarted(delivery, verdict);
        }
        let (copies, clear): (Vec<_>, Vec<_>) =
            clear.into_iter().partition(|delivery| copies.contains(&delivery.tag()));
        for copy in copies {
            tracing::info!(id = %copy.message().id, task = copy.message().task, "dropped: another copy of it has started");
            copy.settle(Settle::Ack { result: None, follow_ups: None });
        }
        self.line_up_all(clear, now());
    }
}

/// Asks the store for the claims of copies. Returns the tags of the deliveries whose claims it refused.
async fn copies(
    store: &dyn Store,
    claims: Vec<(u64, DuplicateClaim)>,
    revoked: &HashSet<TaskId>,
) -> HashSet<u64> {
    // A revoked task is not to start, so none of its copies takes the claim.
    let claims = claims.into_iter().filter(|(_, claim)| !revoked.contains(&claim.id));
    let (tags, claims): (Vec<u64>, Vec<DuplicateClaim>) = claims.unzip();
    if claims.is_empty() {
        return HashSet::new();
    }
    let Some(duplicates) = store.duplicates() else { return HashSet::new() };
    let granted = answer(|| duplicates.claim(&claims)).await;
    tags.into_iter().zip(granted).filter_map(|(tag, granted)| (!granted).then_some(tag)).collect()
}

/// Asks the store again and again, with growing pauses, until it answers.
async fn answer<T, F: Future<Output = Result<T, StoreError>>>(ask: impl Fn() -> F) -> T {
    let mut backoff = Backoff::new(Duration::from_millis(50), LONGEST_PAUSE);
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => {
                tracing::warn!(%error, "the store does not answer; nothing of the queue starts until it does");
            }
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}

/// The store's answer: the tasks among those asked about that are revoked, and the tags of copies that may not start.
#[derive(Message)]
#[rtype(result = "()")]
struct Checked {
    revoked: HashSet<TaskId>,
    copies: HashSet<u64>,
}

impl Handler<Checked> for Queue {
    type Result = ();

    fn handle(&mut self, Checked { revoked, copies }: Checked, ctx: &mut Self::Context) {
        // Deliveries that came while the question was out are not answered by it: they are asked about next.
        let asked = std::mem::take(&mut self.unchecked.asked);
        let all = std::mem::take(&mut self.unchecked.deliveries);
        let (checked, later): (Vec<_>, Vec<_>) = all.into_iter().partition(|d| asked.contains(&d.tag()));
        self.line_up_checked(checked, &revoked, &copies);
        self.check_revocations(later, ctx);
        self.pump(now());
    }
}
