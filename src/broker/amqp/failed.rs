//! The failed tasks: one durable queue for those of all queues, with each message whole, and the dead letters in another one.
//!
//! RabbitMQ bounds the queue itself: each message has a time to live, and above the bound the oldest go. A message goes when it
//! has come to the head of the queue, so one that has expired behind others is still there, and is left out here. As with
//! [dead letters](super::dead_letters), to look is to fetch, and to give back unread: two processes that look at the same time
//! each see only what the other one has not fetched.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use lapin::Channel;
use lapin::options::BasicAckOptions;
use lapin::types::{AMQPValue, FieldTable};

use super::dead_letters::{Again, look, open};
use super::link::ReconnectPause;
use super::outgoing::{self, EXPIRES_AT};
use super::post::OutgoingMessage;
use super::topology::{DEAD, FAILED, Topology, broken};
use super::{AmqpBroker, AmqpInner};
use crate::broker::failed::oldest_first;
use crate::broker::{BrokerError, FailedTask, FailedTasks, Retried, TaskEdit, TaskFilter};
use crate::core::Timestamp;
use crate::rabbitmq::frame_guard::UnreadWatch;
use crate::task::TaskId;
use crate::task::clock::now;

/// The queues that tasks are in that have failed for good.
const QUEUES: [&str; 2] = [FAILED, DEAD];
/// How long RabbitMQ may take to confirm that a failed task is kept, before it is sent again.
const AT_A_TIME: Duration = Duration::from_secs(30);

/// A look at one of the queues. What is not taken goes back when it is closed or dropped.
struct QueueBrowse {
    queue: &'static str,
    channel: Channel,
    unread: UnreadWatch,
}

/// A failed task or a dead letter that was fetched.
struct FetchedTask {
    task: FailedTask,
    again: Again,
    delivery_tag: u64,
}

impl QueueBrowse {
    /// Begins to look. `None`: there is no such queue yet, so nothing is in it; to make it is for who puts something there.
    async fn at(shared: &AmqpInner, queue: &'static str) -> Result<Option<Self>, BrokerError> {
        if shared.topology.waiting(&queue.into()).await?.is_none() {
            return Ok(None);
        }
        let (channel, unread) = look(shared).await?;
        Ok(Some(Self { queue, channel, unread }))
    }

    /// Fetches the next one; `None`: that was all.
    async fn next(&self, shared: &Arc<AmqpInner>) -> Result<Option<FetchedTask>, BrokerError> {
        let got = self.channel.basic_get(self.queue.into(), Topology::FETCH).await.map_err(|e| broken(&e))?;
        let Some(got) = got else { return Ok(None) };
        let (delivery_tag, expires_at) =
            (got.delivery.delivery_tag, expires_at(got.delivery.properties.headers().as_ref()));
        let (letter, again) = open(shared, got.delivery, &self.unread).await;
        let task = FailedTask { expires_at, ..FailedTask::from(letter) };
        Ok(Some(FetchedTask { task, again, delivery_tag }))
    }

    /// Takes one out for good.
    async fn take(&self, delivery_tag: u64) -> Result<(), BrokerError> {
        self.channel.basic_ack(delivery_tag, BasicAckOptions::default()).await.map_err(|e| broken(&e))
    }

    /// Gives all others back. RabbitMQ answers when they are there.
    async fn close(self) -> Result<(), BrokerError> {
        self.channel.close(200, "OK".into()).await.map_err(|e| broken(&e))
    }
}

/// The time until which a task is kept, as its label says.
fn expires_at(headers: Option<&FieldTable>) -> Option<Timestamp> {
    match headers?.inner().get(EXPIRES_AT)? {
        AMQPValue::LongLongInt(millis) => u64::try_from(*millis).ok().map(Timestamp::from_millis),
        _ => None,
    }
}

