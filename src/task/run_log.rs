//! The last lines that the body of a run has logged. They are kept while it runs, and if its attempt fails they stay with that.
//!
//! A layer of the program's own subscriber (`celeriac::log_lines`, feature `log-lines`) sees the lines. It finds the log of
//! their run at the span of the run: whoever makes that span [hands](making) the log to the layer.
//!
//! Invariant: a log is bounded, whatever a body logs: [`MOST_LINES`] lines of [`LONGEST_LINE`] bytes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::core::Timestamp;

/// The most lines of a run: the last ones.
pub(crate) const MOST_LINES: usize = 50;
/// The most bytes of a line.
pub(crate) const LONGEST_LINE: usize = 500;
/// The most bytes of the name of a level.
const LONGEST_LEVEL: usize = 10;

/// A line that the body of a task has logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LogLine {
    /// The time at which the line was logged.
    pub at: Timestamp,
    /// Its level: `ERROR`, `WARN`, `INFO`, `DEBUG` or `TRACE`.
    pub level: String,
    /// Its message and its fields on one line, cut to 500 bytes.
    pub text: String,
}

/// The last lines of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogExcerpt {
    pub(crate) lines: VecDeque<LogLine>,
    /// How many lines came before them.
    pub(crate) left_out: u64,
}

/// The log of one run.
#[derive(Debug, Default)]
pub(crate) struct RunLog(Mutex<LogExcerpt>);

impl LogLine {
    #[cfg(feature = "log-lines")]
    pub(crate) fn new(at: Timestamp, level: &str, text: &str) -> Self {
        Self { at, level: level.to_owned(), text: text.to_owned() }.bounded()
    }

    /// The same line, which is one line and no longer than a line may be: somebody else may have written it.
    pub(crate) fn bounded(mut self) -> Self {
        plain(&mut self.text, LONGEST_LINE);
        plain(&mut self.level, LONGEST_LEVEL);
        self
    }
}

/// Cuts a text to so many bytes, and takes the control characters out of it.
fn plain(text: &mut String, most: usize) {
    text.truncate(text.floor_char_boundary(most));
    if text.contains(char::is_control) {
        *text = text.replace(char::is_control, " ");
    }
}

// Without the feature only the lines of child processes come here, and there are none on other systems than Unix.
#[cfg_attr(not(any(unix, feature = "log-lines")), allow(dead_code))]
impl RunLog {
    /// Adds a line. Of too many, the last ones stay.
    pub(crate) fn push(&self, line: LogLine) {
        let LogExcerpt { lines, left_out } = &mut *self.0.lock();
        if lines.len() >= MOST_LINES {
            lines.pop_front();
            *left_out = left_out.saturating_add(1);
        }
        lines.push_back(line);
    }

    /// Adds the lines that the run has logged in another process.
    pub(crate) fn receive(&self, excerpt: LogExcerpt) {
        excerpt.lines.into_iter().for_each(|line| self.push(line.bounded()));
        let left_out = &mut self.0.lock().left_out;
        *left_out = left_out.saturating_add(excerpt.left_out);
    }

    /// What is in it now, which stays.
    #[cfg(feature = "web")]
    pub(crate) fn so_far(&self) -> LogExcerpt {
        self.0.lock().clone()
    }

    /// Takes everything out.
    pub(crate) fn take(&self) -> LogExcerpt {
        std::mem::take(&mut self.0.lock())
    }
}

/// Whether anybody sees the lines.
static ARE_SEEN: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The log of the run whose span this thread makes.
    static MAKING: RefCell<Option<Arc<RunLog>>> = const { RefCell::new(None) };
}

/// Whether the lines of runs are seen, so that there is something to keep.
pub(crate) fn are_seen() -> bool {
    ARE_SEEN.load(Ordering::Relaxed)
}

/// Makes the span of a run, and hands the log of the run to the layer that sees the lines.
pub(crate) fn making<T>(log: Option<&Arc<RunLog>>, make: impl FnOnce() -> T) -> T {
    let Some(log) = log else { return make() };
    MAKING.set(Some(Arc::clone(log)));
    let made = make();
    MAKING.set(None);
    made
}

/// From now on the lines of runs are seen.
#[cfg(feature = "log-lines")]
pub(crate) fn see() {
    ARE_SEEN.store(true, Ordering::Relaxed);
}

/// The log of the run whose span this thread makes now, if it makes one. There is one answer for each span.
#[cfg(feature = "log-lines")]
pub(crate) fn made_now() -> Option<Arc<RunLog>> {
    MAKING.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: u64) -> LogLine {
        LogLine::new(Timestamp::from_millis(n), "INFO", &format!("line {n}"))
    }

    #[test]
    fn of_too_many_lines_the_last_ones_stay() {
        let (log, child) = (RunLog::default(), RunLog::default());
        let most = MOST_LINES as u64;
        (0..most + 7).for_each(|n| child.push(line(n)));
        log.push(line(0));
        log.receive(child.take());
        #[cfg(feature = "web")]
        assert_eq!(
            (log.so_far().lines.len(), log.so_far().left_out),
            (MOST_LINES, 7 + 1),
            "a look takes nothing"
        );
        let LogExcerpt { lines, left_out } = log.take();
        assert_eq!((lines.len(), left_out), (MOST_LINES, 7 + 1));
        assert_eq!((&lines[0], &lines[MOST_LINES - 1]), (&line(7), &line(most + 6)));
        assert_eq!(log.take(), LogExcerpt::default(), "each is taken once");
    }

    #[test]
    fn a_line_is_one_line_and_not_too_long() {
        let long =
            LogLine::new(Timestamp::ZERO, "INFO", &format!("a\nb\u{1b}[31m {}", "\u{e4}".repeat(1_000)));
        assert!(long.text.starts_with("a b [31m ä") && long.text.len() <= LONGEST_LINE, "{}", long.text);
        let forged = LogLine { level: "\n".repeat(1_000), text: "a\u{1b}b".to_owned(), ..line(1) };
        let LogLine { level, text, .. } = forged.bounded();
        assert_eq!((level.as_str(), text.as_str()), (&*" ".repeat(LONGEST_LEVEL), "a b"));
    }
}
