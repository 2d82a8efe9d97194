//! The layer of `tracing` that keeps the last log lines of each run, so that a failed attempt can be read with what its body
//! said before.

use std::fmt::{self, Write};
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::task::LogLine;
use crate::task::clock::now;
use crate::task::run_log::{LONGEST_LINE, RunLog, made_now, see};

/// A layer for the program's subscriber that keeps the last log lines of each run: fifty at most, of 500 bytes each. While the
/// task runs they are in memory. If the attempt fails they stay [with it](crate::task::FailedAttempt::log), 16 KiB for all
/// attempts of a task; if it succeeds they are gone.
///
/// A line belongs to a run if it is logged inside of the run's span, which is of the level INFO: by the body itself, by what it
/// awaits, and by what it has spawned `in_current_span`. A task with `keep_log = false` keeps none.
///
/// ```no_run
/// use tracing_subscriber::layer::SubscriberExt as _;
/// use tracing_subscriber::util::SubscriberInitExt as _;
///
/// tracing_subscriber::registry()
///     .with(tracing_subscriber::fmt::layer())
///     .with(celeriac::log_lines())
///     .init();
/// ```
pub fn log_lines() -> LogLines {
    see();
    LogLines { most_verbose: Level::INFO }
}

/// The layer that [`log_lines`] makes.
#[derive(Clone, Debug)]
pub struct LogLines {
    most_verbose: Level,
}

impl LogLines {
    /// Keeps lines of this level and of those above it. Default: INFO.
    #[must_use]
    pub fn with_max_level(self, level: Level) -> Self {
        Self { most_verbose: level }
    }
}

impl<S> Layer<S> for LogLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, _: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(log) = made_now()
            && let Some(span) = context.span(id)
        {
            span.extensions_mut().replace(log);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > self.most_verbose {
            return;
        }
        let Some(mut scope) = context.event_scope(event) else { return };
        let log = scope.find_map(|span| span.extensions().get::<Arc<RunLog>>().cloned());
        if let Some(log) = log {
            let mut text = LineText::default();
            event.record(&mut text);
            log.push(LogLine::new(now(), level.as_str(), &text.joined()));
        }
    }
}

/// A text that takes no more than a line may have. What does not fit is not even formatted.
#[derive(Default)]
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = LONGEST_LINE.saturating_sub(self.0.len());
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        if text.len() > room { Err(fmt::Error) } else { Ok(()) }
    }
}

/// The message of an event, and its fields.
#[derive(Default)]
struct LineText {
    message: Bounded,
    fields: Bounded,
}

impl LineText {
    fn joined(self) -> String {
        let (Bounded(mut message), Bounded(fields)) = (self.message, self.fields);
        if message.is_empty() {
            return fields.trim_start().to_owned();
        }
        message.push_str(&fields);
        message
    }
}

impl Visit for LineText {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // An error says that there is no more room.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::task::run_log::making;

    /// What is logged in the span of a run.
    fn logged(layer: LogLines, body: impl FnOnce()) -> Vec<(String, String)> {
        let log = Arc::<RunLog>::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let span = making(Some(&log), || tracing::info_span!("task"));
            tracing::info!("outside");
            span.in_scope(body);
        });
        let lines = log.take().lines.into_iter();
        lines.map(|line| (line.level, line.text)).collect()
    }

    fn told(level: &str, text: &str) -> (String, String) {
        (level.to_owned(), text.to_owned())
    }

    #[test]
    fn the_lines_of_a_run_are_those_inside_of_its_span() {
        let told_lines = logged(log_lines(), || {
            tracing::info!(user = 5, name = "anna", "mail is sent");
            tracing::debug!("too much");
            let inner = tracing::info_span!("inner");
            inner.in_scope(|| tracing::warn!("slow"));
            tracing::error!(code = 7);
        });
        let expected = [
            told("INFO", "mail is sent user=5 name=\"anna\""),
            told("WARN", "slow"),
            told("ERROR", "code=7"),
        ];
        assert_eq!(told_lines, expected);
        let verbose = logged(log_lines().with_max_level(Level::TRACE), || tracing::trace!("all of it"));
        assert_eq!(verbose, [told("TRACE", "all of it")]);
    }

    #[test]
    fn a_line_that_is_too_long_is_cut() {
        let lines = logged(log_lines(), || {
            tracing::info!(data = "x".repeat(10_000), "\u{e4}{}", "\u{e4}".repeat(10_000));
        });
        assert_eq!(lines.len(), 1);
        assert!(lines[0].1.len() <= LONGEST_LINE && lines[0].1.starts_with("ää"), "{lines:?}");
    }

    #[test]
    fn a_span_that_is_no_run_has_no_log() {
        let lines = logged(log_lines(), || {
            let other = making(None, || tracing::info_span!(parent: None, "task"));
            other.in_scope(|| tracing::info!("of nobody"));
        });
        assert!(lines.is_empty(), "{lines:?}");
    }
}
