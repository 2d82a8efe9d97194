//! What Soil is told about this program.

use std::sync::Arc;

use async_trait::async_trait;

use super::handle::{Celeriac, Inner};
use crate::actors::QueueStatus;
use crate::actors::queue::{GetStatus, Locate};
use crate::actors::runtime::Runtime;
use crate::broker::{BrokerError, Place as Lying};
use crate::soil::{Place, Premises, Soil, Whereabouts};
use crate::task::{Message, TaskId};

/// Places in line are counted up to here.
const COUNTED: usize = 1_000;

impl Celeriac {
    /// Progress and downloads, as users of tasks see them.
    pub fn soil(&self) -> Soil {
        Soil::new(Arc::clone(&self.inner) as Arc<dyn Premises>, Arc::clone(&self.inner.sights))
    }
}

impl Inner {
    async fn ask_queue(&self, queue: Option<&str>, id: &TaskId) -> Option<Whereabouts> {
        let queues = match queue {
            Some(name) => self.queues.get(name).map(|q| q.value().clone()).into_iter().collect(),
            None => self.addresses(),
        };
        for queue in queues {
            if let Ok(Some(found)) = queue.send(Locate(id.clone())).await {
                return Some(found);
            }
        }
        None
    }
}

/// Whether a run of it has begun before.
fn has_begun(message: &Message) -> bool {
    message.first_started_at.is_some()
        || message.retries > 0
        || message.crashes > 0
        || message.continuations > 0
}

#[async_trait]
impl Premises for Inner {
    fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    async fn locate(&self, id: &TaskId) -> Result<Option<Whereabouts>, BrokerError> {
        match self.runtime.broker.find(id).await? {
            Some(Lying::Waiting(message)) => {
                let rows = self.runtime.broker.ahead(id, COUNTED).await?;
                // Those that run have their rows as well, and wait no more.
                let running = match rows {
                    Some(_) => self.queue_status(&message.queue).await.map_or(0, |queue| queue.running),
                    None => 0,
                };
                let place = rows.map(|rows| Place::new(rows.saturating_sub(running) as u64, rows >= COUNTED));
                Ok(Some(Whereabouts {
                    task: message.task.clone(),
                    queue: message.queue.clone(),
                    has_begun: has_begun(&message),
                    is_running: false,
                    place,
                }))
            }
            Some(Lying::Delivered { queue }) => {
                let found = self.ask_queue(Some(&queue), id).await;
                // It is on its way there.
                Ok(Some(found.unwrap_or(Whereabouts {
                    task: String::new(),
                    queue,
                    has_begun: false,
                    is_running: false,
                    place: None,
                })))
            }
            None => Ok(self.ask_queue(None, id).await),
        }
    }

    async fn queue_status(&self, name: &str) -> Option<QueueStatus> {
        let queue = self.queues.get(name).map(|queue| queue.value().clone())?;
        let counts = self.runtime.broker.counts(name).await.ok()?;
        queue.send(GetStatus(counts)).await.ok().map(|status| *status)
    }
}
