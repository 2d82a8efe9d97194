//! The handle on a started runtime, with the operator's levers on queues, dead letters and permits. The levers
//! on failed tasks, tasks that are not over, lanes, tenants, beat, source pollers and the commit table are in `failed.rs`,
//! `unfinished.rs`, `lanes.rs`, `tenants.rs`, `beat.rs`, `source_pollers.rs` and `commit_table.rs`.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::beat::BeatHandle;
use super::builder::Builder;
use super::bulk::BulkState;
use super::control::ControlState;
pub use super::control_error::ControlError;
use super::history::HistorySettings;
use super::persistent::forget_pause;
use super::replies::Replies;
use super::routing::Routing;
use super::start_error::StartError;
use crate::actors::beat::{BeatParts, LEASE, TickPublisher};
use crate::actors::commit_forwarder::CommitForwarderParts;
use crate::actors::historian::HistorianParts;
use crate::actors::queue::{BrokerBacklog, Steer};
use crate::actors::queues::Queues;
use crate::actors::root::Tree;
use crate::actors::serial::Serials;
use crate::actors::slot_pool::SlotPools;
use crate::actors::source_poller::PollerParts;
use crate::actors::{EntryOrigin, QueueStatus, RunningTask};
use crate::broker::DeadLetter;
use crate::catalogue::{Catalogue, QueueRow};
use crate::commit_table::CommitTable;
use crate::runtime::Runtime;
use crate::store::{StoreError, groups};
use crate::task::canvas::CanvasResult;
use crate::task::clock::now;
use crate::task::{
    self, Client, Json, Periodic, PermitHolder, SourcePoller, TaskId, UniqueKey, UntypedResult,
};

/// A started task runtime: it enqueues tasks, answers for results, and has the operator's levers. It is a handle
/// that may be used from any thread; clones are the same runtime.
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
    pub(super) inner: Arc<CeleriacInner>,
    /// The name of the operator who has this handle, if it has been said.
    pub(super) who: Option<Arc<str>>,
}

/// What all clones of a handle share.
pub(super) struct CeleriacInner {
    pub(super) runtime: Arc<Runtime>,
    pub(super) routing: Arc<Routing>,
    pub(super) queues: Queues,
    pub(super) serials: Arc<Serials>,
    pub(super) slot_pools: Arc<SlotPools>,
    pub(super) tree: Mutex<Option<Tree>>,
    pub(super) grace: Duration,
    /// Whether a shutdown has begun.
    pub(super) closing: AtomicBool,
    /// Whether nothing is enqueued any more. It comes after `closing` if a server beside the runtime still answers.
    pub(super) refusing: AtomicBool,
    /// Whether what is accepted lasts no longer than the program, so that it is refused as soon as the end begins.
    pub(super) forgets: bool,
    /// Cancelled at the beginning of the shutdown, for those who would hold it up.
    pub(super) ending: CancellationToken,
    /// Cancelled at the end of the shutdown, for those who still wait for results.
    pub(super) closed: CancellationToken,
    /// The statuses that Soil has just computed.
    pub(super) status_cache: Arc<crate::soil::StatusCache>,
    /// Beat; empty if it is switched off here.
    pub(super) beat: OnceLock<Arc<BeatParts>>,
    pub(super) pollers: OnceLock<Vec<Arc<PollerParts>>>,
    /// The forwarder of the commit table; empty if there is none.
    pub(super) forwarder: OnceLock<Arc<CommitForwarderParts>>,
    /// The historian; empty if no history is kept here.
    pub(super) historian: OnceLock<Arc<HistorianParts>>,
    pub(super) history: HistorySettings,
    pub(super) beat_lease: Duration,
    pub(super) control: ControlState,
    /// The acts on many tasks that go on here.
    pub(super) bulk: BulkState,
    /// The client that answers in this one's place, if this is the runtime of a test.
    #[cfg(feature = "testing")]
    pub(super) front: OnceLock<std::sync::Weak<dyn Client>>,
}

