//! What this queue has, for remote control; and what its gates hold back, for operators.

use std::collections::HashSet;
use std::sync::Arc;

use actix::{Handler, Message, MessageResult};

use super::super::held::{HeldTask, HeldTasks, QueueHold, StuckBody};
use super::Queue;
use crate::broker::Delivery;
use crate::runtime::own_process::own_pid;
use crate::task::TaskId;

/// Asks what the queue has: those of these ids, or all, and of each kind so many at most.
#[derive(Clone, Message)]
#[rtype(result = "HeldTasks")]
pub(in super::super) struct GetHeld {
    pub(in super::super) ids: Option<HashSet<TaskId>>,
    pub(in super::super) limit: usize,
}

impl Handler<GetHeld> for Queue {
    type Result = MessageResult<GetHeld>;

    fn handle(&mut self, GetHeld { ids, limit }: GetHeld, _: &mut Self::Context) -> Self::Result {
        let is_wanted = |id: &TaskId| ids.as_ref().is_none_or(|ids| ids.contains(id));
        let mut running: Vec<HeldTask> = self
            .runs
            .values()
            .filter(|run| is_wanted(run.context.id()))
            .map(|run| HeldTask {
                message: Arc::clone(run.context.message_arc()),
                delivery_info: run.delivery_info.clone(),
                started_at: Some(run.context.began_at(run.started_at)),
                pid: Some(run.child.unwrap_or_else(own_pid)),
                log: run.context.log().cloned(),
            })
            .collect();
        running.sort_by_key(|run| run.started_at);
        running.truncate(limit);
        let stuck = self.retained.stuck.now().into_iter().map(|(context, started_at)| StuckBody {
            message: Arc::clone(context.message_arc()),
            started_at: context.began_at(started_at),
        });
        let waiting = self.backlog.waiting().map(|(_, delivery)| delivery).chain(self.unchecked.all());
        let wanted = waiting.filter(|delivery: &&Delivery| is_wanted(&delivery.message().id));
        let reserved: Vec<_> = wanted.take(limit).map(HeldTask::waiting).collect();
        MessageResult(HeldTasks {
            queue: self.row.name.clone(),
            running,
            stuck: stuck.collect(),
            reserved,
            all_running: self.runs.len(),
            all_reserved: self.backlog.ready()
                + self.backlog.held()
                + self.backlog.scheduled()
                + self.unchecked.len(),
            workers: self.row.workers,
            range: self.retained.range(),
            prefetch: self.prefetch(),
            is_paused: self.backlog.is_paused(),
            is_consuming: self.consumer.is_some(),
        })
    }
}

/// Asks what the gates hold back in the queue.
#[derive(Clone, Copy, Message)]
#[rtype(result = "Vec<QueueHold>")]
pub(in super::super) struct GetHolds;

impl Handler<GetHolds> for Queue {
    type Result = MessageResult<GetHolds>;

    fn handle(&mut self, _: GetHolds, _: &mut Self::Context) -> Self::Result {
        let groups = self.held_back.groups();
        let holds = groups.map(|(group, hold)| QueueHold {
            queue: self.row.name.clone(),
            reason: hold.reason.clone(),
            tasks: self.backlog.held_in(group),
        });
        MessageResult(holds.filter(|hold| hold.tasks > 0).collect())
    }
}
