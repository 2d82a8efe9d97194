//! The future result of a canvas.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::Promise;
use crate::task::envelope;
use crate::task::{Child, Client, GetError, Json, State, TaskId, TaskResult};

/// A canvas that was sent, and in time its result. It covers Celery's `AsyncResult` and, for a canvas that ends in a
/// group, its `GroupResult`.
///
/// The last task may not have been sent yet, so that no broker knows it. Its state is PENDING then, and callers can
/// wait for it.
pub struct CanvasResult<O = Json> {
    promise: Promise,
    client: Arc<dyn Client>,
    output: PhantomData<fn() -> O>,
}

impl<O> CanvasResult<O> {
    pub(crate) fn new(promise: Promise, client: Arc<dyn Client>) -> Self {
        Self { promise, client, output: PhantomData }
    }

    /// The id of the last task, or of the group at the end.
    pub fn id(&self) -> &TaskId {
        &self.promise.id
    }

    /// The ids of this result, of its members, and of the results before it.
    pub fn promise(&self) -> &Promise {
        &self.promise
    }

    /// Whether this is the result of a group.
    pub fn is_group(&self) -> bool {
        self.promise.members.is_some()
    }

    /// The results of a group's members, in their order. The list is empty if this is no group.
    pub fn members(&self) -> Vec<CanvasResult> {
        let members = self.promise.members.iter().flatten();
        members.map(|member| CanvasResult::new(member.clone(), Arc::clone(&self.client))).collect()
    }

    /// The result that has to be there before: that of the step before in a chain, or that of the header for the body
    /// of a chord.
    pub fn parent(&self) -> Option<CanvasResult> {
        let parent = self.promise.parent.as_deref()?;
        Some(CanvasResult::new(parent.clone(), Arc::clone(&self.client)))
    }

    /// The tasks and groups that the last task has sent, such as callbacks, once it is over. For a group, those that
    /// its members have sent.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn children(&self) -> Result<Vec<Child>, GetError> {
        let mut children = Vec::new();
        for id in self.promise.tasks() {
            let record = self.client.result(id).await?;
            children.extend(record.and_then(|record| record.lineage).into_iter().flat_map(|l| l.children));
        }
        Ok(children)
    }

    /// The state now. For a group it is the state of a member that has ended without success, if there is one, SUCCESS
    /// when all members have succeeded, STARTED when some have, and PENDING otherwise.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn state(&self) -> Result<State, GetError> {
        let states = self.states().await?;
        if !self.is_group() {
            return Ok(states.first().copied().unwrap_or(State::Pending));
        }
        let bad = states.iter().find(|state| state.is_finished() && **state != State::Success);
        let some = states.contains(&State::Success);
        Ok(match bad {
            Some(state) => *state,
            None if states.iter().all(|state| *state == State::Success) => State::Success,
            None if some => State::Started,
            None => State::Pending,
        })
    }

    async fn states(&self) -> Result<Vec<State>, GetError> {
        let mut states = Vec::new();
        for id in self.promise.tasks() {
            let state = self.client.state(id).await?;
            // A task that nobody knows yet will be sent when the tasks before it are over.
            states.push(if state == State::Unknown { State::Pending } else { state });
        }
        Ok(states)
    }

    /// Whether the task, or every member of the group, is over.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn ready(&self) -> Result<bool, GetError> {
        Ok(self.states().await?.into_iter().all(State::is_finished))
    }

    /// Whether the task, or every member of the group, is over and has succeeded.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn successful(&self) -> Result<bool, GetError> {
        Ok(self.states().await?.into_iter().all(|state| state == State::Success))
    }

    /// Whether the task, or a member of the group, is over and has not succeeded.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn failed(&self) -> Result<bool, GetError> {
        Ok(self.states().await?.into_iter().any(|state| state.is_finished() && state != State::Success))
    }

    /// The number of the group's tasks that have succeeded. For a single task it is 0 or 1.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn completed_count(&self) -> Result<usize, GetError> {
        Ok(self.states().await?.into_iter().filter(|state| *state == State::Success).count())
    }

    /// The record of the last task, if the task is over and its record was kept. A group has no record.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn result(&self) -> Result<Option<TaskResult>, GetError> {
        if self.is_group() { Ok(None) } else { self.client.result(self.id()).await }
    }

    /// Revokes the last task, or the members of the last group, as [`AsyncResult::revoke`](crate::AsyncResult::revoke)
    /// does. A task that was not sent yet cannot be revoked: revoke its [`parent`](Self::parent). Answers whether there
    /// was anything to revoke.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn revoke(&self, terminate: bool) -> Result<bool, GetError> {
        let mut revoked = false;
        for id in self.promise.tasks() {
            revoked |= self.client.revoke(id, terminate).await?;
        }
        Ok(revoked)
    }

    /// Saves the members of this group in the result backend, for everybody who knows the group's id:
    /// [`Celeriac::group_result`](crate::Celeriac::group_result) and
    /// [`Soil::group_status`](crate::soil::Soil::group_status) read them, and over Redis Python's `GroupResult.restore`
    /// does. They are kept for as long as results are by default, a day. Celery's `GroupResult.save`.
    ///
    /// # Errors
    /// This is no group, the backend keeps no groups (rpc does not), or the backend could not be written.
    pub async fn save(&self) -> Result<(), GetError> {
        self.client.save_group(&self.promise, None).await
    }

    /// Does the same as [`save`](Self::save) and keeps the members for the time `lifetime`. It should be as long as the
    /// results of the members are of use.
    ///
    /// # Errors
    /// The same errors as those of [`save`](Self::save).
    pub async fn save_for(&self, lifetime: Duration) -> Result<(), GetError> {
        self.client.save_group(&self.promise, Some(lifetime)).await
    }

    /// Deletes the records of the last task or group, and of all tasks before it. Answers whether there were any.
    ///
    /// # Errors
    /// The store could not be written.
    pub async fn forget(&self) -> Result<bool, GetError> {
        let mut forgotten = false;
        let mut promise = Some(&self.promise);
        while let Some(own) = promise {
            for id in own.tasks() {
                forgotten |= self.client.forget(id).await?;
            }
            promise = own.parent.as_deref();
        }
        Ok(forgotten)
    }
}

