//! The operator's levers on tasks that are not over: those that wait, are scheduled or run can be listed and revoked, one and
//! all that match.

use futures_util::future::join_all;

use super::handle::{Celeriac, ControlError};
use crate::broker::{Inspect, TaskFilter, UnfinishedTask};
use crate::task::{GetError, TaskId};

/// How many revocations are on their way at a time.
const AT_ONCE: usize = 32;

/// What became of the tasks that were to be revoked.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RevokedTasks {
    /// The tasks that are revoked. A task that is in neither list was over by then.
    pub ids: Vec<TaskId>,
    /// The tasks that could not be revoked, each with the reason.
    pub failed: Vec<(TaskId, GetError)>,
}

impl Celeriac {
    /// The tasks that wait, are scheduled or run and that the filter chooses, at most `limit`, each with what it waits for. On
    /// RabbitMQ they are only those that this process has, because a queue of RabbitMQ cannot be searched.
    ///
    /// # Errors
    /// The broker does not answer, or cannot list tasks.
    pub async fn unfinished_tasks(
        &self,
        filter: &TaskFilter,
        limit: usize,
    ) -> Result<Vec<UnfinishedTask>, ControlError> {
        Ok(self.inspector()?.list_unfinished(&self.informed(filter), limit).await?)
    }

    /// [Revokes](crate::task::Client::revoke) all tasks that wait, are scheduled or run and that the filter chooses: each is
    /// over with the state REVOKED, and what was to follow from it follows. With `terminate`, bodies that run are told to end;
    /// without, they run on, and are not tried again.
    ///
    /// # Errors
    /// The broker does not answer, or cannot list tasks. Then nothing is revoked.
    pub async fn revoke_unfinished(
        &self,
        filter: &TaskFilter,
        terminate: bool,
    ) -> Result<RevokedTasks, ControlError> {
        let ids = self.inspector()?.unfinished_ids(&self.informed(filter)).await?;
        let (client, mut revoked) = (self.client(), RevokedTasks::default());
        for ids in ids.chunks(AT_ONCE) {
            let answers = join_all(ids.iter().map(|id| client.revoke(id, terminate))).await;
            for (id, answer) in ids.iter().zip(answers) {
                match answer {
                    Ok(true) => revoked.ids.push(id.clone()),
                    Ok(false) => {}
                    Err(error) => revoked.failed.push((id.clone(), error)),
                }
            }
        }
        Ok(revoked)
    }

    pub(super) fn inspector(&self) -> Result<&dyn Inspect, ControlError> {
        let broker = &self.runtime().broker;
        broker.inspect().ok_or_else(|| ControlError::NoAbility {
            broker: broker.name(),
            what: "list the tasks that wait in it",
        })
    }
}
