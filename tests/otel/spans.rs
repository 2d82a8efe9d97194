//! The spans of one program.

use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use celeriac::catalogue::{Pool, QueueRow};
use celeriac::task::canvas::group;
use celeriac::{Celeriac, TaskError, task};
use opentelemetry::trace::{SpanContext, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceState};
use opentelemetry::{Context as OtelContext, SpanId, TraceId};
use opentelemetry_sdk::trace::SpanData;
use tracing::Instrument as _;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::{Request, SPANS, attribute};

/// Longer than anything takes, even on a slow machine.
const LONG: Duration = Duration::from_secs(120);

async fn start() -> Celeriac {
    let row = |name: &str, pool| QueueRow::new(name).with_pool(pool).with_workers(2);
    let builder = Celeriac::builder().queue(row("io", Pool::Io)).queue(row("cpu", Pool::Cpu));
    builder.in_memory().arbiters(1).start().await.unwrap()
}

#[task(name = "otel.adds", queue = "io")]
async fn adds(x: i64, y: i64) -> i64 {
    x + y
}

#[task(name = "otel.computes", queue = "cpu")]
fn computes(x: i64) -> i64 {
    tracing::info_span!("inner").in_scope(|| x * 2)
}

fn assert_follows(span: &SpanData, parent: &SpanData) {
    assert_eq!(span.span_context.trace_id(), parent.span_context.trace_id());
    assert_eq!(span.parent_span_id, parent.span_context.span_id(), "{} after {}", span.name, parent.name);
}

#[tokio::test]
async fn a_run_follows_from_its_call() {
    let (request, celeriac) = (Request::begin(), start().await);
    let sent = async {
        let added = adds::s(1, 2).send(celeriac.client()).await.unwrap();
        let computed = computes::s(4).send(celeriac.client()).await.unwrap();
        assert_eq!((added.get(LONG).await, computed.get(LONG).await), (Ok(3), Ok(8)));
        (added.id().to_string(), computed.id().to_string())
    };
    let (added, computed) = sent.instrument(request.span.clone()).await;
    let own = request.span.context().span().span_context().span_id();
    for (task, queue, id) in [("otel.adds", "io", added), ("otel.computes", "cpu", computed)] {
        let call = request.only(&format!("apply_async/{task}"));
        assert_eq!((call.parent_span_id, call.span_kind.clone()), (own, SpanKind::Producer));
        assert_eq!(attribute(&call, "celery.action").as_deref(), Some("apply_async"));
        let run = request.only(&format!("run/{task}"));
        assert_follows(&run, &call);
        assert!(run.parent_span_is_remote, "it came with the message");
        assert_eq!((run.span_kind.clone(), run.status.clone()), (SpanKind::Consumer, Status::Unset));
        let expected = [
            ("celery.action", "run"),
            ("celery.state", "SUCCESS"),
            ("messaging.destination", queue),
            ("attempt", "1"),
        ];
        for (key, value) in expected {
            assert_eq!(attribute(&run, key).as_deref(), Some(value), "{key}");
        }
        for span in [&call, &run] {
            assert_eq!(attribute(span, "celery.task_name").as_deref(), Some(task));
            assert_eq!(attribute(span, "messaging.message.id").as_deref(), Some(id.as_str()));
        }
    }
    assert_follows(&request.only("inner"), &request.only("run/otel.computes"));
    celeriac.shutdown().await.unwrap();
}

#[task(name = "otel.fails", queue = "io", max_retries = 1, default_retry_delay = "1ms", retry_jitter = false)]
async fn fails(text: String) -> Result<(), TaskError> {
    Err(TaskError::from_display(text))
}

#[tokio::test]
async fn the_attempts_of_a_task_are_side_by_side() {
    let (request, celeriac) = (Request::begin(), start().await);
    let send = async { fails::s("no such user".into()).send(celeriac.client()).await.unwrap() };
    let failed = send.instrument(request.span.clone()).await;
    failed.get(LONG).await.unwrap_err();
    let call = request.only("apply_async/otel.fails");
    let [first, second]: [SpanData; 2] = request.ended("run/otel.fails").try_into().unwrap();
    for (run, state) in [(&first, "RETRY"), (&second, "FAILURE")] {
        assert_follows(run, &call);
        assert_eq!(attribute(run, "celery.state").as_deref(), Some(state));
    }
    let reason = attribute(&first, "celery.retry.reason").unwrap();
    assert!(reason.contains("no such user"), "{reason}");
    assert_eq!((&first.status, attribute(&first, "celery.retries")), (&Status::Unset, None));
    let Status::Error { description } = &second.status else { panic!("{second:#?}") };
    assert!(description.contains("no such user"), "{description}");
    assert_eq!(attribute(&second, "celery.retries").as_deref(), Some("1"));
    celeriac.shutdown().await.unwrap();
}

#[task(name = "otel.last", queue = "io")]
async fn last(before: Vec<i64>) -> i64 {
    before.iter().sum()
}

