//! What an operator sees of tenants: how many tasks of whom wait in a queue. And what the program says of priorities at its
//! start, where the broker does not keep to them.

use std::collections::BTreeMap;

use super::handle::{Celeriac, ControlError};
use crate::broker::QueueTenants;
use crate::task::Arguments;

impl Celeriac {
    /// The tenants of a queue that have tasks which could start, those with the most tasks first, at most `limit` of
    /// them. What waits in the broker is counted together with what this process has fetched and not begun, as in
    /// [`QueueStatus::ready`](crate::QueueStatus::ready). The cost grows with the number of tenants, and not with that
    /// of tasks.
    ///
    /// ```no_run
    /// # async fn demo(celeriac: celeriac::Celeriac) -> Result<(), celeriac::app::ControlError> {
    /// let tenants = celeriac.tenants("export_download_queue", 10).await?;
    /// println!("{} tenants have tasks, the first ten of them:", tenants.total);
    /// for counts in tenants.tenants {
    ///     println!("{}: {} wait, {} run or are held", counts.tenant, counts.ready, counts.unsettled);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// There is no such queue, the broker does not know the tenants of what waits in it (RabbitMQ), or it does not answer.
    pub async fn tenants(&self, queue: &str, limit: usize) -> Result<QueueTenants, ControlError> {
        let name = &self.find(queue)?.name;
        self.tenants_of(name, limit).await?.ok_or_else(|| ControlError::NoAbility {
            broker: self.runtime().broker.name(),
            what: "say how many tasks of which tenant wait in a queue",
        })
    }

    /// As [`tenants`](Self::tenants), of the queue with this physical name, whoever serves it. `None`: the broker does
    /// not know.
    pub(crate) async fn tenants_of(
        &self,
        queue: &str,
        limit: usize,
    ) -> Result<Option<QueueTenants>, ControlError> {
        let fetched = self.fetched_by_tenant(queue);
        let Some(known) = self.runtime().broker.tenant_backlog() else { return Ok(None) };
        Ok(Some(known.tenants(queue, limit).await?.with_fetched(&fetched)))
    }

    /// How many tasks of each tenant this process has fetched of the queue with this physical name, and could start.
    pub(crate) fn fetched_by_tenant(&self, queue: &str) -> BTreeMap<String, u64> {
        self.inner.slot_pools.waiting_in(queue)
    }

    /// Warns of tasks whose priority has no effect, because RabbitMQ tells priorities apart only in queues that are declared
    /// with a highest one.
    pub(super) fn warn_of_vain_priorities(&self) {
        let Some(events) = self.runtime().broker.events().filter(|events| events.has_exchanges()) else {
            return; // it is not RabbitMQ
        };
        let registry = &self.runtime().dispatcher.registry;
        let mut vain: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for task in registry.names() {
            let has_priority = registry.options(task).is_some_and(|options| options.priority > 0);
            let Ok(queue) = self.inner.routing.queue(None, task, None, &Arguments::default()) else {
                continue;
            };
            let arguments = events.queue_arguments(queue);
            let is_quorum = arguments.get("x-queue-type").is_some_and(|kind| kind == "quorum");
            if has_priority && !is_quorum && !arguments.contains_key("x-max-priority") {
                vain.entry(queue).or_default().push(task);
            }
        }
        for (queue, tasks) in vain {
            tracing::warn!(
                target: "celeriac",
                queue,
                ?tasks,
                "the priority of these tasks has no effect, because RabbitMQ ignores it in a queue that is declared without priorities: state `max_priority` in the row of the queue"
            );
        }
    }
}
