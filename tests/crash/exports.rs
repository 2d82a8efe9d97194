//! Exports around `kill -9`: what is ready opens and is whole, bars never go back, and nothing is left over.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use celeriac::soil::{Download, SoilState};
use celeriac::{Celeriac, Context, EnqueueError, TaskError, TaskId, task};
use futures_util::StreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::{Signal, getpid, kill_process};

use crate::child::{Child, Failure, emptied, say};
use crate::process::{Home, PATIENCE};

/// Three parts of an upload, and a bit.
const CHUNKS: u64 = 120;
const CHUNK: usize = 100_000;
/// Exports that a life asks for.
const EACH: u64 = 2;
const KILLS: u64 = 12;

/// Where a child is to die, in the order in which an export comes by.
const POINTS: [&str; 7] = ["start", "first-chunk", "a-part", "the-last-chunk", "exposed", "ready", "opened"];

/// Dies like this if it is told to die here.
fn fault_point(name: &str) {
    if std::env::var("CRASH_AT").is_ok_and(|at| at == name) {
        let _ = kill_process(getpid(), Signal::KILL);
        std::thread::sleep(PATIENCE); // until it takes effect
    }
}

/// The bytes of an export's chunk.
fn chunk(id: &str, n: u64) -> Bytes {
    let seed = id.bytes().fold(n, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let mut bytes = vec![0; CHUNK];
    StdRng::seed_from_u64(seed).fill(bytes.as_mut_slice());
    bytes.into()
}

#[task(queue = "io")]
async fn crash_export(ctx: Context) -> Result<(), TaskError> {
    fault_point("start");
    let id = ctx.id().to_string();
    let own = ctx.clone();
    let chunks = futures_util::stream::iter(0..CHUNKS).map(move |n| {
        match n {
            1 => fault_point("first-chunk"),
            80 => fault_point("a-part"),
            _ if n == CHUNKS - 1 => fault_point("the-last-chunk"),
            _ => {}
        }
        own.progress(n + 1, CHUNKS);
        Ok(chunk(&id, n))
    });
    ctx.expose_download(Download::from_stream(chunks).name("export.bin")).await?;
    fault_point("exposed");
    Ok(())
}

fn ids_of(life: u64) -> impl Iterator<Item = TaskId> {
    (0..EACH).map(move |n| TaskId::from(format!("export-{life}-{n}")))
}

/// Asks for exports, watches all that were ever asked for, and opens what is ready.
pub async fn child(child: Child) -> Result<(), Failure> {
    let celeriac = child.builder().on_ready(|_, _| fault_point("ready")).start().await?;
    say("up");
    for id in ids_of(child.life) {
        match crash_export::s().id(id).send(celeriac.client()).await {
            Ok(_) | Err(EnqueueError::DuplicateId { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // All at the end; else those of this life and the one before, for there is a limit to what can be read between two kills.
    let is_last = std::env::var_os("CRASH_LAST").is_some();
    let from = if is_last { 1 } else { child.life.saturating_sub(1).max(1) };
    let watches = (from..=child.life).flat_map(ids_of).map(|id| watch(&celeriac, &child.store, id));
    for watched in futures_util::future::join_all(watches).await {
        watched?;
    }
    if is_last {
        emptied(&celeriac).await?;
        nothing_is_left_over(&celeriac, &child.store).await?;
        celeriac.shutdown().await?;
        say("clean");
        return Ok(());
    }
    say("idle");
    std::future::pending::<()>().await;
    Ok(())
}

fn bars(store: &Path) -> PathBuf {
    store.with_file_name("bars")
}

/// Notes each bar that is seen, before another is.
async fn watch(celeriac: &Celeriac, store: &Path, id: TaskId) -> Result<(), Failure> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(bars(store))?;
    let mut watched = celeriac.soil().watch(&id);
    while let Some(status) = watched.next().await {
        let status = status?;
        let percent = status.progress.map_or(0, |progress| progress.percent);
        file.write_all(format!("{id} {percent}\n").as_bytes())?;
        match status.state {
            SoilState::Success => return opens(celeriac, &id).await,
            SoilState::Failed => return Err(format!("{id} failed: {:?}", status.errors).into()),
            // In the life before this one it was killed before it could ask for it.
            SoilState::Missing => return Ok(()),
            _ => {}
        }
    }
    Err(format!("the watch of {id} ended").into())
}

/// Ready means that the file opens, and has the right bytes.
async fn opens(celeriac: &Celeriac, id: &TaskId) -> Result<(), Failure> {
    let mut body = celeriac.soil().open(id, None).await?.body;
    fault_point("opened");
    let mut bytes = Vec::new();
    while let Some(part) = body.next().await {
        bytes.extend_from_slice(&part?);
    }
    let right = |n: u64| bytes.chunks(CHUNK).nth(n as usize) == Some(&*chunk(id.as_str(), n));
    let is_whole = bytes.len() == CHUNK * CHUNKS as usize && (0..CHUNKS).all(right);
    if is_whole { Ok(()) } else { Err(format!("{id} has other bytes than it should").into()) }
}

/// As many payloads as records, and no file of an upload that was cut off.
async fn nothing_is_left_over(celeriac: &Celeriac, store: &Path) -> Result<(), Failure> {
    celeriac.sweep_results().await?;
    let (mut files, mut open) = (Vec::new(), vec![store.join("downloads/celeriac-downloads/payload")]);
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next)? {
            let path = entry?.path();
            if path.is_dir() { open.push(path) } else { files.push(path) }
        }
    }
    let owners: std::collections::HashSet<_> =
        files.iter().filter_map(|file| file.parent()?.file_name()).collect();
    for owner in &owners {
        celeriac.soil().download(&owner.to_string_lossy().into_owned().into()).await?;
    }
    if files.len() == owners.len() && !files.iter().any(|file| file.to_string_lossy().contains('#')) {
        return Ok(());
    }
    Err(format!("left over: {files:?}").into())
}

/// Bars as they were seen, over all lives.
fn never_went_back(home: &Home) {
    let text = std::fs::read_to_string(bars(home.store())).expect("bars were seen");
    let mut last = HashMap::<&str, u64>::new();
    for line in text.lines() {
        let Some((id, percent)) = line.split_once(' ') else { continue };
        let percent = percent.parse().expect("a number");
        let before = last.insert(id, percent).unwrap_or(0);
        assert!(percent >= before, "the bar of {id} went back from {before} % to {percent} %");
    }
    assert!(last.values().any(|percent| *percent == 100), "{last:?}");
}

fn last_life(home: &mut Home) {
    let last = home.spawn_with("exports", "", |command| command.env("CRASH_LAST", "1"));
    last.expect("clean");
    last.death().assert_clean();
    never_went_back(home);
}

pub fn killed_at_every_step() {
    for point in POINTS {
        let mut home = Home::new();
        let first = home.spawn_with("exports", "", |command| command.env("CRASH_AT", point));
        let death = first.death();
        assert!(death.was_killed(), "at {point}: {}", death.stderr);
        last_life(&mut home);
        println!("    killed at `{point}`: the file is whole, nothing is left over");
    }
}

pub fn killed_at_random_moments() {
    let mut home = Home::new();
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..KILLS {
        let life = home.spawn("exports", "");
        life.expect("up");
        // The moment is random; nothing depends on its being met.
        std::thread::sleep(std::time::Duration::from_millis(random.random_range(0..150)));
        let death = life.kill_9();
        assert!(death.was_killed(), "{}", death.stderr);
        death.assert_no_panic();
    }
    last_life(&mut home);
}
