//! A canvas as a tree. A signature's document takes this form while it is joined, frozen, sent or failed.
//!
//! On the wire a composite signature keeps its parts in `kwargs`, and its links, its chord and the rest of its chain in
//! `options`. Here each of these has a field. The conversion loses nothing that a task is called with.

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::Arc;

use super::SignatureError;
use super::freeze::flattened;
use crate::task::{Json, JsonMap, RawSignature, TaskId};

/// The deepest nesting of signatures. Reading recurses once for each level, and the text of a signature has the texts
/// of all signatures inside it. So the message of a stranger must not decide how deep that goes.
const LEVELS: usize = 64;

/// A call or a composition of calls.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) kind: NodeKind,
    /// The positional arguments. Those of a composite go to the tasks that start first.
    pub(crate) args: Vec<Json>,
    pub(crate) options: NodeOptions,
    pub(crate) immutable: bool,
}

/// The kind of a node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum NodeKind {
    Task { name: String, kwargs: JsonMap, subtask_type: Option<String> },
    Chain(Vec<Node>),
    Group(Vec<Node>),
    Chord(Box<Chord>),
}

/// A header, which is always a group, and the body that is called with its results.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chord {
    pub(crate) header: Node,
    pub(crate) body: Node,
    pub(crate) kwargs: JsonMap,
}

/// The options of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct NodeOptions {
    /// All options without a field below: `task_id`, `group_id`, `queue`, `countdown`, …
    pub(crate) plain: JsonMap,
    pub(crate) link: Vec<Node>,
    pub(crate) link_error: Vec<Node>,
    /// The body of the chord that this node is a member of. All members share it.
    pub(crate) chord: Option<Arc<Node>>,
    /// The steps that come after this node, in reverse order. With `None` nothing was stated.
    pub(crate) chain: Option<Vec<Node>>,
}

impl NodeOptions {
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.plain.get(key).and_then(|value| value.as_str())
    }

    pub(crate) fn set(&mut self, key: &str, value: impl Into<Json>) {
        self.plain.insert(key, value);
    }

    /// Sets an option that is missing or null.
    pub(crate) fn set_default(&mut self, key: &str, value: impl FnOnce() -> Json) {
        if self.plain.get(key).is_none_or(|value| value.is_null()) {
            self.plain.insert(key, value());
        }
    }
}

impl Node {
    pub(crate) fn new(kind: NodeKind) -> Self {
        Self { kind, args: Vec::new(), options: NodeOptions::default(), immutable: false }
    }

    pub(crate) fn task(name: impl Into<String>) -> Self {
        Self::new(NodeKind::Task { name: name.into(), kwargs: JsonMap::new(), subtask_type: None })
    }

    pub(crate) fn chord(header: Self, body: Self) -> Self {
        Self::new(NodeKind::Chord(Box::new(Chord { header, body, kwargs: JsonMap::new() })))
    }

    /// The id that was given to the node. A chain has the id of its last step, and a group that of the group.
    pub(crate) fn id(&self) -> Option<&str> {
        self.options.text("task_id")
    }

    /// The name for the record of a node that will never run.
    pub(crate) fn name(&self) -> &str {
        match &self.kind {
            NodeKind::Task { name, .. } => name,
            NodeKind::Chain(_) => "celery.chain",
            NodeKind::Group(_) => "celery.group",
            NodeKind::Chord(_) => "celery.chord",
        }
    }

    /// Collects the tasks that keep no result, because they say so or because `is_known` says so of their name.
    pub(crate) fn ignored(&self, is_known: &dyn Fn(&str) -> bool, tasks: &mut HashSet<TaskId>) {
        match &self.kind {
            NodeKind::Task { name, .. } => {
                let said = self.options.plain.get("ignore_result").and_then(|said| said.as_bool());
                if said.unwrap_or_else(|| is_known(name)) {
                    tasks.extend(self.id().map(TaskId::from));
                }
            }
            NodeKind::Chain(nodes) | NodeKind::Group(nodes) => {
                nodes.iter().for_each(|node| node.ignored(is_known, tasks));
            }
            NodeKind::Chord(chord) => {
                chord.header.ignored(is_known, tasks);
                chord.body.ignored(is_known, tasks);
            }
        }
    }