/// Those that the filter chooses, the oldest first.
async fn list(
    shared: &Arc<AmqpInner>,
    filter: &TaskFilter,
    limit: usize,
) -> Result<Vec<FailedTask>, BrokerError> {
    let (mut all, now) = (Vec::new(), now());
    for queue in QUEUES {
        let Some(look) = QueueBrowse::at(shared, queue).await? else { continue };
        let mut left = limit;
        while left > 0
            && let Some(fetched) = look.next(shared).await?
        {
            if filter.takes(&fetched.task, now) {
                all.push(fetched.task);
                left -= 1;
            }
        }
        look.close().await?;
    }
    Ok(oldest_first(all, limit))
}

/// The ids of those that the filter chooses.
async fn ids(shared: &Arc<AmqpInner>, filter: &TaskFilter) -> Result<Vec<TaskId>, BrokerError> {
    let (mut all, now) = (Vec::new(), now());
    for queue in QUEUES {
        let Some(look) = QueueBrowse::at(shared, queue).await? else { continue };
        while let Some(fetched) = look.next(shared).await? {
            if filter.takes(&fetched.task, now) {
                all.push((fetched.task.failed_at, fetched.task.message.id));
            }
        }
        look.close().await?;
    }
    all.sort_by_key(|(failed_at, _)| *failed_at);
    Ok(all.into_iter().map(|(_, id)| id).collect())
}

/// Puts those of these ids back into their queues, in one pass over each of the two queues. After an error half-way it tells
/// which are back, because their records must not come back.
async fn retry(
    shared: &Arc<AmqpInner>,
    ids: &[TaskId],
    edit: Option<&TaskEdit>,
) -> Result<Retried, BrokerError> {
    let mut wanted: HashSet<&TaskId> = ids.iter().collect();
    let mut retried = Retried::default();
    for queue in QUEUES {
        let Err(error) = retry_of(shared, queue, &mut wanted, edit, &mut retried).await else { continue };
        if retried.ids.is_empty() {
            return Err(error);
        }
        let left = wanted.iter().map(|id| ((*id).clone(), error.to_string()));
        retried.refused.extend(left);
        break;
    }
    Ok(retried)
}

/// Puts those of the wanted ids back that are in one queue, and takes them out of `wanted`.
async fn retry_of(
    shared: &Arc<AmqpInner>,
    queue: &'static str,
    wanted: &mut HashSet<&TaskId>,
    edit: Option<&TaskEdit>,
    retried: &mut Retried,
) -> Result<(), BrokerError> {
    if wanted.is_empty() {
        return Ok(());
    }
    let Some(look) = QueueBrowse::at(shared, queue).await? else { return Ok(()) };
    while !wanted.is_empty()
        && let Some(FetchedTask { task, again, delivery_tag }) = look.next(shared).await?
    {
        if task.has_expired(now()) {
            continue;
        }
        let Some(wished) = wanted.take(&task.message.id) else { continue };
        let (id, of) = (task.message.id.clone(), task.message.queue.clone());
        // What cannot go back stays unacknowledged, and goes back to its place when the channel is closed.
        let post = match written(shared, task, again, edit) {
            Ok(post) => post,
            Err(why) => {
                retried.refused.push((id, why));
                continue;
            }
        };
        // It is acknowledged only when its message is confirmed: a crash in between makes two of it, not none.
        match shared.publisher.publish(&post, shared.options.publish_timeout).await {
            Ok(()) => retried.ids.push(id),
            Err(error) if error.is_permanent() => {
                retried.refused.push((id, error.to_string()));
                continue;
            }
            Err(error) => {
                wanted.insert(wished);
                // Whoever asks next which tasks are there still must find those that were fetched here.
                let _ = look.close().await;
                return Err(error);
            }
        }
        look.take(delivery_tag).await?;
        if queue == DEAD {
            shared.publisher.requeued(&of);
        }
    }
    look.close().await
}

