//! Who is who in a canvas before anything of it is sent: each task gets its id, each member its group and place.
//!
//! Freezing twice changes nothing, so what was frozen by the client is sent by a worker under the same ids. Ids that a
//! worker has to make up are made from the id of the task that it ran: a second run, after a crash, sends the same ones.

use std::collections::HashSet;

use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

use super::join::joined;
use super::node::{Chord, Kind, Node};
use crate::task::{Message, TaskId};

/// Where new ids come from.
pub(crate) enum Ids {
    /// From nowhere.
    Fresh,
    /// From what this follows from; the number counts them.
    After(String, u64),
}

impl Ids {
    /// What follows from a message. Its id may be that of an earlier task, the time of its enqueue is not.
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

/// Where the result of a canvas will be: the id of its last task, or those of the group it ends in.
#[derive(Clone, Debug, PartialEq)]
pub struct Promise {
    /// The task's id, or the group's.
    pub id: TaskId,
    /// The members, if it is a group.
    pub members: Option<Vec<Promise>>,
    /// What has to be over before.
    pub parent: Option<Box<Promise>>,
    /// The task keeps no result, so far as that is known where it was sent: nothing will ever be there.
    pub ignored: bool,
}

impl Promise {
    /// The tasks whose results these are: one, or the members of the group and of those in it.
    pub(crate) fn tasks(&self) -> Vec<&TaskId> {
        match &self.members {
            None => vec![&self.id],
            Some(members) => members.iter().flat_map(Self::tasks).collect(),
        }
    }

    /// These keep no results.
    pub(crate) fn ignore(&mut self, tasks: &HashSet<TaskId>) {
        self.ignored = self.members.is_none() && tasks.contains(&self.id);
        self.members.iter_mut().flatten().for_each(|member| member.ignore(tasks));
        self.parent.iter_mut().for_each(|parent| parent.ignore(tasks));
    }

    /// Puts `parent` before all that this one waits for.
    fn follow(&mut self, parent: Self) {
        match &mut self.parent {
            Some(own) => own.follow(parent),
            none => *none = Some(Box::new(parent)),
        }
    }
}

/// What a node is part of.
#[derive(Clone, Default)]
pub(crate) struct Place {
    pub(crate) id: Option<String>,
    pub(crate) group_id: Option<String>,
    pub(crate) group_index: Option<usize>,
    pub(crate) chord: Option<Box<Node>>,
}

/// Gives ids.
pub(crate) struct Freezer {
    pub(crate) ids: Ids,
    /// Where results by rpc go.
    pub(crate) reply_to: Option<String>,
}

impl Freezer {
    pub(crate) fn freeze(&mut self, node: &mut Node, place: Place) -> Promise {
        match &mut node.kind {
            Kind::Task { .. } => {
                take_place(node, &place);
                node.options
                    .set_default("task_id", || Value::from(place.id.unwrap_or_else(|| self.ids.next())));
                if let Some(reply_to) = &self.reply_to {
                    node.options.set_default("reply_to", || Value::from(reply_to.as_str()));
                }
                let id = TaskId::from(node.id().unwrap_or_default());
                Promise { id, members: None, parent: None, ignored: false }
            }
            Kind::Chain(_) => self.freeze_chain(node, place),
            Kind::Group(_) => self.freeze_group(node, place),
            Kind::Chord(_) => self.freeze_chord(node, place),
        }
    }

