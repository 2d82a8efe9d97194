//! Replaces a task by another one or by a canvas. Celery's `replace`.

use std::sync::Arc;

use super::SignatureError;
use super::check::check_unique_among;
use super::freeze::{CanvasPosition, Freezer, Ids, accumulate};
use super::launch::Launch;
use super::limits::{CanvasLimits, inherited};
use super::node::{Node, NodeKind};
use crate::task::{Json, Message, RawSignature};

/// Makes the messages that are sent in the place of `message`. The last task of the replacement gets the id of the
/// replaced one, and everything that was to follow from that follows from this one. `max_message_size` bounds the
/// arguments, and the headers, of each task in it, as it does for a caller.
///
/// # Errors
/// The replacement is no signature, is empty, too large, or is part of a chord or chain already.
pub(crate) fn replacement(
    message: &Message,
    with: RawSignature,
    limits: CanvasLimits,
    max_message_size: usize,
) -> Result<Launch, SignatureError> {
    let node = Node::from_raw(with)?;
    node.check_ids()?;
    node.check_sizes(max_message_size)?;
    node.check_copies(limits)?;
    // Celery has the same texts for a part of a chord and for an empty chain.
    if node.options.chord.is_some() {
        return Err(SignatureError("A signature replacing a task must not be part of a chord".to_owned()));
    }
    if node.options.chain.is_some() {
        return Err(SignatureError("what replaces a task must not be part of a chain already".to_owned()));
    }
    // One id has one result, so a group at the end is gathered into a list.
    let mut node = gathered(node);
    if matches!(&node.kind, NodeKind::Chain(steps) if steps.is_empty()) {
        return Err(SignatureError("Cannot replace with an empty chain".to_owned()));
    }
    let workflow = message.workflow.as_deref().cloned().unwrap_or_default();
    let inherited = inherited(message);
    let read = |raw: Vec<RawSignature>| raw.into_iter().map(Node::from_raw).collect::<Result<Vec<_>, _>>();
    // The callbacks and errbacks of the replaced task are called for the replacement.
    read(workflow.callbacks)?.into_iter().for_each(|callback| node.link(callback));
    let errbacks = read(workflow.errbacks)?;
    let copies = errbacks.iter().map(Node::bytes).sum::<usize>().saturating_mul(node.tasks());
    limits.check_bytes(node.tasks(), copies)?;
    node.link_errors(&errbacks);
    let place = CanvasPosition {
        id: Some(message.id.to_string()),
        group_id: workflow.group,
        group_index: workflow.group_index.and_then(|index| usize::try_from(index).ok()),
        chord: workflow.chord.map(Node::from_raw).transpose()?.map(Arc::new),
    };
    let nesting = workflow.replaced_task_nesting.saturating_add(1);
    // A task of this id may replace itself again, so the number of the replacement is part of the source of new ids.
    let ids = Ids::of(message, &format!("replaced {nesting}"));
    let mut freezer = Freezer { ids, reply_to: workflow.reply_to };
    nest(&mut node, nesting);
    forget_id(&mut node);
    let _ = freezer.freeze(&mut node, place);
    node.check_unique()?;
    let rest = read(workflow.chain)?;
    check_unique_among([], rest.iter().chain([&node]))?;
    let mut launch = Launch::within(limits).each_with(inherited);
    launch.add(node, Vec::new(), Some(rest), &mut freezer);
    launch.check()?;
    Ok(launch)
}

/// Gathers the results of a group at the end of a canvas into one list, because one id has one result.
pub(super) fn gathered(node: Node) -> Node {
    match node.kind {
        NodeKind::Group(ref members) if members.is_empty() => node_of_nothing(),
        NodeKind::Group(_) => Node::chord(node, accumulate()),
        NodeKind::Chain(mut steps) => {
            if let Some(last) = steps.pop() {
                steps.push(gathered(last));
            }
            Node { kind: NodeKind::Chain(steps), ..node }
        }
        NodeKind::Chord(mut chord) => {
            chord.body = gathered(chord.body);
            Node { kind: NodeKind::Chord(chord), ..node }
        }
        NodeKind::Task { .. } => node,
    }
}

/// A task whose result is an empty list.
fn node_of_nothing() -> Node {
    let mut node = accumulate();
    node.args.push(Json::list(&[]));
    node.immutable = true;
    node
}

/// Removes the id of the last task, which gets the id of the replaced one.
fn forget_id(node: &mut Node) {
    node.options.plain.remove("task_id");
    match &mut node.kind {
        NodeKind::Chain(steps) => steps.last_mut().map_or((), forget_id),
        NodeKind::Chord(chord) => forget_id(&mut chord.body),
        NodeKind::Task { .. } | NodeKind::Group(_) => {}
    }
}

fn nest(node: &mut Node, nesting: u32) {
    match &mut node.kind {
        NodeKind::Task { .. } => node.options.set("replaced_task_nesting", nesting),
        NodeKind::Chain(nodes) | NodeKind::Group(nodes) => {
            nodes.iter_mut().for_each(|node| nest(node, nesting))
        }
        NodeKind::Chord(chord) => {
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
        replacement(&message(), with.into_raw(), CanvasLimits::default(), 100).unwrap()
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
        let launch = replaced(Node::new(NodeKind::Group(vec![Node::task("a"), Node::task("b")])));
        assert_eq!((launch.calls.len(), launch.chords.len()), (2, 1));
        let body = launch.calls[0].chord.clone().unwrap();
        assert_eq!((body.task.as_str(), &body.options["task_id"]), ("celery.accumulate", &"me".into()));
        assert_eq!(body.options["chain"][1]["task"], "next");
        let launch = replaced(Node::new(NodeKind::Group(Vec::new())));
        assert_eq!((launch.calls[0].task.as_str(), launch.calls.len()), ("celery.accumulate", 1));
    }

    #[test]
    fn what_cannot_take_the_place_is_refused() {
        let refused = |node: Node| {
            let refused = replacement(&message(), node.into_raw(), CanvasLimits::default(), 100);
            refused.unwrap_err().to_string()
        };
        let mut large = Node::task("large");
        large.args.push("x".repeat(100).into());
        let of_large = Node::task("a").then(large);
        assert!(refused(of_large).contains("the arguments of `large` take 104 bytes, the limit is 100"));
        let mut taken = Node::task("a");
        taken.options.set("task_id", "the next");
        let mut message = message();
        message.workflow.as_mut().unwrap().chain[1].options.insert("task_id", "the next");
        let taken = taken.then(Node::task("b")).into_raw();
        let twice = replacement(&message, taken, CanvasLimits::default(), 100);
        assert!(twice.unwrap_err().to_string().contains("`the next` is given twice"));
        assert!(refused(Node::new(NodeKind::Chain(Vec::new()))).contains("empty chain"));
        let mut part = Node::task("a");
        part.options.chord = Some(Arc::new(Node::task("b")));
        assert!(refused(part).contains("part of a chord"));
    }
}
