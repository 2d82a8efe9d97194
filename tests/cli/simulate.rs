//! `celeriac simulate`: written loads, what a program has recorded, and what is wrong with either.

use std::path::Path;

use celeriac::catalogue::{Pool, QueueRow};
use celeriac::task::TENANT;
use celeriac::{Celeriac, task};
use serde_json::Value;

use super::{celeriac as command, text};

const WAIT: std::time::Duration = std::time::Duration::from_secs(120);

#[task(name = "shop.weigh", queue = "scales", max_retries = 0)]
async fn weigh() {}

fn write(dir: &Path, name: &str, contents: &str) {
    std::fs::write(dir.join(name), contents).unwrap_or_else(|error| panic!("{name}: {error}"));
}

fn simulate(dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    text(command(&[&["simulate"][..], arguments].concat(), dir))
}

fn catalogue(queue: &str, workers: usize) -> String {
    format!("[[queue]]\nname = \"{queue}\"\nworkers = {workers}\ntarget = \"30s\"\n")
}

fn json(out: &str) -> Value {
    serde_json::from_str(out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

/// Four tasks of ten seconds at once before one worker, and before two.
#[test]
fn a_written_load_is_told_under_both_catalogues() {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), "today.toml", &catalogue("celery", 1));
    write(dir.path(), "changed.toml", &catalogue("celery", 2));
    let load =
        "[[arrival]]\nqueue = \"celery\"\ntask = \"t\"\ntenant = \"acme\"\ncount = 4\ntakes = \"10s\"\n";
    write(dir.path(), "load.toml", load);
    let both = ["--load", "load.toml", "--today", "today.toml", "--catalogue", "changed.toml"];
    let (code, out, err) = simulate(dir.path(), &both);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let beginning =
        "4 tasks came within 0s.\nWhat stands before an arrow is today, as it was simulated.\n\nQUEUE ";
    assert!(out.starts_with(beginning), "{out}");
    let rows: Vec<String> = out
        .lines()
        .filter(|line| line.starts_with("celery "))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let waits = "4 10.0s -> 0s 30.0s -> 10.0s 30.0s -> 10.0s 100.0 % 1.00 -> 0.33";
    assert_eq!(rows, [format!("celery 30s {waits}"), format!("celery acme {waits}")]);
    let end = "\nMost of a promise that the p95 of a queue has used: 1.00 -> 0.33.\n\
               The last task starts so long after the last one came: 30.0s -> 10.0s.\n";
    assert!(out.ends_with(end), "{out}");
    let (code, out, _) =
        simulate(dir.path(), &["--load", "load.toml", "--catalogue", "changed.toml", "--json"]);
    let told = json(&out);
    assert_eq!(
        (code, &told["today"], &told["today_is"], &told["recorded"]),
        (Some(0), &Value::Null, &Value::Null, &Value::Null)
    );
    let queue = &told["changed"]["queues"][0];
    assert_eq!((queue["starts"].as_u64(), queue["p95_ms"].as_f64()), (Some(4), Some(10_000.0)));
}

/// The example of the manual.
#[test]
fn the_page_shows_what_the_command_prints() {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), "today.toml", &catalogue("mail_queue", 1));
    write(dir.path(), "changed.toml", &catalogue("mail_queue", 2));
    let load = "[[arrival]]\nqueue = \"mail_queue\"\ntask = \"t\"\ncount = 8\ntakes = \"10s\"\n";
    write(dir.path(), "load.toml", load);
    let both = ["--load", "load.toml", "--today", "today.toml", "--catalogue", "changed.toml"];
    let (code, out, err) = simulate(dir.path(), &both);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let page = std::fs::read_to_string(Path::new(super::ROOT).join("docs/simulate.md")).expect("the page");
    assert!(page.contains(&format!("```text\n{out}```\n")), "docs/simulate.md does not show {out}");
}

