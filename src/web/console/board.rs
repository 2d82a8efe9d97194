//! All queues at a glance: what the first page, the live charts and the pages of single queues are made from.

use std::time::Duration;

use serde::Serialize;

use super::Console;
use super::parts::Mark;
use super::problem::ConsoleProblem;
use super::shared_looks::Looked;
use super::visit::ConsoleVisit;
use crate::QueueStatus;
use crate::actors::RunningTask;
use crate::app::{ControlError, Replies};
use crate::catalogue::{QueueRow, format_span};
use crate::core::Timestamp;
use crate::task::clock::now;

/// How long a look at the queues is shared.
pub(super) const FRESH: Duration = Duration::from_secs(1);
/// A queue with ready tasks that starts nothing for so long is stuck, whatever it promises. HQ has the same bound.
const STUCK: Duration = Duration::from_secs(5 * 60);

/// How a queue is, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum QueueCondition {
    /// It has stopped itself, because its workers died too often.
    Halted,
    /// Its oldest ready task waits longer than it promises.
    Late,
    /// It has ready tasks and starts nothing.
    Stuck,
    /// It will be late soon.
    AtRisk,
    /// It has used more than half of its promise.
    Strained,
    /// An operator has paused it.
    Paused,
    /// The broker cannot be asked.
    Away,
    /// It works, and keeps its promise, if it has one.
    Fine,
    /// It has nothing to do.
    Idle,
}

impl QueueCondition {
    fn of(status: &QueueStatus) -> Self {
        let used = promise_used(status).unwrap_or_default();
        match status {
            status if status.halted.is_some() => Self::Halted,
            status if status.paused => Self::Paused,
            status if status.away => Self::Away,
            _ if used >= 1.0 => Self::Late,
            status if status.blockage >= STUCK => Self::Stuck,
            _ if used >= 0.8 => Self::AtRisk,
            _ if used >= 0.5 => Self::Strained,
            status if status.running == 0 && status.ready == 0 && status.held == 0 => Self::Idle,
            _ => Self::Fine,
        }
    }

    /// Its mark and its word.
    pub(super) fn shown(self) -> (Mark, &'static str) {
        match self {
            Self::Halted => (Mark::Failed, "halted"),
            Self::Late => (Mark::Late, "late"),
            Self::Stuck => (Mark::Late, "stuck"),
            Self::AtRisk => (Mark::Risk, "at risk"),
            Self::Strained => (Mark::Strained, "strained"),
            Self::Paused => (Mark::Held, "paused"),
            Self::Away => (Mark::Held, "broker away"),
            Self::Fine => (Mark::Fine, "fine"),
            Self::Idle => (Mark::Idle, "idle"),
        }
    }

    /// Whether somebody should look at it.
    pub(super) fn needs_a_person(self) -> bool {
        !matches!(self, Self::Strained | Self::Fine | Self::Idle)
    }
}

/// A queue as the pages show it: what it is now, and what its row says.
#[derive(Clone, Debug, Serialize)]
pub(super) struct QueueLine {
    #[serde(flatten)]
    pub(super) status: QueueStatus,
    pub(super) condition: QueueCondition,
    /// The wait of the oldest ready task as a part of the target; `None`: the queue promises nothing.
    pub(super) promise_used: Option<f64>,
    /// The target as it is written in the catalogue.
    pub(super) target: Option<String>,
    pub(super) description: Option<String>,
    pub(super) typical_duration: Option<String>,
}

impl QueueLine {
    pub(super) fn of(row: Option<&QueueRow>, status: &QueueStatus) -> Self {
        Self {
            condition: QueueCondition::of(status),
            promise_used: promise_used(status),
            target: status.time_to_start.target.map(format_span),
            description: row.and_then(|row| row.description.clone()),
            typical_duration: row.and_then(|row| row.typical_duration.clone()),
            status: status.clone(),
        }
    }

    /// What has to be said first: by condition, then by the share of the promise that is used.
    pub(super) fn rank(&self) -> (QueueCondition, std::cmp::Reverse<u64>, &str) {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a share is not negative
        let used = (self.promise_used.unwrap_or_default() * 1e6) as u64;
        (self.condition, std::cmp::Reverse(used), &self.status.name)
    }
}

/// The share of its promise that a queue has used for its oldest ready task.
fn promise_used(status: &QueueStatus) -> Option<f64> {
    let target = status.time_to_start.target.filter(|target| !target.is_zero())?;
    Some(status.oldest_wait.as_secs_f64() / target.as_secs_f64())
}

type QueueReplies = Result<Replies<QueueStatus>, ControlError>;
/// What runs in this program.
pub(super) type RunReplies = Result<Replies<RunningTask>, ControlError>;

/// The queues that a viewer may see.
pub(super) struct QueueBoard {
    pub(super) at: Timestamp,
    /// The queues, those that need a person first.
    pub(super) queues: Vec<QueueLine>,
    /// The names of those that did not answer.
    pub(super) missing: Vec<String>,
}

impl Console {
    /// All queues, at most [`FRESH`] old, whoever looks.
    async fn replies(&self) -> Looked<QueueReplies> {
        let look = async {
            let replies = self.celeriac.queues().await;
            if let Ok(replies) = &replies {
                self.shared.samples.take(now(), &replies.replies);
            }
            replies
        };
        self.shared.looks.look("queues", FRESH, look).await
    }

    /// All runs of this program, at most [`FRESH`] old, whoever looks.
    pub(super) async fn runs(&self) -> Looked<RunReplies> {
        self.shared.looks.look("running", FRESH, self.celeriac.running()).await
    }
}

impl QueueBoard {
    /// The queues that the viewer may see.
    ///
    /// # Errors
    /// The broker is closed.
    pub(super) async fn of(visit: &ConsoleVisit) -> Result<Self, ConsoleProblem> {
        let Looked { at, seen } = visit.console.replies().await;
        let replies = (*seen).as_ref().map_err(ConsoleProblem::from)?;
        let catalogue = visit.console.celeriac.catalogue();
        let row = |name: &str| catalogue.queues.iter().find(|row| row.name == name);
        let seen = replies.iter().filter(|status| visit.viewer.sees(&status.name));
        let mut queues: Vec<_> = seen.map(|status| QueueLine::of(row(&status.name), status)).collect();
        queues.sort_by(|one, other| one.rank().cmp(&other.rank()));
        let missing = replies.missing.iter().filter(|name| visit.viewer.sees(name)).cloned().collect();
        Ok(Self { at, queues, missing })
    }

    /// How many queues are like that.
    pub(super) fn count(&self, condition: QueueCondition) -> usize {
        self.queues.iter().filter(|queue| queue.condition == condition).count()
    }
}