    pub(crate) fn is_empty_group(&self) -> bool {
        matches!(&self.kind, NodeKind::Group(members) if members.is_empty())
    }

    /// Replaces a group of one by its member, with the group's options and arguments.
    pub(crate) fn unrolled(self) -> Self {
        if !matches!(&self.kind, NodeKind::Group(members) if members.len() == 1) {
            return self;
        }
        let group = self.clone();
        let mut member = flattened(vec![self]);
        if member.len() == 1 { member.remove(0) } else { group }
    }

    /// Reads a signature and all signatures inside it.
    ///
    /// # Errors
    /// A part that should be a signature is none, or the nesting is too deep.
    pub(crate) fn from_raw(raw: RawSignature) -> Result<Self, SignatureError> {
        Self::from_raw_at(raw, 0, &Chunks::default())
    }

    /// The same, of what will never run: who is in it, so that each of them can be told. Nothing is made of chunks, which have no
    /// ids yet.
    pub(crate) fn of_the_lost(raw: RawSignature) -> Result<Self, SignatureError> {
        Self::from_raw_at(raw, 0, &Chunks { are_left: true, ..Chunks::default() })
    }

    fn from_raw_at(raw: RawSignature, level: usize, chunks: &Chunks) -> Result<Self, SignatureError> {
        let RawSignature { task, args, mut kwargs, options, subtask_type, immutable } = raw;
        if level > LEVELS {
            return Err(SignatureError(format!(
                "`{task}` is a signature within more than {LEVELS} others; make one chain of the steps, or send the inner part from a task"
            )));
        }
        let inner = SignatureInner { of: &task, level: level + 1, chunks };
        let options = inner.options(options)?;
        let kind = match subtask_type.as_deref().unwrap_or(&task) {
            "chain" | "celery.chain" => NodeKind::Chain(inner.list("tasks", kwargs.remove("tasks"))?),
            "group" | "celery.group" => NodeKind::Group(inner.list("tasks", kwargs.remove("tasks"))?),
            "chord" | "celery.chord" => {
                let header = match kwargs.remove("header") {
                    Some(header) if is_object(&header) => inner.read("header", &header)?,
                    list => Self::new(NodeKind::Group(inner.list("header", list)?)),
                };
                // A single task or a chain may stand for the header too.
                let header = match header.kind {
                    NodeKind::Group(_) => header,
                    _ => Self::new(NodeKind::Group(vec![header])),
                };
                let body = kwargs.remove("body").unwrap_or_default();
                let kwargs = kwargs.remove("kwargs").and_then(|kwargs| kwargs.read().ok());
                let kwargs = kwargs.unwrap_or_default();
                NodeKind::Chord(Box::new(Chord { header, body: inner.read("body", &body)?, kwargs }))
            }
            "chunks" | "celery.chunks" if !chunks.are_left => {
                NodeKind::Group(super::chunks::members(kwargs, &chunks.made)?)
            }
            _ => NodeKind::Task { name: task, kwargs, subtask_type },
        };
        Ok(Self { kind, args, options, immutable })
    }

    /// Converts the node to its document.
    pub(crate) fn into_raw(self) -> RawSignature {
        let Self { kind, args, options, immutable } = self;
        let (task, kwargs, subtask_type) = match kind {
            NodeKind::Task { name, kwargs, subtask_type } => (name, kwargs, subtask_type),
            NodeKind::Chain(steps) => ("celery.chain".to_owned(), tasks(steps), Some("chain".to_owned())),
            NodeKind::Group(members) => ("celery.group".to_owned(), tasks(members), Some("group".to_owned())),
            NodeKind::Chord(chord) => {
                let mut kwargs = JsonMap::new();
                kwargs.insert("kwargs", Json::encode(&chord.kwargs).unwrap_or_default());
                kwargs.insert("header", chord.header.into_json());
                kwargs.insert("body", chord.body.into_json());
                ("celery.chord".to_owned(), kwargs, Some("chord".to_owned()))
            }
        };
        RawSignature { task, args, kwargs, options: write_options(options), subtask_type, immutable }
    }

