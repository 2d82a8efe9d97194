//! What follows from the end of a task for those who come after it. Pure: a message and its end in, calls and losses out.
//!
//! A success calls what is linked, the next step of the chain, and, with the other members of a chord, its body. A failure
//! calls the errbacks, and fails all that was to come: each later step gets a record of the same error, so that nobody
//! waits for it in vain, and a chord hears of it. Retries, postponed, continued and ignored tasks have no aftermath.

use serde_json::Value;

use super::SignatureError;
use super::freeze::{Freezer, Ids};
use super::launch::{Launch, result_id};
use super::node::{Kind, Node, Options};
use crate::task::{Message, RawSignature, State, TaskId, TaskResult};

/// What follows.
#[derive(Debug, Default)]
pub(crate) struct Aftermath {
    /// What is sent.
    pub(crate) launch: Launch,
    /// Tasks that will never run: id and name.
    pub(crate) lost: Vec<(TaskId, String)>,
    /// Parts of chords that are over now.
    pub(crate) parts: Vec<Part>,
}

/// A part of a chord that is over.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    pub(crate) group: String,
    pub(crate) id: TaskId,
    pub(crate) task: String,
    pub(crate) index: Option<u32>,
    pub(crate) state: State,
    /// `None`: it failed, with the cause that the aftermath has.
    pub(crate) value: Option<Value>,
    /// What is called when all are.
    pub(crate) body: RawSignature,
}

/// Why a task failed, as others are told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cause {
    pub(crate) state: State,
    pub(crate) errors: Vec<String>,
    pub(crate) error_type: Option<String>,
    pub(crate) error_module: Option<String>,
    pub(crate) traceback: Option<String>,
}

impl Cause {
    pub(crate) fn of(record: &TaskResult) -> Self {
        Self {
            // What never ran was not rejected: it failed with what was.
            state: if record.state == State::Revoked { State::Revoked } else { State::Failure },
            errors: record.errors.clone(),
            error_type: record.error_type.clone(),
            error_module: record.error_module.clone(),
            traceback: record.traceback.clone(),
        }
    }

    /// Of no failure.
    pub(crate) fn none() -> Self {
        Self {
            state: State::Success,
            errors: Vec::new(),
            error_type: None,
            error_module: None,
            traceback: None,
        }
    }

    fn chord(text: String) -> Self {
        Self {
            state: State::Failure,
            errors: vec![text],
            error_type: Some("ChordError".to_owned()),
            error_module: Some("celery.exceptions".to_owned()),
            traceback: None,
        }
    }
}

/// What follows from the end of a task, if anything.
///
/// # Errors
/// The message carries something that is no signature.
pub(crate) fn after(message: &Message, record: &TaskResult) -> Result<Aftermath, SignatureError> {
    let mut aftermath = Aftermath::default();
    let Some(workflow) = message.workflow.as_deref() else { return Ok(aftermath) };
    let mut freezer = Freezer { ids: Ids::of(message, "ended"), reply_to: workflow.reply_to.clone() };
    let nodes = |raw: &[RawSignature]| raw.iter().cloned().map(Node::from_raw).collect::<Result<Vec<_>, _>>();
    let mut chain = nodes(&workflow.chain)?;
    let cause = Cause::of(record);
    let value = match record.state {
        State::Success => {
            let value: Value =
                serde_json::from_str(record.result.as_deref().unwrap_or("null")).map_err(|error| {
                    SignatureError(format!("the value of {} is no JSON: {error}", message.id))
                })?;
            aftermath.call_all(nodes(&workflow.callbacks)?, &value, &mut freezer);
            if let Some(next) = chain.pop() {
                aftermath.launch.add(next, vec![value.clone()], Some(chain), &mut freezer);
            }
            Some(value)
        }
        State::Failure | State::Revoked | State::Rejected => {
            if record.state == State::Failure {
                let id = Value::from(message.id.as_str());
                aftermath.call_all(nodes(&workflow.errbacks)?, &id, &mut freezer);
            }
            for step in chain.into_iter().rev() {
                aftermath.lose(step, &cause);
            }
            None
        }
        _ => return Ok(aftermath),
    };
    if let (Some(body), Some(group)) = (&workflow.chord, &workflow.group) {
        let state = if record.state == State::Success { State::Success } else { cause.state };
        aftermath.parts.push(Part {
            group: group.clone(),
            id: message.id.clone(),
            task: message.task.clone(),
            index: workflow.group_index,
            state,
            value,
            body: body.clone(),
        });
    }
    Ok(aftermath)
}

