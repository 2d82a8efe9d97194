//! What a [`SplitBroker`](super::SplitBroker) can do beside carrying messages: canvases and chords, events of the
//! cluster, and taking out tasks. Each ability joins the transport's own with what the store must do for it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::SplitInner;
use crate::broker::{
    BrokerConnection, BrokerError, BrokerListener, Events, FailedTask, FailedTasks, Inspect, MessageLocation,
    QueueBinding, RecordFn, Remains, Removal, Results, Retried, ScheduledTask, Standing, TaskEdit,
    TaskFilter, TaskPage, UnfinishedTask,
};
use crate::broker::{completer, copies};
use crate::protocol::control::{Reply, Request};
use crate::store::chords;
use crate::task::{Message, TaskId, TaskResult};

impl SplitInner {
    async fn open_chords(&self, sizes: Vec<(String, u64)>, done: &'static str) -> Result<(), BrokerError> {
        for (group, size) in sizes {
            let opened = async { chords(&*self.store)?.open_chord(&group, size).await }.await;
            opened.map_err(|source| BrokerError::Chord { done, source })?;
        }
        Ok(())
    }
}

/// Chords are opened in the store before their members are sent: the sizes say when a chord is complete.
#[async_trait]
impl Results for SplitInner {
    async fn publish_canvas(
        &self,
        mut messages: Vec<Message>,
        sizes: Vec<(String, u64)>,
        unique: bool,
    ) -> Result<(), BrokerError> {
        copies::number(&mut messages, &*self.transport, &*self.store);
        self.open_chords(sizes, "opened").await?;
        self.transport.publish_all(messages, unique).await
    }

    async fn publish_chord_member(
        &self,
        messages: Vec<Message>,
        sizes: Vec<(String, u64)>,
        group: &str,
        member: &TaskId,
    ) -> Result<(), BrokerError> {
        self.open_chords(sizes, "told").await?;
        let extended = async { chords(&*self.store)?.extend_chord(group, member).await }.await;
        extended.map_err(|source| match BrokerError::from(source) {
            error @ BrokerError::NoChord(_) => error,
            BrokerError::Store(source) => BrokerError::Chord { done: "told", source },
            error => error,
        })?;
        self.transport.publish_all(messages, true).await
    }
}

#[async_trait]
impl Events for SplitInner {
    fn node(&self) -> Option<String> {
        self.transport.events()?.node()
    }

    fn set_listener(&self, listener: Arc<dyn BrokerListener>) {
        self.listener().replace(Arc::clone(&listener));
        if let Some(events) = self.transport.events() {
            events.set_listener(listener);
        }
    }

    async fn broadcast_revoke(&self, ids: &[TaskId], terminate: bool) -> Result<(), BrokerError> {
        if let Some(events) = self.transport.events() {
            events.broadcast_revoke(ids, terminate).await?;
        }
        self.end_windows_of(ids).await;
        Ok(())
    }

    async fn ask(&self, request: Request, patience: Duration) -> Result<Vec<Reply>, BrokerError> {
        match self.transport.events() {
            Some(events) => events.ask(request, patience).await,
            None => Ok(Vec::new()),
        }
    }

    fn connection(&self) -> Option<BrokerConnection> {
        self.transport.events()?.connection()
    }

    fn queue_arguments(&self, queue: &str) -> Map<String, Value> {
        self.transport.events().map(|events| events.queue_arguments(queue)).unwrap_or_default()
    }

    fn has_exchanges(&self) -> bool {
        self.transport.events().is_some_and(|events| events.has_exchanges())
    }

    fn binding(&self, queue: &str) -> Option<QueueBinding> {
        self.transport.events()?.binding(queue)
    }

    async fn bind(&self, queue: &str, binding: QueueBinding) -> Result<(), BrokerError> {
        match self.transport.events() {
            Some(events) => events.bind(queue, binding).await,
            None => Err(BrokerError::Refused("the broker has no exchanges".to_owned())),
        }
    }

    fn own_queue(&self, queue: &str) -> Option<String> {
        self.transport.events()?.own_queue(queue)
    }

    async fn scheduled(&self, limit: usize) -> Vec<ScheduledTask> {
        match self.transport.events() {
            Some(events) => events.scheduled(limit).await,
            None => Vec::new(),
        }
    }
}

