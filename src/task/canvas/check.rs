//! The checks of a canvas before anything of it is sent. A worker that comes to a broken part later can only fail it.

use std::collections::HashSet;

use serde_json::Value;

use super::SignatureError;
use super::limits::{CanvasLimits, json_len};
use super::node::{Node, NodeKind};
use crate::task::id::LONGEST_ID;
use crate::task::wire_names::{OWN_PROPERTIES, check_header, check_property};
use crate::task::{EnqueueError, check_id};

/// The deepest nesting of a canvas. Readers of its JSON give up at 128 brackets, and a level takes up to four.
const DEPTH: usize = 28;

/// The options of a signature that hold ids, each with its name in errors.
const IDS: [(&str, &str); 6] = [
    ("task_id", "task id"),
    ("group_id", "group id"),
    ("root_id", "root id"),
    ("parent_id", "parent id"),
    ("reply_to", "name of the queue for results (`reply_to`)"),
    ("queue", "name of the queue"),
];

/// A check that a task may go to the named queue, or to its own if none is named.
type CheckQueue<'a> = dyn Fn(&str, Option<&str>) -> Result<(), EnqueueError> + 'a;

impl Node {
    /// Checks a canvas for its caller before anything is sent. `max_message_size` bounds the arguments, and the
    /// headers, of each task.
    ///
    /// # Errors
    /// A queue is not known, a chain has no step, a task has no name, there are too many levels or tasks, an id is not
    /// usable, or arguments or headers are too large.
    pub(crate) fn check(
        &self,
        queue: &CheckQueue<'_>,
        limits: CanvasLimits,
        max_message_size: usize,
    ) -> Result<(), EnqueueError> {
        // The number of tasks comes first, because it bounds the cost of the other checks.
        let tasks = limits.check_tasks(self.tasks());
        tasks.map_err(|error| EnqueueError::Canvas(error.to_string()))?;
        self.check_at(0, queue, max_message_size)?;
        self.check_copies(limits).map_err(|error| EnqueueError::Canvas(error.to_string()))
    }

    /// The nodes that are linked to this one or come after it.
    pub(super) fn others(&self) -> impl Iterator<Item = &Self> {
        let options = &self.options;
        let links = options.link.iter().chain(&options.link_error).chain(options.chord.as_deref());
        links.chain(options.chain.iter().flatten())
    }

    /// The parts of a composite node.
    pub(super) fn inner(&self) -> impl Iterator<Item = &Self> {
        let (nodes, chord) = match &self.kind {
            NodeKind::Task { .. } => (&[][..], None),
            NodeKind::Chain(nodes) | NodeKind::Group(nodes) => (&nodes[..], None),
            NodeKind::Chord(chord) => (&[][..], Some([&chord.header, &chord.body])),
        };
        nodes.iter().chain(chord.into_iter().flatten())
    }

    /// Checks all ids in the node and in what is linked to it, and the names of headers and stamps.
    ///
    /// # Errors
    /// One of the ids or names is not usable.
    pub(crate) fn check_ids(&self) -> Result<(), SignatureError> {
        self.check_own_ids()?;
        self.inner().chain(self.others()).try_for_each(Self::check_ids)
    }

    fn check_own_ids(&self) -> Result<(), SignatureError> {
        for (key, called) in IDS {
            match self.options.plain.get(key).map(|value| value.value()) {
                None | Some(Value::Null) => {}
                Some(Value::String(id)) => {
                    let what = format!("the {called} of `{}`", self.short_name());
                    check_id(&what, id).map_err(|error| SignatureError(error.to_string()))?;
                }
                // Celery allows other forms for the queue and the reply queue, so these are not checked here.
                Some(_) if matches!(key, "queue" | "reply_to") => {}
                Some(other) => {
                    let found: String = other.to_string().chars().take(40).collect();
                    return Err(SignatureError(format!(
                        "the {called} of `{}` is {found}, which is no text",
                        self.short_name()
                    )));
                }
            }
        }
        self.check_own_names()
            .map_err(|what| SignatureError(format!("`{}` cannot be sent: {what}", self.short_name())))
    }