/// What follows when all members of a chord's header are over: the body with their results, in order, or its failure.
/// `parts` are id, state and value of each.
pub(crate) fn after_chord(
    group: &str,
    body: RawSignature,
    reply_to: Option<&str>,
    parts: Vec<(TaskId, State, Value)>,
) -> (Aftermath, Option<Cause>) {
    let mut aftermath = Aftermath::default();
    let mut freezer = Freezer { ids: Ids::After(group.to_owned(), 0), reply_to: reply_to.map(str::to_owned) };
    let failed = parts.iter().find(|(_, state, _)| *state != State::Success);
    let failed = failed.map(|(id, _, error)| format!("Dependency {id} raised {}", told(error)));
    let (body, failed) = match Node::from_raw(body.clone()) {
        Ok(node) => (node, failed),
        // Only its own task can be told, if it has one.
        Err(error) => {
            let mut node = Node::task(body.task);
            node.options = Options { plain: body.options, ..Options::default() };
            (node, Some(format!("the body of the chord cannot be sent: {error}")))
        }
    };
    match failed {
        None => {
            let results = parts.into_iter().map(|(.., value)| value).collect();
            aftermath.launch.add(body, vec![Value::Array(results)], None, &mut freezer);
            (aftermath, None)
        }
        Some(text) => {
            let cause = Cause::chord(text);
            let id = Value::from(result_id(&body));
            aftermath.call_all(errbacks(&body), &id, &mut freezer);
            aftermath.lose(body, &cause);
            (aftermath, Some(cause))
        }
    }
}

/// An error's document as Python's `repr` shows the exception.
fn told(error: &Value) -> String {
    let arguments = match error.get("exc_message") {
        Some(Value::Array(arguments)) => {
            arguments.iter().map(Value::to_string).collect::<Vec<_>>().join(", ")
        }
        Some(other) => other.to_string(),
        None => String::new(),
    };
    format!("{}({arguments})", error.get("exc_type").and_then(Value::as_str).unwrap_or("Exception"))
}

/// What is called when a body cannot start: what is linked to it, or to the first of its parts.
fn errbacks(body: &Node) -> Vec<Node> {
    let mut all = body.options.link_error.clone();
    let inner = match &body.kind {
        Kind::Task { .. } => Vec::new(),
        Kind::Chain(steps) => steps.first().map(errbacks).unwrap_or_default(),
        Kind::Group(members) => members.iter().flat_map(errbacks).collect(),
        Kind::Chord(chord) => errbacks(&chord.body),
    };
    for errback in inner {
        if !all.contains(&errback) {
            all.push(errback);
        }
    }
    all
}

impl Aftermath {
    /// Calls all of these, with this argument in front of their own.
    fn call_all(&mut self, mut nodes: Vec<Node>, argument: &Value, freezer: &mut Freezer) {
        if nodes.len() > 1 && nodes.iter().all(|node| matches!(node.kind, Kind::Task { .. })) {
            nodes = vec![Node::new(Kind::Group(nodes))];
        }
        for node in nodes {
            self.launch.add(node, vec![argument.clone()], None, freezer);
        }
    }

