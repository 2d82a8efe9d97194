//! Whether a delivery was revoked before it came.
//!
//! A broker that others use cannot take out what waits in it, and whoever revokes a task may be another process, or this one
//! in an earlier life. So the store is asked about every delivery before it is lined up: one question at a time, about all
//! that has come meanwhile. A revocation that is told while the question is out finds the delivery here.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use actix::{AsyncContext, Context, Handler, Message};

use super::Queue;
use crate::broker::Delivery;
use crate::store::Store;
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
        let (store, queue) = (Arc::clone(&self.runtime.store), ctx.address());
        actix_rt::spawn(async move {
            let revoked = ask(&*store, &ids).await;
            queue.do_send(Checked(revoked));
        });
    }
}

async fn ask(store: &dyn Store, ids: &[TaskId]) -> HashSet<TaskId> {
    let mut pause = Duration::from_millis(50);
    loop {
        match store.revoked(ids, now()).await {
            Ok(revoked) => return revoked.into_iter().collect(),
            Err(error) => {
                tracing::warn!(%error, "the store does not say what is revoked; nothing starts until it does");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Of those that were asked about, these are revoked.
#[derive(Message)]
#[rtype(result = "()")]
struct Checked(HashSet<TaskId>);

impl Handler<Checked> for Queue {
    type Result = ();

    fn handle(&mut self, Checked(revoked): Checked, ctx: &mut Self::Context) {
        let asked = std::mem::take(&mut self.unchecked.asked);
        let all = std::mem::take(&mut self.unchecked.deliveries);
        let (checked, later): (Vec<_>, Vec<_>) = all.into_iter().partition(|d| asked.contains(&d.tag()));
        let (revoked, clear): (Vec<_>, Vec<_>) =
            checked.into_iter().partition(|delivery| revoked.contains(&delivery.message().id));
        for delivery in revoked {
            let message = Arc::clone(delivery.message());
            self.end_unstarted(delivery.tag(), delivery, Judge::unstarted(&message, now()).revoked_waiting());
        }
        self.line_up_all(clear);
        self.check_revocations(later, ctx);
        self.pump();
    }
}
