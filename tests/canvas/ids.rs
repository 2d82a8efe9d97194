//! Ids that a canvas bears: one rule for all of them, told at the call, or by the task from whose end they follow.

use celeriac::broker::conformance::sample;
use celeriac::task::canvas::{Canvas, IntoCanvas, chord, group, map, signature};
use celeriac::task::{Arguments, Durability, LONGEST_ID, RawSignature, Workflow};
use celeriac::{Context, EnqueueError, GetError, State, TaskError, TaskId, task};
use serde_json::{Value, json};

use super::kit::*;

fn refused<O: std::fmt::Debug>(sent: Result<O, EnqueueError>) -> String {
    sent.map(|sent| panic!("{sent:?}")).unwrap_or_else(|error: EnqueueError| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_no_store_can_hold_is_refused_wherever_it_is() {
    on_all(async |celeriac| {
        let send = async |canvas: Canvas| canvas.send(celeriac.client()).await;
        for len in [0, LONGEST_ID + 1, 70_000] {
            let bad = || "x".repeat(len);
            let one = || add::s(1, 1).id(bad());
            let canvases: Vec<Canvas> = vec![
                group([one(), add::s(2, 2)]).untyped(),
                chord([one()], sum::p()).untyped(),
                chord([add::s(1, 1)], sum::p().untyped().id(bad())).untyped(),
                add::s(1, 1).then(add::p(1).id(bad())).untyped(),
                add::s(1, 1).link(add::p(1).id(bad())).untyped(),
                add::s(1, 1).link_error(note::p("n".into()).id(bad())).untyped(),
                map(twice::Task, [1, 2]).id(bad()).untyped(),
                group([add::s(1, 1)]).id(bad()).untyped(),
                group([add::s(1, 1)]).id(bad()).then(sum::p()).untyped(),
                add::s(1, 1).then(twice::p().set("group_id", bad())).untyped(),
                add::s(1, 1).then(twice::p().set("root_id", bad())).untyped(),
                add::s(1, 1).then(twice::p().set("parent_id", bad())).untyped(),
                add::s(1, 1).then(twice::p().set("reply_to", bad())).untyped(),
                add::s(1, 1).link(add::p(1).link(add::p(1).id(bad()))).untyped(),
            ];
            for canvas in canvases {
                let said = format!("{canvas:?}");
                let text = refused(send(canvas).await);
                assert!(
                    text.contains(&format!("{len} bytes")) && text.len() < 400,
                    "{text}: {}",
                    &said[..400]
                );
            }
        }
        let number = refused(send(add::s(1, 1).then(add::p(1).set("task_id", 7)).untyped()).await);
        assert!(number.contains("is 7, which is no text"), "{number}");
        let longest = add::s(1, 1).then(add::p(1).id("x".repeat(LONGEST_ID)));
        assert_eq!(longest.send(celeriac.client()).await.unwrap().get(LONG).await, Ok(3));
        assert_eq!(default_queue(&celeriac).await.ready, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_amqp_cannot_carry_is_refused_on_every_broker() {
    on_all(async |celeriac| {
        let send = async |canvas: Canvas| canvas.send(celeriac.client()).await;
        for (len, text) in [(0, "is empty; give it 1 to 255"), (300, "has 300 bytes; give it at most 255")] {
            let bad = || "x".repeat(len);
            let sent = add::s(1, 1).header(bad(), 1).send(celeriac.client()).await;
            let said = refused(sent.map(drop));
            assert!(said.starts_with("`canvas::kit::add` cannot be sent: the name of a header"), "{said}");
            assert!(said.contains(text), "{said}");
            let canvases: Vec<Canvas> = vec![
                add::s(1, 1).header(bad(), 1).then(add::p(1)).untyped(),
                add::s(1, 1).then(add::p(1).set("headers", json!({bad(): 1}))).untyped(),
                add::s(1, 1).link(add::p(1).set("headers", json!({bad(): 1}))).untyped(),
                chord([add::s(1, 1)], sum::p().set("headers", json!({bad(): 1}))).untyped(),
                group([add::s(1, 1), add::s(2, 2)]).stamp(&bad(), 1).untyped(),
            ];
            for canvas in canvases {
                let said = refused(send(canvas).await);
                assert!(said.contains(text) && said.len() < 400, "{said}");
            }
        }
        let long = || "x".repeat(300);
        let sent = add::s(1, 1).header("h", json!([{long(): 1}])).send(celeriac.client()).await;
        let inside = refused(sent.map(drop));
        assert!(inside.contains("a name in the value of header `h`"), "{inside}");
        for (canvas, what) in [
            (group([add::s(1, 1)]).stamp("s", json!({long(): 1})).untyped(), "in the value of stamp `s`"),
            (add::s(1, 1).then(twice::p().set("message_id", long())).untyped(), "the property `message_id`"),
            (add::s(1, 1).then(twice::p().set("app_id", long())).untyped(), "the property `app_id`"),
            (add::s(1, 1).then(twice::p().set("type", long())).untyped(), "the property `type`"),
        ] {
            let said = refused(send(canvas).await);
            assert!(said.contains(what) && said.contains("has 300 bytes") && said.len() < 400, "{said}");
        }
        // What AMQP has room for is taken.
        let longest = "x".repeat(255);
        let second = twice::p().set("message_id", longest.as_str());
        let fits = add::s(1, 1).header(longest.as_str(), 1).then(second);
        assert_eq!(fits.send(celeriac.client()).await.unwrap().get(LONG).await, Ok(4));
        assert_eq!(default_queue(&celeriac).await.ready, 0);
    })
    .await;
}

/// Adds a member under this id to its chord.
#[task(max_retries = 0)]
async fn adds_one_called(ctx: Context, id: String) -> Result<i64, TaskError> {
    ctx.add_to_chord(add::s(10, 0).id(id.as_str())).await?;
    Ok(1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_added_under_such_an_id_is_refused_and_says_so() {
    on_each(async |celeriac| {
        for id in [String::new(), "x".repeat(300), "\u{1b}[2J\n".repeat(60)] {
            let chord = chord([adds_one_called::s(id.clone()), adds_one_called::s(id.clone())], sum::p());
            let sent = chord.send(celeriac.client()).await.unwrap();
            let GetError::Ended(record) = sent.get(LONG).await.unwrap_err() else { panic!("it has ended") };
            assert_eq!((record.state, record.error_type.as_deref()), (State::Failure, Some("ChordError")));
            let text = record.errors.join(": ");
            assert!(text.contains(&format!("{} bytes", id.len())) && text.len() < 600, "{text}");
            assert!(!text.contains(char::is_control), "{text}");
        }
        // Any text of 1 to 255 bytes will do.
        let sent = chord([adds_one_called::s("\u{1b}[2J\n".into())], sum::p()).send(celeriac.client()).await;
        assert_eq!(sent.unwrap().get(LONG).await, Ok(11));
        assert_eq!(celeriac.async_result("\u{1b}[2J\n").state().await, Ok(State::Success));
        assert_eq!(default_queue(&celeriac).await.ready, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_is_given_twice_is_refused() {
    on_all(async |celeriac| {
        let send = async |canvas: Canvas| canvas.send(celeriac.client()).await;
        let named = |id: &str| add::s(1, 1).id(id);
        let canvases: Vec<Canvas> = vec![
            group([named("a"), named("a")]).untyped(),
            chord([named("a"), add::s(1, 1)], sum::p().untyped().id("a")).untyped(),
            named("a").then(twice::p().id("a")).untyped(),
            group([named("a").then(twice::p()).untyped(), group([named("b"), named("a")]).untyped()])
                .untyped(),
            group([named("a")]).id("a").then(sum::p()).untyped(),
            named("a").link(twice::p().id("a")).untyped(),
            named("a").link_error(note::p("n".into()).id("a")).untyped(),
        ];
        for canvas in canvases {
            let text = refused(send(canvas).await);
            assert!(text.contains("the id `a` is given twice"), "{text}");
        }
        // The copies of one errback are one.
        let shared = group([add::s(1, 1), add::s(2, 2)]).link_error(note::p("n".into()).id("e"));
        assert_eq!(shared.send(celeriac.client()).await.unwrap().get(LONG).await, Ok(vec![2, 4]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_can_have_such_an_id_so_nothing_is_known_of_it() {
    on_all(async |celeriac| {
        for id in [String::new(), "x".repeat(300), "x".repeat(70_000)] {
            let result = celeriac.async_result(id.as_str());
            assert_eq!((result.state().await, result.result().await), (Ok(State::Unknown), Ok(None)));
            assert_eq!((result.revoke(true).await, result.forget().await), (Ok(false), Ok(false)));
            assert!(matches!(result.get::<i64>(LONG).await, Err(GetError::Unknown(_))));
        }
    })
    .await;
}

/// A message of somebody else's.
async fn foreign(workflow: Workflow) -> (celeriac::Celeriac, TaskId) {
    let (celeriac, broker) = apart_and_its_broker().await;
    let mut message = sample("default", 0, Durability::Disk);
    "canvas::kit::none".clone_into(&mut message.task);
    message.arguments = Arguments::default();
    message.workflow = Some(Box::new(workflow));
    let id = message.id.clone();
    broker.publish(message, true).await.unwrap();
    (celeriac, id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_came_with_such_an_id_fails_the_task_before_it() {
    let step = |id: &str| signature("canvas::kit::none").immutable().id(id).into_raw().unwrap();
    let long = "x".repeat(300);
    let body = signature("canvas::kit::none").immutable().id("the-body").into_raw().unwrap();
    let of = |chain: Vec<RawSignature>| Workflow { chain, ..Workflow::default() };
    let header =
        Workflow { group: Some("g".into()), group_index: Some(0), chord: Some(body), ..Workflow::default() };
    let callback = Workflow { callbacks: vec![step(&long)], ..header };
    for workflow in [of(vec![step("last"), step(&long)]), of(vec![step(&long)]), callback] {
        let (celeriac, first) = foreign(workflow).await;
        let first = celeriac.async_result(first.as_str());
        until("the task has failed", async || first.state().await.unwrap() == State::Failure).await;
        let record = first.result().await.unwrap().unwrap();
        assert!(record.errors[0].contains("has 300 bytes"), "{record:?}");
        celeriac.shutdown().await.unwrap();
    }
    let (celeriac, _) = foreign(of(vec![step("last"), step(&long)])).await;
    let last = celeriac.async_result("last");
    until("the last step has failed too", async || last.state().await.unwrap() == State::Failure).await;
    celeriac.shutdown().await.unwrap();
}

/// Celery runs such a chord with one result too few, or its body for ever waits: the second task is left out where all
/// tasks are known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_came_with_an_id_twice_fails_the_task_before_it() {
    let none = |id: &str| json!({"task": "canvas::kit::none", "options": {"task_id": id}, "immutable": true});
    let group = |first: Value, second: Value| json!({"task": "celery.group", "subtask_type": "group", "kwargs": {"tasks": [first, second]}});
    let chord = |header: Value| {
        let kwargs = json!({"header": header, "body": none("the-body"), "kwargs": {}});
        json!({"task": "celery.chord", "subtask_type": "chord", "kwargs": kwargs})
    };
    let chain = |id: &str| {
        let steps = json!([none("first"), {"task": "canvas::kit::none", "immutable": true}]);
        let (kwargs, options) = (json!({"tasks": steps}), json!({"task_id": id}));
        json!({"task": "celery.chain", "subtask_type": "chain", "kwargs": kwargs, "options": options})
    };
    let of = |steps: Vec<Value>| -> Vec<RawSignature> {
        steps.into_iter().map(|step| serde_json::from_value(step).unwrap()).collect()
    };
    let own = "default-0"; // the id of the first task
    for steps in [
        vec![none("the-body"), group(none("a"), none("a"))],
        vec![chord(group(none("a"), none("a")))],
        vec![chord(group(none("a"), none("the-body")))],
        vec![chord(group(none("a"), chain("a")))],
        vec![none("the-body"), none("a"), none("a")],
        vec![none("the-body"), none(own)],
    ] {
        let said = format!("{steps:?}");
        let (celeriac, first) = foreign(Workflow { chain: of(steps), ..Workflow::default() }).await;
        assert_eq!(first.as_str(), own);
        let first = celeriac.async_result(first.as_str());
        until("the task has failed", async || first.state().await.unwrap() == State::Failure).await;
        let record = first.result().await.unwrap().unwrap();
        assert!(record.errors[0].contains("is given twice"), "{record:?}: {said}");
        let body = celeriac.async_result("the-body");
        until("the end has a record", async || body.state().await.unwrap() == State::Failure).await;
        assert!(body.result().await.unwrap().unwrap().errors[0].contains("is given twice"), "{said}");
        celeriac.shutdown().await.unwrap();
    }
    // The header of a chord may have the id of its body: earlier versions of Celery write it so.
    let mut header = group(none("a"), none("b"));
    header["options"] = json!({"task_id": "the-body"});
    let (celeriac, _) = foreign(Workflow { chain: of(vec![chord(header)]), ..Workflow::default() }).await;
    let body = celeriac.async_result("the-body");
    until("the body has run", async || body.state().await.unwrap() == State::Success).await;
    celeriac.shutdown().await.unwrap();
}

#[task(max_retries = 0)]
async fn replaces_itself(with: String) -> Result<i64, TaskError> {
    Err(TaskError::replace(add::s(1, 1).id(with.as_str()).then(add::p(1))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_body_sends_is_checked_as_well() {
    let (celeriac, _) = apart_and_its_broker().await;
    let bad = || "x".repeat(70_000);
    let error = replaces_itself::s(bad()).into_canvas().send(celeriac.client()).await;
    // 70,000 bytes are more than arguments may have.
    assert!(matches!(error, Err(EnqueueError::TooLarge { .. })), "{error:?}");
    let bad = || "x".repeat(300);
    let replaced = replaces_itself::s(bad()).into_canvas().send(celeriac.client()).await.unwrap();
    let error = replaced.get(LONG).await.unwrap_err().to_string();
    assert!(error.contains("has 300 bytes"), "{error}");
    celeriac.shutdown().await.unwrap();
}
