//! What probes are told: whether the program lives, whether it is ready, and what is wrong.

use std::time::Duration;

use actix_web::App;
use actix_web::body::to_bytes;
use actix_web::dev::Service;
use actix_web::http::Method;
use actix_web::test::{TestRequest, init_service};
use celeriac::web::health;
use celeriac::{Celeriac, QueueRow, task, testing};
use serde_json::{Value, json};

use crate::kit::{Gate, LONG, builder, io_queue, memory, until_status};

const MINUTE: Duration = Duration::from_secs(60);

#[task(queue = "promised")]
async fn is_promised() {}

#[task(queue = "io")]
async fn blocks_its_event_loop(gate: String) {
    Gate::named(&gate).pass_blocking();
}

/// The status and the JSON of a probe.
async fn probe(celeriac: &Celeriac, path: &str) -> (u16, Value) {
    let app = init_service(App::new().service(health(celeriac))).await;
    let response = app.call(TestRequest::get().uri(path).to_request()).await;
    let response = response.unwrap_or_else(|error| panic!("{error}"));
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body()).await.unwrap_or_else(|_| panic!("the body broke off"));
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

/// The promise is 30 seconds, but short blocks are no alarm: five minutes are allowed.
#[actix_web::test]
async fn a_blocked_queue_makes_the_program_unready_with_the_reason() {
    let row = QueueRow::new("promised").with_target(MINUTE / 2);
    let app = testing::builder().program(Celeriac::builder().queue(row)).start().await.unwrap();
    is_promised::delay().await.unwrap();
    app.jump(4 * MINUTE);
    let well = json!({ "severity": null, "troubles": [] });
    assert_eq!(probe(app.celeriac(), "/health/ready").await, (200, well.clone()));
    app.jump(2 * MINUTE);
    for path in ["/health/ready", "/health"] {
        let (status, told) = probe(app.celeriac(), path).await;
        assert_eq!((status, &told["severity"]), (503, &json!("critical")), "{path}: {told}");
        let trouble = &told["troubles"][0];
        assert_eq!((&trouble["kind"], &trouble["queue"]), (&json!("queue_blocked"), &json!("promised")));
        let reason =
            "queue `promised` is blocked: none of the tasks that could start (1) has for 6m; 5m are allowed";
        assert_eq!(trouble["reason"], reason);
        assert!(trouble["action"].as_str().is_some_and(|action| action.contains("more workers")), "{told}");
    }
    assert_eq!(probe(app.celeriac(), "/health/live").await, (200, json!({ "live": true })));
    app.run_until_idle().await;
    assert_eq!(probe(app.celeriac(), "/health/ready").await, (200, well));
}

#[actix_web::test]
async fn a_queue_that_has_stopped_itself_is_critical() {
    let celeriac = builder()
        .queue(io_queue("sick", 1).with_max_restarts(0).with_restart_window(10 * LONG))
        .in_memory()
        .on_worker_start(|queue, _| assert!(queue != "sick", "no connection"))
        .start()
        .await
        .unwrap();
    until_status(&celeriac, "sick", |queue| queue.halted.is_some()).await;
    let (status, told) = probe(&celeriac, "/health/ready").await;
    assert_eq!(status, 503, "{told}");
    let troubles = told["troubles"].as_array().unwrap();
    let sick = troubles.iter().find(|trouble| trouble["queue"] == "sick").expect("it is named");
    assert_eq!(sick["kind"], "queue_halted", "{told}");
    assert!(sick["reason"].as_str().unwrap().contains("no connection"), "{told}");
    celeriac.shutdown().await.unwrap();
}

/// To take the program out of service, or to kill it, would make one slow task a fault of all.
#[actix_web::test]
async fn a_queue_that_does_not_answer_is_a_warning() {
    let celeriac = memory().await;
    let gate = Gate::new();
    let task = blocks_its_event_loop::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    let (status, told) = probe(&celeriac, "/health/ready").await;
    assert_eq!((status, &told["severity"]), (200, &json!("warning")), "{told}");
    let troubles = told["troubles"].as_array().unwrap();
    let io = troubles.iter().find(|trouble| trouble["queue"] == "io").expect("it is named");
    assert_eq!(io["kind"], "queue_silent", "{told}");
    gate.open();
    task.get(LONG).await.unwrap();
    celeriac.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_program_that_ends_is_alive_and_not_ready() {
    let celeriac = memory().await;
    celeriac.shutdown().await.unwrap();
    let (status, told) = probe(&celeriac, "/health/ready").await;
    assert_eq!((status, &told["troubles"][0]["kind"]), (503, &json!("shutting_down")), "{told}");
    assert_eq!(probe(&celeriac, "/health/live").await.0, 200);
}

/// Some load balancers ask so.
#[actix_web::test]
async fn a_probe_may_ask_with_head() {
    let celeriac = memory().await;
    let app = init_service(App::new().service(health(&celeriac))).await;
    for path in ["/health", "/health/live", "/health/ready"] {
        let request = TestRequest::with_uri(path).method(Method::HEAD).to_request();
        let response = app.call(request).await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(response.status().as_u16(), 200, "{path}");
    }
    celeriac.shutdown().await.unwrap();
}
