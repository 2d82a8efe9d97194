//! The span of a run, and what follows from it.

use std::borrow::Cow;

use super::Context;
use crate::task::{Headers, Message};

impl Context {
    /// Keeps the span of the run until its end is known.
    #[cfg(feature = "otel")]
    pub(crate) fn hold_span(&self, span: &tracing::Span) {
        *self.run.span.lock() = Some(span.clone());
    }

    /// Takes the span of the run out.
    #[cfg(feature = "otel")]
    pub(crate) fn take_span(&self) -> Option<tracing::Span> {
        self.run.span.lock().take()
    }

    /// Notes the headers of the run's span.
    pub(crate) fn note_trace(&self, span: Headers) {
        if !span.0.is_empty() {
            self.run.trace.get_or_init(|| Box::new(span));
        }
    }

    /// The message from which other tasks follow: the run's own, within the span of the run.
    pub(crate) fn origin(&self) -> Cow<'_, Message> {
        match self.run.trace.get() {
            None => Cow::Borrowed(self.message()),
            Some(span) => {
                let mut message = self.message().clone();
                message.headers.continue_trace(span);
                Cow::Owned(message)
            }
        }
    }
}
