//! The others on the same broker: a Python Celery worker, and rusty-celery, which is built from `benches/peers` when it is
//! wanted.
//!
//! Celery is tuned: no results, no events, no gossip and mingling, no log line for each task, many messages at a time, late
//! acknowledgement, and its client confirms each publish, as ours does. rusty-celery acknowledges late, one by one, and
//! cannot confirm: it is compared with ours also where our calls wait for no confirm (`confirm = false`).

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::ours::Ours;
use super::raw::Raw;
use super::services::{Python, Script, blocking};
use super::support::done::Rounds;
use super::support::figures::{Series, Table, goal, percent, rate};
use super::support::{rounds, sized};
use super::{AHEAD, ARGUMENT, Letter, PREFETCH, Place, filling};

const APP: &str = "benches/peers/bench_app.py";

/// How many of ours wait for a confirm at a time; rusty-celery waits for none.
const PRODUCERS: usize = 512;

/// How many tasks Celery is given.
fn few() -> u64 {
    sized(5_000, 600)
}

/// Which of Celery's pools.
#[derive(Clone, Copy)]
enum CeleryPool {
    Prefork,
    Solo,
}

/// Drain, and both at once.
#[derive(Default)]
struct Peer {
    drain: Series,
    both: Series,
}

/// Prints how we compare.
pub async fn compare(place: &Place) {
    let program = blocking(build).await;
    let letter = Ours::letter(place).await;
    let [mut drain, mut both, mut unconfirmed] = [(); 3].map(|()| Rounds::default());
    let [mut prefork, mut solo, mut rusty] = [(); 3].map(|()| Peer::default());
    for _ in 0..rounds() {
        for (pool, peer) in [(CeleryPool::Prefork, &mut prefork), (CeleryPool::Solo, &mut solo)] {
            Raw::fill(place, &letter, few()).await;
            peer.drain.push(celery(place, pool, false, &[]).await);
            Raw::purge(place).await;
            peer.both.push(celery(place, pool, true, &[]).await);
        }
        rusty.drain.push(rusty_celery(&program, place, "drain").await);
        rusty.both.push(rusty_celery(&program, place, "both").await);
        Raw::fill(place, &letter, filling()).await;
        drain.push(Ours::drain(place, filling(), false).await);
        let ours = Ours::consuming(place).await;
        both.push(ours.both(PRODUCERS).await);
        ours.shutdown().await;
        let ours = Ours::consuming(place).await.without_confirms();
        unconfirmed.push(ours.both(PRODUCERS).await);
        ours.shutdown().await;
    }
    let mut table = Table::new(&[
        "classic queue",
        "drain",
        "celeriac",
        "times",
        "goal",
        "both at once",
        "celeriac",
        "times",
        "goal",
    ]);
    for (name, peer, both, least) in [
        ("Celery, prefork -c2", &prefork, &both, 10.0),
        ("Celery, solo", &solo, &both, 10.0),
        ("rusty-celery", &rusty, &both, 2.0),
        ("rusty-celery; ours with `confirm = false`", &rusty, &unconfirmed, 1.0),
    ] {
        let mut row = vec![name.to_owned()];
        for (theirs, ours) in [(&peer.drain, &drain.rate), (&peer.both, &both.rate)] {
            let times = ours.over(theirs);
            let verdict = goal(times.median() >= least, &format!("{least:.0}"));
            row.extend([
                theirs.show(rate),
                ours.show(rate),
                times.show(|times| format!("{times:.1}")),
                verdict,
            ]);
        }
        table.row(row);
    }
    table.print("Beside others on the same broker; ours with confirms and late acknowledgement");
}

/// A Celery worker that drains a queue without events, and one with `-E`, as a row of the table of events.
pub async fn with_events(place: &Place, letter: &Letter, table: &mut Table) {
    let [mut off, mut on] = [(); 2].map(|()| Series::default());
    for _ in 0..rounds() {
        for (options, rates) in [(&[][..], &mut off), (&["-E"][..], &mut on)] {
            Raw::fill(place, letter, few()).await;
            rates.push(celery(place, CeleryPool::Prefork, false, options).await);
            Raw::purge(place).await;
        }
    }
    let ratio = on.over(&off);
    let [plain, told] = [&off, &on].map(|case| case.show(rate));
    let nothing = || "-".to_owned();
    let name = "Celery, prefork -c2".to_owned();
    table.row(vec![name, plain, told, ratio.show(percent), nothing(), nothing(), nothing()]);
}

