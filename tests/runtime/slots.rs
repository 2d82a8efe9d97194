//! Queues that share the slots of a pool, on event loops of their own: never more runs than slots, none lost, and the promise
//! decides what starts next.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use celeriac::actors::PoolStatus;
use celeriac::app::ControlError;
use celeriac::catalogue::{Catalogue, Pool, PoolRow, QueueRow};
use celeriac::core::explanation::{BoundedCount, TaskReason};
use celeriac::core::hold::HoldReason;
use celeriac::core::slots::SlotHold;
use celeriac::task::TENANT;
use celeriac::{AsyncResult, Celeriac, Context, State, TaskError, TaskId, task};

use crate::kit::{
    Gate, LONG, add, all_running, hold, io_queue, quiet, record, status_of, until, until_status,
};

const HOUR: Duration = Duration::from_secs(3_600);

/// Four slots for two queues of four workers each, and a third one that is guaranteed a worker; each on a loop of its own.
fn catalogue() -> Catalogue {
    Catalogue::new()
        .with_pool(Pool::Io, PoolRow::new(4).with_room(0).with_reserve(0))
        .with_queue(io_queue("urgent", 4).with_target(Duration::from_secs(1)))
        .with_queue(io_queue("bulk", 4).with_target(HOUR))
        .with_queue(io_queue("guaranteed", 4).with_target(6 * HOUR).with_min_workers(1))
        .with_queue(io_queue("apart", 2).with_shared(false))
}

async fn start(catalogue: Catalogue) -> Celeriac {
    quiet();
    Celeriac::builder().catalogue(catalogue).arbiters(3).in_memory().start().await.unwrap()
}

fn pool(celeriac: &Celeriac) -> PoolStatus {
    celeriac.pools().into_iter().find(|pool| pool.pool == "io").expect("it is in the catalogue")
}

async fn until_taken(celeriac: &Celeriac, slots: usize) {
    until(&format!("{slots} slots are taken"), async || pool(celeriac).running == slots).await;
}

async fn held(celeriac: &Celeriac, queue: &str, gate: &Gate) -> AsyncResult<hold::Task> {
    hold::s(gate.name.clone()).queue(queue).send(celeriac.client()).await.unwrap()
}

/// As many tasks run at a time as there are slots, whatever has happened before.
async fn all_slots_work(celeriac: &Celeriac, slots: usize) {
    let gate = Gate::new();
    for n in 0..2 * slots {
        held(celeriac, if n % 2 == 0 { "urgent" } else { "bulk" }, &gate).await;
    }
    gate.entered(slots).await;
    until_taken(celeriac, slots).await;
    gate.open();
    gate.left(2 * slots).await;
    assert_eq!((gate.gauge.most(), gate.gauge.all()), (slots, 2 * slots));
    until_taken(celeriac, 0).await;
}

#[tokio::test]
async fn two_queues_never_run_more_than_their_pool_has_slots() {
    let celeriac = start(catalogue()).await;
    let gate = Gate::new();
    for _ in 0..10 {
        held(&celeriac, "urgent", &gate).await;
        held(&celeriac, "bulk", &gate).await;
    }
    gate.entered(4).await;
    until("the others wait", async || pool(&celeriac).waiting == 16).await;
    assert_eq!((pool(&celeriac).slots, pool(&celeriac).running), (4, 4));
    // A queue that shares nothing runs beside them.
    let beside = add::s(1, 1).queue("apart").send(celeriac.client()).await.unwrap();
    assert_eq!(beside.get(LONG).await, Ok(2));
    gate.open();
    gate.left(20).await;
    assert_eq!((gate.gauge.most(), gate.gauge.all()), (4, 20));
    until_taken(&celeriac, 0).await;
    all_slots_work(&celeriac, 4).await;
    celeriac.shutdown().await.unwrap();
}

/// The queue that was promised most is served last otherwise: its target is the loosest, and it came last.
#[tokio::test]
async fn a_queue_has_what_it_is_guaranteed() {
    let celeriac = start(catalogue()).await;
    let gates: Vec<Arc<Gate>> = (0..4).map(|_| Gate::new()).collect();
    for gate in &gates {
        held(&celeriac, "bulk", gate).await;
        gate.entered(1).await;
    }
    let (others, guaranteed) = (Gate::new(), Gate::new());
    for _ in 0..3 {
        held(&celeriac, "urgent", &others).await;
        held(&celeriac, "guaranteed", &guaranteed).await;
    }
    until("all wait", async || pool(&celeriac).waiting == 6).await;
    gates[0].open();
    guaranteed.entered(1).await;
    assert_eq!(others.gauge.all(), 0);
    gates[1].open();
    others.entered(1).await;
    assert_eq!(guaranteed.gauge.all(), 1, "it has what it is guaranteed, and the promise decides again");
    for gate in gates.iter().chain([&others, &guaranteed]) {
        gate.open();
    }
    others.left(3).await;
    guaranteed.left(3).await;
    until_taken(&celeriac, 0).await;
    celeriac.shutdown().await.unwrap();
}

