//! The end of a runtime in the middle of work: within its grace, nothing lost, no attempt burnt.

use std::path::Path;
use std::time::Duration;

use celeriac::task::{Interrupt, TaskResult};
use celeriac::{AsyncResult, Celeriac, Context, EnqueueError, GetError, TaskError, TaskId, task};

use crate::kit::{Gate, LONG, add, embedded, hold, hold_cpu, memory, note, notes, until};

/// Cooperative: ends when told.
#[task(queue = "io")]
async fn listens(ctx: &Context, gate: String) -> Result<String, TaskError> {
    note(ctx.id(), format!("attempt {} redelivered {}", ctx.attempt(), ctx.is_redelivered()));
    let gate = Gate::named(&gate);
    tokio::select! {
        interrupt = ctx.interrupted() => {
            note(ctx.id(), interrupt.to_string());
            Err(interrupt.into())
        }
        () = gate.pass() => Ok("done".to_owned()),
    }
}

/// Cooperative, on a thread.
#[task(queue = "cpu")]
fn checks(ctx: &Context, gate: String) -> Result<String, TaskError> {
    note(ctx.id(), format!("attempt {} redelivered {}", ctx.attempt(), ctx.is_redelivered()));
    let gate = Gate::named(&gate);
    let _inside = gate.gauge.enter();
    while !gate.is_open() {
        ctx.check()?;
        std::thread::yield_now();
    }
    Ok("done".to_owned())
}

/// Deaf, on the event loop or on a thread: dropped and left behind.
#[task(queue = "io")]
async fn is_deaf(ctx: &Context, gate: String) -> String {
    note(ctx.id(), format!("attempt {} redelivered {}", ctx.attempt(), ctx.is_redelivered()));
    Gate::named(&gate).pass().await;
    "done".to_owned()
}

#[task(queue = "cpu")]
fn is_deaf_on_a_thread(ctx: &Context, gate: String) -> String {
    note(ctx.id(), format!("attempt {} redelivered {}", ctx.attempt(), ctx.is_redelivered()));
    Gate::named(&gate).pass_blocking();
    "done".to_owned()
}

/// Waits for a task of an earlier runtime.
async fn later(celeriac: &Celeriac, id: &TaskId) -> TaskResult {
    tokio::time::timeout(LONG, celeriac.client().wait(id)).await.unwrap().unwrap()
}

const FRESH: &str = "attempt 1 redelivered false";

#[tokio::test]
async fn unfinished_work_of_every_kind_runs_after_the_restart_and_burns_no_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac = embedded(dir.path()).await;
    let (gate, deaf) = (Gate::new(), Gate::new());
    let client = || celeriac.client();
    let listening = listens::s(gate.name.clone()).send(client()).await.unwrap();
    let checking = checks::s(gate.name.clone()).send(client()).await.unwrap();
    let held = is_deaf::s(deaf.name.clone()).send(client()).await.unwrap();
    let held_cpu = is_deaf_on_a_thread::s(deaf.name.clone()).send(client()).await.unwrap();
    let async_cpu = is_deaf::s(deaf.name.clone()).queue("threads").send(client()).await.unwrap();
    deaf.entered(3).await;
    gate.entered(1).await;
    until("the thread checks", async || gate.gauge.now() == 2).await;
    // More of everything waits behind them: in the queues' hands, in the broker, for its time.
    let fetched = add::s(1, 1).queue("cpu").send(client()).await.unwrap();
    let scheduled =
        add::s(2, 2).countdown(Duration::from_millis(1)).queue("cpu").send(client()).await.unwrap();

    let grace = Duration::from_secs(3);
    let report = celeriac.shutdown_within(grace).await.unwrap();
    assert!(!report.drained, "two bodies are deaf");
    assert_eq!(report.handed_back, 5, "those that heed it, and those that do not");
    assert!(report.took >= grace && report.took < grace + LONG, "{report:?}");
    assert_eq!(notes(listening.id()), [FRESH, &Interrupt::Shutdown.to_string()], "it was told");
    assert_eq!(
        deaf.gauge.now(),
        1,
        "the bodies that wait are dropped, the one that blocks its thread is left behind"
    );
    assert_eq!(gate.gauge.now(), 0);

    let celeriac = embedded(dir.path()).await;
    gate.open();
    deaf.open();
    for id in [listening.id(), checking.id(), held.id(), held_cpu.id(), async_cpu.id()] {
        let record = later(&celeriac, id).await;
        assert_eq!((record.result.as_deref(), record.attempts), (Some("\"done\""), 1), "{}", record.task);
        assert_eq!(notes(id).last().map(String::as_str), Some(FRESH), "{}", record.task);
        assert_eq!(notes(id).iter().filter(|note| *note == FRESH).count(), 2, "{}", record.task);
    }
    assert_eq!(later(&celeriac, fetched.id()).await.result.as_deref(), Some("2"));
    assert_eq!(later(&celeriac, scheduled.id()).await.result.as_deref(), Some("4"));
    assert!(celeriac.shutdown().await.unwrap().drained);
}

