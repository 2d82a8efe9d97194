//! The queues as they are, and the levers of who looks after them.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use celeriac::Celeriac;
use celeriac::actors::QueueStatus;
use celeriac::catalogue::{QueueRow, format_span};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Problem;

/// A slip of the finger is not to cost all memory.
const MOST_WORKERS: usize = 10_000;

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// What the catalogue promises and what there is, side by side.
fn queue(row: &QueueRow, now: &QueueStatus) -> Value {
    let wait = &now.time_to_start;
    let percent = (wait.target.is_some() && wait.count > 0)
        .then(|| f64::from(u32::try_from(wait.within_target * 1000 / wait.count).unwrap_or(0)) / 10.0);
    json!({
        "name": now.name,
        "description": row.description,
        "notes": row.notes,
        "typical_duration": row.typical_duration,
        "io_bound": row.io_bound,
        "pool": now.pool,
        "target_class": row.target_class.map(|class| class.as_str()),
        "target": row.target.map(format_span),
        "target_comment": row.target_comment,
        "workers": now.workers,
        "ready": now.ready,
        "scheduled": now.scheduled,
        "running": now.running,
        "blockage_ms": millis(now.blockage),
        "time_to_start": {
            "count": wait.count,
            "p50_ms": millis(wait.p50),
            "p95_ms": millis(wait.p95),
            "max_ms": millis(wait.max),
            "within_target_percent": percent,
        },
        "done": now.done,
        "failed": now.failed,
        "retried": now.retried,
        "requeued": now.requeued,
        "revoked": now.revoked,
        "dead": now.dead,
        "panics": now.panics,
        "stuck": now.stuck,
        "paused": now.paused,
        "halted": now.halted,
    })
}

/// `GET /queues.json`
pub async fn list(celeriac: web::Data<Celeriac>) -> Result<HttpResponse, Problem> {
    let now = celeriac.queues().await?;
    let rows = &celeriac.catalogue().queues;
    let of_row = |now: &QueueStatus| rows.iter().find(|row| row.name == now.name).map(|row| queue(row, now));
    let queues: Vec<Value> = now.iter().filter_map(of_row).collect();
    // One whose event loop is blocked, or whose actor is being built anew.
    let body = json!({ "queues": queues, "missing": now.missing });
    Ok(HttpResponse::Ok().insert_header(("Cache-Control", "no-store")).json(body))
}

/// `POST /queues/{queue}/pause`
pub async fn pause(celeriac: web::Data<Celeriac>, queue: web::Path<String>) -> Result<HttpResponse, Problem> {
    celeriac.pause(&queue).await?;
    Ok(HttpResponse::Ok().json(json!({ "queue": *queue, "paused": true })))
}

/// `POST /queues/{queue}/resume`
pub async fn resume(
    celeriac: web::Data<Celeriac>,
    queue: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    celeriac.resume(&queue).await?;
    Ok(HttpResponse::Ok().json(json!({ "queue": *queue, "paused": false })))
}

/// So many workers.
#[derive(Deserialize)]
pub struct Size {
    workers: usize,
}

/// `POST /queues/{queue}/resize` with `{"workers": 8}`
pub async fn resize(
    celeriac: web::Data<Celeriac>,
    queue: web::Path<String>,
    size: Result<web::Json<Size>, actix_web::Error>,
) -> Result<HttpResponse, Problem> {
    let explain = |error| Problem::bad(format!("resize takes {{\"workers\": a whole number}}: {error}"));
    let workers = size.map_err(explain)?.workers;
    if workers > MOST_WORKERS {
        return Err(Problem::bad(format!(
            "{workers} workers are more than this page gives ({MOST_WORKERS})"
        )));
    }
    celeriac.resize(&queue, workers).await?;
    Ok(HttpResponse::Ok().json(json!({ "queue": *queue, "workers": workers })))
}
