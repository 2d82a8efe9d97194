//! How Soil (progress and downloads as their users see them) asks this program about tasks and queues.

use std::sync::Arc;

use async_trait::async_trait;

use super::handle::{Celeriac, CeleriacInner};
use crate::actors::QueueStatus;
use crate::actors::queue::BrokerBacklog;
use crate::broker::{BrokerError, MessageLocation};
use crate::runtime::Runtime;
use crate::runtime::task_location::{QueuePosition, TaskLocation};
use crate::soil::{Soil, SoilHost};
use crate::task::TaskId;

/// Places in line are counted up to this number.
const COUNTED: usize = 1_000;

impl Celeriac {
    /// Progress and downloads as users of tasks see them.
    pub fn soil(&self) -> Soil {
        Soil::new(Arc::clone(&self.inner) as Arc<dyn SoilHost>, Arc::clone(&self.inner.status_cache))
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
                let rows = if count { self.runtime.position(id, COUNTED).await? } else { None };
                // The broker counts running tasks as well, and those do not wait any more.
                let running = match rows {
                    Some(_) => self.queue_status(&message.queue).await.map_or(0, |queue| queue.running),
                    None => 0,
                };
                let place =
                    rows.map(|rows| QueuePosition::new(rows.saturating_sub(running) as u64, rows >= COUNTED));
                Ok(Some(TaskLocation {
                    task: message.task.clone(),
                    queue: message.queue.clone(),
                    has_begun: message.has_begun(),
                    is_running: false,
                    place,
                }))
            }
            Some(MessageLocation::Delivered { queue }) => {
                let found = self.queues.locate(id, Some(&queue)).await;
                // The delivery is on its way to the queue, so the queue does not know the task yet.
                Ok(Some(found.unwrap_or(TaskLocation {
                    task: String::new(),
                    queue,
                    has_begun: false,
                    is_running: false,
                    place: None,
                })))
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
