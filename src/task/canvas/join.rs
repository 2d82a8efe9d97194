//! What comes after what: the rules by which steps become a chain, a chord or a longer body. Celery's `|`.
//!
//! A group that something follows is a chord's header, since the results of all its members are what the next step takes.
//! What follows a chord follows its body. A chain in a chain is its steps; a group of one is its member; an empty group
//! is no step.

use super::node::{Kind, Node};

impl Node {
    /// `next` after this one.
    pub(crate) fn then(self, next: Self) -> Self {
        if next.is_empty_group() {
            return self;
        }
        let next = next.unrolled();
        match self.kind {
            Kind::Group(ref members) if members.is_empty() => next,
            Kind::Chain(_) => joined([self, next]),
            Kind::Group(_) if matches!(next.kind, Kind::Chain(_)) => joined([self, next]),
            Kind::Group(_) => Self::chord(self, next),
            Kind::Chord(mut chord) if matches!(next.kind, Kind::Task { .. } | Kind::Chord(_)) => {
                chord.body = chord.body.then(next);
                Self { kind: Kind::Chord(chord), ..self }
            }
            kind => joined([Self { kind, ..self }, next]),
        }
    }
}

/// One after the other.
pub(crate) fn joined(steps: impl IntoIterator<Item = Node>) -> Node {
    let mut merged = Vec::new();
    for step in steps {
        merge(&mut merged, step);
    }
    if merged.len() == 1 {
        return merged.remove(0);
    }
    Node::new(Kind::Chain(merged))
}

/// One more step.
fn merge(steps: &mut Vec<Node>, next: Node) {
    if next.is_empty_group() {
        return;
    }
    let next = next.unrolled();
    match next.kind {
        Kind::Chain(_) => unchained(next).into_iter().for_each(|step| merge(steps, step)),
        _ => match steps.pop() {
            None => steps.push(next),
            Some(last) => match (last.kind, &next.kind) {
                (kind @ Kind::Group(_), _) => steps.push(Node::chord(Node { kind, ..last }, next)),
                (Kind::Chord(mut chord), Kind::Task { .. } | Kind::Group(_)) => {
                    chord.body = chord.body.then(next);
                    steps.push(Node { kind: Kind::Chord(chord), ..last });
                }
                (kind, _) => steps.extend([Node { kind, ..last }, next]),
            },
        },
    }
}

/// The steps of a chain, with what was said of the chain said of them: its callbacks are its last step's, its errbacks
/// those of each, its arguments and other options its first step's.
pub(crate) fn unchained(chain: Node) -> Vec<Node> {
    let Kind::Chain(mut steps) = chain.kind else { return vec![chain] };
    let mut options = chain.options;
    for step in &mut steps {
        for errback in &options.link_error {
            step.link_error(errback);
        }
    }
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
    /// Calls `callback` with the result of this one.
    pub(crate) fn link(&mut self, mut callback: Self) {
        match &mut self.kind {
            Kind::Chord(chord) => chord.body.link(callback),
            // A member knows nothing of the results of the others.
            Kind::Group(members) => {
                callback.immutable = true;
                if let Some(first) = members.first_mut() {
                    first.link(callback);
                }
            }
            Kind::Chain(steps) if !steps.is_empty() => {
                if let Some(last) = steps.last_mut() {
                    last.link(callback);
                }
            }
            _ if self.options.link.contains(&callback) => {}
            _ => self.options.link.push(callback),
        }
    }

    /// Calls `errback` if this one fails.
    pub(crate) fn link_error(&mut self, errback: &Self) {
        match &mut self.kind {
            Kind::Chord(chord) => {
                if let Kind::Group(members) = &mut chord.header.kind {
                    let chords = members.iter_mut().filter(|m| matches!(m.kind, Kind::Chord(_)));
                    chords.for_each(|member| member.link_error(errback));
                }
                chord.body.link_error(errback);
            }
            Kind::Group(nodes) | Kind::Chain(nodes) => {
                nodes.iter_mut().for_each(|node| node.link_error(errback));
            }
            Kind::Task { .. } if self.options.link_error.contains(errback) => {}
            Kind::Task { .. } => self.options.link_error.push(errback.clone()),
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
        Node::new(Kind::Group(names.iter().map(|name| t(name)).collect()))
    }

    /// `a.b` a chain, `[a b]` a group, `[a b]>c` a chord.
    fn shape(node: &Node) -> String {
        let all = |nodes: &[Node], by: &str| nodes.iter().map(shape).collect::<Vec<_>>().join(by);
        match &node.kind {
            Kind::Task { name, .. } => name.clone(),
            Kind::Chain(steps) => format!("({})", all(steps, ".")),
            Kind::Group(members) => format!("[{}]", all(members, " ")),
            Kind::Chord(chord) => format!("{}>{}", shape(&chord.header), shape(&chord.body)),
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
            (t("a").then(g(&[])).then(t("c")), "(a.c)"),
            (g(&[]).then(t("c")), "c"),
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
        let Kind::Chain(steps) = t("a").then(inner).kind else { panic!() };
        assert_eq!(steps[1].args, [1]);
        assert_eq!(steps[1].options.text("queue"), Some("slow"));
        assert_eq!((steps[1].options.link.len(), steps[2].options.link.len()), (0, 1));
        let errbacks: Vec<_> = steps.iter().map(|s| s.options.link_error.len()).collect();
        assert_eq!(errbacks, [0, 1, 1]);
    }

    #[test]
    fn links_go_where_the_result_comes_from() {
        let mut chord = Node::chord(g(&["a", "b"]), t("c"));
        chord.link(t("done"));
        chord.link_error(&t("oops"));
        chord.link_error(&t("oops"));
        let Kind::Chord(chord) = chord.kind else { panic!() };
        assert_eq!((chord.body.options.link.len(), chord.body.options.link_error.len()), (1, 1));
        let mut group = g(&["a", "b"]);
        group.link(t("done"));
        group.link_error(&t("oops"));
        let Kind::Group(members) = group.kind else { panic!() };
        assert!(members[0].options.link[0].immutable && members[1].options.link.is_empty());
        assert!(members.iter().all(|m| m.options.link_error.len() == 1));
    }
}
