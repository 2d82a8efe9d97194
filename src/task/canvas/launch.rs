//! The messages that are sent when a canvas starts: one for each task that runs first, with everything that comes after
//! it, and the chords that have to be open before their members end.
//!
//! A client makes them when it sends a canvas, and a worker when it sends the next step of one.

use std::sync::Arc;

use super::SignatureError;
use super::freeze::{CanvasPosition, Freezer, Promise};
use super::join::unchained;
use super::limits::{CanvasLimits, list_bytes, map_bytes};
use super::node::{Chord, Node, NodeKind, NodeOptions};
use crate::task::{Child, Json, JsonMap, RawSignature, TaskId};

/// One message to be sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) task: String,
    /// The positional arguments. Messages with the same value share it.
    pub(crate) args: Vec<Json>,
    pub(crate) kwargs: JsonMap,
    /// The options of the call. A countdown in them is not yet counted from any time.
    pub(crate) options: JsonMap,
    pub(crate) callbacks: Vec<RawSignature>,
    pub(crate) errbacks: Vec<RawSignature>,
    pub(crate) chain: Vec<RawSignature>,
    /// The body of the chord. All members of a header share it.
    pub(crate) chord: Option<Arc<RawSignature>>,
}

impl Call {
    /// The positional arguments as a JSON array.
    pub(crate) fn positional(&self) -> String {
        Json::list(&self.args).to_string()
    }
}

/// All messages that are to be sent together.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Launch {
    /// The bounds of this launch. It takes no message beyond them, and [`check`](Self::check) reports that.
    limits: CanvasLimits,
    /// The number of messages that there would be, and the bytes of the messages that there are.
    tasks: usize,
    bytes: usize,
    /// What each message takes beside what its call says: the stamps that it inherits.
    each: usize,
    /// Why a canvas was not even begun.
    refused: Option<SignatureError>,
    pub(crate) calls: Vec<Call>,
    /// The ids of the chords that have to be open, each with the number of its parts.
    pub(crate) chords: Vec<(String, u64)>,
    /// The tasks and groups that are sent. The record of the sending task lists them as its children.
    pub(crate) children: Vec<Child>,
}

/// The options, chord and chain that a composite passes on to its parts.
#[derive(Clone, Default)]
struct Passed {
    plain: JsonMap,
    chord: Option<Arc<Node>>,
    /// The steps that come after it, in reverse order.
    chain: Option<Vec<Node>>,
}

impl Launch {
    /// An empty launch that never takes more than the limits allow.
    pub(crate) fn within(limits: CanvasLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// The same, of messages that each inherit so many bytes.
    pub(crate) fn each_with(self, each: usize) -> Self {
        Self { each, ..self }
    }

    pub(crate) fn limits(&self) -> CanvasLimits {
        self.limits
    }

    /// How many messages it has, and how many bytes these take, about.
    pub(crate) fn taken(&self) -> (usize, usize) {
        (self.calls.len(), self.bytes)
    }

    /// # Errors
    /// More was added than the limits allow, and the launch does not have all of it.
    pub(crate) fn check(&self) -> Result<(), SignatureError> {
        if let Some(refused) = &self.refused {
            return Err(refused.clone());
        }
        self.limits.check_tasks(self.tasks)?;
        self.limits.check_bytes(self.calls.len(), self.bytes)
    }

    /// Counts these bytes as well.
    fn take(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Whether there is no room for another message.
    fn is_full(&self) -> bool {
        self.tasks > self.limits.tasks || self.bytes > self.limits.bytes
    }

    /// Adds a canvas, with `args` in front of its own arguments. `rest` has the steps that come after it, in reverse
    /// order.
    pub(crate) fn add(
        &mut self,
        mut node: Node,
        args: Vec<Json>,
        rest: Option<Vec<Node>>,
        freezer: &mut Freezer,
    ) -> Promise {
        if let Err(error) = node.check_copies(self.limits) {
            self.refused = self.refused.take().or(Some(error));
            return Promise {
                id: TaskId::from(result_id(&node)),
                members: None,
                parent: None,
                ignored: false,
            };
        }
        let promise = freezer.freeze(&mut node, CanvasPosition::default());
        let passed = Passed { chain: rest, ..Passed::default() };
        let child = Launcher { launch: self, freezer, body: None }.start(node, &args, passed);
        self.children.extend(child);
        promise
    }
}

struct Launcher<'a> {
    launch: &'a mut Launch,
    freezer: &'a mut Freezer,
    /// The body that was written last: its node, its form on the wire, and the length of that in bytes.
    body: Option<(Arc<Node>, Arc<RawSignature>, usize)>,
}

impl Launcher<'_> {
    fn start(&mut self, node: Node, args: &[Json], passed: Passed) -> Option<Child> {
        match node.kind {
            NodeKind::Task { .. } => Some(self.start_task(node, args, passed)),
            NodeKind::Chain(_) => self.start_chain(node, args, passed),
            NodeKind::Group(_) => self.start_group(node, args, passed),
            NodeKind::Chord(_) => self.start_chord(node, args, passed),
        }
    }

