//! The tasks of this program.

use std::path::PathBuf;
use std::time::Duration;

use celeriac::soil::Download;
use celeriac::{Context, Data, Signature, TaskError, task};
use futures_util::FutureExt;

use crate::kit::{Greeting, LONG, enter, is_open};

const PAUSE: Duration = Duration::from_millis(2);

/// The process that runs it.
#[task(queue = "processes", max_retries = 0)]
pub fn pid() -> u32 {
    std::process::id()
}

/// Logs so many lines, and fails.
#[task(queue = "processes", max_retries = 0)]
pub fn talks(lines: u32) -> Result<(), TaskError> {
    for line in 0..lines {
        tracing::info!("line {line}");
    }
    Err(TaskError::permanent("no more to say"))
}

/// Logs a line, and waits at a gate, deaf to all telling.
#[task(queue = "processes", max_retries = 0)]
pub fn talks_and_waits(gate: PathBuf) {
    tracing::info!("on the way");
    enter(&gate, "");
    while !is_open(&gate) {
        std::thread::sleep(PAUSE);
    }
}

/// Waits at a gate, deaf to all telling.
#[task(queue = "processes", max_retries = 0)]
pub fn waits(gate: PathBuf) -> u32 {
    enter(&gate, "");
    while !is_open(&gate) {
        std::thread::sleep(PAUSE);
    }
    std::process::id()
}

/// Waits at a gate, and ends when it is told to.
#[task(queue = "processes", max_retries = 0)]
pub fn listens(ctx: &Context, gate: PathBuf) -> Result<u32, TaskError> {
    enter(&gate, "");
    while !is_open(&gate) {
        ctx.check()?;
        std::thread::sleep(PAUSE);
    }
    Ok(std::process::id())
}

/// Waits at a gate, and goes on later if its slot is wanted. Its value is how often it was.
#[task(queue = "processes", max_retries = 0)]
pub fn gives_way(ctx: &Context, gate: PathBuf, times: u32) -> Result<u32, TaskError> {
    enter(&gate, "");
    while !is_open(&gate) {
        ctx.checkpoint(|| gives_way::s(gate.clone(), times + 1))?;
        std::thread::sleep(PAUSE);
    }
    Ok(times)
}

/// Waits for ever, as an async body does.
#[task(queue = "processes", max_retries = 0)]
pub async fn sleeps(gate: PathBuf) {
    enter(&gate, "");
    std::future::pending::<()>().await;
}

/// Starts another process, and computes without end.
#[task(queue = "processes", max_retries = 0)]
pub fn loops(gate: PathBuf) {
    let sleep = std::process::Command::new("sleep").arg("1000").spawn().expect("it starts");
    enter(&gate, &format!("{} {}", std::process::id(), sleep.id()));
    std::mem::forget(sleep);
    loop {
        std::hint::spin_loop();
    }
}

/// Starts another process and leaves it behind.
#[task(queue = "processes", max_retries = 0)]
pub fn leaves_behind() -> Result<u32, TaskError> {
    let sleep = std::process::Command::new("sleep").arg("1000").spawn()?;
    let pid = sleep.id();
    std::mem::forget(sleep);
    Ok(pid)
}

/// Ends its process.
#[task(queue = "processes", max_retries = 1, default_retry_delay = "1ms")]
pub fn dies(how: String) {
    use rustix::process::{Signal, getpid, kill_process};
    match how.as_str() {
        "abort" => std::process::abort(),
        "exit" => std::process::exit(3),
        // The first one only takes away what the standard library does about it.
        "segfault" => loop {
            kill_process(getpid(), Signal::SEGV).expect("it is sent");
        },
        "kill" => loop {
            kill_process(getpid(), Signal::KILL).expect("it is sent");
        },
        "overflow" => println!("{}", deeper(0)),
        "allocate" => {
            let mut all = Vec::new();
            loop {
                all.push(vec![1_u8; 1 << 20]);
            }
        }
        other => panic!("how is one to die of {other}?"),
    }
}

fn deeper(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { deeper(depth + 1) + frame[0] }
}

/// Panics.
#[task(queue = "processes", max_retries = 0)]
pub fn panics() {
    panic!("process {}", std::process::id());
}

/// Keeps so many MiB for ever.
#[task(queue = "processes", max_retries = 0)]
pub fn leaks(mebibytes: usize) -> u32 {
    std::mem::forget(vec![1_u8; mebibytes << 20]);
    std::process::id()
}

/// Does much of what a body can.
#[task(queue = "processes", max_retries = 0)]
pub async fn reports(
    ctx: Context,
    greeting: Data<Greeting>,
    gate: PathBuf,
) -> Result<(String, String, u32), TaskError> {
    ctx.progress(3, 10);
    ctx.progress_note("packing");
    ctx.send_event("task-mark", serde_json::json!({ "pages": 7 }))?;
    enter(&gate, "");
    while !is_open(&gate) {
        tokio::time::sleep(PAUSE).await;
    }
    ctx.update_state("CLOSING", serde_json::json!({ "worker": ctx.worker() }))?;
    let sent = pid::delay().await?;
    let other = sent.get(LONG).await?;
    Ok((greeting.0.clone(), sent.id().to_string(), other))
}

/// Makes three calls together, and two that have one id. Tells the ids of the three, and why the two are refused.
#[task(queue = "processes", max_retries = 0)]
pub async fn sends_many() -> Result<(Vec<String>, String), TaskError> {
    let sent = pid::delay_many([(), (), ()]).await?;
    let refused = Signature::delay_many(["same", "same"].map(|id| pid::s().id(id))).await;
    let ids = sent.iter().map(|result| result.id().to_string()).collect();
    Ok((ids, refused.err().map(|error| error.to_string()).unwrap_or_default()))
}

