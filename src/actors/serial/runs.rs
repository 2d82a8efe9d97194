//! The runs of one lane in this process, and how they are put into the lane's status.

use std::sync::Arc;

use super::{LaneHolder, LaneRun, LaneStatus};
use crate::broker::LaneFacts;
use crate::core::Timestamp;
use crate::core::number_map::TagMap;
use crate::task::{Message, TaskId};

/// A run of a lane in this process. It shares its texts with the run itself.
pub(crate) struct LaneRunEntry {
    message: Arc<Message>,
    worker: Arc<str>,
    started_at: Timestamp,
    attempt: u32,
    fencing_token: Option<u64>,
}

/// The runs of one lane in this process, by the tags of their deliveries.
pub(crate) type Runs = TagMap<Arc<LaneRunEntry>>;

impl LaneRunEntry {
    pub(super) fn of(run: &crate::runtime::run::Run) -> Self {
        let context = &run.context;
        Self {
            message: Arc::clone(context.message_arc()),
            worker: Arc::clone(context.worker_arc()),
            started_at: run.started_at,
            attempt: context.attempt(),
            fencing_token: context.fencing_token(),
        }
    }

    /// The id of the task.
    pub(super) fn id(&self) -> &TaskId {
        &self.message.id
    }

    /// The run as the status of its lane shows it.
    fn shown(&self) -> LaneRun {
        LaneRun {
            task: self.message.task.clone(),
            worker: self.worker.to_string(),
            started_at: self.started_at,
            attempt: self.attempt,
            fencing_token: self.fencing_token,
        }
    }
}

/// The status of a lane: the broker's facts, with the runs that are known here.
pub(crate) fn status(facts: LaneFacts, runs: &Runs) -> LaneStatus {
    let run_of = |id: &TaskId| runs.values().find(|run| run.id() == id).map(|run| run.shown());
    let holders = facts.holders.into_iter();
    LaneStatus {
        scope: facts.name.scope().to_owned(),
        key: facts.name.key().to_owned(),
        concurrency: facts.concurrency,
        is_adjusted: facts.is_adjusted,
        holders: holders.map(|h| LaneHolder { run: run_of(&h.id), id: h.id, since: h.since }).collect(),
        waiting: facts.waiting,
        next: facts.next,
        blocked: facts.blocked,
    }
}
