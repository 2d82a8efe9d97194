//! The consequences of a task's end for the tasks that come after it. It is pure: it takes a message and its end and
//! answers with calls and losses.
//!
//! A success calls the callbacks, the next step of the chain and, once the other members of a chord are over, the
//! chord's body. A failure calls the errbacks and fails everything that was to come: each later step gets a record of
//! the same error, so that nobody waits for it in vain, and a chord counts the failure. Tasks that are retried,
//! postponed, continued or ignored have no end plan.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;

use super::SignatureError;
use super::check::check_unique_among;
use super::errbacks::{self, Errbacks};
use super::freeze::{Freezer, Ids};
use super::launch::{Launch, result_id};
use super::limits::{CanvasLimits, inherited, list_bytes};
use super::node::{Node, NodeKind, NodeOptions};
use super::repr;
use crate::task::{Child, Json, Message, RawSignature, State, TaskId, TaskResult};

/// The longest text of an error that other tasks are told, and the longest sum of all texts of an error, in bytes.
const LONGEST_ERROR: usize = 16 << 10;
const LONGEST_ERRORS: usize = 64 << 10;
/// And what all of them are told of it together: the more they are, the less each of them is told, but never less than this.
const TOLD_TO_ALL: usize = 4 << 20;
const LEAST_TOLD: usize = 500;

/// The consequences of a task's end.
#[derive(Debug, Default)]
pub(crate) struct EndPlan {
    /// The messages to send.
    pub(crate) launch: Launch,
    /// The tasks that will never run.
    pub(crate) lost: Vec<LostTask>,
    /// The parts of chords that are over now.
    pub(crate) parts: Vec<Part>,
}

/// A task that will never run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LostTask {
    pub(crate) id: TaskId,
    pub(crate) task: String,
    pub(crate) cause: Arc<Cause>,
    /// The errbacks that were called because the task is lost. Its record lists them as its children.
    pub(crate) children: Vec<Child>,
}

/// A part of a chord that is over.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    pub(crate) group: String,
    pub(crate) id: TaskId,
    pub(crate) task: String,
    pub(crate) index: Option<u32>,
    pub(crate) state: State,
    pub(crate) value: Result<Json, Arc<Cause>>,
    /// The body that is called when all parts are over.
    pub(crate) body: RawSignature,
}

/// The cause of a failure, as other tasks are told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cause {
    pub(crate) state: State,
    pub(crate) errors: Vec<String>,
    pub(crate) error_type: Option<String>,
    pub(crate) error_module: Option<String>,
    /// The arguments of the error's class, if they are others than the errors.
    pub(crate) error_arguments: Option<Json>,
    pub(crate) traceback: Option<String>,
    /// The fingerprints of the errbacks that were called when a chord failed with this cause. The chord around it fails
    /// with the same cause and does not call these again.
    pub(crate) called: Vec<String>,
}

impl Cause {
    /// Makes the cause from the record of a task. Long texts are cut, because many other records get a copy.
    pub(crate) fn of(record: &TaskResult) -> Self {
        let cause = Self {
            // What never ran was not rejected: it failed with what was.
            state: if record.state == State::Revoked { State::Revoked } else { State::Failure },
            errors: record.errors.clone(),
            error_type: record.error_type.clone(),
            error_module: record.error_module.clone(),
            error_arguments: record.error_arguments.clone(),
            traceback: record.traceback.clone(),
            called: Vec::new(),
        };
        cause.shortened(LONGEST_ERROR, LONGEST_ERRORS)
    }

    /// With so much of each of its texts, and of all its errors.
    fn shortened(&self, each: usize, all: usize) -> Self {
        let cut = |text: &String| repr::shortened(text.clone(), each);
        let mut left = all;
        let errors = self.errors.iter().take_while(|error| {
            let is_room = left > 0;
            left = left.saturating_sub(error.len().min(each));
            is_room
        });
        let errors = errors.map(cut).collect();
        // A list that is cut would be none. Without it, the errors stand in its place.
        let error_arguments = self.error_arguments.clone().filter(|list| list.text().len() <= each);
        Self { errors, error_arguments, traceback: self.traceback.as_ref().map(cut), ..self.clone() }
    }

