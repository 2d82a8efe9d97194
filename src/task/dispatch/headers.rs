//! The headers that a call gets where it is enqueued, and the check of all that it has then. Two are added: the tenant on whose
//! behalf the task runs, and the arguments by which it is searched for.

use serde_json::Value;

use super::Dispatcher;
use crate::task::canvas::json_len;
use crate::task::tenant::check;
use crate::task::wire_names::check_call;
use crate::task::{EnqueueError, NewTask, SEARCH, TENANT, TaskDefinition};

impl Dispatcher {
    /// Puts the tenant of a call into its headers, unless they state one already: the one that the arguments name.
    ///
    /// # Errors
    /// The name is too long.
    pub(super) fn put_tenant(
        &self,
        call: &mut NewTask,
        known: Option<&TaskDefinition>,
    ) -> Result<(), EnqueueError> {
        if !call.headers.0.contains_key(TENANT)
            && let Some(tenant) = self.registry.tenant_of(&call.task, known, &call.arguments)
        {
            call.headers.0.insert(TENANT.to_owned(), tenant.into());
        }
        check(&call.headers).map_err(|what| EnqueueError::Tenant { task: call.task.clone(), what })
    }

    /// As [`put_tenant`](Self::put_tenant), for a call that cannot be refused any more: one whose tenant has too long a name
    /// goes without.
    pub(super) fn put_fit_tenant(&self, call: &mut NewTask, known: Option<&TaskDefinition>) {
        if let Err(error) = self.put_tenant(call, known) {
            tracing::error!(%error, "the next step of a workflow goes without a tenant");
            call.headers.0.remove(TENANT);
        }
    }

    /// Says in the headers of a call by which of its arguments the task is searched for, if the task declares any and the broker
    /// keeps an index of them. A call that hides its arguments says nothing of them.
    pub(super) fn put_search(&self, call: &mut NewTask, known: Option<&TaskDefinition>) {
        call.headers.0.remove(SEARCH);
        if self.indexes_arguments
            && let Some(declared) = known.and_then(declared)
            && !call.headers.hide_arguments()
        {
            call.headers.0.insert(SEARCH.to_owned(), declared);
        }
    }

    /// Checks the size of the headers, and their names.
    ///
    /// # Errors
    /// They are too large, or a name or a property is not usable.
    pub(super) fn check_headers(&self, call: &NewTask) -> Result<(), EnqueueError> {
        let (size, limit) = (json_len(&call.headers.0), self.max_message_size);
        if size > limit {
            return Err(EnqueueError::HeadersTooLarge { task: call.task.clone(), size, limit });
        }
        check_call(&call.headers).map_err(|what| EnqueueError::Name { task: call.task.clone(), what })
    }
}

/// What the header [`SEARCH`] of a call of this task says: by which parameters the task is searched for, each with its position.
/// `None`: the task declares none.
fn declared(task: &TaskDefinition) -> Option<Value> {
    if task.search.is_empty() {
        return None;
    }
    let declared = task.search.iter().filter_map(|name| {
        let at = task.params.iter().position(|param| param == name)?;
        Some(((*name).to_owned(), Value::from(at)))
    });
    Some(Value::Object(declared.collect()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::task::dispatch::tests::dispatcher;
    use crate::task::dispatch::{Dispatcher, ParentTask};
    use crate::task::registry::Registry;
    use crate::task::{NewTask, SEARCH, TaskOptions};

    #[crate::task(name = "search.export", search = ["domain", "form_id"])]
    fn export(form_id: u64, title: String, domain: String) {
        let _ = (form_id, title, domain);
    }

    fn with_index(indexes_arguments: bool) -> Dispatcher {
        Dispatcher { registry: Registry::discover().unwrap(), indexes_arguments, ..dispatcher() }
    }

    #[test]
    fn a_message_says_by_what_it_is_searched_for_where_there_is_an_index() {
        let call = || NewTask::new("search.export", TaskOptions::default());
        let header =
            |dispatcher: &Dispatcher, call| dispatcher.message(call).unwrap().headers.0.get(SEARCH).cloned();
        assert_eq!(header(&with_index(true), call()), Some(json!({ "domain": 2, "form_id": 0 })));
        let mut stated = call();
        stated.headers.0.insert(SEARCH.to_owned(), json!({ "title": 1 }));
        assert_eq!(
            header(&with_index(false), stated.clone()),
            None,
            "the messages of RabbitMQ are as before"
        );
        assert_eq!(header(&with_index(true), stated), Some(json!({ "domain": 2, "form_id": 0 })));
        let mut hidden = call();
        hidden.headers.0.insert("argsrepr".to_owned(), "***".into());
        assert_eq!(header(&with_index(true), hidden), None);
        let other = NewTask::new("python.task", TaskOptions::default());
        assert_eq!(header(&with_index(true), other), None);
    }

    #[test]
    fn what_follows_from_a_task_says_it_too() {
        let call = crate::task::canvas::Call {
            task: "search.export".into(),
            args: vec![1.into()],
            kwargs: crate::task::JsonMap::new(),
            options: crate::task::JsonMap::new(),
            callbacks: Vec::new(),
            errbacks: Vec::new(),
            chain: Vec::new(),
            chord: None,
        };
        let message = with_index(true).next(call, &ParentTask::default());
        assert_eq!(message.headers.0.get(SEARCH), Some(&json!({ "domain": 2, "form_id": 0 })));
    }
}
