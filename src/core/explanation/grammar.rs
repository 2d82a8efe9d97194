//! The sentences of explanations. Page, terminal, report and JSON say the same, because they take it from here.
//!
//! A sentence is made of a subject, a reason, the queue and the times. [`Speaker::clause`] makes the part behind "It waits
//! because"; all whole sentences are made of clauses. Names of tasks, queues and keys stand between backticks.

use std::time::Duration;

use super::facts::{BoundedCount, NotServed};
use super::reason::{RuledOut, TaskReason};
use crate::core::Timestamp;
use crate::core::forecast::{OBSERVED_AT_LEAST, StartForecast};

/// Who speaks of one task, or of a queue, at one moment.
#[derive(Clone, Copy, Debug)]
pub(in crate::core) struct Speaker<'a> {
    pub(in crate::core) queue: Option<&'a str>,
    pub(in crate::core) as_of: Timestamp,
    /// Whether the queue itself is spoken of, as in a report, and not a task in it.
    pub(in crate::core) is_of_queue: bool,
}

impl Speaker<'_> {
    /// The sentence that begins an explanation.
    pub(super) fn headline(&self, reason: &TaskReason) -> String {
        match reason {
            TaskReason::Starting
            | TaskReason::Moving
            | TaskReason::Running { .. }
            | TaskReason::Over { .. }
            | TaskReason::Unknown { .. } => self.sentence(reason),
            _ => format!("It waits because {}.", self.clause(reason)),
        }
    }

    /// A reason as a sentence of its own.
    pub(in crate::core) fn sentence(&self, reason: &TaskReason) -> String {
        capitalized(&self.clause(reason))
    }

    /// A reason as the rest of a sentence.
    fn clause(&self, reason: &TaskReason) -> String {
        let queue = self.its_queue();
        match reason {
            TaskReason::NotDue { at } => format!("it is not due before {}", self.moment(*at)),
            TaskReason::RetryAt { attempt, at } => {
                format!("its last attempt failed, and attempt {attempt} is due {}", self.moment(*at))
            }
            TaskReason::Paused { by, until, is_kept } => {
                let by = by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
                let until = until.map(|at| format!(" until {}", self.moment(at))).unwrap_or_default();
                let kept = if *is_kept { ", and stays so after a restart" } else { "" };
                format!("{queue} is paused{by}{until}{kept}")
            }
            TaskReason::Held { hold, wait } => match wait {
                Some(wait) => format!("{hold}; it is looked at again within {}", span(*wait)),
                None => hold.to_string(),
            },
            TaskReason::LaneBlocked { key, by, since, error, .. } => {
                let age = self.age(*since);
                format!("its lane `{key}` is blocked {age} by the failure of task {by}: {error}")
            }
            TaskReason::LaneBusy { key, ahead, concurrency, holder, since, .. } => {
                let lets_in = match concurrency {
                    0 => "lets nobody in, as somebody has set by hand".to_owned(),
                    concurrency => format!("lets {concurrency} in at a time"),
                };
                let holder = holder.as_ref().map(|holder| {
                    let age = since.map(|since| format!(" {}", self.age(since))).unwrap_or_default();
                    format!(", task {holder} is in{age}")
                });
                let line = match ahead.count {
                    0 if !ahead.or_more => ", and it is the next".to_owned(),
                    _ => format!(", and {} before it in that line", tasks(*ahead)),
                };
                format!("its lane `{key}` {lets_in}{}{line}", holder.unwrap_or_default())
            }
            TaskReason::NotServed { why } => match why {
                NotServed::ByCatalogue => {
                    format!("{queue} is served elsewhere, as its row of the catalogue says")
                }
                NotServed::NoSuchQueue => format!("this program does not serve {queue}"),
                NotServed::Cancelled => format!("this program was told to take nothing from {queue}"),
                NotServed::ProgramStopped => "the program of this store does not run".to_owned(),
            },
            TaskReason::NotAnswering => format!(
                "{queue} does not answer: a task blocks its event loop, or its actor is being restarted"
            ),
            TaskReason::Draining => "the program is shutting down and starts nothing more".to_owned(),
            TaskReason::Halted { why } => format!("{queue} has stopped itself: {why}"),
            TaskReason::StoreAsked => "the store has not said yet whether it is revoked".to_owned(),
            TaskReason::QueueFull { workers: 1 } => format!("the one worker of {queue} has a task"),
            TaskReason::QueueFull { workers } => format!("all {workers} workers of {queue} have a task"),
            TaskReason::WorkersStarting { workers: 1 } => {
                format!("the one worker of {queue} is being started")
            }
            TaskReason::WorkersStarting { workers } => {
                format!("none of the {workers} workers of {queue} that have no task is ready yet")
            }
            TaskReason::Behind { ahead, of_tenant } => {
                let own = match of_tenant {
                    Some(own) => format!(", {own} of them of its own tenant"),
                    None => String::new(),
                };
                format!("{} before it{own}", tasks_going(*ahead))
            }
            TaskReason::SlotsBusy { slots } => {
                format!("all {slots} slots of the pool that {queue} shares with others are taken")
            }
            TaskReason::Demoted { from } => format!(
                "its tenant had sent more than the queue `{from}` takes from one tenant, so it went to {queue}"
            ),
            TaskReason::Starting => "nothing keeps it from starting: it starts within moments".to_owned(),
            TaskReason::Moving => "it is on its way between the broker and its queue".to_owned(),
            TaskReason::Elsewhere { node, how } => {
                format!("the worker `{node}` has it ({how}), and does not say more")
            }
            TaskReason::Running { since, worker, attempt } => {
                let worker = worker.as_ref().map(|worker| format!(" on `{worker}`")).unwrap_or_default();
                let since = since.map(|since| format!(" {}", self.age(since))).unwrap_or_default();
                let attempt = attempt.map(|attempt| format!(", attempt {attempt}")).unwrap_or_default();
                format!("it runs{worker}{since}{attempt}")
            }
            TaskReason::Over { state, at } => format!("it is over {}: {state}", self.age(*at)),
            TaskReason::Unknown { told: None } => {
                "nobody who was asked has it: it waits elsewhere, or it is over and its record is gone, or it never was"
                    .to_owned()
            }
            TaskReason::Unknown { told: Some(told) } => {
                format!("nobody who was asked has it, and the last that the store was told is {told}")
            }
        }
    }

    /// A reason that does not apply, as a sentence.
    pub(in crate::core) fn ruled_out(&self, ruled_out: RuledOut) -> String {
        let queue = self.its_queue();
        capitalized(&match ruled_out {
            RuledOut::NotDue => "it is due".to_owned(),
            RuledOut::Paused => format!("{queue} is not paused"),
            RuledOut::Held => "no rate limit, brake or limit holds it".to_owned(),
            RuledOut::Lane { is_serial: true } => "its lane has let it in".to_owned(),
            RuledOut::Lane { is_serial: false } => "it stands in no lane".to_owned(),
            RuledOut::NotServed => format!("{queue} is served here, and answers"),
            RuledOut::Draining => "the program is not shutting down".to_owned(),
            RuledOut::Halted => format!("{queue} has not stopped itself"),
            RuledOut::QueueFull { idle: 1 } => format!("one worker of {queue} is free"),
            RuledOut::QueueFull { idle } => format!("{idle} workers of {queue} are free"),
            RuledOut::Behind => "nobody before it in line keeps it from starting".to_owned(),
        })
    }

    /// When the task will start, as a sentence.
    pub(super) fn starts(&self, forecast: &StartForecast) -> String {
        match forecast {
            StartForecast::Between { from, to, record } => {
                let (from, to) = (from.since(self.as_of), to.since(self.as_of));
                let when = match (span(from), span(to)) {
                    (from, to) if from == to => format!("in {to}"),
                    (_, to) if from < Duration::from_secs(1) => format!("within {to}"),
                    (from, to) => format!("in {from} to {to}"),
                };
                let record = match record.coverage() {
                    Some(share) => format!("{:.0} % of the last {} came true", share * 100.0, record.of),
                    None => "none has come to its end yet".to_owned(),
                };
                format!("It is likely to start {when}. Of such forecasts of its queue, {record}.")
            }
            StartForecast::NotKnownYet { observed } => {
                format!(
                    "When it starts is not known yet: its queue has seen {observed} of {OBSERVED_AT_LEAST} runs."
                )
            }
            StartForecast::NotBefore { at } => {
                format!("It does not start before {}.", self.moment(*at))
            }
            StartForecast::NotInSight => {
                "Its start is not in sight: more urgent tasks come as fast as its queue starts them."
                    .to_owned()
            }
            StartForecast::Open => "When it starts cannot be said while that lasts.".to_owned(),
        }
    }

    fn its_queue(&self) -> String {
        match self.queue {
            Some(queue) if self.is_of_queue => format!("queue `{queue}`"),
            Some(queue) => format!("its queue `{queue}`"),
            None => "its queue".to_owned(),
        }
    }

    /// A moment, with how far it is from now.
    fn moment(&self, at: Timestamp) -> String {
        if at > self.as_of {
            format!("{at} (in {})", span(at.since(self.as_of)))
        } else {
            format!("{at} ({} ago)", span(self.as_of.since(at)))
        }
    }

    /// For how long something has been so.
    pub(in crate::core) fn age(&self, since: Timestamp) -> String {
        format!("for {}", span(self.as_of.since(since)))
    }
}

