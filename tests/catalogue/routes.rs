//! Routes by patterns: HQ's throttle as it is shipped, the order of what decides, rows about run times, and each mistake by its
//! exact text.

use std::time::Duration;

use celeriac::catalogue::{Argument, Catalogue, QueueRow, RouteRow};
use celeriac::core::durations::RunTimeBy;
use celeriac::task::{Arguments, NewTask, TaskOptions};
use celeriac::{Celeriac, task};

use crate::{SHIPPED, errors_of, parse};

#[task(name = "hq.send_report", queue = "background_queue")]
fn send_report(report: u64, domain: String) {
    let _ = (report, domain);
}

#[task(name = "feed.tasks.fetch")]
fn fetch(url: String) {
    let _ = url;
}

async fn start(catalogue: Catalogue) -> Celeriac {
    Celeriac::builder().catalogue(catalogue).in_memory().start().await.unwrap()
}

/// Where a call by name goes.
async fn queue_of(celeriac: &Celeriac, task: &str, args: &str, kwargs: &str) -> String {
    let mut call = NewTask::new(task, TaskOptions::default());
    call.arguments = Arguments { args: args.into(), kwargs: kwargs.into() };
    celeriac.client().enqueue(Box::new(call)).await.unwrap().queue
}

#[tokio::test]
async fn hqs_throttle_is_a_row_of_the_shipped_file() {
    let celeriac = start(parse(SHIPPED)).await;
    for (domain, queue) in [
        ("mvp-sauri", "send_report_throttled"),
        ("ews-ghana", "send_report_throttled"),
        ("ews-ghana-2", "background_queue"),
        ("demo-mvp-", "background_queue"),
    ] {
        let sent = send_report::s(1, domain.into()).send(celeriac.client()).await.unwrap();
        assert_eq!(sent.receipt().queue, queue, "{domain}");
    }
    let urgent = send_report::s(1, "mvp-sauri".into()).queue("celery").send(celeriac.client()).await.unwrap();
    assert_eq!(urgent.receipt().queue, "celery");
    // Of a task that only a Python worker knows, arguments by name are found.
    let foreign = "corehq.saved_reports.send_report";
    assert_eq!(queue_of(&celeriac, foreign, "[1]", r#"{"domain":"mvp-x"}"#).await, "send_report_throttled");
    assert_eq!(queue_of(&celeriac, foreign, r#"[1,"mvp-x"]"#, "").await, "celery");
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_first_row_that_fits_counts_before_exact_routes_and_the_tasks_own_queue() {
    let queues = ["celery", "background_queue", "a", "b", "c", "d"];
    let catalogue =
        queues.into_iter().fold(Catalogue::new(), |all, name| all.with_queue(QueueRow::new(name)));
    let catalogue = catalogue
        .with_alias("second", "b")
        .with_route("feed.tasks.fetch", "d")
        .with_route("only.python", "d")
        .with_route_row(
            RouteRow::new("feed.*", "a").with_argument(Argument::Name("url".into()), ["https://"]),
        )
        .with_route_row(RouteRow::new("feed.*", "second").with_argument(Argument::Position(0), ["http"]))
        .with_route_row(RouteRow::new("hq.?end_report", "c"));
    assert_eq!(catalogue.validate(), Ok(()));
    let celeriac = start(catalogue).await;
    for (url, queue) in [("https://x", "a"), ("http://x", "b"), ("ftp://x", "d")] {
        let sent = fetch::s(url.into()).send(celeriac.client()).await.unwrap();
        assert_eq!(sent.receipt().queue, queue, "{url}");
    }
    let report = send_report::s(1, "any".into()).send(celeriac.client()).await.unwrap();
    assert_eq!(report.receipt().queue, "c");
    assert_eq!(queue_of(&celeriac, "only.python", "[]", "").await, "d");
    assert_eq!(queue_of(&celeriac, "feed.other", r#"["http:"]"#, "").await, "b");
    assert_eq!(queue_of(&celeriac, "feed.other", "[]", "").await, "celery");
    celeriac.shutdown().await.unwrap();
}

#[test]
fn rows_are_read_as_they_are_written() {
    let catalogue = parse(
        "queue = [{ name = \"q\" }]\n[[route]]\ntask_pattern = \"(video|image)\\\\.\"\nqueue = \"q\"\n\
         [[route]]\ntask = \"t\"\nargument = 1\nmatches = [\"x\"]\nqueue = \"q\"\n",
    );
    let rows: Vec<_> = catalogue.route_rows.iter().map(ToString::to_string).collect();
    assert_eq!(rows, [r"/(video|image)\./ goes to q", "\"t\" with argument 1 like /x/ goes to q"]);
    assert_eq!(parse(SHIPPED).route_rows.len(), 1);
}

#[test]
fn each_mistake_is_told_with_its_place() {
    let text = r#"[[queue]]
name = "email_queue"
[[route]]
task = "a"
queue = "emial_queue"
[[route]]
queue = "email_queue"
[[route]]
task = "a"
task_pattern = "b"
queue = "email_queue"
[[route]]
task = "a"
argument = "domain"
queue = "email_queue"
[[route]]
task = "a"
matches = ["x"]
[[route]]
task_pattern = "("
queue = "email_queue"
[[route]]
task = "a"
argument = -1
matches = "x"
queue = "email_queue"
[[route]]
task = "a"
argument = "x"
matches = ["a)(b"]
quue = "email_queue"
queue = "email_queue"
[[route]]
task = ""
argument = "x"
matches = []
queue = "email_queue"
"#;
    let expected = r#"celeriac.toml:3:1: route "a" leads to "emial_queue", but there is no such queue; did you mean "email_queue"?
celeriac.toml:6:1: route number 2 has no task; add task = "..."
celeriac.toml:10:1: "task_pattern" in route number 3 is beside `task`; keep one of `task` and `task_pattern`
celeriac.toml:12:1: route number 4 has no matches; add matches = ["..."]
celeriac.toml:16:1: route number 5 has no argument; add argument = "..."
celeriac.toml:16:1: route number 5 has no queue; add queue = "..."
celeriac.toml:19:1: "task_pattern" in route /(/ is "("; write a regular expression: unclosed group
celeriac.toml:24:12: "argument" in route number 7 must be a name, or a position from 0, not the integer -1
celeriac.toml:25:11: "matches" in route number 7 must be an array of patterns such as ["big-"], not the string "x"
celeriac.toml:27:1: "matches" in route "a" is "a)(b"; write a regular expression: unopened group
celeriac.toml:31:1: unknown key "quue" in route number 8; did you mean "queue"?
celeriac.toml:33:1: the name "" of a task is empty; write at least one character
celeriac.toml:33:1: "matches" in route "" is empty; write at least one pattern"#;
    let found = errors_of(text);
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.lines().count(), expected.lines().count(), "{found}");
    assert_eq!(
        errors_of("[route]\ntask = \"a\"\n"),
        "celeriac.toml:1:2: \"route\" at the top level must be an array of tables: begin each route with [[route]] and \
         task = \"...\", not a table"
    );
}

#[test]
fn rows_about_run_times_are_read_as_they_are_written() {
    let catalogue = parse(
        r#"
queue = [{ name = "q" }, { name = "big" }]
[[route]]
task = "hq.exports.*"
argument = "build_id"
longer_than = "10m"
queue = "big"
[[route]]
task = "t"
argument = "domain"
matches = ["mvp-"]
longer_than = "1h"
shorter_than = "2h30m"
by = "p95"
queue = "q"
[[environment.live.route]]
task = "t"
shorter_than = "30s"
by = "mean"
queue = "q"
"#,
    );
    let by_value = RouteRow::new("hq.exports.*", "big")
        .with_run_times_of(Argument::Name("build_id".into()))
        .with_longer_than(Duration::from_secs(600));
    let between = RouteRow::new("t", "q")
        .with_argument(Argument::Name("domain".into()), ["mvp-"])
        .with_longer_than(Duration::from_secs(3_600))
        .with_shorter_than(Duration::from_secs(9_000))
        .with_run_time_by(RunTimeBy::P95);
    assert_eq!(catalogue.route_rows, [by_value, between]);
    let live = catalogue.for_environment("live").unwrap_or_else(|errors| panic!("{errors}"));
    let rows: Vec<_> = live.route_rows.iter().map(ToString::to_string).collect();
    let expected = [
        "\"t\" whose mean run time is shorter than 30s goes to q",
        "\"hq.exports.*\" whose last run time with the same \"build_id\" is longer than 10m goes to big",
        "\"t\" with \"domain\" like /mvp-/ whose p95 run time with the same \"domain\" is longer than 1h and shorter than 2h30m goes to q",
    ];
    assert_eq!(rows, expected);
    assert_eq!(live.validate(), Ok(()));
}

#[test]
fn each_mistake_about_run_times_is_told_with_its_place() {
    let text = r#"queue = [{ name = "q" }]
[[route]]
task = "a"
longer_than = "ten"
queue = "q"
[[route]]
task = "a"
longer_than = 600
queue = "q"
[[route]]
task = "a"
shorter_than = "0s"
queue = "q"
[[route]]
task = "a"
longer_then = "10m"
queue = "q"
[[route]]
task = "a"
longer_than = "10m"
by = "maen"
queue = "q"
[[route]]
task = "a"
longer_than = "10m"
by = "average"
queue = "q"
[[route]]
task = "a"
by = "p95"
queue = "q"
[[route]]
task = "a"
longer_than = "10m"
shorter_than = "10m"
queue = "q"
[[route]]
task = "a"
argument = "build_id"
matches = []
longer_than = "10m"
queue = "q"
[[route]]
task = "a"
matches = ["x"]
longer_than = "10m"
queue = "big"
"#;
    let expected = r#"celeriac.toml:4:15: "longer_than" in route number 1 is "ten"; write a duration such as "500ms", "30s", "15m", "6h" or "1h30m"
celeriac.toml:8:15: "longer_than" in route number 2 must be a duration in quotes such as "30s", not the integer 600
celeriac.toml:12:16: "shorter_than" in route number 3 is "0s"; write a duration above zero
celeriac.toml:16:1: unknown key "longer_then" in route number 4; did you mean "longer_than"?
celeriac.toml:21:6: "by" in route number 5 is "maen"; did you mean "mean"?
celeriac.toml:26:6: "by" in route number 6 is "average"; write "last" or "mean" or "p95"
celeriac.toml:30:6: "by" in route number 7 is "p95"; it says which run time longer_than and shorter_than are about: add one of them, or leave it out
celeriac.toml:32:1: "shorter_than" in route "a" is "10m"; write more than longer_than, which is "10m": no run time is both
celeriac.toml:40:11: "matches" in route number 9 is []; write at least one pattern, or leave it out: then every value of the argument matches
celeriac.toml:43:1: route number 10 has no argument; add argument = "..."
celeriac.toml:43:1: route "a" leads to "big", but there is no such queue; add a [[queue]] with name = "big" or name one that is there"#;
    let found = errors_of(text);
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.lines().count(), expected.lines().count(), "{found}");
}

#[test]
fn a_row_that_was_built_in_code_obeys_the_same_rules() {
    let told = |row: RouteRow| {
        let catalogue = Catalogue::new().with_queue(QueueRow::new("q")).with_route_row(row);
        catalogue.validate().map_err(|errors| errors.to_string())
    };
    let row = || RouteRow::new("a", "q");
    let hour = Duration::from_secs(3_600);
    assert_eq!(told(row().with_longer_than(hour).with_run_times_of(Argument::Position(0))), Ok(()));
    for (row, wrong) in [
        (
            row().with_longer_than(Duration::ZERO),
            "\"longer_than\" in route \"a\" is 0s; set a duration above zero",
        ),
        (
            row().with_longer_than(hour).with_shorter_than(hour),
            "write more than longer_than, which is \"1h\"",
        ),
        (
            row().with_run_time_by(RunTimeBy::Mean),
            "\"by\" in route \"a\" is \"mean\"; it says which run time",
        ),
        (row().with_run_times_of(Argument::Position(0)), "\"matches\" in route \"a\" is empty"),
    ] {
        let found = told(row).expect_err("a mistake");
        assert!(found.contains(wrong), "{found}");
    }
}
