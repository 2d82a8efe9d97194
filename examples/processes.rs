//! Tasks that loop for ever, abort, overflow their stack and take all memory, each in a child process of this program.
//! `cargo run --example processes` takes some seconds, and fails if anything is not as it should be.
//!
//! A child runs `main` as well, up to `start`, which does not return there. So what only one process may do comes behind it.

use std::time::{Duration, Instant};

use celeriac::actors::QueueStatus;
use celeriac::{Celeriac, Context, GetError, Pool, QueueRow, State, TaskError, task};

const PATIENCE: Duration = Duration::from_secs(60);

/// Computes without end, and asks nobody. It may take a second.
#[task(queue = "reports", time_limit = "1s")]
fn compute_for_ever() {
    loop {
        std::hint::spin_loop();
    }
}

/// Has a bug that ends the process, as one in a library in C does.
#[task(queue = "reports", max_retries = 1, default_retry_delay = "10ms")]
fn abort() {
    std::process::abort();
}

/// Calls itself until the stack is full.
#[task(queue = "reports", max_retries = 0)]
fn overflow(depth: u64) -> u64 {
    deeper(depth)
}

fn deeper(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { deeper(depth + 1) + frame[0] }
}

/// Takes memory until there is no more.
#[task(queue = "reports", max_retries = 0)]
fn allocate() {
    let mut all = Vec::new();
    loop {
        all.push(vec![1_u8; 1 << 20]);
    }
}

/// A neighbour of all of these, in another child of the same queue.
#[task(queue = "reports", max_retries = 0)]
fn write_letter(ctx: &Context, pages: u64) -> Result<u32, TaskError> {
    for page in 0..pages {
        ctx.check()?;
        ctx.progress(page, pages);
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(std::process::id())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let reports = QueueRow::new("reports")
        .with_pool(Pool::Process)
        .with_workers(2)
        .with_max_tasks_per_child(100)
        .with_memory_limit_per_child(512 << 20);
    let celeriac = Celeriac::builder().in_memory().queue(reports).start().await?;

    println!("Process {} has a queue with two child processes.", std::process::id());
    let letter = write_letter::delay(150).await?;
    let ends = [
        ("It computes for ever", compute_for_ever::delay().await?.untyped(), "TimeLimitExceeded", 1),
        ("It aborts", abort::delay().await?.untyped(), "WorkerLost", 2),
        ("It overflows its stack", overflow::delay(0).await?.untyped(), "WorkerLost", 1),
        ("It takes all memory", allocate::delay().await?.untyped(), "WorkerLost", 1),
    ];
    for (what, task, error_type, attempts) in ends {
        let Err(GetError::Ended(record)) = task.get::<celeriac::Json>(PATIENCE).await else {
            panic!("{what}, and must fail")
        };
        println!("{what}: {} after {} attempt(s): {}", record.state, record.attempts, record.errors[0]);
        assert_eq!((record.state, record.attempts), (State::Failure, attempts));
        assert_eq!(record.error_type.as_deref(), Some(error_type));
    }
    let child = letter.get(PATIENCE).await?;
    assert_ne!(child, std::process::id());
    println!("The letter was written all the same. Its process was {child}.");
    let status = until(&celeriac, |status| status.running == 0 && status.done == 1).await;
    println!(
        "{} runs were lost with their process, {} was ended at its limit, {} children were replaced, {} threads are stuck.",
        status.lost, status.timed_out, status.replaced, status.stuck
    );
    assert_eq!((status.lost, status.timed_out, status.replaced, status.stuck), (4, 1, 5, 0));
    assert!(celeriac.shutdown().await?.drained);
    Ok(())
}

/// Looks at the queue until it is as it should be.
async fn until(celeriac: &Celeriac, wanted: impl Fn(&QueueStatus) -> bool) -> QueueStatus {
    let start = Instant::now();
    loop {
        let status = celeriac.queue("reports").await;
        match status {
            Ok(status) if wanted(&status) => return status,
            // Where its event loop has no time to answer, it is asked again.
            status => assert!(start.elapsed() < PATIENCE, "it never came to be: {status:#?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
