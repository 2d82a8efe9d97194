//! The handle on a running runtime.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use actix::Addr;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::beat::Beat;
use super::builder::Builder;
use super::catalogue::Catalogue;
use super::revival::revive_with_records;
use super::routing::Routing;
use super::shutdown::{self, ShutdownReport};
use crate::actors::beat::{BeatParts, LEASE, Publisher};
use crate::actors::producer::ProducerParts;
use crate::actors::queue::{GetStatus, Queue, Steer};
use crate::actors::root::{Queues, StartBeat, StartProducers, Tree};
use crate::actors::runtime::Runtime;
use crate::actors::{Origin, QueueStatus};
use crate::broker::{BrokerError, DeadLetter};
use crate::store::StoreError;
use crate::task::canvas::CanvasResult;
use crate::task::clock::now;
use crate::task::{self, Client, Periodic, Producer, TaskId, UniqueKey, UntypedResult};

/// A running task runtime: enqueues, results, and the operator's levers. A handle; clones are the same runtime, and it
/// may be used from any thread.
///
/// ```no_run
/// # use celeriac::{Celeriac, task};
/// #[task]
/// async fn greet(name: String) -> String {
///     format!("hello {name}")
/// }
///
/// #[tokio::main]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let celeriac = Celeriac::builder().start().await?;
///     let greeting = greet::delay("world".into()).await?;
///     println!("{}", greeting.get(std::time::Duration::from_secs(5)).await?);
///     celeriac.shutdown().await?;
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Celeriac {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) runtime: Arc<Runtime>,
    routing: Arc<Routing>,
    pub(super) queues: Queues,
    pub(super) tree: Mutex<Option<Tree>>,
    pub(super) grace: Duration,
    pub(super) closing: AtomicBool,
    /// The end of the shutdown, for those who still wait for results.
    pub(super) closed: CancellationToken,
    /// What Soil has just seen.
    pub(super) sights: Arc<crate::soil::Sights>,
    /// Unless it is switched off.
    pub(super) beat: OnceLock<Arc<BeatParts>>,
    pub(super) producers: OnceLock<Vec<Arc<ProducerParts>>>,
    pub(super) beat_lease: Duration,
    /// Who answers for this runtime, if it is that of a test.
    #[cfg(feature = "testing")]
    pub(super) front: OnceLock<std::sync::Weak<dyn Client>>,
}

