//! The attempts of a task that have failed, which its message carries along: what an operator asks first of a task that
//! has failed for good.
//!
//! They are in a header of the message, as JSON text, which passes unharmed through every broker and every retry of a
//! Python worker. Invariant: the header is bounded, however often a task is tried and whatever its errors say.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::run_log::LogExcerpt;
use super::{LogLine, Message, TaskResult};
use crate::core::Timestamp;
use crate::core::text::shortened;

/// The header that holds the attempts.
const ATTEMPTS: &str = "celeriac_attempts";
/// The most attempts that a message carries: the first one, and the last ones.
const MOST: usize = 10;
/// The most bytes of the text of each error.
const LONGEST: usize = 500;
/// The most bytes of the log lines of all attempts together. The last attempt's come first.
const LOGS: usize = 16 << 10;
/// What a line takes beside its text, about.
const LINE: usize = 64;

/// An attempt of a task that has failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FailedAttempt {
    /// The number of the attempt, counted from 1.
    pub attempt: u32,
    /// The time at which the attempt failed.
    pub at: Timestamp,
    /// The type of the error, or a name of Celeriac's such as `Panic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
    /// The text of the error on one line, cut to 500 bytes. Several messages are joined.
    pub error: String,
    /// The place of a panic in the source, such as `src/mail.rs:12:5`. It is `None` if the attempt ended otherwise, or if the
    /// program has replaced the panic hook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// The worker of the run, as `queue#slot`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// The last lines that the body has logged, if the program keeps them (`celeriac::log_lines`, feature `log-lines`): fifty at
    /// most, and 16 KiB for all attempts of a task. The older attempts lose theirs first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<LogLine>,
    /// How many lines the body has logged before these.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub log_left_out: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl FailedAttempt {
    /// The attempt that ended with this record. `place` is that of its panic.
    pub(crate) fn of(record: &TaskResult, place: Option<&str>) -> Self {
        Self {
            attempt: record.attempts,
            at: record.finished_at,
            error_type: record.error_type.as_deref().map(on_one_line),
            error: on_one_line(&record.errors.join(": ")),
            place: place.map(on_one_line),
            worker: record.worker.as_deref().map(on_one_line),
            log: Vec::new(),
            log_left_out: 0,
        }
    }

    /// The same attempt, with the lines that its body has logged.
    pub(crate) fn with_log(self, LogExcerpt { lines, left_out }: LogExcerpt) -> Self {
        Self { log: lines.into(), log_left_out: left_out, ..self }
    }

    /// The same with texts that are as short as those of [`of`](Self::of): somebody else may have written the header.
    fn bounded(self) -> Self {
        Self {
            error_type: self.error_type.as_deref().map(on_one_line),
            error: on_one_line(&self.error),
            place: self.place.as_deref().map(on_one_line),
            worker: self.worker.as_deref().map(on_one_line),
            log: self.log.into_iter().map(LogLine::bounded).collect(),
            ..self
        }
    }
}

/// A text without control characters, each of which would take six bytes in JSON.
fn on_one_line(text: &str) -> String {
    shortened(text, LONGEST).replace(char::is_control, " ")
}

/// Leaves out log lines where there are too many: the oldest ones of the oldest attempts first.
fn bound_logs(attempts: &mut [FailedAttempt]) {
    let mut left = LOGS;
    for attempt in attempts.iter_mut().rev() {
        let newest_first = attempt.log.iter().rev();
        let fits = newest_first.take_while(|line| {
            let room = left.checked_sub(line.text.len() + LINE);
            left = room.unwrap_or_default();
            room.is_some()
        });
        let gone = attempt.log.len() - fits.count();
        attempt.log.drain(..gone);
        attempt.log_left_out = attempt.log_left_out.saturating_add(gone as u64);
    }
}

