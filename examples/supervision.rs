//! Watch it heal: tasks that panic, workers that cannot start, a computation that outlives its time limit.
//! `cargo run --example supervision` takes about three seconds, and fails if anything is not as it should be.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use celeriac::actors::QueueStatus;
use celeriac::catalogue::{Pool, QueueRow};
use celeriac::{Celeriac, Context, GetError, State, TaskId, task};

const PATIENCE: Duration = Duration::from_secs(60);

/// Panics for some users, for one of them only the first time.
#[task(queue = "mail", max_retries = 2, default_retry_delay = 0.2)]
async fn send_mail(ctx: &Context, user: String) -> String {
    match (user.as_str(), ctx.attempt()) {
        ("mallory", _) => panic!("mallory's address makes the parser panic"),
        ("eve", 1) => panic!("a bug that shows only sometimes"),
        (_, attempt) => format!("sent to {user} at attempt {attempt}"),
    }
}

/// Needs the database, which its workers open when they start.
#[task(queue = "imports")]
async fn import_cases(rows: u32) -> u32 {
    rows
}

/// Hangs in a call that does not return, deaf to everything, and is allowed half a second.
#[task(queue = "reports", time_limit = "500ms")]
fn rebuild_everything() -> String {
    while !DISK_ANSWERS.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(20));
    }
    "a report that nobody waits for any more".into()
}

#[task(queue = "reports")]
fn rebuild_one_table(name: String) -> String {
    format!("{name} rebuilt")
}

static DATABASE_IS_UP: AtomicBool = AtomicBool::new(false);
static DISK_ANSWERS: AtomicBool = AtomicBool::new(false);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    std::panic::set_hook(Box::new(|_| {})); // the story below tells of them
    let celeriac = Celeriac::builder()
        .queue(QueueRow::new("mail").with_pool(Pool::Io).with_workers(3))
        .queue(QueueRow::new("reports").with_pool(Pool::Cpu).with_workers(1))
        .queue(
            QueueRow::new("imports")
                .with_pool(Pool::Io)
                .with_workers(2)
                .with_max_restarts(3)
                .with_restart_window(Duration::from_secs(2)),
        )
        .arbiters(1) // all queues on one event loop: what hurts one could hurt the others
        .in_memory()
        .on_worker_start(|queue, _| {
            let can_work = queue != "imports" || DATABASE_IS_UP.load(Ordering::SeqCst);
            assert!(can_work, "the database refuses connections");
        })
        .start()
        .await?;
    let story = Story { celeriac: celeriac.clone(), start: Instant::now() };

    story.tell("An import is enqueued, but the workers of `imports` cannot start.");
    let import = import_cases::delay(1000).await?;
    panics(&story).await?;
    outlived_limit(&story).await?;
    halted_queue(&story, import.id()).await?;
    late_return(&story).await;
    summary(&story).await?;
    assert!(celeriac.shutdown().await?.drained);
    Ok(())
}

/// A panic costs one attempt of one task.
async fn panics(story: &Story) -> Result<(), Box<dyn std::error::Error>> {
    story.tell("Four mails go out; mallory's panics whenever it is tried, eve's only once.");
    let mut mails = Vec::new();
    for user in ["alice", "mallory", "eve", "bob"] {
        mails.push((user, send_mail::delay(user.into()).await?));
    }
    for (user, mail) in mails {
        match mail.get(PATIENCE).await {
            Ok(sent) => {
                story.tell(&format!("  {sent}"));
                assert_eq!(sent, format!("sent to {user} at attempt {}", if user == "eve" { 2 } else { 1 }));
            }
            Err(GetError::Ended(record)) => {
                story.tell(&format!(
                    "  {user}: {} after {} attempts: {}",
                    record.state, record.attempts, record.errors[0]
                ));
                assert_eq!((user, record.state, record.attempts), ("mallory", State::Failure, 3));
                assert_eq!(record.errors, ["mallory's address makes the parser panic"]);
            }
            Err(other) => return Err(other.into()),
        }
    }
    let mail = story.until("mail", |s| s.panics == 4 && s.running == 0).await;
    story.tell(&format!(
        "  4 panics, {} workers replaced; `mail` has its {} workers.",
        mail.replaced, mail.workers
    ));
    assert_eq!((mail.replaced, mail.done, mail.failed, mail.halted), (4, 3, 1, None));
    Ok(())
}

