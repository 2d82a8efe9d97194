//! The root of the supervision tree. `Tree::start` runs it on a thread of its own when the runtime starts; it
//! builds the queues, beat, the source pollers, the forwarder, the historian and the progress actor, and builds each anew when
//! it dies.
//!
//! Invariants:
//! - A child that died is built anew after a pause by its own restart intensity. The root never gives a child up;
//!   one that dies too often only gets the longer pause.
//! - A child that ends after [`Closing`] is not built anew.
//! - What must survive a queue's actor lies in its [`RetainedState`], which the root owns.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};
use actix_rt::{Arbiter, System};
use futures_util::future::OptionFuture;

use super::beat::{Beat, BeatParts, EndBeat};
use super::brake_watch;
use super::commit_forwarder::{CommitForwarderParts, EndForwarding};
use super::countdown::{Countdown, DropTells};
use super::historian::HistorianParts;
use super::progress::{ActorProgressHub, Progress};
use super::queue::{Queue, TellBars};
use super::queues::Queues;
use super::retained::{InitialQueue, RetainedState};
use super::run_time_rounds;
use super::serial::Serials;
use super::slot_pool::SlotPools;
use super::source_poller::{EndLoop, PollerLoop, PollerParts};
use super::supervisor::{self, Exit};
use crate::catalogue::QueueRow;
use crate::core::accounts::time_to_start_edges;
use crate::core::duration_histogram::Edges;
use crate::core::{Intensity, RestartVerdict, Restarts};
use crate::runtime::Runtime;
use crate::task::clock::now;

mod forwarder;
mod historian;

/// How often the root has expired results and old downloads deleted.
const SWEEP: Duration = Duration::from_secs(60);
/// How often each arbiter is asked for a sign of life, and the silence after which it is reported.
const PING: Duration = Duration::from_secs(1);
const SILENT: Duration = Duration::from_secs(5);
/// The pause before an actor is built anew that has died more often than its restart intensity allows.
const COOL_DOWN: Duration = Duration::from_secs(30);

/// The actor at the root. It has what it needs to build each of its children again.
pub(crate) struct Root {
    runtime: Arc<Runtime>,
    rows: Vec<(QueueRow, Arc<RetainedState>)>,
    /// The edges for time-to-start, at the targets of all queues: so the histograms of several queues add up.
    time_to_start: Edges,
    queues: Queues,
    serials: Arc<Serials>,
    slot_pools: Arc<SlotPools>,
    progress_hub: Arc<ActorProgressHub>,
    arbiters: Vec<WatchedArbiter>,
    restarts: HashMap<String, Restarts>,
    beat: Option<Arc<BeatParts>>,
    pollers: Vec<Arc<PollerParts>>,
    forwarder: Option<Arc<CommitForwarderParts>>,
    historian: Option<Arc<HistorianParts>>,
    closing: bool,
}

/// An arbiter (a thread with an event loop), and when it gave its last sign of life.
struct WatchedArbiter {
    arbiter: Arbiter,
    /// The time of that sign, in milliseconds after `since`.
    heard: Arc<AtomicU64>,
    since: Instant,
    reported: bool,
}

/// The tree of one runtime: a thread of its own with its actix system, and the addresses that others need.
pub(crate) struct Tree {
    root: Addr<Root>,
    pub(crate) queues: Queues,
    pub(crate) serials: Arc<Serials>,
    pub(crate) slot_pools: Arc<SlotPools>,
    system: System,
    thread: std::thread::JoinHandle<()>,
}

