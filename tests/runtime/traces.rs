//! The headers of a trace go along with a task, whatever becomes of it, and with all that follows from it.

use std::time::Duration;

use celeriac::task::canvas::group;
use celeriac::task::{Signature, Task};
use celeriac::{Context, State, TaskError, TaskId, task};
use serde_json::Value;

use crate::kit::{LONG, note, notes, on_both, record, until};

const HEADERS: [(&str, &str); 4] = [
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("tracestate", "vendor=1"),
    ("baggage", "user=5"),
    ("sentry-trace", "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1"),
];

/// A call with these headers, and one that is not a tracer's.
fn traced<T: Task>(call: Signature<T>) -> Signature<T> {
    HEADERS.into_iter().chain([("tenant", "acme")]).fold(call, |call, (name, value)| call.header(name, value))
}

/// What a body sees of its trace.
fn trace_of(ctx: &Context) -> String {
    HEADERS.map(|(name, _)| ctx.header(name).and_then(Value::as_str).unwrap_or("nothing")).join(" ")
}

fn expected() -> String {
    HEADERS.map(|(_, value)| value).join(" ")
}

/// Ends the first time in the way that it is told.
#[task(queue = "io", max_retries = 1, default_retry_delay = "1ms", retry_jitter = false)]
async fn comes_again(ctx: Context, how: String) -> Result<(), TaskError> {
    note(ctx.id(), trace_of(&ctx));
    if notes(ctx.id()).len() > 1 {
        return Ok(());
    }
    Err(match how.as_str() {
        "retry" => TaskError::transient("once more"),
        "postpone" => TaskError::postpone(Duration::from_millis(1)),
        "continue" => TaskError::continue_with(comes_again::s("as it likes".into())),
        "put back" => TaskError::reject_and_requeue("not here"),
        "reject" => TaskError::reject("not mine"),
        other => panic!("{other}"),
    })
}

#[tokio::test]
async fn each_run_of_a_task_has_the_headers_of_its_call() {
    on_both(|celeriac| async move {
        for how in ["retry", "postpone", "continue", "put back"] {
            let task = traced(comes_again::s(how.into())).send(celeriac.client()).await.unwrap();
            assert_eq!(record(&task).await.state, State::Success, "{how}");
            assert_eq!(notes(task.id()), [expected(), expected()], "{how}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_dead_letter_has_them_and_the_task_that_is_put_back() {
    on_both(|celeriac| async move {
        let task = traced(comes_again::s("reject".into())).send(celeriac.client()).await.unwrap();
        assert_eq!(record(&task).await.state, State::Rejected);
        let letters = celeriac.dead_letters(10).await.unwrap();
        for (name, value) in HEADERS {
            assert_eq!(letters[0].message.headers.0[name], value, "{name}");
        }
        assert!(celeriac.requeue_dead_letter(task.id()).await.unwrap());
        assert_eq!(record(&task).await.state, State::Success);
        assert_eq!(notes(task.id()), [expected(), expected()]);
    })
    .await;
}

/// A step of a canvas. It notes its name, the trace that it sees, and whether it sees a header that is not inherited.
#[task(queue = "io", max_retries = 0)]
async fn step(ctx: Context, before: Option<Value>, key: String, name: String) -> Result<(), TaskError> {
    let _ = before;
    let tenant = if ctx.header("tenant").is_some() { " and the tenant" } else { "" };
    note(&TaskId::from(key.as_str()), format!("{name}: {}{tenant}", trace_of(&ctx)));
    match name.as_str() {
        "replaced" => Err(TaskError::replace(step::s(None, key, "instead".into()))),
        "fails" => Err(TaskError::permanent("no")),
        _ => Ok(()),
    }
}

#[tokio::test]
async fn what_follows_from_a_task_inherits_them() {
    on_both(|celeriac| async move {
        let client = || celeriac.client();
        let key = TaskId::new().to_string();
        let next = |name: &str| step::p(key.clone(), name.to_owned());
        let first = |name: &str| traced(step::s(None, key.clone(), name.to_owned()));
        let workflow = first("first")
            .then(next("second"))
            .then(group([next("member"), next("other member")]))
            .then(next("body"))
            .link(next("callback"));
        workflow.send(client()).await.unwrap().get(LONG).await.unwrap();
        first("replaced").send(client()).await.unwrap().get(LONG).await.unwrap();
        let _ = first("fails").link_error(next("errback")).send(client()).await.unwrap();
        let own = next("own").set("headers", serde_json::json!({ "traceparent": "00-1-2-00" }));
        first("before").then(own).send(client()).await.unwrap().get(LONG).await.unwrap();
        let key = TaskId::from(key.as_str());
        until("all have run", async || notes(&key).len() == 12).await;
        let told = notes(&key);
        for called in ["first", "replaced", "fails", "before"] {
            let line = format!("{called}: {} and the tenant", expected());
            assert!(told.contains(&line), "{line} is not in {told:#?}");
        }
        for follows in ["second", "member", "other member", "body", "callback", "instead", "errback"] {
            let line = format!("{follows}: {}", expected());
            assert!(told.contains(&line), "{line} is not in {told:#?}");
        }
        // What a step states is not mixed with the state of another parent.
        let [_, _, (_, baggage), (_, sentry)] = HEADERS;
        let line = format!("own: 00-1-2-00 nothing {baggage} {sentry}");
        assert!(told.contains(&line), "{line} is not in {told:#?}");
    })
    .await;
}