/// Why a lever did not move.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// No such queue.
    #[error("no queue `{queue}`; there are: {known}")]
    UnknownQueue {
        /// The name.
        queue: String,
        /// The names that exist.
        known: String,
    },
    /// Its row says that others take its tasks: nothing here runs them, counts them or could be steered.
    #[error("queue `{0}` is served elsewhere, as its row says (served = false): ask there")]
    ServedElsewhere(String),
    /// The queue's actor does not answer: it is being built anew, or the runtime has shut down.
    #[error(
        "queue `{0}` does not answer: its actor is being restarted, or the runtime has shut down; try again"
    )]
    NotAnswering(String),
    /// No such producer loop.
    #[error("no producer loop `{name}`; there are: {known}")]
    UnknownProducer {
        /// The name.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// A producer loop does not answer.
    #[error(
        "producer loop `{0}` does not answer: it is being restarted, or the runtime has shut down; try again"
    )]
    NoAnswer(String),
    /// A queue needs at least one worker; `pause` stops it.
    #[error("a queue needs at least one worker; use `pause` to stop it")]
    NoWorkers,
    /// The broker failed.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Celeriac {
    /// Puts a runtime together.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// `entries`: those that fire, or `None` if none ever does here.
    pub(super) async fn started(
        inner: Inner,
        entries: Option<Vec<(Periodic, Origin)>>,
        producers: Vec<Producer>,
    ) -> Self {
        let inner = Arc::new(inner);
        let celeriac = Self { inner };
        let client = celeriac.client();
        let _ = celeriac.inner.runtime.client.set(Arc::downgrade(&client));
        task::install(client);
        if let Some(entries) = entries {
            celeriac.inner.start_beat(entries).await;
        }
        celeriac.inner.start_producers(producers).await;
        celeriac
    }

    pub(super) fn runtime(&self) -> &Runtime {
        &self.inner.runtime
    }

    #[cfg(feature = "testing")]
    pub(crate) fn runtime_arc(&self) -> Arc<Runtime> {
        Arc::clone(&self.inner.runtime)
    }

    #[cfg(feature = "testing")]
    pub(crate) fn beat_parts(&self) -> Option<Arc<BeatParts>> {
        self.inner.beat.get().cloned()
    }

    /// From now on `front` is its client.
    #[cfg(feature = "testing")]
    pub(crate) fn answer_by(&self, front: &Arc<dyn Client>) {
        let _ = self.inner.front.set(Arc::downgrade(front));
    }

    pub(super) fn producer_parts(&self) -> &[Arc<ProducerParts>] {
        self.inner.producers.get().map_or(&[], Vec::as_slice)
    }

    /// The periodic entries: what they are, and levers on them.
    pub fn beat(&self) -> Beat {
        Beat::new(self.inner.beat.get().cloned())
    }

    /// The catalogue in force.
    pub fn catalogue(&self) -> &Catalogue {
        self.inner.routing.catalogue()
    }

    /// This runtime as the destination of [`Signature::send`](crate::task::Signature::send), or for calls by name.
    pub fn client(&self) -> Arc<dyn Client> {
        #[cfg(feature = "testing")]
        if let Some(front) = self.inner.front.get().and_then(std::sync::Weak::upgrade) {
            return front;
        }
        Arc::clone(&self.inner) as Arc<dyn Client>
    }

    /// The result of a task by its id alone, whoever sent it and whoever runs it. Celery's `AsyncResult(id)`.
    pub fn async_result(&self, id: impl Into<TaskId>) -> UntypedResult {
        UntypedResult::new(id, self.client())
    }

    /// The results of a group that was [saved](CanvasResult::save), here or by Python. Celery's `GroupResult.restore`.
    ///
    /// # Errors
    /// The result backend keeps no groups (rpc does not), or it cannot be read.
    pub async fn group_result(&self, id: &str) -> Result<Option<CanvasResult<Vec<Value>>>, StoreError> {
        let group = self.inner.runtime.store.group(id, now()).await?;
        Ok(group.map(|group| CanvasResult::new(group.promise(), self.client())))
    }

    /// All queues that are served here as they are now, in the catalogue's order.
    ///
    /// # Errors
    /// A queue or the broker does not answer.
    pub async fn queues(&self) -> Result<Vec<QueueStatus>, ControlError> {
        let mut all = Vec::new();
        for row in self.catalogue().queues.iter().filter(|row| row.served) {
            all.push(self.queue(&row.name).await?);
        }
        Ok(all)
    }

    /// One queue as it is now.
    ///
    /// # Errors
    /// There is no such queue, or it does not answer.
    pub async fn queue(&self, name: &str) -> Result<QueueStatus, ControlError> {
        let (name, queue) = self.find(name)?;
        let counts = self.inner.runtime.broker.counts(&name).await?;
        queue
            .send(GetStatus(counts))
            .await
            .map(|status| *status)
            .map_err(|_| ControlError::NotAnswering(name))
    }

    /// Starts nothing more in a queue; what runs goes on. Lasts until [`resume`](Self::resume) or a restart.
    ///
    /// # Errors
    /// There is no such queue, or it does not answer.
    pub async fn pause(&self, queue: &str) -> Result<(), ControlError> {
        self.steer(queue, Steer::Pause).await
    }

    /// Lets a paused queue go on.
    ///
    /// # Errors
    /// There is no such queue, or it does not answer.
    pub async fn resume(&self, queue: &str) -> Result<(), ControlError> {
        self.steer(queue, Steer::Resume).await
    }

    /// Gives a queue so many workers, now. With fewer, running tasks go on, and nothing starts until they fit.
    ///
    /// # Errors
    /// There is no such queue, it does not answer, or `workers` is 0.
    pub async fn resize(&self, queue: &str, workers: usize) -> Result<(), ControlError> {
        if workers == 0 {
            return Err(ControlError::NoWorkers);
        }
        self.steer(queue, Steer::Resize(workers)).await
    }

    async fn steer(&self, queue: &str, steer: Steer) -> Result<(), ControlError> {
        let (name, queue) = self.find(queue)?;
        queue.send(steer).await.map_err(|_| ControlError::NotAnswering(name))
    }

    fn find(&self, queue: &str) -> Result<(String, Addr<Queue>), ControlError> {
        let Some(row) = self.catalogue().queue(queue) else {
            let known: Vec<_> = self.catalogue().queues.iter().map(|row| row.name.as_str()).collect();
            return Err(ControlError::UnknownQueue { queue: queue.to_owned(), known: known.join(", ") });
        };
        let name = row.name.clone();
        if !row.served {
            return Err(ControlError::ServedElsewhere(name));
        }
        let address = self.inner.queues.get(&name).map(|address| address.clone());
        address.map(|address| (name.clone(), address)).ok_or(ControlError::NotAnswering(name))
    }

    /// The dead letters, oldest first, up to `limit`.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, ControlError> {
        Ok(self.inner.runtime.broker.dead_letters(limit).await?)
    }

    /// Puts a dead letter back into its queue; `false`: there is none of that id.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn revive(&self, id: &TaskId) -> Result<bool, ControlError> {
        let Runtime { broker, store, settles_results, .. } = &*self.inner.runtime;
        if *settles_results {
            return Ok(broker.revive(id).await?);
        }
        let ids = std::slice::from_ref(id);
        Ok(!revive_with_records(&**broker, &**store, ids).await?.is_empty())
    }

    /// Which task holds the dedupe window of this key, so that another call of it would join that one: whether one waits or
    /// runs already. The scope is the task's name, and the key what its `unique_key` comes to.
    ///
    /// ```no_run
    /// # async fn demo(celeriac: celeriac::Celeriac) -> Result<(), celeriac::app::ControlError> {
    /// if let Some(id) = celeriac.unique("app::export", "malawi-fp-cases").await? {
    ///     println!("{id} does it already");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The broker, or the store that keeps windows for it, does not answer, or there is none.
    pub async fn unique(&self, scope: &str, key: &str) -> Result<Option<TaskId>, ControlError> {
        Ok(self.inner.runtime.window_holder(&UniqueKey::new(scope, key)).await?)
    }

    /// Deletes expired results now, and the files of downloads that no record names; a minute-by-minute sweep does it anyway.
    /// Says how many results went.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn sweep_results(&self) -> Result<usize, ControlError> {
        let swept = self.inner.runtime.store.sweep(now()).await?;
        self.inner.runtime.sweep_payloads().await?;
        Ok(swept)
    }

    /// Ends the runtime within its grace (see [`Builder::shutdown_grace`]): takes nothing new, starts nothing more, waits
    /// for what runs, tells it towards the end, and hands back what is left; no attempt is burnt. The second call waits
    /// for nothing.
    ///
    /// # Errors
    /// What was settled last may not be safe on disk; those tasks run again.
    pub async fn shutdown(&self) -> Result<ShutdownReport, BrokerError> {
        let grace = self.inner.grace;
        self.shutdown_within(grace).await
    }

    /// As [`shutdown`](Self::shutdown), with another grace.
    ///
    /// # Errors
    /// What was settled last may not be safe on disk; those tasks run again.
    pub async fn shutdown_within(&self, grace: Duration) -> Result<ShutdownReport, BrokerError> {
        let report = shutdown::run(&self.inner, grace).await;
        // Not before: a task that still runs and enqueues another one is to hear that the runtime shuts down.
        task::uninstall(&self.client());
        report
    }

    /// Waits for SIGTERM, SIGINT or Ctrl-C, then shuts down.
    ///
    /// # Errors
    /// Signals cannot be waited for, or as in [`shutdown`](Self::shutdown).
    pub async fn run_until_signal(&self) -> Result<ShutdownReport, BrokerError> {
        shutdown::signal()
            .await
            .map_err(|e| BrokerError::Io(format!("signals cannot be waited for: {e}")))?;
        self.shutdown().await
    }
}