impl Celeriac {
    /// A builder with the defaults; its `start` starts the runtime.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Makes the handle when all parts are there: it registers the client, then starts the queues, beat, the source pollers
    /// and the forwarder. `entries` are the periodic entries that fire here; `None`: beat is off.
    pub(super) async fn started(
        inner: CeleriacInner,
        entries: Option<Vec<(Periodic, EntryOrigin)>>,
        pollers: Vec<SourcePoller>,
        commit_table: Option<Arc<dyn CommitTable>>,
    ) -> Result<Self, StartError> {
        let inner = Arc::new(inner);
        let celeriac = Self { inner, who: None };
        let client = celeriac.client();
        let _ = celeriac.inner.runtime.client.set(Arc::downgrade(&client));
        // A test's runtime is used by its own thread only, so `delay` must not find it in the whole process.
        if celeriac.has_tree() {
            task::install(Arc::clone(&client));
        }
        // What waits runs from now on, and its bodies send. The caller gets a runtime whose queues can be asked.
        if let Some(up) = celeriac.inner.with_tree(Tree::start_queues)
            && up.await.is_err()
        {
            task::uninstall(&client);
            return Err(StartError::System(std::io::Error::other("the queues did not come up")));
        }
        if let Some(entries) = entries {
            celeriac.inner.start_beat(entries).await;
        }
        celeriac.inner.start_pollers(pollers).await;
        if let Some(table) = commit_table {
            celeriac.inner.start_forwarder(table).await;
        }
        if celeriac.has_tree() {
            celeriac.inner.start_history(celeriac.node());
        }
        Ok(celeriac)
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

    /// Has `front` be the client of this runtime from now on.
    #[cfg(feature = "testing")]
    pub(crate) fn answer_by(&self, front: &Arc<dyn Client>) {
        let _ = self.inner.front.set(Arc::downgrade(front));
    }

    /// The source pollers, in the order in which the builder got them; none before they are started.
    pub(super) fn poller_parts(&self) -> &[Arc<PollerParts>] {
        self.inner.pollers.get().map_or(&[], Vec::as_slice)
    }

    /// The handle on the periodic entries.
    pub fn beat(&self) -> BeatHandle {
        BeatHandle::new(self.inner.beat.get().cloned())
    }

    /// The name by which the fleet knows this program: Celery's node name, such as `celeriac@web1`. `None`: its broker has no
    /// others.
    pub fn node(&self) -> Option<String> {
        self.inner.runtime.broker.events()?.node()
    }

    /// The catalogue in force: the file's, with the builder's changes and the chosen environment.
    pub fn catalogue(&self) -> &Catalogue {
        self.inner.catalogue()
    }

    /// This runtime as the destination of [`Signature::send`](crate::task::Signature::send) and of calls by name.
    pub fn client(&self) -> Arc<dyn Client> {
        #[cfg(feature = "testing")]
        if let Some(front) = self.inner.front.get().and_then(std::sync::Weak::upgrade) {
            return front;
        }
        Arc::clone(&self.inner) as Arc<dyn Client>
    }

    /// The result of a task by its id alone, whoever has sent it and whoever runs it. Celery's `AsyncResult(id)`.
    pub fn async_result(&self, id: impl Into<TaskId>) -> UntypedResult {
        UntypedResult::new(id, self.client())
    }

    /// The results of a group that was [saved](CanvasResult::save), here or by a Python program. `None`: no group
    /// of this id is kept. Celery's `GroupResult.restore`.
    ///
    /// # Errors
    /// The result backend keeps no groups (rpc does not), or it cannot be read.
    pub async fn group_result(&self, id: &str) -> Result<Option<CanvasResult<Vec<Json>>>, StoreError> {
        let group = groups(&*self.inner.runtime.store)?.group(id, now()).await?;
        Ok(group.map(|group| CanvasResult::new(group.promise(), self.client())))
    }

    /// The statuses of all queues that are served here, in the catalogue's order. While the broker is away, a
    /// status says so ([`QueueStatus::away`]) and has only what this process knows.
    ///
    /// All queues are asked at once, and each has a second to answer. A queue that does not answer, because a task
    /// blocks its event loop or its actor is being built anew, is left out and named in [`Replies::missing`].
    ///
    /// # Errors
    /// The broker is closed.
    pub async fn queues(&self) -> Result<Replies<QueueStatus>, ControlError> {
        let rows = self.catalogue().queues.iter().filter(|row| row.served);
        let asked = rows.map(async |row| match self.queue(&row.name).await {
            Ok(status) => Ok((row.name.clone(), Some(status))),
            Err(ControlError::NotAnswering(name)) => Ok((name, None)),
            Err(error) => Err(error),
        });
        Ok(Replies::of(futures_util::future::try_join_all(asked).await?))
    }

    /// The status of one queue.
    ///
    /// # Errors
    /// There is no such queue, or it does not answer within a second.
    pub async fn queue(&self, name: &str) -> Result<QueueStatus, ControlError> {
        #[cfg(feature = "testing")]
        if let Some(row) = self.row_in_test(name) {
            let waiting = BrokerBacklog::in_broker(&*self.inner.runtime.broker, &row.name).await?;
            return Ok(QueueStatus::without_actors(row, waiting, now()));
        }
        let name = &self.find(name)?.name;
        if !self.inner.queues.has(name) {
            return Err(ControlError::NotAnswering(name.to_owned()));
        }
        let waiting = BrokerBacklog::in_broker(&*self.inner.runtime.broker, name).await?;
        let status = self.inner.queues.status(name, waiting).await;
        status.ok_or_else(|| ControlError::NotAnswering(name.to_owned()))
    }

    /// Lists what runs in this program, by queue in the catalogue's order and then by start: the task, since when, which attempt,
    /// within which limits, whether it was told to end, and bodies that nobody could stop. Celery's `inspect active`.
    ///
    /// The workers of all queues are asked at once. A queue that does not answer within a second is left out and
    /// named in [`Replies::missing`]. The runtime of a test has no workers and answers with an empty list.
    ///
    /// ```no_run
    /// # async fn demo(celeriac: celeriac::Celeriac) -> Result<(), celeriac::app::ControlError> {
    /// for run in celeriac.running().await? {
    ///     println!("{} {} on {} since {:?}, attempt {}", run.id, run.task, run.worker, run.started_at, run.attempt);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// It returns no error at present.
    pub async fn running(&self) -> Result<Replies<RunningTask>, ControlError> {
        #[cfg(feature = "testing")]
        if self.is_in_test() {
            return Ok(Replies::of([]));
        }
        let rows = self.catalogue().queues.iter().filter(|row| row.served);
        let asked = rows.map(async |row| (row.name.clone(), self.inner.queues.running(&row.name).await));
        Ok(Replies::of_lists(futures_util::future::join_all(asked).await))
    }

    /// Pauses a queue: nothing more starts in it, and runs go on. The pause lasts until [`resume`](Self::resume) or
    /// a restart of the program; [`persistent`](Self::persistent) pauses for longer.
    ///
    /// # Errors
    /// There is no such queue, or it does not answer.
    pub async fn pause(&self, queue: &str) -> Result<(), ControlError> {
        self.steer(queue, Steer::Pause).await
    }

    /// Ends the pause of a queue, also one that was to hold after a restart.
    ///
    /// # Errors
    /// There is no such queue, or it does not answer. Or it goes on, and the note that pauses it after a restart cannot be
    /// deleted.
    pub async fn resume(&self, queue: &str) -> Result<(), ControlError> {
        self.steer(queue, Steer::Resume).await?;
        Ok(forget_pause(self.runtime(), &self.find(queue)?.name).await?)
    }

    /// Sets the number of workers of a queue. With fewer than before, the runs go on, and nothing starts until they
    /// fit. It lasts until a restart of the program; [`persistent`](Self::persistent) resizes for longer.
    ///
    /// # Errors
    /// There is no such queue, it does not answer, or `workers` is 0.
    pub async fn resize(&self, queue: &str, workers: usize) -> Result<(), ControlError> {
        if workers == 0 {
            return Err(ControlError::NoWorkers);
        }
        self.steer(queue, Steer::Resize(workers)).await
    }

    pub(super) async fn steer(&self, queue: &str, steer: Steer) -> Result<(), ControlError> {
        #[cfg(feature = "testing")]
        if let Some(row) = self.row_in_test(queue) {
            return Err(ControlError::InTest(row.name.clone()));
        }
        let name = &self.find(queue)?.name;
        // A queue that does not answer in time is steered all the same, when it comes to it.
        self.inner.mark_act(&steer, name, self.who());
        match self.inner.queues.steer(name, steer).await {
            true => Ok(()),
            false => Err(ControlError::NotAnswering(name.to_owned())),
        }
    }

    fn has_tree(&self) -> bool {
        self.inner.tree.lock().is_some()
    }

    /// Whether this is the runtime of a test, which has no actors.
    #[cfg(feature = "testing")]
    pub(super) fn is_in_test(&self) -> bool {
        self.inner.front.get().is_some()
    }

    #[cfg(feature = "testing")]
    fn row_in_test(&self, queue: &str) -> Option<&crate::catalogue::QueueRow> {
        self.is_in_test().then(|| self.catalogue().queue(queue)).flatten().filter(|row| row.served)
    }

    /// The row of a queue that is served here.
    pub(super) fn find(&self, queue: &str) -> Result<&QueueRow, ControlError> {
        let Some(row) = self.catalogue().queue(queue) else {
            let known: Vec<_> = self.catalogue().queues.iter().map(|row| row.name.as_str()).collect();
            return Err(ControlError::UnknownQueue { queue: queue.to_owned(), known: known.join(", ") });
        };
        if !row.served {
            return Err(ControlError::ServedElsewhere(row.name.clone()));
        }
        Ok(row)
    }

    /// The dead letters, oldest first, at most `limit`.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, ControlError> {
        Ok(self.inner.runtime.broker.dead_letters(limit).await?)
    }