    fn chord(text: String) -> Self {
        Self {
            state: State::Failure,
            errors: vec![text],
            error_type: Some("ChordError".to_owned()),
            error_module: Some("celery.exceptions".to_owned()),
            error_arguments: None,
            traceback: None,
            called: Vec::new(),
        }
    }

    /// Reads the cause from the document of an error. It is `None` if the document has no type.
    fn of_document(error: &Value) -> Option<Self> {
        let field = |key: &str| error.get(key).and_then(Value::as_str).map(str::to_owned);
        let arguments = arguments(error);
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let are_others = !arguments.iter().all(Value::is_string);
        Some(Self {
            state: State::Failure,
            errors: arguments.iter().map(text).collect(),
            error_type: Some(field("exc_type")?),
            error_module: field("exc_module"),
            error_arguments: are_others.then(|| arguments.to_vec().into()),
            traceback: None,
            called: Vec::new(),
        })
    }
}

/// Finds the consequences of a task's end. After a failure, a part that is no signature is left out and logged.
///
/// # Errors
/// After a success, a part cannot be sent: it is no signature, its id is not usable, or the messages are more than
/// `limits` allow.
pub(crate) fn after(
    message: &Message,
    record: &TaskResult,
    limits: CanvasLimits,
) -> Result<EndPlan, SignatureError> {
    let launch = || Launch::within(limits).each_with(inherited(message));
    let mut end_plan = EndPlan { launch: launch(), ..EndPlan::default() };
    let Some(workflow) = message.workflow.as_deref() else { return Ok(end_plan) };
    let mut freezer = Freezer { ids: Ids::of(message, "ended"), reply_to: workflow.reply_to.clone() };
    let cause = Arc::new(Cause::of(record));
    let value = match record.state {
        State::Success => {
            // The callbacks go first and the next step of the chain after them, as in Celery's worker.
            let nodes = |raw: &[RawSignature]| raw.iter().map(readable).collect::<Result<Vec<_>, _>>();
            let callbacks = nodes(&workflow.callbacks)?;
            let mut chain = nodes(&workflow.chain)?;
            // Of two tasks of one id a broker that knows all tasks takes the first one only, and what waits for both would
            // wait for ever.
            check_unique_among([message.id.as_str()], callbacks.iter().chain(&chain))?;
            let value: Json = record.result.as_deref().unwrap_or("null").parse().map_err(|error| {
                SignatureError(format!("the value of {} is no JSON: {error}", message.id))
            })?;
            end_plan.call_back(callbacks, &value, &mut freezer);
            // The chain is in reverse order, so its last signature is the next step.
            if let Some(next) = chain.pop() {
                end_plan.launch.add(next, vec![value.clone()], Some(chain), &mut freezer);
            }
            end_plan.launch.check()?;
            Ok(value)
        }
        State::Failure | State::Revoked | State::Rejected => {
            // Each one for itself: what can be told is told.
            let left_out = |error: &SignatureError| {
                tracing::error!(id = %message.id, %error, "a part of a workflow that fails is left out");
            };
            let nodes = |raw: &[RawSignature]| -> Vec<Node> {
                raw.iter().filter_map(|raw| lost(raw).inspect_err(left_out).ok()).collect()
            };
            // As in Celery, errbacks are not called for a task that was revoked, has expired, or is known to nobody.
            if record.state == State::Failure {
                let errbacks = workflow.errbacks.iter();
                let errbacks = errbacks.map(|raw| callable(raw, []).inspect_err(left_out));
                let errbacks = errbacks.filter_map(Result::ok).collect();
                end_plan.call_errbacks(errbacks, message.id.as_str(), &mut freezer);
                if let Err(error) = end_plan.launch.check() {
                    tracing::error!(id = %message.id, %error, "the errbacks of a task cannot be called");
                    end_plan.launch = launch();
                }
            }
            // Every later step fails with the same error, so that a caller who waits for the last one learns of it.
            for step in nodes(&workflow.chain).into_iter().rev() {
                end_plan.lose(step, &cause);
            }
            Err(Arc::clone(&cause))
        }
        _ => return Ok(end_plan),
    };
    // A member of a chord's header counts for the chord, whether it succeeded or failed.
    if let (Some(body), Some(group)) = (&workflow.chord, &workflow.group) {
        let state = if record.state == State::Success { State::Success } else { cause.state };
        end_plan.parts.push(Part {
            group: group.clone(),
            id: message.id.clone(),
            task: message.task.clone(),
            index: workflow.group_index,
            state,
            value,
            body: body.clone(),
        });
    }
    end_plan.tell_less();
    Ok(end_plan)
}

