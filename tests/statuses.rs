//! Statuses as JSON: what a page or a dashboard reads without help.

use std::time::Duration;

use celeriac::{Celeriac, QueueRow, serial_task};
use serde_json::{Value, json, to_value};
use tokio::sync::Semaphore;

static STARTED: Semaphore = Semaphore::const_new(0);
static GATE: Semaphore = Semaphore::const_new(0);

#[serial_task(key = "{account}", queue = "books", soft_time_limit = "90s")]
async fn book(account: String) {
    let _ = account;
    STARTED.add_permits(1);
    GATE.acquire().await.expect("the gate is not closed").forget();
}

/// Longer than anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is told when everybody had the time to answer.
async fn complete(ask: impl AsyncFn() -> Option<Value>) -> Value {
    let asked = async {
        loop {
            if let Some(told) = ask().await {
                return told;
            }
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("an answer")
}

/// Whether a value is an instant of this century in ISO 8601, in UTC.
fn is_iso(value: &Value) -> bool {
    value
        .as_str()
        .is_some_and(|text| text.starts_with("20") && text.contains('T') && text.ends_with("+00:00"))
}

#[tokio::test]
async fn durations_are_milliseconds_and_times_are_iso_8601() {
    let row = QueueRow::new("books").with_target(Duration::from_millis(2500));
    let celeriac = Celeriac::builder().in_memory().queue(row).start().await.unwrap();
    let booked = book::s("a".into()).send(celeriac.client()).await.unwrap();
    STARTED.acquire().await.unwrap().forget();

    let status = complete(async || to_value(celeriac.queue("books").await.ok()?).ok()).await;
    assert_eq!(status["blockage_ms"], 0.0, "{status}");
    assert_eq!(status["running"], 1, "{status}");
    assert_eq!(status["forecasts"], json!({"right": 0, "of": 0, "coverage": null}), "{status}");
    let waits = &status["time_to_start"];
    assert_eq!(waits["target_ms"], 2500.0, "{status}");
    assert_eq!(waits["count"], 1, "{status}");
    for field in ["p50_ms", "p95_ms", "p99_ms", "max_ms", "mean_ms"] {
        assert!(waits[field].is_f64(), "{field}: {status}");
    }
    let running = complete(async || {
        let told = celeriac.running().await.ok()?;
        told.missing.is_empty().then(|| to_value(told).unwrap())
    })
    .await;
    let run = &running["replies"][0];
    assert_eq!(run["soft_time_limit_ms"], 90_000.0, "{running}");
    assert!(run["time_limit_ms"].is_null() && is_iso(&run["started_at"]), "{running}");
    let lanes = complete(async || {
        let told = celeriac.lanes(10).await.ok()?;
        told.missing.is_empty().then(|| to_value(told).unwrap())
    })
    .await;
    let holder = &lanes["replies"][0]["holders"][0];
    assert!(is_iso(&holder["since"]) && is_iso(&holder["run"]["started_at"]), "{lanes}");

    GATE.add_permits(1);
    booked.get(PATIENCE).await.unwrap();
    let report = to_value(celeriac.shutdown().await.unwrap()).unwrap();
    assert_eq!(report["drained"], true, "{report}");
    assert!(report["handed_back"] == 0 && report["took_ms"].is_f64(), "{report}");
}
