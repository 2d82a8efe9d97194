//! Many small calls of one task in a few messages: `celery.map`, `celery.starmap`, and `celery.chunks`, which is a group
//! of the latter.

use serde_json::{Map, Value};

use super::SignatureError;
use super::node::{Kind, Node};

/// `celery.map` or `celery.starmap` over these items.
pub(crate) fn mapped(kind: &str, task: Node, items: Vec<Value>) -> Node {
    let kwargs =
        Map::from_iter([("task".to_owned(), task.into_value()), ("it".to_owned(), Value::Array(items))]);
    let name = format!("celery.{kind}");
    let mut node = Node::new(Kind::Task { name, kwargs, subtask_type: Some(kind.to_owned()) });
    node.immutable = true; // its arguments are in the items
    node
}

/// The members of a group that does `n` items in each message.
pub(crate) fn split(task: &Node, items: Vec<Value>, n: usize) -> Vec<Node> {
    let chunks = items.chunks(n.max(1)).map(<[Value]>::to_vec);
    chunks.map(|items| mapped("starmap", task.clone(), items)).collect()
}

/// The members of the group that a `celery.chunks` signature stands for.
pub(super) fn members(mut kwargs: Map<String, Value>) -> Result<Vec<Node>, SignatureError> {
    let wrong = |what: &str| SignatureError(format!("`celery.chunks` has no {what}"));
    let task = kwargs.remove("task").ok_or_else(|| wrong("`task`"))?;
    let task = serde_json::from_value(task).map_err(|e| wrong(&format!("usable `task`: {e}")))?;
    let Some(Value::Array(items)) = kwargs.remove("it") else { return Err(wrong("list `it`")) };
    let n = kwargs.get("n").and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    Ok(split(&Node::from_raw(task)?, items, n.filter(|n| *n > 0).ok_or_else(|| wrong("positive `n`"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_a_group_of_starmaps() {
        let text =
            r#"{"task":"celery.chunks","kwargs":{"task":{"task":"t.add"},"it":[[1,2],[3,4],[5,6]],"n":2}}"#;
        let node = Node::from_raw(serde_json::from_str(text).unwrap()).unwrap();
        let Kind::Group(members) = node.kind else { panic!() };
        let items: Vec<_> = members.into_iter().map(|m| m.into_raw().kwargs["it"].to_string()).collect();
        assert_eq!(items, ["[[1,2],[3,4]]", "[[5,6]]"]);
        for broken in
            [r#"{"it":[],"n":1}"#, r#"{"task":{"task":"a"},"n":1}"#, r#"{"task":{"task":"a"},"it":[],"n":0}"#]
        {
            let text = format!(r#"{{"task":"celery.chunks","kwargs":{broken}}}"#);
            assert!(Node::from_raw(serde_json::from_str(&text).unwrap()).is_err());
        }
    }
}
