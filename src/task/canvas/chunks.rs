//! Many small calls of one task in a few messages: `celery.map`, `celery.starmap`, and `celery.chunks`, which is a
//! group of `celery.starmap`.

use std::cell::Cell;

use super::SignatureError;
use super::limits::CanvasLimits;
use super::node::{Node, NodeKind};
use crate::task::{Json, JsonMap};

/// Makes a `celery.map` or `celery.starmap` over these items.
pub(crate) fn mapped(kind: &str, task: Node, items: Vec<Json>) -> Node {
    mapped_over(kind, task.into_json(), &items)
}

fn mapped_over(kind: &str, task: Json, items: &[Json]) -> Node {
    let kwargs = JsonMap::from_iter([("task".to_owned(), task), ("it".to_owned(), Json::list(items))]);
    let name = format!("celery.{kind}");
    let mut node = Node::new(NodeKind::Task { name, kwargs, subtask_type: Some(kind.to_owned()) });
    node.immutable = true; // its arguments are in the items
    node
}

/// Checks that so many items in chunks of `n` make a group that can be sent. A caller with more items takes larger
/// chunks.
///
/// # Errors
/// The items make too many chunks.
pub(crate) fn check(items: usize, n: usize) -> Result<(), SignatureError> {
    let (chunks, most) = (items.div_ceil(n.max(1)), CanvasLimits::default().tasks);
    if chunks <= most {
        return Ok(());
    }
    Err(SignatureError(format!(
        "{items} items in chunks of {n} are {chunks} messages at once, the limit is {most}: take chunks of at least {}",
        items.div_ceil(most)
    )))
}

/// The members of a group that does `n` items in each message. All of them have the task in common.
pub(crate) fn split(task: Node, items: &[Json], n: usize) -> Vec<Node> {
    let task = task.into_json();
    items.chunks(n.max(1)).map(|items| mapped_over("starmap", task.clone(), items)).collect()
}

/// The members of the group that a `celery.chunks` signature stands for. `made`: how many were made of the signatures around it.
pub(super) fn members(mut kwargs: JsonMap, made: &Cell<usize>) -> Result<Vec<Node>, SignatureError> {
    let wrong = |what: &str| SignatureError(format!("`celery.chunks` has no {what}"));
    let task = kwargs.remove("task").ok_or_else(|| wrong("`task`"))?;
    let task = task.read().map_err(|e| wrong(&format!("usable `task`: {e}")))?;
    let items: Vec<Json> =
        kwargs.remove("it").and_then(|items| items.read().ok()).ok_or_else(|| wrong("list `it`"))?;
    let n = kwargs.get("n").and_then(|n| n.as_u64()).and_then(|n| usize::try_from(n).ok());
    let n = n.filter(|n| *n > 0).ok_or_else(|| wrong("positive `n`"))?;
    check(items.len(), n)?;
    made.set(made.get() + items.len().div_ceil(n));
    CanvasLimits::default().check_tasks(made.get())?;
    Ok(split(Node::from_raw(task)?, &items, n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_a_group_of_starmaps() {
        let text =
            r#"{"task":"celery.chunks","kwargs":{"task":{"task":"t.add"},"it":[[1,2],[3,4],[5,6]],"n":2}}"#;
        let node = Node::from_raw(serde_json::from_str(text).unwrap()).unwrap();
        let NodeKind::Group(members) = node.kind else { panic!() };
        let items: Vec<_> = members.into_iter().map(|m| m.into_raw().kwargs["it"].to_string()).collect();
        assert_eq!(items, ["[[1,2],[3,4]]", "[[5,6]]"]);
        // Each is a task's worth of its own, and all of them together are counted before they are made.
        let chunks =
            text.replace("[[1,2],[3,4],[5,6]]", &format!("[{}0]", "0,".repeat(5999))).replace(":2}", ":1}");
        let many = format!(r#"{{"task":"celery.group","kwargs":{{"tasks":[{chunks},{chunks}]}}}}"#);
        assert!(Node::from_raw(serde_json::from_str(&chunks).unwrap()).is_ok());
        let error = Node::from_raw(serde_json::from_str(&many).unwrap()).unwrap_err().to_string();
        assert!(error.contains("12000 tasks at once, the limit is 10000"), "{error}");
        for broken in
            [r#"{"it":[],"n":1}"#, r#"{"task":{"task":"a"},"n":1}"#, r#"{"task":{"task":"a"},"it":[],"n":0}"#]
        {
            let text = format!(r#"{{"task":"celery.chunks","kwargs":{broken}}}"#);
            assert!(Node::from_raw(serde_json::from_str(&text).unwrap()).is_err());
        }
    }
}
