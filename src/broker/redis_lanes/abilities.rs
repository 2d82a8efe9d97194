//! The abilities of a broker with lanes. Some are its own, and the others are those of the broker behind it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::lanes::{Seat, TakenMember};
use super::{RedisLanesBroker, broken, facts_of, listener};
use crate::broker::completer::Completer;
use crate::broker::lane::SHOWN;
use crate::broker::{
    Broker, BrokerConnection, BrokerError, BrokerListener, Events, Inspect, LaneFacts, LaneLever, Lanes,
    MessageLocation, QueueBinding, RecordFn, Removal, ScheduledTask, TaskFilter, TaskPage, UnfinishedTask,
};
use crate::protocol::control::{Reply, Request};
use crate::store::Store;
use crate::task::{LaneName, Message, TaskId, TaskResult};

#[async_trait]
impl Lanes for RedisLanesBroker {
    async fn lane(&self, lane: &LaneName) -> Result<Option<LaneFacts>, BrokerError> {
        Ok(self.shared.lanes.facts(lane, SHOWN).await.map_err(broken)?.map(facts_of))
    }

    async fn busy_lanes(&self, limit: usize) -> Result<Vec<LaneFacts>, BrokerError> {
        let all = self.shared.lanes.all(limit).await.map_err(broken)?;
        Ok(all.into_iter().map(facts_of).collect())
    }

    async fn steer_lane(&self, lane: &LaneName, lever: LaneLever) -> Result<bool, BrokerError> {
        let (moved, due) = match lever {
            LaneLever::Unblock => self.shared.lanes.unblock(lane).await,
            LaneLever::Concurrency(limit) => self.shared.lanes.adjust(lane, limit).await,
        }
        .map_err(broken)?;
        self.shared.send_soon(due);
        Ok(moved)
    }
}

#[async_trait]
impl Events for RedisLanesBroker {
    fn node(&self) -> Option<String> {
        self.shared.inner.events()?.node()
    }

    fn set_listener(&self, listener: Arc<dyn BrokerListener>) {
        if self.shared.listener.set(Arc::clone(&listener)).is_ok()
            && let Some(events) = self.shared.inner.events()
        {
            events.set_listener(Arc::new(listener::LaneListener::new(listener, &self.shared)));
        }
    }

    async fn broadcast_revoke(&self, ids: &[TaskId], terminate: bool) -> Result<(), BrokerError> {
        match self.shared.inner.events() {
            Some(events) => events.broadcast_revoke(ids, terminate).await,
            None => Ok(()),
        }
    }

    async fn ask(&self, request: Request, patience: Duration) -> Result<Vec<Reply>, BrokerError> {
        match self.shared.inner.events() {
            Some(events) => events.ask(request, patience).await,
            None => Ok(Vec::new()),
        }
    }

    fn connection(&self) -> Option<BrokerConnection> {
        self.shared.inner.events()?.connection()
    }

    fn queue_arguments(&self, queue: &str) -> Map<String, Value> {
        self.shared.inner.events().map(|events| events.queue_arguments(queue)).unwrap_or_default()
    }

    fn has_exchanges(&self) -> bool {
        self.shared.inner.events().is_some_and(|events| events.has_exchanges())
    }

    fn binding(&self, queue: &str) -> Option<QueueBinding> {
        self.shared.inner.events()?.binding(queue)
    }

    async fn bind(&self, queue: &str, binding: QueueBinding) -> Result<(), BrokerError> {
        match self.shared.inner.events() {
            Some(events) => events.bind(queue, binding).await,
            None => Err(BrokerError::Refused("the broker has no exchanges".to_owned())),
        }
    }

    fn own_queue(&self, queue: &str) -> Option<String> {
        self.shared.inner.events()?.own_queue(queue)
    }

    async fn scheduled(&self, limit: usize) -> Vec<ScheduledTask> {
        match self.shared.inner.events() {
            Some(events) => events.scheduled(limit).await,
            None => Vec::new(),
        }
    }
}

#[async_trait]
impl Inspect for RedisLanesBroker {
    async fn find(&self, id: &TaskId) -> Result<Option<MessageLocation>, BrokerError> {
        match self.shared.lanes.find(id).await.map_err(broken)? {
            Seat::Waiting(message) => Ok(Some(MessageLocation::Waiting(message))),
            Seat::Held | Seat::Unknown => match self.shared.inner.inspect() {
                Some(inner) => inner.find(id).await,
                None => Ok(None),
            },
        }
    }

    /// A task that waits in a lane could not start now, so this broker reports no task ahead of it.
    async fn position(&self, id: &TaskId, limit: usize) -> Result<Option<usize>, BrokerError> {
        match self.shared.inner.inspect() {
            Some(inner) => inner.position(id, limit).await,
            None => Ok(None),
        }
    }

    /// Lists what the broker behind this one knows. The tasks that wait in lanes are not among them: Redis has their
    /// [lanes](Lanes::busy_lanes).
    async fn list_unfinished(
        &self,
        filter: &TaskFilter,
        limit: usize,
    ) -> Result<Vec<UnfinishedTask>, BrokerError> {
        match self.shared.inner.inspect() {
            Some(inner) => inner.list_unfinished(filter, limit).await,
            None => Ok(Vec::new()),
        }
    }

    async fn unfinished_ids(&self, filter: &TaskFilter) -> Result<Vec<TaskId>, BrokerError> {
        match self.shared.inner.inspect() {
            Some(inner) => inner.unfinished_ids(filter).await,
            None => Ok(Vec::new()),
        }
    }

    async fn page_unfinished_ids(
        &self,
        filter: &TaskFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<TaskPage<TaskId>, BrokerError> {
        match self.shared.inner.inspect() {
            Some(inner) => inner.page_unfinished_ids(filter, after, limit).await,
            None => Ok(TaskPage::empty()),
        }
    }

    async fn remove(&self, id: &TaskId, record: RecordFn) -> Result<Removal, BrokerError> {
        let (taken, due) = self.shared.lanes.remove(id).await.map_err(broken)?;
        self.shared.send_soon(due);
        match taken {
            TakenMember::Unknown => match self.shared.inner.inspect() {
                Some(inner) => inner.remove(id, record).await,
                None => Ok(Removal::Unknown),
            },
            TakenMember::Held { queue } if self.shared.leases.has(id) => Ok(Removal::Delivered { queue }),
            TakenMember::Held { .. } => Ok(Removal::Unknown),
            TakenMember::Removed(message) => {
                let remains = record(&message);
                let plan_follow_ups = |message: &Message, record: &mut TaskResult| {
                    self.shared.listener.get()?.plan_follow_ups(message, record)
                };
                let store: &dyn Store = self.shared.lanes.store();
                let windows = self.unique_windows();
                let completer = Completer {
                    store,
                    broker: self,
                    marks_sent: false,
                    windows,
                    plan_follow_ups: &plan_follow_ups,
                };
                completer.leave(&message, remains).await;
                Ok(Removal::Removed)
            }
        }
    }
}