/// Writes the message with which a task is tried again, or says why it cannot be.
fn written(
    shared: &AmqpInner,
    task: FailedTask,
    again: Again,
    edit: Option<&TaskEdit>,
) -> Result<OutgoingMessage, String> {
    let (now, queue) = (now(), task.message.queue.clone());
    let post = match again {
        Again::Task(message) => {
            let message = FailedTask { message: *message, ..task }.again(edit, now)?;
            shared.write(&message, shared.partitions.choose(&message))
        }
        Again::AsItWas(..) if edit.is_some() => {
            return Err("it is no task that can be read, so nothing in it can be changed".to_owned());
        }
        Again::AsItWas(properties, body) => {
            outgoing::again(*properties, body, &queue).map(|post| post.addressed(&shared.options))
        }
        Again::Nothing => {
            return Err(
                "its properties could not be read and cannot be written; send the task anew".to_owned()
            );
        }
    };
    post.map_err(|error| error.to_string())
}

/// Deletes those of these ids.
async fn delete(shared: &Arc<AmqpInner>, ids: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
    let wanted: HashSet<&TaskId> = ids.iter().collect();
    let mut deleted = HashSet::new();
    for queue in QUEUES {
        let Some(look) = QueueBrowse::at(shared, queue).await? else { continue };
        while deleted.len() < wanted.len()
            && let Some(FetchedTask { task, delivery_tag, .. }) = look.next(shared).await?
        {
            if wanted.contains(&task.message.id) {
                look.take(delivery_tag).await?;
                if queue == DEAD {
                    shared.publisher.requeued(&task.message.queue);
                }
                deleted.insert(task.message.id);
            }
        }
        look.close().await?;
    }
    Ok(ids.iter().filter(|id| deleted.contains(*id)).cloned().collect())
}

impl AmqpInner {
    /// Keeps a failed task, however long that takes. If RabbitMQ refuses that for good, or its queue is at a bound of its
    /// administrator's, the task is not kept: nobody waits for that, and its record says that it has failed.
    pub(super) async fn keep_failed(&self, post: &OutgoingMessage) -> Result<(), BrokerError> {
        let mut pause = ReconnectPause::default();
        loop {
            let error = match self.publisher.publish(post, AT_A_TIME).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let is_full = matches!(error, BrokerError::Full(_)) && !self.publisher.is_unavailable();
            if error == BrokerError::Closed {
                return Err(error);
            }
            if error.is_permanent() || is_full {
                self.dropped_failed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, "a failed task is not kept");
                return Ok(());
            }
            tracing::debug!(%error, "a failed task cannot be kept yet");
            pause.rest().await;
        }
    }
}

#[async_trait]
impl FailedTasks for AmqpBroker {
    async fn keep_failed(&self, task: FailedTask) -> Result<(), BrokerError> {
        let shared = Arc::clone(&self.shared);
        self.there(async move { shared.keep_failed(&outgoing::failed(&task)).await }).await
    }

    async fn list_failed(&self, filter: &TaskFilter, limit: usize) -> Result<Vec<FailedTask>, BrokerError> {
        let (shared, filter) = (Arc::clone(&self.shared), filter.clone());
        self.there(async move { list(&shared, &filter, limit).await }).await
    }

    async fn failed_ids(&self, filter: &TaskFilter) -> Result<Vec<TaskId>, BrokerError> {
        let (shared, filter) = (Arc::clone(&self.shared), filter.clone());
        self.there(async move { ids(&shared, &filter).await }).await
    }

    async fn retry_failed(&self, ids: &[TaskId], edit: Option<&TaskEdit>) -> Result<Retried, BrokerError> {
        let (shared, ids, edit) = (Arc::clone(&self.shared), ids.to_vec(), edit.cloned());
        self.there(async move { retry(&shared, &ids, edit.as_ref()).await }).await
    }

    async fn delete_failed(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
        let (shared, ids) = (Arc::clone(&self.shared), ids.to_vec());
        self.there(async move { delete(&shared, &ids).await }).await
    }

    /// How many RabbitMQ has refused to keep. It does not say what it has dropped because there were too many.
    fn dropped_failed(&self) -> u64 {
        self.shared.dropped_failed.load(Ordering::Relaxed)
    }
}