/// Writes a number of tasks as the subject of a sentence, with their verb.
fn tasks(BoundedCount { count, or_more }: BoundedCount) -> String {
    match (count, or_more) {
        (1, false) => "1 task is".to_owned(),
        (count, false) => format!("{} tasks are", grouped(count)),
        (count, true) => format!("{} tasks or more are", grouped(count)),
    }
}

fn tasks_going(BoundedCount { count, or_more }: BoundedCount) -> String {
    match (count, or_more) {
        (1, false) => "1 task goes".to_owned(),
        (count, false) => format!("{} tasks go", grouped(count)),
        (count, true) => format!("{} tasks or more go", grouped(count)),
    }
}

/// A number with commas between groups of three digits.
pub(in crate::core) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A span of time for a reader: two units at most.
pub(in crate::core) fn span(duration: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let two = |(large, its_unit): (u64, &str), (small, unit): (u64, &str)| match small {
        0 => format!("{} {its_unit}", grouped(large)),
        small => format!("{} {its_unit} {small} {unit}", grouped(large)),
    };
    match duration.as_secs() {
        0 => "less than a second".to_owned(),
        secs @ ..MINUTE => format!("{secs} s"),
        secs @ ..HOUR => two((secs / MINUTE, "min"), (secs % MINUTE, "s")),
        secs @ ..DAY => two((secs / HOUR, "h"), (secs % HOUR / MINUTE, "min")),
        secs => two((secs / DAY, "d"), (secs % DAY / HOUR, "h")),
    }
}

