//! What all actors share: the seams, the tasks, the program's own hooks.

use std::sync::Arc;
use std::time::Duration;

use crate::broker::{Broker, Settle};
use crate::store::{MemoryStore, Notes, Store};
use crate::task::registry::Registry;
use crate::task::{Context, HookEvent, Message, TaskResult};

/// Called for every task that fails for good, whatever the task; HQ hangs its error tracker here
/// (`CELERY_TASK_ANNOTATIONS['*']`).
pub type FailureHook = dyn Fn(&Context, &HookEvent) + Send + Sync;

/// Called on the queue's event loop when a worker starts: queue and slot. A panic means that the worker did not start.
/// Celery's `worker_process_init`.
pub type WorkerHook = dyn Fn(&str, usize) + Send + Sync;

/// Shared by all actors of one runtime.
pub(crate) struct Runtime {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) store: Arc<dyn Store>,
    /// For notes, if the store keeps none: they last as long as the process.
    pub(crate) own_notes: MemoryStore,
    pub(crate) registry: Registry,
    pub(crate) on_failure: Option<Box<FailureHook>>,
    pub(crate) on_worker_start: Option<Box<WorkerHook>>,
}

impl Runtime {
    /// The notes of the store, or, if it keeps none, of this process.
    pub(crate) fn notes(&self) -> &dyn Notes {
        self.store.notes().unwrap_or(&self.own_notes)
    }

    /// Stores a record, however long that takes: the task is not settled before.
    pub(crate) async fn put_result(&self, record: TaskResult) {
        let mut pause = Duration::from_millis(50);
        while let Err(error) = self.store.put(record.clone()).await {
            tracing::warn!(id = %record.id, %error, "a result cannot be stored yet");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    /// The end of a task that was acknowledged before it ran: there is no delivery to settle any more.
    pub(crate) async fn settle_early_acked(&self, settle: Settle, message: &Message) {
        match settle {
            Settle::Ack { result, .. } | Settle::DeadLetter { result, .. } => {
                if let Some(record) = result {
                    self.put_result(record).await;
                }
            }
            Settle::Requeue { message, due } => {
                let mut next = *message;
                next.eta = due;
                let id = next.id.clone();
                if let Err(error) = self.broker.publish(next, false).await {
                    tracing::error!(%id, %error, "an early-acknowledged task could not be put back and is lost, as `acks_late = false` allows");
                }
            }
            Settle::Return { .. } => {
                tracing::warn!(id = %message.id, "a run was cut short; the task was acknowledged before it ran and does not run again");
            }
        }
    }
}
