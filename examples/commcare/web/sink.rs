//! The other side: a server that takes analytics, SMS, logs and repeat records, keeps count, and is not always well.
//!
//! It has a database file of its own and knows nothing of the program but what is posted to it. So what it counted can
//! be held against what the program says it sent.

use std::path::Path;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::Value;

use super::Problem;
use crate::db::Database;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS received (kind TEXT, id TEXT, hits INTEGER NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refused (
    kind TEXT, id TEXT, status INTEGER, hits INTEGER NOT NULL, PRIMARY KEY (kind, id, status)) WITHOUT ROWID;
";

/// What it has received.
pub struct Sink {
    db: Database,
}

/// What it has counted of one kind.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Different ids taken.
    pub ids: usize,
    /// Posts taken; more than ids if something was sent again.
    pub hits: usize,
    /// Different ids answered with 503.
    pub busy: usize,
    /// Different ids answered with 400.
    pub bad: usize,
}

impl Sink {
    pub fn open(data: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        Ok(Self { db: Database::open_with(&data.join("sink.sqlite3"), SCHEMA, "NORMAL")? })
    }

    /// What was counted of `kind`, of ids that begin with `prefix`.
    pub fn counted(&self, kind: &str, prefix: &str) -> rusqlite::Result<Counted> {
        let db = self.db.read()?;
        let sql = "SELECT count(*), coalesce(sum(hits), 0) FROM received WHERE kind = ?1 AND substr(id, 1, length(?2)) = ?2";
        let (ids, hits) = db.query_row(sql, [kind, prefix], |r| Ok((r.get(0)?, r.get(1)?)))?;
        let sql =
            "SELECT count(*) FROM refused WHERE kind = ?1 AND substr(id, 1, length(?2)) = ?2 AND status = ?3";
        let refused = |status: u16| db.query_row(sql, (kind, prefix, status), |r| r.get(0));
        Ok(Counted { ids, hits, busy: refused(503)?, bad: refused(400)? })
    }

    /// What it answers to a post, and notes.
    fn take(&self, kind: &str, id: &str, body: &[u8]) -> rusqlite::Result<(StatusCode, &'static str)> {
        self.db.write(|tx| {
            let sql = "SELECT count(*) FROM refused WHERE kind = ? AND id = ? AND status = 503";
            let refused_before: u32 = tx.query_row(sql, [kind, id], |r| r.get(0))?;
            let (status, text) = judge(kind, id, body, refused_before > 0);
            if status.is_success() {
                let sql = "INSERT INTO received VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET hits = hits + 1";
                tx.execute(sql, [kind, id])?;
            } else {
                let sql = "INSERT INTO refused VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE SET hits = hits + 1";
                tx.execute(sql, (kind, id, status.as_u16()))?;
            }
            Ok((status, text))
        })
    }
}

/// 400 for what it cannot use, 503 for one id in five when it sees it first, and always at the address `down`.
fn judge(kind: &str, id: &str, body: &[u8], refused_before: bool) -> (StatusCode, &'static str) {
    let Ok(Value::Object(body)) = serde_json::from_slice(body) else {
        return (StatusCode::BAD_REQUEST, "the body is no JSON object");
    };
    if kind == "analytics" && body.get("email").and_then(Value::as_str).is_none_or(str::is_empty) {
        return (StatusCode::BAD_REQUEST, "an event needs an `email`");
    }
    if kind == "down" || (is_unlucky(id) && !refused_before) {
        return (StatusCode::SERVICE_UNAVAILABLE, "too busy, come again");
    }
    (StatusCode::OK, "taken")
}

/// One id in five, always the same ones (by FNV-1a).
pub fn is_unlucky(id: &str) -> bool {
    let hash =
        id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    (hash >> 32).is_multiple_of(5)
}

/// `POST /sink/{kind}`
pub async fn receive(
    sink: web::Data<Sink>,
    kind: web::Path<String>,
    request: HttpRequest,
    body: web::Bytes,
) -> Result<HttpResponse, Problem> {
    let kind = kind.into_inner();
    if !["analytics", "sms", "sumologic", "repeater", "down"].contains(&kind.as_str()) {
        return Err(Problem::not_found(format!("this sink takes no `{kind}`")));
    }
    let id =
        request.headers().get("Idempotency-Key").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    if id.is_empty() {
        return Err(Problem::bad("a post needs an `Idempotency-Key`"));
    }
    let sink: Arc<Sink> = sink.into_inner();
    let (status, text) = web::block(move || sink.take(&kind, &id, &body)).await??;
    Ok(HttpResponse::build(status).body(text))
}
