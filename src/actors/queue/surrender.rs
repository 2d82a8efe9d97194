//! Hands deliveries that have not started over to whoever changes many tasks at once, who settles them or drops them, so that
//! they go back.

use std::collections::HashSet;
use std::sync::Arc;

use actix::{Handler, Message, MessageResult};

use super::Queue;
use crate::broker::Delivery;
use crate::task::TaskId;

/// Asks for the deliveries of these tasks that have not started.
#[derive(Clone, Message)]
#[rtype(result = "Surrendered")]
pub(in super::super) struct Surrender(pub(in super::super) Arc<HashSet<TaskId>>);

/// What a queue has of the tasks that were asked for.
#[derive(Default)]
pub(crate) struct Surrendered {
    /// The deliveries that had not started. The queue has them no longer.
    pub(crate) deliveries: Vec<Delivery>,
    /// The tasks that run.
    pub(crate) running: HashSet<TaskId>,
}

impl Handler<Surrender> for Queue {
    type Result = MessageResult<Surrender>;

    fn handle(&mut self, Surrender(ids): Surrender, _: &mut Self::Context) -> Self::Result {
        let is_wanted = |delivery: &Delivery| ids.contains(&delivery.message().id);
        let waiting = self.backlog.waiting().filter(|(_, delivery)| is_wanted(delivery));
        let tags: Vec<u64> = waiting.map(|(tag, _)| tag).collect();
        let mut deliveries = Vec::with_capacity(tags.len());
        for tag in tags {
            if let Some(delivery) = self.backlog.remove(tag) {
                self.let_next_come(tag);
                self.remove_from_pool(tag);
                self.backlog.finish(tag);
                self.stats.forecasts.left(tag);
                deliveries.push(delivery);
            }
        }
        let unchecked = self.unchecked.all().filter(|delivery| is_wanted(delivery));
        let unchecked: Vec<TaskId> = unchecked.map(|delivery| delivery.message().id.clone()).collect();
        deliveries.extend(unchecked.iter().filter_map(|id| self.unchecked.remove(id)));
        let running = self.runs.values().map(|run| run.context.id()).filter(|id| ids.contains(*id));
        let running = running.cloned().collect();
        MessageResult(Surrendered { deliveries, running })
    }
}
