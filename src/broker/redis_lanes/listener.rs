//! Listens to the broker behind the lanes.

use std::sync::{Arc, Weak};

use futures_util::future::BoxFuture;
use serde_json::Value;

use super::RedisLanesInner;
use crate::broker::{Activity, BrokerListener, ControlRequest, FollowUps, lane};
use crate::store::StoreError;
use crate::task::{EventGroup, EventStream, Message, TaskId, TaskOptions, TaskResult};

/// Hears first that a task is over without having been delivered. It takes the task out of its lane, and passes the
/// news on to the listener of the program.
pub(super) struct LaneListener {
    listener: Arc<dyn BrokerListener>,
    shared: Weak<RedisLanesInner>,
}

impl LaneListener {
    pub(super) fn new(listener: Arc<dyn BrokerListener>, shared: &Arc<RedisLanesInner>) -> Self {
        Self { listener, shared: Arc::downgrade(shared) }
    }

    fn leave_lane(&self, record: &TaskResult, message: Option<&Message>) {
        if let Some(shared) = self.shared.upgrade()
            && let Some(message) = message
            && let Some(pass) = message.serial.as_ref().and_then(|serial| serial.pass)
        {
            let (id, block) = (message.id.clone(), lane::blocks(message, Some(record)));
            shared.clone().runtime.spawn(async move {
                let buried = shared
                    .insist("a lane cannot be left yet", || shared.lanes.bury(&id, pass, block.clone()));
                if let Ok(due) = buried.await {
                    shared.send(due).await;
                }
            });
        }
    }
}

impl BrokerListener for LaneListener {
    fn options(&self, task: &str) -> Option<TaskOptions> {
        self.listener.options(task)
    }

    fn plan_follow_ups(&self, message: &Message, record: &mut TaskResult) -> Option<Box<FollowUps>> {
        self.listener.plan_follow_ups(message, record)
    }

    fn over(&self, record: TaskResult, message: Option<&Message>) {
        self.leave_lane(&record, message);
        self.listener.over(record, message);
    }

    fn end(&self, record: TaskResult, message: Option<&Message>) -> BoxFuture<'static, ()> {
        self.leave_lane(&record, message);
        self.listener.end(record, message)
    }

    fn events(&self, groups: &[EventGroup]) -> EventStream {
        self.listener.events(groups)
    }

    fn activity(&self) -> Activity {
        self.listener.activity()
    }

    fn parked(&self, message: &Arc<Message>) -> bool {
        self.listener.parked(message)
    }

    fn lost(&self, tags: Vec<u64>) {
        self.listener.lost(tags);
    }

    fn revoked(
        &self,
        ids: Vec<TaskId>,
        terminate: bool,
    ) -> BoxFuture<'static, Result<Vec<TaskId>, StoreError>> {
        self.listener.revoked(ids, terminate)
    }

    fn control(&self, request: ControlRequest) -> BoxFuture<'static, Option<Value>> {
        self.listener.control(request)
    }
}
