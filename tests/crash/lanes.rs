//! Serial tasks under `kill -9`: of one key no two runs overlap, they start in the order in which they were accepted, and
//! none is lost.
//!
//! `LANES_KEYS`, `LANES_TASKS` (a life), `LANES_KILLS` and `LANES_MS` (the longest life) make a larger run of it, and with
//! `LANES_ALL=1` it is killed on until each key has had a task.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use celeriac::task::Client;
use celeriac::{Context, EnqueueError, TaskError, serial_task};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::child::{Child, Failure, Orders, emptied, say, until_signal};
use crate::kills::number;
use crate::ledger::{How, Line, Reader, note};
use crate::process::Home;
use crate::tasks::Run;

const PRODUCERS: u64 = 16;
/// Calls that one producer has under way, each of another key.
const AT_ONCE: u64 = 64;
/// Each round of calls has one for each of these, so that lines form.
const HOT: u64 = 32;
/// More than there are keys.
const KEYS: u64 = 1_000_000;

/// Of a key, `n` only grows; some fail once, some take a while. It ends in the key.
#[serial_task(name = "step", key = "{key}", queue = "io2", ignore_result, default_retry_delay = "2ms")]
async fn step(ctx: Context, key: u64, n: u64) -> Result<(), TaskError> {
    let run = Run::start(&ctx, n, 0);
    let turn = n / KEYS;
    if turn.is_multiple_of(7) {
        tokio::time::sleep(Duration::from_millis(turn % 5)).await;
    }
    if turn.is_multiple_of(11) && ctx.retries() == 0 {
        run.end(How::Error);
        return Err(TaskError::retry("once"));
    }
    run.end(How::Value);
    Ok(())
}

/// Enqueues and runs until it is killed.
pub async fn child(child: Child) -> Result<(), Failure> {
    let celeriac = child.builder().start().await?;
    let numbers = Arc::new(AtomicU64::new(child.life * 10_000_000));
    for producer in 0..PRODUCERS {
        let seed = child.orders.seed + producer;
        let walked = child.orders.walked.get(producer as usize).copied().unwrap_or(0);
        tokio::spawn(produce(celeriac.client(), producer, Arc::clone(&numbers), seed, walked));
    }
    until_signal(&celeriac, "up").await
}

/// A key has one producer, and one call under way: so the order of acceptance is known.
async fn produce(
    client: Arc<dyn Client>,
    producer: u64,
    numbers: Arc<AtomicU64>,
    seed: u64,
    mut walked: u64,
) {
    let mut rng = StdRng::seed_from_u64(seed);
    let keys = number("LANES_KEYS", 400) / PRODUCERS;
    let mut left = number("LANES_TASKS", 4000) / PRODUCERS;
    while left > 0 {
        let mut keys: HashSet<u64> = (0..AT_ONCE.min(left))
            .map(|_| {
                if rng.random_bool(0.5) {
                    rng.random_range(0..HOT / PRODUCERS)
                } else {
                    walked += 1;
                    walked % keys
                }
            })
            .collect();
        left = left.saturating_sub(keys.len() as u64);
        let calls = keys.drain().map(async |key| {
            let key = key * PRODUCERS + producer;
            let n = numbers.fetch_add(1, Ordering::Relaxed) * KEYS + key;
            match step::s(key, n).send(Arc::clone(&client)).await {
                Ok(accepted) => note(&Line::Ack { n, id: accepted.id().to_string() }),
                Err(EnqueueError::ShuttingDown) => {}
                Err(error) => note(&Line::Refused { n, why: error.to_string() }),
            }
        });
        futures_util::future::join_all(calls).await;
    }
}

/// Runs what is left.
pub async fn drain(child: Child) -> Result<(), Failure> {
    let celeriac = child.builder().start().await?;
    // A large line takes its time, and is waited for as long as it gets shorter.
    let (mut left, mut look) = (u64::MAX, tokio::time::interval(Duration::from_secs(1)));
    loop {
        look.tick().await;
        let status = celeriac.queue("io2").await?;
        let now = status.ready + status.in_line;
        say(&format!("{now} are left"));
        if now < 1000 || now >= left {
            break;
        }
        left = now;
    }
    emptied(&celeriac).await?;
    let lanes = celeriac.lanes(10).await?;
    celeriac.shutdown().await?;
    if lanes.is_empty() { Ok(()) } else { Err(format!("lanes are left: {lanes:?}").into()) }
}

/// What the ledger tells of the lanes.
#[derive(Default)]
struct Watch {
    acked: HashSet<u64>,
    done: HashSet<u64>,
    /// Who runs, by key, in this life.
    running: HashMap<u64, u64>,
    /// Who started last, by key.
    last: HashMap<u64, u64>,
    started: HashSet<u64>,
    starts: u64,
    reruns: u64,
    broken: Vec<String>,
    /// How far each producer has come with its keys.
    walked: Vec<u64>,
    /// The most that waited when a life ended, and the most memory that one had then, in MiB.
    waited: usize,
    memory: u64,
    /// Of this life: when it was spawned.
    spawned_at: u64,
    first_starts: Vec<u64>,
}

