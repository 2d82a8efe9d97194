//! Runtimes to test on, and ways to watch and hold the bodies that run on them.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, Once};
use std::time::{Duration, Instant};

use celeriac::actors::{QueueStatus, RunningTask};
use celeriac::app::{ControlError, Replies};
use celeriac::catalogue::{Pool, QueueRow};
use celeriac::task::{GetError, TaskResult};
use celeriac::{AsyncResult, Builder, Celeriac, Context, State, TaskId, task};
use tokio::sync::watch;

/// Longer than anything takes, even on a slow machine: who waits this long has found a bug.
pub const LONG: Duration = Duration::from_secs(120);

/// `io`: four workers on the event loop. `cpu` and `threads`: two on threads. `one`: one on
/// the event loop, and one more delivery in hand.
pub fn builder() -> Builder {
    quiet();
    Celeriac::builder()
        .queue(io_queue("io", 4))
        .queue(QueueRow::new("cpu").with_pool(Pool::Cpu).with_workers(2))
        .queue(io_queue("one", 1).with_prefetch(2))
        .queue(QueueRow::new("threads").with_pool(Pool::Cpu).with_workers(2))
        .arbiters(2)
}

pub fn io_queue(name: &str, workers: usize) -> QueueRow {
    QueueRow::new(name).with_pool(Pool::Io).with_workers(workers)
}

pub async fn memory() -> Celeriac {
    builder().in_memory().start().await.unwrap()
}

pub async fn embedded(dir: &Path) -> Celeriac {
    builder().directory(dir).start().await.unwrap()
}

/// Runs a test on both forms.
pub async fn on_both<F: Future<Output = ()>>(test: impl Fn(Celeriac) -> F) {
    let dir = tempfile::tempdir().unwrap();
    for celeriac in [memory().await, embedded(dir.path()).await] {
        test(celeriac.clone()).await;
        celeriac.shutdown().await.unwrap();
    }
}

/// The record of a task, when it is over.
pub async fn record<T: celeriac::task::Task>(result: &AsyncResult<T>) -> TaskResult {
    match result.get(LONG).await {
        Ok(_) => result.result().await.unwrap().expect("it was there a moment ago"),
        Err(GetError::Ended(record)) => *record,
        Err(other) => panic!("{other}"),
    }
}

/// Waits until a condition holds that nothing signals.
pub async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < LONG, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn until_state(id: &TaskId, celeriac: &Celeriac, state: State) {
    until(&format!("{id} is {state}"), async || celeriac.client().state(id).await.unwrap() == state).await;
}

