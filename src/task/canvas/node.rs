//! A canvas as a tree: what a signature's document becomes while it is joined, given ids, sent or failed.
//!
//! On the wire a composite signature hides its parts in `kwargs`, and links, chords and the rest of a chain in
//! `options`. Here each of them has its place; the conversion loses nothing that a task is called with.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::SignatureError;
use crate::task::{RawSignature, TaskId};

/// A call or a composition of calls.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// Positional arguments; of a composite, they go to what starts first.
    pub(crate) args: Vec<Value>,
    pub(crate) options: Options,
    pub(crate) immutable: bool,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Task { name: String, kwargs: Map<String, Value>, subtask_type: Option<String> },
    Chain(Vec<Node>),
    Group(Vec<Node>),
    Chord(Box<Chord>),
}

/// A header, always a group, and what is called with its results.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chord {
    pub(crate) header: Node,
    pub(crate) body: Node,
    pub(crate) kwargs: Map<String, Value>,
}

/// The options of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Options {
    /// All but those below: `task_id`, `group_id`, `queue`, `countdown`, …
    pub(crate) plain: Map<String, Value>,
    pub(crate) link: Vec<Node>,
    pub(crate) link_error: Vec<Node>,
    /// The body of the chord that this node is part of.
    pub(crate) chord: Option<Box<Node>>,
    /// What comes after it, in reverse order; `None`: not said.
    pub(crate) chain: Option<Vec<Node>>,
}

impl Options {
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.plain.get(key).and_then(Value::as_str)
    }

    pub(crate) fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.plain.insert(key.to_owned(), value.into());
    }

    /// Sets what is not set, nor null.
    pub(crate) fn set_default(&mut self, key: &str, value: impl FnOnce() -> Value) {
        let slot = self.plain.entry(key).or_insert(Value::Null);
        if slot.is_null() {
            *slot = value();
        }
    }
}

impl Node {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, args: Vec::new(), options: Options::default(), immutable: false }
    }

    pub(crate) fn task(name: impl Into<String>) -> Self {
        Self::new(Kind::Task { name: name.into(), kwargs: Map::new(), subtask_type: None })
    }

    pub(crate) fn chord(header: Self, body: Self) -> Self {
        Self::new(Kind::Chord(Box::new(Chord { header, body, kwargs: Map::new() })))
    }

    /// The id that it has been given: of a chain its last step's, of a group the group's.
    pub(crate) fn id(&self) -> Option<&str> {
        self.options.text("task_id")
    }

    /// Its name, for the record of one that will never run.
    pub(crate) fn name(&self) -> &str {
        match &self.kind {
            Kind::Task { name, .. } => name,
            Kind::Chain(_) => "celery.chain",
            Kind::Group(_) => "celery.group",
            Kind::Chord(_) => "celery.chord",
        }
    }

    /// The tasks in it that keep no results: those that say so, and those of which that is known.
    pub(crate) fn ignored(&self, is_known: &dyn Fn(&str) -> bool, tasks: &mut HashSet<TaskId>) {
        match &self.kind {
            Kind::Task { name, .. } => {
                let said = self.options.plain.get("ignore_result").and_then(Value::as_bool);
                if said.unwrap_or_else(|| is_known(name)) {
                    tasks.extend(self.id().map(TaskId::from));
                }
            }
            Kind::Chain(nodes) | Kind::Group(nodes) => {
                nodes.iter().for_each(|node| node.ignored(is_known, tasks));
            }
            Kind::Chord(chord) => {
                chord.header.ignored(is_known, tasks);
                chord.body.ignored(is_known, tasks);
            }
        }
    }

    pub(crate) fn is_empty_group(&self) -> bool {
        matches!(&self.kind, Kind::Group(members) if members.is_empty())
    }

    /// A group of one is its member.
    pub(crate) fn unrolled(self) -> Self {
        match self.kind {
            Kind::Group(mut members) if members.len() == 1 => members.remove(0),
            kind => Self { kind, ..self },
        }
    }

    /// Reads a signature and all that is in it.
    pub(crate) fn from_raw(raw: RawSignature) -> Result<Self, SignatureError> {
        let RawSignature { task, args, mut kwargs, options, subtask_type, immutable } = raw;
        let options = read_options(&task, options)?;
        let kind = match subtask_type.as_deref().unwrap_or(&task) {
            "chain" | "celery.chain" => Kind::Chain(read_list(&task, "tasks", kwargs.remove("tasks"))?),
            "group" | "celery.group" => Kind::Group(read_list(&task, "tasks", kwargs.remove("tasks"))?),
            "chord" | "celery.chord" => {
                let header = match kwargs.remove("header") {
                    Some(header @ Value::Object(_)) => read(&task, "header", header)?,
                    list => Self::new(Kind::Group(read_list(&task, "header", list)?)),
                };
                // A single task or a chain may stand for its header as well.
                let header = match header.kind {
                    Kind::Group(_) => header,
                    _ => Self::new(Kind::Group(vec![header])),
                };
                let body = kwargs.remove("body").unwrap_or_default();
                let kwargs = match kwargs.remove("kwargs") {
                    Some(Value::Object(kwargs)) => kwargs,
                    _ => Map::new(),
                };
                Kind::Chord(Box::new(Chord { header, body: read(&task, "body", body)?, kwargs }))
            }
            "chunks" | "celery.chunks" => Kind::Group(super::chunks::members(kwargs)?),
            _ => Kind::Task { name: task, kwargs, subtask_type },
        };
        Ok(Self { kind, args, options, immutable })
    }

    /// Its document.
    pub(crate) fn into_raw(self) -> RawSignature {
        let Self { kind, args, options, immutable } = self;
        let (task, kwargs, subtask_type) = match kind {
            Kind::Task { name, kwargs, subtask_type } => (name, kwargs, subtask_type),
            Kind::Chain(steps) => ("celery.chain".to_owned(), tasks(steps), Some("chain".to_owned())),
            Kind::Group(members) => ("celery.group".to_owned(), tasks(members), Some("group".to_owned())),
            Kind::Chord(chord) => {
                let mut kwargs = Map::new();
                kwargs.insert("kwargs".to_owned(), Value::Object(chord.kwargs));
                kwargs.insert("header".to_owned(), chord.header.into_value());
                kwargs.insert("body".to_owned(), chord.body.into_value());
                ("celery.chord".to_owned(), kwargs, Some("chord".to_owned()))
            }
        };
        RawSignature { task, args, kwargs, options: write_options(options), subtask_type, immutable }
    }

    pub(crate) fn into_value(self) -> Value {
        // A signature is made of JSON values only.
        serde_json::to_value(self.into_raw()).unwrap_or_default()
    }
}