/// A hard limit gives the slot back, even where the body cannot be stopped.
async fn outlived_limit(story: &Story) -> Result<(), Box<dyn std::error::Error>> {
    story.tell("A report starts on the only worker of `reports`; it may take 500 ms, and hangs.");
    let everything = rebuild_everything::delay().await?;
    let next = rebuild_one_table::delay("cases".into()).await?;
    let Err(GetError::Ended(record)) = everything.get(PATIENCE).await else { panic!("it must fail") };
    story.tell(&format!("  {}: {}", record.state, record.errors[0]));
    assert_eq!((record.state, record.error_type.as_deref()), (State::Failure, Some("TimeLimitExceeded")));
    let rebuilt = next.get(PATIENCE).await?;
    let reports = story.celeriac.queue("reports").await?;
    story.tell(&format!("  Behind it, \"{rebuilt}\", while {} thread is stuck in the other.", reports.stuck));
    assert_eq!((rebuilt.as_str(), reports.stuck, reports.refused), ("cases rebuilt", 1, 0));
    Ok(())
}

/// A queue whose workers cannot start stops trying so hard, says why, and heals.
async fn halted_queue(story: &Story, import: &TaskId) -> Result<(), Box<dyn std::error::Error>> {
    let imports = story.until("imports", |s| s.halted.is_some()).await;
    story.tell(&format!("`imports` has halted: {}", imports.halted.unwrap_or_default()));
    story.tell("  The other queues have not noticed. Now the database comes up.");
    assert!(!story.celeriac.client().state(import).await?.is_finished());
    DATABASE_IS_UP.store(true, Ordering::SeqCst);
    let imports = story.until("imports", |s| s.done == 1).await;
    let record = story.celeriac.client().wait(import).await?;
    story.tell(&format!(
        "  `imports` has healed, and its task ran: {} after {} attempt.",
        record.state, record.attempts
    ));
    assert_eq!((record.state, record.attempts, imports.halted), (State::Success, 1, None));
    Ok(())
}

/// What a body returns after it was given up changes nothing.
async fn late_return(story: &Story) {
    DISK_ANSWERS.store(true, Ordering::SeqCst);
    let reports = story.until("reports", |s| s.stuck == 0).await;
    story.tell(
        "The report that hung has come back at last. Its task has long failed, so its return was refused.",
    );
    assert_eq!((reports.refused, reports.done, reports.failed), (1, 1, 1));
}

async fn summary(story: &Story) -> Result<(), Box<dyn std::error::Error>> {
    story.tell("In the end:");
    println!("  queue    workers running done failed retried panics replaced timed-out refused stuck halted");
    for s in story.celeriac.queues().await?.iter().filter(|s| s.name != "celery") {
        println!(
            "  {:<8} {:>7} {:>7} {:>4} {:>6} {:>7} {:>6} {:>8} {:>9} {:>7} {:>5} {:>6}",
            s.name,
            s.workers,
            s.running,
            s.done,
            s.failed,
            s.retried,
            s.panics,
            s.replaced,
            s.timed_out,
            s.refused,
            s.stuck,
            if s.halted.is_some() { "yes" } else { "no" },
        );
        assert_eq!((s.running, s.ready, s.scheduled, s.stuck, &s.halted), (0, 0, 0, 0, &None), "{}", s.name);
    }
    Ok(())
}

struct Story {
    celeriac: Celeriac,
    start: Instant,
}

impl Story {
    fn tell(&self, text: &str) {
        println!("{:4.1} s  {text}", self.start.elapsed().as_secs_f64());
    }

    /// Looks at a queue until it is as it should be.
    async fn until(&self, queue: &str, wanted: impl Fn(&QueueStatus) -> bool) -> QueueStatus {
        let start = Instant::now();
        loop {
            let status = self.celeriac.queue(queue).await.expect("the queue answers");
            if wanted(&status) {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "it never came to be: {status:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