/// A clause as a sentence.
pub(in crate::core) fn capitalized(clause: &str) -> String {
    let mut letters = clause.chars();
    match letters.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), letters.as_str()),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::forecast::ForecastRecord;
    use crate::core::hold::HoldReason;

    const NOW: Timestamp = Timestamp::from_millis(1_795_348_800_000); // 2026-11-22T12:00Z

    fn speaker() -> Speaker<'static> {
        Speaker { queue: Some("email"), as_of: NOW, is_of_queue: false }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn busy(ahead: u64, holder: Option<&str>, concurrency: u32) -> TaskReason {
        TaskReason::LaneBusy {
            scope: "app.mail".to_owned(),
            key: "joe".to_owned(),
            ahead: BoundedCount::exactly(ahead),
            concurrency,
            holder: holder.map(str::to_owned),
            since: holder.map(|_| NOW - seconds(90)),
        }
    }

    #[test]
    fn each_reason_is_a_sentence() {
        let limit = HoldReason::RateLimit { limit: "10/m".to_owned() };
        let behind = |count, or_more, of_tenant| TaskReason::Behind {
            ahead: BoundedCount { count, or_more },
            of_tenant,
        };
        let paused = |by: Option<&str>, until, is_kept| TaskReason::Paused {
            by: by.map(str::to_owned),
            until,
            is_kept,
        };
        let halted = "its workers died 5 times".to_owned();
        let running = |worker: Option<&str>| TaskReason::Running {
            since: Some(NOW - seconds(3_700)),
            worker: worker.map(str::to_owned),
            attempt: Some(2),
        };
        for (reason, expected) in [
            (
                TaskReason::NotDue { at: NOW + seconds(300) },
                "It waits because it is not due before 2026-11-22T12:05:00.000Z (in 5 min).",
            ),
            (
                TaskReason::RetryAt { attempt: 3, at: NOW + seconds(40) },
                "It waits because its last attempt failed, and attempt 3 is due 2026-11-22T12:00:40.000Z (in 40 s).",
            ),
            (paused(None, None, false), "It waits because its queue `email` is paused."),
            (
                paused(Some("ann"), Some(NOW + seconds(3_600)), true),
                "It waits because its queue `email` is paused by ann until 2026-11-22T13:00:00.000Z (in 1 h), and stays so after a restart.",
            ),
            (
                TaskReason::Held { hold: limit.clone(), wait: Some(seconds(6)) },
                "It waits because the rate limit of its task, 10/m, is used up in this process; it is looked at again within 6 s.",
            ),
            (
                TaskReason::Held { hold: limit, wait: None },
                "It waits because the rate limit of its task, 10/m, is used up in this process.",
            ),
            (
                busy(0, Some("9f0c"), 1),
                "It waits because its lane `joe` lets 1 in at a time, task 9f0c is in for 1 min 30 s, and it is the next.",
            ),
            (
                busy(2, None, 0),
                "It waits because its lane `joe` lets nobody in, as somebody has set by hand, and 2 tasks are before it in that line.",
            ),
            (
                TaskReason::LaneBlocked {
                    scope: "app.mail".to_owned(),
                    key: "joe".to_owned(),
                    by: "9f0c".to_owned(),
                    since: NOW - seconds(86_400 * 3),
                    error: "no such order".to_owned(),
                },
                "It waits because its lane `joe` is blocked for 3 d by the failure of task 9f0c: no such order.",
            ),
            (
                TaskReason::NotServed { why: NotServed::ByCatalogue },
                "It waits because its queue `email` is served elsewhere, as its row of the catalogue says.",
            ),
            (
                TaskReason::NotServed { why: NotServed::ProgramStopped },
                "It waits because the program of this store does not run.",
            ),
            (TaskReason::Draining, "It waits because the program is shutting down and starts nothing more."),
            (
                TaskReason::Halted { why: halted },
                "It waits because its queue `email` has stopped itself: its workers died 5 times.",
            ),
            (
                TaskReason::QueueFull { workers: 1 },
                "It waits because the one worker of its queue `email` has a task.",
            ),
            (
                TaskReason::QueueFull { workers: 4 },
                "It waits because all 4 workers of its queue `email` have a task.",
            ),
            (behind(1, false, None), "It waits because 1 task goes before it."),
            (
                behind(10_000, true, Some(12)),
                "It waits because 10,000 tasks or more go before it, 12 of them of its own tenant.",
            ),
            (TaskReason::Starting, "Nothing keeps it from starting: it starts within moments."),
            (running(Some("email#3")), "It runs on `email#3` for 1 h 1 min, attempt 2."),
            (running(None), "It runs for 1 h 1 min, attempt 2."),
            (
                TaskReason::Over { state: "SUCCESS".to_owned(), at: NOW },
                "It is over for less than a second: SUCCESS.",
            ),
            (
                TaskReason::Unknown { told: Some("RETRY".to_owned()) },
                "Nobody who was asked has it, and the last that the store was told is RETRY.",
            ),
        ] {
            assert_eq!(speaker().headline(&reason), expected, "{reason:?}");
        }
        let nameless = Speaker { queue: None, as_of: NOW, is_of_queue: false };
        assert_eq!(nameless.sentence(&paused(None, None, false)), "Its queue is paused.");
    }

    #[test]
    fn a_forecast_says_when_and_how_often_it_was_right() {
        let record = |right, of| ForecastRecord { right, of };
        let between = |from, to, record| StartForecast::Between {
            from: NOW + seconds(from),
            to: NOW + seconds(to),
            record,
        };
        for (forecast, expected) in [
            (
                between(120, 300, record(81, 100)),
                "It is likely to start in 2 min to 5 min. Of such forecasts of its queue, 81 % of the last 100 came true.",
            ),
            (
                between(0, 7, record(0, 0)),
                "It is likely to start within 7 s. Of such forecasts of its queue, none has come to its end yet.",
            ),
            (
                between(60, 60, record(1, 1)),
                "It is likely to start in 1 min. Of such forecasts of its queue, 100 % of the last 1 came true.",
            ),
            (
                StartForecast::NotKnownYet { observed: 7 },
                "When it starts is not known yet: its queue has seen 7 of 20 runs.",
            ),
            (
                StartForecast::NotBefore { at: NOW + seconds(5) },
                "It does not start before 2026-11-22T12:00:05.000Z (in 5 s).",
            ),
            (StartForecast::Open, "When it starts cannot be said while that lasts."),
        ] {
            assert_eq!(speaker().starts(&forecast), expected);
        }
    }

    #[test]
    fn spans_have_two_units_at_most() {
        for (of, expected) in [
            (0, "less than a second"),
            (59, "59 s"),
            (60, "1 min"),
            (3_599, "59 min 59 s"),
            (3_600, "1 h"),
            (86_399, "23 h 59 min"),
            (90_000, "1 d 1 h"),
            (86_400 * 12_345, "12,345 d"),
        ] {
            assert_eq!(span(seconds(of)), expected);
        }
        assert!(span(Duration::MAX).ends_with(" h"));
    }

    #[test]
    fn what_is_ruled_out_is_a_sentence() {
        for (ruled_out, expected) in [
            (RuledOut::NotDue, "It is due."),
            (RuledOut::Paused, "Its queue `email` is not paused."),
            (RuledOut::Lane { is_serial: false }, "It stands in no lane."),
            (RuledOut::QueueFull { idle: 3 }, "3 workers of its queue `email` are free."),
            (RuledOut::Behind, "Nobody before it in line keeps it from starting."),
        ] {
            assert_eq!(speaker().ruled_out(ruled_out), expected);
        }
    }
}
