//! `kill -9` in the middle of a divert and of a bulk act: what is diverted runs in its new queue, once; what is to be
//! revoked is revoked; and what a brake holds stays.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use celeriac::app::BulkAct;
use celeriac::core::brake::{Brake, BrakeAction, BrakeRule};
use celeriac::task::{TENANT, TaskResult};
use celeriac::{Celeriac, Context, State, TaskId, task};
use futures_util::future::try_join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::child::{Child, Failure, Orders, say, until_signal};
use crate::ledger::{Line, Reader, note};
use crate::process::{Home, PATIENCE};

/// How many tasks each tenant has, whose name says what becomes of them.
const TENANTS: [(&str, usize); 3] = [("revoked", 1500), ("diverted", 500), ("held", 20)];
const KILLS: u64 = 8;

#[task(queue = "io")]
async fn braked(ctx: Context) {
    note(&Line::Tick { id: ctx.id().to_string(), crashes: ctx.message().crashes });
}

fn ids(tenant: &str) -> impl Iterator<Item = TaskId> {
    let (name, count) = TENANTS.into_iter().find(|(name, _)| *name == tenant).expect("a tenant");
    (0..count).map(move |n| TaskId::from(format!("{name}-{n}")))
}

/// The first life sets brakes and begins the act, the next ones go on with it until they are killed, and the last one says
/// what came of it.
pub async fn child(child: Child) -> Result<(), Failure> {
    let celeriac = child.builder().start().await?;
    if child.orders.seed == 0 {
        let pause = Brake::new(BrakeRule::new().queue("io"), BrakeAction::Pause);
        celeriac.brakes().set(pause).await?;
        for (tenant, _) in TENANTS {
            let calls = ids(tenant).map(async |id| braked::s().id(id).header(TENANT, tenant).delay().await);
            try_join_all(calls).await?;
        }
        let divert = Brake::new(BrakeRule::new().tenant("diverted"), BrakeAction::divert("io2"));
        celeriac.brakes().set(divert).await?;
        celeriac.bulk().revoke(&BrakeRule::new().tenant("revoked")).await?;
    }
    if child.orders.seed < 2 {
        return until_signal(&celeriac, "up").await;
    }
    let acts = celeriac.bulk().acts().await?;
    let act: BulkAct = celeriac.bulk().wait(&acts.first().ok_or("no act")?.id).await?;
    if (act.found, act.failed, &act.error) != (1500, 0, &None) {
        return Err(format!("{act:?}").into());
    }
    settled(&celeriac).await?;
    for id in ids("revoked") {
        is(&record(&celeriac, &id).await?, State::Revoked, "io")?;
    }
    for id in ids("diverted") {
        is(&record(&celeriac, &id).await?, State::Success, "io2")?;
    }
    say("done");
    celeriac.shutdown().await?;
    Ok(())
}

/// Waits until nothing is left but what is held.
async fn settled(celeriac: &Celeriac) -> Result<(), Failure> {
    let mut look = tokio::time::interval(Duration::from_millis(10));
    let patience = tokio::time::Instant::now() + PATIENCE / 2;
    loop {
        look.tick().await;
        let queues = celeriac.queues().await?;
        let counts = queues.iter().map(|q| (q.name.as_str(), (q.ready, q.held, q.scheduled, q.running)));
        let left: BTreeMap<_, _> = counts.collect();
        if left.get("io") == Some(&(0, 20, 0, 0)) && left.get("io2") == Some(&(0, 0, 0, 0)) {
            return Ok(());
        }
        if tokio::time::Instant::now() > patience {
            return Err(format!("tasks are left (queue, ready, held, scheduled, running): {left:?}").into());
        }
    }
}

/// The record of a task. One that no queue counts any more may be on the way to its record; one that is lost is an error at once.
async fn record(celeriac: &Celeriac, id: &TaskId) -> Result<TaskResult, Failure> {
    let record = tokio::time::timeout(PATIENCE / 2, celeriac.client().wait(id)).await;
    Ok(record.map_err(|_| format!("no record of {id}"))??)
}

fn is(record: &TaskResult, state: State, queue: &str) -> Result<(), Failure> {
    match record.state == state && record.queue == queue {
        true => Ok(()),
        false => Err(format!("{} is {} in {}", record.id, record.state, record.queue).into()),
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
        let life = home.spawn("brakes", &orders(kill.min(1)));
        life.expect("up");
        // The moment of the kill is what this is about, so this is a sleep that is meant.
        std::thread::sleep(Duration::from_micros(rng.random_range(0..40_000)));
        life.kill_9().assert_no_panic();
    }
    let life = home.spawn("brakes", &orders(2));
    life.expect("done");
    life.death().assert_clean();

    // Runs of each task, by the crashes that it had had by then: one that was there twice begins twice with none.
    let mut begun: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for line in reader.lines() {
        if let Line::Tick { id, crashes } = line {
            assert!(id.starts_with("diverted-"), "{id} has run");
            assert!(begun.entry(id.clone()).or_default().insert(crashes), "{id} has run twice");
        }
    }
    assert_eq!(begun.len(), 500, "each diverted one has run");
}
