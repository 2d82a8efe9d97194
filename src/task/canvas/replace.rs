//! A task that puts another one, or a canvas, in its place.

use serde_json::Value;

use super::SignatureError;
use super::freeze::{Freezer, Ids, Place, accumulate};
use super::launch::Launch;
use super::node::{Kind, Node};
use crate::task::{Message, RawSignature};

/// What is sent instead of `message`: its last task has the id, and what was to follow follows that.
///
/// # Errors
/// It is no signature, is empty, or is part of something already.
pub(crate) fn replacement(message: &Message, with: RawSignature) -> Result<Launch, SignatureError> {
    let node = Node::from_raw(with)?;
    if node.options.chord.is_some() || node.options.chain.is_some() {
        return Err(SignatureError(
            "what replaces a task must not be part of a chord or chain already".to_owned(),
        ));
    }
    let mut node = gathered(node);
    if matches!(&node.kind, Kind::Chain(steps) if steps.is_empty()) {
        return Err(SignatureError("a task cannot be replaced by an empty chain".to_owned()));
    }
    let workflow = message.workflow.as_deref().cloned().unwrap_or_default();
    let read = |raw: Vec<RawSignature>| raw.into_iter().map(Node::from_raw).collect::<Result<Vec<_>, _>>();
    read(workflow.callbacks)?.into_iter().for_each(|callback| node.link(callback));
    read(workflow.errbacks)?.iter().for_each(|errback| node.link_error(errback));
    let place = Place {
        id: Some(message.id.to_string()),
        group_id: workflow.group,
        group_index: workflow.group_index.and_then(|index| usize::try_from(index).ok()),
        chord: workflow.chord.map(Node::from_raw).transpose()?.map(Box::new),
    };
    let nesting = workflow.replaced_task_nesting.saturating_add(1);
    // The same id may replace itself again, and has an end in the end: each of these has ids of its own to give.
    let ids = Ids::of(message, &format!("replaced {nesting}"));
    let mut freezer = Freezer { ids, reply_to: workflow.reply_to };
    nest(&mut node, nesting);
    forget_id(&mut node);
    let _ = freezer.freeze(&mut node, place);
    let rest = read(workflow.chain)?;
    let mut launch = Launch::default();
    launch.add(node, Vec::new(), Some(rest), &mut freezer);
    Ok(launch)
}

/// The results of a group as one, for one id cannot have several.
pub(super) fn gathered(node: Node) -> Node {
    match node.kind {
        Kind::Group(ref members) if members.is_empty() => node_of_nothing(),
        Kind::Group(_) => Node::chord(node, accumulate()),
        Kind::Chain(mut steps) => {
            if let Some(last) = steps.pop() {
                steps.push(gathered(last));
            }
            Node { kind: Kind::Chain(steps), ..node }
        }
        Kind::Chord(mut chord) => {
            chord.body = gathered(chord.body);
            Node { kind: Kind::Chord(chord), ..node }
        }
        Kind::Task { .. } => node,
    }
}

/// An empty list, as a task.
fn node_of_nothing() -> Node {
    let mut node = accumulate();
    node.args.push(Value::Array(Vec::new()));
    node.immutable = true;
    node
}

/// The last task gets the id of the one that is replaced, whatever it had.
fn forget_id(node: &mut Node) {
    node.options.plain.remove("task_id");
    match &mut node.kind {
        Kind::Chain(steps) => steps.last_mut().map_or((), forget_id),
        Kind::Chord(chord) => forget_id(&mut chord.body),
        Kind::Task { .. } | Kind::Group(_) => {}
    }
}

fn nest(node: &mut Node, nesting: u32) {
    match &mut node.kind {
        Kind::Task { .. } => node.options.set("replaced_task_nesting", nesting),
        Kind::Chain(nodes) | Kind::Group(nodes) => nodes.iter_mut().for_each(|node| nest(node, nesting)),
        Kind::Chord(chord) => {
            nest(&mut chord.header, nesting);
            nest(&mut chord.body, nesting);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Context, Workflow};

    fn message() -> Message {
        let raw = |name: &str| Node::task(name).into_raw();
        let mut message = Context::detached().message().clone();
        message.id = "me".into();
        message.workflow = Some(Box::new(Workflow {
            group: Some("g".into()),
            group_index: Some(3),
            callbacks: vec![raw("callback")],
            errbacks: vec![raw("errback")],
            chain: vec![raw("last"), raw("next")],
            chord: Some(raw("body")),
            replaced_task_nesting: 1,
            ..Workflow::default()
        }));
        message
    }

    fn replaced(with: Node) -> Launch {
        replacement(&message(), with.into_raw()).unwrap()
    }

    fn names(signatures: &[RawSignature]) -> Vec<&str> {
        signatures.iter().map(|signature| signature.task.as_str()).collect()
    }

    #[test]
    fn a_task_takes_the_place_of_another() {
        let launch = replaced(Node::task("other"));
        let [call] = &launch.calls[..] else { panic!("{launch:?}") };
        assert_eq!(call.options["task_id"], "me");
        assert_eq!((&call.options["group_id"], &call.options["group_index"]), (&"g".into(), &3.into()));
        assert_eq!(call.options["replaced_task_nesting"], 2);
        assert_eq!((names(&call.callbacks), names(&call.errbacks)), (vec!["callback"], vec!["errback"]));
        assert_eq!(names(&call.chain), ["last", "next"]);
        assert_eq!(call.chord.as_ref().map(|body| body.task.as_str()), Some("body"));
    }

    #[test]
    fn the_last_step_of_a_chain_takes_the_place() {
        let launch = replaced(Node::task("a").then(Node::task("b")));
        let [call] = &launch.calls[..] else { panic!("{launch:?}") };
        assert_ne!(call.options["task_id"], "me");
        assert_eq!(names(&call.chain), ["last", "next", "b"]);
        assert_eq!((&call.callbacks[..], &call.chord), (&[][..], &None));
        let last = &call.chain[2];
        assert_eq!(last.options["task_id"], "me");
        assert_eq!(last.options["chord"]["task"], "body");
        assert_eq!(last.options["link"][0]["task"], "callback");
    }

    #[test]
    fn the_results_of_a_group_are_gathered() {
        let launch = replaced(Node::new(Kind::Group(vec![Node::task("a"), Node::task("b")])));
        assert_eq!((launch.calls.len(), launch.chords.len()), (2, 1));
        let body = launch.calls[0].chord.clone().unwrap();
        assert_eq!((body.task.as_str(), &body.options["task_id"]), ("celery.accumulate", &"me".into()));
        assert_eq!(body.options["chain"][1]["task"], "next");
        let launch = replaced(Node::new(Kind::Group(Vec::new())));
        assert_eq!((launch.calls[0].task.as_str(), launch.calls.len()), ("celery.accumulate", 1));
    }

    #[test]
    fn what_cannot_take_the_place_is_refused() {
        let refused = |node: Node| replacement(&message(), node.into_raw()).unwrap_err().to_string();
        assert!(refused(Node::new(Kind::Chain(Vec::new()))).contains("empty chain"));
        let mut part = Node::task("a");
        part.options.chord = Some(Box::new(Node::task("b")));
        assert!(refused(part).contains("part of a chord"));
    }
}
