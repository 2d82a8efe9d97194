//! Exports: started by a click, downloaded when ready.

use actix_files::NamedFile;
use actix_web::http::header::{ContentDisposition, DispositionParam, DispositionType};
use actix_web::{HttpResponse, web};
use rusqlite::OptionalExtension;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Problem, accepted, domain};
use crate::hq::hq;
use crate::tasks::export;

#[derive(Deserialize)]
pub struct Wanted {
    domain: Option<String>,
}

/// `POST /exports` with `{"domain": "demo"}`
pub async fn start(wanted: web::Json<Wanted>) -> Result<HttpResponse, Problem> {
    let domain = domain(wanted.domain.as_deref())?;
    let id = uuid::Uuid::now_v7().to_string();
    let file = format!("{domain}-{id}.xlsx");
    let row = (id.clone(), domain.clone(), file.clone());
    web::block(move || {
        hq().db.write(|tx| {
            let known: bool =
                tx.query_row("SELECT EXISTS (SELECT 1 FROM domain WHERE name = ?)", [&row.1], |r| r.get(0))?;
            if !known {
                return Err(Problem::not_found(format!(
                    "there is no domain `{}`; upload cases first",
                    row.1
                )));
            }
            Ok(export::register(tx, &row.0, &row.1, &row.2)?)
        })
    })
    .await??;
    let task = export::for_a_user(&domain, &id).id(format!("export:{id}")).delay().await?;
    Ok(accepted(
        task.id(),
        json!({ "export": id, "domain": domain, "download_url": format!("/exports/{file}") }),
    ))
}

/// `GET /exports`: the latest.
pub async fn list() -> Result<HttpResponse, Problem> {
    let exports = web::block(|| -> rusqlite::Result<Vec<Value>> {
        let db = hq().db.read()?;
        let mut exports = db.prepare(
            "SELECT file, domain, rows, last_build_duration FROM export WHERE ready_at IS NOT NULL
             ORDER BY ready_at DESC LIMIT 20",
        )?;
        let exports = exports.query_map([], |r| {
            Ok(json!({
                "file": r.get::<_, String>(0)?, "domain": r.get::<_, String>(1)?, "rows": r.get::<_, u64>(2)?,
                "build_ms": r.get::<_, u64>(3)?,
            }))
        })?;
        exports.collect()
    })
    .await??;
    Ok(HttpResponse::Ok().json(json!({ "exports": exports })))
}

/// `GET /exports/{file}`: a file that the table of exports knows by this very name, so no path leads elsewhere.
pub async fn download(file: web::Path<String>) -> Result<NamedFile, Problem> {
    let name = file.into_inner();
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !name.strip_suffix(".xlsx").is_some_and(|stem| !stem.is_empty() && stem.bytes().all(good)) {
        return Err(Problem::bad(format!("`{name}` is no name of an export")));
    }
    let wanted = name.clone();
    let ready: Option<Option<i64>> = web::block(move || {
        let sql = "SELECT ready_at FROM export WHERE file = ?";
        hq().db.read()?.query_row(sql, [wanted], |r| r.get(0)).optional()
    })
    .await??;
    match ready {
        None => return Err(Problem::not_found(format!("there is no export `{name}`"))),
        Some(None) => return Err(Problem::not_found(format!("`{name}` is not ready; ask its task"))),
        Some(Some(_)) => {}
    }
    let file = NamedFile::open_async(hq().exports.join(&name)).await?;
    Ok(file.set_content_disposition(ContentDisposition {
        disposition: DispositionType::Attachment,
        parameters: vec![DispositionParam::Filename(name)],
    }))
}