impl Tree {
    /// Starts the tree on threads of its own, so that it works in any program, with or without an actix system. It has no
    /// queues before [`start_queues`](Self::start_queues).
    ///
    /// `progress_hub` is the one that `runtime` shows its bars on; `rows` are the queues that are served here, and `slot_pools`
    /// the slots that they share; `arbiters` is the number of event loops for queues (at least one is made).
    ///
    /// # Errors
    /// The thread could not be started, or it ended before the root was there.
    pub(crate) fn start(
        runtime: Arc<Runtime>,
        progress_hub: Arc<ActorProgressHub>,
        rows: Vec<InitialQueue>,
        slot_pools: SlotPools,
        arbiters: usize,
    ) -> std::io::Result<Self> {
        let (told, ready) = std::sync::mpsc::channel();
        let (queues, serials) = (Queues::default(), Arc::<Serials>::default());
        let slot_pools = Arc::new(slot_pools);
        let shared = (queues.clone(), Arc::clone(&serials), Arc::clone(&slot_pools), progress_hub);
        let thread = std::thread::Builder::new().name("celeriac-root".to_owned()).spawn(move || {
            let runner = System::new();
            runner.block_on(async {
                let root = Root::new(runtime, rows, shared, arbiters);
                let root = supervisor::spawn(
                    |_| root,
                    |exit| {
                        if let Exit::Panicked(text) = exit {
                            tracing::error!(
                                text,
                                "the root of the tree died; the program should be started again"
                            );
                            System::current().stop_with_code(70);
                        }
                    },
                );
                let _ = told.send((root, System::current()));
            });
            if let Err(error) = runner.run() {
                tracing::error!(%error, "the actor system ended");
            }
        })?;
        let (root, system) = ready.recv().map_err(std::io::Error::other)?;
        Ok(Self { root, queues, serials, slot_pools, system, thread })
    }

    /// Builds the queues. Each begins at once to run what waits in it, so what its bodies use must be there. The receiver is
    /// told when all queues have addresses.
    pub(crate) fn start_queues(&self) -> tokio::sync::oneshot::Receiver<()> {
        let (grown, up) = tokio::sync::oneshot::channel();
        self.root.do_send(StartQueues(Some(grown)));
        up
    }

    /// Builds beat, and completes when beat can be asked. It completes as well if the root is gone: then the
    /// program has ended or is about to.
    pub(crate) fn start_beat(&self, parts: Arc<BeatParts>) -> impl Future<Output = ()> + use<> {
        self.tell(StartBeat(parts))
    }

    /// Serves one more queue.
    pub(crate) fn add_queue(&self, row: QueueRow) {
        self.root.do_send(AddQueue(row));
    }

    /// Builds these source pollers, and completes when all of them can be asked.
    pub(crate) fn start_pollers(&self, parts: Vec<Arc<PollerParts>>) -> impl Future<Output = ()> + use<> {
        self.tell(StartPollers(parts))
    }

    /// Builds the forwarder of the commit table, and completes when it is there.
    pub(crate) fn start_forwarder(
        &self,
        parts: Arc<CommitForwarderParts>,
    ) -> impl Future<Output = ()> + use<> {
        self.tell(forwarder::StartForwarder(parts))
    }

    /// Builds the historian.
    pub(crate) fn start_historian(&self, parts: Arc<HistorianParts>) {
        self.root.do_send(historian::StartHistorian(parts));
    }

    /// Tells the root that a shutdown has begun, and completes when beat, the source pollers and the forwarder have ended.
    pub(crate) fn closing(&self) -> impl Future<Output = ()> + use<> {
        self.tell(Closing)
    }

    fn tell<M>(&self, message: M) -> impl Future<Output = ()> + use<M>
    where
        M: Message<Result = ()> + Send + 'static,
        Root: Handler<M>,
    {
        let told = self.root.send(message);
        async move {
            let _ = told.await;
        }
    }

    /// Ends all threads of the tree, and blocks until the root's thread is over.
    pub(crate) fn stop(self) {
        // The addresses go first: nobody is to reach an actor whose thread is about to end.
        self.queues.clear();
        drop(self.root);
        self.system.stop();
        let _ = self.thread.join();
    }
}

/// What the tree and its root both have.
type SharedParts = (Queues, Arc<Serials>, Arc<SlotPools>, Arc<ActorProgressHub>);

