//! The abilities of the embedded broker: what it can do beside what every [`Broker`](crate::broker::Broker) does.

use async_trait::async_trait;

use super::command::EngineCommand;
use super::{EmbeddedBroker, limits};
use crate::broker::{
    AgendaPlace, Backlog, BrokerError, BrokerNotes, CasOutcome, Hastened, Inspect, LaneFacts, LaneLever,
    Lanes, MessageLocation, QueueTenants, RecordFn, Removal, Results, Standing, TaskFilter, TaskPage,
    TenantBacklog, UnfinishedTask, UniqueWindows,
};
use crate::core::Timestamp;
use crate::store::{CompareAndSet, Notes};
use crate::task::{LaneName, Message, TaskId, UniqueKey};

#[async_trait]
impl Backlog for EmbeddedBroker {
    async fn oldest_ready(&self, queue: &str) -> Result<Option<Timestamp>, BrokerError> {
        let name = queue.to_owned();
        let disk = self.ask(|reply| EngineCommand::OldestReady { queue: name, reply }).await?;
        let memory = self.inner.volatile.oldest_ready(queue).await?;
        Ok(disk.into_iter().chain(memory).min())
    }

    async fn hasten(&self, queue: &str, from: AgendaPlace, limit: usize) -> Result<Hastened, BrokerError> {
        // What is in memory is bounded by it, and looked at as a whole.
        let memory = self.inner.volatile.hasten(queue, (Timestamp::ZERO, 0), usize::MAX).await?;
        let name = queue.to_owned();
        let disk = self.ask(|reply| EngineCommand::Hasten { queue: name, from, limit, reply }).await?;
        Ok(Hastened { made_due: memory.made_due + disk.made_due, ..disk })
    }
}

#[async_trait]
impl TenantBacklog for EmbeddedBroker {
    async fn tenants(&self, queue: &str, limit: usize) -> Result<QueueTenants, BrokerError> {
        let memory = self.inner.volatile.tenants(queue, usize::MAX).await?;
        let is_alone = memory == QueueTenants::default();
        // Only whole lists can be added up.
        let (name, most) = (queue.to_owned(), if is_alone { limit } else { usize::MAX });
        let mut tenants =
            self.ask(|reply| EngineCommand::Tenants { queue: name, limit: most, reply }).await?;
        if !is_alone {
            tenants.merge(memory);
        }
        Ok(tenants.cut(limit))
    }

    async fn line_before(&self, id: &TaskId, limit: usize) -> Result<Option<usize>, BrokerError> {
        match self.inner.volatile.line_before(id, limit).await? {
            Some(before) => Ok(Some(before)),
            None => self.rows_before_in_line(id, limit),
        }
    }
}

#[async_trait]
impl Results for EmbeddedBroker {
    async fn publish_canvas(
        &self,
        messages: Vec<Message>,
        sizes: Vec<(String, u64)>,
        unique: bool,
    ) -> Result<(), BrokerError> {
        self.publish_together(messages, sizes, None, unique).await
    }

    async fn publish_chord_member(
        &self,
        messages: Vec<Message>,
        sizes: Vec<(String, u64)>,
        group: &str,
        _member: &TaskId,
    ) -> Result<(), BrokerError> {
        self.publish_together(messages, sizes, Some(group.to_owned()), true).await
    }
}

#[async_trait]
impl Lanes for EmbeddedBroker {
    async fn lane(&self, lane: &LaneName) -> Result<Option<LaneFacts>, BrokerError> {
        let lane = lane.clone();
        self.ask(|reply| EngineCommand::Lane { lane, reply }).await
    }

    async fn busy_lanes(&self, limit: usize) -> Result<Vec<LaneFacts>, BrokerError> {
        self.ask(|reply| EngineCommand::Lanes { limit, reply }).await
    }

    async fn steer_lane(&self, lane: &LaneName, lever: LaneLever) -> Result<bool, BrokerError> {
        let lane = lane.clone();
        self.ask(|reply| EngineCommand::SteerLane { lane, lever, reply }).await
    }
}

#[async_trait]
impl UniqueWindows for EmbeddedBroker {
    async fn holder(&self, key: &UniqueKey) -> Result<Option<TaskId>, BrokerError> {
        let key = key.clone();
        self.ask(|reply| EngineCommand::Holder { key, reply }).await
    }

    async fn release(&self, message: &Message) -> Result<(), BrokerError> {
        if let Some(unique) = &message.unique {
            let command = EngineCommand::ReleaseWindow { key: unique.key.clone(), id: message.id.clone() };
            // The engine handles requests in order, so every later publish finds the window ended. If the send
            // fails, the broker is closed and takes no publish, so there is nobody to tell.
            let _ = self.inner.requests.send(command);
        }
        Ok(())
    }
}

#[async_trait]
impl Inspect for EmbeddedBroker {
    async fn find(&self, id: &TaskId) -> Result<Option<MessageLocation>, BrokerError> {
        if let Some(place) = self.inner.volatile.find(id).await? {
            return Ok(Some(place));
        }
        let id = id.clone();
        self.ask(|reply| EngineCommand::Find { id, reply }).await
    }

    async fn position(&self, id: &TaskId, limit: usize) -> Result<Option<usize>, BrokerError> {
        match self.inner.volatile.position(id, limit).await? {
            Some(ahead) => Ok(Some(ahead)),
            None => self.rows_before(id, limit),
        }
    }

    async fn list_unfinished(
        &self,
        filter: &TaskFilter,
        limit: usize,
    ) -> Result<Vec<UnfinishedTask>, BrokerError> {
        let mut tasks = self.unfinished_on_disk(filter.clone(), limit).await?;
        tasks.extend(self.inner.volatile.list_unfinished(filter, limit - tasks.len()).await?);
        Ok(tasks)
    }

    async fn page_unfinished(
        &self,
        filter: &TaskFilter,
        standings: &[Standing],
        after: Option<&str>,
        limit: usize,
    ) -> Result<TaskPage<UnfinishedTask>, BrokerError> {
        self.page_of_unfinished(filter, standings, after, limit).await
    }

    async fn unfinished_ids(&self, filter: &TaskFilter) -> Result<Vec<TaskId>, BrokerError> {
        let mut ids = self.unfinished_ids_on_disk(filter.clone()).await?;
        ids.extend(self.inner.volatile.unfinished_ids(filter).await?);
        Ok(ids)
    }

    async fn page_unfinished_ids(
        &self,
        filter: &TaskFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<TaskPage<TaskId>, BrokerError> {
        self.page_of_ids(filter, after, limit).await
    }

    async fn remove(&self, id: &TaskId, record: RecordFn) -> Result<Removal, BrokerError> {
        if self.inner.volatile.find(id).await?.is_some() {
            return self.inner.volatile.remove(id, record).await;
        }
        let id = id.clone();
        self.ask(|reply| EngineCommand::Remove { id, record, reply }).await
    }
}

#[async_trait]
impl BrokerNotes for EmbeddedBroker {
    fn notes(&self) -> &dyn Notes {
        self
    }

    async fn publish_with_cas(
        &self,
        message: Message,
        change: CompareAndSet,
    ) -> Result<CasOutcome, BrokerError> {
        limits::check(&message)?;
        self.publish_with_note(message, change).await
    }
}
