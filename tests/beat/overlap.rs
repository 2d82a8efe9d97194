//! Ticks that meet the one before them, waiting or running.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use celeriac::core::calendar::Overlap;
use celeriac::{Celeriac, Context, task};
use tokio::sync::watch;

use crate::kit::{HOUR, builder, entry, io, now, ran, status, tick, until, write_down};

const INTERVAL: Duration = Duration::from_millis(20);

/// Bodies that stay until they are let out.
struct Gate {
    inside: AtomicUsize,
    most: AtomicUsize,
    open: watch::Sender<bool>,
}

impl Gate {
    fn new() -> Self {
        Self { inside: AtomicUsize::new(0), most: AtomicUsize::new(0), open: watch::Sender::new(false) }
    }

    async fn pass(&self) {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }

    async fn until_inside(&self, wanted: usize) {
        until("bodies are inside", async || self.inside.load(Ordering::SeqCst) >= wanted).await;
    }
}

static BUFFERED: std::sync::LazyLock<Gate> = std::sync::LazyLock::new(Gate::new);
static SKIPPED: std::sync::LazyLock<Gate> = std::sync::LazyLock::new(Gate::new);
static ALLOWED: std::sync::LazyLock<Gate> = std::sync::LazyLock::new(Gate::new);
static RESULTLESS: std::sync::LazyLock<Gate> = std::sync::LazyLock::new(Gate::new);

#[task(queue = "io")]
async fn buffered(ctx: Context, key: String) {
    write_down(&ctx, key);
    BUFFERED.pass().await;
}

#[task(queue = "io", ignore_result)]
async fn resultless(ctx: Context, key: String) {
    write_down(&ctx, key);
    RESULTLESS.pass().await;
}

#[task(queue = "io")]
async fn skipped(ctx: Context, key: String) {
    write_down(&ctx, key);
    SKIPPED.pass().await;
}

#[task(queue = "io")]
async fn allowed(ctx: Context, key: String) {
    write_down(&ctx, key);
    ALLOWED.pass().await;
}

async fn until_last_is_past(celeriac: &Celeriac, key: &str) {
    let now = now();
    until("more ticks came due", async || status(celeriac, key).await.last > now + 5 * INTERVAL).await;
}

/// One is held while one runs, and goes out as soon as that is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_is_buffered_behind_the_run() {
    let celeriac =
        builder().in_memory().periodic(entry::<buffered::Task>("buffered", INTERVAL)).start().await.unwrap();
    BUFFERED.until_inside(1).await;
    until("a tick is held", async || status(&celeriac, "buffered").await.held).await;
    assert_eq!(ran("buffered").len(), 1);
    BUFFERED.open.send_replace(true);
    until("the held one ran, and others", async || ran("buffered").len() >= 5).await;
    assert_eq!(BUFFERED.most.load(Ordering::SeqCst), 1, "runs do not overlap");
    celeriac.shutdown().await.unwrap();
}

/// Also where no result tells of the end of the run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_is_buffered_behind_a_run_that_keeps_no_result() {
    let entry = entry::<resultless::Task>("resultless", INTERVAL);
    let celeriac = builder().in_memory().periodic(entry).start().await.unwrap();
    RESULTLESS.until_inside(1).await;
    until("a tick is held", async || status(&celeriac, "resultless").await.held).await;
    RESULTLESS.open.send_replace(true);
    until("the held one ran, and others", async || ran("resultless").len() >= 3).await;
    assert_eq!(RESULTLESS.most.load(Ordering::SeqCst), 1, "runs do not overlap");
    celeriac.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skipped_while_one_runs() {
    let entry = entry::<skipped::Task>("skipped", INTERVAL).overlap(Overlap::Skip);
    let celeriac = builder().in_memory().periodic(entry).start().await.unwrap();
    SKIPPED.until_inside(1).await;
    // On a busy machine the first ticks may have expired before one of them started.
    let published = status(&celeriac, "skipped").await.published;
    until_last_is_past(&celeriac, "skipped").await;
    let now = status(&celeriac, "skipped").await;
    assert!(now.coalesced >= 4 && now.published == published && !now.held, "{now:?}");
    assert!(now.past.iter().any(|tick| tick.id.is_none()), "{now:?}");
    SKIPPED.open.send_replace(true);
    until("it goes on", async || ran("skipped").len() >= 3).await;
    assert_eq!(SKIPPED.most.load(Ordering::SeqCst), 1);
    celeriac.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn allowed_to_overlap() {
    let entry = entry::<allowed::Task>("allowed", INTERVAL).overlap(Overlap::Allow);
    let celeriac = builder().in_memory().periodic(entry).start().await.unwrap();
    ALLOWED.until_inside(3).await;
    ALLOWED.open.send_replace(true);
    celeriac.shutdown().await.unwrap();
}

/// Behind a queue that starts nothing, no more than one tick waits, whether it expires or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_piles_up_behind_a_block() {
    for (key, stays) in [("expiring", false), ("staying", true)] {
        let dir = tempfile::tempdir().unwrap();
        let celeriac = builder().directory(dir.path()).start().await.unwrap();
        celeriac.pause("io").await.unwrap();
        let entry = entry::<tick::Task>(key, INTERVAL);
        let entry = if stays { entry.expires(HOUR) } else { entry };
        celeriac.beat().put(entry).await.unwrap();
        until("ten ticks came due", async || {
            let now = status(&celeriac, key).await;
            let queue = io(&celeriac).await;
            // One, and for a moment the expired one that it replaces.
            assert!(queue.ready <= 2, "{} tasks wait", queue.ready);
            // One publish stands for all that came due while the machine was busy.
            now.published + now.coalesced >= 10 && (stays || now.published > 1)
        })
        .await;
        let now = status(&celeriac, key).await;
        // One that does not expire stands for all; one that does is replaced by the next.
        assert_eq!(now.published == 1, stays, "{now:?}");
        celeriac.beat().pause(key).await.unwrap();
        if stays {
            celeriac.resume("io").await.unwrap();
            until("the one that waited ran", async || ran(key).len() == 1).await;
        }
        celeriac.shutdown().await.unwrap();
    }
}