impl Root {
    fn new(
        runtime: Arc<Runtime>,
        rows: Vec<InitialQueue>,
        (queues, serials, slot_pools, progress_hub): SharedParts,
        arbiters: usize,
    ) -> Self {
        let arbiters = (0..arbiters.max(1))
            .map(|_| WatchedArbiter {
                arbiter: Arbiter::new(),
                heard: Arc::default(),
                since: Instant::now(),
                reported: false,
            })
            .collect();
        let time_to_start = time_to_start_edges(rows.iter().filter_map(|queue| queue.row.target));
        let rows = rows.into_iter().map(|InitialQueue { row, is_paused }| {
            let retained = Arc::new(RetainedState::new(&row, is_paused));
            (row, retained)
        });
        let rows = rows.collect();
        Self {
            runtime,
            rows,
            time_to_start,
            queues,
            serials,
            slot_pools,
            progress_hub,
            arbiters,
            restarts: HashMap::new(),
            beat: None,
            pollers: Vec::new(),
            forwarder: None,
            historian: None,
            closing: false,
        }
    }

    /// Builds the actor of a queue on its arbiter. `built` is dropped when the queue's address is known.
    fn start_queue(&self, index: usize, root: Addr<Self>, built: Option<Countdown>) {
        let (row, retained) = self.rows[index].clone();
        let (runtime, queues, serials) =
            (Arc::clone(&self.runtime), self.queues.clone(), Arc::clone(&self.serials));
        let (slot_pools, time_to_start) = (Arc::clone(&self.slot_pools), self.time_to_start.clone());
        let arbiter = &self.arbiters[index % self.arbiters.len()].arbiter;
        arbiter.spawn_fn(move || {
            let name = row.name.clone();
            let address = supervisor::spawn(
                |_| Queue::new(row, runtime, retained, serials, slot_pools, time_to_start),
                move |exit| root.do_send(QueueDown { index, exit }),
            );
            queues.insert(name, address);
            drop(built);
        });
    }

    /// Builds beat on the first arbiter. `built` is told when beat's address is known.
    fn start_beat(&self, root: Addr<Self>, built: Option<tokio::sync::oneshot::Sender<()>>) {
        let Some(parts) = self.beat.clone() else { return };
        self.arbiters[0].arbiter.spawn_fn(move || {
            let own = Arc::clone(&parts);
            let address = supervisor::spawn(|_| Beat::new(own), move |exit| root.do_send(BeatDown(exit)));
            *parts.address.lock() = Some(address);
            drop(built);
        });
    }

    /// Builds a source poller on one of the arbiters. `built` is dropped when its address is known.
    fn start_poller(&self, index: usize, root: Addr<Self>, built: Option<Countdown>) {
        let Some(parts) = self.pollers.get(index).cloned() else { return };
        self.arbiters[index % self.arbiters.len()].arbiter.spawn_fn(move || {
            let own = Arc::clone(&parts);
            let address = supervisor::spawn(
                |_| PollerLoop::new(own),
                move |exit| root.do_send(PollerDown { index, exit }),
            );
            *parts.address.lock() = Some(address);
            drop(built);
        });
    }

    /// Builds the progress actor on the root's own thread, where no task body can block it, and has the queues tell
    /// it the bars of what runs.
    fn start_progress(&self, root: Addr<Self>) {
        supervisor::spawn(
            |ctx| Progress::new(&self.progress_hub, ctx.address()),
            move |exit| root.do_send(ProgressDown(exit)),
        );
        for queue in self.queues.all() {
            queue.do_send(TellBars(Arc::clone(&self.progress_hub)));
        }
    }

    /// Counts a death of `what` and returns the pause before it is built anew.
    fn pause(&mut self, what: &str) -> Duration {
        let restarts =
            self.restarts.entry(what.to_owned()).or_insert_with(|| Restarts::new(Intensity::default()));
        match restarts.failed(now()) {
            RestartVerdict::Restart { after } => after,
            RestartVerdict::GiveUp { restarts, window } => {
                tracing::error!(
                    what,
                    restarts,
                    ?window,
                    "an actor dies again and again; it gets a longer pause"
                );
                COOL_DOWN
            }
        }
    }

