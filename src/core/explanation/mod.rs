//! Why a task does not run, and when it will: from what is known of it at one moment.
//!
//! `TaskFacts -> Explanation` is a pure function. Whoever has the facts (the handle on a running program, the command on a
//! store whose program does not run) fills in what it knows, and what it does not know is not guessed.
//!
//! Invariants:
//! - The reasons that apply are all listed, in one order for everybody. The first one is *the* reason: as long as it lasts,
//!   the task does not start, and when it is taken away, the task starts or the next one is named. A demotion stands last: it
//!   keeps nothing from starting, and says why the task is in a queue that may be slow.
//! - A reason is ruled out only if it was looked at.
//! - All sentences are made in one place, the grammar.

mod facts;
pub(super) mod grammar;
mod json;
mod reason;
pub(super) mod remedy;

use std::fmt;

use super::Timestamp;
use super::forecast::StartForecast;
pub use facts::{
    BoundedCount, ElsewhereFacts, EndFacts, ExplanationScope, LaneWait, NotServed, PauseFacts, QueueState,
    RunFacts, Service, TaskFacts, WaitFacts,
};
use grammar::Speaker;
pub use reason::{RuledOut, TaskReason};
pub use remedy::{Remedy, RemedyBy};

/// Why a task does not run, or what else is with it. As text it is its sentence, and when the task will start. Its JSON is
/// explained in docs/why-and-when.md.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Explanation {
    /// The id of the task.
    pub id: String,
    /// The name of the task, if it is known.
    pub task: Option<String>,
    /// The physical name of its queue, if it is known.
    pub queue: Option<String>,
    /// Its tenant, if its call states one.
    pub tenant: Option<String>,
    /// The time at which the facts were looked up.
    pub as_of: Timestamp,
    /// The scope: who was asked, and what nobody could say.
    pub scope: ExplanationScope,
    /// All reasons that apply, *the* reason first. There is at least one.
    pub reasons: Vec<TaskReason>,
    /// The reasons that were looked at and do not apply.
    pub ruled_out: Vec<RuledOut>,
    /// The forecast of when the task will start. `None`: it does not wait, or nobody could be asked.
    pub starts: Option<StartForecast>,
}

impl Explanation {
    /// Returns the reason that applies first.
    pub fn reason(&self) -> &TaskReason {
        static UNKNOWN: TaskReason = TaskReason::Unknown { told: None };
        self.reasons.first().unwrap_or(&UNKNOWN)
    }

    /// Names the state of the task, in a word: `waiting`, `running`, `over` or `unknown`.
    pub fn state(&self) -> &'static str {
        match self.reason() {
            TaskReason::Running { .. } => "running",
            TaskReason::Over { .. } => "over",
            TaskReason::Unknown { .. } => "unknown",
            _ => "waiting",
        }
    }

    /// The reason as a sentence.
    pub fn sentence(&self) -> String {
        self.speaker().headline(self.reason())
    }

    /// Says when the task will start, as a sentence. `None`: it does not wait, or nobody could be asked.
    pub fn starts_in_words(&self) -> Option<String> {
        self.starts.as_ref().map(|starts| self.speaker().starts(starts))
    }

    /// One of the reasons as a sentence of its own.
    pub fn says(&self, reason: &TaskReason) -> String {
        self.speaker().sentence(reason)
    }

    /// Lists what takes a reason away, the likeliest first.
    pub fn remedies(&self, reason: &TaskReason) -> Vec<Remedy> {
        remedy::remedies(reason, self.queue.as_deref())
    }

    fn speaker(&self) -> Speaker<'_> {
        Speaker { queue: self.queue.as_deref(), as_of: self.as_of, is_of_queue: false }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence())?;
        match self.starts_in_words() {
            Some(starts) => write!(f, " {starts}"),
            None => Ok(()),
        }
    }
}

/// Explains what is with a task.
pub fn explain(facts: TaskFacts) -> Explanation {
    let mut ruled_out = Vec::new();
    let reasons = reasons(&facts, &mut ruled_out);
    let starts = reasons.first().and_then(|first| starts(first, &facts));
    let TaskFacts { id, task, queue, tenant, as_of, scope, .. } = facts;
    Explanation { id, task, queue, tenant, as_of, scope, reasons, ruled_out, starts }
}

fn reasons(facts: &TaskFacts, ruled_out: &mut Vec<RuledOut>) -> Vec<TaskReason> {
    if let Some(EndFacts { state, at }) = &facts.over {
        return vec![TaskReason::Over { state: state.clone(), at: *at }];
    }
    if let Some(RunFacts { since, worker, attempt }) = facts.run.clone() {
        return vec![TaskReason::Running { since, worker, attempt }];
    }
    if let Some(ElsewhereFacts { node, how }) = facts.elsewhere.clone() {
        return vec![TaskReason::Elsewhere { node, how }];
    }
    let Some(wait) = &facts.wait else {
        return match facts.is_moving {
            true => vec![TaskReason::Moving],
            false => vec![TaskReason::Unknown { told: facts.told.clone() }],
        };
    };
    let mut reasons = Vec::new();
    match wait.due.filter(|due| *due > facts.as_of) {
        Some(at) if wait.tries > 0 => {
            reasons.push(TaskReason::RetryAt { attempt: wait.tries.saturating_add(1), at });
        }
        Some(at) => reasons.push(TaskReason::NotDue { at }),
        None => ruled_out.push(RuledOut::NotDue),
    }
    let is_known = matches!(wait.service, Service::Here(_));
    match &wait.pause {
        Some(PauseFacts { by, until, is_kept }) => {
            reasons.push(TaskReason::Paused { by: by.clone(), until: *until, is_kept: *is_kept });
        }
        None if is_known => ruled_out.push(RuledOut::Paused),
        None => {}
    }
    let holds = wait.holds.iter().cloned();
    reasons.extend(holds.map(|hold| TaskReason::Held { hold: hold.reason, wait: hold.wait }));
    if is_known && wait.holds.is_empty() {
        ruled_out.push(RuledOut::Held);
    }
    match (&wait.lane, wait.is_serial) {
        (Some(lane), _) => reasons.extend(lane_reasons(lane)),
        // A task that is not due has not come to its lane.
        (None, Some(true)) if wait.due.is_some() => {}
        (None, is_serial) => ruled_out.extend(is_serial.map(|is_serial| RuledOut::Lane { is_serial })),
    }
    service_reasons(wait, &mut reasons, ruled_out);
    if reasons.is_empty() {
        reasons.push(TaskReason::Starting);
    }
    reasons.extend(facts.demoted_from.clone().map(|from| TaskReason::Demoted { from }));
    reasons
}

