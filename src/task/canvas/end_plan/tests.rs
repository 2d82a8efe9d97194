use serde_json::json;

use super::*;
use crate::task::canvas::freeze::CanvasPosition;
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

fn ended(workflow: Workflow, outcome: Result<&str, TaskError>) -> EndPlan {
    let message = message(workflow);
    let judge = Judge::unstarted(&message, crate::core::Timestamp::ZERO);
    let verdict = judge.judge(outcome.map(str::to_owned).map_err(TaskError::into_ending));
    match verdict {
        Verdict::Over(record) | Verdict::Dead { record, .. } => {
            after(&message, &record, CanvasLimits::default()).unwrap()
        }
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

fn calls(end_plan: &EndPlan) -> Vec<(&str, String)> {
    end_plan.launch.calls.iter().map(|call| (call.task.as_str(), call.positional())).collect()
}

fn called(name: &'static str, args: &Value) -> (&'static str, String) {
    (name, args.to_string())
}

fn chord_over<V: Into<Json>>(body: RawSignature, parts: Vec<(TaskId, State, V)>) -> EndPlan {
    let parts = parts.into_iter().map(|(id, state, value)| (id, state, value.into())).collect();
    plan_chord_end("g", body, None, parts, CanvasLimits::default())
}

#[test]
fn a_success_calls_what_is_linked_and_what_is_next() {
    let end_plan = ended(workflow(), Ok("[7]"));
    assert_eq!(calls(&end_plan), [called("callback", &json!([[7]])), called("next", &json!([[7]]))]);
    let rest: Vec<_> = end_plan.launch.calls[1].chain.iter().map(|step| step.task.as_str()).collect();
    assert_eq!(rest, ["last"]);
    assert!(end_plan.lost.is_empty() && end_plan.parts.is_empty());
    assert_eq!(end_plan.launch.children.len(), 2);
}

#[test]
fn a_result_goes_on_as_it_was_written() {
    let odd = r#"{"z": [1e400, 1000000000000000000000000000000], "a": 117.63331139400017, "b": "\ud83d"}"#;
    let end_plan = ended(workflow(), Ok(odd));
    let texts = end_plan.launch.calls.iter().map(|call| call.args[0].text().to_owned());
    assert_eq!(texts.collect::<Vec<_>>(), [odd, odd]);
    let parts = vec![(TaskId::from("a"), State::Success, odd.parse::<Json>().unwrap())];
    let end_plan = chord_over(raw("body", "b"), parts);
    assert_eq!(end_plan.launch.calls[0].args[0].text(), format!("[{odd}]"));
}

#[test]
fn a_failure_calls_the_errbacks_and_fails_the_rest() {
    let end_plan = ended(workflow(), Err(TaskError::permanent("broken")));
    assert_eq!(calls(&end_plan), [called("errback", &json!(["me"]))]);
    // A single errback is sent as a group too, as in Celery.
    assert!(matches!(&end_plan.launch.children[..], [Child::Group(_, members)] if members.len() == 1));
    let lost: Vec<_> = end_plan.lost.iter().map(|lost| (lost.id.as_str(), lost.task.as_str())).collect();
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
    assert_eq!((part.state, &part.value, part.index), (State::Success, &Ok(5.into()), Some(2)));
    let part = &ended(member(), Err(TaskError::permanent("broken"))).parts[0];
    assert_eq!((part.state, part.value.is_err()), (State::Failure, true));
    assert!(ended(member(), Err(TaskError::ignore())).parts.is_empty());
}

#[test]
fn the_last_step_of_a_lost_chain_is_a_part() {
    let mut last = Node::task("last");
    last.options.set("task_id", "l");
    last.options.set("group_id", "g");
    last.options.set("group_index", 1);
    last.options.chord = Some(Arc::new(Node::task("body")));
    let chain = vec![last.into_raw()];
    let end_plan = ended(Workflow { chain, ..Workflow::default() }, Err(TaskError::permanent("broken")));
    let [part] = &end_plan.parts[..] else { panic!("{end_plan:?}") };
    assert_eq!((part.id.as_str(), part.group.as_str(), part.index), ("l", "g", Some(1)));
}

#[test]
fn a_full_chord_calls_its_body_with_the_results_or_fails_it() {
    let part = |id: &str, state, value: Value| (TaskId::from(id), state, value);
    let body = || {
        let mut body = Node::task("body").then(Node::task("more"));
        body.link_error(&Node::task("errback"));
        let mut freezer = Freezer { ids: Ids::Fresh, reply_to: None };
        let promise = freezer.freeze(&mut body, CanvasPosition::default());
        (body.into_raw(), promise)
    };
    let good = vec![part("a", State::Success, 1.into()), part("b", State::Success, 2.into())];
    let end_plan = chord_over(body().0, good.clone());
    assert_eq!(calls(&end_plan), [called("body", &json!([[1, 2]]))]);
    assert!(end_plan.lost.is_empty());

    let error = json!({"exc_type": "KeyError", "exc_message": ["k", 1], "exc_module": "builtins"});
    let bad = vec![good[0].clone(), part("b", State::Failure, error)];
    let (body, promise) = body();
    let end_plan = chord_over(body, bad);
    assert_eq!(end_plan.lost[0].cause.errors, ["Dependency b raised KeyError('k', 1)"]);
    assert_eq!(calls(&end_plan), [called("errback", &json!([promise.id.as_str()]))]);
    let [_, last] = &end_plan.lost[..] else { panic!("{end_plan:?}") };
    assert_eq!((&last.id, &last.children), (&promise.id, &end_plan.launch.children));
}

#[test]
fn a_body_that_is_no_signature_fails() {
    let broken = r#"{"task":"celery.chain","kwargs":{"tasks":[7]},"options":{"task_id":"b"}}"#;
    let end_plan = chord_over(serde_json::from_str(broken).unwrap(), Vec::<(TaskId, State, Json)>::new());
    assert!(end_plan.lost[0].cause.errors[0].contains("cannot be sent"));
    assert_eq!(end_plan.lost[0].id.as_str(), "b");
}

/// Celery 5.7 does this in `_handle_group_chord_error`.
#[test]
fn each_member_of_a_body_that_is_a_group_calls_its_errbacks_and_fails_with_the_members_own_error() {
    let mut own = Node::task("a");
    own.options.link_error.push(Node::task("of a"));
    own.options.link_error.push(Node::task("of all"));
    let mut group = Node::new(NodeKind::Group(vec![own, Node::task("b").then(Node::task("c"))]));
    group.options.link_error.push(Node::task("of all"));
    let mut freezer = Freezer { ids: Ids::Fresh, reply_to: None };
    let promise = freezer.freeze(&mut group, CanvasPosition::default());
    let ids: Vec<_> = promise.tasks().into_iter().cloned().collect();
    let error = json!({"exc_type": "KeyError", "exc_message": ["k"], "exc_module": "builtins"});
    let end_plan = chord_over(group.into_raw(), vec![("m".into(), State::Failure, error)]);
    let [first, last] = [0, 1].map(|n| json!([ids[n].as_str()]));
    assert_eq!(calls(&end_plan), [called("of a", &first), called("of all", &first), called("of all", &last)]);
    assert!(end_plan.lost.iter().all(|lost| lost.cause.error_type.as_deref() == Some("KeyError")));
    let lost: HashSet<_> = end_plan.lost.iter().map(|lost| &lost.id).collect();
    assert!(ids.iter().chain([&promise.id]).all(|id| lost.contains(id)), "{:?}", end_plan.lost);
    assert_eq!(end_plan.lost.len(), 4);
}

/// The stored part of the outer chord says which errbacks were called for the inner one.
#[test]
fn an_errback_is_called_once_for_a_failure_of_two_chords() {
    let header = || Node::new(NodeKind::Group(vec![Node::task("a"), Node::task("b")]));
    let inner = Node::chord(header(), Node::task("inner"));
    let mut outer = Node::chord(Node::new(NodeKind::Group(vec![inner])), Node::task("outer"));
    outer.link_error(&Node::task("errback"));
    let mut launch = Launch::default();
    let mut freezer = Freezer { ids: Ids::Fresh, reply_to: Some("r".into()) };
    launch.add(outer, Vec::new(), None, &mut freezer);
    let body = RawSignature::clone(launch.calls[0].chord.as_ref().unwrap());
    let error = json!({"exc_type": "KeyError", "exc_message": ["k"]});
    let inner = chord_over(body, vec![("a".into(), State::Failure, error)]);
    assert_eq!(calls(&inner).len(), 1);
    let [part] = &inner.parts[..] else { panic!("{inner:?}") };
    let cause = part.value.as_ref().unwrap_err();
    let mut error = json!({"exc_type": "ChordError", "exc_message": cause.errors});
    errbacks::note_called(&mut error, &cause.called);
    let outer = chord_over(part.body.clone(), vec![(part.id.clone(), State::Failure, error.clone())]);
    assert_eq!((calls(&outer), outer.lost.len()), (Vec::new(), 1));
    // An outer chord that fails by itself calls the errback.
    let error = json!({"exc_type": "KeyError", "exc_message": ["k"]});
    assert_eq!(
        calls(&chord_over(part.body.clone(), vec![(part.id.clone(), State::Failure, error)])).len(),
        1
    );
}

#[test]
fn what_cannot_be_sent_fails_and_what_can_be_told_is_told() {
    let long = "x".repeat(300);
    let workflow = || Workflow { chain: vec![raw("last", "l"), raw("next", &long)], ..workflow() };
    let message = message(workflow());
    let judge = Judge::unstarted(&message, crate::core::Timestamp::ZERO);
    let Verdict::Over(mut record) = judge.judge(Ok("7".into())) else { panic!() };
    let refused = after(&message, &record, CanvasLimits::default()).unwrap_err().to_string();
    assert!(refused.contains("the task id of `next` has 300 bytes"), "{refused}");
    record.state = State::Failure;
    let end_plan = after(&message, &record, CanvasLimits::default()).unwrap();
    assert_eq!(calls(&end_plan).len(), 1, "the errback");
    assert_eq!(end_plan.lost.iter().map(|lost| lost.id.as_str()).collect::<Vec<_>>(), ["l"]);
}

#[test]
fn what_came_with_an_id_twice_is_not_called() {
    let group = |ids: [&str; 2]| {
        let members = ids.map(|id| Node::from_raw(raw("member", id)).unwrap());
        Node::new(NodeKind::Group(members.into())).into_raw()
    };
    let after_me = |callbacks: Vec<RawSignature>, chain: Vec<RawSignature>| {
        let message = message(Workflow { callbacks, chain, ..Workflow::default() });
        let judge = Judge::unstarted(&message, crate::core::Timestamp::ZERO);
        let Verdict::Over(record) = judge.judge(Ok("7".into())) else { panic!() };
        after(&message, &record, CanvasLimits::default()).map(|end_plan| end_plan.launch.calls.len())
    };
    let refused = |callbacks, chain| after_me(callbacks, chain).unwrap_err().to_string();
    assert_eq!(after_me(vec![raw("c", "c")], vec![raw("last", "l"), raw("next", "n")]), Ok(2));
    assert!(refused(vec![], vec![group(["a", "a"])]).contains("`a` is given twice"));
    assert!(refused(vec![raw("c", "l")], vec![raw("last", "l"), raw("next", "n")]).contains("`l` is given"));
    assert!(refused(vec![raw("c", "c"), raw("d", "c")], vec![]).contains("`c` is given"));
    assert!(refused(vec![], vec![raw("next", "me")]).contains("`me` is given"));
    // The body of a chord fails, and so does what comes after it.
    let mut twice = Node::task("body");
    twice.options.set("task_id", "b");
    twice.options.chain = Some(vec![Node::from_raw(raw("last", "l")).unwrap(), twice.clone()]);
    let parts = || vec![(TaskId::from("m"), State::Success, Json::from(1))];
    for (body, id) in [(twice.into_raw(), "b"), (raw("body", "m"), "m")] {
        let end_plan = chord_over(body, parts());
        let error = &end_plan.lost[0].cause.errors[0];
        assert!(error.contains(&format!("`{id}` is given twice")), "{error}");
        assert_eq!((calls(&end_plan).len(), end_plan.lost[0].id.as_str()), (0, id));
    }
}

#[test]
fn what_is_more_than_memory_should_bear_fails_with_what_to_do() {
    let group = |n: usize| Node::new(NodeKind::Group(vec![Node::task("m"); n]));
    let of = |value: &str, next: Node, limits: CanvasLimits| {
        let message = message(Workflow { chain: vec![next.into_raw()], ..Workflow::default() });
        let judge = Judge::unstarted(&message, crate::core::Timestamp::ZERO);
        let Verdict::Over(record) = judge.judge(Ok(value.to_owned())) else { panic!() };
        after(&message, &record, limits).map(|end_plan| end_plan.launch.calls.len())
    };
    let value = format!("\"{}\"", "x".repeat(1000));
    let limits = CanvasLimits { tasks: 10, bytes: 16_000 };
    assert_eq!(of(&value, group(9), limits), Ok(9));
    let refused = of("1", group(11), limits).unwrap_err().to_string();
    assert!(refused.contains("11 tasks at once"), "{refused}");
    let refused = of(&format!("\"{}\"", "x".repeat(2000)), group(9), limits).unwrap_err().to_string();
    assert!(refused.contains("pass its id"), "{refused}");
    // Each member of a header has a copy of the body.
    let mut body = Node::task("body");
    body.args.push("x".repeat(2000).into());
    let refused = of("1", Node::chord(group(9), body.clone()), limits).unwrap_err().to_string();
    assert!(refused.contains("the limit is 16000"), "{refused}");
    // Each step of a chain, and each member of a group, has a copy of the options, arguments and errbacks of the whole.
    let mut chain = Node::new(NodeKind::Chain(vec![Node::task("s"); 9]));
    chain.options.link_error.push(body.clone());
    assert!(of("1", chain, limits).unwrap_err().to_string().contains("the limit is 16000"));
    let mut inner = group(9);
    inner.options.set("headers", json!({"h": "x".repeat(2000)}));
    let nested = Node::new(NodeKind::Group(vec![inner, Node::task("m")]));
    assert!(of("1", nested, limits).unwrap_err().to_string().contains("the limit is 16000"));
    // The values of a header are one argument of the body.
    let part = |n: usize| (TaskId::from(n.to_string()), State::Success, Json::from("x".repeat(6000)));
    let body = raw("body", "b");
    let end_plan = plan_chord_end("g", body, None, (0..3).map(part).collect(), limits);
    assert!(end_plan.lost[0].cause.errors[0].contains("pass its id"), "{end_plan:?}");
    assert!(end_plan.launch.calls.is_empty());
}

#[test]
fn the_more_are_lost_the_less_each_of_them_is_told() {
    let told = |lost: usize| {
        let members =
            (0..lost).map(|n| raw("member", &format!("m{n}"))).map(|raw| Node::from_raw(raw).unwrap());
        let chain = vec![Node::new(NodeKind::Group(members.collect())).into_raw()];
        let error = TaskError::permanent("x".repeat(60 << 10));
        let end_plan = ended(Workflow { chain, ..Workflow::default() }, Err(error));
        assert_eq!(end_plan.lost.len(), lost);
        let all: usize = end_plan.lost.iter().map(|lost| lost.cause.errors[0].len()).sum();
        assert!(all <= TOLD_TO_ALL + lost * LEAST_TOLD, "{lost}: {all}");
        end_plan.lost[lost - 1].cause.errors[0].len()
    };
    assert_eq!(told(10), LONGEST_ERROR + "...".len());
    assert!((LEAST_TOLD..LONGEST_ERROR).contains(&told(1000)));
    assert!(told(9000) >= LEAST_TOLD);
}