    pub(crate) fn into_json(self) -> Json {
        // A signature consists of names and JSON, so this cannot fail.
        Json::encode(&self.into_raw()).unwrap_or_default()
    }
}

fn tasks(nodes: Vec<Node>) -> JsonMap {
    JsonMap::from_iter([("tasks".to_owned(), list(nodes))])
}

fn list(nodes: Vec<Node>) -> Json {
    Json::list(&nodes.into_iter().map(Node::into_json).collect::<Vec<_>>())
}

/// Whether the text is that of an object. The rest of it is not read.
fn is_object(json: &Json) -> bool {
    json.text().starts_with('{')
}

/// What becomes of `celery.chunks`, each of which is a few bytes that may become many.
#[derive(Default)]
struct Chunks {
    /// How many tasks were made of them so far.
    made: Cell<usize>,
    /// They stay as they are.
    are_left: bool,
}

/// What is inside of a signature.
struct SignatureInner<'a> {
    of: &'a str,
    level: usize,
    chunks: &'a Chunks,
}

impl SignatureInner<'_> {
    fn node(&self, what: &str, raw: Result<RawSignature, serde_json::Error>) -> Result<Node, SignatureError> {
        let raw = raw
            .map_err(|error| SignatureError(format!("`{what}` of `{}` is no signature: {error}", self.of)))?;
        Node::from_raw_at(raw, self.level, self.chunks)
    }

    fn read(&self, what: &str, json: &Json) -> Result<Node, SignatureError> {
        self.node(what, json.read())
    }

    /// Reads a list of signatures, or a single one; a missing list or null is empty.
    fn list(&self, what: &str, json: Option<Json>) -> Result<Vec<Node>, SignatureError> {
        match json {
            None => Ok(Vec::new()),
            Some(json) if json.text() == "null" => Ok(Vec::new()),
            Some(json) if json.text().starts_with('[') => {
                let list: Vec<Json> = json.read().map_err(|error| {
                    SignatureError(format!("`{what}` of `{}` is no list: {error}", self.of))
                })?;
                list.iter().map(|json| self.read(what, json)).collect()
            }
            Some(one) => Ok(vec![self.read(what, &one)?]),
        }
    }

    fn options(&self, mut plain: JsonMap) -> Result<NodeOptions, SignatureError> {
        let link = self.list("link", plain.remove("link"))?;
        let link_error = self.list("link_error", plain.remove("link_error"))?;
        let chord = plain.remove("chord").filter(|chord| chord.text() != "null");
        let chord = chord.map(|chord| self.read("chord", &chord)).transpose()?.map(Arc::new);
        let chain = plain.remove("chain").filter(|chain| chain.text() != "null");
        let chain = chain.map(|chain| self.list("chain", Some(chain))).transpose()?;
        Ok(NodeOptions { plain, link, link_error, chord, chain })
    }
}