fn lane_reasons(lane: &LaneWait) -> impl Iterator<Item = TaskReason> {
    let LaneWait { scope, key, concurrency, holders, ahead, blocked } = lane.clone();
    let first = holders.into_iter().min_by_key(|(_, since)| *since);
    let blocked = blocked.map(|(by, since, error)| TaskReason::LaneBlocked {
        scope: scope.clone(),
        key: key.clone(),
        by,
        since,
        error,
    });
    // A lane that is only blocked has room.
    let is_busy = first.is_some() || concurrency == 0 || blocked.is_none() || ahead.count > 0;
    let (holder, since) = first.unzip();
    let busy = TaskReason::LaneBusy { scope, key, ahead, concurrency, holder, since };
    blocked.into_iter().chain(is_busy.then_some(busy))
}

/// The reasons that lie with the queue of the task.
fn service_reasons(wait: &WaitFacts, reasons: &mut Vec<TaskReason>, ruled_out: &mut Vec<RuledOut>) {
    let is_behind =
        |idle: usize| wait.ahead.is_some_and(|ahead| ahead.count > 0 && ahead.count >= idle as u64);
    let behind = wait.ahead.map(|ahead| TaskReason::Behind { ahead, of_tenant: wait.ahead_of_tenant });
    let queue = match &wait.service {
        Service::Here(queue) => queue,
        others => {
            match others {
                Service::NotHere(why) => reasons.push(TaskReason::NotServed { why: *why }),
                Service::Silent => reasons.push(TaskReason::NotAnswering),
                Service::Ended => reasons.push(TaskReason::Draining),
                Service::Unasked | Service::Here(_) => {}
            }
            reasons.extend(behind.filter(|_| is_behind(0)));
            return;
        }
    };
    match queue.is_cancelled {
        true => reasons.push(TaskReason::NotServed { why: NotServed::Cancelled }),
        false => ruled_out.push(RuledOut::NotServed),
    }
    match queue.is_draining {
        true => reasons.push(TaskReason::Draining),
        false => ruled_out.push(RuledOut::Draining),
    }
    match &queue.halted {
        Some(why) => reasons.push(TaskReason::Halted { why: why.clone() }),
        None => ruled_out.push(RuledOut::Halted),
    }
    if wait.is_unchecked {
        reasons.push(TaskReason::StoreAsked);
    }
    if queue.running >= queue.workers {
        reasons.push(TaskReason::QueueFull { workers: queue.workers });
    } else if queue.idle == 0 {
        reasons.push(TaskReason::WorkersStarting { workers: queue.workers - queue.running });
    } else {
        ruled_out.push(RuledOut::QueueFull { idle: queue.idle });
    }
    if is_behind(queue.idle) {
        reasons.extend(behind);
    } else if wait.ahead.is_some() {
        ruled_out.push(RuledOut::Behind);
    }
    reasons.extend(queue.busy_pool.map(|slots| TaskReason::SlotsBusy { slots }));
}

/// When the task starts, if this is why it does not.
fn starts(first: &TaskReason, facts: &TaskFacts) -> Option<StartForecast> {
    let not_before = |at| StartForecast::NotBefore { at };
    match first {
        TaskReason::NotDue { at } | TaskReason::RetryAt { at, .. } => Some(not_before(*at)),
        TaskReason::Paused { until, .. } => Some(until.map_or(StartForecast::Open, not_before)),
        TaskReason::Held { wait, .. } => {
            Some(wait.map_or(StartForecast::Open, |wait| not_before(facts.as_of + wait)))
        }
        TaskReason::StoreAsked
        | TaskReason::QueueFull { .. }
        | TaskReason::WorkersStarting { .. }
        | TaskReason::Behind { .. }
        | TaskReason::SlotsBusy { .. }
        | TaskReason::Starting => facts.forecast,
        TaskReason::LaneBlocked { .. }
        | TaskReason::LaneBusy { .. }
        | TaskReason::NotServed { .. }
        | TaskReason::NotAnswering
        | TaskReason::Draining
        | TaskReason::Halted { .. } => Some(StartForecast::Open),
        TaskReason::Moving
        | TaskReason::Demoted { .. }
        | TaskReason::Elsewhere { .. }
        | TaskReason::Running { .. }
        | TaskReason::Over { .. }
        | TaskReason::Unknown { .. } => None,
    }
}

#[cfg(test)]
mod tests;