impl Message {
    /// The attempts of the task that have failed since it was enqueued, continued or put back, in their order. Of many, they
    /// are the first one and the last nine.
    pub fn failed_attempts(&self) -> Vec<FailedAttempt> {
        let text = self.headers.0.get(ATTEMPTS).and_then(Value::as_str);
        // What somebody else has written there counts for nothing.
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// Adds an attempt that has failed.
    pub(crate) fn note_failed_attempt(&mut self, attempt: FailedAttempt) {
        let mut attempts = self.failed_attempts();
        attempts.push(attempt);
        self.write_attempts(attempts);
    }

    /// Adds the lines that the body of the last attempt has logged to that attempt.
    pub(crate) fn note_log(&mut self, log: LogExcerpt) {
        if log == LogExcerpt::default() {
            return;
        }
        let mut attempts = self.failed_attempts();
        if let Some(last) = attempts.pop() {
            attempts.push(last.with_log(log));
            self.write_attempts(attempts);
        }
    }

    fn write_attempts(&mut self, mut attempts: Vec<FailedAttempt>) {
        if attempts.len() > MOST {
            attempts.drain(1..=attempts.len() - MOST);
        }
        let mut attempts: Vec<FailedAttempt> = attempts.into_iter().map(FailedAttempt::bounded).collect();
        bound_logs(&mut attempts);
        if let Ok(text) = serde_json::to_string(&attempts) {
            self.headers.0.insert(ATTEMPTS.to_owned(), text.into());
        }
    }

    /// Forgets the attempts that have failed, because they are counted anew.
    pub(crate) fn forget_failed_attempts(&mut self) {
        self.headers.0.remove(ATTEMPTS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Context, State};

    fn failed(attempt: u32, error: &str) -> FailedAttempt {
        let message = Context::detached().message().clone();
        let mut record = TaskResult::of(&message, State::Retry, Timestamp::from_millis(attempt.into()));
        record.attempts = attempt;
        record.errors = vec![error.to_owned(), "because".to_owned()];
        FailedAttempt::of(&record, Some("src/mail.rs:1:2"))
    }

    #[test]
    fn of_many_attempts_the_first_and_the_last_ones_are_kept() {
        let mut message = Context::detached().message().clone();
        assert_eq!(message.failed_attempts(), []);
        for attempt in 1..=30 {
            message.note_failed_attempt(failed(attempt, "no"));
        }
        let attempts: Vec<u32> = message.failed_attempts().iter().map(|failed| failed.attempt).collect();
        assert_eq!(attempts, [1, 22, 23, 24, 25, 26, 27, 28, 29, 30]);
        assert_eq!(message.failed_attempts()[9], failed(30, "no"));
        assert_eq!(message.failed_attempts()[9].error, "no: because");
        message.forget_failed_attempts();
        assert!(message.failed_attempts().is_empty() && message.headers.0.is_empty());
    }

    /// A log of so many lines of this text.
    fn log(lines: usize, text: &str) -> LogExcerpt {
        let line = |n: usize| LogLine::new(Timestamp::from_millis(n as u64), "INFO", text);
        LogExcerpt { lines: (0..lines).map(line).collect(), left_out: 3 }
    }

    #[test]
    fn the_lines_of_the_last_attempts_are_kept() {
        let mut message = Context::detached().message().clone();
        message.note_log(log(1, "of no attempt"));
        assert!(message.headers.0.is_empty());
        message.note_failed_attempt(failed(1, "no"));
        message.note_log(LogExcerpt::default());
        message.note_log(log(2, "said"));
        let attempts = message.failed_attempts();
        assert_eq!((attempts[0].log.len(), attempts[0].log_left_out), (2, 3));
        assert_eq!(attempts[0].log[1].text, "said");
        for attempt in 2..=30 {
            message.note_failed_attempt(failed(attempt, "no").with_log(log(50, &"x".repeat(500))));
        }
        let kept: Vec<usize> = message.failed_attempts().iter().map(|attempt| attempt.log.len()).collect();
        assert_eq!(kept, [0, 0, 0, 0, 0, 0, 0, 0, 0, LOGS / (500 + LINE)]);
        let last = &message.failed_attempts()[9];
        assert_eq!((last.log[0].at, last.log_left_out), (Timestamp::from_millis(50 - 29), 3 + 50 - 29));
        let bytes = message.headers.0[ATTEMPTS].as_str().map_or(usize::MAX, str::len);
        assert!(bytes < LOGS + MOST * (LONGEST + 200), "{bytes}");
    }

    /// Earlier versions know nothing of lines, and wrote none.
    #[test]
    fn what_an_earlier_version_wrote_is_read() {
        let mut message = Context::detached().message().clone();
        let earlier = r#"[{"attempt":1,"at":5,"error":"no"}]"#;
        message.headers.0.insert(ATTEMPTS.to_owned(), earlier.into());
        let attempts = message.failed_attempts();
        assert_eq!((attempts.len(), attempts[0].log.len(), attempts[0].log_left_out), (1, 0, 0));
        message.note_failed_attempt(attempts[0].clone());
        let written = message.headers.0[ATTEMPTS].as_str().unwrap_or_default();
        assert!(!written.contains("log"), "{written}");
    }

    #[test]
    fn the_header_is_bounded_and_one_that_somebody_else_wrote_counts_for_nothing() {
        let mut message = Context::detached().message().clone();
        for value in [Value::from("no JSON"), Value::from(7), Value::from("[{\"attempt\": -1}]")] {
            message.headers.0.insert(ATTEMPTS.to_owned(), value);
            assert_eq!(message.failed_attempts(), []);
        }
        for attempt in 1..=30 {
            message.note_failed_attempt(failed(attempt, &"\u{e4}".repeat(100_000)));
        }
        let bytes = |message: &Message| message.headers.0[ATTEMPTS].as_str().map_or(usize::MAX, str::len);
        assert!(bytes(&message) < MOST * (LONGEST + 200), "{}", bytes(&message));
        message.forget_failed_attempts();
        for attempt in 1..=30 {
            message.note_failed_attempt(failed(attempt, &"\u{1}\n".repeat(100_000)));
        }
        assert!(bytes(&message) < MOST * (LONGEST + 200), "{}", bytes(&message));

        let long = "x".repeat(10_000);
        let odd = FailedAttempt {
            error_type: Some(long.clone()),
            error: long.clone(),
            place: Some(long.clone()),
            worker: Some(long),
            ..failed(1, "no")
        };
        let forged = serde_json::to_string(&vec![odd; MOST]).unwrap();
        message.headers.0.insert(ATTEMPTS.to_owned(), forged.into());
        message.note_failed_attempt(failed(2, "no"));
        assert!(bytes(&message) < MOST * (4 * LONGEST + 200), "{}", bytes(&message));
    }
}
