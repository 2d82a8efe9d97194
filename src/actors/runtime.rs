//! What all actors share: the seams, the tasks, the program's own hooks.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use super::progress::Board;
use super::sequel::sequel;
use super::serial::Serials;
use super::states::StateWriter;
use crate::broker::{Broker, BrokerError, Sequel, Settle};
use crate::protocol::result::Exception;
use crate::store::{Decision, MemoryStore, Notes, Payloads, Store, StoreError};
use crate::task::clock::now;
use crate::task::{
    Client, Context, Dispatcher, DownloadFacts, DownloadSink, HookEvent, Message, PermitKeeper, ProgressSink,
    Sinks, State, StateSink, TaskDefinition, TaskId, TaskResult, TrackedState, progress_meta,
};

/// What a record says its error is if the store refused the record itself; Celery's name for it.
const REFUSED: &str = "BackendStoreError";

/// Called for every task that fails for good, whatever the task; HQ hangs its error tracker here
/// (`CELERY_TASK_ANNOTATIONS['*']`).
pub type FailureHook = dyn Fn(&Context, &HookEvent) + Send + Sync;

/// Called when the download of a task is ready, on the queue's event loop, after the record that says so is safe; it must not
/// block. It is not called again should the process die before it was: what must be told for sure is a task that follows
/// from this one (`link`). HQ's mail "Export Complete".
pub type ReadyHook = dyn Fn(&Context, &DownloadFacts) + Send + Sync;

/// Called on the queue's event loop when a worker starts: queue and slot. A panic means that the worker did not start.
/// Celery's `worker_process_init`.
pub type WorkerHook = dyn Fn(&str, usize) + Send + Sync;

/// Shared by all actors of one runtime.
pub(crate) struct Runtime {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) store: Arc<dyn Store>,
    /// For notes, if the store keeps none: they last as long as the process.
    pub(crate) own_notes: MemoryStore,
    /// Whether the broker writes records into `store` along with a settlement. If not, they are stored first.
    pub(crate) settles_results: bool,
    /// Whether the store is told of STARTED for all tasks.
    pub(crate) track_started: bool,
    /// Takes the states that bodies report to the store.
    pub(crate) states: Arc<StateWriter>,
    /// The bars of what runs, and who watches.
    pub(crate) board: Arc<Board>,
    /// Keeps the payloads of downloads.
    pub(crate) payloads: Arc<Payloads>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) serials: Serials,
    /// Who sends for bodies that run here, as soon as there is one.
    pub(crate) client: OnceLock<Weak<dyn Client>>,
    /// Who keeps permits for all processes that share the broker; `None`: nobody.
    pub(crate) permits: Option<Arc<dyn PermitKeeper>>,
    pub(crate) on_failure: Option<Box<FailureHook>>,
    pub(crate) on_ready: Option<Box<ReadyHook>>,
    pub(crate) on_worker_start: Option<Box<WorkerHook>>,
}

impl Runtime {
    /// Whether all who share the broker see the notes.
    pub(crate) fn shares_notes(&self) -> bool {
        let store_does = self.store.is_shared() || !self.broker.is_shared();
        self.broker.notes().is_some() || (store_does && self.store.notes().is_some())
    }

    /// The notes that go with messages in one step, if the broker keeps any; else those of the store; else of this process.
    pub(crate) fn notes(&self) -> &dyn Notes {
        self.broker.notes().or_else(|| self.store.notes()).unwrap_or(&self.own_notes)
    }

    /// Without hooks of the program's.
    pub(crate) fn new(broker: Arc<dyn Broker>, store: Arc<dyn Store>, dispatcher: Arc<Dispatcher>) -> Self {
        let is_apart = broker.is_shared() && !store.is_shared();
        let permits = if is_apart { None } else { store.permits() };
        let board = Arc::new(Board::new(Arc::clone(&store)));
        Self {
            settles_results: broker.settles_results(),
            own_notes: MemoryStore::default(),
            client: OnceLock::new(),
            track_started: false,
            states: Arc::new(StateWriter::new(Arc::clone(&store), Arc::clone(&board))),
            board,
            payloads: Arc::new(Payloads::nowhere()),
            broker,
            store,
            dispatcher,
            serials: Serials::default(),
            permits,
            on_failure: None,
            on_ready: None,
            on_worker_start: None,
        }
    }

    /// Where bodies tell what they tell.
    pub(crate) fn sinks(&self) -> Sinks {
        Sinks {
            states: Some(Arc::clone(&self.states) as Arc<dyn StateSink>),
            progress: Some(Arc::clone(&self.board) as Arc<dyn ProgressSink>),
            downloads: Some(Arc::clone(&self.payloads) as Arc<dyn DownloadSink>),
            client: self.client.get().cloned(),
        }
    }

