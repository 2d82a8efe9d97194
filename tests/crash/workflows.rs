//! Workflows under `kill -9`: chains, chords, groups within chains, retries, countdowns, serial and unique tasks. Each that was
//! acknowledged comes to its end with the right value, none of its tasks starts before what it waits for has ended, and none
//! starts again once it is settled.
//!
//! `WORKFLOW_KILLS=100` kills more often than the usual 8, `WORKFLOW_FLOWS` says how many a life enqueues.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use celeriac::task::Client;
use celeriac::task::canvas::{chord, group};
use celeriac::{Context, EnqueueError, TaskError, TaskId, serial_task, task};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch as channel;

use crate::child::{Child, Failure, Orders, emptied, say, until_signal};
use crate::kills::number;
use crate::ledger::{How, Line, Reader, note};
use crate::process::Home;
use crate::tasks::Run;
use crate::workload::watch;

/// A flow `n` has tasks `n * PARTS + part`.
const PARTS: u64 = 32;
/// The part of a chord's members; those before it come before, the body is `BODY`.
const MEMBERS: u64 = 8;
const BODY: u64 = 24;
const PRODUCERS: u64 = 3;
const KEYS: u64 = 5;
/// The unique flows whose two calls are under way in this life.
static CALLING: LazyLock<channel::Sender<HashSet<u64>>> =
    LazyLock::new(|| channel::Sender::new(HashSet::new()));

/// What a flow is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Shape {
    Chain,
    Chord,
    GroupInChain,
    Late,
    Serial,
    Unique,
}

fn shape(n: u64) -> Shape {
    match n % 6 {
        0 => Shape::Chain,
        1 => Shape::Chord,
        2 => Shape::GroupInChain,
        3 => Shape::Late,
        4 => Shape::Serial,
        _ => Shape::Unique,
    }
}

fn members(n: u64) -> u64 {
    2 + n / 6 % 4
}

/// What a flow comes to.
fn value(n: u64) -> u64 {
    let members = members(n);
    match shape(n) {
        Shape::Chain => n + 1 + 2 + 3,
        Shape::Chord => members * n + (0..members).sum::<u64>() + BODY + BODY + 1,
        Shape::GroupInChain => members * n + (0..members).map(|m| MEMBERS + m).sum::<u64>() + BODY,
        Shape::Late | Shape::Serial | Shape::Unique => n,
    }
}

/// Notes a run; each third task fails once.
async fn run(ctx: Context, n: u64, part: u64, value: u64) -> Result<u64, TaskError> {
    let task = n * PARTS + part;
    let run = Run::start(&ctx, task, 0);
    if task.is_multiple_of(7) {
        tokio::time::sleep(Duration::from_millis(task % 5)).await;
    }
    if task.is_multiple_of(3) && ctx.retries() == 0 {
        run.end(How::Error);
        return Err(TaskError::transient("once"));
    }
    run.end(How::Value);
    Ok(value)
}

#[task(name = "flow.first", queue = "io2", default_retry_delay = "2ms", retry_backoff = false)]
async fn first(ctx: Context, n: u64, part: u64) -> Result<u64, TaskError> {
    run(ctx, n, part, n + part % MEMBERS).await
}

#[task(name = "flow.next", queue = "io", default_retry_delay = "2ms", retry_backoff = false)]
async fn next(ctx: Context, before: u64, n: u64, part: u64) -> Result<u64, TaskError> {
    run(ctx, n, part, before + part).await
}

#[task(name = "flow.body", queue = "io2", default_retry_delay = "2ms", retry_backoff = false)]
async fn body(ctx: Context, parts: Vec<u64>, n: u64) -> Result<u64, TaskError> {
    run(ctx, n, BODY, parts.iter().sum::<u64>() + BODY).await
}

#[serial_task(name = "flow.serial", key = "{key}", queue = "io2", default_retry_delay = "2ms")]
async fn in_turn(ctx: Context, key: u64, n: u64) -> Result<u64, TaskError> {
    let _ = key;
    run(ctx, n, 0, n).await
}

#[task(
    name = "flow.unique",
    queue = "io",
    unique_for = "10m",
    default_retry_delay = "2ms",
    retry_backoff = false
)]
async fn once(ctx: Context, n: u64) -> Result<u64, TaskError> {
    // The window ends with the task. A second call that is enqueued after that is a task of its own.
    let _ = CALLING.subscribe().wait_for(|flows| !flows.contains(&n)).await;
    run(ctx, n, 0, n).await
}

