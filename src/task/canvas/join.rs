//! The rules by which steps become a chain, a chord or a longer body. Celery's `|`.
//!
//! A group that a step follows becomes the header of a chord, because the next step takes the results of all members.
//! That holds for a group of one member and of none too. A step that follows a chord follows its body. A chain inside a
//! chain is replaced by its steps. Among the steps of a chain, Celery takes a group of one for its member, and an empty
//! group for no step.

use std::collections::HashSet;

use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

use super::node::{Node, NodeKind};
use crate::task::JsonMap;

impl Node {
    /// Puts `next` after this node.
    pub(crate) fn then(self, next: Self) -> Self {
        match self.kind {
            // The next step takes the list of the members' results, however many members there are.
            NodeKind::Group(_) if next.is_empty_group() => return self,
            NodeKind::Group(_) => return Self::chord(self, next),
            // The result of an empty group after a single task is an empty list, as soon as a step takes it.
            NodeKind::Task { .. } if next.is_empty_group() => {
                return Self::new(NodeKind::Chain(vec![self, next]));
            }
            NodeKind::Chain(ref steps) if steps.last().is_some_and(Self::is_empty_group) => {
                let NodeKind::Chain(mut steps) = self.kind else { return next };
                let results = steps.pop().unwrap_or_else(|| Self::new(NodeKind::Group(Vec::new())));
                steps.push(Self::chord(results, next));
                return Self { kind: NodeKind::Chain(steps), ..self };
            }
            _ if next.is_empty_group() => return self,
            _ => {}
        }
        let next = next.unrolled();
        match self.kind {
            NodeKind::Chain(_) => joined([self, next]),
            NodeKind::Chord(mut chord) if matches!(next.kind, NodeKind::Task { .. } | NodeKind::Chord(_)) => {
                chord.body = chord.body.then(next);
                Self { kind: NodeKind::Chord(chord), ..self }
            }
            kind => joined([Self { kind, ..self }, next]),
        }
    }
}

/// Joins the steps to one node, one after the other.
pub(crate) fn joined(steps: impl IntoIterator<Item = Node>) -> Node {
    let mut merged = Vec::new();
    for step in steps {
        merge(&mut merged, step);
    }
    if merged.len() == 1 {
        return merged.remove(0);
    }
    Node::new(NodeKind::Chain(merged))
}

/// Adds one more step to those that are joined already.
fn merge(steps: &mut Vec<Node>, next: Node) {
    if next.is_empty_group() {
        return;
    }
    let next = next.unrolled();
    match next.kind {
        NodeKind::Chain(_) => unchained(next).into_iter().for_each(|step| merge(steps, step)),
        _ => match steps.pop() {
            None => steps.push(next),
            Some(last) => match (last.kind, &next.kind) {
                // A group that is followed becomes the header of a chord.
                (kind @ NodeKind::Group(_), _) => steps.push(Node::chord(Node { kind, ..last }, next)),
                // A step after a chord goes to the end of its body.
                (NodeKind::Chord(mut chord), NodeKind::Task { .. } | NodeKind::Group(_)) => {
                    chord.body = chord.body.then(next);
                    steps.push(Node { kind: NodeKind::Chord(chord), ..last });
                }
                // What follows a group has to be the body of its chord, so a chord goes there as well.
                (NodeKind::Chord(mut chord), NodeKind::Chord(_)) if ends_in_group(&chord.body) => {
                    chord.body = chord.body.then(next);
                    steps.push(Node { kind: NodeKind::Chord(chord), ..last });
                }
                (kind, _) => steps.extend([Node { kind, ..last }, next]),
            },
        },
    }
}

/// Whether the last thing that runs of this node is a group.
fn ends_in_group(node: &Node) -> bool {
    match &node.kind {
        NodeKind::Group(_) => true,
        NodeKind::Chord(chord) => ends_in_group(&chord.body),
        NodeKind::Chain(steps) => steps.last().is_some_and(ends_in_group),
        NodeKind::Task { .. } => false,
    }
}

/// Splits a chain into its steps and passes on what belongs to the whole chain: its callbacks go to its last step, its
/// errbacks to each step, its arguments and other options to its first step.
pub(crate) fn unchained(chain: Node) -> Vec<Node> {
    let NodeKind::Chain(mut steps) = chain.kind else { return vec![chain] };
    let mut options = chain.options;
    steps.iter_mut().for_each(|step| step.link_errors(&options.link_error));
    if let Some(last) = steps.last_mut() {
        options.link.drain(..).for_each(|callback| last.link(callback));
        for key in ["group_id", "group_index", "task_id"] {
            if let Some(value) = options.plain.remove(key) {
                last.options.set_default(key, || value);
            }
        }
        last.options.chord = last.options.chord.take().or(options.chord);
    }
    if let Some(first) = steps.first_mut() {
        if !first.immutable {
            first.args.splice(0..0, chain.args);
        }
        for (key, value) in options.plain {
            first.options.set_default(&key, || value);
        }
    }
    steps
}