/// Reads a signature and checks that it can be sent.
fn readable(raw: &RawSignature) -> Result<Node, SignatureError> {
    let node = Node::from_raw(raw.clone())?;
    node.check_ids()?;
    Ok(node)
}

/// The same, of one that is called by itself after the tasks of these ids.
fn callable<'a>(
    raw: &RawSignature,
    earlier: impl IntoIterator<Item = &'a str>,
) -> Result<Node, SignatureError> {
    let node = readable(raw)?;
    check_unique_among(earlier, [&node])?;
    Ok(node)
}

/// A signature that will never be sent.
fn lost(raw: &RawSignature) -> Result<Node, SignatureError> {
    let node = Node::of_the_lost(raw.clone())?;
    node.check_ids()?;
    Ok(node)
}

/// What follows when all members of a chord's header are over: the body with their results, in order, or its failure.
/// `parts` are id, state and value of each.
pub(crate) fn plan_chord_end(
    group: &str,
    body: RawSignature,
    reply_to: Option<&str>,
    parts: Vec<(TaskId, State, Json)>,
    limits: CanvasLimits,
) -> EndPlan {
    let mut freezer = Freezer { ids: Ids::After(group.to_owned(), 0), reply_to: reply_to.map(str::to_owned) };
    // The first member that did not succeed is the one that the error of the body names.
    let failed = parts.iter().find(|(_, state, _)| *state != State::Success);
    let original = failed.and_then(|(.., error)| Cause::of_document(error));
    let failed = failed.map(|(id, _, error)| format!("Dependency {id} raised {}", told(error)));
    // Errbacks that an inner chord has called for the same failure are not called again.
    let called = parts.iter().filter(|(_, state, _)| *state != State::Success);
    let called: HashSet<String> = called.flat_map(|(.., error)| errbacks::called(error)).collect();
    let (body, failed) = match callable(&body, parts.iter().map(|(id, ..)| id.as_str())) {
        Ok(node) => (node, failed),
        // Only the body's own task can be told, if it has one.
        Err(error) => {
            let node = lost(&body).unwrap_or_else(|_| {
                let mut node = Node::task(body.task);
                node.options = NodeOptions { plain: body.options, ..NodeOptions::default() };
                node
            });
            (node, Some(format!("the body of the chord cannot be sent: {error}")))
        }
    };
    let mut end_plan = EndPlan { launch: Launch::within(limits), ..EndPlan::default() };
    let failed = match failed {
        Some(text) => text,
        None => {
            let results: Vec<Json> = parts.into_iter().map(|(.., value)| value).collect();
            let sent = limits.check_bytes(1, list_bytes(&results)).and_then(|()| {
                end_plan.launch.add(body.clone(), vec![Json::list(&results)], None, &mut freezer);
                end_plan.launch.check()
            });
            match sent {
                Ok(()) => return end_plan,
                Err(error) => format!("the body of the chord cannot be sent: {error}"),
            }
        }
    };
    // Calls of the body that did not fit are thrown away here; what is sent is its failure.
    let mut end_plan = EndPlan { launch: Launch::within(limits), ..EndPlan::default() };
    end_plan.fail_body(body, Cause::chord(failed), original, &called, &mut freezer);
    end_plan.tell_less();
    end_plan
}

