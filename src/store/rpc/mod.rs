//! Results as messages: the process that runs a task sends each change of its state to the queue of the process
//! that sent the task. It is Celery's `rpc://`.
//!
//! Nothing is stored anywhere. A result reaches the program that sent the task, if that program still runs and is
//! connected, and is kept there until it is forgotten, expires, or too many are kept. Chords cannot be counted
//! this way.

mod kept;
mod wire;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    ChordStore, DuplicateStore, GroupStore, MemoryStore, Notes, SharedRates, Store, StoreError, TrackedState,
    UniqueWindowStore, Waiters,
};
use crate::core::Timestamp;
use crate::protocol::result::{Detail, Meta, decode, encode, encode_tracked};
use crate::task::clock::now;
use crate::task::{Lineage, PermitKeeper, TaskId, TaskResult};
use kept::{KeptReply, RecentReplies};
use wire::RpcChannel;

/// The options of an [`RpcStore`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RpcOptions {
    /// The time for which results are kept that do not state their own, and how long the reply queue outlives a program that
    /// never consumed it. Celery's `result_expires`. Default one day.
    pub result_expires: Duration,
    /// Whether results on their way survive a restart of RabbitMQ. Celery's `result_persistent`. Default false.
    pub persistent: bool,
    /// The most results that are kept in memory; when there are more, the oldest goes. Default 10,000.
    pub max_results: usize,
    /// The most bytes that these results take together, as text. When there are more, the oldest goes; the one that came
    /// last always stays. Default 256 MiB.
    pub max_result_bytes: usize,
    /// The time for which a result that is sent may wait for RabbitMQ. Default 10 s.
    pub patience: Duration,
    /// For `rpcs://` and `amqps://`: a PEM file with the certificate authorities that servers are checked against.
    /// Default: the system's.
    pub ca_certs: Option<PathBuf>,
}

impl Default for RpcOptions {
    fn default() -> Self {
        Self {
            result_expires: Duration::from_secs(24 * 60 * 60),
            persistent: false,
            max_results: 10_000,
            max_result_bytes: 256 << 20,
            patience: Duration::from_secs(10),
            ca_certs: None,
        }
    }
}

/// Sends results to the programs that sent the tasks, and receives those of the tasks that this program sends. It
/// is a handle; clones are the same store.
#[derive(Clone)]
pub struct RpcStore {
    core: Arc<RpcInner>,
    runtime: Handle,
    /// Ends the store's thread when the last handle is dropped.
    _open: Arc<DropGuard>,
}

struct RpcInner {
    wire: RpcChannel,
    options: RpcOptions,
    kept: Mutex<RecentReplies>,
    waiters: Waiters,
    /// Revocations stay in this program, because a result can tell them to no other.
    revocations: MemoryStore,
}

impl RpcStore {
    /// Connects to the RabbitMQ at `rpc://user:password@host:port/vhost` and declares the reply queue there. The
    /// addresses of a cluster's nodes are separated by `;`: if one cannot be reached, the next one is tried.
    ///
    /// # Errors
    /// The address is wrong, or RabbitMQ cannot be reached within [`RpcOptions::patience`].
    pub async fn connect(url: &str, options: RpcOptions) -> Result<Self, StoreError> {
        let core = Arc::new(RpcInner {
            wire: RpcChannel::new(url, options.ca_certs.as_deref())?,
            kept: Mutex::new(RecentReplies::new(options.max_results, options.max_result_bytes)),
            options,
            waiters: Waiters::default(),
            revocations: MemoryStore::default(),
        });
        let no_thread =
            |error: std::io::Error| StoreError::io(format!("the store's thread did not start: {error}"));
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_thread)?;
        let handle = runtime.handle().clone();
        let closed = CancellationToken::new();
        let (served, until) = (Arc::clone(&core), closed.clone());
        std::thread::Builder::new()
            .name("celeriac-rpc".to_owned())
            .spawn(move || {
                runtime.block_on(served.wire.serve(Arc::clone(&served), until));
                served.waiters.close();
            })
            .map_err(no_thread)?;
        let store = Self { core, runtime: handle, _open: Arc::new(closed.drop_guard()) };
        store.run(|core| async move { core.wire.connected(core.options.patience).await.map(drop) }).await?;
        Ok(store)
    }

    /// Does something on the store's thread.
    async fn run<T, W, F>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(Arc<RpcInner>) -> F,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.runtime.spawn(work(Arc::clone(&self.core))).await.unwrap_or(Err(StoreError::Closed))
    }

    /// Sends a document to the program that sent the task, if that program wants it.
    async fn send(&self, id: &TaskId, lineage: Option<&Lineage>, document: String) -> Result<(), StoreError> {
        let Some(queue) = lineage.and_then(|lineage| lineage.reply_to.clone()) else { return Ok(()) };
        let id = id.clone();
        self.run(|core| async move {
            core.wire.send(&queue, id.as_str(), document.as_bytes(), &core.options).await
        })
        .await
    }
}

