//! How a span of OpenTelemetry goes along with a task.
//!
//! The spans are those of `tracing`, which the program's layer of `tracing-opentelemetry` turns into spans of OpenTelemetry. The
//! program's propagator (`opentelemetry::global::set_text_map_propagator`) writes a span into the headers of a call, and reads
//! it where the task runs. `opentelemetry-instrumentation-celery` does the same on the side of Python.

use std::sync::Once;

use opentelemetry::Context;
use opentelemetry::global::get_text_map_propagator;
use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::trace::TraceContextExt as _;
use serde_json::Value;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::Headers;

/// The headers of the span that this thread is in: one of `tracing`, or else one that the program has attached by
/// OpenTelemetry itself.
pub(crate) fn current_headers() -> Headers {
    let of_span = headers_of_span(&Span::current());
    if of_span.0.is_empty() { headers_of(&Context::current()) } else { of_span }
}

/// The headers of this span. There are none if nobody makes a span of OpenTelemetry of it.
pub(crate) fn headers_of_span(span: &Span) -> Headers {
    headers_of(&span.context())
}

/// The span from which a task with these headers follows, if they name one.
pub(crate) fn producer_of(headers: &Headers) -> Option<Context> {
    let producer = get_text_map_propagator(|propagator| {
        propagator.extract_with_context(&Context::new(), &HeaderReader(headers))
    });
    producer.span().span_context().is_valid().then_some(producer)
}

fn headers_of(context: &Context) -> Headers {
    let mut headers = Headers::default();
    if !context.span().span_context().is_valid() {
        return headers;
    }
    get_text_map_propagator(|propagator| {
        propagator.inject_context(context, &mut HeaderInjector(&mut headers))
    });
    if headers.0.is_empty() {
        tell_what_is_missing();
    }
    headers
}

fn tell_what_is_missing() {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        tracing::warn!(
            "OpenTelemetry has no propagator, so that traces do not go along with tasks: give it one with opentelemetry::global::set_text_map_propagator"
        );
    });
}

struct HeaderInjector<'a>(&'a mut Headers);

impl Injector for HeaderInjector<'_> {
    fn set(&mut self, key: &str, value: String) {
        // The propagator of the W3C writes an empty state where there is none.
        if !value.is_empty() {
            self.0.0.insert(key.to_owned(), value.into());
        }
    }
}

struct HeaderReader<'a>(&'a Headers);

impl Extractor for HeaderReader<'_> {
    /// Names differ in case: they are made for HTTP.
    fn get(&self, key: &str) -> Option<&str> {
        let Headers(headers) = self.0;
        let in_other_case = || headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
        headers.get(key).or_else(|| in_other_case().map(|(_, value)| value)).and_then(Value::as_str)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.0.keys().map(String::as_str).collect()
    }
}