    /// None of this will run.
    fn lose(&mut self, node: Node, cause: &Cause) {
        let name = node.name().to_owned();
        let Node { kind, options, .. } = node;
        match kind {
            Kind::Task { .. } => {
                let Some(id) = options.text("task_id").map(TaskId::from) else { return };
                if let (Some(body), Some(group)) = (options.chord.clone(), options.text("group_id")) {
                    let index = options.plain.get("group_index").and_then(Value::as_u64);
                    self.parts.push(Part {
                        group: group.to_owned(),
                        id: id.clone(),
                        task: name.clone(),
                        index: index.and_then(|index| u32::try_from(index).ok()),
                        state: cause.state,
                        value: None,
                        body: body.into_raw(),
                    });
                }
                if options.plain.get("ignore_result") != Some(&Value::Bool(true)) {
                    self.lost.push((id, name));
                }
            }
            Kind::Chain(nodes) | Kind::Group(nodes) => {
                nodes.into_iter().for_each(|node| self.lose(node, cause));
            }
            Kind::Chord(chord) => {
                // Its own header fails with its body: there is nobody to count it.
                self.lose(without_chord(chord.header), cause);
                self.lose(chord.body, cause);
            }
        }
        options.chain.into_iter().flatten().rev().for_each(|node| self.lose(node, cause));
    }
}

