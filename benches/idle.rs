//! What a runtime costs that has nothing to do: `cargo bench --bench idle [-- --quick]`.
//!
//! The 24 queues of the shipped catalogue, started and left alone. The limit is this very program before that.

mod support;

use std::time::{Duration, Instant};

use celeriac::catalogue::Catalogue;
use celeriac::task;
use support::figures::{Series, Table, goal, time};
use support::process::{cpu, resident, size, threads};
use support::store::{Running, directory};
use support::{headline, rounds, sized};

#[task(ignore_result)]
async fn anything() {}

fn catalogue() -> Catalogue {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/celeriac.toml");
    Catalogue::load(file).expect("the shipped catalogue is right")
}

/// CPU per wall clock while nothing happens.
async fn idle(span: Duration) -> f64 {
    let (before, start) = (cpu(), Instant::now());
    tokio::time::sleep(span).await;
    (cpu() - before).as_secs_f64() / start.elapsed().as_secs_f64()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    headline("idle");
    let span = sized(Duration::from_secs(10), Duration::from_millis(500));
    let (bare_resident, bare_threads) = (resident(), threads());
    let bare = idle(span / 5).await;
    let (mut cost, mut up, mut again, mut down) =
        (Series::default(), Series::default(), Series::default(), Series::default());
    let (mut memory, mut count, mut workers) = (0, 0, 0);
    for round in 0..rounds() {
        let dir = directory();
        let start = Instant::now();
        let running = Running::embedded(dir.path(), catalogue()).await;
        up.push(start.elapsed().as_secs_f64());
        let tasks = running.celeriac.catalogue().queues.len() as u32;
        for row in running.celeriac.catalogue().queues.clone() {
            anything::s().queue(row.name.as_str()).delay().await.expect("accepted"); // every queue has worked once
            running.settled(&row.name).await;
        }
        assert_eq!(tasks, 24);
        if round == 0 {
            memory = resident();
            workers = running.celeriac.catalogue().queues.iter().map(|row| row.workers).sum();
        }
        tokio::time::sleep(sized(Duration::from_secs(6), Duration::ZERO)).await; // idle blocking threads end
        count = threads();
        cost.push(idle(span).await);
        let start = Instant::now();
        running.shutdown().await;
        down.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        let running = Running::embedded(dir.path(), catalogue()).await;
        again.push(start.elapsed().as_secs_f64());
        running.shutdown().await;
    }
    let seconds = |s: f64| time(Duration::from_secs_f64(s));
    let share = |s: f64| format!("{:.2}%", s * 100.0);
    let mut table = Table::new(&["24 queues, idle", "", "before"]);
    table.row(["CPU, of one core".to_owned(), cost.show(share), share(bare)]);
    table.row([
        "resident memory, each queue having worked once".to_owned(),
        size(memory),
        size(bare_resident),
    ]);
    table.row(["threads".to_owned(), count.to_string(), bare_threads.to_string()]);
    table.row(["start, new store, until all queues are up".to_owned(), up.show(seconds), String::new()]);
    table.row(["start, existing store".to_owned(), again.show(seconds), String::new()]);
    table.row(["shutdown".to_owned(), down.show(seconds), String::new()]);
    table.print(&format!("The shipped catalogue, {workers} workers"));
    println!("\n{}", goal(cost.median() < 0.005, "idle CPU under 0.5% of a core"));
}