#[test]
fn the_same_seed_gives_the_same_output() {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), "changed.toml", &catalogue("celery", 3));
    let load = "[[arrival]]\nqueue = \"celery\"\ntask = \"t\"\nrate = \"2/s\"\nuntil = \"5m\"\ntakes = \"1s\"\np95 = \"4s\"\n";
    write(dir.path(), "load.toml", load);
    let told = |seed: &str| {
        let (code, out, err) = simulate(
            dir.path(),
            &["--load", "load.toml", "--catalogue", "changed.toml", "--seed", seed, "--json"],
        );
        assert_eq!((code, err.as_str()), (Some(0), ""));
        out
    };
    assert_eq!(told("7"), told("7"));
    assert_ne!(told("7"), told("8"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_program_has_recorded_is_simulated_under_another_catalogue() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let row = QueueRow::new("scales").with_pool(Pool::Io);
    let program = Celeriac::builder().directory(&data).queue(row).start().await.expect("a start");
    for tenant in ["acme", "acme", "zoo"] {
        let weighed = weigh::s().header(TENANT, tenant).send(program.client()).await.expect("an enqueue");
        weighed.get(WAIT).await.expect("it is weighed");
    }
    program.shutdown().await.expect("an end");

    write(dir.path(), "changed.toml", &catalogue("scales", 1));
    let recorded = ["--directory", "data", "--catalogue", "changed.toml", "--json"];
    let (code, out, err) = simulate(dir.path(), &recorded);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let told = json(&out);
    assert_eq!(told["recorded"], serde_json::json!({"runs": 3, "nodes": ["here"], "unreadable": 0}));
    assert_eq!((told["arrivals"].as_u64(), told["today_is"].as_str()), (Some(3), Some("measured")));
    for report in [&told["today"], &told["changed"]] {
        let queue = &report["queues"][0];
        assert_eq!((queue["queue"].as_str(), queue["starts"].as_u64()), (Some("scales"), Some(3)));
        let of = |tenant: &str| {
            let rows = report["tenants"].as_array().expect("tenants");
            rows.iter().find(|row| row["tenant"] == tenant).and_then(|row| row["starts"].as_u64())
        };
        assert_eq!((of("acme"), of("zoo")), (Some(2), Some(1)));
    }
    // What is written comes on top of it, and nobody has measured how that waited.
    let load = "[[arrival]]\nqueue = \"scales\"\ntask = \"shop.weigh\"\ncount = 5\ntakes = \"1s\"\n";
    write(dir.path(), "load.toml", load);
    let (_, out, _) = simulate(dir.path(), &[&recorded[..], &["--load", "load.toml"]].concat());
    let told = json(&out);
    assert_eq!((told["arrivals"].as_u64(), &told["today"]), (Some(8), &Value::Null));

    write(dir.path(), "other.toml", &catalogue("scalse", 1));
    let (code, out, err) = simulate(dir.path(), &["--directory", "data", "--catalogue", "other.toml"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(
        err.contains("tasks for the queue \"scales\"") && err.contains("did you mean \"scalse\"?"),
        "{err}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_keeps_no_history_records_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let row = QueueRow::new("scales").with_pool(Pool::Io);
    let program = Celeriac::builder().directory(&data).queue(row).keep_history(false).start().await;
    let program = program.expect("a start");
    weigh::s().send(program.client()).await.expect("an enqueue").get(WAIT).await.expect("it is weighed");
    program.shutdown().await.expect("an end");
    write(dir.path(), "changed.toml", &catalogue("scales", 1));
    let arguments = ["--directory", "data", "--last", "30m", "--catalogue", "changed.toml"];
    let (code, out, err) = simulate(dir.path(), &arguments);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.starts_with("no runs of tasks that came in the last 30m are recorded here."), "{err}");
    assert!(err.contains("--load FILE"), "{err}");
}

#[test]
fn what_is_wrong_is_told_with_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), "changed.toml", &catalogue("celery", 2));
    let (code, out, err) = simulate(dir.path(), &["--catalogue", "changed.toml"]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    for part in ["--load FILE", "--directory DIR", "--result-backend URL", "RabbitMQ alone keeps no record"] {
        assert!(err.contains(part), "{part} is not in {err}");
    }
    write(
        dir.path(),
        "load.toml",
        "[[arrival]]\nqueue = \"celery\"\ntask = \"t\"\ntakse = \"1s\"\ncount = 3\n",
    );
    let with = |catalogue: &str| simulate(dir.path(), &["--load", "load.toml", "--catalogue", catalogue]);
    let (code, _, err) = with("changed.toml");
    assert_eq!(code, Some(1));
    assert_eq!(
        err,
        "load.toml:1:1: arrival number 1 has no takes; add takes = \"2s\"\n\
         load.toml:4:1: unknown key \"takse\" in arrival number 1; did you mean \"takes\"?\n"
    );
    write(dir.path(), "broken.toml", "[[queue]]\nname = \"celery\"\nwokers = 3\n");
    let (code, _, err) = with("broken.toml");
    let mistake = "broken.toml:3:1: unknown key \"wokers\" in queue \"celery\"; did you mean \"workers\"?\n";
    assert_eq!((code, err.as_str()), (Some(1), mistake));
    write(
        dir.path(),
        "load.toml",
        "[[arrival]]\nqueue = \"celery\"\ntask = \"t\"\ntakes = \"1s\"\nrate = \"1000000/s\"\nuntil = \"1d\"\n",
    );
    let (code, _, err) = with("changed.toml");
    assert_eq!(code, Some(1));
    assert!(err.starts_with("the load has more than 5000000 tasks"), "{err}");
    let (code, _, err) = simulate(dir.path(), &["--load", "no.toml", "--catalogue", "changed.toml"]);
    assert_eq!(code, Some(1));
    assert!(err.starts_with("no.toml: cannot read the file"), "{err}");
}