/// Enqueues and runs until it is killed.
pub async fn child(child: Child) -> Result<(), Failure> {
    let celeriac = child.builder().start().await?;
    for (n, id) in child.orders.ask {
        tokio::spawn(watch(celeriac.client(), n, TaskId::from(id)));
    }
    let flows = number("WORKFLOW_FLOWS", 90) / PRODUCERS;
    for producer in 0..PRODUCERS {
        let begin = child.life * 1_000_000 + producer * 100_000;
        tokio::spawn(produce(celeriac.client(), begin..begin + flows));
    }
    until_signal(&celeriac, "up").await
}

async fn produce(client: Arc<dyn Client>, flows: std::ops::Range<u64>) {
    for n in flows {
        match enqueue(&client, n).await {
            Ok(id) => note(&Line::Ack { n, id: id.to_string() }),
            Err(EnqueueError::ShuttingDown) => return,
            Err(error) => note(&Line::Refused { n, why: error.to_string() }),
        }
    }
}

async fn enqueue(client: &Arc<dyn Client>, n: u64) -> Result<TaskId, EnqueueError> {
    let client = || Arc::clone(client);
    let members = members(n);
    Ok(match shape(n) {
        Shape::Chain => {
            let flow = first::s(n, 0).then(next::p(n, 1)).then(next::p(n, 2)).then(next::p(n, 3));
            flow.send(client()).await?.id().clone()
        }
        Shape::Chord => {
            let header = (0..members).map(|member| first::s(n, MEMBERS + member));
            let flow = chord(header, body::p(n)).then(next::p(n, BODY + 1));
            flow.send(client()).await?.id().clone()
        }
        Shape::GroupInChain => {
            let middle = (0..members).map(|member| next::p(n, MEMBERS + member));
            let flow = first::s(n, 0).then(group(middle)).then(body::p(n));
            flow.send(client()).await?.id().clone()
        }
        Shape::Late => {
            let late = first::s(n, 0).countdown(Duration::from_millis(n % 300));
            late.send(client()).await?.id().clone()
        }
        Shape::Serial => in_turn::s(n % KEYS, n).send(client()).await?.id().clone(),
        Shape::Unique => {
            CALLING.send_modify(|flows| {
                flows.insert(n);
            });
            let (one, other) = tokio::join!(once::s(n).send(client()), once::s(n).send(client()));
            CALLING.send_modify(|flows| {
                flows.remove(&n);
            });
            let (one, other) = (one?.id().clone(), other?.id().clone());
            if one != other {
                note(&Line::Twice { id: format!("{one} and {other} of unique flow {n}") });
            }
            one
        }
    })
}

/// Runs what is left, and reads what came of all of it.
pub async fn drain(child: Child) -> Result<(), Failure> {
    let celeriac = child.builder().start().await?;
    // What waits for a long time takes its time, and is waited for as long as it gets less.
    let (mut left, mut look) = (u64::MAX, tokio::time::interval(Duration::from_secs(2)));
    loop {
        look.tick().await;
        let queues = celeriac.queues().await?;
        if !queues.missing.is_empty() {
            continue; // not all is counted
        }
        let now = queues.iter().map(|queue| queue.ready + queue.in_line + queue.scheduled).sum();
        say(&format!("{now} are left"));
        if now < 1000 || now >= left {
            break;
        }
        left = now;
    }
    emptied(&celeriac).await?;
    for (n, id) in child.orders.ask {
        watch(celeriac.client(), n, TaskId::from(id)).await;
    }
    celeriac.shutdown().await?;
    Ok(())
}

/// What the ledger tells.
#[derive(Default)]
struct Watch {
    acked: HashMap<u64, String>,
    /// Flows whose record was read.
    seen: HashSet<u64>,
    /// Tasks that began, that ended with a value, that are settled because what follows from them began.
    begun: HashSet<u64>,
    ended: HashSet<u64>,
    settled: HashSet<u64>,
    /// Serial keys in use in this life.
    running: HashMap<u64, u64>,
    /// The last life has ended, and nothing is left.
    is_drained: bool,
    starts: u64,
    reruns: u64,
    twice: Vec<String>,
    broken: Vec<String>,
}

