//! Tests of what the death of an actor does. When a queue's actor dies, its deliveries go back, what the operator
//! set stays, and a successor takes over. When the actor of a lane or the progress actor dies, nothing is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix::Addr;
use tokio::sync::watch as signal;

use super::progress::ActorProgressHub;
use super::queue::{BrokerBacklog, Crash, GetAccounts, GetStatus, Queue, Steer};
use super::root::Tree;
use super::serial::{self, GetLane, Pull};
use super::slot_pool::SlotPools;
use super::status::QueueStatus;
use crate::State;
use crate::broker::{Broker, EmbeddedBroker, LaneLever, MemoryBroker};
use crate::catalogue::{Catalogue, Pool, PoolRow, QueueRow};
use crate::core::accounts::Accounts;
use crate::runtime::Runtime;
use crate::runtime::progress::{ProgressHub, watch};
use crate::runtime::start_limits::StartLimits;
use crate::store::{EmbeddedStore, MemoryStore, Store};
use crate::task::canvas::CanvasLimits;
use crate::task::registry::Registry;
use crate::task::{
    Arguments, Context, Durability, LaneName, Message, Task, TaskId, TrackedState, read_progress,
};
use crate::task::{Dispatcher, OneQueue};

const LONG: Duration = Duration::from_secs(120);

/// A tree with one queue, `q`.
struct Grown {
    tree: Tree,
    runtime: Arc<Runtime>,
    progress_hub: Arc<ActorProgressHub>,
}

impl Grown {
    async fn new(broker: Arc<dyn Broker>, store: Arc<dyn Store>, row: QueueRow) -> Self {
        Self::sharing(broker, store, vec![row], SlotPools::default()).await
    }

    /// A tree with these queues, each on an event loop of its own, which share the slots of these pools.
    async fn sharing(
        broker: Arc<dyn Broker>,
        store: Arc<dyn Store>,
        rows: Vec<QueueRow>,
        pools: SlotPools,
    ) -> Self {
        let registry = Registry::discover().unwrap();
        let dispatcher = Arc::new(Dispatcher {
            registry,
            route: Box::new(OneQueue),
            max_message_size: 1 << 16,
            limits: CanvasLimits::default(),
            reply_to: None,
            without_lanes: None,
            without_windows: None,
            without_exchanges: None,
            indexes_arguments: false,
        });
        let progress_hub = Arc::new(ActorProgressHub::default());
        let mut runtime = Runtime::new(broker, store, dispatcher);
        let (broker, store) = (Arc::clone(&runtime.broker), Arc::clone(&runtime.store));
        let limits = StartLimits::of(&runtime.dispatcher.registry, &Catalogue::new(), broker, store);
        runtime.limit_starts(limits.unwrap_or_else(|fault| panic!("{}", fault.fault)));
        runtime.show_on(Arc::clone(&progress_hub) as Arc<dyn ProgressHub>);
        let runtime = Arc::new(runtime);
        let arbiters = rows.len();
        let queues = rows.into_iter().map(Into::into).collect();
        let tree =
            Tree::start(Arc::clone(&runtime), Arc::clone(&progress_hub), queues, pools, arbiters).unwrap();
        tree.start_queues().await.unwrap();
        Self { tree, runtime, progress_hub }
    }

    fn queue(&self) -> Addr<Queue> {
        self.tree.queues.get("q").unwrap()
    }

