//! What follows from a body in another process, and what it sends from there, is in its trace.

use celeriac::task::Task as _;
use celeriac::{Context, Json, TaskError, TaskId, signature, task};
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

use crate::kit::{LONG, row, with_queue};

/// Spans of OpenTelemetry, as parent and as child.
pub fn layer<S>() -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let provider = SdkTracerProvider::builder().with_simple_exporter(InMemorySpanExporter::default()).build();
    tracing_opentelemetry::layer().with_tracer(provider.tracer("tests"))
}

/// The trace and the span of a header.
fn parts(traceparent: &str) -> (&str, &str) {
    let parts: Vec<&str> = traceparent.split('-').collect();
    assert_eq!(parts.len(), 4, "{traceparent}");
    (parts[1], parts[2])
}

/// The span that it follows from.
#[task(queue = "processes", max_retries = 0)]
fn sees(ctx: &Context, before: Option<Json>) -> Option<String> {
    let _ = before;
    Some(ctx.header("traceparent")?.as_str()?.to_owned())
}

/// The span of the run, a call from it, and a canvas.
#[task(queue = "processes", max_retries = 0)]
fn sends() -> Result<(String, String, String), TaskError> {
    let context = Span::current().context();
    let span = context.span().span_context().clone();
    let own = format!("00-{}-{}-01", span.trace_id(), span.span_id());
    let sent = sees::s(None).delay().wait().map_err(TaskError::from_display)?;
    let canvas =
        signature(sees::Task::NAME).arg(None::<u8>).delay().wait().map_err(TaskError::from_display)?;
    Ok((own, sent.id().to_string(), canvas.id().to_string()))
}

/// Tells the value of the step before, and the span that it follows from.
#[task(queue = "processes", max_retries = 0)]
fn follows(ctx: &Context, before: (String, String, String)) -> (Vec<String>, Option<String>) {
    let (own, sent, canvas) = before;
    (vec![own, sent, canvas], sees(ctx, None))
}

pub fn what_follows_from_a_body_is_in_its_trace() {
    with_queue(row(1), |celeriac| async move {
        let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        let first = sends::s().header("traceparent", format!("00-{trace}-{parent}-01"));
        let workflow = first.then(follows::p()).send(celeriac.client()).await.unwrap();
        let (told, next) = workflow.get(LONG).await.unwrap();
        let own = parts(&told[0]);
        assert!(own.0 == trace && own.1 != parent, "the run has a span of its own: {told:?}");
        let next = next.expect("it belongs to a trace");
        assert_eq!(parts(&next), own, "the next step is below it");
        for sent in &told[1..] {
            let seen = celeriac.async_result(TaskId::from(sent.as_str())).get::<Option<String>>(LONG).await;
            let seen = seen.unwrap().expect("it belongs to a trace");
            let (of, span) = parts(&seen);
            assert!(of == trace && span != parent && span != own.1, "the call has a span of its own: {seen}");
        }
    });
}
