//! `kill -9` in the middle of bulk acts and of their undo: each task is where it was before, and runs once. An act that was
//! cancelled stays so.

use std::collections::BTreeMap;
use std::time::Duration;

use celeriac::app::BulkAct;
use celeriac::core::brake::BrakeRule;
use celeriac::task::TENANT;
use celeriac::{Celeriac, Context, TaskId, task};
use futures_util::future::try_join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::child::{Child, Failure, Orders, say, until_signal};
use crate::ledger::{Line, Reader, note};
use crate::process::{Home, PATIENCE};

/// How many tasks each tenant has, whose name says what is done to them and undone.
const TENANTS: [(&str, usize); 4] = [("moved", 1500), ("purged", 1500), ("cancelled", 5000), ("left", 20)];
/// How many there are in all.
const ALL: u64 = 8020;
const KILLS: u64 = 10;

#[task(queue = "io")]
async fn shifted(ctx: Context) {
    note(&Line::Tick { id: ctx.id().to_string(), crashes: ctx.message().crashes });
}

/// The queues, which are paused until all is undone, also after a restart.
const QUEUES: [&str; 2] = ["io", "io2"];

/// The first life begins the acts, the next ones go on with them and undo them until they are killed, and the last one lets
/// everything run.
pub async fn child(child: Child) -> Result<(), Failure> {
    let celeriac = child.builder().start().await?;
    if child.orders.seed == 0 {
        for queue in QUEUES {
            celeriac.persistent().pause(queue).await?;
        }
        for (tenant, count) in TENANTS {
            let ids = (0..count).map(|n| TaskId::from(format!("{tenant}-{n}")));
            let calls = ids.map(async |id| shifted::s().id(id).header(TENANT, tenant).delay().await);
            try_join_all(calls).await?;
        }
        celeriac.bulk().move_to(&BrakeRule::new().tenant("moved"), "io2").await?;
        celeriac.bulk().purge(&BrakeRule::new().tenant("purged")).await?;
        let act = celeriac.bulk().purge(&BrakeRule::new().tenant("cancelled")).await?;
        celeriac.cancel_bulk(&act.id).await?;
    }
    if child.orders.seed < 2 {
        let undoes = celeriac.clone();
        tokio::spawn(async move { undone(&undoes).await.map_err(|error| error.to_string()) });
        return until_signal(&celeriac, "up").await;
    }
    for act in undone(&celeriac).await? {
        let undo = act.undo.as_ref().ok_or("it is not undone")?;
        let is_cancelled = act.rule == BrakeRule::new().tenant("cancelled");
        let found = if is_cancelled { 5000 } else { 1500 };
        let ended = (act.found, act.failed, &act.error, undo.left, &undo.error);
        if ended != (found, 0, &None, 0, &None) || act.cancel.is_some() != is_cancelled {
            return Err(format!("{act:?}").into());
        }
    }
    let waiting = celeriac.bulk().count_waiting(&BrakeRule::all()).await?;
    if waiting.by_queue != BTreeMap::from([("io".to_owned(), ALL)]) {
        return Err(format!("{waiting:?}").into());
    }
    for queue in QUEUES {
        celeriac.persistent().reset(queue).await?;
    }
    ended(&celeriac).await?;
    say("done");
    celeriac.shutdown().await?;
    Ok(())
}

/// Waits for the acts, undoes them, and waits for that.
async fn undone(celeriac: &Celeriac) -> Result<Vec<BulkAct>, celeriac::app::ControlError> {
    let mut undone = Vec::new();
    for act in celeriac.bulk().acts().await? {
        celeriac.bulk().wait(&act.id).await?;
        celeriac.undo_bulk(&act.id).await?;
        undone.push(celeriac.bulk().wait(&act.id).await?);
    }
    Ok(undone)
}

/// Waits until nothing is left.
async fn ended(celeriac: &Celeriac) -> Result<(), Failure> {
    let mut look = tokio::time::interval(Duration::from_millis(10));
    let patience = tokio::time::Instant::now() + PATIENCE / 2;
    loop {
        look.tick().await;
        let queues = celeriac.queues().await?;
        let left: u64 = queues.iter().map(|q| q.ready + q.held + q.scheduled + q.running as u64).sum();
        if left == 0 {
            return Ok(());
        }
        if tokio::time::Instant::now() > patience {
            return Err(format!("{left} tasks are left").into());
        }
    }
}

pub fn killed_in_the_middle() {
    let seed = rand::rng().random_range(0..1_000_000);
    println!("    seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut home = Home::new();
    let mut reader = Reader::open(&home.ledger());
    let orders = |seed: u64| Orders { seed, ..Orders::default() }.line();
    for kill in 0..KILLS {
        let life = home.spawn("bulk", &orders(kill.min(1)));
        life.expect("up");
        // The moment of the kill is what this is about, so this is a sleep that is meant.
        std::thread::sleep(Duration::from_micros(rng.random_range(0..60_000)));
        life.kill_9().assert_no_panic();
    }
    let life = home.spawn("bulk", &orders(2));
    life.expect("done");
    life.death().assert_clean();

    let mut begun: BTreeMap<String, u32> = BTreeMap::new();
    for line in reader.lines() {
        if let Line::Tick { id, .. } = line {
            *begun.entry(id).or_default() += 1;
        }
    }
    let twice: Vec<_> = begun.iter().filter(|(_, runs)| **runs > 1).collect();
    assert!(twice.is_empty(), "they have run twice: {twice:?}");
    assert_eq!(begun.len() as u64, ALL, "each has run");
}
