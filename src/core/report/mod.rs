//! What needs a person in a program, in a fleet, or in a store: which queue misses its promise or will, since when, what
//! presses it, what does not, and who can do what about it.
//!
//! `ReportFacts -> Diagnosis` is a pure function. Invariants:
//! - What needs a person is decided by one rule, [`QueueCondition`], for the console, the terminal and the report.
//! - Of each queue all causes that apply are listed, in one order for everybody. The first one is *the* cause.
//! - A cause is ruled out only if it was looked at.
//! - The sentences are made by the grammar of [explanations](super::explanation).

mod cause;
mod condition;
mod facts;
mod words;

use serde::Serialize;

use super::Timestamp;
use super::explanation::{ExplanationScope, Remedy, grammar};
pub use condition::{QueueCondition, promise_used};
pub use facts::{
    BlockedLane, BrakeFigures, LongestRun, ProcessFigures, ProgramFailure, QueueFigures, QueueService,
    ReportFacts, TopTenant,
};

/// What needs a person. As text it is a sentence; its JSON is explained in docs/report.md.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Diagnosis {
    /// The most important of it in a sentence or two.
    pub sentence: String,
    /// What needs a person, the worst first; empty: nothing does.
    pub findings: Vec<Finding>,
    /// All queues, what has to be looked at first before the others.
    pub queues: Vec<QueueFigures>,
    /// The processes that have answered.
    pub processes: Vec<ProcessFigures>,
    /// When this was looked up.
    #[serde(serialize_with = "crate::core::json_time::iso")]
    pub as_of: Timestamp,
    /// Who was asked, and what nobody could say.
    pub scope: ExplanationScope,
}

/// Something that needs a person.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// The queue; `None`: it is about a program as a whole, or about a lane whose queue is not known.
    pub queue: Option<String>,
    /// The condition of the queue, if the finding is about one.
    pub condition: Option<QueueCondition>,
    /// Since when that is so, if it can be said.
    #[serde(serialize_with = "crate::core::json_time::optional_iso")]
    pub since: Option<Timestamp>,
    /// What it is, as a sentence.
    pub sentence: String,
    /// What causes it, *the* cause first. There is at least one.
    pub causes: Vec<FindingCause>,
    /// What was looked at and is not the cause.
    pub ruled_out: Vec<RuledOutCause>,
}

/// The cause of a finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FindingCause {
    /// The name of the cause.
    pub code: &'static str,
    /// The cause as a sentence.
    pub says: String,
    /// What takes it away, the likeliest first, and who can do that.
    pub remedies: Vec<Remedy>,
}

/// What was looked at and causes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RuledOutCause {
    /// The name of the cause.
    pub code: &'static str,
    /// That it is none, as a sentence.
    pub says: String,
}

impl Diagnosis {
    /// The finding about a queue.
    pub fn of_queue(&self, queue: &str) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.queue.as_deref() == Some(queue))
    }
}

impl Finding {
    /// For how long that has been so, in words, at the time of the look.
    pub fn lasts(&self, as_of: Timestamp) -> Option<String> {
        self.since.map(|since| grammar::span(as_of.since(since)))
    }
}

impl std::fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.sentence)
    }
}

/// Says what needs a person.
pub fn diagnose(facts: ReportFacts) -> Diagnosis {
    let mut queues: Vec<&QueueFigures> = facts.queues.iter().collect();
    queues.sort_by(|one, other| rank(one).cmp(&rank(other)));
    let of_programs = facts.failures.iter().map(cause::of_program);
    let of_queues = queues.iter().filter_map(|queue| cause::of_queue(queue, &facts));
    let is_listed = |name: &str| facts.queues.iter().any(|queue| queue.name == name);
    let of_lanes = facts.lanes.iter().filter(|lane| !lane.queue.as_deref().is_some_and(is_listed));
    let of_lanes = of_lanes.map(|lane| cause::of_lane(lane, facts.as_of));
    let findings: Vec<Finding> = of_programs.chain(of_queues).chain(of_lanes).collect();
    let sentence = words::headline(&findings, &facts.queues);
    let queues = queues.into_iter().cloned().collect();
    let ReportFacts { as_of, processes, scope, .. } = facts;
    Diagnosis { sentence, findings, queues, processes, as_of, scope }
}

/// What is with a queue, as the rest of a sentence that begins with its name. The console's first page says it too.
pub fn predicate(queue: &QueueFigures) -> String {
    words::predicate(queue, &[])
}

/// What has to be said first: by condition, then by the share of the promise that is used.
pub fn rank(queue: &QueueFigures) -> (QueueCondition, std::cmp::Reverse<u64>, &str) {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a share is not negative
    let used = (promise_used(queue).unwrap_or_default() * 1e6) as u64;
    (QueueCondition::of(queue), std::cmp::Reverse(used), &queue.name)
}

#[cfg(test)]
mod tests;