#[task(queue = "io", autoretry = false)]
async fn panics_in_a_slot() {
    panic!("bad: in a slot of a pool");
}

#[tokio::test]
async fn no_slot_is_lost_by_panics_and_revocations() {
    let celeriac = start(catalogue()).await;
    let mut bad = Vec::new();
    for n in 0..40 {
        let queue = if n % 2 == 0 { "urgent" } else { "bulk" };
        bad.push(panics_in_a_slot::s().queue(queue).send(celeriac.client()).await.unwrap());
    }
    for task in &bad {
        assert_eq!(record(task).await.state, State::Failure);
    }
    until_taken(&celeriac, 0).await;
    all_slots_work(&celeriac, 4).await;

    let gate = Gate::new();
    let mut tasks = Vec::new();
    for n in 0..12 {
        tasks.push(held(&celeriac, if n % 2 == 0 { "urgent" } else { "bulk" }, &gate).await);
    }
    gate.entered(4).await;
    // Those that wait go first, so that nothing takes the slots of those that run.
    until("the others wait", async || pool(&celeriac).waiting == 8).await;
    let runs: Vec<TaskId> = all_running(&celeriac).await.into_iter().map(|run| run.id).collect();
    tasks.sort_by_key(|task| runs.contains(task.id()));
    for task in &tasks {
        assert_eq!(task.revoke(true).await, Ok(true));
    }
    for task in &tasks {
        assert_eq!(record(task).await.state, State::Revoked);
    }
    until_taken(&celeriac, 0).await;
    assert_eq!(pool(&celeriac).waiting, 0);
    all_slots_work(&celeriac, 4).await;
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn no_slot_is_lost_by_pauses_and_other_sizes() {
    let celeriac = start(catalogue()).await;
    let gate = Gate::new();
    for _ in 0..6 {
        held(&celeriac, "urgent", &gate).await;
        held(&celeriac, "bulk", &gate).await;
    }
    gate.entered(4).await;
    celeriac.pause("urgent").await.unwrap();
    celeriac.resize("bulk", 1).await.unwrap();
    celeriac.resize_pool(Pool::Io, 6).unwrap();
    celeriac.resize("bulk", 9).await.unwrap();
    gate.entered(6).await;
    assert_eq!(pool(&celeriac).running, 6);
    // Fewer: what runs goes on, and nothing starts until it fits.
    celeriac.resize_pool(Pool::Io, 2).unwrap();
    celeriac.resume("urgent").await.unwrap();
    assert_eq!((pool(&celeriac).slots, pool(&celeriac).running), (2, 6));
    gate.open();
    gate.left(12).await;
    assert_eq!(gate.gauge.most(), 6);
    until_taken(&celeriac, 0).await;
    all_slots_work(&celeriac, 2).await;
    celeriac.resize_pool(Pool::Io, 4).unwrap();
    all_slots_work(&celeriac, 4).await;

    // A paused queue holds no slot, and what waits in it keeps its place.
    celeriac.pause("urgent").await.unwrap();
    let (paused, other) = (Gate::new(), Gate::new());
    for _ in 0..4 {
        held(&celeriac, "urgent", &paused).await;
        held(&celeriac, "bulk", &other).await;
    }
    other.entered(4).await;
    other.open();
    other.left(4).await;
    assert_eq!(paused.gauge.all(), 0);
    celeriac.resume("urgent").await.unwrap();
    paused.entered(4).await;
    paused.open();
    paused.left(4).await;
    until_taken(&celeriac, 0).await;
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn levers_that_do_not_fit_are_refused() {
    let celeriac = start(catalogue()).await;
    assert_eq!(celeriac.resize_pool(Pool::Io, 0), Err(ControlError::NoSlots));
    let error = celeriac.resize_pool(Pool::Cpu, 3).unwrap_err();
    assert_eq!(error, ControlError::NothingShared(Pool::Cpu));
    assert!(error.to_string().contains("set slots = ... in [pool.cpu] of the catalogue"), "{error}");
    for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = celeriac.set_tenant_weight("malawi", weight).unwrap_err();
        assert!(error.to_string().contains("is no weight of tenant `malawi`"), "{error}");
    }
    celeriac.set_tenant_weight("malawi", 2.0).unwrap();
    assert_eq!(celeriac.pools().len(), 1);
    celeriac.shutdown().await.unwrap();
}

/// One queue that shares no slots: its tenants share its workers all the same.
#[tokio::test]
async fn the_flood_of_a_tenant_does_not_keep_another_one_waiting() {
    let celeriac = start(Catalogue::new().with_queue(io_queue("flooded", 2))).await;
    let send = async |gate: &Gate, tenant: &str| {
        let call = hold::s(gate.name.clone()).queue("flooded").header(TENANT, tenant);
        call.send(celeriac.client()).await.unwrap()
    };
    let (first, flood, other) = (Gate::new(), Gate::new(), Gate::new());
    send(&first, "large").await;
    send(&first, "large").await;
    first.entered(2).await;
    for _ in 0..30 {
        send(&flood, "large").await;
    }
    send(&other, "small").await;
    until_status(&celeriac, "flooded", |status| status.ready == 31).await;
    first.open();
    // The runs of the flood end when this one has started, so it does not wait for them.
    other.entered(1).await;
    assert!(flood.gauge.all() <= 1, "{} of the flood started before it", flood.gauge.all());
    flood.open();
    other.open();
    flood.left(30).await;
    assert!(flood.gauge.most() <= 2, "{} ran at once", flood.gauge.most());
    until_status(&celeriac, "flooded", |status| (status.running, status.done) == (0, 33)).await;
    assert!(celeriac.pools().is_empty(), "the queue shares nothing with others");
    celeriac.shutdown().await.unwrap();
}

/// A slot is free, and the task of a tenant that leaves it to others waits: whoever asks is told so.
#[tokio::test]
async fn what_a_pool_keeps_for_others_is_told() {
    let catalogue = Catalogue::new()
        .with_pool(Pool::Io, PoolRow::new(2).with_room(1).with_reserve(0))
        .with_queue(io_queue("urgent", 4).with_target(Duration::from_secs(1)))
        .with_queue(io_queue("bulk", 4).with_target(HOUR));
    let celeriac = start(catalogue).await;
    let send = async |gate: &Gate, queue: &str, tenant: &str| {
        let call = hold::s(gate.name.clone()).queue(queue).header(TENANT, tenant);
        call.send(celeriac.client()).await.unwrap()
    };
    let (small, large) = (Gate::new(), Gate::new());
    send(&small, "bulk", "small").await;
    small.entered(1).await;
    send(&large, "urgent", "large").await;
    large.entered(1).await;
    let waits = send(&large, "urgent", "large").await;
    small.open();
    small.left(1).await;
    let room = HoldReason::Slots { why: SlotHold::Room { held: 1, of: 2 } };
    until("the pool says why", async || {
        let told = celeriac.explain(waits.id()).await.unwrap();
        told.reasons == [TaskReason::Held { hold: room.clone(), wait: None }]
    })
    .await;
    celeriac.resize_pool(Pool::Io, 4).unwrap();
    large.entered(2).await;
    large.open();
    large.left(2).await;
    celeriac.shutdown().await.unwrap();
}

async fn until_told(celeriac: &Celeriac, task: &AsyncResult<hold::Task>, reasons: &[TaskReason]) {
    until(&format!("{reasons:?}"), async || celeriac.explain(task.id()).await.unwrap().reasons == reasons)
        .await;
}

fn kept(why: SlotHold) -> TaskReason {
    TaskReason::Held { hold: HoldReason::Slots { why }, wait: None }
}

/// A task of which nobody knows how long it takes leaves the last slot to what is promised sooner. With more slots it starts.
#[tokio::test]
async fn the_reserve_is_named_until_there_are_more_slots() {
    let catalogue = Catalogue::new()
        .with_pool(Pool::Io, PoolRow::new(2).with_room(0).with_reserve(1))
        .with_queue(io_queue("urgent", 4).with_target(Duration::from_secs(1)))
        .with_queue(io_queue("bulk", 4).with_target(HOUR));
    let celeriac = start(catalogue).await;
    let gate = Gate::new();
    held(&celeriac, "bulk", &gate).await;
    gate.entered(1).await;
    let waits = held(&celeriac, "bulk", &gate).await;
    let reserved = SlotHold::Reserved { target: Duration::from_secs(1) };
    until_told(&celeriac, &waits, &[kept(reserved)]).await;
    celeriac.resize_pool(Pool::Io, 4).unwrap();
    gate.entered(2).await;
    gate.open();
    gate.left(2).await;
    celeriac.shutdown().await.unwrap();
}

/// The catalogue says that the tasks are short, and so the reserve is not kept from them, although none was measured.
#[tokio::test]
async fn what_the_catalogue_calls_short_may_use_the_reserve() {
    let bulk = io_queue("bulk", 4).with_target(HOUR).with_typical_duration("100ms");
    let catalogue = Catalogue::new()
        .with_pool(Pool::Io, PoolRow::new(2).with_room(0).with_reserve(1))
        .with_queue(io_queue("urgent", 4).with_target(Duration::from_secs(1)))
        .with_queue(bulk);
    let celeriac = start(catalogue).await;
    let gate = Gate::new();
    held(&celeriac, "bulk", &gate).await;
    held(&celeriac, "bulk", &gate).await;
    gate.entered(2).await;
    gate.open();
    gate.left(2).await;
    celeriac.shutdown().await.unwrap();
}

/// A tenant that has had more waits until the other one has had its turn.
#[tokio::test]
async fn a_share_that_is_used_up_is_named_until_the_other_tenant_has_had_its_turn() {
    let catalogue = Catalogue::new()
        .with_pool(Pool::Io, PoolRow::new(1).with_room(0).with_reserve(0))
        .with_queue(io_queue("bulk", 4).with_target(HOUR));
    let celeriac = start(catalogue).await;
    let send = async |gate: &Gate, tenant: &str| {
        let call = hold::s(gate.name.clone()).queue("bulk").header(TENANT, tenant);
        call.send(celeriac.client()).await.unwrap()
    };
    let (first, other, last) = (Gate::new(), Gate::new(), Gate::new());
    send(&first, "large").await;
    first.entered(1).await;
    let waits = send(&last, "large").await;
    send(&other, "small").await;
    until("both wait", async || pool(&celeriac).waiting == 2).await;
    first.open();
    other.entered(1).await;
    until_told(&celeriac, &waits, &[kept(SlotHold::OverShare), TaskReason::SlotsBusy { slots: 1 }]).await;
    other.open();
    last.entered(1).await;
    last.open();
    last.left(1).await;
    celeriac.shutdown().await.unwrap();
}

/// What comes last goes first, because it was promised sooner: whoever asks is told by this rule, and not by arrival. With the
/// slots that are missing, all of it starts.
#[tokio::test]
async fn what_goes_before_is_told_by_the_rule_of_the_pool() {
    let celeriac = start(catalogue()).await;
    let gate = Gate::new();
    for _ in 0..4 {
        held(&celeriac, "bulk", &gate).await;
    }
    gate.entered(4).await;
    let send = async |queue: &str| add::s(1, 2).queue(queue).send(celeriac.client()).await.unwrap();
    let (bulk, later) = (send("bulk").await, send("bulk").await);
    let urgent = send("urgent").await;
    until("all wait", async || pool(&celeriac).waiting == 3).await;
    let is_told = async |task: &AsyncResult<add::Task>, reasons: &[TaskReason]| {
        until(&format!("{reasons:?}"), async || {
            celeriac.explain(task.id()).await.unwrap().reasons == reasons
        })
        .await;
    };
    let behind = |count| TaskReason::Behind { ahead: BoundedCount::exactly(count), of_tenant: None };
    let (full, busy) = (TaskReason::QueueFull { workers: 4 }, TaskReason::SlotsBusy { slots: 4 });
    is_told(&urgent, std::slice::from_ref(&busy)).await;
    is_told(&bulk, &[full.clone(), behind(1), busy.clone()]).await;
    is_told(&later, &[full, behind(2), busy]).await;
    // A slot more is for the urgent one. Then the others want workers, and slots as well.
    celeriac.resize_pool(Pool::Io, 5).unwrap();
    assert_eq!(urgent.get(LONG).await, Ok(3));
    is_told(&bulk, &[TaskReason::QueueFull { workers: 4 }]).await;
    celeriac.resize("bulk", 5).await.unwrap();
    assert_eq!((bulk.get(LONG).await, later.get(LONG).await), (Ok(3), Ok(3)));
    gate.open();
    gate.left(4).await;
    until_taken(&celeriac, 0).await;
    celeriac.shutdown().await.unwrap();
}

#[task(queue = "io", rate_limit = "1/h")]
async fn once_an_hour() {}

/// A gate has the last word: what it holds takes no slot and does not hold up its line.
#[tokio::test]
async fn what_a_gate_holds_takes_no_slot() {
    let celeriac = start(catalogue()).await;
    for _ in 0..2 {
        once_an_hour::s().queue("bulk").send(celeriac.client()).await.unwrap();
    }
    let next = add::s(1, 2).queue("bulk").send(celeriac.client()).await.unwrap();
    assert_eq!(next.get(LONG).await, Ok(3));
    until_status(&celeriac, "bulk", |status| (status.running, status.held, status.done) == (0, 1, 2)).await;
    until_taken(&celeriac, 0).await;
    assert_eq!(pool(&celeriac).waiting, 1);
    all_slots_work(&celeriac, 4).await;
    celeriac.shutdown().await.unwrap();
}

/// The rows that elephants have worked on, by name, and whether they may end.
static ROWS: LazyLock<Mutex<HashMap<String, Vec<u64>>>> = LazyLock::new(Mutex::default);
static LET_GO: AtomicBool = AtomicBool::new(false);

fn work(name: &str, row: u64) -> usize {
    let mut rows = ROWS.lock().unwrap();
    let rows = rows.entry(name.to_owned()).or_default();
    rows.push(row);
    rows.len()
}

fn worked(name: &str) -> Vec<u64> {
    ROWS.lock().unwrap().get(name).cloned().unwrap_or_default()
}

/// Works until it is let go, so that nothing else ever starts on its slot unless it gives way.
#[task(queue = "io")]
async fn elephant(ctx: Context, name: String, first: u64) -> Result<u64, TaskError> {
    let mut row = first;
    while !LET_GO.load(Ordering::Acquire) {
        ctx.checkpoint(|| elephant::s(name.clone(), row))?;
        work(&name, row);
        row += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(row)
}

/// The same on a thread.
#[task(queue = "cpu")]
fn blocking_elephant(ctx: &Context, name: String, first: u64) -> Result<u64, TaskError> {
    let mut row = first;
    while !LET_GO.load(Ordering::Acquire) {
        ctx.checkpoint(|| blocking_elephant::s(name.clone(), row))?;
        work(&name, row);
        row += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(row)
}

/// One slot, which an elephant of each kind has, each in a runtime of its own.
#[tokio::test]
async fn an_elephant_gives_way_to_a_task_with_a_tight_promise_and_does_its_work_once() {
    let dir = tempfile::tempdir().unwrap();
    let queue =
        |name: &str, kind, target| QueueRow::new(name).with_pool(kind).with_workers(1).with_target(target);
    let program = |kind| {
        let catalogue = Catalogue::new()
            .with_pool(kind, PoolRow::new(1))
            .with_queue(queue("elephants", kind, HOUR))
            .with_queue(queue("mice", kind, Duration::from_millis(200)));
        quiet();
        Celeriac::builder().catalogue(catalogue).arbiters(2)
    };
    let on_loop = program(Pool::Io).in_memory().start().await.unwrap();
    let on_threads = program(Pool::Cpu).directory(dir.path()).start().await.unwrap();
    let io = elephant::s("io".into(), 0).queue("elephants").send(on_loop.client()).await.unwrap();
    let cpu =
        blocking_elephant::s("cpu".into(), 0).queue("elephants").send(on_threads.client()).await.unwrap();
    for (celeriac, name) in [(&on_loop, "io"), (&on_threads, "cpu")] {
        for mouse in 1..4 {
            until("the elephant is at work", async || worked(name).len() >= 10 * mouse).await;
            let mouse = add::s(1, 1).queue("mice").send(celeriac.client()).await.unwrap();
            assert_eq!(mouse.get(LONG).await, Ok(2));
        }
        assert_eq!(status_of(celeriac, "elephants").await.done, 0);
    }
    LET_GO.store(true, Ordering::Release);
    for (end, record, name) in
        [(io.get(LONG).await, record(&io).await, "io"), (cpu.get(LONG).await, record(&cpu).await, "cpu")]
    {
        let rows = worked(name);
        assert_eq!(end, Ok(rows.len() as u64), "{name}");
        assert!(rows.iter().copied().eq(0..rows.len() as u64), "{name}: each row once, in order: {rows:?}");
        assert_eq!((record.state, record.attempts), (State::Success, 1), "{name}: giving way is no attempt");
    }
    for celeriac in [on_loop, on_threads] {
        let status = status_of(&celeriac, "elephants").await;
        assert!(status.requeued >= 3, "{status:?}");
        celeriac.shutdown().await.unwrap();
    }
}