    /// Checks the names of the headers and of the stamps, and the properties.
    fn check_own_names(&self) -> Result<(), String> {
        let option = |key: &str| self.options.plain.get(key).map(|value| value.value());
        for (name, value) in option("headers").and_then(Value::as_object).into_iter().flatten() {
            check_header("header", name, value)?;
        }
        let stamps = option("stamped_headers").and_then(Value::as_array).into_iter().flatten();
        for name in stamps.filter_map(Value::as_str) {
            check_header("stamp", name, option(name).unwrap_or(&Value::Null))?;
        }
        for name in OWN_PROPERTIES {
            if let Some(text) = option(name).and_then(Value::as_str) {
                check_property(name, text)?;
            }
        }
        Ok(())
    }

    fn short_name(&self) -> String {
        self.name().chars().take(100).collect()
    }

    /// Checks that no id was given twice in a caller's canvas, once all ids have been given. An errback is copied to all
    /// nodes to which it is linked, and is called once under an id of its own. So its copies may share an id, but no
    /// other node may have it.
    ///
    /// # Errors
    /// Two tasks or groups have the same id.
    pub(crate) fn check_unique(&self) -> Result<(), SignatureError> {
        let mut known = KnownIds::default();
        known.note(self, None)?;
        known.check_errbacks()?;
        known.tasks.intersection(&known.groups).next().map_or(Ok(()), |id| Err(twice(id)))
    }

    fn every_id<'n>(&'n self, ids: &mut HashSet<&'n str>) {
        ids.extend(self.id());
        self.inner()
            .chain(&self.options.link)
            .chain(&self.options.link_error)
            .for_each(|node| node.every_id(ids));
    }

    /// Checks the size of the arguments, and that of the headers, as JSON.
    fn check_size(&self, limit: usize) -> Result<(), EnqueueError> {
        let NodeKind::Task { name, kwargs, .. } = &self.kind else { return Ok(()) };
        let size = json_len(&self.args) + if kwargs.is_empty() { 0 } else { json_len(kwargs) };
        if size > limit {
            return Err(EnqueueError::TooLarge { task: name.clone(), size, limit });
        }
        // All options that are not checked elsewhere travel as headers, stamps included.
        let size = json_len(&self.options.plain);
        if size > limit {
            return Err(EnqueueError::HeadersTooLarge { task: name.clone(), size, limit });
        }
        Ok(())
    }

    /// The same of the node and of all that is in it or comes after it, of what a body sends.
    pub(super) fn check_sizes(&self, limit: usize) -> Result<(), SignatureError> {
        self.check_size(limit).map_err(|error| SignatureError(error.to_string()))?;
        self.inner().chain(self.others()).try_for_each(|node| node.check_sizes(limit))
    }

    fn check_at(
        &self,
        depth: usize,
        queue: &CheckQueue<'_>,
        max_message_size: usize,
    ) -> Result<(), EnqueueError> {
        let wrong = |text: &str| Err(EnqueueError::Canvas(text.to_owned()));
        let id = self.options.text("task_id").map_or(1, str::len);
        if !(1..=LONGEST_ID).contains(&id) {
            return Err(EnqueueError::BadId { len: id });
        }
        self.check_own_ids().map_err(|error| EnqueueError::Canvas(error.to_string()))?;
        self.check_size(max_message_size)?;
        if depth > DEPTH {
            return wrong(&format!(
                "it is nested more than {DEPTH} levels deep; make one chain of the steps, or send the inner part from a task"
            ));
        }
        match &self.kind {
            NodeKind::Task { name, .. } if name.is_empty() => return wrong("a task in it has no name"),
            NodeKind::Task { name, .. } => {
                if let wanted @ Some(_) = self.options.text("queue") {
                    queue(name, wanted)?;
                }
            }
            NodeKind::Chain(steps) if steps.is_empty() => return wrong("a chain in it has no step"),
            NodeKind::Chain(_) | NodeKind::Group(_) => {
                if self.options.text("queue").is_some() {
                    queue(self.name(), self.options.text("queue"))?;
                }
            }
            NodeKind::Chord(_) => {}
        }
        self.inner()
            .chain(self.others())
            .try_for_each(|node| node.check_at(depth + 1, queue, max_message_size))
    }

    /// Whether a task or group in the canvas has an id already.
    pub(crate) fn has_ids(&self) -> bool {
        self.id().is_some()
            || match &self.kind {
                NodeKind::Task { .. } => false,
                NodeKind::Chain(nodes) | NodeKind::Group(nodes) => nodes.iter().any(Self::has_ids),
                NodeKind::Chord(chord) => chord.header.has_ids() || chord.body.has_ids(),
            }
    }
}