/// Shows the document of an error in the way in which Python's `repr` shows the exception.
fn told(error: &Value) -> String {
    let arguments: Vec<_> = arguments(error).iter().map(repr::of).collect();
    let class = error.get("exc_type").and_then(Value::as_str).unwrap_or("Exception");
    repr::shortened(format!("{class}({})", arguments.join(", ")), LONGEST_ERROR)
}

/// The arguments of the exception, from the document of an error.
fn arguments(error: &Value) -> &[Value] {
    match error.get("exc_message") {
        Some(Value::Array(arguments)) => arguments,
        Some(single) => std::slice::from_ref(single),
        None => &[],
    }
}

impl EndPlan {
    /// Many that are lost with one error have a copy each: of a shorter text then.
    fn tell_less(&mut self) {
        let each = TOLD_TO_ALL / self.lost.len().max(1);
        if each >= LONGEST_ERRORS + LONGEST_ERROR {
            return;
        }
        let each = (each / 2).clamp(LEAST_TOLD, LONGEST_ERROR);
        let mut told: Vec<(Arc<Cause>, Arc<Cause>)> = Vec::new();
        let of_parts = self.parts.iter_mut().filter_map(|part| part.value.as_mut().err());
        for cause in self.lost.iter_mut().map(|lost| &mut lost.cause).chain(of_parts) {
            let known =
                told.iter().find(|(long, _)| Arc::ptr_eq(long, cause)).map(|(_, short)| Arc::clone(short));
            *cause = known.unwrap_or_else(|| {
                let short = Arc::new(cause.shortened(each, each));
                told.push((Arc::clone(cause), Arc::clone(&short)));
                short
            });
        }
    }

    /// Calls what is linked to a success, as Celery does: groups by themselves, the others, if they are several, as a group.
    fn call_back(&mut self, nodes: Vec<Node>, value: &Json, freezer: &mut Freezer) {
        let (mut nodes, mut others): (Vec<_>, Vec<_>) = match nodes.len() {
            0 | 1 => (nodes, Vec::new()),
            _ => nodes.into_iter().partition(|node| matches!(node.kind, NodeKind::Group(_))),
        };
        if others.len() > 1 {
            others = vec![Node::new(NodeKind::Group(others))];
        }
        nodes.append(&mut others);
        for node in nodes {
            self.launch.add(node, vec![value.clone()], None, freezer);
        }
    }

    /// Calls the errbacks of a failure, always as one group, as Celery does. Answers with what was sent.
    fn call_errbacks(&mut self, nodes: Vec<Node>, failed: &str, freezer: &mut Freezer) -> Vec<Child> {
        if nodes.is_empty() {
            return Vec::new();
        }
        let before = self.launch.children.len();
        let failed = Json::from(failed);
        self.launch.add(Node::new(NodeKind::Group(nodes)), vec![failed], None, freezer);
        self.launch.children[before..].to_vec()
    }

