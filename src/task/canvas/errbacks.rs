//! The errbacks that are called when the body of a chord cannot start.
//!
//! An errback that is linked to a chord is also linked to the chords in its header, and the failure of an inner chord
//! fails the outer one. So both would call the errback for one failure. To prevent that, the error of a part names the
//! errbacks that were called with it, and the outer chord leaves these out. Celery's own workers ignore unknown keys in
//! an error.

use std::collections::HashSet;

use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_128;

use super::join::add_new;
use super::node::{Node, NodeKind};

/// The key under which the document of an error names the errbacks that were called with it.
const CALLED: &str = "celeriac_called";

/// A list of signatures to call, without duplicates.
pub(super) struct Errbacks {
    pub(super) nodes: Vec<Node>,
}

impl From<Vec<Node>> for Errbacks {
    fn from(nodes: Vec<Node>) -> Self {
        Self { nodes: Vec::new() }.and(&Self { nodes })
    }
}

impl Errbacks {
    /// The errbacks of a body, and those of the first step or of the parts of that body.
    pub(super) fn of(body: &Node) -> Self {
        let own = Self::from(body.options.link_error.clone());
        match &body.kind {
            NodeKind::Task { .. } => own,
            NodeKind::Chain(steps) => {
                steps.first().map(Self::of).into_iter().fold(own, |all, more| all.and(&more))
            }
            NodeKind::Group(members) => members.iter().fold(own, |all, member| all.and(&Self::of(member))),
            NodeKind::Chord(chord) => own.and(&Self::of(&chord.body)),
        }
    }

    /// Adds those of `more` that are not in the list yet.
    pub(super) fn and(mut self, more: &Self) -> Self {
        add_new(&mut self.nodes, &more.nodes);
        self
    }

    /// Removes the errbacks that were called already.
    pub(super) fn without(mut self, called: &HashSet<String>) -> Self {
        if !called.is_empty() {
            self.nodes.retain(|node| !called.contains(&fingerprint(node)));
        }
        self
    }

    /// The fingerprints of these errbacks and of those that were called before.
    pub(super) fn known(&self, called: &HashSet<String>) -> Vec<String> {
        let mut all: Vec<_> = self.nodes.iter().map(fingerprint).chain(called.iter().cloned()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// Reads the fingerprints of the errbacks that were called with an error.
pub(super) fn called(error: &Value) -> Vec<String> {
    let list = error.get(CALLED).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Writes the fingerprints of the errbacks that were called with an error into its document.
pub(crate) fn note_called(error: &mut Value, called: &[String]) {
    if let (Value::Object(error), false) = (error, called.is_empty()) {
        error.insert(CALLED.to_owned(), json!(called));
    }
}

/// A hash of a signature without its ids. Copies of one signature that got ids of their own have the same fingerprint.
fn fingerprint(node: &Node) -> String {
    let mut value = node.clone().into_json().value().clone();
    forget_ids(&mut value);
    format!("{:032x}", xxh3_128(value.to_string().as_bytes()))
}

/// Removes the options that freezing and sending add.
fn forget_ids(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(forget_ids),
        Value::Object(map) => {
            if let Some(Value::Object(options)) = map.get_mut("options") {
                for key in ["task_id", "group_id", "group_index", "root_id", "parent_id", "reply_to"] {
                    options.remove(key);
                }
            }
            map.values_mut().for_each(forget_ids);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_an_errback_are_the_same_whatever_their_ids() {
        let errback = || {
            let mut node = Node::task("oops");
            node.args.push(1.into());
            node
        };
        let mut sent = errback();
        sent.options.set("task_id", "a");
        sent.options.set("reply_to", "r");
        assert_eq!(fingerprint(&sent), fingerprint(&errback()));
        assert_ne!(fingerprint(&Node::task("oops")), fingerprint(&errback()));
        let mut error = json!({"exc_type": "KeyError"});
        note_called(&mut error, &[]);
        assert_eq!(error, json!({"exc_type": "KeyError"}));
        note_called(&mut error, &[fingerprint(&sent)]);
        let known = called(&error).into_iter().collect();
        let left = Errbacks::from(vec![errback(), Node::task("other")]).without(&known);
        assert_eq!(left.nodes, [Node::task("other")]);
    }
}
