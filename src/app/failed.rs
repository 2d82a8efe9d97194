//! The operator's levers on tasks that have failed for good: to look at them, to try them again as they are or with other
//! arguments, and to delete them. Each takes one task, by its id, or all that match.
//!
//! Invariant: what is to be changed is found first, and changed by its id. So a task that fails while that goes on is not
//! changed, and the answer names each task that was.

use std::sync::Arc;

use super::handle::{Celeriac, ControlError};
use crate::broker::{FailedTask, FailedTasks, FindParams, Retried, TaskEdit, TaskFilter};
use crate::task::registry::Registry;
use crate::task::tenant::check as check_tenant;
use crate::task::{Dispatcher, EnqueueError, Message, SerialFn, TENANT, TaskId};

/// How many tasks go back, or are deleted, in one step of the broker.
const BATCH: usize = 1000;

impl Celeriac {
    /// The tasks that have failed for good and that the filter chooses, the oldest first, at most `limit`: each with its
    /// arguments, and with its attempts and their errors. Dead letters are among them.
    ///
    /// ```no_run
    /// # async fn demo(celeriac: celeriac::Celeriac) -> Result<(), Box<dyn std::error::Error>> {
    /// use celeriac::broker::{TaskEdit, TaskFilter};
    /// use celeriac::catalogue::Argument;
    ///
    /// let gateway = Argument::Name("gateway".into());
    /// let lost = TaskFilter::new().task("mail.*")?.argument(gateway.clone(), "old.example.org");
    /// for task in celeriac.failed_tasks(&lost, 20).await? {
    ///     println!("{} {} after {} attempts", task.message.id, task.reason, task.attempts().len());
    /// }
    /// let edit = TaskEdit::set(gateway, "new.example.org");
    /// let retried = celeriac.edit_and_retry_failed(&lost, edit).await?;
    /// println!("{} go back, {} cannot", retried.ids.len(), retried.refused.len());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The broker does not answer, or keeps no failed tasks.
    pub async fn failed_tasks(
        &self,
        filter: &TaskFilter,
        limit: usize,
    ) -> Result<Vec<FailedTask>, ControlError> {
        Ok(self.keeper()?.list_failed(&self.informed(filter), limit).await?)
    }

    /// Puts all failed tasks that the filter chooses back into their queues, with their attempts counted anew. Their records
    /// go, so that the next ones can be kept.
    ///
    /// # Errors
    /// The broker does not answer, or keeps no failed tasks. Some tasks may be back by then.
    pub async fn retry_failed(&self, filter: &TaskFilter) -> Result<Retried, ControlError> {
        self.retry(filter, None).await
    }

    /// As [`retry_failed`](Self::retry_failed), with other arguments. A serial task comes to the lane that its new arguments
    /// make. A task for which the edit cannot be made stays as it is.
    ///
    /// # Errors
    /// The broker does not answer, or keeps no failed tasks. Some tasks may be back by then.
    pub async fn edit_and_retry_failed(
        &self,
        filter: &TaskFilter,
        edit: TaskEdit,
    ) -> Result<Retried, ControlError> {
        let dispatcher = Arc::clone(&self.runtime().dispatcher);
        let edit =
            edit.knowing(self.params()).then(move |before, message| sound(&dispatcher, before, message));
        self.retry(filter, Some(&edit)).await
    }

    /// Deletes all failed tasks that the filter chooses for good, dead letters too. Their records stay. Answers with the ids
    /// of those that it has deleted.
    ///
    /// # Errors
    /// The broker does not answer, or keeps no failed tasks. Some tasks may be deleted by then.
    pub async fn delete_failed(&self, filter: &TaskFilter) -> Result<Vec<TaskId>, ControlError> {
        let keeper = self.keeper()?;
        let mut deleted = Vec::new();
        for ids in keeper.failed_ids(&self.informed(filter)).await?.chunks(BATCH) {
            deleted.extend(keeper.delete_failed(ids).await?);
        }
        Ok(deleted)
    }

    /// How many failed tasks this process could not keep, or has dropped because their queue kept too many, since it started.
    pub fn dropped_failed_tasks(&self) -> u64 {
        self.runtime().broker.failed_tasks().map_or(0, |keeper| keeper.dropped_failed())
    }