    /// Puts a dead letter back into its queue. `false`: there is none of that id.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn requeue_dead_letter(&self, id: &TaskId) -> Result<bool, ControlError> {
        Ok(self.inner.runtime.broker.requeue_dead_letter(id).await?)
    }

    /// The task that holds the unique window of this key, so that another call with the key would join that task.
    /// `None`: the window is free. The scope is the task's name, and the key is what its `unique_key` comes to;
    /// [`key_of`](crate::task::key_of) makes it of several parts with `-` between them.
    ///
    /// ```no_run
    /// # async fn demo(celeriac: celeriac::Celeriac) -> Result<(), celeriac::app::ControlError> {
    /// if let Some(id) = celeriac.unique("app::export", &celeriac::task::key_of(["malawi-fp", "cases"])).await? {
    ///     println!("{id} does it already");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The broker, or the store that keeps windows for it, does not answer, or neither keeps any.
    pub async fn unique(&self, scope: &str, key: &str) -> Result<Option<TaskId>, ControlError> {
        Ok(self.inner.runtime.window_holder(&UniqueKey::new(scope, key)).await?)
    }

    /// The holders of the permits of this name ([`Context::limit`](crate::Context::limit)), in all processes that
    /// share their keeper.
    ///
    /// # Errors
    /// Nobody keeps permits here, or the keeper cannot be asked.
    pub async fn permit_holders(&self, name: &str) -> Result<Vec<PermitHolder>, ControlError> {
        let keeper = self.inner.runtime.permits.as_ref().ok_or_else(|| {
            let why = "nobody keeps permits here: keep results in Redis, or take the embedded broker";
            StoreError::Unsupported(why.to_owned())
        })?;
        Ok(keeper.holders(name).await.map_err(StoreError::Io)?)
    }

    /// Deletes expired results, and the files of downloads that no record names, now; the runtime does so each
    /// minute anyway. Returns the number of results that were deleted.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn sweep_results(&self) -> Result<usize, ControlError> {
        let swept = self.inner.runtime.store.sweep(now()).await?;
        self.inner.runtime.sweep_payloads().await?;
        Ok(swept)
    }
}

