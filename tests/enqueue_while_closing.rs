//! A task that still runs while the runtime shuts down, and enqueues what follows from it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use celeriac::task::Client;
use celeriac::{Celeriac, Context, TaskError, TaskId, task};

/// The body says that it runs, and waits to be let go.
static STARTED: Mutex<Option<Sender<()>>> = Mutex::new(None);
static LET_GO: Mutex<Option<Receiver<()>>> = Mutex::new(None);
static RUNS: AtomicU32 = AtomicU32::new(0);

#[task]
fn follow_up() -> u32 {
    42
}

/// Its attempt, so that a burnt one would show.
#[task(max_retries = 0)]
fn enqueues_another(ctx: &Context) -> Result<u32, TaskError> {
    RUNS.fetch_add(1, Ordering::SeqCst);
    let told = STARTED.lock().unwrap().take();
    if let Some(told) = told {
        told.send(()).unwrap();
        LET_GO.lock().unwrap().take().unwrap().recv().unwrap();
    }
    follow_up::s().id("follow-up").delay().wait()?;
    Ok(ctx.attempt())
}

#[tokio::test(flavor = "multi_thread")]
async fn is_put_off_and_goes_on_at_the_next_start() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let minute = Duration::from_secs(60);
    let start = || Celeriac::builder().directory(dir.path()).shutdown_grace(minute).start();

    let (started, is_started) = channel();
    let (release, is_let_go) = channel();
    *STARTED.lock().unwrap() = Some(started);
    *LET_GO.lock().unwrap() = Some(is_let_go);
    let celeriac = start().await.unwrap();
    enqueues_another::s().id("it").delay().await.unwrap();
    tokio::task::spawn_blocking(move || is_started.recv_timeout(minute)).await.unwrap().unwrap();

    // The refusal is the sign that the shutdown has begun.
    let closing = celeriac.clone();
    let shutdown = tokio::spawn(async move { closing.shutdown().await });
    while follow_up::s().send(celeriac.client()).await.is_ok() {
        tokio::task::yield_now().await;
    }
    release.send(()).unwrap();
    assert!(shutdown.await.unwrap().unwrap().drained);
    assert_eq!(RUNS.load(Ordering::SeqCst), 1);

    let celeriac = start().await.unwrap();
    let client: std::sync::Arc<dyn Client> = celeriac.client();
    let ended = |id| {
        let (client, id) = (client.clone(), TaskId::from(id));
        async move { tokio::time::timeout(minute, client.wait(&id)).await.unwrap().unwrap() }
    };
    let record = ended("it").await;
    assert_eq!((record.state.as_str(), record.result.as_deref()), ("SUCCESS", Some("1")), "{record:?}");
    assert_eq!(ended("follow-up").await.result.as_deref(), Some("42"));
    assert_eq!(RUNS.load(Ordering::SeqCst), 2);
    celeriac.shutdown().await.unwrap();
}
