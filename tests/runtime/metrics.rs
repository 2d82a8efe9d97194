//! What Prometheus scrapes: exactly what ran, under celery-exporter's names and Celeriac's own, with bounded labels.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use actix_web::App;
use actix_web::body::to_bytes;
use actix_web::dev::Service;
use actix_web::http::{StatusCode, header};
use actix_web::test::{TestRequest, init_service};
use celeriac::core::token_bucket::RateLimit;
use celeriac::prometheus_client::encoding::prometheus_text;
use celeriac::prometheus_client::metrics::counter::Counter;
use celeriac::prometheus_client::registry::Registry;
use celeriac::task::canvas::signature;
use celeriac::web::metrics;
use celeriac::{Builder, Celeriac, Context, TaskError, task};

use crate::kit::{Gate, LONG, add, builder, hold, io_queue, memory, record, until, until_status};

#[task(name = "scraped.succeeds", queue = "scraped")]
async fn succeeds() {}

#[task(name = "scraped.fails", queue = "scraped", max_retries = 0)]
async fn fails(class: String) -> Result<(), TaskError> {
    Err(TaskError::permanent("no such order").with_python_type("builtins", class))
}

#[task(
    name = "scraped.retried",
    queue = "scraped",
    max_retries = 1,
    default_retry_delay = 0,
    retry_jitter = false
)]
async fn retried(ctx: Context) -> Result<(), TaskError> {
    if ctx.attempt() == 1 { Err(TaskError::failure(["once more"])) } else { Ok(()) }
}

#[task(name = "scraped.rejects", queue = "scraped")]
async fn rejects() -> Result<(), TaskError> {
    Err(TaskError::reject("not this one"))
}

#[task(queue = "scraped")]
async fn blocks_its_event_loop(gate: String) {
    Gate::named(&gate).pass_blocking();
}

/// A scrape, by series.
#[derive(Debug)]
struct Scrape(Vec<(String, BTreeMap<String, String>, f64)>);

impl Scrape {
    fn read(text: &str) -> Self {
        let series = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty());
            let labels = labels.map(|label| {
                let (name, text) = label.split_once("=\"").expect("a label");
                (name.to_owned(), text.trim_end_matches('"').to_owned())
            });
            (name.to_owned(), labels.collect(), value.parse().expect("a number"))
        });
        Self(series.collect())
    }

    /// The values of all series of this name with these labels, and perhaps others.
    fn all(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let fits = |of: &BTreeMap<String, String>| {
            labels.iter().all(|(label, text)| of.get(*label).is_some_and(|found| found == text))
        };
        let found = self.0.iter().filter(|(found, of, _)| found == name && fits(of));
        found.map(|(_, _, value)| *value).collect()
    }

    /// The value of the one series of this name with these labels.
    fn one(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let all = self.all(name, labels);
        assert!(all.len() < 2, "{name} {labels:?} is {} series", all.len());
        all.first().copied()
    }
}

/// Scrapes as Prometheus does.
async fn scrape_once(celeriac: &Celeriac) -> Scrape {
    let app = init_service(App::new().service(metrics(celeriac))).await;
    let request = TestRequest::get().uri("/metrics").to_request();
    let response = app.call(request).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(response.status(), StatusCode::OK);
    let kind = response.headers().get(header::CONTENT_TYPE).unwrap();
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    let body = to_bytes(response.into_body()).await.unwrap_or_else(|_| panic!("the body broke off"));
    Scrape::read(std::str::from_utf8(&body).unwrap())
}

/// Scrapes until the queue of these tests has answered: an event loop that has no time is left out of a scrape.
async fn scrape(celeriac: &Celeriac) -> Scrape {
    let start = Instant::now();
    loop {
        let told = scrape_once(celeriac).await;
        if told.one("celeriac_queue_up", &[OURS]) == Some(1.0) {
            return told;
        }
        assert!(start.elapsed() < LONG, "the queue does not answer: {told:?}");
    }
}

fn program() -> Builder {
    let rate = RateLimit::parse("1000/s").unwrap().unwrap();
    let row = io_queue("scraped", 4).with_target(Duration::from_secs(3_600));
    builder().queue(row.with_demote_above(rate).with_demote_to("io"))
}

