//! `celeriac history` on an embedded store whose program does not run.

use celeriac::catalogue::{Pool, QueueRow};
use celeriac::task::TENANT;
use celeriac::{Celeriac, task};
use serde_json::Value;

use super::{celeriac as command, text};

const WAIT: std::time::Duration = std::time::Duration::from_secs(120);

#[task(name = "shop.sell", queue = "shop", max_retries = 0)]
async fn sell() {}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_is_printed_and_told_as_json() {
    let dir = tempfile::tempdir().expect("a directory");
    let row = QueueRow::new("shop").with_pool(Pool::Io);
    let program = Celeriac::builder().directory(dir.path()).queue(row).program_version("7").start();
    let program = program.await.expect("a start");
    for tenant in ["acme", "acme", "zoo"] {
        let sold = sell::s().header(TENANT, tenant).send(program.client()).await.expect("an enqueue");
        sold.get(WAIT).await.expect("it is sold");
    }
    program.as_operator("anna").resize("shop", 3).await.expect("more workers");
    program.shutdown().await.expect("an end");

    let told = |arguments: &[&str]| {
        let directory = dir.path().display().to_string();
        let arguments = [&["history", "--directory", directory.as_str()][..], arguments].concat();
        text(command(&arguments, dir.path()))
    };
    let (code, out, err) = told(&["--by", "tenant", "--step", "2d", "--since", "2d"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let of = |name: &str| -> u64 {
        // The range may touch two steps.
        let lines = out.lines().filter(|line| line.ends_with(&format!(" {name}")));
        lines
            .map(|line| line.split_whitespace().nth(2).expect("a number").parse::<u64>().expect("started"))
            .sum()
    };
    assert_eq!((of("acme"), of("zoo")), (2, 1), "{out}");
    for line in ["start 7 at here", "resize shop to 3 workers at here by anna", "stop 7 at here"] {
        assert!(out.lines().any(|found| found.ends_with(line)), "{line} is not in {out}");
    }
    let (code, out, _) = told(&["--json", "--queue", "shop"]);
    assert_eq!(code, Some(0));
    let json: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
    let rows = json["rows"].as_array().expect("rows");
    let started: u64 = rows.iter().map(|row| row["started"].as_u64().expect("a number")).sum();
    assert_eq!((started, &rows[0]["name"]), (3, &Value::from("shop")));
    assert_eq!(json["marks"][0]["what"], "start");
    assert_eq!((&json["nodes"], &json["unreadable"]), (&serde_json::json!(["here"]), &Value::from(0)));
    let (code, out, _) = told(&["--json", "--queue", "nowhere"]);
    let json: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
    assert_eq!((code, json["rows"].as_array().map(Vec::len)), (Some(0), Some(0)));
}

#[test]
fn a_command_line_that_names_no_place_is_told_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let (code, out, err) = text(command(&["history"], dir.path()));
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.contains("--directory DIR") && err.contains("--result-backend URL"), "{err}");
}
