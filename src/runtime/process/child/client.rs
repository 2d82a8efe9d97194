//! The client of a child: what its bodies send and ask for goes through the program.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::super::protocol::{ChildAnswer, Question};
use super::uplink::Uplink;
use crate::task::canvas::Promise;
use crate::task::{
    Client, EnqueueError, GetError, Message, NewTask, RawSignature, Receipt, State, TaskId, TaskResult,
    TrackedState,
};

/// The client that `delay` uses in a child.
pub(super) struct ChildClient(pub(super) Arc<Uplink>);

/// The program has not answered, or has answered another question.
pub(super) const NO_ANSWER: &str = "the program that has started this child process did not answer";

fn unsent() -> EnqueueError {
    EnqueueError::Broker(NO_ANSWER.to_owned())
}

fn unread() -> GetError {
    GetError::Store(NO_ANSWER.to_owned())
}

impl ChildClient {
    async fn launched(&self, question: Question) -> Result<Promise, EnqueueError> {
        match self.0.answer_to(question).await {
            Some(ChildAnswer::Launched(answer)) => answer,
            _ => Err(unsent()),
        }
    }

    async fn record(&self, question: Question) -> Result<Option<TaskResult>, GetError> {
        match self.0.answer_to(question).await {
            Some(ChildAnswer::Result(answer)) => answer.map(|found| found.map(|record| *record)),
            _ => Err(unread()),
        }
    }

    async fn flag(&self, question: Question) -> Result<bool, GetError> {
        match self.0.answer_to(question).await {
            Some(ChildAnswer::Flag(answer)) => answer,
            _ => Err(unread()),
        }
    }
}

#[async_trait]
impl Client for ChildClient {
    async fn enqueue(&self, call: Box<NewTask>) -> Result<Receipt, EnqueueError> {
        match self.0.answer_to(Question::Enqueue(call)).await {
            Some(ChildAnswer::Enqueued(answer)) => answer,
            _ => Err(unsent()),
        }
    }

    async fn enqueue_many(&self, calls: Vec<NewTask>) -> Result<Vec<Receipt>, EnqueueError> {
        match self.0.answer_to(Question::EnqueueMany(calls)).await {
            Some(ChildAnswer::EnqueuedMany(answer)) => answer,
            _ => Err(unsent()),
        }
    }

    async fn launch(&self, canvas: RawSignature) -> Result<Promise, EnqueueError> {
        self.launched(Question::Launch(Box::new(canvas))).await
    }

    /// The program has the member's message: it is the task that runs here.
    async fn add_to_chord(
        &self,
        _: &Message,
        canvas: RawSignature,
        nth: u32,
    ) -> Result<Promise, EnqueueError> {
        self.launched(Question::AddToChord { canvas: Box::new(canvas), nth }).await
    }

    async fn state(&self, id: &TaskId) -> Result<State, GetError> {
        match self.0.answer_to(Question::State(id.clone())).await {
            Some(ChildAnswer::State(answer)) => answer,
            _ => Err(unread()),
        }
    }

    async fn result(&self, id: &TaskId) -> Result<Option<TaskResult>, GetError> {
        self.record(Question::Result(id.clone())).await
    }

    async fn tracked(&self, id: &TaskId) -> Result<Option<TrackedState>, GetError> {
        match self.0.answer_to(Question::Tracked(id.clone())).await {
            Some(ChildAnswer::Tracked(answer)) => answer.map(|found| found.map(|state| *state)),
            _ => Err(unread()),
        }
    }

    async fn wait(&self, id: &TaskId) -> Result<TaskResult, GetError> {
        self.record(Question::Wait(id.clone())).await?.ok_or_else(unread)
    }

    async fn expect(&self, id: &TaskId) -> Result<TaskResult, GetError> {
        self.record(Question::Expect(id.clone())).await?.ok_or_else(unread)
    }

    async fn revoke(&self, id: &TaskId, terminate: bool) -> Result<bool, GetError> {
        self.flag(Question::Revoke { id: id.clone(), terminate }).await
    }

    async fn forget(&self, id: &TaskId) -> Result<bool, GetError> {
        self.flag(Question::Forget(id.clone())).await
    }

    async fn save_group(&self, group: &Promise, lifetime: Option<Duration>) -> Result<(), GetError> {
        match self.0.answer_to(Question::SaveGroup { group: group.clone(), lifetime }).await {
            Some(ChildAnswer::Saved(answer)) => answer,
            _ => Err(unread()),
        }
    }
}
