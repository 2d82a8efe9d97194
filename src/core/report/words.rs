//! The sentences of a report that are about a queue as a whole. What they have in common with explanations of single tasks
//! comes from the grammar there.

use std::time::Duration;

use super::condition::QueueCondition;
use super::facts::{BlockedLane, QueueFigures};
use super::{Finding, cause};
use crate::core::explanation::grammar::{grouped, span};

/// The most important of all findings, in a sentence or two.
pub(super) fn headline(findings: &[Finding], queues: &[QueueFigures]) -> String {
    let Some(first) = findings.first() else {
        let running = queues.iter().fold(0_u64, |sum, queue| sum.saturating_add(queue.running as u64));
        return match queues.len() {
            0 => "There is no queue.".to_owned(),
            1 => format!("The one queue is well; {}.", counted(running, "task runs", "tasks run")),
            all => {
                format!(
                    "All {} queues are well; {}.",
                    grouped(all as u64),
                    counted(running, "task runs", "tasks run")
                )
            }
        };
    };
    let cause = first.causes.first().map(|cause| format!(" {}", cause.says)).unwrap_or_default();
    let more = match findings.len() - 1 {
        0 => String::new(),
        more => format!(" {} a person.", counted(more as u64, "more needs", "more need")),
    };
    format!("{}{cause}{more}", first.sentence)
}

/// What is with a queue, as the rest of a sentence that begins with its name.
pub(super) fn predicate(queue: &QueueFigures, lanes: &[&BlockedLane]) -> String {
    let promised = queue.target.map_or_else(|| "nothing".to_owned(), exact);
    let waited = span(queue.oldest_wait);
    match QueueCondition::of(queue) {
        QueueCondition::Halted => "has stopped itself".to_owned(),
        QueueCondition::Late => {
            format!("is late: its oldest ready task has waited for {waited}, and it promises {promised}")
        }
        QueueCondition::Stuck => format!(
            "has started nothing for {}, and {} ready",
            span(queue.blockage),
            counted(queue.ready, "task is", "tasks are")
        ),
        QueueCondition::Unserved => {
            format!("is served by nobody, and {} ready", counted(queue.ready, "task is", "tasks are"))
        }
        QueueCondition::Silent => "does not answer".to_owned(),
        QueueCondition::AtRisk => {
            format!("will be late soon: its oldest ready task has waited for {waited} of {promised}")
        }
        QueueCondition::Paused => {
            format!("is paused; {}", counted(queue.ready, "task waits", "tasks wait"))
        }
        QueueCondition::Away => "cannot be counted: the broker does not answer".to_owned(),
        QueueCondition::Strained | QueueCondition::Fine | QueueCondition::Idle => aside(queue, lanes),
    }
}

/// What is with a queue that keeps its promise.
fn aside(queue: &QueueFigures, lanes: &[&BlockedLane]) -> String {
    let waiting = lanes.iter().fold(0_u64, |sum, lane| sum.saturating_add(lane.waiting));
    if !lanes.is_empty() {
        let lanes = counted(lanes.len() as u64, "blocked lane", "blocked lanes");
        return format!("has {lanes}, in which {}", counted(waiting, "task waits", "tasks wait"));
    }
    if cause::is_held_long(queue) {
        let held = counted(cause::held(queue), "task", "tasks");
        return format!("has {held} that limits or brakes hold, the oldest for {}", span(queue.oldest_held));
    }
    if queue.stuck > 0 {
        return format!("has {} that nobody could stop", counted(queue.stuck as u64, "body", "bodies"));
    }
    "is well".to_owned()
}

/// A number with its noun.
pub(super) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// A promise, which may be shorter than a second.
fn exact(target: Duration) -> String {
    if target < Duration::from_secs(1) { format!("{} ms", target.as_millis()) } else { span(target) }
}
