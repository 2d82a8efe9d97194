//! The span of a call that is sent, for OpenTelemetry: that of a producer, from which the span of the run follows. It is named as
//! `opentelemetry-instrumentation-celery` names it.

use std::future::Future;

use opentelemetry::trace::Status;
use tracing::Instrument as _;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::EnqueueError;

/// Sends a call of this task in a span of its own. `id_of` finds the id of the task in the answer.
pub(super) fn sending<T, F>(
    task: &str,
    send: F,
    id_of: fn(&T) -> Option<String>,
) -> impl Future<Output = Result<T, EnqueueError>>
where
    F: Future<Output = Result<T, EnqueueError>>,
{
    let span =
        tracing::info_span!("apply_async", otel.name = format!("apply_async/{task}"), otel.kind = "producer");
    if !span.is_disabled() {
        span.set_attribute("celery.action", "apply_async");
        span.set_attribute("celery.task_name", task.to_owned());
    }
    let sent = send.instrument(span.clone());
    async move {
        let answer = sent.await;
        match answer.as_ref().map(id_of) {
            Ok(Some(id)) => span.set_attribute("messaging.message.id", id),
            Ok(None) => {}
            Err(error) => span.set_status(Status::error(error.to_string())),
        }
        answer
    }
}