    async fn retry(&self, filter: &TaskFilter, edit: Option<&TaskEdit>) -> Result<Retried, ControlError> {
        let keeper = self.keeper()?;
        let mut retried = Retried::default();
        for ids in keeper.failed_ids(&self.informed(filter)).await?.chunks(BATCH) {
            let Retried { ids, refused } = keeper.retry_failed(ids, edit).await?;
            retried.ids.extend(ids);
            retried.refused.extend(refused);
        }
        Ok(retried)
    }

    pub(super) fn keeper(&self) -> Result<&dyn FailedTasks, ControlError> {
        let broker = &self.runtime().broker;
        broker.failed_tasks().ok_or_else(|| ControlError::NoAbility {
            broker: broker.name(),
            what: "keep failed tasks; their records say why they failed",
        })
    }

    /// The filter, with what this program knows of queues and of the parameters of its tasks.
    pub(super) fn informed(&self, filter: &TaskFilter) -> TaskFilter {
        filter.clone().within(self.catalogue()).knowing(self.params())
    }

    /// As [`informed`](Self::informed), for a list in pages: tasks are found by the index of an argument that the filter states, if
    /// all tasks of this program that are meant and have such an argument declare that they are searched for by it.
    pub(super) fn informed_for_pages(&self, filter: &TaskFilter) -> TaskFilter {
        let filter = self.informed(filter);
        let dispatcher = &self.runtime().dispatcher;
        if !dispatcher.indexes_arguments {
            return filter;
        }
        let meant = filter.clone();
        let is_meant = |task: &str| meant.means_task(task);
        filter.by_index(|argument| dispatcher.registry.all_search_by(argument, &is_meant))
    }

    /// Says which parameters the tasks of this program have.
    pub(super) fn params(&self) -> Arc<FindParams> {
        let dispatcher = Arc::clone(&self.runtime().dispatcher);
        Arc::new(move |task: &str| {
            dispatcher.registry.get(task).map_or(&[] as &'static [&'static str], |known| known.params)
        })
    }

    /// The names of the parameters of a task, if this program has it.
    #[cfg(feature = "web")]
    pub(crate) fn parameters_of(&self, task: &str) -> &'static [&'static str] {
        self.runtime().dispatcher.registry.get(task).map_or(&[], |known| known.params)
    }
}

/// Makes sure that an edited message could have been sent, and that a serial one comes to the lane of its arguments.
fn sound(dispatcher: &Dispatcher, before: &Message, message: &mut Message) -> Result<(), String> {
    let (size, limit) = (message.arguments.len(), dispatcher.max_message_size);
    if size > limit {
        return Err(EnqueueError::TooLarge { task: message.task.clone(), size, limit }.to_string());
    }
    retenant(&dispatcher.registry, before, message)?;
    match dispatcher.registry.get(&message.task).and_then(|task| task.serial) {
        Some(lane) => relane(lane, before, message),
        None => Ok(()),
    }
}

/// Gives a message the tenant of its new arguments. A tenant that its caller has chosen stays.
fn retenant(registry: &Registry, before: &Message, message: &mut Message) -> Result<(), String> {
    let own = |message: &Message| registry.tenant(&message.task, &message.arguments);
    if own(before).as_deref() == before.tenant() {
        match own(message) {
            Some(tenant) => drop(message.headers.0.insert(TENANT.to_owned(), tenant.into())),
            None => drop(message.headers.0.remove(TENANT)),
        }
    }
    check_tenant(&message.headers)
}

/// Gives a message the lane of its new arguments. A lane that its caller has chosen stays.
fn relane(lane: SerialFn, before: &Message, message: &mut Message) -> Result<(), String> {
    let Some(old) = &before.serial else { return Ok(()) }; // whoever starts it lines it up
    if lane(&before.arguments).is_ok_and(|own| own.lane == old.lane) {
        let new = lane(&message.arguments).map_err(|error| error.told(&message.headers))?;
        message.serial = Some(Box::new(new));
    }
    Ok(())
}
