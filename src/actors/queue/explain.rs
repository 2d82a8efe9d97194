//! What the queue knows of one task, for an explanation of why it does not run.

use std::sync::Arc;

use actix::{Handler, Message, ResponseFuture};
use futures_util::future::OptionFuture;

use super::Queue;
use super::turns::{AskedPlace, TurnQuestion};
use crate::core::explanation::{BoundedCount, PauseFacts, QueueState, RunFacts};
use crate::core::forecast::StartForecast;
use crate::core::hold::Hold;
use crate::task::clock::now;
use crate::task::{self, TaskId};

/// Asks what the queue knows of a task. The broker was asked first, and says whether the task waits in it.
#[derive(Clone, Message)]
#[rtype(result = "Option<Box<Sighting>>")]
pub(crate) struct Explain {
    pub(crate) id: TaskId,
    /// The task waits in the broker. `None`: the queue looks whether it has the task itself.
    pub(crate) waiting: Option<WaitingInBroker>,
}

/// A task that waits in the broker.
#[derive(Clone)]
pub(crate) struct WaitingInBroker {
    pub(crate) message: Arc<task::Message>,
    /// How many tasks of the queue are before it, in the broker or delivered and not settled, if that is known.
    pub(crate) before: Option<BoundedCount>,
    /// How many of those are of its own tenant, if that is known.
    pub(crate) line_before: Option<usize>,
}

/// A task as its queue sees it.
#[derive(Clone, Debug)]
pub(crate) struct Sighting {
    pub(crate) message: Arc<task::Message>,
    /// Its run, if it runs.
    pub(crate) run: Option<RunFacts>,
    /// Whether the store has still to say that it is not revoked.
    pub(crate) is_unchecked: bool,
    /// How many start before it, by the rule that decides in its queue, if that is known.
    pub(crate) ahead: Option<BoundedCount>,
    /// How many of those are of its own tenant, if that is known.
    pub(crate) ahead_of_tenant: Option<u64>,
    /// What holds it back.
    pub(crate) holds: Vec<Hold>,
    pub(crate) pause: Option<PauseFacts>,
    pub(crate) queue: QueueState,
    /// When it starts, if only those before it delay it.
    pub(crate) forecast: Option<StartForecast>,
    /// Whether the rule of a pool has said how many start before it.
    pub(crate) is_by_rule: bool,
}

impl Handler<Explain> for Queue {
    type Result = ResponseFuture<Option<Box<Sighting>>>;

    fn handle(&mut self, Explain { id, waiting }: Explain, _: &mut Self::Context) -> Self::Result {
        let seen = self.see(&id, waiting);
        Box::pin(async move {
            let (mut seen, question) = seen?;
            if let Some(turn) = OptionFuture::from(question.map(TurnQuestion::answer)).await.flatten() {
                seen.ahead = Some(turn.ahead);
                seen.ahead_of_tenant = seen.message.tenant().map(|_| turn.own);
                (seen.forecast, seen.is_by_rule) = (Some(turn.starts), true);
            }
            Some(Box::new(seen))
        })
    }
}

impl Queue {
    /// What the queue sees of a task, and the question that is left to its pool.
    fn see(
        &mut self,
        id: &TaskId,
        waiting: Option<WaitingInBroker>,
    ) -> Option<(Sighting, Option<TurnQuestion>)> {
        if let Some(run) = self.runs.values().find(|run| run.context.id() == id) {
            let facts = RunFacts {
                since: Some(run.context.began_at(run.started_at)),
                worker: Some(run.context.worker().to_owned()),
                attempt: Some(run.context.attempt()),
            };
            let message = Arc::clone(run.context.message_arc());
            return Some((Sighting { run: Some(facts), ..self.sighting(message) }, None));
        }
        if let Some((ahead, message)) = self.place_of(id) {
            let ahead_of_tenant = self.of_tenant(&message, ahead);
            let ahead = Some(ahead as u64).filter(|_| ahead < self.backlog.ready());
            let forecast = ahead.and_then(|ahead| self.forecast_in_line(ahead, message.priority));
            let question = self.question_here(id, &message);
            let ahead = ahead.map(BoundedCount::exactly);
            let mut seen = Sighting { ahead, ahead_of_tenant, forecast, ..self.sighting(message) };
            seen.holds.extend(self.slot_hold(id));
            return Some((seen, question));
        }
        if let Some(delivery) = self.unchecked.find(id) {
            let message = Arc::clone(delivery.message());
            return Some((Sighting { is_unchecked: true, ..self.sighting(message) }, None));
        }
        let WaitingInBroker { message, before, line_before } = waiting?;
        // The broker counts those that run as well, and they start no more.
        let running = self.runs.len() as u64;
        let ahead = before.map(|BoundedCount { count, or_more }| BoundedCount {
            count: count.saturating_sub(running),
            or_more,
        });
        let forecast = ahead.and_then(|ahead| self.forecast_in_line(ahead.count, message.priority));
        let of_tenant =
            self.runs.values().filter(|run| run.context.message().tenant() == message.tenant()).count();
        let place = line_before.map(|before| AskedPlace::InBroker(before.saturating_sub(of_tenant)));
        let question = place.and_then(|place| self.turn_question(&message, place));
        Some((Sighting { ahead, forecast, ..self.sighting(message) }, question))
    }

    /// The question when the turn of a task comes that waits here.
    pub(super) fn question_here(&self, id: &TaskId, message: &task::Message) -> Option<TurnQuestion> {
        let tag = self.backlog.find(|delivery| delivery.message().id == *id)?;
        self.turn_question(message, AskedPlace::Here(tag))
    }

    /// When a task starts that has so many before it. `None`: the line does not decide it, because the queue has a pool.
    pub(super) fn forecast_in_line(&mut self, ahead: u64, priority: u8) -> Option<StartForecast> {
        self.pool.is_none().then(|| self.forecast(ahead, priority, now()))
    }

    /// Where a task stands that waits here: how many are before it. Those that wait for their time stand behind all that are
    /// ready.
    pub(super) fn place_of(&self, id: &TaskId) -> Option<(usize, Arc<task::Message>)> {
        let mut waiting = self.backlog.waiting().map(|(_, delivery)| delivery.message()).enumerate();
        let (ahead, message) = waiting.find(|(_, message)| message.id == *id)?;
        Some((ahead, Arc::clone(message)))
    }

    /// How many of the first tasks that wait here are of the tenant of this one. `None`: it has none.
    fn of_tenant(&self, message: &task::Message, first: usize) -> Option<u64> {
        let tenant = message.tenant()?;
        let before = self.backlog.waiting().take(first);
        Some(before.filter(|(_, delivery)| delivery.message().tenant() == Some(tenant)).count() as u64)
    }

    /// A task of which nothing is known but its message, in this queue as it is.
    fn sighting(&self, message: Arc<task::Message>) -> Sighting {
        let is_kept = || self.runtime.kept_pauses.lock().contains(&self.row.name);
        let pause =
            self.backlog.is_paused().then(|| PauseFacts { is_kept: is_kept(), ..PauseFacts::default() });
        let queue = QueueState {
            workers: self.row.workers,
            running: self.runs.len(),
            idle: self.idle.len(),
            halted: self.halted.clone(),
            is_draining: self.closing.is_some(),
            is_cancelled: self.retained.is_cancelled(),
            busy_pool: self.busy_pool(),
        };
        Sighting {
            holds: self.runtime.look(&message),
            message,
            run: None,
            is_unchecked: false,
            ahead: None,
            ahead_of_tenant: None,
            pause,
            queue,
            forecast: None,
            is_by_rule: false,
        }
    }
}