    fn start_task(&mut self, node: Node, args: &[Json], passed: Passed) -> Child {
        let args = with_args(&node, args);
        let Node { kind: NodeKind::Task { name, kwargs, .. }, mut options, .. } = node else {
            return Child::Group(String::new(), Vec::new());
        };
        overlay(&mut options, passed.plain);
        let id = TaskId::from(options.text("task_id").unwrap_or_default());
        self.launch.tasks += 1;
        if self.launch.is_full() {
            return Child::Task(id);
        }
        let chain = passed.chain.or(options.chain).unwrap_or_default();
        let links: usize =
            options.link.iter().chain(&options.link_error).chain(&chain).map(Node::bytes).sum();
        let own = name.len() + list_bytes(&args) + map_bytes(&kwargs) + map_bytes(&options.plain);
        self.launch.take(own + links + self.launch.each);
        let chord = passed.chord.or(options.chord).map(|body| self.written(body));
        if self.launch.is_full() {
            return Child::Task(id);
        }
        let raw = |nodes: Vec<Node>| nodes.into_iter().map(Node::into_raw).collect();
        self.launch.calls.push(Call {
            task: name,
            args,
            kwargs,
            options: options.plain,
            callbacks: raw(options.link),
            errbacks: raw(options.link_error),
            chain: raw(chain),
            chord: chord.flatten(),
        });
        Child::Task(id)
    }

    /// A body as it crosses the wire: made once for all members of its header, each of which takes it along. Nothing, if there
    /// is no room for it.
    fn written(&mut self, body: Arc<Node>) -> Option<Arc<RawSignature>> {
        match &self.body {
            Some((last, raw, size)) if Arc::ptr_eq(last, &body) => {
                self.launch.take(*size);
                Some(Arc::clone(raw))
            }
            _ => {
                let size = body.bytes();
                self.launch.take(size);
                if self.launch.is_full() {
                    return None;
                }
                let raw = Arc::new(Node::clone(&body).into_raw());
                self.body = Some((body, Arc::clone(&raw), size));
                Some(raw)
            }
        }
    }

    fn start_chain(&mut self, mut node: Node, args: &[Json], passed: Passed) -> Option<Child> {
        overlay(&mut node.options, passed.plain);
        node.options.chord = passed.chord.or(node.options.chord);
        let mut chain = passed.chain.or(node.options.chain.take()).unwrap_or_default();
        // A chord in a chain keeps only the first step of its body; the other steps follow the chord in the chain.
        let steps: Vec<Node> = unchained(node).into_iter().flat_map(unrolled_body).collect();
        let mut steps = steps.into_iter();
        let first = steps.next()?;
        let rest: Vec<Node> = steps.collect();
        chain.extend(rest.into_iter().rev());
        self.start(first, args, Passed { chain: Some(chain), ..Passed::default() })
    }

    fn start_group(&mut self, mut node: Node, args: &[Json], passed: Passed) -> Option<Child> {
        let mut chain = passed.chain.unwrap_or_default();
        if let Some(next) = chain.pop() {
            // The step after a group takes the results of all members, so the two make a chord.
            let mut chord = Node::chord(node, next);
            let _ = self.freezer.freeze(&mut chord, CanvasPosition::default());
            return self.start(chord, args, Passed { chain: Some(chain), ..passed });
        }
        let args = with_args(&node, args);
        let group = node.id().unwrap_or_default().to_owned();
        let place = CanvasPosition { group_id: Some(group.clone()), ..CanvasPosition::default() };
        let _ = self.freezer.freeze(&mut node, place);
        let Node { kind: NodeKind::Group(members), mut options, .. } = node else { return None };
        overlay(&mut options, passed.plain);
        // These options place the group itself, not its members.
        for own in ["task_id", "group_id", "group_index"] {
            options.plain.remove(own);
        }
        let chord = passed.chord.or(options.chord);
        let mut ids = Vec::with_capacity(members.len());
        for mut member in members {
            if self.launch.is_full() {
                // Members beyond the limit are only counted, so that the error can say how many there are.
                self.launch.tasks += 1;
                continue;
            }
            member.link_errors(&options.link_error);
            ids.push(TaskId::from(result_id(&member)));
            let passed = Passed { plain: options.plain.clone(), chord: chord.clone(), chain: None };
            self.start(member, &args, passed);
        }
        Some(Child::Group(group, ids))
    }