    /// Fails the body of a chord, because it cannot start. `original` is the error of the header's member.
    fn fail_body(
        &mut self,
        body: Node,
        cause: Cause,
        original: Option<Cause>,
        called: &HashSet<String>,
        freezer: &mut Freezer,
    ) {
        let mut body = body;
        // Each member of a group calls those of the group.
        if let Err(error) = body.check_copies(self.launch.limits()) {
            tracing::error!(%error, "the errbacks of a chord cannot be called");
            body.options.link_error.clear();
        }
        let Node { kind: NodeKind::Group(members), mut options, .. } = body else {
            // A body that is no group calls its errbacks once, and everything in it is lost.
            let errbacks = Errbacks::of(&body).without(called);
            let cause = Arc::new(Cause { called: errbacks.known(called), ..cause });
            let id = result_id(&body).to_owned();
            let children = self.call_errbacks(errbacks.nodes, &id, freezer);
            self.lose(body, &cause);
            self.note_children(&id, &children);
            return;
        };
        // As in Celery 5.7, each member of the group calls its own errbacks and those of the group. It fails with the
        // error of the header's member, and so does the group itself.
        let of_group = Errbacks::from(std::mem::take(&mut options.link_error));
        let of_members: Vec<_> =
            members.iter().map(|member| Errbacks::of(member).and(&of_group).without(called)).collect();
        let mut known: Vec<String> = of_members.iter().flat_map(|errbacks| errbacks.known(called)).collect();
        known.sort_unstable();
        known.dedup();
        let original = Arc::new(Cause { called: known, ..original.unwrap_or_else(|| cause.clone()) });
        for (member, errbacks) in members.into_iter().zip(of_members) {
            let id = result_id(&member).to_owned();
            let children = self.call_errbacks(errbacks.nodes, &id, freezer);
            self.lose(member, &original);
            self.note_children(&id, &children);
        }
        if let Some(id) = options.text("task_id").map(TaskId::from) {
            let (task, children) = ("celery.group".to_owned(), Vec::new());
            self.lost.push(LostTask { id, task, cause: original, children });
        }
        // The steps after the group fail with the error of the chord.
        let cause = Arc::new(cause);
        options.chain.into_iter().flatten().rev().for_each(|node| self.lose(node, &cause));
    }

    /// Notes the errbacks that were called because this task is lost.
    fn note_children(&mut self, id: &str, children: &[Child]) {
        if let Some(lost) = self.lost.iter_mut().find(|lost| lost.id.as_str() == id) {
            lost.children = children.to_vec();
        }
    }

    /// Notes that nothing of this node will run, nor anything that comes after it.
    fn lose(&mut self, node: Node, cause: &Arc<Cause>) {
        let name = node.name().to_owned();
        let Node { kind, options, .. } = node;
        match kind {
            NodeKind::Task { .. } => {
                let Some(id) = options.text("task_id").map(TaskId::from) else { return };
                if let (Some(body), Some(group)) = (options.chord.clone(), options.text("group_id")) {
                    let index = options.plain.get("group_index").and_then(|index| index.as_u64());
                    self.parts.push(Part {
                        group: group.to_owned(),
                        id: id.clone(),
                        task: name.clone(),
                        index: index.and_then(|index| u32::try_from(index).ok()),
                        state: cause.state,
                        value: Err(Arc::clone(cause)),
                        body: Arc::unwrap_or_clone(body).into_raw(),
                    });
                }
                if options.plain.get("ignore_result").and_then(|said| said.as_bool()) != Some(true) {
                    self.lost.push(LostTask {
                        id,
                        task: name,
                        cause: Arc::clone(cause),
                        children: Vec::new(),
                    });
                }
            }
            NodeKind::Chain(nodes) | NodeKind::Group(nodes) => {
                nodes.into_iter().for_each(|node| self.lose(node, cause));
            }
            NodeKind::Chord(chord) => {
                // The members of this chord's own header fail together with its body, so nobody has to count them.
                self.lose(without_chord(chord.header), cause);
                self.lose(chord.body, cause);
            }
        }
        options.chain.into_iter().flatten().rev().for_each(|node| self.lose(node, cause));
    }
}

/// Removes the chord from all tasks of a header, so that none of them counts for it.
fn without_chord(mut node: Node) -> Node {
    node.options.chord = None;
    match &mut node.kind {
        NodeKind::Task { .. } => {}
        NodeKind::Chain(nodes) | NodeKind::Group(nodes) => {
            *nodes = std::mem::take(nodes).into_iter().map(without_chord).collect();
        }
        NodeKind::Chord(chord) => {
            let body = std::mem::replace(&mut chord.body, Node::task(""));
            chord.body = without_chord(body);
        }
    }
    node
}

#[cfg(test)]
mod tests;