/// Tasks per second of a Celery worker with these options more: from the first hundred to the last.
async fn celery(place: &Place, pool: CeleryPool, send: bool, more: &'static [&'static str]) -> f64 {
    let (url, queue) = (place.rabbit.url(), place.queue.clone());
    blocking(move || {
        let runs = tempfile::tempdir().expect("a directory");
        let script = Script::new(APP)
            .env("BENCH_BROKER", url)
            .env("BENCH_QUEUE", queue.as_str())
            .env("BENCH_RUNS", runs.path().to_str().expect("it is text"));
        let python = Python::with_celery();
        let pool: &[&str] = match pool {
            CeleryPool::Prefork => &["--pool=prefork", "-c2", "-Ofair"],
            CeleryPool::Solo => &["--pool=solo"],
        };
        let mut worker = script.clone().arg("-Q").arg(queue.as_str());
        let quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"];
        for option in pool.iter().chain(&quiet).chain(more) {
            worker = worker.arg(*option);
        }
        let worker = python.worker(&worker, "bench");
        let client = send.then(|| {
            let (python, script) = (python.clone(), script.clone());
            let (count, argument) = (few().to_string(), ARGUMENT.to_string());
            std::thread::spawn(move || {
                python.run(&script.arg("send").arg(count).arg(argument)).expect_success("Celery's client")
            })
        });
        let ahead = few() / 10;
        let mut start = None;
        let deadline = Instant::now() + Duration::from_secs(120);
        let rate = loop {
            let run = runs_in(runs.path());
            if run >= ahead && start.is_none() {
                start = Some((Instant::now(), run));
            }
            if run >= few()
                && let Some((start, ahead)) = start
            {
                break (run - ahead) as f64 / start.elapsed().as_secs_f64();
            }
            assert!(Instant::now() < deadline, "Celery ran only {run} of {}", few());
            std::thread::sleep(Duration::from_millis(2));
        };
        worker.stop();
        if let Some(client) = client {
            client.join().expect("the client ends");
        }
        rate
    })
    .await
}

/// The sum of what the worker's processes have written.
fn runs_in(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    files.filter_map(|file| std::fs::read_to_string(file.path()).ok()?.trim().parse::<u64>().ok()).sum()
}

/// Builds rusty-celery, and what runs it.
fn build() -> PathBuf {
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is in target/").join("peers");
    println!("\nbuilding rusty-celery, which takes minutes the first time");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--locked", "--manifest-path"])
        .arg(peers.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the peers are built");
    target.join("release/celeriac-bench-peers")
}

async fn rusty_celery(program: &Path, place: &Place, mode: &str) -> f64 {
    Raw::purge(place).await;
    if mode == "drain" {
        run(program, place, "fill").await;
        // It has left them to its connection; they are there some time later.
        let deadline = Instant::now() + Duration::from_secs(60);
        while Raw::waiting(place).await < filling() {
            assert!(Instant::now() < deadline, "what rusty-celery sent arrives");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    run(program, place, mode).await.expect("it says its rate")
}

/// Runs the program, and says which rate it tells.
async fn run(program: &Path, place: &Place, mode: &str) -> Option<f64> {
    let ahead = if mode == "drain" { AHEAD } else { 0 };
    let arguments = [mode.to_owned(), place.rabbit.url(), place.queue.clone()]
        .into_iter()
        .chain([filling(), PREFETCH as u64, ahead, ARGUMENT as u64].map(|number| number.to_string()));
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::null());
    blocking(move || {
        let mut child = command.spawn().expect("the peer runs");
        let output = child.stdout.take().expect("it is piped");
        let mut rate = None;
        for line in BufReader::new(output).lines() {
            let line = line.expect("it speaks UTF-8");
            rate = line.strip_prefix("rate ").and_then(|rate| rate.parse().ok()).or(rate);
        }
        assert!(child.wait().expect("it ends").success(), "the peer succeeds");
        rate
    })
    .await
}
