//! Posts to the outside: analytics, device logs, SMS, repeaters. And the sink that takes them by default.

use std::cell::OnceCell;
use std::time::Duration;

use actix_web::{HttpResponse, Responder, post, web};
use awc::Client;
use celeriac::task;
use rusqlite::params;

use crate::database;
use crate::settings::settings;

/// Why a post was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// The other side answered with an error.
    #[error("{url} answered {status}")]
    Status { url: String, status: u16 },
    /// There was no answer.
    #[error("no answer from {url}: {error}")]
    Network { url: String, error: String },
}

impl PostError {
    /// A 400 is our own fault, and no other attempt would mend it; all else may pass (HQ's `analytics_task`).
    fn is_transient(&self) -> bool {
        !matches!(self, Self::Status { status: 400, .. })
    }
}

/// Posts `{kind}/{id}` to the endpoint.
pub async fn post_to(kind: &str, id: &str) -> Result<(), PostError> {
    thread_local! { static CLIENT: OnceCell<Client> = const { OnceCell::new() } }
    let client = CLIENT.with(|client| {
        client.get_or_init(|| Client::builder().timeout(Duration::from_secs(20)).finish()).clone()
    });
    let url = format!("{}/{kind}/{id}", settings().endpoint);
    let answer = client
        .post(&url)
        .send_json(&serde_json::json!({ "id": id }))
        .await
        .map_err(|e| PostError::Network { url: url.clone(), error: e.to_string() })?;
    let status = answer.status();
    if status.is_success() { Ok(()) } else { Err(PostError::Status { url, status: status.as_u16() }) }
}

/// Tells an analytics service of an event.
#[task(queue = "analytics_queue", ignore_result = false, max_retries = 3, default_retry_delay = "200ms", retry_if = PostError::is_transient)]
pub async fn track_event(event_id: String) -> Result<(), PostError> {
    post_to("analytics", &event_id).await
}

/// Forwards a device log.
#[task(queue = "sumologic_logs_queue", default_retry_delay = "200ms", retry_if = PostError::is_transient)]
pub async fn forward_device_log(log_id: String) -> Result<(), PostError> {
    post_to("logs", &log_id).await
}

/// Sends an SMS through the gateway.
#[task(queue = "sms_queue", default_retry_delay = "200ms", retry_if = PostError::is_transient)]
pub async fn send_sms(sms_id: String) -> Result<(), PostError> {
    post_to("sms", &sms_id).await
}

/// Forwards a form or case to the system that a project connected.
#[task(queue = "repeat_record_queue", default_retry_delay = "200ms", retry_if = PostError::is_transient)]
pub async fn process_repeat_record(record_id: String) -> Result<(), PostError> {
    post_to("repeats", &record_id).await
}

/// The sink: takes what is posted, once per id. An id that ends in `-bad` is refused; one that ends in `-flaky` only
/// at first.
#[post("/sink/{kind}/{id}")]
pub async fn sink(what: web::Path<(String, String)>) -> impl Responder {
    let (kind, id) = what.into_inner();
    if id.ends_with("-bad") {
        return HttpResponse::BadRequest().body("this one is never taken");
    }
    let taken = web::block(move || -> rusqlite::Result<bool> {
        let connection = database::open()?;
        let flaky = id.ends_with("-flaky");
        connection.query_row(
            "INSERT INTO posts (kind, id, hits, taken) VALUES (?1, ?2, 1, ?3)
             ON CONFLICT (kind, id) DO UPDATE SET hits = hits + 1, taken = 1 RETURNING taken",
            params![kind, id, !flaky],
            |row| row.get(0),
        )
    })
    .await;
    match taken {
        Ok(Ok(true)) => HttpResponse::NoContent().finish(),
        Ok(Ok(false)) => HttpResponse::ServiceUnavailable().body("come again"),
        other => HttpResponse::InternalServerError().body(format!("{other:?}")),
    }
}
