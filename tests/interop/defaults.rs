//! Python workers with Celery's defaults beside ours, without any `--without-…`: they mingle, gossip and elect, and
//! Celery's own command line prints the same of both.

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::Instant;

use celeriac::Celeriac;
use serde_json::{Value, json};

use crate::fleet::{Backend, Fleet, Mixed};
use crate::services::{CeleryWorker, PATIENCE, await_condition};

/// The nodes of the fleet: two programs of ours, and Python workers that have started after them.
const OURS: [&str; 2] = ["rust@localhost", "rust-two@localhost"];
const THEIRS: [&str; 3] = ["one@localhost", "two@localhost", "tried@localhost"];

/// One fleet for all tests of this file.
struct Defaults {
    mixed: Mixed,
    workers: [CeleryWorker; 3],
    /// What a Python worker complains of that is all alone.
    usual: BTreeSet<String>,
    /// Our clock before the Python workers started.
    clock: Value,
    _second: Celeriac,
}

fn defaults() -> &'static Defaults {
    static FLEET: LazyLock<Defaults> = LazyLock::new(|| {
        let fleet = Fleet::start("defaults", Backend::Redis, &[]);
        let alone = fleet.default_worker("alone");
        let usual = complaints(&alone);
        let log = alone.stop();
        assert!(log.contains("mingle: all alone"), "{log}");
        let mixed = Mixed::over(fleet);
        let second = mixed.another(OURS[1]);
        let clock = mixed.case("defaults.revoke_before", json!({ "nodes": OURS }));
        let workers = ["one", "two", "tried"].map(|node| mingled(&mixed, node));
        for worker in &workers {
            for node in OURS.into_iter().chain(THEIRS).filter(|node| *node != worker.node()) {
                await_condition(&format!("{} knows {node}", worker.node()), || {
                    let joined = worker.log().contains(&format!("{node} joined the party"));
                    if joined { Ok(()) } else { Err("not yet".to_owned()) }
                });
            }
        }
        Defaults { mixed, workers, usual, clock, _second: second }
    });
    &FLEET
}

/// Starts a worker that knows of others. Celery's waits one second for their answers; whoever was late for that is asked by
/// the next start.
fn mingled(mixed: &Mixed, node: &str) -> CeleryWorker {
    let begin = Instant::now();
    loop {
        let worker = mixed.default_worker(node);
        if worker.log().contains("mingle: sync with ") {
            return worker;
        }
        let log = worker.stop();
        assert!(begin.elapsed() < PATIENCE, "nobody answers its hello:\n{log}");
    }
}

/// What a worker's log says that is worse than information, without times and its name.
fn complaints(worker: &CeleryWorker) -> BTreeSet<String> {
    let log = worker.log();
    let worse = [": WARNING/", ": ERROR/", ": CRITICAL/"];
    let lines = log.lines().filter(|line| worse.iter().any(|level| line.contains(level)));
    lines
        .map(|line| line.split_once("] ").map_or(line, |(_, said)| said).replace(worker.node(), "this node"))
        .collect()
}

impl Defaults {
    /// The last worker is given wrong commands by another test, and may complain of them.
    fn is_calm(&self) {
        for worker in &self.workers[..2] {
            let new: Vec<String> = complaints(worker).difference(&self.usual).cloned().collect();
            assert!(new.is_empty(), "{} complains: {new:?}", worker.node());
        }
    }
}

/// They learn what is revoked and how late it is from ours, and complain of nothing that they do not say when alone.
#[test]
fn a_python_worker_with_celerys_defaults_mingles_with_ours() {
    let fleet = defaults();
    for worker in &fleet.workers {
        let log = worker.log();
        assert!(log.contains("mingle: sync with ") && log.contains("mingle: sync complete"), "{log}");
        assert!(!log.contains("mingle: sync with 0 nodes") && !log.contains("failed: "), "{log}");
    }
    fleet.mixed.case("defaults.mingled", json!({ "nodes": THEIRS, "clock": fleet.clock }));
    fleet.is_calm();
}

/// A candidate waits until it has as many acknowledgements as it knows workers, ours among them.
#[test]
fn elections_among_python_workers_complete() {
    let fleet = defaults();
    let all: Vec<&str> = OURS.into_iter().chain(THEIRS).collect();
    let id = fleet.mixed.case("defaults.elected", json!({ "candidates": &THEIRS[..2], "nodes": all }));
    let won = format!("I won the election '{}'", id.as_str().expect("an id"));
    let winners: Vec<bool> = fleet.workers.iter().map(|worker| worker.log().contains(&won)).collect();
    assert!(winners[0] || winners[1], "one of those that stood has won: {winners:?}");
    assert!(!winners[2], "it did not stand");
    // Everybody is told to stand; ours acknowledge, and never win.
    fleet.mixed.case("defaults.elected", json!({ "candidates": null, "nodes": all }));
    fleet.is_calm();
}

/// Each subcommand of `celery`, beside a Python worker. The differences are listed in the case with their reasons.
#[test]
fn celerys_command_line_prints_the_same_of_both() {
    let nodes = json!({ "python": THEIRS[2], "rust": OURS[0] });
    defaults().mixed.case("tools.inspect", nodes.clone());
    defaults().mixed.case("tools.control", nodes.clone());
    defaults().mixed.case("tools.events", nodes.clone());
    defaults().mixed.case("tools.status_graph_and_report", nodes);
}
