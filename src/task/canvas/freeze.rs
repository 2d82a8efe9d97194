//! Freezing gives each task of a canvas its id, and each member its group and place, before anything is sent.
//!
//! Freezing twice changes nothing, so a worker sends what the client froze under the same ids. Ids that a worker has to
//! make up are derived from the id of the task that it ran, so that a second run after a crash sends the same ones.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::join::joined;
use super::node::{Chord, Node, NodeKind};
use crate::task::{Json, Message, TaskId};

/// The source of new ids.
pub(crate) enum Ids {
    /// Each id is a new random one.
    Fresh,
    /// Each id is derived from the text of its cause and from a counter.
    After(String, u64),
}

impl Ids {
    /// The source for ids that follow from a message. An earlier task may have had the same id, but not the same time
    /// of its enqueue.
    pub(crate) fn of(message: &Message, why: &str) -> Self {
        Self::After(format!("{} {} {why}", message.id, message.enqueued_at.as_micros()), 0)
    }

    fn next(&mut self) -> String {
        match self {
            Self::Fresh => TaskId::new().to_string(),
            Self::After(cause, n) => {
                *n += 1;
                let hash = xxh3_128(format!("{cause}/{n}").as_bytes());
                uuid::Builder::from_random_bytes(hash.to_be_bytes()).into_uuid().to_string()
            }
        }
    }
}

/// The place where the result of a canvas will be: the id of its last task, or the ids of the group that it ends in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Promise {
    /// The id of the task or of the group.
    pub id: TaskId,
    /// The results of the members, if this is a group.
    pub members: Option<Vec<Promise>>,
    /// The result that has to be there before: that of the step before, or of the chord's header.
    pub parent: Option<Box<Promise>>,
    /// Whether the task keeps no result, as far as the sender knows. Then nothing will ever be there.
    pub ignored: bool,
}

impl Promise {
    /// The tasks that have these results: one task, or the members of the group and of the groups inside it.
    pub(crate) fn tasks(&self) -> Vec<&TaskId> {
        match &self.members {
            None => vec![&self.id],
            Some(members) => members.iter().flat_map(Self::tasks).collect(),
        }
    }

    /// Marks the results of these tasks as ones that are never kept.
    pub(crate) fn ignore(&mut self, tasks: &HashSet<TaskId>) {
        self.ignored = self.members.is_none() && tasks.contains(&self.id);
        self.members.iter_mut().flatten().for_each(|member| member.ignore(tasks));
        self.parent.iter_mut().for_each(|parent| parent.ignore(tasks));
    }

    /// Puts `parent` before everything that this result waits for.
    fn follow(&mut self, parent: Self) {
        match &mut self.parent {
            Some(own) => own.follow(parent),
            none => *none = Some(Box::new(parent)),
        }
    }
}

/// The place of a node in the canvas around it: its id, its group, its index there, and the chord it counts for.
#[derive(Clone, Default)]
pub(crate) struct CanvasPosition {
    pub(crate) id: Option<String>,
    pub(crate) group_id: Option<String>,
    pub(crate) group_index: Option<usize>,
    pub(crate) chord: Option<Arc<Node>>,
}

/// Gives ids and places to the nodes of a canvas.
pub(crate) struct Freezer {
    pub(crate) ids: Ids,
    /// The queue for results by rpc.
    pub(crate) reply_to: Option<String>,
}

impl Freezer {
    pub(crate) fn freeze(&mut self, node: &mut Node, place: CanvasPosition) -> Promise {
        match &mut node.kind {
            NodeKind::Task { .. } => {
                take_place(node, &place);
                node.options
                    .set_default("task_id", || Json::from(place.id.unwrap_or_else(|| self.ids.next())));
                if let Some(reply_to) = &self.reply_to {
                    node.options.set_default("reply_to", || Json::from(reply_to.as_str()));
                }
                let id = TaskId::from(node.id().unwrap_or_default());
                Promise { id, members: None, parent: None, ignored: false }
            }
            NodeKind::Chain(_) => self.freeze_chain(node, place),
            NodeKind::Group(_) => self.freeze_group(node, place),
            NodeKind::Chord(_) => self.freeze_chord(node, place),
        }
    }

    fn freeze_chain(&mut self, node: &mut Node, mut place: CanvasPosition) -> Promise {
        let NodeKind::Chain(steps) = &mut node.kind else { return nothing() };
        // The id of a chain is that of its last step, which also stands where the chain stands.
        place.id = node.options.text("task_id").map(str::to_owned).or(place.id);
        // Joining makes a chord of a group that a step follows, as Celery's chain does.
        *steps = match joined(std::mem::take(steps)) {
            Node { kind: NodeKind::Chain(steps), options, .. } if options == Default::default() => steps,
            one => vec![one],
        };
        let last = steps.len().saturating_sub(1);
        let mut promise = None;
        for (i, step) in steps.iter_mut().enumerate() {
            let place = if i == last { place.clone() } else { CanvasPosition::default() };
            let mut next = self.freeze(step, place);
            if let Some(before) = promise.take() {
                next.follow(before);
            }
            promise = Some(next);
        }
        let promise = promise.unwrap_or_else(nothing);
        node.options.set("task_id", promise.id.as_str());
        promise
    }