    fn freeze_chain(&mut self, node: &mut Node, mut place: Place) -> Promise {
        let Kind::Chain(steps) = &mut node.kind else { return nothing() };
        place.id = node.options.text("task_id").map(str::to_owned).or(place.id);
        *steps = match joined(std::mem::take(steps)) {
            Node { kind: Kind::Chain(steps), options, .. } if options == Default::default() => steps,
            one => vec![one],
        };
        let last = steps.len().saturating_sub(1);
        let mut promise = None;
        for (i, step) in steps.iter_mut().enumerate() {
            let place = if i == last { place.clone() } else { Place::default() };
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

    fn freeze_group(&mut self, node: &mut Node, place: Place) -> Promise {
        take_place(node, &place);
        node.options.set_default("task_id", || Value::from(self.ids.next()));
        let id = TaskId::from(node.id().unwrap_or_default());
        let Kind::Group(members) = &mut node.kind else { return nothing() };
        *members = flattened(std::mem::take(members));
        let place_of = |index| Place { id: None, group_index: Some(index), ..place.clone() };
        let members = members.iter_mut().enumerate();
        let members = members.map(|(index, member)| self.freeze(member, place_of(index))).collect();
        Promise { id, members: Some(members), parent: None, ignored: false }
    }

    fn freeze_chord(&mut self, node: &mut Node, mut place: Place) -> Promise {
        let own = node.options.text("task_id").map(str::to_owned);
        let Kind::Chord(chord) = &mut node.kind else { return nothing() };
        let Chord { header, body, .. } = &mut **chord;
        if header.id().is_none() {
            place.id = own.or(place.id); // an id that the caller gave is that of the result
        }
        if let Kind::Group(members) = &mut header.kind {
            *members = flattened(std::mem::take(members)).into_iter().map(in_one_piece).collect();
        }
        let header = self.freeze(header, Place::default());
        let mut promise = self.freeze(body, place);
        node.options.set("task_id", header.id.as_str());
        promise.follow(header);
        promise
    }
}

fn nothing() -> Promise {
    Promise { id: "".into(), members: None, parent: None, ignored: false }
}

fn take_place(node: &mut Node, place: &Place) {
    if let Some(group) = &place.group_id {
        node.options.set_default("group_id", || Value::from(group.as_str()));
    }
    if let Some(index) = place.group_index {
        node.options.set("group_index", index);
    }
    if place.chord.is_some() {
        node.options.chord.clone_from(&place.chord);
    }
}

/// A group in a group is its members, and an empty chain is none.
fn flattened(members: Vec<Node>) -> Vec<Node> {
    let mut flat = Vec::with_capacity(members.len());
    for member in members {
        match member.kind {
            Kind::Chain(steps) if steps.is_empty() => {}
            Kind::Group(inner) => {
                for mut node in flattened(inner) {
                    node.args.splice(0..0, member.args.iter().cloned());
                    for (key, value) in &member.options.plain {
                        if !matches!(key.as_str(), "task_id" | "group_id" | "group_index") {
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

/// A member of a chord's header that ends in a group has many results, and the chord counts one: they are gathered first.
fn in_one_piece(mut member: Node) -> Node {
    match &mut member.kind {
        Kind::Chain(steps) => {
            let mut normal = match joined(std::mem::take(steps)).kind {
                Kind::Chain(steps) => steps,
                kind => vec![Node::new(kind)],
            };
            if let Some(last) = normal.pop() {
                normal.push(in_one_piece(last));
            }
            *steps = normal;
        }
        Kind::Group(_) => member = member.then(accumulate()),
        Kind::Chord(chord) => {
            let body = std::mem::replace(&mut chord.body, Node::task(""));
            chord.body = in_one_piece(body);
        }
        Kind::Task { .. } => {}
    }
    member
}

/// Gives the results of a group as one list. Each worker has it, Python's too.
pub(crate) fn accumulate() -> Node {
    let mut node = Node::task("celery.accumulate");
    if let Kind::Task { kwargs, .. } = &mut node.kind {
        kwargs.insert("index".to_owned(), Value::from(0));
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
        let header = Node::new(Kind::Group(vec![
            Node::task("a"),
            Node::task("b").then(Node::new(Kind::Group(vec![Node::task("c"), Node::task("d")]))),
        ]));
        let mut node = Node::task("x").then(header).then(Node::task("y")).then(Node::task("z"));
        let mut freezer = Freezer { ids: Ids::Fresh, reply_to: Some("r".into()) };
        let promise = freezer.freeze(&mut node, Place::default());
        let (before, again) = (node.clone(), freezer.freeze(&mut node, Place::default()));
        assert_eq!((before, promise), (node, again));
    }

    #[test]
    fn an_id_of_the_callers_is_that_of_the_result() {
        let group = || Node::new(Kind::Group(vec![Node::task("a"), Node::task("b")]));
        for mut node in
            [Node::task("a"), Node::task("a").then(Node::task("b")), group().then(Node::task("c"))]
        {
            node.options.set("task_id", "mine");
            let mut freezer = Freezer { ids: Ids::Fresh, reply_to: None };
            assert_eq!(freezer.freeze(&mut node, Place::default()).id.as_str(), "mine");
        }
    }
}
