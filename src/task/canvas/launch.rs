//! What is sent when a canvas starts: the messages of what runs first, each with all that comes after it, and the chords
//! that have to be open before their members end.
//!
//! A client does this when it sends a canvas, and a worker with the next step of one.

use serde_json::{Map, Value};

use super::freeze::{Freezer, Place, Promise};
use super::join::unchained;
use super::node::{Chord, Kind, Node, Options};
use crate::task::{Child, RawSignature, TaskId};

/// One message to be sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) task: String,
    pub(crate) args: Vec<Value>,
    pub(crate) kwargs: Map<String, Value>,
    /// Of the call; countdowns are not counted from anywhere yet.
    pub(crate) options: Map<String, Value>,
    pub(crate) callbacks: Vec<RawSignature>,
    pub(crate) errbacks: Vec<RawSignature>,
    pub(crate) chain: Vec<RawSignature>,
    pub(crate) chord: Option<RawSignature>,
}

/// All that is to be sent together.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Launch {
    pub(crate) calls: Vec<Call>,
    /// The chords that are to be open, and how many parts each has.
    pub(crate) chords: Vec<(String, u64)>,
    /// What was sent, as the record of the task that sent it says.
    pub(crate) children: Vec<Child>,
}

/// What a composite passes on to its parts.
#[derive(Clone, Default)]
struct Passed {
    plain: Map<String, Value>,
    chord: Option<Box<Node>>,
    /// What comes after it, in reverse order.
    chain: Option<Vec<Node>>,
}

impl Launch {
    /// Adds a canvas that takes these arguments in front of its own. `rest`: what comes after it, in reverse order.
    pub(crate) fn add(
        &mut self,
        mut node: Node,
        args: Vec<Value>,
        rest: Option<Vec<Node>>,
        freezer: &mut Freezer,
    ) -> Promise {
        let promise = freezer.freeze(&mut node, Place::default());
        let passed = Passed { chain: rest, ..Passed::default() };
        let child = Launcher { launch: self, freezer }.start(node, &args, passed);
        self.children.extend(child);
        promise
    }
}

struct Launcher<'a> {
    launch: &'a mut Launch,
    freezer: &'a mut Freezer,
}

impl Launcher<'_> {
    fn start(&mut self, node: Node, args: &[Value], passed: Passed) -> Option<Child> {
        match node.kind {
            Kind::Task { .. } => Some(self.start_task(node, args, passed)),
            Kind::Chain(_) => self.start_chain(node, args, passed),
            Kind::Group(_) => self.start_group(node, args, passed),
            Kind::Chord(_) => self.start_chord(node, args, passed),
        }
    }

    fn start_task(&mut self, node: Node, args: &[Value], passed: Passed) -> Child {
        let args = with_args(&node, args);
        let Node { kind: Kind::Task { name, kwargs, .. }, mut options, .. } = node else {
            return Child::Group(String::new(), Vec::new());
        };
        overlay(&mut options, passed.plain);
        let raw = |nodes: Vec<Node>| nodes.into_iter().map(Node::into_raw).collect();
        let id = TaskId::from(options.text("task_id").unwrap_or_default());
        self.launch.calls.push(Call {
            task: name,
            args,
            kwargs,
            options: options.plain,
            callbacks: raw(options.link),
            errbacks: raw(options.link_error),
            chain: raw(passed.chain.or(options.chain).unwrap_or_default()),
            chord: passed.chord.or(options.chord).map(|body| body.into_raw()),
        });
        Child::Task(id)
    }

    fn start_chain(&mut self, mut node: Node, args: &[Value], passed: Passed) -> Option<Child> {
        overlay(&mut node.options, passed.plain);
        node.options.chord = passed.chord.or(node.options.chord);
        let mut chain = passed.chain.or(node.options.chain.take()).unwrap_or_default();
        let steps: Vec<Node> = unchained(node).into_iter().flat_map(unrolled_body).collect();
        let mut steps = steps.into_iter();
        let first = steps.next()?;
        let rest: Vec<Node> = steps.collect();
        chain.extend(rest.into_iter().rev());
        self.start(first, args, Passed { chain: Some(chain), ..Passed::default() })
    }

    fn start_group(&mut self, mut node: Node, args: &[Value], passed: Passed) -> Option<Child> {
        let mut chain = passed.chain.unwrap_or_default();
        if let Some(next) = chain.pop() {
            // What follows a group takes the results of all of it.
            let mut chord = Node::chord(node, next);
            let _ = self.freezer.freeze(&mut chord, Place::default());
            return self.start(chord, args, Passed { chain: Some(chain), ..passed });
        }
        let args = with_args(&node, args);
        let group = node.id().unwrap_or_default().to_owned();
        let place = Place { group_id: Some(group.clone()), ..Place::default() };
        let _ = self.freezer.freeze(&mut node, place);
        let Node { kind: Kind::Group(members), mut options, .. } = node else { return None };
        overlay(&mut options, passed.plain);
        for own in ["task_id", "group_id", "group_index"] {
            options.plain.remove(own);
        }
        let chord = passed.chord.or(options.chord);
        let mut ids = Vec::with_capacity(members.len());
        for mut member in members {
            options.link_error.iter().for_each(|errback| member.link_error(errback));
            ids.push(TaskId::from(result_id(&member)));
            let passed = Passed { plain: options.plain.clone(), chord: chord.clone(), chain: None };
            self.start(member, &args, passed);
        }
        Some(Child::Group(group, ids))
    }

    fn start_chord(&mut self, node: Node, args: &[Value], passed: Passed) -> Option<Child> {
        let args = with_args(&node, args);
        let Node { kind: Kind::Chord(chord), mut options, .. } = node else { return None };
        let Chord { mut header, mut body, .. } = *chord;
        let group = header.id().unwrap_or_default().to_owned();
        overlay(&mut options, passed.plain);
        options.plain.remove("task_id");
        // The callbacks of a chord are its body's, what comes after it comes after the body, and what it is part of
        // the body is part of. It is the header that waits for a countdown.
        options.link.drain(..).for_each(|callback| body.link(callback));
        options.link_error.iter().for_each(|errback| body.link_error(errback));
        let mut delay = Map::new();
        for key in ["countdown", "eta"] {
            delay.extend(options.plain.remove(key).map(|value| (key.to_owned(), value)));
        }
        let place = Place {
            group_id: options.text("group_id").map(str::to_owned).or(Some(group.clone())),
            group_index: options.plain.get("group_index").and_then(Value::as_u64).map(|i| i as usize),
            chord: passed.chord.or(options.chord),
            id: None,
        };
        for own in ["group_id", "group_index"] {
            options.plain.remove(own);
        }
        overlay(&mut body.options, options.plain.clone());
        if let Some(chain) = passed.chain.or(options.chain).filter(|chain| !chain.is_empty()) {
            body.options.chain = Some(chain);
        }
        let _ = self.freezer.freeze(&mut body, place);
        if header.is_empty_group() {
            return self.start(body, &[Value::Array(Vec::new())], Passed::default());
        }
        let place = Place { group_id: Some(group.clone()), chord: Some(Box::new(body)), ..Place::default() };
        let _ = self.freezer.freeze(&mut header, place);
        self.launch.chords.push((group, size(&header)));
        delay.extend(options.plain);
        self.start(header, &args, Passed { plain: delay, ..Passed::default() })
    }
}

