//! Runtimes and tasks to build canvases of.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use celeriac::app::catalogue::{Pool, QueueRow};
use celeriac::{Builder, Celeriac, Context, TaskError, task};

/// Longer than anything takes, even on a slow machine.
pub const LONG: Duration = Duration::from_secs(120);

pub fn builder() -> Builder {
    let row = |name: &str| QueueRow::new(name).with_pool(Pool::Io).with_workers(4);
    Celeriac::builder().queue(row("default")).queue(row("other")).arbiters(1)
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

/// Waits until a condition holds that nothing signals.
pub async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < LONG, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

static NOTES: LazyLock<Mutex<HashMap<String, Vec<String>>>> = LazyLock::new(Mutex::default);

/// What was noted under a name.
pub fn notes(name: &str) -> Vec<String> {
    NOTES.lock().unwrap().get(name).cloned().unwrap_or_default()
}

/// Notes what it is given first.
#[task]
pub async fn note(what: serde_json::Value, name: String) {
    NOTES.lock().unwrap().entry(name).or_default().push(what.to_string());
}

#[task]
pub async fn add(a: i64, b: i64) -> i64 {
    a + b
}

#[task]
pub fn add_cpu(a: i64, b: i64) -> i64 {
    a + b
}

#[task]
pub async fn sum(all: Vec<i64>) -> i64 {
    all.iter().sum()
}

#[task]
pub async fn twice(n: i64) -> i64 {
    2 * n
}

#[task]
pub async fn none() {}

/// Who it is: its queue, its root and its parent.
#[task]
pub async fn who(ctx: Context) -> (String, Option<String>, Option<String>) {
    let workflow = ctx.message().workflow.as_deref().cloned().unwrap_or_default();
    let text = |id: Option<celeriac::TaskId>| id.map(|id| id.to_string());
    (ctx.queue().to_owned(), text(workflow.root_id), text(workflow.parent_id))
}

#[task]
pub async fn fail(why: String) -> Result<i64, TaskError> {
    Err(TaskError::permanent(why))
}