    async fn status(&self, wanted: impl Fn(&QueueStatus) -> bool) -> QueueStatus {
        let start = Instant::now();
        loop {
            // An actor that has died does not answer; its successor does.
            if let Ok(status) = self.queue().send(GetStatus(BrokerBacklog::default())).await
                && wanted(&status)
            {
                return *status;
            }
            assert!(start.elapsed() < LONG, "the queue never came to what it should be");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The actor of a lane ends after its last run.
    async fn lanes_are_idle(&self) {
        let start = Instant::now();
        while self.tree.serials.len() > 0 {
            assert!(start.elapsed() < LONG, "the actor of a lane goes on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn die(&self) {
        let before = self.queue();
        before.do_send(Crash);
        let start = Instant::now();
        while self.queue() == before {
            assert!(start.elapsed() < LONG, "no successor");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn publish<T: Task>(&self, args: &T::Args) -> TaskId {
        self.publish_in::<T>("q", args).await
    }

    async fn publish_in<T: Task>(&self, queue: &str, args: &T::Args) -> TaskId {
        let message = Message {
            id: TaskId::new(),
            task: T::NAME.to_owned(),
            arguments: Arguments::encode(args).unwrap(),
            queue: queue.to_owned(),
            ignore_result: false,
            durability: Durability::Disk,
            result_expires: LONG,
            ..Context::detached().message().clone()
        };
        self.runtime.broker.publish(message, false).await.unwrap().id
    }

    /// Waits until so many slots of the one pool are taken.
    async fn taken(&self, slots: usize) {
        let start = Instant::now();
        while self.tree.slot_pools.statuses()[0].running != slots {
            assert!(start.elapsed() < LONG, "{:?}", self.tree.slot_pools.statuses());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(self) {
        self.runtime.broker.close().await.unwrap();
        tokio::task::spawn_blocking(|| self.tree.stop()).await.unwrap();
    }
}

/// What the bodies of one test share.
struct TestBodies {
    now: AtomicUsize,
    most: AtomicUsize,
    starts: signal::Sender<usize>,
    open: signal::Sender<bool>,
}

struct InBody(&'static TestBodies);

impl TestBodies {
    fn new() -> Self {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { now, most, starts: signal::Sender::new(0), open: signal::Sender::new(false) }
    }

    fn enter(&'static self) -> InBody {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        self.starts.send_modify(|n| *n += 1);
        InBody(self)
    }

    async fn pass(&'static self) {
        let _inside = self.enter();
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
    }

    async fn started(&self, wanted: usize) {
        let mut starts = self.starts.subscribe();
        tokio::time::timeout(LONG, starts.wait_for(|n| *n >= wanted)).await.expect("so many start").unwrap();
    }
}

impl Drop for InBody {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

static BODIES: std::sync::LazyLock<[TestBodies; 12]> =
    std::sync::LazyLock::new(|| [(); 12].map(|()| TestBodies::new()));

#[crate::task]
async fn holds(ctx: Context, which: usize) -> u32 {
    BODIES[which].pass().await;
    ctx.attempt()
}

#[crate::task]
fn holds_a_thread(which: usize) {
    futures_executor::block_on(BODIES[which].pass());
}

async fn dies_with_work_in_hand(broker: Arc<dyn Broker>, store: Arc<dyn Store>, which: usize) {
    let held = &BODIES[which];
    let row = QueueRow::new("q").with_pool(Pool::Io).with_workers(2);
    let grown = Grown::new(broker, Arc::clone(&store), row).await;
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(grown.publish::<holds::Task>(&(which,)).await);
    }
    held.started(2).await;
    grown.die().await;
    held.started(4).await; // the same two runs, or two others
    grown.die().await;
    held.started(6).await;
    assert_eq!(held.now.load(Ordering::SeqCst), 2, "the bodies of the dead are gone");
    held.open.send_replace(true);
    for id in ids {
        let record = tokio::time::timeout(LONG, store.wait(&id)).await.unwrap().unwrap();
        assert_eq!(
            (record.state, record.result.as_deref()),
            (State::Success, Some("1")),
            "no attempt is burnt"
        );
    }
    assert_eq!(held.most.load(Ordering::SeqCst), 2, "never more than there are workers");
    assert_eq!(*held.starts.borrow(), 6 + 2 * 2);
    grown.end().await;
}

#[tokio::test]
async fn what_a_dead_queue_had_runs_under_its_successor_in_memory() {
    let store = Arc::new(MemoryStore::default());
    let broker = Arc::new(MemoryBroker::new(Arc::clone(&store)));
    dies_with_work_in_hand(broker, store, 0).await;
}

#[tokio::test]
async fn what_a_dead_queue_had_runs_under_its_successor_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let broker =
        EmbeddedBroker::open(dir.path(), crate::broker::embedded::EmbeddedOptions::default()).unwrap();
    broker.declare("q").await.unwrap();
    dies_with_work_in_hand(Arc::new(broker.clone()), Arc::new(EmbeddedStore::new(broker)), 1).await;
}

#[crate::task(max_running = 1, limit_key = "{which}")]
async fn holds_alone(which: usize) {
    BODIES[which].pass().await;
}

#[tokio::test]
async fn a_dead_queue_gives_back_what_a_limit_has_counted_for_it() {
    let held = &BODIES[7];
    let store = Arc::new(MemoryStore::default());
    let broker = Arc::new(MemoryBroker::new(Arc::clone(&store)));
    let row = QueueRow::new("q").with_pool(Pool::Io).with_workers(4);
    let grown = Grown::new(broker, store.clone(), row).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(grown.publish::<holds_alone::Task>(&(7,)).await);
    }
    for deaths in 0..2 {
        held.started(deaths + 1).await;
        grown.status(|s| (s.running, s.held, s.ready) == (1, 2, 0)).await;
        grown.die().await;
    }
    held.started(3).await;
    held.open.send_replace(true);
    for id in &ids {
        let record = tokio::time::timeout(LONG, store.wait(id)).await.unwrap().unwrap();
        assert_eq!((record.state, record.attempts), (State::Success, 1), "no attempt is burnt");
    }
    assert_eq!(held.most.load(Ordering::SeqCst), 1, "never two at a time");
    let status = grown.status(|s| s.running == 0).await;
    assert_eq!((status.held, status.ready), (0, 0));
    grown.end().await;
}

#[tokio::test]
async fn what_the_operator_set_and_what_is_stuck_outlive_the_actor() {
    let held = &BODIES[2];
    let store = Arc::new(MemoryStore::default());
    let broker = Arc::new(MemoryBroker::new(Arc::clone(&store)));
    let row = QueueRow::new("q").with_pool(Pool::Cpu).with_workers(1);
    let grown = Grown::new(broker, store, row).await;
    grown.publish::<holds_a_thread::Task>(&(2,)).await;
    held.started(1).await;
    grown.queue().send(Steer::Resize(3)).await.unwrap();
    grown.queue().send(Steer::Pause).await.unwrap();
    grown.die().await;
    let status = grown.status(|s| s.ready == 1).await;
    assert_eq!((status.workers, status.paused, status.running), (3, true, 0));
    assert_eq!((status.stuck, status.refused), (1, 0), "its thread goes on");
    held.open.send_replace(true);
    grown.status(|s| (s.stuck, s.refused) == (0, 1)).await;
    grown.queue().send(Steer::Resume).await.unwrap();
    let status = grown.status(|s| s.done == 1).await;
    assert_eq!((status.panics, status.replaced), (0, 0));
    assert_eq!(held.starts.borrow().to_owned(), 2);
    // What was counted does so as well.
    let accounts = async || grown.queue().send(GetAccounts(BrokerBacklog::default())).await;
    let before = accounts().await.unwrap();
    grown.die().await;
    let after = grown.status(|s| s.done == 1).await;
    assert_eq!(after.time_to_start, before.status.time_to_start);
    assert!(after.time_to_start.count > 0, "the task has started");
    let tasks = |accounts: &Accounts| {
        let tasks = accounts.tasks().map(|(name, task)| (name.to_owned(), task.clone()));
        tasks.collect::<Vec<_>>()
    };
    let after = accounts().await.unwrap();
    assert_eq!(tasks(&after.accounts), tasks(&before.accounts));
    grown.end().await;
}

#[crate::serial_task(key = "{which}", scope = "turns")]
async fn takes_turns(which: usize) {
    BODIES[which].pass().await;
}

/// The messages come without a lane, as from a program that knows of no lanes; the queue puts them into theirs.
#[tokio::test]
async fn the_death_of_a_lanes_actor_loses_nothing() {
    let held = &BODIES[3];
    let store = Arc::new(MemoryStore::default());
    let broker = Arc::new(MemoryBroker::new(Arc::clone(&store)));
    let row = QueueRow::new("q").with_pool(Pool::Io).with_workers(4);
    let grown = Grown::new(broker, store.clone(), row).await;
    let serials = &grown.tree.serials;
    let lane = LaneName::new("turns", "3");
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(grown.publish::<takes_turns::Task>(&(3,)).await);
    }
    held.started(1).await;
    let start = Instant::now();
    // The first one runs, and the queue puts the others into the line.
    while grown.runtime.lane(&lane).await.unwrap().is_none_or(|facts| facts.waiting < 2) {
        assert!(start.elapsed() < LONG, "the others are not in line");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut deaths = 0;
    // The register builds the actor anew a few times, from the runs that it knows. After that only the broker
    // answers.
    while deaths < 6 {
        let actor = serials.address(&lane).expect("a run is going on");
        if let Ok(status) = actor.send(GetLane).await {
            let status = status.unwrap().expect("it is not idle");
            let holder = &status.holders[0];
            assert!(holder.run.as_ref().is_some_and(|run| run.worker.starts_with("q#") && run.attempt == 1));
            assert_eq!((status.waiting, status.holders.len()), (2, 1));
            actor.do_send(serial::CrashSerial);
            deaths += 1;
        }
        assert!(start.elapsed() < LONG);
        tokio::task::yield_now().await;
    }
    while serials.address(&lane).is_some_and(|actor| actor.connected()) {
        assert!(start.elapsed() < LONG);
        tokio::task::yield_now().await;
    }
    let facts = grown.runtime.lane(&lane).await.unwrap().expect("it is not idle");
    assert_eq!((facts.holders[0].id.clone(), facts.waiting), (ids[0].clone(), 2));
    held.open.send_replace(true);
    for id in &ids {
        let record = tokio::time::timeout(LONG, store.wait(id)).await.unwrap().unwrap();
        assert_eq!(record.state, State::Success);
    }
    assert_eq!(held.most.load(Ordering::SeqCst), 1);
    let status = grown.status(|s| s.done == 3).await;
    assert_eq!(status.panics, 0);
    grown.lanes_are_idle().await;
    assert_eq!(grown.runtime.busy_lanes(1).await, Ok(Vec::new()), "all is idle");
    grown.end().await;
}

/// The levers of a lane are the broker's, so other processes see what they set. A queue that dies takes the runs of
/// its lanes along.
#[tokio::test]
async fn a_lane_outlives_the_queue_that_runs_it() {
    let held = &BODIES[4];
    let store = Arc::new(MemoryStore::default());
    let broker = Arc::new(MemoryBroker::new(Arc::clone(&store)));
    let row = QueueRow::new("q").with_pool(Pool::Io).with_workers(4);
    let grown = Grown::new(broker, store.clone(), row).await;
    let serials = &grown.tree.serials;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(grown.publish::<takes_turns::Task>(&(4,)).await);
    }
    held.started(1).await;
    grown.die().await;
    held.started(2).await; // the same run
    let lane = LaneName::new("turns", "4");
    let actor = serials.address(&lane).expect("a run is going on");
    assert_eq!(actor.send(Pull(lane.clone(), LaneLever::Concurrency(Some(2)))).await.unwrap(), Ok(true));
    held.started(3).await;
    let facts = grown.runtime.lane(&lane).await.unwrap().expect("it is not idle");
    assert_eq!((facts.concurrency, facts.is_adjusted, facts.holders.len()), (2, true, 2));
    held.open.send_replace(true);
    for id in &ids {
        tokio::time::timeout(LONG, store.wait(id)).await.unwrap().unwrap();
    }
    assert_eq!(held.most.load(Ordering::SeqCst), 2);
    grown.status(|s| s.running == 0).await;
    grown.lanes_are_idle().await;
    grown.end().await;
}

/// An actor whose lane is idle takes the next lane. What somebody says to it about the first lane holds for that lane, and
/// changes nothing of the second.
#[tokio::test]
async fn an_actor_takes_one_lane_after_the_other() {
    let (first, second) = (&BODIES[10], &BODIES[11]);
    let store = Arc::new(MemoryStore::default());
    let broker = Arc::new(MemoryBroker::new(Arc::clone(&store)));
    let row = QueueRow::new("q").with_pool(Pool::Io).with_workers(4);
    let grown = Grown::new(broker, store, row).await;
    let serials = &grown.tree.serials;
    let (one, other) = (LaneName::new("turns", "10"), LaneName::new("turns", "11"));
    grown.publish::<takes_turns::Task>(&(10,)).await;
    first.started(1).await;
    let actor = serials.address(&one).expect("a run is going on");
    assert_eq!(actor.send(Pull(one.clone(), LaneLever::Concurrency(Some(2)))).await.unwrap(), Ok(true));
    first.open.send_replace(true);
    grown.lanes_are_idle().await;

    for _ in 0..2 {
        grown.publish::<takes_turns::Task>(&(11,)).await;
    }
    second.started(1).await;
    assert!(serials.address(&other).is_some_and(|now| now == actor), "no other actor was built");
    assert!(serials.address(&one).is_none());
    let start = Instant::now();
    while grown.runtime.lane(&other).await.unwrap().is_none_or(|facts| facts.waiting < 1) {
        assert!(start.elapsed() < LONG, "the other one is not in line");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(actor.send(Pull(one.clone(), LaneLever::Concurrency(Some(3)))).await.unwrap(), Ok(true));
    let facts = grown.runtime.lane(&one).await.unwrap().expect("somebody has set its limit");
    assert_eq!((facts.concurrency, facts.is_adjusted, facts.holders.len()), (3, true, 0));
    let status = actor.send(GetLane).await.unwrap().unwrap().expect("it is not idle");
    assert_eq!((status.key.as_str(), status.concurrency, status.is_adjusted), ("11", 1, false));
    assert!(status.holders.len() == 1 && status.holders[0].run.is_some());
    assert!(serials.runs(&one).await.is_ok_and(|runs| runs.is_empty()));
    assert!(serials.runs(&other).await.is_ok_and(|runs| runs.len() == 1));

    second.open.send_replace(true);
    let status = grown.status(|s| s.done == 3).await;
    assert_eq!((status.panics, second.most.load(Ordering::SeqCst)), (0, 1));
    grown.lanes_are_idle().await;
    grown.end().await;
}

#[crate::task]
async fn tells(ctx: Context, which: usize) {
    ctx.progress(20, 1_000);
    BODIES[which].pass().await;
    // The steps stay within one percent, so only the actor reports them.
    ctx.progress(25, 1_000);
    BODIES[which + 1].pass().await;
}

/// The bars of what runs are the progress actor's own. Its successor gets them from the queues, and the watchers
/// ask again.
#[tokio::test]
async fn the_death_of_the_progress_actor_loses_no_bar() {
    let (held, after) = (&BODIES[5], &BODIES[6]);
    let store = Arc::new(MemoryStore::default());
    let broker = Arc::new(MemoryBroker::new(Arc::clone(&store)));
    let row = QueueRow::new("q").with_pool(Pool::Io).with_workers(2);
    let grown = Grown::new(broker, store.clone(), row).await;
    let progress_hub = Arc::clone(&grown.progress_hub) as Arc<dyn ProgressHub>;
    let id = grown.publish::<tells::Task>(&(5,)).await;
    held.started(1).await;
    let shown = async |current: u64| {
        let start = Instant::now();
        let wanted = |state: TrackedState| read_progress(&state.meta).0.is_some_and(|p| p.current == current);
        while !progress_hub.shown(&id).await.is_some_and(wanted) {
            assert!(start.elapsed() < LONG, "{current} is never shown");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    shown(20).await;
    let mut watcher = watch(&progress_hub, &id).await.expect("the actor lives");
    let dead = grown.progress_hub.kill();
    assert!(!watcher.changed().await, "who watches hears that the bars are kept no more");
    let start = Instant::now();
    while grown.progress_hub.is(&dead) {
        assert!(start.elapsed() < LONG, "no successor");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut watcher = watch(&progress_hub, &id).await.expect("its successor lives");
    held.open.send_replace(true);
    after.started(1).await;
    shown(25).await;
    assert!(watcher.changed().await, "who watches is told of it");
    after.open.send_replace(true);
    tokio::time::timeout(LONG, store.wait(&id)).await.unwrap().unwrap();
    grown.end().await;
}

/// Two queues share three slots. The runs of a queue that dies hold theirs until they are over, and no longer.
#[tokio::test]
async fn the_death_of_a_queue_loses_no_slot_of_its_pool() {
    let (held, after) = (&BODIES[8], &BODIES[9]);
    let store = Arc::new(MemoryStore::default());
    let broker = Arc::new(MemoryBroker::new(Arc::clone(&store)));
    let catalogue = Catalogue::new().with_pool(Pool::Io, PoolRow::new(3).with_room(0).with_reserve(0));
    let rows = ["q", "r"].map(|name| QueueRow::new(name).with_pool(Pool::Io).with_workers(3));
    let grown = Grown::sharing(broker, store.clone(), rows.into(), SlotPools::of(&catalogue)).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        for queue in ["q", "r"] {
            ids.push(grown.publish_in::<holds::Task>(queue, &(8,)).await);
        }
    }
    held.started(3).await;
    for _ in 0..3 {
        grown.die().await;
        grown.taken(3).await;
    }
    held.open.send_replace(true);
    for id in &ids {
        let record = tokio::time::timeout(LONG, store.wait(id)).await.unwrap().unwrap();
        let ended = (record.state, record.result.as_deref());
        assert_eq!(ended, (State::Success, Some("1")), "no attempt is burnt");
    }
    assert_eq!(held.most.load(Ordering::SeqCst), 3, "never more than there are slots");
    grown.taken(0).await;
    for queue in ["q", "r", "q", "r"] {
        grown.publish_in::<holds::Task>(queue, &(9,)).await;
    }
    after.started(3).await;
    grown.taken(3).await;
    after.open.send_replace(true);
    after.started(4).await;
    grown.taken(0).await;
    assert_eq!(after.most.load(Ordering::SeqCst), 3);
    grown.end().await;
}
