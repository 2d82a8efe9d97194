//! Result tuples: how Celery writes which tasks and groups a task has sent.

use serde_json::Value;

use crate::task::{Child, TaskId};

/// The `children` of a meta document: `[[id, null], null]` for a task, `[[id, null], [[[member, null], null], …]]` for a group.
pub fn children(children: &[Child]) -> Value {
    children.iter().map(tuple).collect()
}

/// The result tuple of a group, as `celery-taskset-meta-<id>` holds it under `result`.
pub fn group(id: &str, members: &[TaskId]) -> Value {
    tuple(&Child::Group(id.to_owned(), members.to_vec()))
}

fn tuple(child: &Child) -> Value {
    match child {
        Child::Task(id) => serde_json::json!([[id, null], null]),
        Child::Group(id, members) => {
            let members: Vec<Value> =
                members.iter().map(|id| serde_json::json!([[id, null], null])).collect();
            serde_json::json!([[id, null], members])
        }
    }
}