impl Watch {
    fn read(&mut self, reader: &mut Reader) {
        let mut is_first = true;
        for line in reader.lines() {
            match line {
                Line::Life { .. } => self.running.clear(),
                Line::Ack { n, .. } => {
                    self.acked.insert(n);
                    let (walked, way) = (n % KEYS / PRODUCERS, (n % KEYS % PRODUCERS) as usize);
                    self.walked.resize(PRODUCERS as usize, 0);
                    self.walked[way] = self.walked[way].max(walked);
                }
                Line::Refused { n, why } => self.broken.push(format!("{n} was refused: {why}")),
                Line::Start { n, at, .. } => {
                    if std::mem::take(&mut is_first) {
                        self.first_starts.push(at - self.spawned_at);
                    }
                    self.start(n);
                }
                Line::End { n, how } => {
                    self.running.remove(&(n % KEYS));
                    if how == How::Value {
                        self.done.insert(n);
                    }
                }
                other => self.broken.push(format!("{other:?} is not of this case")),
            }
        }
    }

    /// Where the producers of the next life begin: what was on its way may not have arrived.
    fn way(&self) -> Vec<u64> {
        self.walked.iter().map(|walked| walked.saturating_sub(AT_ONCE)).collect()
    }

    fn has_been_everywhere(&self, keys: u64) -> bool {
        let last = (keys / PRODUCERS).saturating_sub(1);
        keys == 0 || !self.walked.is_empty() && self.walked.iter().all(|walked| *walked >= last)
    }

    fn start(&mut self, n: u64) {
        let key = n % KEYS;
        self.starts += 1;
        self.reruns += u64::from(!self.started.insert(n));
        if let Some(other) = self.running.insert(key, n) {
            self.broken.push(format!("of key {key}, {n} started while {other} ran"));
        }
        let last = self.last.insert(key, n).unwrap_or(0);
        if n < last {
            self.broken.push(format!("of key {key}, {n} started after {last}"));
        }
    }
}

/// The memory of a process, in MiB.
fn memory_of(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let row = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    row.and_then(|row| row.split_ascii_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Many keys, sixteen producers, a kill after each short life, and a last life that drains.
pub fn of_many_keys() {
    let seed = number("CRASH_SEED", rand::rng().random_range(0..1_000_000));
    let (least, longest) = (number("LANES_KILLS", 12), number("LANES_MS", 500));
    let keys = if number("LANES_ALL", 0) == 1 { number("LANES_KEYS", 400) } else { 0 };
    println!("    CRASH_SEED={seed} LANES_KILLS={least}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut home = Home::new();
    let mut reader = Reader::open(&home.ledger());
    let mut watch = Watch::default();
    let (started_at, mut kills) = (Instant::now(), 0);
    // On a slow machine it may take more than a few kills until one meets a run.
    while kills < least || !watch.has_been_everywhere(keys) || watch.reruns == 0 && kills < least * 20 {
        kills += 1;
        let seed = rng.random_range(0..u64::from(u32::MAX));
        let orders = Orders { seed, walked: watch.way(), ..Orders::default() };
        let life = home.spawn("lanes", &orders.line());
        watch.spawned_at = life.spawned_at;
        life.expect("up");
        // The moments of the kills are what this is about, so this is a sleep that is meant.
        std::thread::sleep(Duration::from_micros(rng.random_range(1000..longest * 1000)));
        watch.memory = watch.memory.max(memory_of(life.pid()));
        life.kill_9().assert_no_panic();
        watch.read(&mut reader);
        watch.waited = watch.waited.max(watch.acked.len() - watch.acked.intersection(&watch.done).count());
        assert!(watch.broken.is_empty(), "{:#?}", watch.broken);
    }
    let killed = started_at.elapsed().as_secs();
    let last = home.spawn("lanes-drain", &Orders::default().line());
    watch.spawned_at = last.spawned_at;
    last.death().assert_clean();
    watch.read(&mut reader);
    let lost: Vec<_> = watch.acked.difference(&watch.done).collect();
    let slowest = watch.first_starts.iter().max().copied().unwrap_or(0);
    println!(
        "    {kills} kills, {} keys, acked {}, starts {}, reruns {}, overlaps and reorders {}, lost {}; a start at most {} ms after the spawn",
        watch.last.len(),
        watch.acked.len(),
        watch.starts,
        watch.reruns,
        watch.broken.len(),
        lost.len(),
        slowest / 1000
    );
    println!(
        "    {killed} s of kills, {} s to drain; at most {} waited and {} MiB were used when a life ended",
        started_at.elapsed().as_secs() - killed,
        watch.waited,
        watch.memory
    );
    assert!(watch.broken.is_empty(), "{:#?}", watch.broken);
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    assert!(watch.reruns > 0, "no run was interrupted, so this has tested nothing");
}
