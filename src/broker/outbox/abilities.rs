//! The abilities of a broker with an outbox: its own, and those of the broker behind it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::OutboxBroker;
use super::queue::{name_of, unwrap};
use crate::broker::completer::Completer;
use crate::broker::{
    Broker, BrokerConnection, BrokerError, BrokerListener, DeadLetterQueue, Events, Inspect, MessageLocation,
    QueueBinding, RecordFn, Removal, ScheduledTask, Standing, TaskFilter, UnfinishedTask,
};
use crate::protocol::control::{Reply, Request};
use crate::task::clock::now;
use crate::task::{Message, TaskId, TaskResult};

#[async_trait]
impl Events for OutboxBroker {
    fn node(&self) -> Option<String> {
        self.way.inner.events()?.node()
    }

    fn set_listener(&self, listener: Arc<dyn BrokerListener>) {
        self.way.listener.send_replace(Some(Arc::clone(&listener)));
        if let Some(events) = self.way.inner.events() {
            events.set_listener(listener);
        }
    }

    async fn broadcast_revoke(&self, ids: &[TaskId], terminate: bool) -> Result<(), BrokerError> {
        match self.way.inner.events() {
            Some(events) => events.broadcast_revoke(ids, terminate).await,
            None => Ok(()),
        }
    }

    async fn ask(&self, request: Request, patience: Duration) -> Result<Vec<Reply>, BrokerError> {
        match self.way.inner.events() {
            Some(events) => events.ask(request, patience).await,
            None => Ok(Vec::new()),
        }
    }

    fn connection(&self) -> Option<BrokerConnection> {
        self.way.inner.events()?.connection()
    }

    fn queue_arguments(&self, queue: &str) -> Map<String, Value> {
        self.way.inner.events().map(|events| events.queue_arguments(queue)).unwrap_or_default()
    }

    fn has_exchanges(&self) -> bool {
        self.way.inner.events().is_some_and(|events| events.has_exchanges())
    }

    fn binding(&self, queue: &str) -> Option<QueueBinding> {
        self.way.inner.events()?.binding(queue)
    }

    async fn bind(&self, queue: &str, binding: QueueBinding) -> Result<(), BrokerError> {
        match self.way.inner.events() {
            Some(events) => events.bind(queue, binding).await,
            None => Err(BrokerError::Refused("the broker has no exchanges".to_owned())),
        }
    }

    fn own_queue(&self, queue: &str) -> Option<String> {
        self.way.inner.events()?.own_queue(queue)
    }

    async fn scheduled(&self, limit: usize) -> Vec<ScheduledTask> {
        match self.way.inner.events() {
            Some(events) => events.scheduled(limit).await,
            None => Vec::new(),
        }
    }
}

impl OutboxBroker {
    /// The tasks in the outbox that the filter chooses.
    async fn own_unfinished(&self, filter: &TaskFilter) -> Result<Vec<TaskId>, BrokerError> {
        let (outbox, filter, now) = (self.outbox.clone(), filter.clone(), now());
        let is_meant = move |wrapped: &Message| {
            unwrap(wrapped).is_ok_and(|message| filter.takes_unfinished(&message, now))
        };
        blocking::unblock(move || outbox.unfinished(is_meant)).await
    }
}

#[async_trait]
impl Inspect for OutboxBroker {
    async fn find(&self, id: &TaskId) -> Result<Option<MessageLocation>, BrokerError> {
        match self.outbox.find(id).await? {
            Some(MessageLocation::Waiting(wrapped)) => {
                let message = unwrap(&wrapped).map_err(BrokerError::Io)?;
                Ok(Some(MessageLocation::Waiting(Box::new(message))))
            }
            // The message is on its way to the broker, which may know more.
            Some(MessageLocation::Delivered { .. }) | None => match self.way.inner.inspect() {
                Some(inner) => inner.find(id).await,
                None => Ok(None),
            },
        }
    }

    /// Of a message in the outbox it is not known, because the message is not in its queue yet.
    async fn position(&self, id: &TaskId, limit: usize) -> Result<Option<usize>, BrokerError> {
        match self.way.inner.inspect() {
            Some(inner) => inner.position(id, limit).await,
            None => Ok(None),
        }
    }

    /// Lists the tasks in the outbox, and those that the broker knows. What is in the outbox is not in its queue yet, and
    /// counts as scheduled.
    async fn list_unfinished(
        &self,
        filter: &TaskFilter,
        limit: usize,
    ) -> Result<Vec<UnfinishedTask>, BrokerError> {
        let mut tasks = Vec::new();
        for id in self.own_unfinished(filter).await?.into_iter().take(limit) {
            // A message that is on its way to the broker is not listed, or listed by it.
            if let Some(MessageLocation::Waiting(wrapped)) = self.outbox.find(&id).await? {
                let message = unwrap(&wrapped).map_err(BrokerError::Io)?;
                tasks.push(UnfinishedTask { message, standing: Standing::Scheduled });
            }
        }
        if let Some(inner) = self.way.inner.inspect() {
            tasks.extend(inner.list_unfinished(filter, limit - tasks.len()).await?);
        }
        Ok(tasks)
    }

    async fn unfinished_ids(&self, filter: &TaskFilter) -> Result<Vec<TaskId>, BrokerError> {
        let mut ids = match self.way.inner.inspect() {
            Some(inner) => inner.unfinished_ids(filter).await?,
            None => Vec::new(),
        };
        // A message that is on its way may be in both.
        let own = self.own_unfinished(filter).await?;
        let known: HashSet<TaskId> = ids.iter().cloned().collect();
        ids.extend(own.into_iter().filter(|id| !known.contains(id)));
        Ok(ids)
    }

    async fn remove(&self, id: &TaskId, record: RecordFn) -> Result<Removal, BrokerError> {
        if let Some(MessageLocation::Waiting(wrapped)) = self.outbox.find(id).await?
            && let Removal::Removed = self.outbox.remove(id, Box::new(|_| None.into())).await?
        {
            if let Some(line) = self.known(&wrapped.queue) {
                line.forget(1);
            }
            let message = unwrap(&wrapped).map_err(BrokerError::Io)?;
            let remains = record(&message);
            let listener = self.way.listener.borrow().clone();
            let plan_follow_ups = |message: &Message, record: &mut TaskResult| {
                listener.as_ref()?.plan_follow_ups(message, record)
            };
            let (store, windows) = (&*self.way.store, self.unique_windows());
            let completer = Completer {
                store,
                broker: self,
                marks_sent: false,
                windows,
                plan_follow_ups: &plan_follow_ups,
            };
            completer.leave(&message, remains).await;
            return Ok(Removal::Removed);
        }
        match self.way.inner.inspect() {
            Some(inner) => inner.remove(id, record).await,
            None => Ok(Removal::Unknown),
        }
    }
}

#[async_trait]
impl DeadLetterQueue for OutboxBroker {
    async fn bury(&self, message: Message, reason: &str) -> Result<(), BrokerError> {
        match self.way.inner.dead_letter_queue() {
            Some(inner) => inner.bury(message, reason).await,
            None => Err(BrokerError::Refused(format!(
                "the broker `{}` has no queue for dead letters",
                self.way.inner.name()
            ))),
        }
    }

    fn dead_from_here(&self, queue: &str) -> u64 {
        let own = self.known(&name_of(queue)).map_or(0, |line| line.dead());
        own + self.way.inner.dead_letter_queue().map_or(0, |inner| inner.dead_from_here(queue))
    }
}