fn tasks(nodes: Vec<Node>) -> Map<String, Value> {
    Map::from_iter([("tasks".to_owned(), list(nodes))])
}

fn list(nodes: Vec<Node>) -> Value {
    Value::Array(nodes.into_iter().map(Node::into_value).collect())
}

fn read(of: &str, what: &str, value: Value) -> Result<Node, SignatureError> {
    let raw = serde_json::from_value(value)
        .map_err(|error| SignatureError(format!("`{what}` of `{of}` is no signature: {error}")))?;
    Node::from_raw(raw)
}

/// A list of signatures, or one alone, or none.
fn read_list(of: &str, what: &str, value: Option<Value>) -> Result<Vec<Node>, SignatureError> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => list.into_iter().map(|value| read(of, what, value)).collect(),
        Some(one) => Ok(vec![read(of, what, one)?]),
    }
}

fn read_options(of: &str, mut plain: Map<String, Value>) -> Result<Options, SignatureError> {
    let link = read_list(of, "link", plain.remove("link"))?;
    let link_error = read_list(of, "link_error", plain.remove("link_error"))?;
    let chord = plain.remove("chord").filter(|chord| !chord.is_null());
    let chord = chord.map(|chord| read(of, "chord", chord)).transpose()?.map(Box::new);
    let chain = plain.remove("chain").filter(|chain| !chain.is_null());
    let chain = chain.map(|chain| read_list(of, "chain", Some(chain))).transpose()?;
    Ok(Options { plain, link, link_error, chord, chain })
}

fn write_options(options: Options) -> Map<String, Value> {
    let Options { mut plain, link, link_error, chord, chain } = options;
    for (key, nodes) in [("link", link), ("link_error", link_error)] {
        if !nodes.is_empty() {
            plain.insert(key.to_owned(), list(nodes));
        }
    }
    if let Some(chord) = chord {
        plain.insert("chord".to_owned(), chord.into_value());
    }
    if let Some(chain) = chain {
        plain.insert("chain".to_owned(), list(chain));
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
            let node = Node::from_raw(raw(&text)).unwrap();
            assert_eq!(node.into_raw(), raw(&text));
        }
    }

    #[test]
    fn what_older_peers_write_differently_is_read() {
        let single = raw(r#"{"task":"a","options":{"link":{"task":"b"},"link_error":null,"chord":null}}"#);
        let node = Node::from_raw(single).unwrap();
        assert_eq!((node.options.link.len(), node.options.link_error.len()), (1, 0));
        assert_eq!(node.options.chord, None);
        let listed = raw(r#"{"task":"celery.chord","kwargs":{"header":[{"task":"a"}],"body":{"task":"b"}}}"#);
        let Kind::Chord(chord) = Node::from_raw(listed).unwrap().kind else { panic!() };
        assert!(matches!(chord.header.kind, Kind::Group(members) if members.len() == 1));
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
