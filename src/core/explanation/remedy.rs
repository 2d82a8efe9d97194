//! What takes a reason away, and who can do that.

use serde::Serialize;

use super::facts::NotServed;
use super::reason::TaskReason;

/// An act that would take a reason away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Remedy {
    /// The person or program that can apply the remedy.
    pub by: RemedyBy,
    /// The sentence that says what is to be done.
    pub says: String,
}

/// The person or program that can take a reason away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RemedyBy {
    /// Nobody has to: it passes.
    Itself,
    /// Whoever operates the program.
    Operator,
    /// Whoever calls the task.
    Caller,
    /// Whoever writes the program.
    Developer,
}

impl RemedyBy {
    /// The word for it, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Itself => "itself",
            Self::Operator => "operator",
            Self::Caller => "caller",
            Self::Developer => "developer",
        }
    }
}

/// What takes this reason away, the likeliest first; empty: nothing is to be done.
pub(in crate::core) fn remedies(reason: &TaskReason, queue: Option<&str>) -> Vec<Remedy> {
    use RemedyBy::{Caller, Developer, Itself, Operator};
    let queue = queue.unwrap_or("QUEUE");
    let all: Vec<(RemedyBy, String)> = match reason {
        TaskReason::NotDue { .. } => vec![
            (Itself, "It starts when its time has come.".into()),
            (Caller, "Revoke it, and call the task again without the countdown or ETA.".into()),
        ],
        TaskReason::RetryAt { .. } => vec![
            (Itself, "It is tried again when that time has come.".into()),
            (Developer, "Mend what made it fail; the record of its last attempt says what that was.".into()),
        ],
        TaskReason::Paused { .. } => vec![(
            Operator,
            format!(
                "Let the queue go on: `Celeriac::resume(\"{queue}\")`, or `celeriac control resume {queue}`."
            ),
        )],
        TaskReason::Held { hold, wait } => {
            let passes = wait.is_some().then(|| (Itself, "It passes by itself.".to_owned()));
            passes.into_iter().chain([(Operator, hold.remedy())]).collect()
        }
        TaskReason::LaneBlocked { scope, key, .. } => vec![(
            Operator,
            format!(
                "Mend what the failure left behind, and unblock the lane: `Celeriac::unblock(\"{scope}\", \"{key}\")`."
            ),
        )],
        TaskReason::LaneBusy { concurrency: 0, scope, key, .. } => vec![(
            Operator,
            format!("Let the lane go on: `Celeriac::set_concurrency(\"{scope}\", \"{key}\", None)`."),
        )],
        TaskReason::LaneBusy { holder, .. } => {
            let mut all = vec![(Itself, "It starts when those before it in its lane have ended.".into())];
            if let Some(holder) = holder {
                all.push((Operator, format!("End the task that is in: revoke {holder} with `terminate`.")));
            }
            all
        }
        TaskReason::NotServed { why: NotServed::ByCatalogue } => {
            vec![(Operator, format!("Ask the programs that serve `{queue}`, or start one."))]
        }
        TaskReason::NotServed { why: NotServed::NoSuchQueue } => {
            vec![(Operator, format!("Start a program that serves `{queue}`, or give this one a row for it."))]
        }
        TaskReason::NotServed { why: NotServed::Cancelled } => vec![(
            Operator,
            format!("Have this program take tasks from it again: `celeriac control add_consumer {queue}`."),
        )],
        TaskReason::NotServed { why: NotServed::ProgramStopped } => {
            vec![(Operator, "Start the program.".into())]
        }
        TaskReason::NotAnswering => vec![
            (Itself, "It answers when its event loop is free.".into()),
            (Developer, "An `async` task must not block: make what computes a plain `fn`.".into()),
        ],
        TaskReason::Draining => {
            vec![(Operator, "Start the program again; a durable task goes on then.".into())]
        }
        TaskReason::Halted { .. } => vec![
            (Itself, "The queue tries again after a pause.".into()),
            (Developer, "Mend what its workers die of; the log says what that is.".into()),
        ],
        TaskReason::StoreAsked => vec![
            (Itself, "It starts when the store has answered.".into()),
            (
                Operator,
                "If that lasts, look at the result store: nothing of the queue starts before it answers."
                    .into(),
            ),
        ],
        TaskReason::QueueFull { .. } => vec![
            (Itself, "It starts when workers have ended what they run.".into()),
            (
                Operator,
                format!(
                    "Give the queue more workers: `Celeriac::resize`, or `celeriac control resize {queue} N`."
                ),
            ),
        ],
        TaskReason::WorkersStarting { .. } => {
            vec![(Itself, "It starts when a worker is ready.".into())]
        }
        TaskReason::Behind { .. } => vec![
            (Itself, "It starts when its turn comes.".into()),
            (Caller, "Call what is more urgent with a higher priority, or into a queue of its own.".into()),
        ],
        TaskReason::SlotsBusy { .. } => vec![
            (Itself, "It starts when a slot is free and it is its turn.".into()),
            (Operator, "Give the pool more slots.".into()),
        ],
        TaskReason::Demoted { from } => vec![
            (Caller, "Call less at a time for one tenant, or state the queue at the call.".into()),
            (
                Operator,
                format!(
                    "Raise `demote_above` in the row of `{from}`, for calls that come later; `celeriac bulk move --to {from}` moves what waits."
                ),
            ),
        ],
        TaskReason::Starting | TaskReason::Moving => {
            vec![(Itself, "Look again in a moment.".into())]
        }
        TaskReason::Elsewhere { node, .. } => {
            vec![(
                Operator,
                format!("Ask that worker what it runs: `celeriac inspect active --destination {node}`."),
            )]
        }
        TaskReason::Running { .. } | TaskReason::Over { .. } => Vec::new(),
        TaskReason::Unknown { .. } => {
            vec![(
                Operator,
                "Check the id, and ask the programs that serve its queue: `celeriac why`.".into(),
            )]
        }
    };
    all.into_iter().map(|(by, says)| Remedy { by, says }).collect()
}
