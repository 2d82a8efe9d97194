//! Where a task is that is not over, with its message, for the page of one task.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::handle::{Celeriac, ControlError};
use crate::broker::MessageLocation;
use crate::core::Timestamp;
use crate::task::{Message, TaskId};

/// How long the queues have to say what they have.
const PATIENCE: Duration = Duration::from_secs(1);

/// A task that is not over, as it was found.
pub(crate) enum TaskSighting {
    /// It waits in the broker.
    Waiting(Box<Message>),
    /// A queue of this program has it.
    Held {
        /// The message as it was delivered.
        message: Arc<Message>,
        /// When its run started; `None`: it waits here for a worker.
        started_at: Option<Timestamp>,
        /// The process that runs it.
        pid: Option<u32>,
    },
    /// It is delivered, and this program does not have it.
    Elsewhere {
        /// Its queue.
        queue: String,
    },
}

impl TaskSighting {
    /// The message, if it is known.
    pub(crate) fn message(&self) -> Option<&Message> {
        match self {
            Self::Waiting(message) => Some(message),
            Self::Held { message, .. } => Some(message),
            Self::Elsewhere { .. } => None,
        }
    }
}

impl Celeriac {
    /// Finds a task that is not over. `None`: nobody here knows such a task. The broker is asked for one task, and the queues
    /// for what they have.
    pub(crate) async fn sight(&self, id: &TaskId) -> Result<Option<TaskSighting>, ControlError> {
        let found = self.runtime().find(id).await?;
        if let Some(MessageLocation::Waiting(message)) = found {
            return Ok(Some(TaskSighting::Waiting(message)));
        }
        let held = self.inner.queues.held(Some(HashSet::from([id.clone()])), 1, PATIENCE).await;
        let held = held.into_iter().flat_map(|held| held.running.into_iter().chain(held.reserved)).next();
        if let Some(held) = held {
            let (message, started_at, pid) = (held.message, held.started_at, held.pid);
            return Ok(Some(TaskSighting::Held { message, started_at, pid }));
        }
        Ok(match found {
            Some(MessageLocation::Delivered { queue }) => Some(TaskSighting::Elsewhere { queue }),
            _ => None,
        })
    }
}
