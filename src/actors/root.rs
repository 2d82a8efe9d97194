//! The root of the tree: it builds the queues and beat on the arbiters, and builds them again when they die.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};
use actix_rt::{Arbiter, System};
use dashmap::DashMap;

use super::beat::{Beat, BeatParts, End};
use super::lasting::Lasting;
use super::producer::{EndLoop, ProducerLoop, ProducerParts};
use super::progress::Progress;
use super::queue::Queue;
use super::runtime::Runtime;
use super::supervisor::{self, Exit};
use crate::app::catalogue::QueueRow;
use crate::core::{Intensity, RestartVerdict, Restarts};
use crate::task::clock::now;

/// How often expired results are deleted.
const SWEEP: Duration = Duration::from_secs(60);
/// How often arbiters are asked whether they are alive, and when a silent one is reported.
const PING: Duration = Duration::from_secs(1);
const SILENT: Duration = Duration::from_secs(5);
/// A queue actor that died too often is built again after this long.
const COOL_DOWN: Duration = Duration::from_secs(30);

/// The queues' addresses, always the living ones.
pub(crate) type Queues = Arc<DashMap<String, Addr<Queue>>>;

/// The actor.
pub(crate) struct Root {
    runtime: Arc<Runtime>,
    rows: Vec<(QueueRow, Arc<Lasting>)>,
    queues: Queues,
    arbiters: Vec<Watched>,
    restarts: HashMap<String, Restarts>,
    beat: Option<Arc<BeatParts>>,
    producers: Vec<Arc<ProducerParts>>,
    closing: bool,
}

/// An arbiter and when it was last heard of.
struct Watched {
    arbiter: Arbiter,
    /// Milliseconds since `since`.
    heard: Arc<AtomicU64>,
    since: Instant,
    reported: bool,
}

/// A runtime's own thread with its actix system.
pub(crate) struct Tree {
    pub(crate) root: Addr<Root>,
    pub(crate) queues: Queues,
    system: System,
    thread: std::thread::JoinHandle<()>,
}

impl Tree {
    /// Grows the tree on threads of its own, so that it works in any program, with or without an actix system.
    pub(crate) fn grow(
        runtime: Arc<Runtime>,
        rows: Vec<QueueRow>,
        arbiters: usize,
    ) -> std::io::Result<(Self, tokio::sync::oneshot::Receiver<()>)> {
        let (told, ready) = std::sync::mpsc::channel();
        let (grown, up) = tokio::sync::oneshot::channel();
        let queues: Queues = Arc::default();
        let shared = Arc::clone(&queues);
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
                root.do_send(Grow(Some(grown)));
                let _ = told.send((root, System::current()));
            });
            if let Err(error) = runner.run() {
                tracing::error!(%error, "the actor system ended");
            }
        })?;
        let (root, system) = ready.recv().map_err(std::io::Error::other)?;
        Ok((Self { root, queues, system, thread }, up))
    }

    /// Ends all its threads.
    pub(crate) fn fell(self) {
        self.queues.clear();
        drop(self.root);
        self.system.stop();
        let _ = self.thread.join();
    }
}

impl Root {
    fn new(runtime: Arc<Runtime>, rows: Vec<QueueRow>, queues: Queues, arbiters: usize) -> Self {
        let arbiters = (0..arbiters.max(1))
            .map(|_| Watched {
                arbiter: Arbiter::new(),
                heard: Arc::default(),
                since: Instant::now(),
                reported: false,
            })
            .collect();
        let rows = rows.into_iter().map(|row| (row.clone(), Arc::new(Lasting::new(row.workers)))).collect();
        Self {
            runtime,
            rows,
            queues,
            arbiters,
            restarts: HashMap::new(),
            beat: None,
            producers: Vec::new(),
            closing: false,
        }
    }

    /// Builds a queue on its arbiter; its address is there when `built` is told.
    fn plant(&self, index: usize, root: Addr<Self>, built: Option<Countdown>) {
        let (row, lasting) = self.rows[index].clone();
        let (runtime, queues) = (Arc::clone(&self.runtime), Arc::clone(&self.queues));
        let arbiter = &self.arbiters[index % self.arbiters.len()].arbiter;
        arbiter.spawn_fn(move || {
            let name = row.name.clone();
            let address = supervisor::spawn(
                |_| Queue::new(row, runtime, lasting),
                move |exit| root.do_send(QueueDown { index, exit }),
            );
            queues.insert(name, address);
            drop(built);
        });
    }

    /// Builds beat on the first arbiter.
    fn plant_beat(&self, root: Addr<Self>, built: Option<tokio::sync::oneshot::Sender<()>>) {
        let Some(parts) = self.beat.clone() else { return };
        self.arbiters[0].arbiter.spawn_fn(move || {
            let own = Arc::clone(&parts);
            let address = supervisor::spawn(|_| Beat::new(own), move |exit| root.do_send(BeatDown(exit)));
            *parts.address.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
            drop(built);
        });
    }