/// The same by a plain body, whose calls block.
#[task(queue = "processes", max_retries = 0)]
pub fn reports_plainly(ctx: &Context, greeting: Data<Greeting>) -> Result<(String, u32, bool), TaskError> {
    let permit = ctx.lock("plain").acquire_blocking()?;
    ctx.expose_download_blocking(Download::from_bytes("a,b\n").name("plain.csv"))?;
    let sent = pid::delay().wait()?;
    let other = tokio::runtime::Handle::current().block_on(sent.get(LONG))?;
    Ok((greeting.0.clone(), other, permit.is_guarded() && permit.token() > 0))
}

/// Sends so many events in a row, and ends.
#[task(queue = "processes", max_retries = 0)]
pub fn marks(ctx: &Context, count: u32) -> Result<(), TaskError> {
    for number in 0..count {
        ctx.send_event("task-mark", serde_json::json!({ "number": number }))?;
    }
    Ok(())
}

/// Gives up a request for a lock, and makes another one.
#[task(queue = "processes", max_retries = 0)]
pub async fn asks_twice(ctx: Context) -> Result<bool, TaskError> {
    // On a busy machine the answer may be there before the request can be given up.
    while let Some(answered) = ctx.lock("asked twice").acquire().now_or_never() {
        drop(answered?);
    }
    let permit = ctx.lock("asked twice").acquire_within(LONG).await?;
    Ok(permit.is_guarded())
}

/// Exposes a file of so many bytes, from a source of this kind.
#[task(queue = "processes", max_retries = 0)]
pub async fn exports(ctx: Context, kind: String, bytes: usize) -> Result<(), TaskError> {
    let content = pattern(bytes);
    let download = match kind.as_str() {
        "bytes" => Download::from_bytes(content),
        "reader" => Download::from_reader(std::io::Cursor::new(content)),
        "stream" => {
            let chunks: Vec<_> = content.chunks(77_777).map(|chunk| Ok(chunk.to_vec().into())).collect();
            Download::from_stream(futures_util::stream::iter(chunks))
        }
        "broken" => {
            let chunks = vec![Ok(content.into()), Err(std::io::Error::other("cut off"))];
            Download::from_stream(futures_util::stream::iter(chunks))
        }
        "badly named" => Download::from_bytes(content).name("../etc/passwd"),
        _ => {
            ctx.expose_download(Download::from_bytes("never seen")).await?;
            std::process::abort();
        }
    };
    ctx.expose_download(download).await?;
    Ok(())
}

/// Bytes that say where they are.
pub fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

/// Holds a lock at a gate, and ends in this way.
#[task(queue = "processes", max_retries = 0)]
pub fn holds(ctx: &Context, gate: PathBuf, how: String) -> Result<(), TaskError> {
    let permit = ctx.lock("gateway").acquire_blocking()?;
    enter(&gate, "");
    while !is_open(&gate) {
        std::thread::sleep(PAUSE);
    }
    match how.as_str() {
        "dies" => std::process::abort(),
        "forgets" => std::mem::forget(permit),
        _ => drop(permit),
    }
    Ok(())
}

/// Hands a lock over to a task that takes it.
#[task(queue = "processes", max_retries = 0)]
pub async fn begins(ctx: Context) -> Result<String, TaskError> {
    let permit = ctx.lock("relay").acquire().await?;
    let token = permit.token();
    let next = goes_on::s(token).hand_over(permit).delay().await?;
    Ok(next.id().to_string())
}

#[task(queue = "processes", max_retries = 0)]
pub async fn goes_on(ctx: Context, token: u64) -> Result<bool, TaskError> {
    let tried = ctx.lock("relay").try_acquire().await?;
    let permit = ctx.take_permit().ok_or_else(|| TaskError::permanent("no permit came along"))?;
    Ok(tried.is_none() && permit.token() == token)
}

/// Ends in this way.
#[task(queue = "processes", max_retries = 1, default_retry_delay = "1ms")]
pub async fn ends(ctx: Context, how: String, round: u32) -> Result<u32, TaskError> {
    match (how.as_str(), round) {
        ("value", _) => Ok(ctx.attempt()),
        ("continue", 0..3) => Err(TaskError::continue_with(ends::s(how, round + 1))),
        ("replace", 0) => Err(TaskError::replace(ends::s("value".to_owned(), 0))),
        ("retry", 0) => {
            let next = ends::s(how, 1);
            Err(TaskError::retry("once more").with_countdown(PAUSE).with_arguments(next))
        }
        ("postpone", 0) if !ctx.is_redelivered() && ctx.message().first_started_at.is_none() => {
            Err(TaskError::postpone(PAUSE))
        }
        ("continue" | "retry" | "postpone", _) => Ok(round * 10 + ctx.attempt()),
        ("fail", _) => {
            let _ = ctx.fail(["row 3", "row 7"]);
            // What was said before a question is heard before its answer.
            let _ = ctx.lock("none").try_acquire().await?;
            std::process::abort();
        }
        ("reject", _) => Err(TaskError::reject("foreign")),
        ("ignore", _) => Err(TaskError::ignore()),
        ("error", _) => Err(std::io::Error::other("the disk is tired").into()),
        (other, _) => panic!("how is one to end by {other}?"),
    }
}