#[async_trait]
impl Inspect for SplitInner {
    async fn find(&self, id: &TaskId) -> Result<Option<MessageLocation>, BrokerError> {
        match self.transport.inspect() {
            Some(transport) => transport.find(id).await,
            None => Ok(None),
        }
    }

    async fn position(&self, id: &TaskId, limit: usize) -> Result<Option<usize>, BrokerError> {
        match self.transport.inspect() {
            Some(transport) => transport.position(id, limit).await,
            None => Ok(None),
        }
    }

    async fn list_unfinished(
        &self,
        filter: &TaskFilter,
        limit: usize,
    ) -> Result<Vec<UnfinishedTask>, BrokerError> {
        match self.transport.inspect() {
            Some(transport) => transport.list_unfinished(filter, limit).await,
            None => Ok(Vec::new()),
        }
    }

    async fn page_unfinished(
        &self,
        filter: &TaskFilter,
        standings: &[Standing],
        after: Option<&str>,
        limit: usize,
    ) -> Result<TaskPage<UnfinishedTask>, BrokerError> {
        match self.transport.inspect() {
            Some(transport) => transport.page_unfinished(filter, standings, after, limit).await,
            None => Ok(TaskPage::empty()),
        }
    }

    async fn unfinished_ids(&self, filter: &TaskFilter) -> Result<Vec<TaskId>, BrokerError> {
        match self.transport.inspect() {
            Some(transport) => transport.unfinished_ids(filter).await,
            None => Ok(Vec::new()),
        }
    }

    async fn page_unfinished_ids(
        &self,
        filter: &TaskFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<TaskPage<TaskId>, BrokerError> {
        match self.transport.inspect() {
            Some(transport) => transport.page_unfinished_ids(filter, after, limit).await,
            None => Ok(TaskPage::empty()),
        }
    }

    /// The record of the task is kept only after the transport has let the task go: until then a worker may start it.
    async fn remove(&self, id: &TaskId, record: RecordFn) -> Result<Removal, BrokerError> {
        let Some(transport) = self.transport.inspect() else { return Ok(Removal::Unknown) };
        let left = Arc::new(Mutex::new(None));
        let kept = Arc::clone(&left);
        let leave = move |message: &Message| {
            let remains = (record(message), message.clone());
            *kept.lock() = Some(remains);
            Remains::default()
        };
        let removal = transport.remove(id, Box::new(leave)).await?;
        let left = left.lock().take();
        if let Some((remains, message)) = left {
            let plan_follow_ups =
                |message: &Message, record: &mut TaskResult| self.plan_follow_ups(message, record);
            self.completer(&plan_follow_ups).leave(&message, remains).await;
        }
        Ok(removal)
    }
}

/// The transport's own. A task that goes back takes its record along.
#[async_trait]
impl FailedTasks for SplitInner {
    async fn keep_failed(&self, task: FailedTask) -> Result<(), BrokerError> {
        own(self.transport.failed_tasks())?.keep_failed(task).await
    }

    async fn list_failed(&self, filter: &TaskFilter, limit: usize) -> Result<Vec<FailedTask>, BrokerError> {
        own(self.transport.failed_tasks())?.list_failed(filter, limit).await
    }

    async fn page_failed(
        &self,
        filter: &TaskFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<TaskPage<FailedTask>, BrokerError> {
        own(self.transport.failed_tasks())?.page_failed(filter, after, limit).await
    }

    async fn failed_ids(&self, filter: &TaskFilter) -> Result<Vec<TaskId>, BrokerError> {
        own(self.transport.failed_tasks())?.failed_ids(filter).await
    }

    async fn retry_failed(&self, ids: &[TaskId], edit: Option<&TaskEdit>) -> Result<Retried, BrokerError> {
        let failed = own(self.transport.failed_tasks())?;
        completer::retry_failed(failed, &*self.store, self.marks_sent, ids, edit).await
    }

    async fn delete_failed(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
        own(self.transport.failed_tasks())?.delete_failed(ids).await
    }

    fn dropped_failed(&self) -> u64 {
        self.transport.failed_tasks().map_or(0, |failed| failed.dropped_failed())
    }
}

/// The ability that the transport had when it was asked first.
fn own(failed: Option<&dyn FailedTasks>) -> Result<&dyn FailedTasks, BrokerError> {
    failed.ok_or_else(|| BrokerError::io("the broker does not hand out its failed tasks any more"))
}
