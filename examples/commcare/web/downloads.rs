//! Downloads: exports that Soil shows, in one part or several.

use actix_web::{HttpResponse, web};
use celeriac::Celeriac;
use celeriac::soil::PartialFailure;
use serde::Deserialize;
use serde_json::json;

use super::{Problem, domain};
use crate::tasks::export;

/// More parts than anybody wants.
const MOST_PARTS: u64 = 100;

#[derive(Deserialize)]
pub struct Wanted {
    domain: Option<String>,
    parts: Option<u64>,
    owner: Option<String>,
    fail: Option<u8>,
}

#[derive(Deserialize)]
pub struct Asked {
    ids: String,
}

/// `POST /downloads` with `{"domain": "demo", "parts": 3, "owner": "amina"}`; with `"fail": 1` or `2` one that fails, in that
/// way. Who asks again while it is being made gets the same ids.
pub async fn start(wanted: web::Json<Wanted>) -> Result<HttpResponse, Problem> {
    let domain = domain(wanted.domain.as_deref())?;
    let mut ids = Vec::new();
    if let Some(option) = wanted.fail {
        ids.push(export::failing_export::delay(domain, option).await?.id().clone());
    } else {
        let parts = wanted.parts.unwrap_or(1).clamp(1, MOST_PARTS);
        for call in export::download_in_parts(&domain, parts, wanted.owner.as_deref().unwrap_or("nobody")) {
            ids.push(call.delay().await?.id().clone());
        }
    }
    Ok(HttpResponse::Accepted().json(json!({ "downloads": ids })))
}

/// `GET /downloads?ids=a,b`: all of them as one.
pub async fn status(
    celeriac: web::Data<Celeriac>,
    asked: web::Query<Asked>,
) -> Result<HttpResponse, Problem> {
    let ids = asked.ids.split(',').filter(|id| !id.is_empty()).take(MOST_PARTS as usize);
    let group = celeriac.soil().group_status(ids, PartialFailure::Fails).await.map_err(Problem::internal)?;
    Ok(HttpResponse::Ok().insert_header(("Cache-Control", "no-store")).json(group))
}
