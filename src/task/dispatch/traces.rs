//! Which headers of a trace a message gets that follows from a task, or that its body sends.

use futures_util::FutureExt;
use serde_json::{Value, json};

use super::tests::dispatcher;
use super::{Call, CallDocument, ParentTask};
use crate::task::{Context, Headers, JsonMap, Message, NewTask, RawSignature, TaskOptions, inside};

const W3C: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A task that belongs to a trace.
fn traced() -> Message {
    let headers = json!({ "traceparent": W3C, "tracestate": "v=1", "baggage": "a=b", "tenant": "acme" });
    let headers: Headers = serde_json::from_value(headers).unwrap();
    Message { headers, ..Context::detached().message().clone() }
}

fn call(options: &Value) -> Call {
    Call {
        task: "mail".into(),
        args: Vec::new(),
        kwargs: JsonMap::new(),
        options: options.as_object().unwrap().clone().into(),
        callbacks: Vec::new(),
        errbacks: Vec::new(),
        chain: Vec::new(),
        chord: None,
    }
}

fn headers(message: &Message) -> Value {
    serde_json::to_value(&message.headers).unwrap()
}

fn inherited() -> Value {
    json!({ "traceparent": W3C, "tracestate": "v=1", "baggage": "a=b" })
}

#[test]
fn what_follows_from_a_task_belongs_to_its_trace() {
    let origin = ParentTask::of(&traced());
    assert_eq!(headers(&dispatcher().next(call(&json!({})), &origin)), inherited());
    let own = json!({ "headers": { "traceparent": "00-1-2-01", "x": 1 } });
    let stated = headers(&dispatcher().next(call(&own), &origin));
    assert_eq!(stated, json!({ "traceparent": "00-1-2-01", "baggage": "a=b", "x": 1 }));
}

#[test]
fn what_a_body_sends_belongs_to_the_trace_of_its_task() {
    let parent = std::sync::Arc::new(traced());
    let new = || NewTask::new("mail", TaskOptions::default());
    let in_body = |send: &dyn Fn() -> Vec<Message>| inside(&parent, async { send() }).now_or_never().unwrap();
    let alone = in_body(&|| vec![dispatcher().message(new()).unwrap()]);
    assert_eq!(headers(&alone[0]), inherited());
    let canvas = || RawSignature { task: "mail".into(), ..RawSignature::default() };
    let planned = in_body(&|| dispatcher().plan_canvas(canvas()).unwrap().messages);
    assert_eq!(planned.iter().map(headers).collect::<Vec<_>>(), [inherited()]);
    // A call that waits for its commit is forwarded where no body runs.
    let row = inside(&parent, async { CallDocument::row(new()).unwrap() }).now_or_never().unwrap();
    assert_eq!(headers(&dispatcher().committed(&row).unwrap()), inherited());
    assert_eq!(headers(&dispatcher().message(new()).unwrap()), json!({}), "no body runs here");
}