/// Runs all kinds of tasks to their ends.
async fn run_some(celeriac: &Celeriac) {
    let client = || celeriac.client();
    for _ in 0..5 {
        record(&succeeds::s().send(client()).await.unwrap()).await;
    }
    for class in ["ValueError", "KeyError", "ValueError"] {
        record(&fails::s(class.to_owned()).send(client()).await.unwrap()).await;
    }
    record(&retried::s().send(client()).await.unwrap()).await;
    record(&rejects::s().send(client()).await.unwrap()).await;
    let later = succeeds::s().countdown(10 * LONG).send(client()).await.unwrap();
    assert_eq!(later.revoke(false).await, Ok(true));
    // The counters follow the ends by a moment.
    until_status(celeriac, "scraped", |queue| queue.running == 0 && queue.done == 6 && queue.rejected == 1)
        .await;
}

const QUEUE: (&str, &str) = ("queue_name", "scraped");
const OURS: (&str, &str) = ("queue", "scraped");

#[actix_web::test]
async fn a_scrape_has_exactly_what_ran() {
    let dir = tempfile::tempdir().unwrap();
    for celeriac in
        [program().in_memory().start().await.unwrap(), program().directory(dir.path()).start().await.unwrap()]
    {
        run_some(&celeriac).await;
        let gate = Gate::new();
        let held = hold::s(gate.name.clone()).queue("scraped").send(celeriac.client()).await.unwrap();
        gate.entered(1).await;
        let told = scrape(&celeriac).await;
        // Sent, received, started, succeeded, failed, retried, rejected, revoked. As in Celery, a retry is a call like any
        // other, and what is revoked while it waits was never received.
        let celerys = [
            ("scraped.succeeds", [6.0, 5.0, 5.0, 5.0, 0.0, 0.0, 0.0, 1.0]),
            ("scraped.fails", [3.0, 3.0, 3.0, 0.0, 3.0, 0.0, 0.0, 0.0]),
            ("scraped.retried", [2.0, 2.0, 2.0, 1.0, 0.0, 1.0, 0.0, 0.0]),
            ("scraped.rejects", [1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0]),
        ];
        for (task, expected) in celerys {
            let counts =
                ["sent", "received", "started", "succeeded", "failed", "retried", "rejected", "revoked"];
            let counts = counts.map(|what| {
                let all = told.all(&format!("celery_task_{what}_total"), &[("name", task), QUEUE]);
                assert!(!all.is_empty(), "{task} has no {what}: {told:?}");
                all.iter().sum::<f64>()
            });
            assert_eq!(counts, expected, "{task}");
        }
        for (exception, count) in [("", 0.0), ("ValueError", 2.0), ("KeyError", 1.0)] {
            let labels = [("name", "scraped.fails"), ("exception", exception)];
            assert_eq!(told.one("celery_task_failed_total", &labels), Some(count), "{exception}");
        }
        let rejected = [("name", "scraped.rejects"), ("exception", "Reject")];
        assert_eq!(told.one("celery_task_failed_total", &rejected), Some(1.0));
        // Only successes have a run time, and each start has a wait.
        for (task, runs, starts) in [("scraped.succeeds", Some(5.0), 5.0), ("scraped.fails", None, 3.0)] {
            let name = ("name", task);
            assert_eq!(told.one("celery_task_runtime_count", &[name]), runs, "{task}");
            assert_eq!(told.one("celery_task_runtime_bucket", &[name, ("le", "+Inf")]), runs, "{task}");
            assert_eq!(told.one("celery_task_queue_wait_time_count", &[name]), Some(starts), "{task}");
        }
        let buckets = told.all("celery_task_runtime_bucket", &[("name", "scraped.succeeds")]);
        assert_eq!(buckets.len(), 15, "celery-exporter's edges");
        assert!(buckets.is_sorted(), "{buckets:?}");
        // Queues and workers.
        for (name, expected) in [
            ("celery_queue_length", 0.0),
            ("celery_active_consumer_count", 1.0),
            ("celery_active_worker_count", 1.0),
            ("celery_active_process_count", 4.0),
        ] {
            assert_eq!(told.one(name, &[QUEUE]), Some(expected), "{name}");
        }
        assert_eq!(
            (told.one("celery_worker_up", &[]), told.one("celery_worker_tasks_active", &[])),
            (Some(1.0), Some(1.0))
        );
        // Celeriac's own: eleven tasks started for the first time, the one that is held among them.
        assert_eq!(told.one("celeriac_starts_total", &[OURS, ("within", "true")]), Some(11.0));
        assert_eq!(told.one("celeriac_starts_total", &[OURS, ("within", "false")]), Some(0.0));
        assert_eq!(told.one("celeriac_time_to_start_seconds_count", &[OURS]), Some(11.0));
        assert_eq!(told.one("celeriac_time_to_start_seconds_bucket", &[OURS, ("le", "3600")]), Some(11.0));
        for (state, runs) in [("SUCCESS", 6.0), ("FAILURE", 3.0), ("RETRY", 1.0), ("REJECTED", 1.0)] {
            let labels = [OURS, ("state", state)];
            assert_eq!(told.one("celeriac_time_to_run_seconds_count", &labels), Some(runs), "{state}");
        }
        for (state, slots) in [("busy", 1.0), ("idle", 3.0)] {
            assert_eq!(told.one("celeriac_slots", &[OURS, ("state", state)]), Some(slots), "{state}");
        }
        for (name, expected) in [
            ("celeriac_queue_up", 1.0),
            ("celeriac_target_seconds", 3_600.0),
            ("celeriac_threshold_seconds", 3_600.0),
            ("celeriac_blockage_seconds", 0.0),
            ("celeriac_promise_used_ratio", 0.0),
            ("celeriac_dead_letters", 1.0),
            ("celeriac_queue_halted", 0.0),
            ("celeriac_queue_paused", 0.0),
            ("celeriac_panics_total", 0.0),
        ] {
            assert_eq!(told.one(name, &[OURS]), Some(expected), "{name}");
        }
        assert_eq!(
            told.one("celeriac_target_seconds", &[("queue", "io")]),
            None,
            "nothing is promised there"
        );
        gate.open();
        held.get(LONG).await.unwrap();
        celeriac.shutdown().await.unwrap();
        assert_eq!(scrape_once(&celeriac).await.one("celery_worker_up", &[]), Some(0.0));
    }
}