impl<O: DeserializeOwned> CanvasResult<O> {
    /// Waits up to `timeout` for the value. For a group it is the list of the members' values, in their order.
    ///
    /// # Errors
    /// The result was not there in time, or a task ended without a value or will never run because one before it
    /// failed; see [`GetError`].
    pub async fn get(&self, timeout: Duration) -> Result<O, GetError> {
        let id = self.id();
        let value = tokio::time::timeout(timeout, value(&self.promise, &*self.client)).await;
        let value = value.map_err(|_| GetError::Timeout { id: id.clone(), waited: timeout })??;
        envelope::from_str(&value).map_err(|e| GetError::Decode { id: id.clone(), error: e.to_string() })
    }
}

/// A future of the value as JSON.
type ValueFuture<'a> = Pin<Box<dyn Future<Output = Result<String, GetError>> + Send + 'a>>;

fn value<'a>(promise: &'a Promise, client: &'a dyn Client) -> ValueFuture<'a> {
    Box::pin(async move {
        if let Some(members) = &promise.members {
            let mut values = Vec::with_capacity(members.len());
            for member in members {
                values.push(value(member, client).await?);
            }
            return Ok(format!("[{}]", values.join(",")));
        }
        if promise.ignored {
            return Err(GetError::NotKept(promise.id.clone()));
        }
        let record = client.expect(&promise.id).await?;
        if record.state != State::Success {
            return Err(GetError::Ended(Box::new(record)));
        }
        Ok(record.result.unwrap_or_else(|| "null".to_owned()))
    })
}

impl<O> Clone for CanvasResult<O> {
    fn clone(&self) -> Self {
        Self::new(self.promise.clone(), Arc::clone(&self.client))
    }
}

impl<O> fmt::Debug for CanvasResult<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CanvasResult").field(&self.promise).finish()
    }
}
