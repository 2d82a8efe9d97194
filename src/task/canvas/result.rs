//! The result to come of a canvas.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Promise;
use crate::task::envelope;
use crate::task::{Child, Client, GetError, State, TaskId, TaskResult};

/// A canvas that was sent, and in time its result: Celery's `AsyncResult`, and, where it ends in a group, its
/// `GroupResult`.
///
/// Its last task may not have been sent yet, nor be known to any broker: it is PENDING then, and waited for.
pub struct CanvasResult<O = Value> {
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

    /// The ids of this result, of its members, and of what comes before.
    pub fn promise(&self) -> &Promise {
        &self.promise
    }

    /// Whether this is the result of a group.
    pub fn is_group(&self) -> bool {
        self.promise.members.is_some()
    }

    /// The results of a group's members, in their order; none, if it is no group.
    pub fn members(&self) -> Vec<CanvasResult> {
        let members = self.promise.members.iter().flatten();
        members.map(|member| CanvasResult::new(member.clone(), Arc::clone(&self.client))).collect()
    }

    /// The result of what has to be over before: the step before in a chain, the header of a chord's body.
    pub fn parent(&self) -> Option<CanvasResult> {
        let parent = self.promise.parent.as_deref()?;
        Some(CanvasResult::new(parent.clone(), Arc::clone(&self.client)))
    }

    /// What the last task has sent, once it is over: callbacks and the like. Of a group: what its members have sent.
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

    /// The state now. Of a group: FAILURE or REVOKED as soon as a member ended like that, SUCCESS when all did, STARTED when
    /// some did.
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
            // It will be sent when what comes before is over.
            states.push(if state == State::Unknown { State::Pending } else { state });
        }
        Ok(states)
    }

    /// Whether it is over, the whole of it if it is a group.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn ready(&self) -> Result<bool, GetError> {
        Ok(self.states().await?.into_iter().all(State::is_finished))
    }

    /// Whether it is over and all has gone well.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn successful(&self) -> Result<bool, GetError> {
        Ok(self.states().await?.into_iter().all(|state| state == State::Success))
    }

    /// Whether it, or a member, is over and has not gone well.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn failed(&self) -> Result<bool, GetError> {
        Ok(self.states().await?.into_iter().any(|state| state.is_finished() && state != State::Success))
    }

    /// How many tasks of a group have succeeded; of a single task, 0 or 1.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn completed_count(&self) -> Result<usize, GetError> {
        Ok(self.states().await?.into_iter().filter(|state| *state == State::Success).count())
    }

    /// The record of the last task, if it is over and was kept; of a group there is none.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn result(&self) -> Result<Option<TaskResult>, GetError> {
        if self.is_group() { Ok(None) } else { self.client.result(self.id()).await }
    }

    /// Takes what waits of the last task or group out of its queue, as [`AsyncResult::revoke`](crate::AsyncResult::revoke)
    /// does. What was not sent yet cannot be revoked: revoke its [`parent`](Self::parent).
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

    /// Keeps who the members of this group are in the result backend, for whoever knows the group's id:
    /// [`Celeriac::group_result`](crate::Celeriac::group_result), [`Soil::group_status`](crate::soil::Soil::group_status), or,
    /// in Redis, Python's `GroupResult.restore`. Kept as long as results are by default: a day. Celery's `GroupResult.save`.
    ///
    /// # Errors
    /// This is no group, the backend keeps no groups (rpc does not), or it could not be written.
    pub async fn save(&self) -> Result<(), GetError> {
        self.client.save_group(&self.promise, None).await
    }

    /// [`save`](Self::save), for so long: as long as the results of its members are of use.
    ///
    /// # Errors
    /// As there.
    pub async fn save_for(&self, lifetime: Duration) -> Result<(), GetError> {
        self.client.save_group(&self.promise, Some(lifetime)).await
    }

    /// Deletes the records of the last task or group, and of all before it; says whether there were any.
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
    /// The value, waiting up to `timeout` for it; of a group the list of its members' values, in their order.
    ///
    /// # Errors
    /// Not over in time; a task ended without a value, or will never run because one before it did; see [`GetError`].
    pub async fn get(&self, timeout: Duration) -> Result<O, GetError> {
        let id = self.id();
        let value = tokio::time::timeout(timeout, value(&self.promise, &*self.client)).await;
        let value = value.map_err(|_| GetError::Timeout { id: id.clone(), waited: timeout })??;
        envelope::from_str(&value).map_err(|e| GetError::Decode { id: id.clone(), error: e.to_string() })
    }
}

/// The value as JSON.
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
