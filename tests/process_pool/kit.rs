//! Runtimes with child processes, and ways to hold bodies that run in another process.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use celeriac::actors::QueueStatus;
use celeriac::app::ControlError;
use celeriac::task::{GetError, Task, TaskResult};
use celeriac::{AsyncResult, Builder, Celeriac, Pool, QueueRow};

/// Longer than anything takes, even on a slow machine: who waits this long has found a bug.
pub const LONG: Duration = Duration::from_secs(120);

/// The queue of the tasks here.
pub const QUEUE: &str = "processes";

/// What tasks take from the program that they run in.
pub struct Greeting(pub String);

/// The builder of this program, as parent and as child.
pub fn builder() -> Builder {
    Celeriac::builder()
        .in_memory()
        .arbiters(2)
        .data(Greeting(format!("hello from {}", std::process::id())))
        .on_worker_start(|queue, _| assert!(queue != "broken", "there is no database"))
}

/// The queue of the tasks here, with so many children.
pub fn row(workers: usize) -> QueueRow {
    QueueRow::new(QUEUE).with_pool(Pool::Process).with_workers(workers)
}

/// Runs a case on a runtime with this queue, and sees that no child is left of it.
pub fn with_queue<F: Future<Output = ()>>(row: QueueRow, case: impl FnOnce(Celeriac) -> F) {
    block_on(async {
        let celeriac = builder().queue(row).start().await.expect("it starts");
        case(celeriac.clone()).await;
        celeriac.shutdown().await.expect("it shuts down");
        until("no child is left", async || children().is_empty()).await;
    });
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

/// Is a child of the pool: this does not return. It starts as any program does.
pub fn serve() -> ! {
    let started = block_on(builder().start());
    panic!("a child does not start: {:?}", started.err())
}

/// The record of a task, when it is over.
pub async fn record<T: Task>(result: &AsyncResult<T>) -> TaskResult {
    match result.get(LONG).await {
        Ok(_) => result.result().await.expect("it is read").expect("it was there a moment ago"),
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

/// A queue's counters as they are now. An event loop that has no time to answer is asked again.
pub async fn status_of(celeriac: &Celeriac, queue: &str) -> QueueStatus {
    let start = Instant::now();
    loop {
        match celeriac.queue(queue).await {
            Err(ControlError::NotAnswering(_)) if start.elapsed() < LONG => {}
            answer => return answer.expect("it answers"),
        }
    }
}

/// Waits for the queue's counters, which follow a task's end by a moment.
pub async fn until_status(celeriac: &Celeriac, wanted: impl Fn(&QueueStatus) -> bool) -> QueueStatus {
    let start = Instant::now();
    loop {
        let status = status_of(celeriac, QUEUE).await;
        if wanted(&status) {
            return status;
        }
        assert!(start.elapsed() < LONG, "the status never came to what it should be: {status:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The children of this process that there are, those included that nobody has waited for.
pub fn children() -> Vec<u32> {
    let own = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").expect("a Linux").flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| stat(*id).is_some_and(|stat| stat[1] == own)).collect()
}

/// Whether a process runs: one that has ended may wait for its parent to look.
pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| stat[0] != "Z" && stat[0] != "X")
}

/// The state of a process and the id of its parent.
fn stat(pid: u32) -> Option<[String; 2]> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, behind_the_name) = stat.rsplit_once(')')?;
    let mut fields = behind_the_name.split_whitespace().map(str::to_owned);
    Some([fields.next()?, fields.next()?])
}

/// A door that bodies in other processes wait at: two files.
pub struct Gate {
    dir: tempfile::TempDir,
}

impl Gate {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    /// How bodies find it.
    pub fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    pub fn open(&self) {
        std::fs::write(self.dir.path().join("open"), "").expect("it is written");
    }

    /// Until a body has come, with what it has said.
    pub async fn entered(&self) -> String {
        let said = self.dir.path().join("entered");
        until("a body comes in", async || said.exists()).await;
        std::fs::read_to_string(said).expect("it is there")
    }

    /// Until the next body comes, and not one before.
    pub fn reset(&self) {
        std::fs::remove_file(self.dir.path().join("entered")).expect("one was there");
    }
}

/// For bodies: says that it is in.
pub fn enter(gate: &Path, says: &str) {
    // It appears whole.
    let aside = gate.join(format!("aside-{}", std::process::id()));
    std::fs::write(&aside, says).expect("it is written");
    std::fs::rename(aside, gate.join("entered")).expect("it is moved");
}

/// For bodies: whether the gate is open.
pub fn is_open(gate: &Path) -> bool {
    gate.join("open").exists()
}