impl CeleriacInner {
    pub(super) fn new(
        runtime: Arc<Runtime>,
        routing: Arc<Routing>,
        tree: Option<Tree>,
        grace: Duration,
    ) -> Self {
        Self {
            runtime,
            routing,
            queues: tree.as_ref().map(|tree| tree.queues.clone()).unwrap_or_default(),
            serials: tree.as_ref().map(|tree| Arc::clone(&tree.serials)).unwrap_or_default(),
            slot_pools: tree.as_ref().map(|tree| Arc::clone(&tree.slot_pools)).unwrap_or_default(),
            tree: Mutex::new(tree),
            grace,
            closing: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            forgets: false,
            ending: CancellationToken::new(),
            closed: CancellationToken::new(),
            status_cache: Arc::default(),
            beat: OnceLock::new(),
            pollers: OnceLock::new(),
            forwarder: OnceLock::new(),
            historian: OnceLock::new(),
            history: HistorySettings::default(),
            beat_lease: LEASE,
            control: ControlState::default(),
            bulk: BulkState::new(),
            #[cfg(feature = "testing")]
            front: OnceLock::new(),
        }
    }

    async fn start_beat(self: &Arc<Self>, entries: Vec<(Periodic, EntryOrigin)>) {
        let publisher = Arc::downgrade(self);
        let parts = BeatParts::new(Arc::clone(&self.runtime), entries, publisher, self.beat_lease);
        let parts = Arc::clone(self.beat.get_or_init(|| Arc::new(parts)));
        let started = self.with_tree(|tree| tree.start_beat(parts));
        if let Some(started) = started {
            started.await;
        }
    }

    async fn start_pollers(self: &Arc<Self>, pollers: Vec<SourcePoller>) {
        if pollers.is_empty() {
            return;
        }
        let client = Arc::downgrade(self) as Weak<dyn TickPublisher>;
        let parts = pollers.into_iter().map(|poller| {
            let queues = self.queues.clone();
            Arc::new(PollerParts::new(Arc::clone(&self.runtime), poller, queues, client.clone()))
        });
        let parts = self.pollers.get_or_init(|| parts.collect()).clone();
        let started = self.with_tree(|tree| tree.start_pollers(parts));
        if let Some(started) = started {
            started.await;
        }
    }

    async fn start_forwarder(&self, table: Arc<dyn CommitTable>) {
        let parts = Arc::new(CommitForwarderParts::new(Arc::clone(&self.runtime), table));
        let parts = Arc::clone(self.forwarder.get_or_init(|| parts));
        let started = self.with_tree(|tree| tree.start_forwarder(parts));
        if let Some(started) = started {
            started.await;
        }
    }

    /// Takes the tree out, for the one shutdown that ends it.
    pub(super) fn take_tree(&self) -> Option<Tree> {
        self.tree.lock().take()
    }

    pub(super) fn catalogue(&self) -> &Catalogue {
        self.routing.catalogue()
    }

    pub(super) fn with_tree<T>(&self, with: impl FnOnce(&Tree) -> T) -> Option<T> {
        self.tree.lock().as_ref().map(with)
    }
}
