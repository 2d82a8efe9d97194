//! The roles of other programs that this one plays.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use celeriac::{Celeriac, Context, Pool, QueueRow, State, task};

use crate::kit::{self, LONG, enter, is_open, record, row, status_of};
use crate::tasks::loops;

/// Plays a role.
pub fn play(role: &str) -> ExitCode {
    let gate = PathBuf::from(std::env::var_os("PROCESS_POOL_GATE").expect("the role has a gate"));
    match role {
        "victim" => kit::block_on(victim(gate)),
        "one_thread" => kit::block_on(one_thread(gate)),
        other => panic!("there is no role {other}"),
    }
    ExitCode::SUCCESS
}

/// Has a child that does not listen, until it is killed.
async fn victim(gate: PathBuf) {
    let celeriac = kit::builder().queue(row(1)).start().await.unwrap();
    loops::s(gate).send(celeriac.client()).await.unwrap();
    std::future::pending::<()>().await;
}

/// Holds a thread until the gate is open.
#[task(queue = "threads", max_retries = 0)]
fn holds_its_thread(ctx: &Context, gate: PathBuf) -> u32 {
    enter(&gate, "");
    while !is_open(&gate) {
        std::thread::sleep(Duration::from_millis(2));
    }
    ctx.attempt()
}

#[task(queue = "threads", max_retries = 0)]
fn needs_a_thread() -> u32 {
    7
}

/// Three workers have one thread: what waits for it does not run.
async fn one_thread(gate: PathBuf) {
    let threads = QueueRow::new("threads").with_pool(Pool::Cpu).with_workers(3);
    let celeriac = kit::builder().queue(threads).start().await.unwrap();
    let client = celeriac.client();
    // Long enough for a body that returns at once, where this process gets no time.
    let limit = Duration::from_secs(3);
    let first = holds_its_thread::s(gate.clone()).send(client.clone()).await.unwrap();
    kit::until("it has the thread", async || gate.join("entered").exists()).await;
    let second = needs_a_thread::s().time_limit(limit).send(client.clone()).await.unwrap();
    let revoked = needs_a_thread::s().time_limit(limit).send(client).await.unwrap();
    kit::until("all have begun, as far as the queue knows", async || running(&celeriac).await == 3).await;
    // The limit passes while they wait for the thread.
    let passed = std::time::Instant::now();
    kit::until("their limit has passed", async || passed.elapsed() > 2 * limit).await;
    assert!(revoked.revoke(false).await.unwrap());
    assert_eq!(running(&celeriac).await, 3, "nobody was given up");
    std::fs::write(gate.join("open"), "").unwrap();
    let (first, second) = (record(&first).await, record(&second).await);
    assert_eq!((first.state, second.state), (State::Success, State::Success), "{second:?}");
    let began = second.started_at.expect("it has run");
    assert!(began.since(first.started_at.expect("so has this")) > limit, "the line is no part of its run");
    assert_eq!(record(&revoked).await.state, State::Success, "it was told nothing before it began");
    celeriac.shutdown_within(LONG).await.unwrap();
}

async fn running(celeriac: &Celeriac) -> usize {
    status_of(celeriac, "threads").await.running
}