    /// Builds a producer loop on one of the arbiters.
    fn plant_producer(&self, index: usize, root: Addr<Self>, built: Option<Countdown>) {
        let Some(parts) = self.producers.get(index).cloned() else { return };
        self.arbiters[index % self.arbiters.len()].arbiter.spawn_fn(move || {
            let own = Arc::clone(&parts);
            let address = supervisor::spawn(
                |_| ProducerLoop::new(own),
                move |exit| root.do_send(ProducerDown { index, exit }),
            );
            *parts.address.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
            drop(built);
        });
    }

    /// Builds the progress actor beside the root, where no task's body can block it.
    fn plant_progress(&self, root: Addr<Self>) {
        let board = Arc::clone(&self.runtime.board);
        supervisor::spawn(
            |ctx| Progress::new(board, ctx.address()),
            move |exit| root.do_send(ProgressDown(exit)),
        );
    }

    /// How long to wait before `what` is built again.
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

    /// Reports arbiters that do not answer: somebody blocks an event loop.
    fn watch(&mut self) {
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

/// Tells its receiver when the last clone is gone.
type Countdown = Arc<DropTells>;

struct DropTells(Option<tokio::sync::oneshot::Sender<()>>);

impl Drop for DropTells {
    fn drop(&mut self) {
        if let Some(told) = self.0.take() {
            let _ = told.send(());
        }
    }
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
        self.plant_progress(ctx.address());
    }
}

/// Build all queues.
#[derive(Message)]
#[rtype(result = "()")]
struct Grow(Option<tokio::sync::oneshot::Sender<()>>);

impl Handler<Grow> for Root {
    type Result = ();

    fn handle(&mut self, Grow(up): Grow, ctx: &mut Self::Context) {
        let all = Arc::new(DropTells(up));
        for index in 0..self.rows.len() {
            self.plant(index, ctx.address(), Some(Arc::clone(&all)));
        }
    }
}

/// A queue actor has ended.
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
        ctx.run_later(after, move |root, ctx| root.plant(index, ctx.address(), None));
    }
}

/// Build beat; answered when it has an address.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct StartBeat(pub(crate) Arc<BeatParts>);

impl Handler<StartBeat> for Root {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, StartBeat(parts): StartBeat, ctx: &mut Self::Context) -> Self::Result {
        self.beat = Some(parts);
        let (built, is_built) = tokio::sync::oneshot::channel();
        self.plant_beat(ctx.address(), Some(built));
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
                root.plant_beat(ctx.address(), None);
            }
        });
    }
}

/// Build these producer loops; answered when all have an address.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct StartProducers(pub(crate) Vec<Arc<ProducerParts>>);

impl Handler<StartProducers> for Root {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, StartProducers(parts): StartProducers, ctx: &mut Self::Context) -> Self::Result {
        self.producers = parts;
        let (built, are_built) = tokio::sync::oneshot::channel();
        let all = Arc::new(DropTells(Some(built)));
        for index in 0..self.producers.len() {
            self.plant_producer(index, ctx.address(), Some(Arc::clone(&all)));
        }
        Box::pin(async move {
            let _ = are_built.await;
        })
    }
}

/// A producer loop has ended.
#[derive(Message)]
#[rtype(result = "()")]
struct ProducerDown {
    index: usize,
    exit: Exit,
}

impl Handler<ProducerDown> for Root {
    type Result = ();

    fn handle(&mut self, ProducerDown { index, exit }: ProducerDown, ctx: &mut Self::Context) {
        if self.closing {
            return;
        }
        let Some(name) = self.producers.get(index).map(|parts| parts.producer.name.clone()) else { return };
        let after = self.pause(&format!("producer {name}"));
        tracing::error!(name, ?exit, ?after, "a producer loop died; it is built anew");
        ctx.run_later(after, move |root, ctx| {
            if !root.closing {
                root.plant_producer(index, ctx.address(), None);
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
                root.plant_progress(ctx.address());
            }
        });
    }
}

/// A shutdown has begun: beat and the producer loops end first, and queues that end are not built again.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Closing;

impl Handler<Closing> for Root {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, _: Closing, _: &mut Self::Context) -> Self::Result {
        self.closing = true;
        let beat = self.beat.as_ref().and_then(|parts| parts.living());
        let loops: Vec<_> = self.producers.iter().filter_map(|parts| parts.living()).collect();
        Box::pin(async move {
            futures_util::future::join_all(loops.iter().map(|one| one.send(EndLoop))).await;
            if let Some(beat) = beat {
                // One that is being built anew does not answer, and does not fire.
                let _ = beat.send(End).await;
            }
        })
    }
}
