//! Questions about one task that this queue may have.

use std::sync::Arc;

use actix::{Handler, Message};

use super::Queue;
use crate::task::clock::now;
use crate::task::{Judge, State, TaskId};

/// Where a task of this queue is; whether its result will be kept.
#[derive(Message)]
#[rtype(result = "Option<(State, bool)>")]
pub(crate) struct Look(pub(crate) TaskId);

impl Handler<Look> for Queue {
    type Result = Option<(State, bool)>;

    fn handle(&mut self, Look(id): Look, _: &mut Self::Context) -> Self::Result {
        if let Some(run) = self.runs.values().find(|run| *run.id() == id) {
            return Some((State::Started, !run.message().ignore_result));
        }
        let (_, delivery) = self.backlog.waiting().find(|(_, delivery)| delivery.message().id == id)?;
        Some((State::Received, !delivery.message().ignore_result))
    }
}

/// Revokes a task that this queue has; says whether it had it.
#[derive(Message)]
#[rtype(result = "bool")]
pub(crate) struct Revoke {
    pub(crate) id: TaskId,
    pub(crate) terminate: bool,
}

impl Handler<Revoke> for Queue {
    type Result = bool;

    fn handle(&mut self, Revoke { id, terminate }: Revoke, _: &mut Self::Context) -> bool {
        if let Some(tag) = self.backlog.find(|delivery| delivery.message().id == id)
            && let Some(delivery) = self.backlog.remove(tag)
        {
            let message = Arc::clone(delivery.message());
            self.end_unstarted(tag, delivery, Judge::unstarted(&message, now()).revoked_waiting());
            return true;
        }
        let run = self.runs.values().find(|run| *run.id() == id);
        run.inspect(|run| run.revoke(terminate)).is_some()
    }
}
