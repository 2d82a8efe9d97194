//! Calls of the tasks of this program by name, as an operator makes and changes them by hand.

use super::handle::Celeriac;
use crate::task::{Arguments, EnqueueError, Message, NewTask, Receipt, TaskDefinition, TaskId};

impl Celeriac {
    /// The tasks of this program by their names, without those that Celery's workers have built in.
    pub(crate) fn tasks_here(&self) -> Vec<&'static TaskDefinition> {
        let registry = &self.runtime().dispatcher.registry;
        let names = registry.names().into_iter().filter(|name| !name.starts_with("celery."));
        names.filter_map(|name| registry.get(name)).collect()
    }

    /// The task of this name, if the program has it; else the name that may be meant.
    pub(crate) fn task_here(&self, name: &str) -> Result<&'static TaskDefinition, Option<&'static str>> {
        let registry = &self.runtime().dispatcher.registry;
        registry.get(name).ok_or_else(|| registry.nearest(name))
    }

    /// Where a call of a task goes: to this queue, on behalf of this tenant.
    ///
    /// # Errors
    /// No queue takes it.
    pub(crate) fn place_of_call(
        &self,
        task: &str,
        arguments: &Arguments,
    ) -> Result<(String, Option<String>), EnqueueError> {
        let registry = &self.runtime().dispatcher.registry;
        let tenant = registry.tenant(task, arguments);
        let stated = registry.options(task).and_then(|options| options.queue);
        let queue = self.inner.routing.queue(tenant.as_deref(), task, stated.as_deref(), arguments)?;
        Ok((queue.to_owned(), tenant))
    }

    /// The tenant that a task has with other arguments: the one that they name, unless its caller has chosen one.
    pub(crate) fn tenant_after_edit(&self, before: &Message, arguments: &Arguments) -> Option<String> {
        let registry = &self.runtime().dispatcher.registry;
        let named = registry.tenant(&before.task, &before.arguments);
        match named.as_deref() == before.tenant() {
            true => registry.tenant(&before.task, arguments),
            false => before.tenant().map(str::to_owned),
        }
    }

    /// Calls a task of this program as it states itself.
    ///
    /// # Errors
    /// The call is not accepted.
    pub(crate) async fn call_task(
        &self,
        task: &TaskDefinition,
        arguments: Arguments,
        id: TaskId,
    ) -> Result<Receipt, EnqueueError> {
        let options = (task.options)();
        let call = NewTask { arguments, id: Some(id), ..NewTask::new(task.name, options) };
        self.client().enqueue(Box::new(call)).await
    }
}
