//! The source pollers as they are, and the lever that has one look now.

use actix_web::{HttpResponse, web};
use celeriac::Celeriac;
use serde_json::json;

use super::Problem;

/// `GET /pollers.json`
pub async fn list(celeriac: web::Data<Celeriac>) -> Result<HttpResponse, Problem> {
    let now = celeriac.pollers().await?;
    let body = json!({ "pollers": now.replies, "missing": now.missing });
    Ok(HttpResponse::Ok().insert_header(("Cache-Control", "no-store")).json(body))
}

/// `POST /pollers/{poller}/run`: it looks now, without waiting for its interval.
pub async fn run(celeriac: web::Data<Celeriac>, poller: web::Path<String>) -> Result<HttpResponse, Problem> {
    celeriac.run_poller(&poller).await?;
    Ok(HttpResponse::Ok().json(json!({ "poller": *poller })))
}
