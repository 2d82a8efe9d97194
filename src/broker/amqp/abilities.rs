//! The abilities of the broker on RabbitMQ: what it can do beside what every [`Broker`](crate::broker::Broker)
//! does.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::consumer::ConsumerCommand;
use super::fleet_events::{self, FleetEvents};
use super::topology::short;
use super::{AmqpBroker, elections, events, mailbox, pidbox};
use crate::broker::{
    BrokerConnection, BrokerError, BrokerListener, DeadLetterQueue, Events, Inspect, MessageLocation,
    QueueBinding, RecordFn, Removal, ScheduledTask, Standing, TaskFilter, UnfinishedTask,
};
use crate::protocol::control::{Reply, Request};
use crate::task::clock::now;
use crate::task::{Message, TaskId};

impl AmqpBroker {
    /// The number of task events that were dropped since the start, because they came faster than RabbitMQ took them, or were
    /// under way when a channel ended.
    pub fn dropped_events(&self) -> u64 {
        self.shared.events.dropped()
    }

    /// The number of messages that wait in a queue and its partitions and are with no consumer. `None`: there is no such
    /// queue, and it is not made.
    ///
    /// # Errors
    /// The broker is closed or RabbitMQ cannot be reached.
    pub async fn waiting(&self, queue: &str) -> Result<Option<u64>, BrokerError> {
        let (shared, queue) = (Arc::clone(&self.shared), queue.to_owned());
        self.there(async move { shared.topology.waiting_in_all(&queue).await }).await
    }

    /// Deletes the messages that wait in a queue and its partitions and are with no consumer, and says how many they were.
    /// No record is left of their tasks, and nothing follows from them. `None`: there is no such queue. Celery's `purge`.
    ///
    /// # Errors
    /// The broker is closed, RabbitMQ cannot be reached, or it does not allow that.
    pub async fn purge(&self, queue: &str) -> Result<Option<u64>, BrokerError> {
        let (shared, queue) = (Arc::clone(&self.shared), queue.to_owned());
        self.there(async move {
            let mut purged = shared.topology.purge(&short(&queue)?).await?;
            for partition in shared.options.partition_names(&queue) {
                let more = shared.topology.purge(&short(&partition)?).await?;
                purged = purged.map(|purged| purged.saturating_add(more.unwrap_or_default()));
            }
            Ok(purged)
        })
        .await
    }