impl Node {
    /// Links `callback`, which is called with the result of this node.
    pub(crate) fn link(&mut self, mut callback: Self) {
        match &mut self.kind {
            NodeKind::Chord(chord) => chord.body.link(callback),
            // A member does not know the results of the others, so the callback takes no result.
            NodeKind::Group(members) => {
                callback.immutable = true;
                if let Some(first) = members.first_mut() {
                    first.link(callback);
                }
            }
            NodeKind::Chain(steps) if !steps.is_empty() => {
                if let Some(last) = steps.last_mut() {
                    last.link(callback);
                }
            }
            _ if self.options.link.contains(&callback) => {}
            _ => self.options.link.push(callback),
        }
    }

    /// Links `errback`, which is called if this node fails.
    pub(crate) fn link_error(&mut self, errback: &Self) {
        self.link_errors(std::slice::from_ref(errback));
    }

    /// Calls these, each of them once, if this one fails.
    pub(crate) fn link_errors(&mut self, errbacks: &[Self]) {
        match &mut self.kind {
            _ if errbacks.is_empty() => {}
            NodeKind::Chord(chord) => {
                if let NodeKind::Group(members) = &mut chord.header.kind {
                    let chords = members.iter_mut().filter(|m| matches!(m.kind, NodeKind::Chord(_)));
                    chords.for_each(|member| member.link_errors(errbacks));
                }
                chord.body.link_errors(errbacks);
            }
            NodeKind::Group(nodes) | NodeKind::Chain(nodes) => {
                nodes.iter_mut().for_each(|node| node.link_errors(errbacks));
            }
            NodeKind::Task { .. } => add_new(&mut self.options.link_error, errbacks),
        }
    }

    /// Something that equal nodes have in common and others rarely.
    fn digest(&self) -> u64 {
        let mut hash = Xxh3::new();
        hash.update(self.name().as_bytes());
        self.args.iter().for_each(|argument| hash.update(argument.text().as_bytes()));
        let maps = match &self.kind {
            NodeKind::Task { kwargs, .. } => [Some(kwargs), Some(&self.options.plain)],
            _ => [None, Some(&self.options.plain)],
        };
        // Maps of another order are equal.
        let entries = maps.into_iter().flatten().flat_map(JsonMap::iter);
        let sum =
            entries.map(|(name, value)| xxh3_64_with_seed(value.text().as_bytes(), xxh3_64(name.as_bytes())));
        hash.digest().wrapping_add(sum.fold(0, u64::wrapping_add))
    }
}