#[tokio::test]
async fn what_ends_within_the_grace_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac = embedded(dir.path()).await;
    let gate = Gate::new();
    let held = hold::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
    let held_cpu = hold_cpu::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
    gate.entered(2).await;
    let ending = tokio::spawn({
        let celeriac = celeriac.clone();
        async move { celeriac.shutdown_within(LONG).await }
    });
    until("it takes nothing new", async || {
        add::s(1, 1).send(celeriac.client()).await.err() == Some(EnqueueError::ShuttingDown)
    })
    .await;
    gate.open();
    let report = ending.await.unwrap().unwrap();
    assert!(report.drained && report.took < LONG / 2, "{report:?}");

    let celeriac = embedded(dir.path()).await;
    for id in [held.id(), held_cpu.id()] {
        assert_eq!(celeriac.client().result(id).await.unwrap().unwrap().result.as_deref(), Some("1"));
    }
    celeriac.shutdown().await.unwrap();
}

async fn after_the_end(celeriac: Celeriac) {
    let gate = Gate::new();
    let held = hold::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    let waiting = tokio::spawn({
        let held: AsyncResult<hold::Task> = held.clone();
        async move { held.get(LONG).await }
    });
    celeriac.shutdown_within(Duration::ZERO).await.unwrap();
    gate.left(1).await;
    assert_eq!(waiting.await.unwrap(), Err(GetError::ShutDown(held.id().clone())), "whoever waits is told");
    assert_eq!(add::s(1, 1).send(celeriac.client()).await.err(), Some(EnqueueError::ShuttingDown));
    assert_eq!(held.state().await, Err(GetError::ShutDown(held.id().clone())));
    assert_eq!(held.revoke(true).await, Err(GetError::ShutDown(held.id().clone())));
    let error = celeriac.queue("io").await.unwrap_err().to_string();
    assert!(error.contains("the runtime has shut down"), "{error}");
    let second = celeriac.shutdown().await.unwrap();
    assert_eq!(second.took, Duration::ZERO, "the second shutdown does nothing");
}

#[tokio::test]
async fn after_the_end_everything_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    after_the_end(memory().await).await;
    after_the_end(embedded(dir.path()).await).await;
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

async fn cycle(dir: &Path) {
    for celeriac in [memory().await, embedded(dir).await] {
        let sums = (0..10).map(|n| add::s(n, 1).send(celeriac.client()).into_future());
        for (n, sum) in futures_util::future::join_all(sums).await.into_iter().enumerate() {
            assert_eq!(sum.unwrap().get(LONG).await, Ok(n as i64 + 1));
        }
        assert!(celeriac.shutdown().await.unwrap().drained);
    }
}

/// Run alone in a process of its own, because other tests start threads as well.
#[tokio::test]
#[ignore = "counts the threads of the process; `threads_and_memory_come_back` runs it in one of its own"]
async fn twenty_cycles_in_a_process_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    cycle(dir.path()).await;
    let resident = crate::kit::resident();
    let before = least_threads().await;
    for _ in 0..20 {
        cycle(dir.path()).await;
    }
    // Idle blocking threads linger for a while.
    until(&format!("no more than the {before} threads"), async || threads() <= before).await;
    let grown = crate::kit::resident().saturating_sub(resident);
    println!("20 cycles: {before} threads before, {} after; {grown} kB more", threads());
    assert!(grown < 60_000, "{grown} kB more");
}

/// The least number of threads in three seconds.
async fn least_threads() -> usize {
    let mut lowest = threads();
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        lowest = lowest.min(threads());
    }
    lowest
}

#[test]
fn threads_and_memory_come_back() {
    crate::kit::alone("shutdown::twenty_cycles_in_a_process_of_their_own");
}