    /// Whether there is an exchange of this name, as that of a broadcast.
    ///
    /// # Errors
    /// The broker is closed, RabbitMQ cannot be reached, or it does not allow that.
    pub async fn has_exchange(&self, exchange: &str) -> Result<bool, BrokerError> {
        let (shared, name) = (Arc::clone(&self.shared), exchange.to_owned());
        match self.there(async move { shared.topology.find_exchange(&name).await }).await {
            Ok(()) => Ok(true),
            Err(BrokerError::Refused(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The tasks that this process knows and that the filter chooses: those that were delivered to it, and those that it has
    /// sent away until their ETA.
    async fn known_here(&self, filter: &TaskFilter) -> Result<Vec<(Arc<Message>, Standing)>, BrokerError> {
        self.still_open()?;
        let scheduled = Events::scheduled(self, usize::MAX).await.into_iter().map(|task| task.message);
        let mut tasks: Vec<_> = scheduled.map(|message| (message, Standing::Scheduled)).collect();
        let known: HashSet<TaskId> = tasks.iter().map(|(message, _)| message.id.clone()).collect();
        // What waits here for its ETA is delivered as well.
        let held = self.shared.held().await.into_iter().filter(|message| !known.contains(&message.id));
        tasks.extend(held.map(|message| (message, Standing::Delivered)));
        let now = now();
        tasks.retain(|(message, _)| filter.takes_unfinished(message, now));
        Ok(tasks)
    }

    /// The events of all workers and programs on this RabbitMQ, Celery's and ours, from now on. Each of them is asked
    /// for a heartbeat. Celery's `app.events.Receiver`.
    ///
    /// # Errors
    /// The broker is closed, RabbitMQ cannot be reached, or it does not allow that.
    pub async fn fleet_events(&self) -> Result<FleetEvents, BrokerError> {
        self.there(fleet_events::hear(Arc::clone(&self.shared))).await
    }
}

#[async_trait]
impl Events for AmqpBroker {
    fn node(&self) -> Option<String> {
        Some(self.node())
    }

    fn set_listener(&self, listener: Arc<dyn BrokerListener>) {
        if self.shared.listener.set(Arc::clone(&listener)).is_ok() {
            self.shared.runtime.spawn(events::attend(Arc::clone(&self.shared), Arc::clone(&listener)));
            self.shared.runtime.spawn(elections::attend(Arc::clone(&self.shared)));
            self.shared.runtime.spawn(pidbox::listen(Arc::clone(&self.shared), listener));
        } else {
            tracing::error!("a broker has one runtime that attends it; the second one hears nothing");
        }
    }

    async fn broadcast_revoke(&self, ids: &[TaskId], terminate: bool) -> Result<(), BrokerError> {
        let (shared, request) = (Arc::clone(&self.shared), Request::revoke(ids, terminate));
        self.there(async move { pidbox::broadcast(&shared, &request).await }).await
    }

    async fn ask(&self, request: Request, patience: Duration) -> Result<Vec<Reply>, BrokerError> {
        self.there(mailbox::ask(Arc::clone(&self.shared), request, patience)).await
    }

    fn connection(&self) -> Option<BrokerConnection> {
        Some(self.shared.link.connection())
    }

    fn queue_arguments(&self, queue: &str) -> Map<String, Value> {
        self.shared.options.arguments(queue)
    }

    fn has_exchanges(&self) -> bool {
        true
    }

    fn binding(&self, queue: &str) -> Option<QueueBinding> {
        if self.shared.options.is_broadcast(queue) {
            return Some(QueueBinding::new(queue, "fanout", ""));
        }
        self.shared.topology.binding(queue)
    }

    async fn bind(&self, queue: &str, binding: QueueBinding) -> Result<(), BrokerError> {
        let (shared, queue) = (Arc::clone(&self.shared), queue.to_owned());
        self.there(async move { shared.topology.bind(&queue, binding).await }).await
    }

    fn own_queue(&self, queue: &str) -> Option<String> {
        self.shared.topology.name_of_own(queue)
    }

    async fn scheduled(&self, limit: usize) -> Vec<ScheduledTask> {
        let queues: Vec<String> = self.shared.lines().keys().cloned().collect();
        let asked = queues.iter().map(|queue| self.shared.ask(queue, ConsumerCommand::Early));
        let early = futures_util::future::join_all(asked).await.into_iter().flatten().flatten();
        let mut all = self.shared.parked.list(limit, now());
        for task in early {
            // One that has come back from RabbitMQ a moment before its ETA is in both places.
            if !all.iter().any(|other| other.message.id == task.message.id) {
                all.push(task);
            }
        }
        all.sort_by_key(|task| task.eta);
        all.truncate(limit);
        all
    }
}

/// Finds the tasks that were delivered here. A task that waits in RabbitMQ can be neither found nor taken out.
#[async_trait]
impl Inspect for AmqpBroker {
    async fn find(&self, id: &TaskId) -> Result<Option<MessageLocation>, BrokerError> {
        self.still_open()?;
        Ok(self.shared.who_has(id).await.map(|queue| MessageLocation::Delivered { queue }))
    }

    async fn position(&self, _id: &TaskId, _limit: usize) -> Result<Option<usize>, BrokerError> {
        Ok(None)
    }

    async fn list_unfinished(
        &self,
        filter: &TaskFilter,
        limit: usize,
    ) -> Result<Vec<UnfinishedTask>, BrokerError> {
        let tasks = self.known_here(filter).await?.into_iter().take(limit);
        let tasks =
            tasks.map(|(message, standing)| UnfinishedTask { message: Message::clone(&message), standing });
        Ok(tasks.collect())
    }

    async fn unfinished_ids(&self, filter: &TaskFilter) -> Result<Vec<TaskId>, BrokerError> {
        Ok(self.known_here(filter).await?.iter().map(|(message, _)| message.id.clone()).collect())
    }

    async fn remove(&self, id: &TaskId, _record: RecordFn) -> Result<Removal, BrokerError> {
        Ok(match self.find(id).await? {
            Some(MessageLocation::Delivered { queue }) => Removal::Delivered { queue },
            _ => Removal::Unknown,
        })
    }
}

#[async_trait]
impl DeadLetterQueue for AmqpBroker {
    async fn bury(&self, message: Message, reason: &str) -> Result<(), BrokerError> {
        let (shared, reason) = (Arc::clone(&self.shared), reason.to_owned());
        self.there(async move { shared.bury(&message, &reason).await }).await
    }

    fn dead_from_here(&self, queue: &str) -> u64 {
        self.shared.publisher.letters_of(queue)
    }
}