    /// Reports arbiters that gave no sign of life for too long: a body that blocks holds their event loop.
    fn watch(&mut self) {
        self.slot_pools.look();
        let rows = &self.rows;
        let count = self.arbiters.len();
        for (at, watched) in self.arbiters.iter_mut().enumerate() {
            let (heard, since) = (Arc::clone(&watched.heard), watched.since);
            watched.arbiter.spawn_fn(move || heard.store(millis(since), Ordering::Relaxed));
            let silent =
                Duration::from_millis(millis(since).saturating_sub(watched.heard.load(Ordering::Relaxed)));
            if silent > SILENT && !watched.reported {
                let queues: Vec<_> =
                    rows.iter().skip(at).step_by(count).map(|(row, _)| row.name.as_str()).collect();
                tracing::error!(
                    ?silent,
                    ?queues,
                    "an event loop does not answer: a task of one of these queues blocks it; make it a plain `fn`, which runs on a thread of its own"
                );
            }
            watched.reported = silent > SILENT;
        }
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Actor for Root {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(PING, |root, _| root.watch());
        ctx.run_interval(SWEEP, |root, _| {
            let runtime = Arc::clone(&root.runtime);
            actix_rt::spawn(async move {
                if let Err(error) = runtime.store.sweep(now()).await {
                    tracing::warn!(%error, "expired results could not be deleted; trying again in a minute");
                }
                if let Err(error) = runtime.sweep_payloads().await {
                    tracing::warn!(%error, "old downloads could not be deleted; trying again in a minute");
                }
            });
        });
        self.start_progress(ctx.address());
        brake_watch::watch(Arc::clone(&self.runtime), self.queues.clone());
        run_time_rounds::begin(Arc::clone(&self.runtime));
    }
}

/// Builds all queues. The sender is told when all of them have addresses.
#[derive(Message)]
#[rtype(result = "()")]
struct StartQueues(Option<tokio::sync::oneshot::Sender<()>>);

impl Handler<StartQueues> for Root {
    type Result = ();

    fn handle(&mut self, StartQueues(up): StartQueues, ctx: &mut Self::Context) {
        let all = DropTells::countdown(up);
        for index in 0..self.rows.len() {
            self.start_queue(index, ctx.address(), Some(Arc::clone(&all)));
        }
    }
}

/// Build one more queue.
#[derive(Message)]
#[rtype(result = "()")]
struct AddQueue(QueueRow);

impl Handler<AddQueue> for Root {
    type Result = ();

    fn handle(&mut self, AddQueue(row): AddQueue, ctx: &mut Self::Context) {
        if self.closing || self.rows.iter().any(|(known, _)| known.name == row.name) {
            return;
        }
        let retained = Arc::new(RetainedState::new(&row, false));
        self.rows.push((row, retained));
        self.start_queue(self.rows.len() - 1, ctx.address(), None);
    }
}

/// The actor of a queue has ended.
#[derive(Message)]
#[rtype(result = "()")]
struct QueueDown {
    index: usize,
    exit: Exit,
}

impl Handler<QueueDown> for Root {
    type Result = ();

    fn handle(&mut self, QueueDown { index, exit }: QueueDown, ctx: &mut Self::Context) {
        if self.closing {
            return;
        }
        let queue = self.rows[index].0.name.clone();
        let after = self.pause(&format!("queue {queue}"));
        tracing::error!(
            queue,
            ?exit,
            ?after,
            "a queue's actor died; what it had goes back to the broker, and it is built anew"
        );
        ctx.run_later(after, move |root, ctx| {
            // A queue that is built during a shutdown would consume, and nobody would wait for its runs.
            if !root.closing {
                root.start_queue(index, ctx.address(), None);
            }
        });
    }
}

/// Builds beat; the answer comes when beat has an address.
#[derive(Message)]
#[rtype(result = "()")]
struct StartBeat(Arc<BeatParts>);

impl Handler<StartBeat> for Root {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, StartBeat(parts): StartBeat, ctx: &mut Self::Context) -> Self::Result {
        self.beat = Some(parts);
        let (built, is_built) = tokio::sync::oneshot::channel();
        self.start_beat(ctx.address(), Some(built));
        Box::pin(async move {
            let _ = is_built.await;
        })
    }
}