#[actix_web::test]
async fn what_waits_is_told_by_its_reason() {
    let celeriac = program().in_memory().start().await.unwrap();
    celeriac.pause("scraped").await.unwrap();
    let waiting = succeeds::s().send(celeriac.client()).await.unwrap();
    succeeds::s().countdown(10 * LONG).send(celeriac.client()).await.unwrap();
    let told = async || scrape(&celeriac).await;
    until("both wait", async || {
        let told = told().await;
        let of = |reason| told.one("celeriac_waiting", &[OURS, ("reason", reason)]);
        (of("pause"), of("eta"), of("slot")) == (Some(1.0), Some(1.0), Some(0.0))
    })
    .await;
    let told = told().await;
    assert_eq!(told.one("celery_queue_length", &[QUEUE]), Some(1.0));
    assert_eq!(told.one("celeriac_queue_paused", &[OURS]), Some(1.0));
    assert!(told.one("celeriac_oldest_wait_seconds", &[OURS]).unwrap() > 0.0);
    celeriac.resume("scraped").await.unwrap();
    waiting.get(LONG).await.unwrap();
    celeriac.shutdown().await.unwrap();
}

#[task(queue = "scraped", rate_limit = "1/h")]
async fn hourly() {}

#[actix_web::test]
async fn what_a_limit_holds_is_told_apart() {
    let celeriac = program().in_memory().start().await.unwrap();
    hourly::s().send(celeriac.client()).await.unwrap().get(LONG).await.unwrap();
    let held = hourly::s().send(celeriac.client()).await.unwrap();
    let limit = [OURS, ("reason", "limit")];
    until("it is held", async || scrape(&celeriac).await.one("celeriac_waiting", &limit) == Some(1.0)).await;
    let told = scrape(&celeriac).await;
    assert!(told.one("celeriac_oldest_held_seconds", &[OURS]).unwrap() > 0.0);
    assert_eq!(told.one("celery_queue_length", &[QUEUE]), Some(0.0), "it could not start");
    assert_eq!(told.one("celeriac_blockage_seconds", &[OURS]), Some(0.0));
    assert_eq!(told.one("celeriac_limit_wait_seconds_count", &[OURS]), Some(0.0), "no limit has let any go");
    assert_eq!(held.revoke(false).await, Ok(true));
    celeriac.shutdown().await.unwrap();
}

/// Names that come from outside are not told apart: whoever can send tasks could make labels without end.
#[actix_web::test]
async fn tasks_that_the_program_does_not_have_share_one_label() {
    let celeriac = program().in_memory().start().await.unwrap();
    for n in 0..20 {
        let _ = signature(format!("nobody.{n}")).queue("scraped").send(celeriac.client()).await.unwrap();
    }
    until_status(&celeriac, "scraped", |queue| queue.rejected == 20).await;
    let told = scrape(&celeriac).await;
    let other = [("name", "other"), QUEUE, ("exception", "NotRegistered")];
    assert_eq!(told.one("celery_task_failed_total", &other), Some(20.0));
    for what in ["received", "started", "failed", "succeeded"] {
        assert_eq!(
            told.all(&format!("celery_task_{what}_total"), &[("name", "nobody.7")]),
            [0.0; 0],
            "{what}"
        );
    }
    assert_eq!(
        told.all("celery_task_sent_total", &[("name", "nobody.7"), QUEUE]),
        [1.0],
        "its sender knows it"
    );
    celeriac.shutdown().await.unwrap();
}