impl RpcInner {
    fn kept(&self) -> MutexGuard<'_, RecentReplies> {
        self.kept.lock()
    }

    /// Takes in a message of the reply queue.
    fn arrived(&self, correlation_id: Option<&str>, document: &[u8]) {
        let Some(id) = correlation_id.map(TaskId::from) else {
            tracing::warn!("a message in the reply queue does not say whose result it is");
            return;
        };
        let expires_at = now() + self.options.result_expires;
        match decode(&id, document, expires_at) {
            Ok(meta) => {
                let record = match &meta {
                    Meta::Over(record) => Some(record.clone()),
                    Meta::Tracked(_) => None,
                };
                let is_news = self.kept().keep(id, KeptReply::Read(meta));
                if let Some(record) = record.filter(|_| is_news) {
                    self.waiters.wake(&record);
                }
            }
            Err(error) => {
                tracing::warn!(%id, %error, "a message in the reply queue is no result");
                // No other message says how the task ended, so whoever waits, now or later, learns of this one.
                let told = StoreError::Refused(error.to_string());
                if error.is_over == Some(true)
                    && self.kept().keep(id.clone(), KeptReply::Unreadable(told.clone(), expires_at))
                {
                    self.waiters.fail(&id, &told);
                }
            }
        }
    }
}

#[async_trait]
impl Store for RpcStore {
    /// Sends the record to the program that sent the task. There is no earlier record that it could meet.
    async fn put(&self, result: TaskResult) -> Result<bool, StoreError> {
        let document = encode(&result, Detail::Full);
        self.send(&result.id, result.lineage.as_deref(), document).await?;
        Ok(true)
    }

    async fn get(&self, id: &TaskId, now: Timestamp) -> Result<Option<TaskResult>, StoreError> {
        Ok(self.core.kept().over(id)?.filter(|record| record.expires_at > now).cloned())
    }

    async fn wait(&self, id: &TaskId) -> Result<TaskResult, StoreError> {
        let waiting = self.core.waiters.subscribe(id);
        if let Some(record) = self.core.kept().over(id)?.cloned() {
            return Ok(record);
        }
        waiting.record().await
    }

    async fn forget(&self, id: &TaskId) -> Result<bool, StoreError> {
        Ok(self.core.kept().forget(id))
    }

    async fn sweep(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.core.revocations.sweep(now).await?;
        Ok(self.core.kept().sweep(now))
    }

    async fn track(&self, state: TrackedState) -> Result<(), StoreError> {
        self.send(&state.id, state.lineage.as_deref(), encode_tracked(&state)).await
    }

    async fn tracked(&self, id: &TaskId) -> Result<Option<TrackedState>, StoreError> {
        Ok(self.core.kept().tracked(id).cloned())
    }

    async fn revoke(&self, id: &TaskId, until: Timestamp) -> Result<(), StoreError> {
        self.core.revocations.revoke(id, until).await
    }

    async fn revoked(&self, ids: &[TaskId], now: Timestamp) -> Result<Vec<TaskId>, StoreError> {
        self.core.revocations.revoked(ids, now).await
    }

    fn is_known_revoked(&self, id: &TaskId, now: Timestamp) -> Option<bool> {
        self.core.revocations.is_known_revoked(id, now)
    }

    fn reply_to(&self) -> Option<String> {
        Some(self.core.wire.queue.clone())
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn untrack(&self, _: &TaskId) -> Result<(), StoreError> {
        Ok(())
    }

    fn chords(&self) -> Option<&dyn ChordStore> {
        None
    }

    fn groups(&self) -> Option<&dyn GroupStore> {
        None
    }

    fn duplicates(&self) -> Option<&dyn DuplicateStore> {
        None
    }

    fn notes(&self) -> Option<&dyn Notes> {
        None
    }

    fn unique_windows(&self) -> Option<&dyn UniqueWindowStore> {
        None
    }

    fn permits(&self) -> Option<Arc<dyn PermitKeeper>> {
        None
    }
    fn shared_rates(&self) -> Option<&dyn SharedRates> {
        None
    }
}
