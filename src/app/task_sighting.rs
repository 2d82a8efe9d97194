//! Where a task is that is not over, with its message, for the page of one task; and how the tasks around it stand.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::handle::{Celeriac, ControlError};
use crate::broker::MessageLocation;
use crate::core::Timestamp;
use crate::task::run_log::LogExcerpt;
use crate::task::{Message, State, TaskId};

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
        /// What its run has logged so far, if that is kept.
        log: Option<LogExcerpt>,
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

/// How a task stands, as far as it is known here.
#[derive(Clone, Debug)]
pub(crate) struct TaskStand {
    /// Its state.
    pub(crate) state: State,
    /// Its name.
    pub(crate) task: String,
    /// Its queue.
    pub(crate) queue: String,
    /// Its tenant. A record does not have it.
    pub(crate) tenant: Option<String>,
}

impl TaskStand {
    fn of(message: &Message, state: State) -> Self {
        let (task, queue) = (message.task.clone(), message.queue.clone());
        Self { state, task, queue, tenant: message.tenant().map(str::to_owned) }
    }
}

impl Celeriac {
    /// How these tasks stand. One of which nothing is known, or whose place does not answer, is left out. Each record is looked
    /// up, then all queues are asked once, and the broker for each task that is still missing.
    pub(crate) async fn stands(&self, ids: &[TaskId]) -> HashMap<TaskId, TaskStand> {
        let client = self.client();
        let records = join_all(ids.iter().map(|id| client.result(id))).await;
        let mut known: HashMap<TaskId, TaskStand> = HashMap::new();
        for record in records.into_iter().flatten().flatten() {
            let stand =
                TaskStand { state: record.state, task: record.task, queue: record.queue, tenant: None };
            known.insert(record.id, stand);
        }
        let missing: HashSet<TaskId> = ids.iter().filter(|id| !known.contains_key(*id)).cloned().collect();
        if missing.is_empty() {
            return known;
        }
        let held = self.inner.queues.held(Some(missing.clone()), missing.len(), PATIENCE).await;
        for held in held.into_iter().flat_map(|held| held.running.into_iter().chain(held.reserved)) {
            let state = if held.started_at.is_some() { State::Started } else { State::Received };
            known.insert(held.message.id.clone(), TaskStand::of(&held.message, state));
        }
        for id in missing {
            if known.contains_key(&id) {
                continue;
            }
            if let Ok(Some(MessageLocation::Waiting(message))) = self.runtime().find(&id).await {
                let state = if message.retries > 0 { State::Retry } else { State::Pending };
                known.insert(id, TaskStand::of(&message, state));
            }
        }
        known
    }

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
            let log = held.log.map(|log| log.so_far());
            let (message, started_at, pid) = (held.message, held.started_at, held.pid);
            return Ok(Some(TaskSighting::Held { message, started_at, pid, log }));
        }
        Ok(match found {
            Some(MessageLocation::Delivered { queue }) => Some(TaskSighting::Elsewhere { queue }),
            _ => None,
        })
    }
}
