//! The runs of one lane in this process, and how they are put into the lane's status.

use std::collections::HashMap;
use std::sync::Arc;

use super::{LaneHolder, LaneRun, LaneStatus};
use crate::broker::LaneFacts;
use crate::task::TaskId;

/// The id of a task that runs in a lane, and its run.
pub(super) type LaneRunEntry = (TaskId, LaneRun);

/// The runs of one lane in this process, by the tags of their deliveries.
pub(crate) type Runs = HashMap<u64, Arc<LaneRunEntry>>;

/// The facts of a run as the status of its lane shows them.
pub(super) fn run_of(run: &crate::runtime::run::Run) -> Arc<LaneRunEntry> {
    let context = &run.context;
    let shown = LaneRun {
        task: context.task().to_owned(),
        worker: context.worker().to_owned(),
        started_at: run.started_at,
        attempt: context.attempt(),
        fencing_token: context.fencing_token(),
    };
    Arc::new((context.id().clone(), shown))
}

/// The status of a lane: the broker's facts, with the runs that are known here.
pub(crate) fn status(facts: LaneFacts, runs: &Runs) -> LaneStatus {
    let run_of = |id: &TaskId| runs.values().find(|run| run.0 == *id).map(|run| run.1.clone());
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
