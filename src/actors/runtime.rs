//! What all actors share: the seams, the tasks, the program's own hooks.

use std::sync::Arc;
use std::time::Duration;

use super::serial::Serials;
use crate::broker::{Broker, BrokerError, Settle};
use crate::store::{Store, TrackedState};
use crate::task::{Context, Dispatcher, HookEvent, Message, State, TaskId, TaskResult};

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
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) serials: Serials,
    pub(crate) on_failure: Option<Box<FailureHook>>,
    pub(crate) on_worker_start: Option<Box<WorkerHook>>,
}

impl Runtime {
    /// Stores a record, however long that takes: the task is not settled before.
    pub(crate) async fn put_result(&self, record: TaskResult) {
        let mut pause = Duration::from_millis(50);
        while let Err(error) = self.store.put(record.clone()).await {
            tracing::warn!(id = %record.id, %error, "a result cannot be stored yet");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    /// A task has no message for a while, and will have a record in the end: who asks for it is to wait.
    pub(super) async fn expect_later(&self, id: &TaskId) {
        let state = TrackedState {
            id: id.clone(),
            state: State::Pending.as_str().to_owned(),
            meta: serde_json::Value::Null,
            traceback: None,
            lineage: None,
        };
        if let Err(error) = self.store.track(state).await {
            tracing::warn!(%id, %error, "that a task was replaced could not be noted");
        }
    }

    /// Publishes what follows from a task that has no delivery any more.
    async fn send_on(&self, message: Message) {
        let id = message.id.clone();
        match self.broker.publish(message, true).await {
            Ok(_) | Err(BrokerError::DuplicateId(_)) => {}
            Err(error) => {
                tracing::error!(%id, %error, "the next step after an early-acknowledged task is lost, as `acks_late = false` allows");
            }
        }
    }

    /// The end of a task that was acknowledged before it ran: there is no delivery to settle any more.
    pub(crate) async fn settle_early_acked(&self, settle: Settle, message: &Message) {
        match settle {
            Settle::Ack { result, sequel } | Settle::DeadLetter { result, sequel, .. } => {
                if let Some(record) = result {
                    self.put_result(record).await;
                }
                if let Some(sequel) = sequel {
                    let (messages, completed) = self.bring_to_store(*sequel).await;
                    for message in messages {
                        self.send_on(message).await;
                    }
                    self.close_chords(completed).await;
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