fn write_options(options: NodeOptions) -> JsonMap {
    let NodeOptions { mut plain, link, link_error, chord, chain } = options;
    for (key, nodes) in [("link", link), ("link_error", link_error)] {
        if !nodes.is_empty() {
            plain.insert(key, list(nodes));
        }
    }
    if let Some(chord) = chord {
        plain.insert("chord", Arc::unwrap_or_clone(chord).into_json());
    }
    if let Some(chain) = chain {
        plain.insert("chain", list(chain));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> RawSignature {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_document_comes_back_as_it_was() {
        let body = r#"{"task":"t.sum","args":[],"kwargs":{},"options":{"task_id":"b"},"subtask_type":null,"immutable":false}"#;
        let task = format!(
            r#"{{"task":"t.add","args":[1],"kwargs":{{"x":2}},"options":{{"chord":{body},"link":[{body}],"queue":"q"}},"subtask_type":null,"immutable":true}}"#
        );
        let group = format!(
            r#"{{"task":"celery.group","args":[],"kwargs":{{"tasks":[{task},{body}]}},"options":{{"task_id":"g"}},"subtask_type":"group","immutable":false}}"#
        );
        let chord = format!(
            r#"{{"task":"celery.chord","args":[],"kwargs":{{"body":{body},"header":{group},"kwargs":{{}}}},"options":{{"chain":[{body}]}},"subtask_type":"chord","immutable":false}}"#
        );
        let chain = format!(
            r#"{{"task":"celery.chain","args":[3],"kwargs":{{"tasks":[{task},{chord}]}},"options":{{}},"subtask_type":"chain","immutable":false}}"#
        );
        for text in [task, group, chord, chain] {
            // The options come in another order.
            let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
            let node = Node::from_raw(raw(&text)).unwrap();
            assert_eq!(read(node.into_json().text()), read(&text));
        }
    }

    #[test]
    fn what_lies_deep_inside_comes_back_digit_by_digit() {
        let odd = r#"{"z":[1e400,-0.0],"a":1000000000000000000000000000000,"f":117.63331139400017}"#;
        let leaf = format!(
            r#"{{"task":"t","args":[{odd}],"kwargs":{{"z":{odd},"a":1}},"options":{{"own":{odd}}},"subtask_type":null,"immutable":false}}"#
        );
        let group = format!(
            r#"{{"task":"celery.group","args":[],"kwargs":{{"tasks":[{leaf},{leaf}]}},"options":{{"link_error":[{leaf}]}},"subtask_type":"group","immutable":false}}"#
        );
        let text = format!(
            r#"{{"task":"celery.chord","args":[{odd}],"kwargs":{{"kwargs":{{}},"header":{group},"body":{leaf}}},"options":{{"chain":[{leaf}]}},"subtask_type":"chord","immutable":false}}"#
        );
        let node = Node::from_raw(raw(&text)).unwrap();
        assert_eq!(serde_json::to_string(&node.into_raw()).unwrap(), text);
    }

    #[test]
    fn depth_has_an_end() {
        let nested = |levels: usize| {
            let link = r#"{"task":"a","options":{"link":"#;
            raw(&format!("{}null{}", link.repeat(levels), "}}".repeat(levels)))
        };
        assert!(Node::from_raw(nested(60)).is_ok());
        for levels in [66, 20_000] {
            let error = Node::from_raw(nested(levels)).unwrap_err().to_string();
            assert!(error.contains("within more than 64 others"), "{error}");
        }
    }

    #[test]
    fn what_older_peers_write_differently_is_read() {
        let single = raw(r#"{"task":"a","options":{"link":{"task":"b"},"link_error":null,"chord":null}}"#);
        let node = Node::from_raw(single).unwrap();
        assert_eq!((node.options.link.len(), node.options.link_error.len()), (1, 0));
        assert_eq!(node.options.chord, None);
        let listed = raw(r#"{"task":"celery.chord","kwargs":{"header":[{"task":"a"}],"body":{"task":"b"}}}"#);
        let NodeKind::Chord(chord) = Node::from_raw(listed).unwrap().kind else { panic!() };
        assert!(matches!(chord.header.kind, NodeKind::Group(members) if members.len() == 1));
    }

    #[test]
    fn what_is_no_signature_is_named() {
        let wrong = raw(r#"{"task":"celery.chain","kwargs":{"tasks":[{"task":"a"},7]}}"#);
        let error = Node::from_raw(wrong).unwrap_err().to_string();
        assert!(error.starts_with("`tasks` of `celery.chain` is no signature: invalid type"), "{error}");
        let headless = raw(r#"{"task":"celery.chord","kwargs":{"header":[]}}"#);
        assert!(Node::from_raw(headless).unwrap_err().to_string().contains("`body` of `celery.chord`"));
    }
}
