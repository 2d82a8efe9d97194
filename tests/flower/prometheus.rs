//! Prometheus from Debian in front of a program of ours: what it scrapes, what its linter says, and the alert rules.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use actix_web::{App, HttpServer};
use celeriac::Celeriac;
use celeriac::catalogue::QueueRow;
use celeriac::web::metrics;

use crate::flower::ask;
use crate::services::{PATIENCE, Prometheus, await_condition, blocking, promtool};
use crate::{add, fails};

fn rules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/grafana")
}

/// A program in which three tasks have succeeded and one has failed.
async fn program() -> Celeriac {
    let row =
        QueueRow::new("rust").with_io_bound(true).with_workers(4).with_target(Duration::from_secs(3_600));
    let celeriac = Celeriac::builder().in_memory().queue(row).start().await.expect("it starts");
    for n in 0..3 {
        let sum = add::s(n, n).send(celeriac.client()).await.unwrap();
        assert_eq!(sum.get(PATIENCE).await, Ok(2 * n));
    }
    let failed = fails::s("no such order".into()).send(celeriac.client()).await.unwrap();
    failed.get(PATIENCE).await.unwrap_err();
    celeriac
}

#[test]
fn each_alert_fires_when_it_should_and_says_what_to_do() {
    let (alerts, cases) = (rules().join("alerts.yml"), rules().join("alerts-test.yml"));
    promtool(&["check", "rules", alerts.to_str().unwrap()], None).expect_success("promtool check rules");
    promtool(&["test", "rules", cases.to_str().unwrap()], None).expect_success("promtool test rules");
    let (text, tested) = (std::fs::read_to_string(alerts).unwrap(), std::fs::read_to_string(cases).unwrap());
    let all: Vec<&str> = text.split("- alert: ").skip(1).collect();
    assert!(all.len() > 8, "only {} were found: the search is broken", all.len());
    for alert in all {
        let name = alert.lines().next().unwrap();
        assert!(alert.contains("          action: "), "{name} does not say what to do");
        assert!(tested.contains(&format!("alertname=\"{name}\"")), "{name} is not tested");
    }
}

/// Its linter dislikes three of celery-exporter's names, and nothing else.
#[tokio::test]
async fn promtool_reads_a_scrape() {
    let celeriac = program().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("scrape");
    let start = Instant::now();
    let text = loop {
        let text = celeriac.metrics_text().await;
        // A queue whose event loop has no time is left out.
        if text.contains("celery_queue_length{queue_name=\"rust\"}") {
            break text;
        }
        assert!(start.elapsed() < PATIENCE, "{text}");
    };
    std::fs::write(&file, text).unwrap();
    let told = promtool(&["check", "metrics"], Some(&file));
    let disliked =
        ["celery_active_consumer_count", "celery_active_process_count", "celery_active_worker_count"];
    let lines: Vec<&str> = told.stderr.lines().collect();
    assert_eq!(lines.len(), disliked.len(), "{told:?}");
    for (line, name) in lines.iter().zip(disliked) {
        assert!(line.starts_with(name) && line.contains("\"_count\" suffix"), "{told:?}");
    }
    celeriac.shutdown().await.unwrap();
}

#[actix_web::test]
async fn prometheus_scrapes_a_running_program_and_evaluates_its_alerts() {
    let celeriac = program().await;
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = celeriac.clone();
    let server = HttpServer::new(move || App::new().service(metrics(&served)));
    let server = server.workers(1).disable_signals().listen(listener).unwrap().run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    blocking(move || {
        let prometheus = Prometheus::scraping(port, &rules().join("alerts.yml"));
        // As the boards and alerts of celery-exporter ask, and ours.
        for (expression, value) in [
            ("up", 1.0),
            ("count(celery_worker_up{job=~\".*celery.*\"} == 1)", 1.0),
            ("sum(celery_worker_tasks_active)", 0.0),
            ("sum by (job, queue_name) (celery_queue_length{queue_name=\"rust\"})", 0.0),
            ("sum by (queue_name) (celery_active_process_count{queue_name=\"rust\"})", 4.0),
            ("sum by (name) (celery_task_sent_total{name=\"shop.add\"})", 3.0),
            ("sum by (name) (celery_task_received_total{name=\"shop.add\"})", 3.0),
            ("sum by (name) (celery_task_succeeded_total{name=\"shop.add\"})", 3.0),
            ("sum by (job, exception) (celery_task_failed_total{name=\"shop.fails\", exception=\"String\"})", 1.0),
            ("sum(celery_task_runtime_count{name=\"shop.add\"})", 3.0),
            ("sum(celery_task_queue_wait_time_count{queue_name=\"rust\"})", 4.0),
            ("sum(celeriac_starts_total{queue=\"rust\", within=\"true\"})", 4.0),
            ("histogram_quantile(1, sum by (le) (celeriac_time_to_start_seconds_bucket{queue=\"rust\"})) <= bool 3600", 1.0),
            ("celeriac_blockage_seconds > bool celeriac_threshold_seconds", 0.0),
        ] {
            prometheus.until(expression, value);
        }
        await_condition("all rules are evaluated", || {
            let answer = ask(prometheus.port(), "GET", "/api/v1/rules?type=alert").map_err(|error| error.to_string())?;
            let told = answer.json();
            let rules = told["data"]["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
            let well = !rules.is_empty() && rules.iter().all(|rule| rule["health"] == "ok");
            if well { Ok(()) } else { Err(answer.body) }
        });
    })
    .await;
    handle.stop(false).await;
    celeriac.shutdown().await.unwrap();
}