    /// Stores a record, however long that takes: the task is not settled before.
    pub(crate) async fn put_result(&self, record: TaskResult) {
        let mut record = record;
        let mut pause = Duration::from_millis(50);
        while let Err(error) = self.store.put(record.clone()).await {
            match error {
                StoreError::Refused(reason) if record.error_type.as_deref() == Some(REFUSED) => {
                    tracing::error!(id = %record.id, reason, "the end of a task cannot be recorded");
                    return;
                }
                StoreError::Refused(reason) => record = refused(record, reason),
                error => {
                    tracing::warn!(id = %record.id, %error, "a result cannot be stored yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
            }
        }
    }

    /// A body starts. What others have shown of it is read; the store is told, if somebody wants to know, and that is not
    /// waited for.
    pub(crate) async fn begin(&self, context: &Context, definition: &TaskDefinition) {
        let message = context.message();
        let before = context.is_redelivered() || message.retries > 0 || message.continuations > 0;
        let shown = before && self.store.is_shared() && Box::pin(self.board.recall(context.id())).await;
        self.board.changed(context.id());
        if self.store.is_shared() && !message.ignore_result {
            let wanted = self.track_started || (definition.options)().track_started;
            // It would take the place of the bar that was shown.
            if wanted && !shown {
                let meta = serde_json::json!({ "pid": std::process::id(), "hostname": context.worker() });
                context.report(State::Started.as_str(), meta);
            }
        }
    }

    /// An attempt failed and another follows: tells a store that others read, before anybody can start that one.
    pub(crate) async fn track_retry(&self, context: &Context, failed: TaskResult) {
        let mut meta = serde_json::to_value(Exception::of(&failed)).unwrap_or_default();
        if let Some(shown) = context.progress_shown() {
            // It takes the place of PROGRESS, and the next attempt goes on from there. Celery reads past it.
            meta["progress"] = progress_meta(Some(shown), None);
        }
        let state = State::Retry.as_str().to_owned();
        let TaskResult { id, traceback, lineage, .. } = failed;
        if let Err(error) =
            self.store.track(TrackedState { id: id.clone(), state, meta, traceback, lineage }).await
        {
            tracing::warn!(%id, %error, "the store was not told of a retry");
        }
    }

    /// A task that reported states is over.
    pub(crate) async fn untrack(&self, id: &TaskId) {
        if let Err(error) = self.store.untrack(id).await {
            tracing::debug!(%id, %error, "the last state of a task that is over stays for a while");
        }
    }

    /// A task has no message for a while, and will have a record in the end: who asks for it is to wait.
    pub(super) async fn expect_later(&self, id: &TaskId) {
        if !self.broker.knows_all() {
            return; // whoever asks waits for every id
        }
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

    /// What the records and the broker say of a payload.
    async fn decide(&self, id: &TaskId, key: &str) -> Option<Decision> {
        // First whether somebody has the task: should it end between the two looks, its record is there.
        if self.broker.find(id).await.ok()?.is_some() {
            return Some(Decision::Stays);
        }
        Some(match self.store.get(id, now()).await.ok()? {
            Some(record) if record.download.as_ref().is_some_and(|download| download.key == key) => {
                Decision::Stays
            }
            Some(_) => Decision::Orphan,
            None => Decision::Unknown,
        })
    }

    /// Deletes the payloads that no record names, and never will.
    pub(crate) async fn sweep_payloads(&self) -> Result<(), StoreError> {
        let swept = self.payloads.sweep(now(), async |id, key| self.decide(id, key).await).await;
        let swept = swept.map_err(|error| StoreError::Io(error.to_string()))?;
        if swept != Default::default() {
            tracing::debug!(?swept, "payloads of downloads that nobody will see are deleted");
        }
        Ok(())
    }

    /// What follows from the end of a task, if anything.
    pub(crate) fn sequel(&self, message: &Message, record: &mut TaskResult) -> Option<Box<Sequel>> {
        sequel(&self.dispatcher, message, record)
    }

    /// Carries out what follows from a task that has no delivery to settle.
    pub(crate) async fn carry_out(&self, sequel: Option<Box<Sequel>>) {
        if let Some(sequel) = sequel {
            let (messages, completed) = self.bring_to_store(*sequel).await;
            for message in messages {
                self.send_on(message).await;
            }
            self.close_chords(completed).await;
        }
    }

    /// Publishes what follows from a task that has no delivery any more.
    async fn send_on(&self, message: Message) {
        let id = message.id.clone();
        match self.broker.publish(message, true).await {
            Ok(_) | Err(BrokerError::DuplicateId(_)) => {}
            Err(error) => {
                tracing::error!(%id, %error, "what follows from a task that was acknowledged before its end is lost");
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
                self.carry_out(sequel).await;
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

/// The record of a task whose own record the store would never take, for example because its value is too large.
fn refused(record: TaskResult, reason: String) -> TaskResult {
    tracing::error!(id = %record.id, task = record.task, reason, "the store refused a result; it is recorded as a failure");
    TaskResult {
        state: State::Failure,
        result: None,
        errors: vec![reason],
        error_type: Some(REFUSED.to_owned()),
        error_module: Some("celery.exceptions".to_owned()),
        traceback: None,
        download: None,
        ..record
    }
}