/// A header that counts for nothing.
fn without_chord(mut node: Node) -> Node {
    node.options.chord = None;
    match &mut node.kind {
        Kind::Task { .. } => {}
        Kind::Chain(nodes) | Kind::Group(nodes) => {
            *nodes = std::mem::take(nodes).into_iter().map(without_chord).collect();
        }
        Kind::Chord(chord) => {
            let body = std::mem::replace(&mut chord.body, Node::task(""));
            chord.body = without_chord(body);
        }
    }
    node
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::canvas::freeze::Place;
    use crate::task::{Context, Judge, TaskError, Verdict, Workflow};

    fn raw(name: &str, id: &str) -> RawSignature {
        let mut node = Node::task(name);
        if !id.is_empty() {
            node.options.set("task_id", id);
        }
        node.into_raw()
    }

    fn message(workflow: Workflow) -> Message {
        let mut message = Context::detached().message().clone();
        message.id = "me".into();
        message.workflow = Some(Box::new(workflow));
        message
    }

    fn ended(workflow: Workflow, outcome: Result<&str, TaskError>) -> Aftermath {
        let message = message(workflow);
        let judge = Judge::unstarted(&message, crate::core::Timestamp::ZERO);
        let verdict = judge.judge(outcome.map(str::to_owned).map_err(TaskError::into_ending));
        match verdict {
            Verdict::Over(record) | Verdict::Dead { record, .. } => after(&message, &record).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn workflow() -> Workflow {
        Workflow {
            callbacks: vec![raw("callback", "")],
            errbacks: vec![raw("errback", "")],
            chain: vec![raw("last", "l"), raw("next", "n")],
            ..Workflow::default()
        }
    }

    fn calls(aftermath: &Aftermath) -> Vec<(&str, &[Value])> {
        aftermath.launch.calls.iter().map(|call| (call.task.as_str(), &call.args[..])).collect()
    }

    #[test]
    fn a_success_calls_what_is_linked_and_what_is_next() {
        let aftermath = ended(workflow(), Ok("[7]"));
        let value = [serde_json::json!([7])];
        assert_eq!(calls(&aftermath), [("callback", &value[..]), ("next", &value[..])]);
        let rest: Vec<_> = aftermath.launch.calls[1].chain.iter().map(|step| step.task.as_str()).collect();
        assert_eq!(rest, ["last"]);
        assert!(aftermath.lost.is_empty() && aftermath.parts.is_empty());
        assert_eq!(aftermath.launch.children.len(), 2);
    }

    #[test]
    fn a_failure_calls_the_errbacks_and_fails_the_rest() {
        let aftermath = ended(workflow(), Err(TaskError::permanent("broken")));
        assert_eq!(calls(&aftermath), [("errback", &[Value::from("me")][..])]);
        let lost: Vec<_> = aftermath.lost.iter().map(|(id, task)| (id.as_str(), task.as_str())).collect();
        assert_eq!(lost, [("n", "next"), ("l", "last")]);
    }

    #[test]
    fn a_rejection_fails_the_rest_and_an_ignored_task_ends_in_silence() {
        let rejected = ended(workflow(), Err(TaskError::reject("foreign")));
        assert_eq!((calls(&rejected).len(), rejected.lost.len()), (0, 2));
        let ignored = ended(workflow(), Err(TaskError::ignore()));
        assert_eq!((calls(&ignored).len(), ignored.lost.len(), ignored.parts.len()), (0, 0, 0));
    }

    #[test]
    fn a_member_is_a_part_however_it_ends() {
        let member = || Workflow {
            group: Some("g".into()),
            group_index: Some(2),
            chord: Some(raw("body", "b")),
            ..Workflow::default()
        };
        let part = &ended(member(), Ok("5")).parts[0];
        assert_eq!((part.state, &part.value, part.index), (State::Success, &Some(5.into()), Some(2)));
        let part = &ended(member(), Err(TaskError::permanent("broken"))).parts[0];
        assert_eq!((part.state, &part.value), (State::Failure, &None));
        assert!(ended(member(), Err(TaskError::ignore())).parts.is_empty());
    }

    #[test]
    fn the_last_step_of_a_lost_chain_is_a_part() {
        let mut last = Node::task("last");
        last.options.set("task_id", "l");
        last.options.set("group_id", "g");
        last.options.set("group_index", 1);
        last.options.chord = Some(Box::new(Node::task("body")));
        let chain = vec![last.into_raw()];
        let aftermath = ended(Workflow { chain, ..Workflow::default() }, Err(TaskError::permanent("broken")));
        let [part] = &aftermath.parts[..] else { panic!("{aftermath:?}") };
        assert_eq!((part.id.as_str(), part.group.as_str(), part.index), ("l", "g", Some(1)));
    }

    #[test]
    fn a_full_chord_calls_its_body_with_the_results_or_fails_it() {
        let part = |id: &str, state, value: Value| (TaskId::from(id), state, value);
        let body = || {
            let mut body = Node::task("body").then(Node::task("more"));
            body.link_error(&Node::task("errback"));
            let mut freezer = Freezer { ids: Ids::Fresh, reply_to: None };
            let promise = freezer.freeze(&mut body, Place::default());
            (body.into_raw(), promise)
        };
        let good = vec![part("a", State::Success, 1.into()), part("b", State::Success, 2.into())];
        let (aftermath, cause) = after_chord("g", body().0, None, good.clone());
        assert_eq!((calls(&aftermath), cause), (vec![("body", &[serde_json::json!([1, 2])][..])], None));

        let error =
            serde_json::json!({"exc_type": "KeyError", "exc_message": ["k", 1], "exc_module": "builtins"});
        let bad = vec![good[0].clone(), part("b", State::Failure, error)];
        let (body, promise) = body();
        let (aftermath, cause) = after_chord("g", body, None, bad);
        let cause = cause.unwrap();
        assert_eq!(cause.errors, ["Dependency b raised KeyError(\"k\", 1)"]);
        assert_eq!(calls(&aftermath), [("errback", &[Value::from(promise.id.as_str())][..])]);
        assert_eq!((aftermath.lost.len(), &aftermath.lost[1].0), (2, &promise.id));
    }

    #[test]
    fn a_body_that_is_no_signature_fails() {
        let broken = r#"{"task":"celery.chain","kwargs":{"tasks":[7]},"options":{"task_id":"b"}}"#;
        let (aftermath, cause) = after_chord("g", serde_json::from_str(broken).unwrap(), None, Vec::new());
        assert!(cause.unwrap().errors[0].contains("cannot be sent"));
        assert_eq!(aftermath.lost[0].0.as_str(), "b");
    }
}