#[task(name = "otel.next", queue = "io")]
async fn next(before: i64) -> i64 {
    before + 1
}

/// The program of [`calls`].
static OWN: OnceLock<Celeriac> = OnceLock::new();

/// Calls a task of its own.
#[task(name = "otel.calls", queue = "io")]
async fn calls(x: i64) -> Result<i64, TaskError> {
    let celeriac = OWN.get().ok_or_else(|| TaskError::permanent("it has not started"))?;
    let sent = computes::s(x).send(celeriac.client()).await.map_err(TaskError::from_display)?;
    sent.get(LONG).await.map_err(TaskError::from_display)
}

#[tokio::test]
async fn what_follows_from_a_run_is_below_it() {
    let (request, celeriac) = (Request::begin(), start().await);
    OWN.get_or_init(|| celeriac.clone());
    let workflow = calls::s(3).then(group([next::p(), next::p()])).then(last::p());
    let send = async { workflow.send(celeriac.client()).await.unwrap() };
    let sent = send.instrument(request.span.clone()).await;
    assert_eq!(sent.get(LONG).await, Ok(14));
    let call = request.only("apply_async/celery.chain");
    let first = request.only("run/otel.calls");
    assert_follows(&first, &call);
    let own_call = request.only("apply_async/otel.computes");
    assert_follows(&own_call, &first);
    assert_follows(&request.only("run/otel.computes"), &own_call);
    let members = request.ended("run/otel.next");
    assert_eq!(members.len(), 2);
    for member in &members {
        assert_follows(member, &first);
    }
    // The body of a chord follows from the member that was the last.
    let body = request.only("run/otel.last");
    assert!(members.iter().any(|member| member.span_context.span_id() == body.parent_span_id), "{body:#?}");
    celeriac.shutdown().await.unwrap();
}

#[task(name = "otel.goes_on", queue = "io")]
async fn goes_on(times: u32) -> Result<u32, TaskError> {
    match times {
        0 => Ok(0),
        times => Err(TaskError::continue_with(goes_on::s(times - 1))),
    }
}

#[tokio::test]
async fn a_run_that_continues_begins_a_trace_with_a_link() {
    let (request, celeriac) = (Request::begin(), start().await);
    let send = async { goes_on::s(1).send(celeriac.client()).await.unwrap() };
    let sent = send.instrument(request.span.clone()).await;
    assert_eq!(sent.get(LONG).await, Ok(0));
    let call = request.only("apply_async/otel.goes_on");
    assert_follows(&request.only("run/otel.goes_on"), &call);
    let spans = SPANS.get_finished_spans().unwrap().into_iter();
    let continued: Vec<SpanData> = spans
        .filter(|span| span.name == "run/otel.goes_on" && span.span_context.trace_id() != request.trace)
        .collect();
    let [run] = &continued[..] else { panic!("{continued:#?}") };
    assert_eq!(run.parent_span_id, SpanId::INVALID);
    assert_eq!(run.links[0].span_context.span_id(), call.span_context.span_id());
    celeriac.shutdown().await.unwrap();
}

/// Without a span of `tracing`: the program has attached one by OpenTelemetry itself. And on a plain thread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_span_that_is_attached_is_a_parent_too() {
    LazyLock::force(&SPANS);
    let celeriac = start().await;
    let trace = TraceId::from_hex("4bf92f3577b34da6a3ce929d0e0e4736").unwrap();
    let span = SpanId::from_hex("00f067aa0ba902b7").unwrap();
    let remote = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::default());
    let client = celeriac.client();
    let sent = tokio::task::spawn_blocking(move || {
        let _attached = OtelContext::new().with_remote_span_context(remote).attach();
        adds::s(1, 1).send(client).wait().unwrap()
    });
    assert_eq!(sent.await.unwrap().get(LONG).await, Ok(2));
    let spans = SPANS.get_finished_spans().unwrap().into_iter();
    let mut names: Vec<String> = spans
        .filter(|span| span.span_context.trace_id() == trace)
        .map(|span| span.name.into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["apply_async/otel.adds", "run/otel.adds"]);
    celeriac.shutdown().await.unwrap();
}

/// A call that says itself to which trace it belongs, as one that is passed on for somebody else.
#[tokio::test]
async fn a_stated_parent_stays() {
    let (request, celeriac) = (Request::begin(), start().await);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let call = adds::s(2, 2).header("traceparent", parent);
    let sent = async { call.send(celeriac.client()).await.unwrap() }.instrument(request.span.clone()).await;
    assert_eq!(sent.get(LONG).await, Ok(4));
    assert!(request.ended("run/otel.adds").is_empty());
    let spans = SPANS.get_finished_spans().unwrap();
    let run = spans.iter().find(|span| {
        let id = attribute(span, "messaging.message.id");
        span.name == "run/otel.adds" && id.as_deref() == Some(sent.id().as_str())
    });
    assert_eq!(run.unwrap().parent_span_id, SpanId::from_hex("b7ad6b7169203331").unwrap());
    celeriac.shutdown().await.unwrap();
}