/// Adds those that are not there yet. A message may name thousands, so that not each is compared with each.
pub(super) fn add_new(list: &mut Vec<Node>, more: &[Node]) {
    let mut known: HashSet<u64> = list.iter().map(Node::digest).collect();
    for node in more {
        if known.insert(node.digest()) || !list.contains(node) {
            list.push(node.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(name: &str) -> Node {
        Node::task(name)
    }

    fn g(names: &[&str]) -> Node {
        Node::new(NodeKind::Group(names.iter().map(|name| t(name)).collect()))
    }

    /// Writes a chain as `a.b`, a group as `[a b]`, and a chord as `[a b]>c`.
    fn shape(node: &Node) -> String {
        let all = |nodes: &[Node], by: &str| nodes.iter().map(shape).collect::<Vec<_>>().join(by);
        match &node.kind {
            NodeKind::Task { name, .. } => name.clone(),
            NodeKind::Chain(steps) => format!("({})", all(steps, ".")),
            NodeKind::Group(members) => format!("[{}]", all(members, " ")),
            NodeKind::Chord(chord) => format!("{}>{}", shape(&chord.header), shape(&chord.body)),
        }
    }

    #[test]
    fn steps_are_upgraded() {
        let chord = || Node::chord(g(&["a", "b"]), t("c"));
        for (joined, expected) in [
            (t("a").then(t("b")).then(t("c")), "(a.b.c)"),
            (t("a").then(t("b").then(t("c"))), "(a.b.c)"),
            (t("a").then(g(&["b", "c"])), "(a.[b c])"),
            (t("a").then(g(&["b", "c"])).then(t("d")), "(a.[b c]>d)"),
            (t("a").then(g(&["b", "c"])).then(t("d")).then(t("e")), "(a.[b c]>(d.e))"),
            (g(&["a", "b"]).then(t("c")), "[a b]>c"),
            (g(&["a", "b"]).then(g(&["c", "d"])), "[a b]>[c d]"),
            (g(&["a", "b"]).then(g(&["c", "d"])).then(t("e")), "[a b]>[c d]>e"),
            (g(&["a", "b"]).then(t("c").then(t("d"))), "[a b]>(c.d)"),
            (chord().then(t("d")), "[a b]>(c.d)"),
            (chord().then(t("d")).then(g(&["e", "f"])), "[a b]>(c.d.[e f])"),
            (chord().then(chord()), "[a b]>(c.[a b]>c)"),
            (t("x").then(chord()).then(chord()), "(x.[a b]>c.[a b]>c)"),
            (t("a").then(g(&["b"])).then(t("c")), "(a.b.c)"),
            (t("a").then(t("b")).then(g(&["c"])).then(t("d")), "(a.b.c.d)"),
            // Celery 5.7 makes these of the same steps, as its `repr` shows.
            (g(&[]).then(t("c")), "[]>c"),
            (g(&["a"]).then(t("c")), "[a]>c"),
            (g(&[]).then(t("b").then(t("c"))), "[]>(b.c)"),
            (g(&["a"]).then(t("b").then(t("c"))), "[a]>(b.c)"),
            (g(&["a"]).then(g(&["b"])), "[a]>[b]"),
            (g(&["a", "b"]).then(g(&["c"])), "[a b]>[c]"),
            (g(&[]).then(g(&["c", "d"])), "[]>[c d]"),
            (g(&["a"]).then(g(&[])), "[a]"),
            (g(&["a"]).then(Node::chord(g(&["b"]), t("c"))), "[a]>[b]>c"),
            (Node::chord(g(&["a"]), t("b")).then(g(&["c"])), "[a]>(b.c)"),
            (t("a").then(g(&[])).then(t("c")), "(a.[]>c)"),
            (t("a").then(t("b")).then(g(&[])).then(t("c")), "(a.b.c)"),
            (joined([g(&["a"]), t("b")]), "(a.b)"),
            (joined([g(&[]), t("b")]), "b"),
        ] {
            assert_eq!(shape(&joined), expected);
        }
    }

    #[test]
    fn what_is_said_of_a_chain_is_said_of_its_steps() {
        let mut inner = t("b").then(t("c"));
        inner.options.link.push(t("done"));
        inner.options.link_error.push(t("oops"));
        inner.options.set("queue", "slow");
        inner.args.push(1.into());
        let NodeKind::Chain(steps) = t("a").then(inner).kind else { panic!() };
        assert_eq!(steps[1].args, [1]);
        assert_eq!(steps[1].options.text("queue"), Some("slow"));
        assert_eq!((steps[1].options.link.len(), steps[2].options.link.len()), (0, 1));
        let errbacks: Vec<_> = steps.iter().map(|s| s.options.link_error.len()).collect();
        assert_eq!(errbacks, [0, 1, 1]);
    }

    #[test]
    fn each_errback_is_there_once_in_the_order_in_which_it_came() {
        let with = |name: &str, entries: &[(&str, i32)]| {
            let mut node = t(name);
            entries.iter().for_each(|(key, value)| node.options.set(key, *value));
            node.args.push(1.into());
            node
        };
        let mut list = vec![t("a")];
        let ordered = with("b", &[("x", 1), ("y", 2)]);
        add_new(
            &mut list,
            &[ordered.clone(), t("a"), with("b", &[("y", 2), ("x", 1)]), with("b", &[("x", 1)])],
        );
        assert_eq!(list, [t("a"), ordered, with("b", &[("x", 1)])]);
    }

    #[test]
    fn links_go_where_the_result_comes_from() {
        let mut chord = Node::chord(g(&["a", "b"]), t("c"));
        chord.link(t("done"));
        chord.link_error(&t("oops"));
        chord.link_errors(&[t("oops"), t("oops")]);
        let NodeKind::Chord(chord) = chord.kind else { panic!() };
        assert_eq!((chord.body.options.link.len(), chord.body.options.link_error.len()), (1, 1));
        let mut group = g(&["a", "b"]);
        group.link(t("done"));
        group.link_error(&t("oops"));
        let NodeKind::Group(members) = group.kind else { panic!() };
        assert!(members[0].options.link[0].immutable && members[1].options.link.is_empty());
        assert!(members.iter().all(|m| m.options.link_error.len() == 1));
    }
}
