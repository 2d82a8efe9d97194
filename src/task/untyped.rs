//! The result of a task that is known by its id only.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::{Client, GetError, Json, State, TaskId, TaskResult, TrackedState};

/// The result of any task, whichever program sends or runs it. The task may be one that only a Python worker knows.
/// Celery's `AsyncResult(id)`. [`Celeriac::async_result`](crate::Celeriac::async_result) makes one.
#[derive(Clone)]
pub struct UntypedResult {
    id: TaskId,
    client: Arc<dyn Client>,
}

impl UntypedResult {
    /// The result of the task of this id, as `client` sees it.
    pub fn new(id: impl Into<TaskId>, client: Arc<dyn Client>) -> Self {
        Self { id: id.into(), client }
    }

    /// Returns the id of the task.
    pub fn id(&self) -> &TaskId {
        &self.id
    }

    /// The state of the task now.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn state(&self) -> Result<State, GetError> {
        self.client.state(&self.id).await
    }

    /// Whether the task is over and has succeeded. Celery's `successful`.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn successful(&self) -> Result<bool, GetError> {
        Ok(self.state().await? == State::Success)
    }

    /// The record of the task, if the task is over and its record was kept.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn result(&self) -> Result<Option<TaskResult>, GetError> {
        self.client.result(&self.id).await
    }

    /// The last state that the task reported before its end (STARTED, RETRY, or one of the application's such as
    /// PROGRESS), with its data. This program itself may know of a later state: see [`state`](Self::state).
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn tracked(&self) -> Result<Option<TrackedState>, GetError> {
        self.client.tracked(&self.id).await
    }

    /// The data that belongs to the state: the last report of a task that is not over, the value of a task that
    /// succeeded, or the errors of a task that failed. Celery's `info`.
    ///
    /// # Errors
    /// The store could not be read, or the value does not decode.
    pub async fn info(&self) -> Result<Option<Json>, GetError> {
        if let Some(tracked) = self.tracked().await? {
            return tracked
                .meta
                .decode()
                .map(Some)
                .map_err(|e| GetError::Decode { id: self.id.clone(), error: e.to_string() });
        }
        match self.result().await? {
            None => Ok(None),
            Some(record) if record.state == State::Success => value_of(&record).map(Some),
            Some(record) => Ok(Some(record.errors.into())),
        }
    }

    /// Waits up to `timeout` for the value and decodes it as `O`, for example as [`Json`], which holds whatever it is.
    ///
    /// # Errors
    /// The task was not over in time, ended without a value, or is unknown; see [`GetError`].
    pub async fn get<O: DeserializeOwned>(&self, timeout: Duration) -> Result<O, GetError> {
        let result = tokio::time::timeout(timeout, self.client.wait(&self.id))
            .await
            .map_err(|_| GetError::Timeout { id: self.id.clone(), waited: timeout })??;
        if result.state != State::Success {
            return Err(GetError::Ended(Box::new(result)));
        }
        value_of(&result)
    }

    /// Takes the task out of its queue. If the task runs already, `terminate` tells the run to end. Answers whether
    /// there was anything to revoke.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn revoke(&self, terminate: bool) -> Result<bool, GetError> {
        self.client.revoke(&self.id, terminate).await
    }

    /// Deletes the record. Answers whether there was one.
    ///
    /// # Errors
    /// The store could not be written.
    pub async fn forget(&self) -> Result<bool, GetError> {
        self.client.forget(&self.id).await
    }
}

impl fmt::Debug for UntypedResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UntypedResult").field("id", &self.id).finish_non_exhaustive()
    }
}

fn value_of<O: DeserializeOwned>(record: &TaskResult) -> Result<O, GetError> {
    super::envelope::from_str(record.result.as_deref().unwrap_or("null"))
        .map_err(|e| GetError::Decode { id: record.id.clone(), error: e.to_string() })
}
