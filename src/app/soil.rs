//! How Soil (progress and downloads as their users see them) asks this program about tasks and queues.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::handle::{Celeriac, CeleriacInner};
use crate::actors::QueueStatus;
use crate::actors::queue::{BrokerBacklog, Explain, Sighting, WaitingInBroker};
use crate::broker::{BrokerError, MessageLocation};
use crate::core::explanation::BoundedCount;
use crate::runtime::Runtime;
use crate::runtime::task_location::{QueuePosition, TaskLocation};
use crate::soil::{Soil, SoilHost};
use crate::task::clock::now;
use crate::task::{Message, TaskId};

/// Places in line are counted up to this number.
const COUNTED: usize = 1_000;
/// How long a queue may take to say what it knows of a task.
const PATIENCE: Duration = Duration::from_secs(1);

impl Celeriac {
    /// Progress and downloads as users of tasks see them.
    pub fn soil(&self) -> Soil {
        Soil::new(Arc::clone(&self.inner) as Arc<dyn SoilHost>, Arc::clone(&self.inner.status_cache))
    }
}

impl CeleriacInner {
    /// What the queue of a task that waits in the broker says of it. `None`: it is not served here, or does not answer.
    async fn seen_waiting(&self, message: &Arc<Message>, rows: Option<usize>) -> Option<Box<Sighting>> {
        if !self.queues.has(&message.queue) {
            return None;
        }
        let before = rows.map(|rows| BoundedCount { count: rows as u64, or_more: rows >= COUNTED });
        let line_before = self.runtime.line_before(&message.id, COUNTED).await;
        let waiting = Some(WaitingInBroker { message: Arc::clone(message), before, line_before });
        let explain = Explain { id: message.id.clone(), waiting };
        self.queues.sighting(&message.queue, explain, PATIENCE).await.ok().flatten()
    }
}

#[async_trait]
impl SoilHost for CeleriacInner {
    fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    async fn locate(&self, id: &TaskId, count: bool) -> Result<Option<TaskLocation>, BrokerError> {
        match self.runtime.find(id).await? {
            Some(MessageLocation::Waiting(message)) => {
                let message: Arc<Message> = message.into();
                let rows = if count { self.runtime.position(id, COUNTED).await? } else { None };
                let due = message.eta.filter(|eta| *eta > now());
                let seen = if count { self.seen_waiting(&message, rows).await } else { None };
                // The broker counts running tasks as well, and those do not wait any more.
                let running = match (&seen, rows) {
                    (Some(seen), _) => seen.queue.running,
                    (None, Some(_)) => {
                        self.queue_status(&message.queue).await.map_or(0, |queue| queue.running)
                    }
                    (None, None) => 0,
                };
                let place =
                    rows.map(|rows| QueuePosition::new(rows.saturating_sub(running) as u64, rows >= COUNTED));
                Ok(Some(TaskLocation {
                    task: message.task.clone(),
                    queue: message.queue.clone(),
                    has_begun: message.has_begun(),
                    // One that is due and has no place in its queue has none because it stands in its lane.
                    is_in_line: count && message.lane().is_some() && due.is_none() && rows.is_none(),
                    is_held: seen.as_ref().is_some_and(|seen| !seen.holds.is_empty()),
                    starts: seen.and_then(|seen| seen.forecast),
                    place,
                    due,
                    is_running: false,
                }))
            }
            Some(MessageLocation::Delivered { queue }) => {
                let found = self.queues.locate(id, Some(&queue)).await;
                // The delivery is on its way to the queue, so the queue does not know the task yet.
                Ok(Some(found.unwrap_or(TaskLocation { queue, ..TaskLocation::default() })))
            }
            None => Ok(self.queues.locate(id, None).await),
        }
    }

    async fn queue_status(&self, name: &str) -> Option<QueueStatus> {
        let waiting = BrokerBacklog::in_broker(&*self.runtime.broker, name).await.ok()?;
        // The runtime of a test has no queues that could be asked.
        #[cfg(feature = "testing")]
        if self.front.get().is_some() {
            let row = self.catalogue().queue(name).filter(|row| row.served)?;
            return Some(QueueStatus::without_actors(row, waiting, crate::task::clock::now()));
        }
        self.queues.status(name, waiting).await
    }
}