fn with_args(node: &Node, args: &[Value]) -> Vec<Value> {
    let passed = if node.immutable { &[] } else { args };
    passed.iter().chain(&node.args).cloned().collect()
}

/// What is passed on wins, but for what says where a node belongs.
fn overlay(options: &mut Options, passed: Map<String, Value>) {
    for (key, value) in passed {
        if value.is_null() {
            continue;
        }
        match key.as_str() {
            "task_id" | "group_id" | "group_index" | "reply_to" => options.set_default(&key, || value),
            _ => options.set(&key, value),
        }
    }
}

/// A chord whose body is a chain is a chord with the chain's first step, and the others after it: each member carries a
/// copy of the body, so that should be small.
fn unrolled_body(step: Node) -> Vec<Node> {
    let Node { kind: Kind::Chord(mut chord), mut options, args, immutable } = step else { return vec![step] };
    let mut rest = Vec::new();
    let starts_with_group =
        |steps: &[Node]| steps.first().is_none_or(|step| matches!(step.kind, Kind::Group(_)));
    if matches!(&chord.body.kind, Kind::Chain(steps) if !starts_with_group(steps)) {
        let mut steps = unchained(chord.body).into_iter();
        chord.body = steps.next().unwrap_or_else(|| Node::task(""));
        rest.extend(steps);
        // What was said of the chord's end is said of the end now.
        if let Some(last) = rest.last_mut() {
            std::mem::take(&mut options.link).into_iter().for_each(|callback| last.link(callback));
            last.options.chord = last.options.chord.take().or(options.chord.take());
        }
    }
    let mut steps = vec![Node { kind: Kind::Chord(chord), options, args, immutable }];
    steps.extend(rest.into_iter().flat_map(unrolled_body));
    steps
}

/// The id under which the result of a node is kept.
pub(crate) fn result_id(node: &Node) -> &str {
    match &node.kind {
        Kind::Chord(chord) => result_id(&chord.body),
        Kind::Chain(steps) => steps.last().map_or("", result_id),
        Kind::Task { .. } | Kind::Group(_) => node.id().unwrap_or_default(),
    }
}

/// How many parts of a chord a node in its header is.
fn size(node: &Node) -> u64 {
    match &node.kind {
        Kind::Task { .. } => 1,
        Kind::Group(members) => members.iter().map(size).sum(),
        Kind::Chain(steps) => steps.iter().rev().map(size).find(|size| *size > 0).unwrap_or(0),
        Kind::Chord(chord) => size(&chord.body),
    }
}