/// Beat has ended.
#[derive(Message)]
#[rtype(result = "()")]
struct BeatDown(Exit);

impl Handler<BeatDown> for Root {
    type Result = ();

    fn handle(&mut self, BeatDown(exit): BeatDown, ctx: &mut Self::Context) {
        let resigned = |parts: &Arc<BeatParts>| parts.resigned.load(Ordering::Acquire);
        if self.closing || self.beat.as_ref().is_some_and(resigned) {
            return;
        }
        let after = self.pause("beat");
        tracing::error!(?exit, ?after, "beat died; it is built anew and goes on with what is noted");
        ctx.run_later(after, |root, ctx| {
            if !root.closing {
                root.start_beat(ctx.address(), None);
            }
        });
    }
}

/// Builds these source pollers; the answer comes when all of them have addresses.
#[derive(Message)]
#[rtype(result = "()")]
struct StartPollers(Vec<Arc<PollerParts>>);

impl Handler<StartPollers> for Root {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, StartPollers(parts): StartPollers, ctx: &mut Self::Context) -> Self::Result {
        self.pollers = parts;
        let (built, are_built) = tokio::sync::oneshot::channel();
        let all = DropTells::countdown(Some(built));
        for index in 0..self.pollers.len() {
            self.start_poller(index, ctx.address(), Some(Arc::clone(&all)));
        }
        Box::pin(async move {
            let _ = are_built.await;
        })
    }
}

/// A source poller has ended.
#[derive(Message)]
#[rtype(result = "()")]
struct PollerDown {
    index: usize,
    exit: Exit,
}

impl Handler<PollerDown> for Root {
    type Result = ();

    fn handle(&mut self, PollerDown { index, exit }: PollerDown, ctx: &mut Self::Context) {
        if self.closing {
            return;
        }
        let Some(name) = self.pollers.get(index).map(|parts| parts.poller.name.clone()) else { return };
        let after = self.pause(&format!("source poller {name}"));
        tracing::error!(name, ?exit, ?after, "a source poller died; it is built anew");
        ctx.run_later(after, move |root, ctx| {
            if !root.closing {
                root.start_poller(index, ctx.address(), None);
            }
        });
    }
}

/// The progress actor has ended.
#[derive(Message)]
#[rtype(result = "()")]
struct ProgressDown(Exit);

impl Handler<ProgressDown> for Root {
    type Result = ();

    fn handle(&mut self, ProgressDown(exit): ProgressDown, ctx: &mut Self::Context) {
        if self.closing {
            return;
        }
        let after = self.pause("progress");
        tracing::error!(?exit, ?after, "the progress actor died; it is built anew, and bars go on");
        ctx.run_later(after, |root, ctx| {
            if !root.closing {
                root.start_progress(ctx.address());
            }
        });
    }
}

/// A shutdown has begun. Beat, the source pollers and the forwarder end first, so that they enqueue nothing more; from
/// now on the root builds nothing anew.
#[derive(Message)]
#[rtype(result = "()")]
struct Closing;

impl Handler<Closing> for Root {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, _: Closing, _: &mut Self::Context) -> Self::Result {
        self.closing = true;
        let beat = self.beat.as_ref().and_then(|parts| parts.living());
        let loops: Vec<_> = self.pollers.iter().filter_map(|parts| parts.living()).collect();
        let forwarder = self.forwarder.as_ref().and_then(|parts| parts.living());
        Box::pin(async move {
            futures_util::future::join_all(loops.iter().map(|one| one.send(EndLoop))).await;
            // A forwarder whose database is away may take long to end, and beat does not wait for it. Beat that is being
            // built anew does not answer, but it publishes nothing either.
            let forwarder = OptionFuture::from(forwarder.map(|forwarder| forwarder.send(EndForwarding)));
            let beat = OptionFuture::from(beat.map(|beat| beat.send(EndBeat)));
            futures_util::future::join(forwarder, beat).await;
        })
    }
}