    fn start_chord(&mut self, node: Node, args: &[Json], passed: Passed) -> Option<Child> {
        let args = with_args(&node, args);
        let Node { kind: NodeKind::Chord(chord), mut options, .. } = node else { return None };
        let Chord { mut header, mut body, .. } = *chord;
        let group = header.id().unwrap_or_default().to_owned();
        overlay(&mut options, passed.plain);
        options.plain.remove("task_id");
        // The callbacks of a chord belong to its body, the steps after the chord come after the body, and the body
        // stands where the chord stood. A countdown delays the header.
        options.link.drain(..).for_each(|callback| body.link(callback));
        body.link_errors(&options.link_error);
        let mut delay = JsonMap::new();
        for key in ["countdown", "eta"] {
            delay.extend(options.plain.remove(key).map(|value| (key.to_owned(), value)));
        }
        // The body stands in the group and at the place of the chord. If the chord stands in no group, its body gets
        // the header's group id, as in Celery.
        let place = CanvasPosition {
            group_id: options.text("group_id").map(str::to_owned).or(Some(group.clone())),
            group_index: options
                .plain
                .get("group_index")
                .and_then(|index| index.as_u64())
                .map(|i| i as usize),
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
        // As in Celery, the body of an empty header starts at once, with an empty list.
        if header.is_empty_group() {
            return self.start(body, &[Json::list(&[])], Passed::default());
        }
        // Each member of the header carries the body, and the chord is opened with the number of its parts.
        let place = CanvasPosition {
            group_id: Some(group.clone()),
            chord: Some(Arc::new(body)),
            ..CanvasPosition::default()
        };
        let _ = self.freezer.freeze(&mut header, place);
        self.launch.chords.push((group, size(&header)));
        delay.extend(options.plain);
        self.start(header, &args, Passed { plain: delay, ..Passed::default() })
    }
}

fn with_args(node: &Node, args: &[Json]) -> Vec<Json> {
    let passed = if node.immutable { &[] } else { args };
    passed.iter().chain(&node.args).cloned().collect()
}

/// Sets the passed options on a node. They replace the node's own options, except those that say where the node
/// belongs.
fn overlay(options: &mut NodeOptions, passed: JsonMap) {
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

/// Splits a chord whose body is a chain: the body keeps the first step, and the others become steps after the chord.
/// Each member of the header carries a copy of the body, so the body should be small.
fn unrolled_body(step: Node) -> Vec<Node> {
    let Node { kind: NodeKind::Chord(mut chord), mut options, args, immutable } = step else {
        return vec![step];
    };
    let mut rest = Vec::new();
    let starts_with_group =
        |steps: &[Node]| steps.first().is_none_or(|step| matches!(step.kind, NodeKind::Group(_)));
    if matches!(&chord.body.kind, NodeKind::Chain(steps) if !starts_with_group(steps)) {
        let mut steps = unchained(chord.body).into_iter();
        chord.body = steps.next().unwrap_or_else(|| Node::task(""));
        rest.extend(steps);
        // The callbacks and the outer chord belong to the end, which is the last of these steps now.
        if let Some(last) = rest.last_mut() {
            std::mem::take(&mut options.link).into_iter().for_each(|callback| last.link(callback));
            last.options.chord = last.options.chord.take().or(options.chord.take());
        }
    }
    let mut steps = vec![Node { kind: NodeKind::Chord(chord), options, args, immutable }];
    steps.extend(rest.into_iter().flat_map(unrolled_body));
    steps
}

/// The id under which the result of a node is kept.
pub(crate) fn result_id(node: &Node) -> &str {
    match &node.kind {
        NodeKind::Chord(chord) => result_id(&chord.body),
        NodeKind::Chain(steps) => steps.last().map_or("", result_id),
        NodeKind::Task { .. } | NodeKind::Group(_) => node.id().unwrap_or_default(),
    }
}

/// The number of parts that a node in a header counts for. Celery computes it in `chord.__length_hint__`.
fn size(node: &Node) -> u64 {
    match &node.kind {
        NodeKind::Task { .. } => 1,
        NodeKind::Group(members) => members.iter().map(size).sum(),
        NodeKind::Chain(steps) => steps.iter().rev().map(size).find(|size| *size > 0).unwrap_or(0),
        NodeKind::Chord(chord) => size(&chord.body),
    }
}