/// Tenants are no label, and of the errors of a task fifty are told apart.
#[actix_web::test]
async fn many_tenants_and_many_errors_make_no_more_series() {
    let celeriac = program().in_memory().start().await.unwrap();
    for n in 0..80 {
        let call = fails::s(format!("Error{n}")).tenant(format!("tenant-{n}"));
        record(&call.send(celeriac.client()).await.unwrap()).await;
    }
    until_status(&celeriac, "scraped", |queue| queue.failed == 80).await;
    let told = scrape(&celeriac).await;
    let failed = told.all("celery_task_failed_total", &[("name", "scraped.fails"), QUEUE]);
    assert_eq!(failed.len(), 52, "fifty errors, all others together, and the series without one: {failed:?}");
    assert_eq!(failed.iter().sum::<f64>(), 80.0);
    let of_tenants =
        told.0.iter().filter(|(_, labels, _)| labels.values().any(|text| text.contains("tenant-")));
    assert_eq!(of_tenants.count(), 0, "{told:?}");
    celeriac.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_queue_that_does_not_answer_is_left_out_by_name() {
    let celeriac = program().in_memory().start().await.unwrap();
    let gate = Gate::new();
    let task = blocks_its_event_loop::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    until("the queues of the other event loop answer", async || {
        let told = scrape_once(&celeriac).await;
        assert_eq!(told.one("celeriac_queue_up", &[OURS]), Some(0.0));
        assert_eq!(told.one("celery_queue_length", &[QUEUE]), None);
        told.one("celeriac_queue_up", &[("queue", "cpu")]) == Some(1.0)
    })
    .await;
    gate.open();
    task.get(LONG).await.unwrap();
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_programs_own_registry_shows_what_was_read_last() {
    let celeriac = memory().await;
    let mut registry = Registry::default();
    let orders: Counter = Counter::default();
    registry.register("orders", "Orders that came", orders.clone());
    let reader = celeriac.register(&mut registry);
    let told = || {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &registry).unwrap();
        Scrape::read(&text)
    };
    assert_eq!(told().all("celery_worker_tasks_active", &[]), [0.0], "nothing is read yet");
    assert_eq!(told().all("celery_task_succeeded_total", &[]), [0.0; 0]);
    orders.inc();
    assert_eq!(add::s(1, 1).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(2));
    until("the task is counted", async || {
        reader.read().await;
        told().all("celery_task_succeeded_total", &[("queue_name", "io")]) == [1.0]
    })
    .await;
    assert_eq!(told().all("orders_total", &[]), [1.0]);
    celeriac.shutdown().await.unwrap();
}

/// The text of a file of the repository.
fn file(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| word.starts_with("celery_") || word.starts_with("celeriac_"));
    let family = |name: &str| {
        let part = ["_bucket", "_sum"].iter().find_map(|suffix| name.strip_suffix(*suffix));
        part.unwrap_or(name).to_owned()
    };
    names.map(family).collect()
}

#[actix_web::test]
async fn the_board_the_alerts_and_the_manual_name_what_there_is() {
    let celeriac = program().in_memory().start().await.unwrap();
    run_some(&celeriac).await;
    let start = Instant::now();
    let text = loop {
        let text = celeriac.metrics_text().await;
        if Scrape::read(&text).one("celeriac_queue_up", &[OURS]) == Some(1.0) {
            break text;
        }
        assert!(start.elapsed() < LONG, "the queue does not answer: {text}");
    };
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let there: BTreeSet<String> = types.map(str::to_owned).collect();
    let page = file("docs/metrics.md");
    let explained: BTreeSet<String> =
        page.lines().filter(|line| line.starts_with("| `cel")).flat_map(names).collect();
    assert_eq!(explained, there, "docs/metrics.md has a row for each metric");
    for shown in ["docs/grafana/board.json", "docs/grafana/alerts.yml"] {
        let named = names(&file(shown));
        assert!(named.len() > 8, "{shown}: only {named:?} were found: the search is broken");
        let unknown: Vec<_> = named.difference(&there).collect();
        assert!(unknown.is_empty(), "{shown} names what is not there: {unknown:?}");
    }
    let board: serde_json::Value = serde_json::from_str(&file("docs/grafana/board.json")).unwrap();
    assert!(board["panels"].as_array().is_some_and(|panels| panels.len() > 10));
    celeriac.shutdown().await.unwrap();
}
