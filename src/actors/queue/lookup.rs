//! Questions about single tasks that a queue may have, and their revocation. The messages come through
//! [`Queues`](super::super::queues::Queues); a queue answers from its backlog, its unchecked deliveries and its
//! runs.

use std::sync::Arc;

use actix::dev::MessageResponse;
use actix::{Handler, Message, ResponseFuture};
use futures_util::future::{OptionFuture, join_all};
use tokio::sync::oneshot;

use super::super::progress::ActorProgressHub;
use super::super::running::RunningTask;
use super::super::worker::GetRun;
use super::Queue;
use super::turns::TurnQuestion;
use crate::runtime::task_location::{QueuePosition, TaskLocation};
use crate::task::{Context, Interrupt, State, TaskId};

impl Queue {
    fn run_of(&self, id: &TaskId) -> Option<&Context> {
        self.runs.values().map(|run| &run.context).find(|run| run.id() == id)
    }

    /// Where a task is that this queue has, as far as its message says.
    fn located(&self, message: &crate::task::Message) -> TaskLocation {
        TaskLocation {
            task: message.task.clone(),
            queue: self.row.name.clone(),
            has_begun: message.has_begun(),
            is_held: !self.runtime.look(message).is_empty(),
            ..TaskLocation::default()
        }
    }
}

/// Asks what runs in this queue. The queue asks its workers, and adds the bodies that are stuck.
#[derive(Message)]
#[rtype(result = "Vec<RunningTask>")]
pub(in super::super) struct GetRunning;

impl Handler<GetRunning> for Queue {
    type Result = ResponseFuture<Vec<RunningTask>>;

    fn handle(&mut self, _: GetRunning, _: &mut Self::Context) -> Self::Result {
        let asked: Vec<_> = self.runs.values().map(|run| run.worker.send(GetRun)).collect();
        let stuck = self.retained.stuck.now();
        Box::pin(async move {
            let answers = join_all(asked).await;
            let mut running: Vec<_> = answers.into_iter().flat_map(|answer| answer.ok().flatten()).collect();
            running.extend(stuck.iter().map(|(context, since)| RunningTask::stuck(context, *since)));
            running.sort_by_key(|run| run.started_at);
            running
        })
    }
}

/// Asks for the state of a task that this queue has, and whether its result will be kept.
#[derive(Message)]
#[rtype(result = "Option<(State, bool)>")]
pub(crate) struct LocateTask(pub(crate) TaskId);

impl Handler<LocateTask> for Queue {
    type Result = Option<(State, bool)>;

    fn handle(&mut self, LocateTask(id): LocateTask, _: &mut Self::Context) -> Self::Result {
        if let Some(run) = self.run_of(&id) {
            return Some((State::Started, !run.message().ignore_result));
        }
        let waiting = self.backlog.waiting().map(|(_, delivery)| delivery);
        let delivery =
            waiting.chain(self.unchecked.find(&id)).find(|delivery| delivery.message().id == id)?;
        Some((State::Received, !delivery.message().ignore_result))
    }
}

/// Asks where a task of this queue is, as its user is told it.
#[derive(Message)]
#[rtype(result = "Option<TaskLocation>")]
pub(crate) struct Locate(pub(crate) TaskId);

impl Handler<Locate> for Queue {
    type Result = ResponseFuture<Option<TaskLocation>>;

    fn handle(&mut self, Locate(id): Locate, _: &mut Self::Context) -> Self::Result {
        let located = self.locate(&id);
        Box::pin(async move {
            let (mut located, question) = located?;
            if let Some(turn) = OptionFuture::from(question.map(TurnQuestion::answer)).await.flatten() {
                located.place = Some(QueuePosition::new(turn.ahead.count, turn.ahead.or_more));
                located.starts = Some(turn.starts);
            }
            Some(located)
        })
    }
}

impl Queue {
    /// Where a task of this queue is, and the question that is left to its pool.
    fn locate(&mut self, id: &TaskId) -> Option<(TaskLocation, Option<TurnQuestion>)> {
        if let Some(run) = self.run_of(id) {
            let located = TaskLocation { has_begun: true, is_running: true, ..self.located(run.message()) };
            return Some((located, None));
        }
        if let Some((ahead, message)) = self.place_of(id) {
            let located = self.located(&message);
            if ahead >= self.backlog.ready() {
                return Some((located, None));
            }
            let place = Some(QueuePosition::new(ahead as u64, false));
            let starts = self.forecast_in_line(ahead as u64, message.priority);
            let question = self.question_here(id, &message);
            return Some((TaskLocation { place, starts, ..located }, question));
        }
        let unchecked = self.unchecked.find(id)?;
        Some((self.located(unchecked.message()), None))
    }
}

/// Has the queue tell a new progress actor which of its runs have bars.
#[derive(Message)]
#[rtype(result = "()")]
pub(in super::super) struct TellBars(pub(in super::super) Arc<ActorProgressHub>);

impl Handler<TellBars> for Queue {
    type Result = ();

    fn handle(&mut self, TellBars(progress_hub): TellBars, _: &mut Self::Context) {
        progress_hub
            .reopened(self.runs.values().filter_map(|run| run.context.open_cell()).cloned().collect());
    }
}

/// Revokes a task that this queue has; with `terminate`, also one that runs.
#[derive(Message)]
#[rtype(result = "Revoked")]
pub(crate) struct Revoke {
    pub(crate) id: TaskId,
    pub(crate) terminate: bool,
}

/// What came of a revocation.
#[derive(Debug, MessageResponse)]
pub(crate) enum Revoked {
    /// The task waited here, and never starts. Its end is told to the broker; the receiver says whether it is kept,
    /// once that is known.
    Ended(oneshot::Receiver<bool>),
    /// The task runs here, and is revoked.
    Done,
    /// The task is on its way from one place to another: ask again.
    Moving,
    /// This queue does not have the task.
    Unknown,
}

impl Handler<Revoke> for Queue {
    type Result = Revoked;

    fn handle(&mut self, Revoke { id, terminate }: Revoke, _: &mut Self::Context) -> Revoked {
        if let Some(tag) = self.backlog.find(|delivery| delivery.message().id == id)
            && let Some(delivery) = self.backlog.remove(tag)
        {
            self.let_next_come(tag);
            self.remove_from_pool(tag);
            return Revoked::Ended(self.end_revoked(delivery));
        }
        if let Some(delivery) = self.unchecked.remove(&id) {
            return Revoked::Ended(self.end_revoked(delivery));
        }
        match self.run_of(&id) {
            Some(run) if run.revoke(terminate) => Revoked::Done,
            Some(_) => Revoked::Moving, // its run has ended and is being settled
            None => Revoked::Unknown,
        }
    }
}

/// The runs of these deliveries, by tag, may have lost their lanes to other runs: their bodies are told to end.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct LanesLost(pub(crate) Vec<u64>);

impl Handler<LanesLost> for Queue {
    type Result = ();

    fn handle(&mut self, LanesLost(tags): LanesLost, _: &mut Self::Context) {
        for run in tags.iter().filter_map(|tag| self.runs.get(tag)) {
            run.context.interrupt_with(Interrupt::LaneLost);
        }
    }
}
