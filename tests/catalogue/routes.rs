//! Routes by patterns: HQ's throttle as it is shipped, the order of what decides, and each mistake by its exact text.

use celeriac::catalogue::{Argument, Catalogue, QueueRow, RouteRow};
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
    celeriac.client().enqueue(call).await.unwrap().queue
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
