//! Adds a member to a chord while another member of that chord runs. Celery's `add_to_chord`.

use std::sync::Arc;

use super::SignatureError;
use super::freeze::{CanvasPosition, Freezer, Ids, Promise};
use super::launch::Launch;
use super::limits::CanvasLimits;
use super::node::{Node, NodeKind};
use super::replace::gathered;
use crate::task::Message;

/// The messages that an added member starts with.
pub(crate) struct Addition {
    /// The id of the chord's header.
    pub(crate) group: String,
    pub(crate) launch: Launch,
    pub(crate) promise: Promise,
}

/// Makes the messages that add `with` to the chord of `message`, as the `nth` member that this run adds. A second run
/// that adds the same member sends the same ids, so that the member counts once.
///
/// # Errors
/// The task is no member of a chord, or the added canvas is empty, or it is part of a chord or chain already.
pub(crate) fn addition(
    message: &Message,
    with: Node,
    nth: u32,
    limits: CanvasLimits,
) -> Result<Addition, SignatureError> {
    let workflow = message.workflow.as_deref();
    let chord = workflow.and_then(|workflow| Some((workflow.group.clone()?, workflow.chord.clone()?)));
    let Some((group, body)) = chord else {
        return Err(SignatureError(format!(
            "task {} is no member of a chord, so nothing can be added to that: enqueue it by itself",
            message.id
        )));
    };
    if with.options.chord.is_some() || with.options.chain.is_some() {
        return Err(SignatureError(
            "what is added to a chord must not be part of a chord or chain already".to_owned(),
        ));
    }
    // A chord counts one result for each member, so a group is gathered into one list.
    let mut node = gathered(with);
    if matches!(&node.kind, NodeKind::Chain(steps) if steps.is_empty()) {
        return Err(SignatureError("an empty chain cannot be added to a chord".to_owned()));
    }
    // The ids are made from the added canvas too, so that different additions get different ids.
    let said = serde_json::to_string(&node.clone().into_raw()).unwrap_or_default();
    let index = workflow.and_then(|workflow| workflow.group_index);
    let place = CanvasPosition {
        id: None,
        group_id: Some(group.clone()),
        group_index: index.and_then(|index| usize::try_from(index).ok()),
        chord: Some(Arc::new(Node::from_raw(body)?)),
    };
    let reply_to = workflow.and_then(|workflow| workflow.reply_to.clone());
    let mut freezer = Freezer { ids: Ids::of(message, &format!("added {nth} {said}")), reply_to };
    let _ = freezer.freeze(&mut node, place);
    node.check_unique()?;
    let mut launch = Launch::within(limits).each_with(message.headers.trace().inherited_bytes());
    let promise = launch.add(node, Vec::new(), None, &mut freezer);
    launch.check()?;
    Ok(Addition { group, launch, promise })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Context, Workflow};

    fn member() -> Message {
        let mut message = Context::detached().message().clone();
        message.workflow = Some(Box::new(Workflow {
            group: Some("g".into()),
            group_index: Some(3),
            chord: Some(Node::task("body").into_raw()),
            ..Workflow::default()
        }));
        message
    }

    fn addition(message: &Message, with: Node, nth: u32) -> Result<Addition, SignatureError> {
        super::addition(message, with, nth, CanvasLimits::default())
    }

    #[test]
    fn what_is_added_stands_beside_the_member() {
        let member = member();
        let added = addition(&member, Node::task("other"), 0).unwrap();
        let [call] = &added.launch.calls[..] else { panic!("{:?}", added.launch) };
        assert_eq!((added.group.as_str(), &call.options["group_id"]), ("g", &"g".into()));
        assert_eq!(call.options["group_index"], 3);
        assert_eq!(call.chord.as_ref().map(|body| body.task.as_str()), Some("body"));
        assert_eq!(call.options["task_id"], added.promise.id.as_str());
        let id = |node: Node, nth| addition(&member, node, nth).unwrap().promise.id;
        assert_eq!(id(Node::task("other"), 0), added.promise.id, "a second run adds the same");
        assert_ne!(id(Node::task("other"), 1), added.promise.id);
        assert_ne!(id(Node::task("another"), 0), added.promise.id);
    }

    #[test]
    fn of_a_chain_the_last_step_counts_and_of_a_group_the_list() {
        let member = member();
        let chain = addition(&member, Node::task("a").then(Node::task("b")), 0).unwrap();
        assert_eq!((chain.launch.calls.len(), &chain.launch.calls[0].chord), (1, &None));
        assert_eq!(chain.launch.calls[0].chain[0].options["chord"]["task"], "body");
        let group = Node::new(NodeKind::Group(vec![Node::task("a"), Node::task("b")]));
        let group = addition(&member, group, 0).unwrap();
        assert_eq!((group.launch.calls.len(), group.launch.chords.len()), (2, 1));
        let gathers = group.launch.calls[0].chord.clone().unwrap();
        assert_eq!((gathers.task.as_str(), &gathers.options["group_id"]), ("celery.accumulate", &"g".into()));
    }

    #[test]
    fn who_is_in_no_chord_adds_nothing() {
        let refused = |message: &Message, node| addition(message, node, 0).err().unwrap().to_string();
        let alone = Context::detached().message().clone();
        assert!(refused(&alone, Node::task("a")).contains("is no member of a chord"));
        let empty = Node::new(NodeKind::Chain(Vec::new()));
        assert!(refused(&member(), empty).contains("empty chain"));
    }
}
