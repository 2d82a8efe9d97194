//! `celeriac report` and `celeriac top --once` on an embedded store whose program does not run.

use std::path::Path;
use std::time::{Duration, Instant};

use celeriac::catalogue::QueueRow;
use celeriac::task::TENANT;
use celeriac::{Celeriac, TaskError, serial_task, task};
use serde_json::{Value, json};

use super::{celeriac as command, text};

const WAIT: Duration = Duration::from_secs(120);

#[task(queue = "exports")]
async fn build_export(n: u32) -> u32 {
    n
}

#[task(queue = "resting")]
async fn rest(n: u32) -> u32 {
    n
}

#[serial_task(
    scope = "imports",
    key = "{domain}",
    after_failure = "block",
    max_retries = 0,
    queue = "keyed",
    ignore_result
)]
async fn import_cases(domain: String, fail: bool) -> Result<(), TaskError> {
    if fail { Err(TaskError::permanent(format!("no case in {domain}"))) } else { Ok(()) }
}

async fn start(dir: &Path, is_served: bool) -> Celeriac {
    let rows =
        ["exports", "resting", "keyed", "celery"].map(|name| QueueRow::new(name).with_served(is_served));
    let builder = rows.into_iter().fold(Celeriac::builder(), celeriac::Builder::queue);
    builder.directory(dir).start().await.expect("a start")
}

/// A store with a blocked lane, a queue that stays paused, and a queue that one tenant floods.
async fn pressed(dir: &Path) {
    let program = start(dir, true).await;
    program.persistent().pause("resting").await.expect("a pause");
    import_cases::s("malawi".into(), true).send(program.client()).await.expect("an enqueue");
    let began = Instant::now();
    while program.lane("imports", "malawi").await.expect("a lane").is_none_or(|lane| lane.blocked.is_none()) {
        assert!(began.elapsed() < WAIT, "the failure blocks no lane");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    program.shutdown().await.expect("an end");
    let program = start(dir, false).await;
    let client = || program.client();
    import_cases::s("malawi".into(), false).send(client()).await.expect("an enqueue");
    rest::s(1).send(client()).await.expect("an enqueue");
    for n in 0..6 {
        let tenant = if n < 5 { "malaria" } else { "other" };
        build_export::s(n).header(TENANT, tenant).send(client()).await.expect("an enqueue");
    }
    program.shutdown().await.expect("an end");
}

fn told(dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let directory = dir.display().to_string();
    text(command(&[arguments, &["--directory", &directory]].concat(), dir))
}

fn json_of(out: &str) -> Value {
    serde_json::from_str(out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

fn finding<'a>(report: &'a Value, queue: &str) -> &'a Value {
    let findings = report["findings"].as_array().expect("a list");
    findings
        .iter()
        .find(|finding| finding["queue"] == queue)
        .unwrap_or_else(|| panic!("no {queue}: {report}"))
}

fn codes(of: &Value) -> Vec<&str> {
    of.as_array().expect("a list").iter().map(|one| one["code"].as_str().expect("a code")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_names_the_cause_of_each_and_rules_out_the_others() {
    let dir = tempfile::tempdir().expect("a directory");
    pressed(dir.path()).await;
    let (code, out, err) = told(dir.path(), &["report", "--json"]);
    assert_eq!((code, err.as_str()), (Some(1), "3 findings need a person.\n"));
    let report = json_of(&out);

    let flooded = finding(&report, "exports");
    assert_eq!(
        (codes(&flooded["causes"]), &flooded["condition"]),
        (vec!["not_served", "flood"], &json!("unserved"))
    );
    let says = "Tenant `malaria` has 5 of its 6 ready tasks; 1 other tenant has some.";
    assert_eq!(flooded["causes"][1]["says"], json!(says));
    assert_eq!(codes(&flooded["ruled_out"]), ["paused", "lane_blocked"]);
    assert!(flooded["since"].is_string(), "{flooded}");

    let resting = finding(&report, "resting");
    assert_eq!(codes(&resting["causes"]), ["paused", "not_served"]);
    assert_eq!(resting["sentence"], json!("Queue `resting` is paused; 1 task waits."));
    let resume = resting["causes"][0]["remedies"][0]["says"].as_str().expect("a remedy");
    assert!(resume.contains("celeriac control resume resting"), "{resume}");

    let keyed = finding(&report, "keyed");
    assert_eq!(codes(&keyed["causes"])[0], "not_served");
    assert!(codes(&keyed["causes"]).contains(&"lane_blocked"), "{keyed}");
    assert!(!codes(&keyed["ruled_out"]).contains(&"lane_blocked"), "{keyed}");
    assert!(report["scope"]["cannot_know"][0].as_str().is_some_and(|text| text.contains("does not run")));

    // With a promise, the queue is late, whoever serves it.
    let catalogue = dir.path().join("promises.toml");
    std::fs::write(&catalogue, "[[queue]]\nname = \"exports\"\ntarget = \"1ms\"\n").expect("a file");
    let catalogue = catalogue.display().to_string();
    let (code, out, _) = told(dir.path(), &["report", "--catalogue", &catalogue]);
    assert_eq!(code, Some(1));
    assert!(out.starts_with("Queue `exports` is late: its oldest ready task has waited for "), "{out}");
    for line in ["  cause: The program of this store does not run.", "    operator: Start the program."] {
        assert!(out.lines().any(|it| it == line), "{line}: {out}");
    }
    assert!(out.lines().any(|line| line.starts_with("  also: Tenant `malaria` has 5 of its 6")), "{out}");
    assert!(out.lines().last().is_some_and(|line| line.starts_with("asked: store, at 20")), "{out}");

    let (code, out, err) = told(dir.path(), &["top", "--once"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.starts_with("celeriac top   store, its program does not run   20"), "{out}");
    for row in ["■ exports", "‖ resting"] {
        assert!(out.lines().any(|line| line.starts_with(row)), "{row}: {out}");
    }
    assert!(!out.contains('\u{1b}'), "no colours");
    // Looking changes nothing.
    let (code, out, _) = told(dir.path(), &["store", "verify"]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.starts_with("8 waiting tasks"), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_work_is_well_and_so_says_the_program_that_has_it_open() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = start(dir.path(), true).await;
    let (code, out, err) = told(dir.path(), &["report"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.starts_with("All ") && out.contains("asked: node celeriac@"), "{out}");
    let report = program.report().await;
    assert!(report.findings.is_empty(), "{report:?}");
    // The tasks of the other tests have queues here, too.
    let is_well = |text: &str| text.starts_with("All ") && text.contains(" queues are well; 0 tasks run.");
    assert!(is_well(&report.to_string()), "{report}");
    program.shutdown().await.expect("an end");
    let (code, out, err) = told(dir.path(), &["report"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(is_well(&out), "{out}");
}

#[test]
fn a_place_and_a_terminal_are_needed() {
    let here = Path::new(super::ROOT);
    for arguments in [&["report"][..], &["top", "--once"]] {
        let (code, out, err) = text(command(arguments, here));
        assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
        assert!(err.contains("--directory DIR"), "{err}");
    }
    let (code, _, err) = text(command(&["top", "--directory", "nowhere"], here));
    assert_eq!(code, Some(2));
    assert!(err.contains("--once"), "{err}");
    let (code, _, err) = text(command(&["report", "--directory", "nowhere"], here));
    assert_eq!(code, Some(1));
    assert!(err.contains("there is no directory `nowhere`"), "{err}");
}
