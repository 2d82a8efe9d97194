//! Questions about one task that this queue may have.

use std::sync::Arc;

use actix::dev::MessageResponse;
use actix::{Handler, Message};

use super::Queue;
use crate::soil::{Place, Whereabouts};
use crate::task::clock::now;
use crate::task::{Interrupt, Judge, State, TaskId};

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
        let waiting = self.backlog.waiting().map(|(_, delivery)| delivery);
        let delivery =
            waiting.chain(self.unchecked.find(&id)).find(|delivery| delivery.message().id == id)?;
        Some((State::Received, !delivery.message().ignore_result))
    }
}

/// Where a task of this queue is, for its user.
#[derive(Message)]
#[rtype(result = "Option<Whereabouts>")]
pub(crate) struct Locate(pub(crate) TaskId);

impl Handler<Locate> for Queue {
    type Result = Option<Whereabouts>;

    fn handle(&mut self, Locate(id): Locate, _: &mut Self::Context) -> Self::Result {
        let told = |message: &crate::task::Message, is_running, place| Whereabouts {
            task: message.task.clone(),
            queue: self.row.name.clone(),
            has_begun: is_running || message.first_started_at.is_some() || message.retries > 0,
            is_running,
            place,
        };
        if let Some(run) = self.runs.values().find(|run| *run.id() == id) {
            return Some(told(run.message(), true, None));
        }
        let mut waiting = self.backlog.waiting().map(|(_, delivery)| delivery.message()).enumerate();
        if let Some((ahead, message)) = waiting.find(|(_, message)| message.id == id) {
            let place = (ahead < self.backlog.ready()).then(|| Place::new(ahead as u64, false));
            return Some(told(message, false, place));
        }
        let unchecked = self.unchecked.find(&id)?;
        Some(told(unchecked.message(), false, None))
    }
}

/// Revokes a task that this queue has.
#[derive(Message)]
#[rtype(result = "Revoked")]
pub(crate) struct Revoke {
    pub(crate) id: TaskId,
    pub(crate) terminate: bool,
}

/// What a revocation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, MessageResponse)]
pub(crate) enum Revoked {
    /// The task is revoked.
    Done,
    /// It is on its way from one place to another: ask again.
    Moving,
    /// It is not here.
    Unknown,
}

impl Handler<Revoke> for Queue {
    type Result = Revoked;

    fn handle(&mut self, Revoke { id, terminate }: Revoke, _: &mut Self::Context) -> Revoked {
        if let Some(tag) = self.backlog.find(|delivery| delivery.message().id == id)
            && let Some(delivery) = self.backlog.remove(tag)
        {
            let message = Arc::clone(delivery.message());
            self.end_unstarted(tag, delivery, Judge::unstarted(&message, now()).revoked_waiting());
            return Revoked::Done;
        }
        if let Some(delivery) = self.unchecked.remove(&id) {
            let message = Arc::clone(delivery.message());
            let verdict = Judge::unstarted(&message, now()).revoked_waiting();
            self.end_unstarted(delivery.tag(), delivery, verdict);
            return Revoked::Done;
        }
        match self.runs.values().find(|run| *run.id() == id) {
            Some(run) if run.revoke(terminate) => Revoked::Done,
            Some(_) => Revoked::Moving, // it has ended and is being settled
            None => Revoked::Unknown,
        }
    }
}

/// The lanes of these runs, by tag, are not sure to be theirs any more.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Lost(pub(crate) Vec<u64>);

impl Handler<Lost> for Queue {
    type Result = ();

    fn handle(&mut self, Lost(tags): Lost, _: &mut Self::Context) {
        for context in tags.iter().filter_map(|tag| self.runs.get(tag)) {
            context.interrupt_with(Interrupt::LaneLost);
        }
    }
}
