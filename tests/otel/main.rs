//! Spans of OpenTelemetry: of calls, of runs and of what follows from them, in one program and in a fleet with Python.
//!
//! All tests of this program have one subscriber and one exporter. Each looks for the spans of a trace of its own.

mod python;
mod spans;

use std::sync::LazyLock;

use celeriac_test_support as services;
use opentelemetry::TraceId;
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tracing::Span;
use tracing::level_filters::LevelFilter;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

static SPANS: LazyLock<InMemorySpanExporter> = LazyLock::new(|| {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("tests"));
    tracing_subscriber::registry().with(LevelFilter::INFO).with(layer).init();
    exporter
});

/// The trace of a request, from which a test sends its tasks.
struct Request {
    span: Span,
    trace: TraceId,
}

impl Request {
    fn begin() -> Self {
        LazyLock::force(&SPANS);
        let span = tracing::info_span!("request");
        let trace = span.context().span().span_context().trace_id();
        Self { span, trace }
    }

    /// The spans of its trace that have ended, of this name.
    fn ended(&self, name: &str) -> Vec<SpanData> {
        let spans = SPANS.get_finished_spans().unwrap();
        spans
            .into_iter()
            .filter(|span| span.span_context.trace_id() == self.trace && span.name == name)
            .collect()
    }

    /// The only one of this name.
    fn only(&self, name: &str) -> SpanData {
        let mut spans = self.ended(name);
        assert_eq!(spans.len(), 1, "{name}: {spans:#?}");
        spans.remove(0)
    }
}

/// An attribute of a span, as text.
fn attribute(span: &SpanData, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == key)?;
    Some(found.value.to_string())
}
