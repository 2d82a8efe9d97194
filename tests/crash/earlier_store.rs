//! `kill -9` while a store of the earlier layout becomes one of this layout, and while its first tasks with tenants come: nothing is
//! lost, nothing runs twice, and the next program goes on with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use celeriac::task::TENANT;
use celeriac::{Context, TaskId, task};
use futures_util::future::try_join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::child::{Child, Failure, Orders, emptied, say, until_signal};
use crate::earlier::make_earlier;
use crate::kills::number;
use crate::ledger::{Line, Reader, note, now};
use crate::process::Home;

/// What a life is for, as its orders say by `seed`: to fill the store, to open it and be killed, to run all.
const FILLS: u64 = 0;
const OPENS: u64 = 1;
const DRAINS: u64 = 2;
/// How many tasks without a tenant the earlier program has left.
const PLAIN: usize = 1_000;
/// How many tasks each tenant sends in a life that opens the store.
const EACH: usize = 50;
const TENANTS: [&str; 2] = ["acme", "zoo"];
/// How many stores are opened, and how often a program is killed on each of them.
const STORES: usize = 8;
const KILLS: usize = 3;

#[task(queue = "io")]
async fn kept(ctx: Context) {
    note(&Line::Tick { id: ctx.id().to_string(), crashes: ctx.message().crashes });
}

fn plain(n: usize) -> String {
    format!("plain-{n}")
}

pub async fn child(child: Child) -> Result<(), Failure> {
    let celeriac = child.builder().start().await?;
    match child.orders.seed {
        FILLS => {
            celeriac.persistent().pause("io").await?;
            let calls = (0..PLAIN).map(async |n| kept::s().id(TaskId::from(plain(n))).delay().await);
            drop(try_join_all(calls).await?);
            celeriac.shutdown().await?;
        }
        OPENS => {
            let life = child.life;
            for tenant in TENANTS {
                let calls = (0..EACH).map(async |n| -> Result<(), Failure> {
                    let id = format!("{tenant}-{life}-{n}");
                    drop(kept::s().id(TaskId::from(id.clone())).header(TENANT, tenant).delay().await?);
                    note(&Line::Ack { n: 0, id });
                    Ok(())
                });
                try_join_all(calls).await?;
            }
            until_signal(&celeriac, "up").await?;
        }
        _ => {
            celeriac.persistent().reset("io").await?;
            emptied(&celeriac).await?;
            celeriac.shutdown().await?;
            say("done");
        }
    }
    Ok(())
}

fn orders(seed: u64) -> String {
    Orders { seed, ..Orders::default() }.line()
}

/// A copy of a store that no program has open.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-r").args([from, to]).status().expect("it starts");
    assert!(copied.success(), "{} is not copied: {copied}", from.display());
}

pub fn killed_while_it_is_taken_over() {
    let seed = number("CRASH_SEED", rand::rng().random_range(0..1_000_000));
    println!("    CRASH_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut home = Home::new();
    let mut reader = Reader::open(&home.ledger());
    home.spawn("earlier", &orders(FILLS)).death().assert_clean();
    make_earlier(home.store());
    let earlier = home.store().to_owned();

    let whole = home.path().join("whole");
    copy(&earlier, &whole);
    home = home.with_store(whole);
    let life = home.spawn("earlier", &orders(OPENS));
    life.expect("up");
    let takes = now() - life.spawned_at;
    life.kill_9().assert_no_panic();
    reader.lines();

    let mut taken_over = 0;
    for store in 0..STORES {
        let dir = home.path().join(format!("store-{store}"));
        copy(&earlier, &dir);
        home = home.with_store(dir);
        for _ in 0..KILLS {
            let life = home.spawn("earlier", &orders(OPENS));
            // The moment of the kill is what this is about, so this is a sleep that is meant.
            std::thread::sleep(Duration::from_micros(rng.random_range(0..takes)));
            life.kill_9().assert_no_panic();
        }
        let layout = std::fs::read_to_string(home.store().join("layout")).expect("a store has a layout");
        taken_over += usize::from(layout.contains("layout 3"));
        let last = home.spawn("earlier", &orders(DRAINS));
        last.expect("done");
        last.death().assert_clean();

        let (mut accepted, mut begun): (BTreeSet<String>, BTreeMap<String, usize>) = Default::default();
        for line in reader.lines() {
            match line {
                Line::Ack { id, .. } => {
                    accepted.insert(id);
                }
                Line::Tick { id, .. } => *begun.entry(id).or_default() += 1,
                _ => {}
            }
        }
        let twice: Vec<_> = begun.iter().filter(|(_, runs)| **runs > 1).collect();
        assert!(twice.is_empty(), "they have run twice: {twice:?}");
        let lost: Vec<_> =
            (0..PLAIN).map(plain).chain(accepted).filter(|id| !begun.contains_key(id)).collect();
        assert!(lost.is_empty(), "they have not run: {lost:?}");
    }
    println!(
        "    {} kills of a start of about {} ms; {taken_over} of {STORES} stores were taken over before the last start",
        STORES * KILLS,
        takes / 1000
    );
}
