//! What analytics, SMS, device logs and repeat records have in common: a row is posted to somebody else's server.
//!
//! The row is the truth and says whether it was delivered. The post carries the row's id as `Idempotency-Key`, because
//! a crash between the answer and the note of it means another post, and only the receiver can tell.

use std::time::Duration;

use actix_web::rt::task::spawn_blocking;
use rusqlite::OptionalExtension;

use crate::hq::{hq, now_ms};

/// Why a row was not delivered.
#[derive(Debug, thiserror::Error)]
pub enum Undelivered {
    #[error("there is no {kind} `{id}` to send")]
    Gone { kind: &'static str, id: String },
    #[error("{url} answered {status}: {body}")]
    Answer { url: String, status: u16, body: String },
    #[error("{url} cannot be reached: {error}")]
    Unreachable { url: String, error: String },
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
    #[error("the thread that reads the database is gone: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

/// The predicate of HQ's `analytics_task`: what the other side calls our fault is not sent again.
pub fn is_transient(error: &Undelivered) -> bool {
    match error {
        Undelivered::Gone { .. } => false,
        Undelivered::Answer { status, .. } => !(400..500).contains(status) || matches!(status, 408 | 429),
        _ => true,
    }
}

thread_local! {
    /// One for each event loop: it keeps connections open.
    static CLIENT: awc::Client = awc::Client::builder().timeout(Duration::from_secs(10)).finish();
}

/// Posts one row to `{endpoint}/{path}`, unless that was done before.
pub async fn deliver(kind: &'static str, path: &str, id: &str) -> Result<(), Undelivered> {
    let row = id.to_owned();
    let payload: Option<(String, Option<i64>)> = spawn_blocking(move || {
        let sql = "SELECT payload, delivered_at FROM outgoing WHERE id = ? AND kind = ?";
        hq().db.read()?.query_row(sql, [row.as_str(), kind], |r| Ok((r.get(0)?, r.get(1)?))).optional()
    })
    .await??;
    let payload = match payload {
        None => return Err(Undelivered::Gone { kind, id: id.to_owned() }),
        Some((_, Some(_))) => return Ok(()),
        Some((payload, None)) => payload,
    };
    let url = format!("{}/{path}", hq().endpoint);
    let request = CLIENT.with(|client| client.post(&url)).insert_header(("Idempotency-Key", id));
    let mut answer = request
        .content_type("application/json")
        .send_body(payload)
        .await
        .map_err(|error| Undelivered::Unreachable { url: url.clone(), error: error.to_string() })?;
    if !answer.status().is_success() {
        let body = answer.body().limit(1 << 10).await.unwrap_or_default();
        let body = String::from_utf8_lossy(&body).into_owned();
        return Err(Undelivered::Answer { url, status: answer.status().as_u16(), body });
    }
    let row = id.to_owned();
    spawn_blocking(move || {
        hq().db.write(|tx| {
            tx.execute("UPDATE outgoing SET delivered_at = ? WHERE id = ?", (now_ms(), row))?;
            Ok::<_, rusqlite::Error>(())
        })
    })
    .await??;
    Ok(())
}

/// Writes a row to be posted; once, however often it is called.
pub fn queue(
    tx: &rusqlite::Connection,
    id: &str,
    kind: &str,
    payload: &serde_json::Value,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO outgoing (id, kind, payload) VALUES (?, ?, ?) ON CONFLICT DO NOTHING";
    tx.execute(sql, (id, kind, payload.to_string())).map(|_| ())
}