/// Checks that no id was given twice in what came in a message, as its sender has written it: nothing has to be frozen.
/// `taken` are the ids of tasks that have run before it. A group may have the id of a task here, because earlier versions
/// of Celery give the header of a chord in a chain the id of its body.
///
/// # Errors
/// Two tasks, or two groups, have the same id.
pub(super) fn check_unique_among<'n, 't: 'n>(
    taken: impl IntoIterator<Item = &'t str>,
    nodes: impl IntoIterator<Item = &'n Node>,
) -> Result<(), SignatureError> {
    let mut known = KnownIds::<'n>::default();
    for id in taken {
        known.tasks.insert(id);
    }
    nodes.into_iter().try_for_each(|node| known.note(node, None))?;
    known.check_errbacks()
}

/// The ids that were met so far.
#[derive(Default)]
struct KnownIds<'n> {
    tasks: HashSet<&'n str>,
    groups: HashSet<&'n str>,
    errbacks: HashSet<&'n str>,
}

impl<'n> KnownIds<'n> {
    /// Notes the ids that the tasks and groups of this node have, or will have once it is frozen. `place` is the id of
    /// what ends with this node. A chain has the id of its last step, and a chord that of its header or of its body, so
    /// these are not ids of their own.
    fn note(&mut self, node: &'n Node, place: Option<&'n str>) -> Result<(), SignatureError> {
        let own = node.id();
        match &node.kind {
            NodeKind::Task { .. } => insert(&mut self.tasks, own.or(place))?,
            NodeKind::Chain(steps) => {
                for (n, step) in steps.iter().enumerate() {
                    self.note(step, own.or(place).filter(|_| n + 1 == steps.len()))?;
                }
            }
            NodeKind::Group(members) => {
                insert(&mut self.groups, own)?;
                self.note_members(members)?;
            }
            NodeKind::Chord(chord) => {
                let place = if chord.header.id().is_none() { own.or(place) } else { place };
                self.note(&chord.header, None)?;
                self.note(&chord.body, place)?;
            }
        }
        self.note_links(node)
    }

    /// A group inside a group is replaced by its members, so its own id is nobody's.
    fn note_members(&mut self, members: &'n [Node]) -> Result<(), SignatureError> {
        for member in members {
            match &member.kind {
                NodeKind::Group(inner) => {
                    self.note_members(inner)?;
                    self.note_links(member)?;
                }
                _ => self.note(member, None)?,
            }
        }
        Ok(())
    }

    /// Notes what is called after this node. The body of the chord around it is not: each member of a header has a copy.
    fn note_links(&mut self, node: &'n Node) -> Result<(), SignatureError> {
        let mut after = node.options.link.iter().chain(node.options.chain.iter().flatten());
        after.try_for_each(|node| self.note(node, None))?;
        for errback in &node.options.link_error {
            KnownIds::default().note(errback, None)?;
            errback.every_id(&mut self.errbacks);
        }
        Ok(())
    }

    /// # Errors
    /// An errback has the id of another node.
    fn check_errbacks(&self) -> Result<(), SignatureError> {
        let mut others = self.tasks.union(&self.groups);
        others.find(|id| self.errbacks.contains(*id)).map_or(Ok(()), |id| Err(twice(id)))
    }
}

fn insert<'n>(ids: &mut HashSet<&'n str>, id: Option<&'n str>) -> Result<(), SignatureError> {
    match id {
        Some(id) if !ids.insert(id) => Err(twice(id)),
        _ => Ok(()),
    }
}

fn twice(id: &str) -> SignatureError {
    SignatureError(format!(
        "the id `{id}` is given twice in it: the second of the two would be left out, so give each its own, or none"
    ))
}
