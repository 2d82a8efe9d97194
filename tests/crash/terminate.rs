//! SIGTERM: the program ends within its grace, and what it had not finished runs later with no attempt burnt.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use celeriac::{Context, TaskError, TaskId, task};
use rustix::process::Signal;
use tokio::sync::Notify;

use crate::book::Book;
use crate::child::{Child, Failure, Orders, emptied, say, until_signal};
use crate::ledger::{How, Line, Reader};
use crate::process::{Home, PATIENCE};
use crate::tasks::{Kind, MANY_PANICS, Run};
use crate::workload::{Call, Numbers, enqueue, watch};

/// The children's grace is 2 s. A child that waits for tasks that are held so long ends too late for the parent.
const HELD: Duration = Duration::from_secs(5 * PATIENCE.as_secs());

/// Tasks of each sort: on the loop, on threads and attentive, on threads and deaf.
const ON_LOOP: u64 = 8;
const ATTENTIVE: u64 = 2;
const DEAF: u64 = 2;
const STARTED_FIRST: u64 = ON_LOOP + ATTENTIVE + DEAF;
/// Tasks that have no worker when the signal comes.
const BEHIND: u64 = 30;

static STARTED: AtomicU64 = AtomicU64::new(0);
static ALL_STARTED: Notify = Notify::const_new();

fn begin(ctx: &Context, n: u64) -> (Run, bool) {
    let run = Run::start(ctx, n, 0);
    if STARTED.fetch_add(1, Ordering::SeqCst) + 1 == STARTED_FIRST {
        ALL_STARTED.notify_one();
    }
    (run, std::env::var_os("CRASH_HOLD").is_some())
}

#[task(queue = "io")]
async fn on_loop(ctx: Context, n: u64) {
    let (run, hold) = begin(&ctx, n);
    if hold {
        tokio::time::sleep(HELD).await;
    }
    run.end(How::Value);
}

#[task(queue = "cpu")]
fn attentive(ctx: &Context, n: u64) -> Result<(), TaskError> {
    let (run, hold) = begin(ctx, n);
    let end = Instant::now() + HELD;
    while hold && Instant::now() < end {
        ctx.check()?;
        std::thread::sleep(Duration::from_millis(2)); // stands for work
    }
    run.end(How::Value);
    Ok(())
}

#[task(queue = "cpu")]
fn deaf(ctx: &Context, n: u64) {
    let (run, hold) = begin(ctx, n);
    if hold {
        std::thread::sleep(HELD);
    }
    run.end(How::Value);
}

/// Enqueues if it is the first life, and works. The second drains.
pub async fn child(child: Child) -> Result<(), Failure> {
    let celeriac = child.builder().start().await?;
    let id = |n: u64| format!("work-{n}");
    if child.life > 1 {
        emptied(&celeriac).await?;
        for n in 0..STARTED_FIRST + BEHIND {
            watch(celeriac.client(), n, TaskId::from(id(n))).await;
        }
        celeriac.shutdown().await?;
        return Ok(());
    }
    for n in 0..ON_LOOP {
        on_loop::s(n).id(id(n)).delay().await?;
    }
    for n in ON_LOOP..ON_LOOP + ATTENTIVE {
        attentive::s(n).id(id(n)).delay().await?;
    }
    for n in ON_LOOP + ATTENTIVE..STARTED_FIRST {
        deaf::s(n).id(id(n)).delay().await?;
    }
    ALL_STARTED.notified().await;
    for n in STARTED_FIRST..STARTED_FIRST + BEHIND {
        on_loop::s(n).id(id(n)).delay().await?;
    }
    until_signal(&celeriac, "working").await
}

/// Sends the signals to a child that works, and checks its end and what follows.
fn end_with(signals: usize) {
    let mut home = Home::new();
    let first = home.spawn_with("terminate", "", |command| command.env("CRASH_HOLD", "1"));
    first.expect("working");
    let begin = Instant::now();
    for _ in 0..signals {
        first.signal(Signal::TERM);
    }
    let death = first.death();
    death.assert_clean();
    let took = begin.elapsed();
    println!("    ended {:.1} s after SIGTERM, grace 2 s", took.as_secs_f64());
    home.spawn("terminate", "").death().assert_clean();
    let lines = Reader::open(&home.ledger()).lines();
    let mut starts: HashMap<u64, Vec<(u32, bool)>> = HashMap::new();
    let mut records = 0;
    for line in &lines {
        match line {
            Line::Start { n, attempt, redelivered, .. } => {
                starts.entry(*n).or_default().push((*attempt, *redelivered))
            }
            Line::Seen { n, state, attempts, .. } => {
                records += 1;
                assert_eq!((state.as_str(), *attempts), ("SUCCESS", 1), "task {n}");
            }
            _ => {}
        }
    }
    assert_eq!(records, STARTED_FIRST + BEHIND);
    for n in 0..STARTED_FIRST {
        assert_eq!(
            starts[&n],
            [(1, false); 2],
            "task {n} was interrupted and runs again as if for the first time"
        );
    }
    for n in STARTED_FIRST..STARTED_FIRST + BEHIND {
        assert_eq!(starts[&n], [(1, false)], "task {n} had not started");
    }
}

pub fn in_the_middle_of_work() {
    end_with(1);
}

pub fn twice() {
    end_with(2);
}

const PANICS: u64 = 500;
/// Where they run.
const QUEUES: [&str; 2] = ["io2", "cpu"];

/// Enqueues tasks that panic, on the loop and on threads, and says so when they have begun to.
pub async fn panicking_child(child: Child) -> Result<(), Failure> {
    let celeriac = child.builder().start().await?;
    let numbers = Numbers::of_life(child.life);
    for queue in QUEUES {
        celeriac.pause(queue).await?;
    }
    for _ in 0..PANICS {
        let _ = enqueue(numbers.next(), Kind::Panic, Call::default(), 0).await;
    }
    tokio::spawn(async {
        MANY_PANICS.notified().await;
        say("panicking");
    });
    for queue in QUEUES {
        celeriac.resume(queue).await?;
    }
    until_signal(&celeriac, "listening").await
}

pub fn among_panics() {
    let mut home = Home::new();
    let first = home.spawn("panics", "");
    first.expect_all(["listening", "panicking"]);
    let begin = Instant::now();
    first.signal(Signal::TERM);
    first.death().assert_clean();
    let took = begin.elapsed();
    let mut reader = Reader::open(&home.ledger());
    let mut book = Book::default();
    book.read(&mut reader);
    let before = book.totals.starts;
    let orders = Orders { ask: book.to_ask(usize::MAX), ..Orders::default() };
    home.spawn("drain", &orders.line()).death().assert_clean();
    book.read(&mut reader);
    book.close();
    book.assert_kept();
    println!(
        "    {before} of {} runs before SIGTERM, which took {:.1} s",
        book.totals.starts,
        took.as_secs_f64()
    );
    assert_eq!((book.totals.acked, book.totals.seen), (PANICS, PANICS));
    assert_eq!(
        book.totals.starts,
        PANICS * 2,
        "each ran twice, as its one retry says, and no run was lost or added"
    );
    assert_eq!(book.totals.reruns, 0);
}
