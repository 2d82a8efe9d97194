//! The headers of tracers cross the wire where OpenTelemetry's and Sentry's instrumentation of Celery read and write them.

use celeriac::protocol::encode;
use celeriac::task::Message;
use serde_json::{Value, json};

use crate::captures;

/// What Sentry's client for Python adds to a call of an instrumented program, in which OpenTelemetry runs as well.
fn headers() -> Value {
    let trace = json!({
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "tracestate": "vendor=1",
        "baggage": "sentry-trace_id=4bf92f3577b34da6a3ce929d0e0e4736,user=5",
        "sentry-trace": "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
        "sentry-task-enqueued-time": 1_795_339_500.25,
    });
    let mut headers = trace.clone();
    headers["headers"] = trace;
    headers
}

#[test]
fn they_come_from_the_top_level_and_go_back_there_in_every_attempt() {
    let captured = captures::tasks().into_iter().find(|capture| capture.wire.headers.contains_key("task"));
    let mut wire = captured.expect("a task").wire;
    let given = headers();
    for (name, value) in given.as_object().unwrap() {
        wire.headers.insert(name.clone(), value.clone());
    }
    let message = captures::read(&wire).unwrap();
    let retried = Message { retries: message.retries + 1, ..message.clone() };
    for sent_on in [message, retried] {
        let ours = encode(&sent_on, captures::now()).unwrap();
        for (name, value) in given.as_object().unwrap() {
            assert_eq!(&ours.headers[name], value, "{name}");
        }
        let again = captures::read(&ours).unwrap();
        assert_eq!(again.headers, sent_on.headers);
    }
}