    fn freeze_group(&mut self, node: &mut Node, place: CanvasPosition) -> Promise {
        take_place(node, &place);
        node.options.set_default("task_id", || Json::from(self.ids.next()));
        let id = TaskId::from(node.id().unwrap_or_default());
        let NodeKind::Group(members) = &mut node.kind else { return nothing() };
        *members = flattened(std::mem::take(members));
        let place_of = |index| CanvasPosition { id: None, group_index: Some(index), ..place.clone() };
        let members = members.iter_mut().enumerate();
        let members = members.map(|(index, member)| self.freeze(member, place_of(index))).collect();
        Promise { id, members: Some(members), parent: None, ignored: false }
    }

    fn freeze_chord(&mut self, node: &mut Node, mut place: CanvasPosition) -> Promise {
        let own = node.options.text("task_id").map(str::to_owned);
        let NodeKind::Chord(chord) = &mut node.kind else { return nothing() };
        let Chord { header, body, .. } = &mut **chord;
        if header.id().is_none() {
            place.id = own.or(place.id); // an id that the caller gave to the chord is that of the result
        }
        if let NodeKind::Group(members) = &mut header.kind {
            *members = flattened(std::mem::take(members)).into_iter().map(in_one_piece).collect();
        }
        let header = self.freeze(header, CanvasPosition::default());
        let mut promise = self.freeze(body, place);
        node.options.set("task_id", header.id.as_str());
        promise.follow(header);
        promise
    }
}

fn nothing() -> Promise {
    Promise { id: "".into(), members: None, parent: None, ignored: false }
}

fn take_place(node: &mut Node, place: &CanvasPosition) {
    if let Some(group) = &place.group_id {
        node.options.set_default("group_id", || Json::from(group.as_str()));
    }
    if let Some(index) = place.group_index {
        node.options.set("group_index", index);
    }
    if place.chord.is_some() {
        node.options.chord.clone_from(&place.chord);
    }
}

/// Puts the members of a group inside a group in its place, and leaves out empty chains.
pub(super) fn flattened(members: Vec<Node>) -> Vec<Node> {
    let mut flat = Vec::with_capacity(members.len());
    for member in members {
        match member.kind {
            NodeKind::Chain(steps) if steps.is_empty() => {}
            NodeKind::Group(inner) => {
                for mut node in flattened(inner) {
                    node.args.splice(0..0, member.args.iter().cloned());
                    for (key, value) in member.options.plain.iter() {
                        if !matches!(key, "task_id" | "group_id" | "group_index") {
                            node.options.set_default(key, || value.clone());
                        }
                    }
                    flat.push(node);
                }
            }
            kind => flat.push(Node { kind, ..member }),
        }
    }
    flat
}

/// Gathers the results of a member that ends in a group into one list, because a chord counts one result for each
/// member.
fn in_one_piece(mut member: Node) -> Node {
    match &mut member.kind {
        NodeKind::Chain(steps) => {
            let mut normal = match joined(std::mem::take(steps)).kind {
                NodeKind::Chain(steps) => steps,
                kind => vec![Node::new(kind)],
            };
            if let Some(last) = normal.pop() {
                normal.push(in_one_piece(last));
            }
            *steps = normal;
        }
        NodeKind::Group(_) => member = member.then(accumulate()),
        NodeKind::Chord(chord) => {
            let body = std::mem::replace(&mut chord.body, Node::task(""));
            chord.body = in_one_piece(body);
        }
        NodeKind::Task { .. } => {}
    }
    member
}

/// A task that answers with the results of a group as one list. Every worker has it, Python's too.
pub(crate) fn accumulate() -> Node {
    let mut node = Node::task("celery.accumulate");
    if let NodeKind::Task { kwargs, .. } = &mut node.kind {
        kwargs.insert("index", 0);
    }
    node
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_follow_from_a_task_are_the_same_each_time() {
        let ids = |id: &str| {
            let mut ids = Ids::After(id.to_owned(), 0);
            [ids.next(), ids.next()]
        };
        assert_eq!(ids("a"), ids("a"));
        assert_ne!(ids("a")[0], ids("a")[1]);
        assert_ne!(ids("a")[0], ids("b")[0]);
        assert!(uuid::Uuid::try_parse(&ids("a")[0]).is_ok());
    }

    #[test]
    fn freezing_twice_changes_nothing() {
        let header = Node::new(NodeKind::Group(vec![
            Node::task("a"),
            Node::task("b").then(Node::new(NodeKind::Group(vec![Node::task("c"), Node::task("d")]))),
        ]));
        let mut node = Node::task("x").then(header).then(Node::task("y")).then(Node::task("z"));
        let mut freezer = Freezer { ids: Ids::Fresh, reply_to: Some("r".into()) };
        let promise = freezer.freeze(&mut node, CanvasPosition::default());
        let (before, again) = (node.clone(), freezer.freeze(&mut node, CanvasPosition::default()));
        assert_eq!((before, promise), (node, again));
    }

    #[test]
    fn an_id_of_the_callers_is_that_of_the_result() {
        let group = || Node::new(NodeKind::Group(vec![Node::task("a"), Node::task("b")]));
        for mut node in
            [Node::task("a"), Node::task("a").then(Node::task("b")), group().then(Node::task("c"))]
        {
            node.options.set("task_id", "mine");
            let mut freezer = Freezer { ids: Ids::Fresh, reply_to: None };
            assert_eq!(freezer.freeze(&mut node, CanvasPosition::default()).id.as_str(), "mine");
        }
    }
}
