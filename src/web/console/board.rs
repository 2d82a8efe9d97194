//! All queues at a glance: what the first page, the live charts and the pages of single queues are made from.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::Console;
use super::parts::StatusMark;
use super::problem::ConsoleProblem;
use super::shared_looks::Looked;
use super::visit::ConsoleVisit;
use crate::QueueStatus;
use crate::actors::RunningTask;
use crate::app::{ControlError, HistoryBy, Replies, WaitSpread};
use crate::catalogue::{QueueRow, format_span};
use crate::core::Timestamp;
use crate::core::history::KeptPromise;
use crate::core::report::{QueueCondition, QueueFigures, promise_used, rank};
use crate::task::clock::now;

/// How long a look at the queues is shared.
pub(super) const FRESH: Duration = Duration::from_secs(1);
/// How far back it is told how the promises were kept, and how long a look at that is shared.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);
const DAY_FRESH: Duration = Duration::from_secs(60);

impl QueueCondition {
    /// Its mark and its word.
    pub(super) fn shown(self) -> (StatusMark, &'static str) {
        let mark = match self {
            Self::Halted => StatusMark::Failed,
            Self::Late | Self::Stuck | Self::Unserved => StatusMark::Late,
            Self::AtRisk => StatusMark::Risk,
            Self::Strained => StatusMark::Strained,
            Self::Silent | Self::Paused | Self::Away => StatusMark::Held,
            Self::Fine => StatusMark::Fine,
            Self::Idle => StatusMark::Idle,
        };
        (mark, self.as_str())
    }
}

/// A queue as the pages show it: what it is now, and what its row says.
#[derive(Clone, Debug, Serialize)]
pub(super) struct QueueLine {
    #[serde(flatten)]
    pub(super) status: QueueStatus,
    /// What a report takes of the status.
    #[serde(skip)]
    pub(super) figures: QueueFigures,
    pub(super) condition: QueueCondition,
    /// The wait of the oldest ready task as a part of the target; `None`: the queue promises nothing.
    pub(super) promise_used: Option<f64>,
    /// How the promise was kept in the last 24 hours; `None`: nothing was promised or started then, or it was not asked for.
    pub(super) kept: Option<KeptPromise>,
    /// The target as it is written in the catalogue.
    pub(super) target: Option<String>,
    pub(super) description: Option<String>,
    pub(super) typical_duration: Option<String>,
}

impl QueueLine {
    fn of(row: Option<&QueueRow>, status: &QueueStatus, figures: QueueFigures) -> Self {
        Self {
            condition: QueueCondition::of(&figures),
            promise_used: promise_used(&figures),
            kept: None,
            target: status.time_to_start.target.map(format_span),
            description: row.and_then(|row| row.description.clone()),
            typical_duration: row.and_then(|row| row.typical_duration.clone()),
            status: status.clone(),
            figures,
        }
    }
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
            let replies = self.celeriac.queues_to_look_at().await;
            if let Ok(replies) = &replies {
                self.shared.samples.take(now(), &replies.replies);
            }
            replies
        };
        self.shared.looks.look("queues", FRESH, look).await
    }

    /// How long the tasks of each queue waited for their first starts in the last 24 hours, at most [`DAY_FRESH`] old. It is empty
    /// if the history cannot be read.
    async fn waits_of_a_day(&self) -> Arc<BTreeMap<String, WaitSpread>> {
        let look = async {
            let history = self.celeriac.history().from(now() - A_DAY).step(A_DAY).by(HistoryBy::Queue);
            let rows = history.read().await.map(|history| history.rows).unwrap_or_default();
            let mut waits: BTreeMap<String, WaitSpread> = BTreeMap::new();
            // A day that begins at midnight is a step, so a queue has two rows.
            for row in rows {
                waits.entry(row.name).or_default().add(&row.waits);
            }
            waits
        };
        self.shared.looks.look("waits of a day", DAY_FRESH, look).await.seen
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
        let seen = replies.iter().filter(|status| visit.viewer.sees(&status.name));
        let service = visit.console.celeriac.service();
        let figures = |status: &QueueStatus| QueueFigures { service, ..status.figures() };
        let mut seen: Vec<_> = seen.map(|status| (figures(status), status)).collect();
        seen.sort_by(|(one, _), (other, _)| rank(one).cmp(&rank(other)));
        let line = |(figures, status): (_, &QueueStatus)| {
            QueueLine::of(catalogue.queue(&status.name), status, figures)
        };
        let queues = seen.into_iter().map(line).collect();
        let missing = replies.missing.iter().filter(|name| visit.viewer.sees(name)).cloned().collect();
        Ok(Self { at, queues, missing })
    }

    /// Looks at the queues as [`of`](Self::of) does, and at how each has kept its promise in the last 24 hours.
    ///
    /// # Errors
    /// The broker is closed.
    pub(super) async fn with_kept_promises(visit: &ConsoleVisit) -> Result<Self, ConsoleProblem> {
        let (board, waits) = tokio::join!(Self::of(visit), visit.console.waits_of_a_day());
        let mut board = board?;
        for line in &mut board.queues {
            let target = line.status.time_to_start.target;
            let known = target.zip(waits.get(&line.status.name));
            line.kept = known.and_then(|(target, waits)| KeptPromise::of(waits, target));
        }
        Ok(board)
    }

    /// How many queues are like that.
    pub(super) fn count(&self, condition: QueueCondition) -> usize {
        self.queues.iter().filter(|queue| queue.condition == condition).count()
    }
}
