//! Result tuples: how Celery writes the tasks and groups that a task has sent.

use serde_json::{Value, json};

use crate::task::{Child, TaskId};

/// The `children` of a meta document: `[[id, null], null]` for a task, `[[id, null], [[[member, null], null], …]]`
/// for a group. Python fails on any other nesting.
pub fn children(children: &[Child]) -> Value {
    children.iter().map(tuple).collect()
}

/// The result tuple of a group, as `celery-taskset-meta-<id>` holds it under `result`.
pub fn group(id: &str, members: &[TaskId]) -> Value {
    let members: Vec<Value> = members.iter().map(|id| json!([[id.as_str(), null], null])).collect();
    json!([[id, null], members])
}

/// Reads `children`. Of a group within a group it takes only the id, and it skips values that are no result tuples.
pub fn read_children(value: &Value) -> Vec<Child> {
    let tuples = value.as_array().map(Vec::as_slice).unwrap_or_default();
    tuples.iter().filter_map(read_tuple).collect()
}

fn tuple(child: &Child) -> Value {
    match child {
        Child::Task(id) => json!([[id.as_str(), null], null]),
        Child::Group(id, members) => group(id, members),
    }
}

fn read_tuple(tuple: &Value) -> Option<Child> {
    let id = id_of(tuple)?;
    Some(match tuple.get(1)?.as_array() {
        None => Child::Task(id.into()),
        Some(members) => {
            Child::Group(id.to_owned(), members.iter().filter_map(id_of).map(TaskId::from).collect())
        }
    })
}

/// The id of a result tuple, whose first part is `[id, parent]`, or in some old documents the id alone.
fn id_of(tuple: &Value) -> Option<&str> {
    let first = tuple.get(0)?;
    first.get(0).unwrap_or(first).as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_read_back() {
        let sent = [
            Child::Task("a".into()),
            Child::Group("g".into(), vec!["b".into(), "c".into()]),
            Child::Group("empty".into(), vec![]),
        ];
        let value = children(&sent);
        let text =
            r#"[[["a",null],null],[["g",null],[[["b",null],null],[["c",null],null]]],[["empty",null],[]]]"#;
        assert_eq!(value.to_string(), text);
        assert_eq!(read_children(&value), sent);
    }

    #[test]
    fn parents_and_nonsense_are_no_matter() {
        let value = json!([[["a", [["p", null], null]], null], 5, [], [[]], [[null, null], null], "x"]);
        assert_eq!(read_children(&value), [Child::Task("a".into())]);
        assert_eq!(read_children(&Value::Null), []);
    }
}