impl Watch {
    fn read(&mut self, reader: &mut Reader) {
        for line in reader.lines() {
            match line {
                Line::Life { .. } => self.running.clear(),
                Line::Ack { n, id } => drop(self.acked.insert(n, id)),
                Line::Start { n: task, .. } => self.start(task),
                Line::End { n: task, how } => {
                    if shape(task / PARTS) == Shape::Serial {
                        self.running.remove(&(task / PARTS % KEYS));
                    }
                    if how == How::Value {
                        self.ended.insert(task);
                    }
                }
                // A later step is not known before it is sent.
                Line::Seen { state, .. } if state == "UNKNOWN" && !self.is_drained => {}
                Line::Seen { n, state, value: found, .. } => {
                    if (state.as_str(), found.as_deref()) != ("SUCCESS", Some(&*value(n).to_string())) {
                        self.broken.push(format!("flow {n} ({:?}) ended as {state} {found:?}", shape(n)));
                    }
                    self.seen.insert(n);
                }
                other => self.broken.push(format!("{other:?}")),
            }
        }
    }

    /// The tasks that must have ended before this one begins.
    fn before(n: u64, part: u64) -> Vec<u64> {
        let members = (0..members(n)).map(|member| MEMBERS + member);
        match (shape(n), part) {
            (Shape::Chain, 1..) => vec![part - 1],
            (Shape::Chord | Shape::GroupInChain, BODY) => members.collect(),
            (Shape::Chord, part) if part > BODY => vec![BODY],
            (Shape::GroupInChain, MEMBERS..BODY) => vec![0],
            _ => Vec::new(),
        }
    }

    fn start(&mut self, task: u64) {
        let (n, part) = (task / PARTS, task % PARTS);
        self.starts += 1;
        self.reruns += u64::from(!self.begun.insert(task));
        if self.settled.contains(&task) || self.seen.contains(&n) {
            self.twice
                .push(format!("task {part} of flow {n} ({:?}) started again after it was settled", shape(n)));
        }
        for before in Self::before(n, part) {
            let before = n * PARTS + before;
            if !self.ended.contains(&before) {
                self.broken.push(format!("task {part} of flow {n} ({:?}) started too early", shape(n)));
            }
            self.settled.insert(before);
        }
        if shape(n) == Shape::Serial
            && let Some(other) = self.running.insert(n % KEYS, n)
        {
            self.broken.push(format!("flow {n} started while {other} of the same key ran"));
        }
    }

    /// A run was interrupted, and there were flows of each shape.
    fn has_seen_enough(&self) -> bool {
        let shapes: HashSet<Shape> = self.acked.keys().map(|n| shape(*n)).collect();
        self.reruns > 0 && shapes.len() == 6
    }

    fn to_ask(&self, most: usize) -> Vec<(u64, String)> {
        let mut ask: Vec<_> = self.acked.iter().map(|(n, id)| (*n, id.clone())).collect();
        ask.sort_unstable_by(|a, b| b.cmp(a));
        ask.truncate(most);
        ask
    }
}

/// Kills at random moments, a last life that drains, and the ledger.
pub fn under_kills() {
    let seed = number("CRASH_SEED", rand::rng().random_range(0..1_000_000));
    let least = number("WORKFLOW_KILLS", 8);
    println!("    CRASH_SEED={seed} WORKFLOW_KILLS={least}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut home = Home::new();
    let mut reader = Reader::open(&home.ledger());
    let mut watch = Watch::default();
    let mut kills = 0;
    // On a slow machine it may take more than a few kills until one meets a run, and each shape was accepted once.
    while kills < least || !watch.has_seen_enough() && kills < least * 20 {
        kills += 1;
        let orders = Orders { ask: watch.to_ask(40), ..Orders::default() };
        let life = home.spawn("workflows", &orders.line());
        life.expect("up");
        // The moments of the kills are what this is about, so this is a sleep that is meant.
        std::thread::sleep(Duration::from_micros(rng.random_range(1000..400_000)));
        life.kill_9().assert_no_panic();
        watch.read(&mut reader);
        assert!(watch.broken.is_empty() && watch.twice.is_empty(), "{:#?}{:#?}", watch.broken, watch.twice);
    }
    let orders = Orders { ask: watch.to_ask(usize::MAX), ..Orders::default() };
    home.spawn("workflows-drain", &orders.line()).death().assert_clean();
    watch.is_drained = true;
    watch.read(&mut reader);
    let lost: Vec<_> = watch.acked.keys().filter(|n| !watch.seen.contains(n)).collect();
    println!(
        "    {kills} kills, acked {} flows, starts {}, reruns {}, lost {}, settled twice {}",
        watch.acked.len(),
        watch.starts,
        watch.reruns,
        lost.len(),
        watch.twice.len()
    );
    assert!(watch.broken.is_empty() && watch.twice.is_empty(), "{:#?}{:#?}", watch.broken, watch.twice);
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    assert!(
        watch.has_seen_enough(),
        "no run was interrupted, or a shape is missing, so this has tested nothing"
    );
}
