//! What presses a queue: which causes apply, in one order for everybody, and which were looked at and do not.

use super::condition::{QueueCondition, STUCK};
use super::facts::{
    BlockedLane, LongestRun, ProgramFailure, QueueFigures, QueueService, ReportFacts, TopTenant,
};
use super::words::{counted, predicate};
use super::{Finding, FindingCause, RuledOutCause};
use crate::core::Timestamp;
use crate::core::explanation::grammar::{Speaker, capitalized, grouped};
use crate::core::explanation::remedy::remedies;
use crate::core::explanation::{NotServed, Remedy, RemedyBy, RuledOut, TaskReason};

/// The most lanes of a queue that are named one by one.
const MOST_LANES: usize = 5;

/// What presses a queue.
enum QueuePressure<'a> {
    /// What keeps each of its tasks, as the explanation of one of them says.
    OfTasks(TaskReason),
    /// No program of the fleet serves it.
    NoProgram,
    /// The broker does not say what waits in it.
    Away,
    /// Limits and brakes hold tasks.
    Held { tasks: u64, brakes: Vec<&'a str> },
    /// One tenant has most of what is ready.
    Flood { top: &'a TopTenant, ready: u64 },
    /// A run goes on for long while others wait for its worker.
    LongRun(&'a LongestRun),
    /// Bodies go on that nobody could stop.
    Stuck(usize),
    /// Nothing that was looked at.
    NotFound,
}

/// How many tasks limits and brakes hold.
pub(super) fn held(queue: &QueueFigures) -> u64 {
    queue.held.saturating_add(queue.put_back)
}

/// Whether limits or brakes hold a task for longer than its queue promises to start one, or for five minutes.
pub(super) fn is_held_long(queue: &QueueFigures) -> bool {
    held(queue) > 0 && queue.oldest_held >= queue.target.unwrap_or(STUCK)
}

/// The finding about a queue; `None`: it needs nobody.
pub(super) fn of_queue(queue: &QueueFigures, facts: &ReportFacts) -> Option<Finding> {
    let condition = QueueCondition::of(queue);
    let lanes = facts.lanes.iter().filter(|lane| lane.queue.as_deref() == Some(queue.name.as_str()));
    let lanes: Vec<&BlockedLane> = lanes.collect();
    let needs = condition.needs_a_person() || !lanes.is_empty() || is_held_long(queue) || queue.stuck > 0;
    if !needs {
        return None;
    }
    let speaker = Speaker { queue: Some(&queue.name), as_of: facts.as_of, is_of_queue: true };
    let mut pressures = pressures(queue, condition, &lanes, facts);
    if pressures.is_empty() {
        pressures.push(QueuePressure::NotFound);
    }
    Some(Finding {
        queue: Some(queue.name.clone()),
        condition: Some(condition),
        since: since(queue, condition, &lanes, facts.as_of),
        sentence: format!("Queue `{}` {}.", queue.name, predicate(queue, &lanes)),
        causes: pressures.iter().map(|pressure| pressure.cause(&speaker, &queue.name)).collect(),
        ruled_out: ruled_out(queue, &lanes, &speaker),
    })
}

/// The finding about a blocked lane whose queue is not known, or not among those that were looked at.
pub(super) fn of_lane(lane: &BlockedLane, as_of: Timestamp) -> Finding {
    let speaker = Speaker { queue: lane.queue.as_deref(), as_of, is_of_queue: true };
    let waiting = counted(lane.waiting, "task waits", "tasks wait");
    Finding {
        queue: lane.queue.clone(),
        condition: None,
        since: Some(lane.since),
        sentence: format!("The lane `{}` of `{}` is blocked; {waiting} for it.", lane.key, lane.scope),
        causes: vec![QueuePressure::OfTasks(blocked(lane)).cause(&speaker, "QUEUE")],
        ruled_out: Vec::new(),
    }
}

/// The finding about a program as a whole.
pub(super) fn of_program(failure: &ProgramFailure) -> Finding {
    let node = failure.node.as_ref().map(|node| format!(" of `{node}`")).unwrap_or_default();
    let remedy = "Mend what the error names, such as a full disk, and start the program again if it does not go on by itself.";
    Finding {
        queue: None,
        condition: None,
        since: None,
        sentence: format!("The broker{node} has failed."),
        causes: vec![FindingCause {
            code: "broker_failed",
            says: format!("Its error is: {}.", failure.error.trim_end_matches('.')),
            remedies: vec![Remedy { by: RemedyBy::Operator, says: remedy.to_owned() }],
        }],
        ruled_out: Vec::new(),
    }
}

fn blocked(lane: &BlockedLane) -> TaskReason {
    TaskReason::LaneBlocked {
        scope: lane.scope.clone(),
        key: lane.key.clone(),
        by: lane.by.clone(),
        since: lane.since,
        error: lane.error.clone(),
    }
}

/// Since when the queue is as it is, if that can be said.
fn since(
    queue: &QueueFigures,
    condition: QueueCondition,
    lanes: &[&BlockedLane],
    as_of: Timestamp,
) -> Option<Timestamp> {
    match condition {
        QueueCondition::Late => queue.target.map(|target| as_of - queue.oldest_wait.saturating_sub(target)),
        QueueCondition::Stuck => Some(as_of - queue.blockage),
        QueueCondition::Unserved => (!queue.oldest_wait.is_zero()).then(|| as_of - queue.oldest_wait),
        QueueCondition::Strained | QueueCondition::Fine | QueueCondition::Idle => {
            let blocked = lanes.iter().map(|lane| lane.since).min();
            blocked.or_else(|| is_held_long(queue).then(|| as_of - queue.oldest_held))
        }
        _ => None,
    }
}

/// The causes that apply, in the order in which they are named.
fn pressures<'a>(
    queue: &'a QueueFigures,
    condition: QueueCondition,
    lanes: &[&'a BlockedLane],
    facts: &'a ReportFacts,
) -> Vec<QueuePressure<'a>> {
    let mut all = Vec::new();
    match queue.service {
        QueueService::Served => {}
        QueueService::Silent => all.push(QueuePressure::OfTasks(TaskReason::NotAnswering)),
        QueueService::ProgramStopped => {
            let why = NotServed::ProgramStopped;
            all.push(QueuePressure::OfTasks(TaskReason::NotServed { why }));
        }
        QueueService::NoProgram => all.push(QueuePressure::NoProgram),
    }
    if queue.away {
        all.push(QueuePressure::Away);
    }
    if let Some(why) = &queue.halted {
        all.push(QueuePressure::OfTasks(TaskReason::Halted { why: why.clone() }));
    }
    if queue.paused {
        // A pause that a store shows whose program does not run is one that was kept.
        let is_kept = queue.service == QueueService::ProgramStopped;
        // What a person has done on purpose explains more than that the program is stopped.
        all.insert(0, QueuePressure::OfTasks(TaskReason::Paused { by: None, until: None, is_kept }));
    }
    let presses = condition.is_pressed();
    if let Some(top) = queue.top_tenant.as_ref().filter(|top| presses && floods(top, queue)) {
        all.push(QueuePressure::Flood { top, ready: queue.ready });
    }
    if queue.workers > 0 && queue.running >= queue.workers && presses {
        all.push(QueuePressure::OfTasks(TaskReason::QueueFull { workers: queue.workers }));
        let is_long = |run: &&LongestRun| facts.as_of.since(run.since) >= queue.target.unwrap_or(STUCK);
        all.extend(queue.longest_run.as_ref().filter(is_long).map(QueuePressure::LongRun));
    }
    let blocked_lanes = lanes.iter().take(MOST_LANES).map(|lane| QueuePressure::OfTasks(blocked(lane)));
    all.extend(blocked_lanes);
    if held(queue) > 0 {
        let is_about = |about: &Option<String>| about.as_ref().is_none_or(|about| *about == queue.name);
        let brakes = facts.brakes.iter().filter(|brake| is_about(&brake.queue));
        let brakes = brakes.map(|brake| brake.id.as_str()).collect();
        all.push(QueuePressure::Held { tasks: held(queue), brakes });
    }
    if queue.stuck > 0 {
        all.push(QueuePressure::Stuck(queue.stuck));
    }
    all
}

/// Whether one tenant has at least half of what is ready, and more than the workers take at once.
fn floods(top: &TopTenant, queue: &QueueFigures) -> bool {
    !top.tenant.is_empty() && top.ready.saturating_mul(2) >= queue.ready && top.ready > queue.workers as u64
}

/// What was looked at and presses nothing.
fn ruled_out(queue: &QueueFigures, lanes: &[&BlockedLane], speaker: &Speaker<'_>) -> Vec<RuledOutCause> {
    let of_tasks =
        |ruled_out: RuledOut| RuledOutCause { code: ruled_out.code(), says: speaker.ruled_out(ruled_out) };
    let of_queue = |code, says: &str| RuledOutCause { code, says: says.to_owned() };
    let mut all = Vec::new();
    if !queue.paused && queue.service != QueueService::Silent {
        all.push(of_tasks(RuledOut::Paused));
    }
    if lanes.is_empty() {
        all.push(of_queue("lane_blocked", "No failure has blocked a lane of it."));
    }
    if let Some(top) = queue.top_tenant.as_ref().filter(|top| !top.or_more && !floods(top, queue)) {
        let says = match top.tenant.is_empty() {
            true => "No tenant has tasks in it.",
            false => "No tenant floods it.",
        };
        all.push(of_queue("flood", says));
    }
    if queue.service != QueueService::Served {
        return all; // nobody was asked about the rest
    }
    all.push(of_tasks(RuledOut::NotServed));
    if !queue.away {
        all.push(of_queue("broker_away", "The broker says what waits in it."));
    }
    if queue.halted.is_none() {
        all.push(of_tasks(RuledOut::Halted));
    }
    if held(queue) == 0 {
        all.push(of_tasks(RuledOut::Held));
    }
    if queue.running < queue.workers {
        all.push(of_tasks(RuledOut::QueueFull { idle: queue.workers - queue.running }));
    }
    if queue.stuck == 0 {
        all.push(of_queue("stuck_body", "No body in it is one that nobody could stop."));
    }
    all
}

impl QueuePressure<'_> {
    /// The name of the cause.
    fn code(&self) -> &'static str {
        match self {
            Self::OfTasks(reason) => reason.code(),
            Self::NoProgram => "no_program",
            Self::Away => "broker_away",
            Self::Held { .. } => "held",
            Self::Flood { .. } => "flood",
            Self::LongRun(_) => "long_run",
            Self::Stuck(_) => "stuck_body",
            Self::NotFound => "not_found",
        }
    }

    fn cause(&self, speaker: &Speaker<'_>, queue: &str) -> FindingCause {
        FindingCause { code: self.code(), says: self.says(speaker), remedies: self.remedies(queue) }
    }

    fn says(&self, speaker: &Speaker<'_>) -> String {
        match self {
            Self::OfTasks(reason) => speaker.sentence(reason),
            Self::NoProgram => "No program that has answered serves it.".to_owned(),
            Self::Away => "The broker does not say what waits in it.".to_owned(),
            Self::Held { tasks, brakes } => {
                let held = counted(*tasks, "of its tasks is held", "of its tasks are held");
                let brakes: Vec<String> = brakes.iter().map(|id| format!("`{id}`")).collect();
                match brakes.as_slice() {
                    [] => format!("{held} by a rate limit, a limit or its pool."),
                    [one] => format!("{held} by a limit, or by the brake {one}."),
                    several => format!("{held} by a limit, or by one of the brakes {}.", several.join(", ")),
                }
            }
            Self::Flood { top, ready } => {
                let tenants = match top.tenants {
                    _ if top.or_more => {
                        "the broker does not tell whose those are that it has not delivered".to_owned()
                    }
                    0 | 1 => "no other tenant has any".to_owned(),
                    all => counted(all - 1, "other tenant has some", "other tenants have some"),
                };
                let tasks = counted(*ready, "ready task", "ready tasks");
                let (least, own) =
                    (if top.or_more { "at least " } else { "" }, grouped(top.ready.min(*ready)));
                format!("Tenant `{}` has {least}{own} of its {tasks}; {tenants}.", top.tenant)
            }
            Self::LongRun(LongestRun { id, task, since }) => capitalized(&format!(
                "task {id} (`{task}`) runs {} in it, the longest of its runs",
                speaker.age(*since)
            )),
            Self::Stuck(bodies) => {
                let bodies = counted(*bodies as u64, "body goes on", "bodies go on");
                format!("{bodies} that nobody could stop.")
            }
            Self::NotFound => "Nothing that was looked at explains it.".to_owned(),
        }
    }

    /// What takes the cause away, and who can do that. What passes by itself helps nobody who reads a report.
    fn remedies(&self, queue: &str) -> Vec<Remedy> {
        let by = |by, says: String| Remedy { by, says };
        match self {
            Self::OfTasks(reason) => {
                let mut all = remedies(reason, Some(queue));
                all.retain(|remedy| remedy.by != RemedyBy::Itself);
                all
            }
            Self::NoProgram => {
                vec![by(RemedyBy::Operator, format!("Start a program that serves `{queue}`."))]
            }
            Self::Away => vec![by(
                RemedyBy::Operator,
                "See whether RabbitMQ is up and can be reached; the programs connect again by themselves."
                    .to_owned(),
            )],
            Self::Held { brakes, .. } => {
                let removals = brakes.iter().map(|id| {
                    by(RemedyBy::Operator, format!("Take the brake away: `celeriac brake remove {id}`."))
                });
                let ask = "Ask of one of its tasks what holds it: `celeriac why ID`.".to_owned();
                removals.chain([by(RemedyBy::Operator, ask)]).collect()
            }
            Self::Flood { top, .. } => vec![
                by(
                    RemedyBy::Operator,
                    format!(
                        "Slow the tenant: `celeriac brake set slow --rate 10/m --queue {queue} --tenant {}`.",
                        top.tenant
                    ),
                ),
                by(
                    RemedyBy::Caller,
                    "Send fewer of them at a time, or into a queue of their own.".to_owned(),
                ),
            ],
            Self::LongRun(run) => vec![
                by(RemedyBy::Operator, format!("If it hangs, end it: revoke {} with `terminate`.", run.id)),
                by(RemedyBy::Developer, "Give the task a `time_limit`.".to_owned()),
            ],
            Self::Stuck(_) => vec![
                by(RemedyBy::Developer, "Have the body look at `Context::interrupt`.".to_owned()),
                by(RemedyBy::Operator, "Restart the program to be rid of them.".to_owned()),
            ],
            Self::NotFound => {
                vec![by(RemedyBy::Operator, "Ask of one of its tasks: `celeriac why ID`.".to_owned())]
            }
        }
    }
}
