//! What a message says of the arguments by which it is searched for.

use super::Dispatcher;
use crate::task::{NewTask, SEARCH};

impl Dispatcher {
    /// Says in the headers of a call by which of its arguments the task is searched for, if the task declares any and the broker
    /// keeps an index of them. A call that hides its arguments says nothing of them.
    pub(super) fn put_search(&self, call: &mut NewTask) {
        call.headers.0.remove(SEARCH);
        if self.indexes_arguments
            && !call.headers.hide_arguments()
            && let Some(declared) = self.registry.searched(&call.task)
        {
            call.headers.0.insert(SEARCH.to_owned(), declared);
        }
    }
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