/// Waits for a queue's counters, which follow a task's end by a moment.
pub async fn until_status(
    celeriac: &Celeriac,
    queue: &str,
    wanted: impl Fn(&QueueStatus) -> bool,
) -> QueueStatus {
    let start = Instant::now();
    loop {
        let status = status_of(celeriac, queue).await;
        if wanted(&status) {
            return status;
        }
        assert!(start.elapsed() < LONG, "the status never came to what it should be: {status:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A queue's counters as they are now. An event loop that has no time to answer is asked again.
pub async fn status_of(celeriac: &Celeriac, queue: &str) -> QueueStatus {
    let start = Instant::now();
    loop {
        match celeriac.queue(queue).await {
            Err(ControlError::NotAnswering(_)) if start.elapsed() < LONG => {}
            answer => return answer.unwrap(),
        }
    }
}

/// What runs now in all queues; likewise.
pub async fn all_running(celeriac: &Celeriac) -> Replies<RunningTask> {
    let start = Instant::now();
    loop {
        let running = celeriac.running().await.unwrap();
        if running.missing.is_empty() {
            return running;
        }
        assert!(start.elapsed() < LONG, "these do not answer: {:?}", running.missing);
    }
}

/// What bodies and hooks noted, by task id.
static NOTES: LazyLock<Mutex<HashMap<String, Vec<String>>>> = LazyLock::new(Mutex::default);

pub fn note(id: &TaskId, text: impl Into<String>) {
    NOTES.lock().unwrap().entry(id.as_str().to_owned()).or_default().push(text.into());
}

pub fn notes(id: &TaskId) -> Vec<String> {
    NOTES.lock().unwrap().get(id.as_str()).cloned().unwrap_or_default()
}

/// Counts the bodies inside, and the most that ever were inside together.
#[derive(Default)]
pub struct Gauge {
    now: AtomicUsize,
    most: AtomicUsize,
    all: AtomicUsize,
}

pub struct Inside<'a>(&'a Gauge);

impl Gauge {
    pub fn enter(&self) -> Inside<'_> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        self.all.fetch_add(1, Ordering::SeqCst);
        Inside(self)
    }

    pub fn now(&self) -> usize {
        self.now.load(Ordering::SeqCst)
    }

    pub fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    /// How many have entered since the start.
    pub fn all(&self) -> usize {
        self.all.load(Ordering::SeqCst)
    }

    /// Counts the most anew.
    pub fn reset(&self) {
        self.most.store(self.now(), Ordering::SeqCst);
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A door that bodies wait at. Bodies find it by its name, which goes into their arguments.
pub struct Gate {
    pub name: String,
    pub gauge: Gauge,
    entered: watch::Sender<usize>,
    left: watch::Sender<usize>,
    open: watch::Sender<bool>,
}

static GATES: LazyLock<Mutex<HashMap<String, Arc<Gate>>>> = LazyLock::new(Mutex::default);

impl Gate {
    pub fn new() -> Arc<Self> {
        let name = TaskId::new().to_string();
        let gate = Self {
            name: name.clone(),
            gauge: Gauge::default(),
            entered: watch::Sender::new(0),
            left: watch::Sender::new(0),
            open: watch::Sender::new(false),
        };
        let gate = Arc::new(gate);
        GATES.lock().unwrap().insert(name, Arc::clone(&gate));
        gate
    }

    pub fn named(name: &str) -> Arc<Self> {
        Arc::clone(&GATES.lock().unwrap()[name])
    }

    /// For bodies: in, and out when it is open or the body is dropped.
    pub async fn pass(&self) {
        let _left = Leaving(&self.left);
        let _inside = self.gauge.enter();
        self.entered.send_modify(|n| *n += 1);
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
    }

    pub fn pass_blocking(&self) {
        futures_executor::block_on(self.pass());
    }

    pub fn is_open(&self) -> bool {
        *self.open.borrow()
    }

    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Until so many bodies have come in.
    pub async fn entered(&self, bodies: usize) {
        reached(&self.entered, bodies).await;
    }

    /// Until so many bodies have gone, by whatever way.
    pub async fn left(&self, bodies: usize) {
        reached(&self.left, bodies).await;
    }
}

async fn reached(count: &watch::Sender<usize>, wanted: usize) {
    let mut count = count.subscribe();
    let reached = tokio::time::timeout(LONG, count.wait_for(|n| *n >= wanted)).await.map(|_| ());
    assert!(reached.is_ok(), "{} of {wanted} bodies came by", *count.borrow());
}

struct Leaving<'a>(&'a watch::Sender<usize>);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n += 1);
    }
}

/// Waits at a gate, deaf to all telling.
#[task(queue = "io")]
pub async fn hold(ctx: Context, gate: String) -> u32 {
    Gate::named(&gate).pass().await;
    ctx.attempt()
}

/// Waits at a gate on a thread, deaf to all telling.
#[task(queue = "cpu")]
pub fn hold_cpu(ctx: &Context, gate: String) -> u32 {
    Gate::named(&gate).pass_blocking();
    ctx.attempt()
}

/// The simplest task.
#[task(queue = "io")]
pub async fn add(a: i64, b: i64) -> i64 {
    a + b
}

/// The simplest task on a thread.
#[task(queue = "cpu")]
pub fn add_cpu(a: i64, b: i64) -> i64 {
    a + b
}

/// Panics on the runtime's threads are part of the tests, and nobody needs to read them.
pub fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let thread = std::thread::current();
            let ours = ["actix-rt", "blocking", "celeriac"];
            if !thread.name().is_some_and(|name| ours.iter().any(|prefix| name.starts_with(prefix))) {
                loud(panic);
            }
        }));
    });
}

/// Kilobytes of memory that this process has.
pub fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Runs an ignored test in a process of its own. Returns all that the process has printed.
pub fn alone(test: &str) -> String {
    let run = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    println!("{said}");
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
    said
}

/// What this process logs from now on. Only a test in a [process of its own](alone) may capture it.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Captures what is logged at this level or above, on all threads.
    pub fn capture(level: tracing::Level) -> Self {
        let log = Self::default();
        let into = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .with_writer(move || into.clone())
            .finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
        log
    }

    /// All of it.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
