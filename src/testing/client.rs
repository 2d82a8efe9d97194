//! The client of a test's runtime. In eager mode it runs what callers enqueue at once, and it runs tasks for whose
//! result a caller waits.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use send_wrapper::SendWrapper;

use super::recorder::Ran;
use super::stage::{Endless, Stage};
use crate::core::Timestamp;
use crate::task::canvas::Promise;
use crate::task::scope::Scope;
use crate::task::{
    Client, EnqueueError, GetError, Message, NewTask, RawSignature, Receipt, State, TaskId, TaskResult,
    TrackedState,
};

/// The options of eager mode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Eager {
    /// Whether an enqueue fails if the task that it enqueued fails.
    pub(super) propagates: bool,
}

/// The client of a test's runtime.
pub(super) struct TestClient {
    pub(super) inner: Arc<dyn Client>,
    pub(super) stage: Arc<Stage>,
    pub(super) scope: Scope,
    pub(super) eager: Option<Eager>,
}

impl TestClient {
    /// Runs all tasks to their end in eager mode, and nothing in any other mode.
    ///
    /// The bodies of tasks need not be `Send`, while the futures of a client must be. So a run is bound to the thread
    /// on which it begins. The future of a test never changes its thread.
    async fn run_eagerly(&self) -> Result<(), EnqueueError> {
        if self.eager.is_none() {
            return Ok(());
        }
        let stage = Arc::clone(&self.stage);
        let run = Box::pin(async move { stage.run_out().await });
        SendWrapper::new(self.scope.around(run)).await.map_err(|Endless { last, runs }| EnqueueError::Ran {
            task: last.task,
            id: last.id,
            state: last.state,
            errors: vec![format!("it was not over after {runs} runs: does it go on for ever?")],
        })
    }

    /// The error of a task that was run eagerly and failed, if such errors go back to the caller. An end by
    /// `TaskError::fail`, Soil's option 1, is no such error, because the task chose it.
    fn failure_of(&self, id: &TaskId) -> Result<(), EnqueueError> {
        let last =
            self.stage.recorder.last_run(id).filter(|_| self.eager.is_some_and(|eager| eager.propagates));
        match last {
            Some(Ran {
                task,
                id,
                state: state @ (State::Failure | State::Rejected | State::Revoked),
                errors,
                chosen,
                ..
            }) if !chosen => Err(EnqueueError::Ran { task, id, state, errors }),
            _ => Ok(()),
        }
    }

    /// Runs the due tasks one by one until the task `id` is over, and returns its record.
    async fn run_for(&self, id: &TaskId) -> Result<TaskResult, GetError> {
        loop {
            if let Some(record) = self.result(id).await? {
                return Ok(record);
            }
            let stage = Arc::clone(&self.stage);
            let step = Box::pin(async move { stage.step().await.is_some() });
            if !SendWrapper::new(self.scope.around(step)).await {
                return Err(self.idle(id).await?);
            }
        }
    }

    async fn idle(&self, id: &TaskId) -> Result<GetError, GetError> {
        let state = self.state(id).await?;
        if state == State::Unknown {
            return Ok(match self.stage.recorder.last_run(id) {
                Some(ran) if ran.state.is_finished() => GetError::NotKept(id.clone()),
                _ => GetError::Unknown(id.clone()),
            });
        }
        let next = [self.stage.broker.next_due(), self.stage.broker.next_deadline()];
        let next = next.into_iter().flatten().min().map_or_else(
            || "nothing is scheduled either".to_owned(),
            |next: Timestamp| {
                format!("the next is at {next}, and it is {}: `advance` the clock", self.scope.clock.now())
            },
        );
        Ok(GetError::Idle { id: id.clone(), state, next })
    }
}

#[async_trait]
impl Client for TestClient {
    async fn enqueue(&self, call: Box<NewTask>) -> Result<Receipt, EnqueueError> {
        let receipt = self.scope.around(self.inner.enqueue(call)).await?;
        self.run_eagerly().await?;
        self.failure_of(&receipt.id)?;
        Ok(receipt)
    }

    async fn enqueue_many(&self, calls: Vec<NewTask>) -> Result<Vec<Receipt>, EnqueueError> {
        let receipts = self.scope.around(self.inner.enqueue_many(calls)).await?;
        self.run_eagerly().await?;
        receipts.iter().try_for_each(|receipt| self.failure_of(&receipt.id))?;
        Ok(receipts)
    }

    fn check(&self, call: &NewTask) -> Result<(), EnqueueError> {
        self.inner.check(call)
    }

    async fn launch(&self, canvas: RawSignature) -> Result<Promise, EnqueueError> {
        let before = self.stage.recorder.enqueued().len();
        let promise = self.scope.around(self.inner.launch(canvas)).await?;
        self.run_eagerly().await?;
        for message in self.stage.recorder.enqueued().iter().skip(before) {
            self.failure_of(&message.id)?;
        }
        Ok(promise)
    }

    async fn add_to_chord(
        &self,
        member: &Message,
        canvas: RawSignature,
        nth: u32,
    ) -> Result<Promise, EnqueueError> {
        self.scope.around(self.inner.add_to_chord(member, canvas, nth)).await
    }

    async fn state(&self, id: &TaskId) -> Result<State, GetError> {
        if self.stage.run_of(id).is_some() {
            return Ok(State::Started);
        }
        self.scope.around(self.inner.state(id)).await
    }

    async fn result(&self, id: &TaskId) -> Result<Option<TaskResult>, GetError> {
        self.scope.around(self.inner.result(id)).await
    }

    async fn tracked(&self, id: &TaskId) -> Result<Option<TrackedState>, GetError> {
        self.inner.tracked(id).await
    }

    async fn wait(&self, id: &TaskId) -> Result<TaskResult, GetError> {
        self.run_for(id).await
    }

    async fn expect(&self, id: &TaskId) -> Result<TaskResult, GetError> {
        self.run_for(id).await
    }

    async fn revoke(&self, id: &TaskId, terminate: bool) -> Result<bool, GetError> {
        if let Some(run) = self.stage.run_of(id) {
            return Ok(run.revoke(terminate));
        }
        self.scope.around(self.inner.revoke(id, terminate)).await
    }

    async fn forget(&self, id: &TaskId) -> Result<bool, GetError> {
        self.inner.forget(id).await
    }

    async fn save_group(&self, group: &Promise, lifetime: Option<Duration>) -> Result<(), GetError> {
        self.scope.around(self.inner.save_group(group, lifetime)).await
    }
}