impl Inner {
    pub(super) fn new(
        runtime: Arc<Runtime>,
        routing: Arc<Routing>,
        tree: Option<Tree>,
        grace: Duration,
    ) -> Self {
        Self {
            runtime,
            routing,
            queues: tree.as_ref().map(|tree| Arc::clone(&tree.queues)).unwrap_or_default(),
            tree: Mutex::new(tree),
            grace,
            closing: AtomicBool::new(false),
            closed: CancellationToken::new(),
            sights: Arc::default(),
            beat: OnceLock::new(),
            producers: OnceLock::new(),
            beat_lease: LEASE,
            #[cfg(feature = "testing")]
            front: OnceLock::new(),
        }
    }

    async fn start_beat(self: &Arc<Self>, entries: Vec<(Periodic, Origin)>) {
        let publisher = Arc::downgrade(self);
        let parts = BeatParts::new(Arc::clone(&self.runtime), entries, publisher, self.beat_lease);
        let parts = Arc::clone(self.beat.get_or_init(|| Arc::new(parts)));
        let root = self.tree.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|t| t.root.clone());
        if let Some(root) = root {
            // A root that is gone has ended the program, or is about to.
            let _ = root.send(StartBeat(parts)).await;
        }
    }

    async fn start_producers(self: &Arc<Self>, producers: Vec<Producer>) {
        if producers.is_empty() {
            return;
        }
        let client = Arc::downgrade(self) as Weak<dyn Publisher>;
        let parts = producers.into_iter().map(|producer| {
            let queues = Arc::clone(&self.queues);
            Arc::new(ProducerParts::new(Arc::clone(&self.runtime), producer, queues, client.clone()))
        });
        let parts = self.producers.get_or_init(|| parts.collect()).clone();
        let root = self.tree.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|t| t.root.clone());
        if let Some(root) = root {
            let _ = root.send(StartProducers(parts)).await;
        }
    }

    pub(super) fn take_tree(&self) -> Option<Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn addresses(&self) -> Vec<Addr<Queue>> {
        self.queues.iter().map(|entry| entry.value().clone()).collect()
    }
}
