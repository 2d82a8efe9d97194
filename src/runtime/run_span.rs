//! The span of a run: what its body logs is inside of it.
//!
//! With the feature `otel` the span is also that of a consumer in OpenTelemetry, with the names and attributes of
//! `opentelemetry-instrumentation-celery`. Its parent is the span of the call. What follows from the run is below the run's span,
//! and the attempts of a task are side by side below that of its call.

use tracing::Span;

#[cfg(feature = "otel")]
use self::otel::{describe, tell_failure};
#[cfg(feature = "otel")]
use crate::task::Verdict;
use crate::task::run_log::making;
use crate::task::{Context, Ending, Headers};

/// The span of one run. An operator finds the lines of a task by its id, and a tracing backend shows the run. It costs nothing
/// where nobody records spans of the level INFO.
#[cfg(not(feature = "otel"))]
pub(super) fn span_of(context: &Context) -> Span {
    let make = || {
        tracing::info_span!(
            "task",
            task = context.task(),
            id = %context.id(),
            queue = context.queue(),
            tenant = context.message().tenant(),
            attempt = context.attempt()
        )
    };
    // Without the feature no run has a log.
    if cfg!(feature = "log-lines") { making(context.log(), make) } else { make() }
}

/// The same with the name and the kind that OpenTelemetry shows.
#[cfg(feature = "otel")]
pub(super) fn span_of(context: &Context) -> Span {
    let span = making(context.log(), || {
        tracing::info_span!(
            "task",
            task = context.task(),
            id = %context.id(),
            queue = context.queue(),
            tenant = context.message().tenant(),
            attempt = context.attempt(),
            otel.name = format!("run/{}", context.task()),
            otel.kind = "consumer"
        )
    });
    if !span.is_disabled() {
        describe(&span, context);
        context.hold_span(&span);
    }
    span
}

/// Tells the span of the run what becomes of its task, and lets it end. Without the feature `otel` it ends with the body.
#[cfg(feature = "otel")]
pub(super) fn end_span(context: &Context, verdict: &Verdict) {
    use crate::core::text::logged_errors;
    use crate::task::{Next, State};
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    let Some(span) = context.take_span() else { return };
    match verdict {
        Verdict::Over(record) | Verdict::Dead { record, .. } => {
            span.set_attribute("celery.state", record.state.as_str());
            if record.state == State::Failure && !context.is_expected() {
                tell_failure(&span, &record.errors);
            }
        }
        Verdict::Again { message, next: Next::Retry, .. } => {
            span.set_attribute("celery.state", State::Retry.as_str());
            span.set_attribute("celery.retry.reason", logged_errors(&message.last_errors).join(": "));
        }
        Verdict::Again { .. } | Verdict::Replaced(_) | Verdict::HandBack => {}
    }
    context.note_trace(crate::task::otel::headers_of_span(&span));
}

/// Lets the span of a run end in a child process, which does not judge the outcome. Returns the headers of the span.
#[cfg(feature = "otel")]
pub(super) fn end_span_in_child(context: &Context, outcome: &Result<String, Ending>) -> Headers {
    let Some(span) = context.take_span() else { return Headers::default() };
    match outcome {
        Err(ending) if ending.is_expected() => {}
        Err(Ending::Failure { messages: errors, .. } | Ending::Fail { errors, .. }) => {
            tell_failure(&span, errors);
        }
        _ => {}
    }
    crate::task::otel::headers_of_span(&span)
}

/// Without the feature `otel` the span has no headers.
#[cfg(not(feature = "otel"))]
pub(super) fn end_span_in_child(_: &Context, _: &Result<String, Ending>) -> Headers {
    Headers::default()
}

#[cfg(feature = "otel")]
mod otel {
    use opentelemetry::trace::{Status, TraceContextExt as _};
    use tracing::Span;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    use crate::core::text::logged_errors;
    use crate::task::Context;
    use crate::task::otel::producer_of;

    /// Says what the span is about, and from which one it follows.
    pub(super) fn describe(span: &Span, context: &Context) {
        let message = context.message();
        match producer_of(&message.headers) {
            // A task that continues may do so for ever, so each of its runs begins a trace that names the call.
            Some(producer) if message.continuations > 0 => {
                span.add_link(producer.span().span_context().clone());
            }
            Some(producer) => {
                // An error says that nobody makes a span of OpenTelemetry of it.
                let _ = span.set_parent(producer);
            }
            None => {}
        }
        span.set_attribute("celery.action", "run");
        span.set_attribute("celery.task_name", message.task.clone());
        span.set_attribute("messaging.message.id", message.id.to_string());
        span.set_attribute("messaging.destination", message.queue.clone());
        if message.retries > 0 {
            span.set_attribute("celery.retries", i64::from(message.retries));
        }
    }

    /// The run has failed with these errors.
    pub(super) fn tell_failure(span: &Span, errors: &[String]) {
        span.set_status(Status::error(logged_errors(errors).join(": ")));
    }
}
